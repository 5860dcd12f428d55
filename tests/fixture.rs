//! A folder of its own for each test, and the binary run in it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use forebay::demo::{DemoOptions, draw};
use forebay_datasets::seed::Seed;
use serde_json::Value;

/// A folder that is deleted at the end of its test.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    /// Environment of every run.
    variables: BTreeMap<String, String>,
}

/// What a run of the binary said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn of(output: Output) -> Said {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        Said {
            code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The last line of stdout as JSON.
    pub(crate) fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_else(|| panic!("no result; {}", self.stderr));
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The run did what it should.
    #[track_caller]
    pub(crate) fn done(self) -> Said {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The run was refused with this code, and one line of it says `text`. There is no panic in it.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, text: &str) -> Said {
        let Said { stdout, stderr, .. } = &self;
        assert_eq!(self.code, code, "stdout: {stdout}\nstderr: {stderr}");
        assert!(stderr.lines().any(|line| line.contains(text)), "no line says {text}: {stderr}");
        assert!(!stderr.contains("panicked at"), "{stderr}");
        self
    }
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { folder: tempfile::tempdir().expect("a folder for a test"), variables: BTreeMap::new() }
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_string(), value.to_string());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Draws a dataset of about 60 images in 8 classes, some of them broken, as `images`.
    pub(crate) fn draw(&self) {
        draw(&self.path("images"), Seed(0), DemoOptions { scale: 0.1, side: (24, 96) })
            .expect("it can be drawn");
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a name below the folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file of the test");
    }

    /// An RGB PNG whose pixels depend on `seed`.
    pub(crate) fn write_png(&self, name: &str, width: u32, height: u32, seed: u64) -> image::RgbImage {
        let mut stream = Seed(seed).stream("pixels");
        let pixels = (0..width * height * 3).map(|_| stream.bits() as u8).collect();
        let image = image::RgbImage::from_raw(width, height, pixels).expect("as many bytes");
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a name below the folder")).expect("a folder");
        image.save(path).expect("a PNG of the test");
        image
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(arguments).current_dir(self.folder.path()).env_clear().envs(&self.variables);
        command.env("HOME", self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the binary with these arguments, split at spaces.
    pub(crate) fn run(&self, arguments: &str) -> Said {
        self.run_with(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    pub(crate) fn run_with(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).output().expect("the binary starts"))
    }

    /// Starts the binary and kills it with SIGKILL as soon as `when` is true; false if it had ended by itself.
    pub(crate) fn run_and_kill(&self, arguments: &str, when: impl Fn() -> bool) -> bool {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let mut child =
            self.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        while !when() {
            if child.try_wait().expect("a child").is_some() {
                return false;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().expect("it can be killed");
        !child.wait().expect("a child").success()
    }

    /// Every file below a folder: relative name and bytes.
    pub(crate) fn files(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        files(&self.path(name))
    }
}

/// Every file below a folder: relative name and bytes.
pub(crate) fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let mut bytes = Vec::new();
                // A file that is being renamed at this moment has gone.
                if std::fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)).is_ok() {
                    let name = path.strip_prefix(root).expect("below the root");
                    found.insert(name.to_string_lossy().into_owned(), bytes);
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}
