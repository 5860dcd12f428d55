//! What `forebay --version` says of the build: the commit that it is of, and the machine that it is for.
//!
//! The commit is looked up for optimised builds only. Cargo compiles a package anew whenever its build script had to run
//! again, which after every commit would cost whoever works on the program minutes, to name a commit that only they see.

use std::path::Path;
use std::process::Command;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_optimised = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = match is_optimised {
        true => commit(root),
        false => "debug build".to_string(),
    };
    println!("cargo::rustc-env=FOREBAY_COMMIT={commit}");
    println!("cargo::rustc-env=FOREBAY_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    println!("cargo::rerun-if-changed=pipeline/build.rs");
    if is_optimised {
        for path in watched(root) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// What `git` says of the sources in `root`; `None` where there is none, or where they are in a repository of something else.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let run = |arguments: &[&str]| {
        let mut command = Command::new("git");
        // Whoever builds from a hook of git has these set for another repository.
        command.arg("-C").arg(root).args(arguments).env_remove("GIT_DIR").env_remove("GIT_INDEX_FILE");
        let output = command.output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
    };
    let top = run(&["rev-parse", "--show-toplevel"])?;
    let is_ours = Path::new(&top).canonicalize().ok()? == root.canonicalize().ok()?;
    is_ours.then(|| run(arguments)).flatten()
}

/// The commit in short, `-dirty` after it where tracked files differ from it; `unknown` without a repository, as in a tarball.
pub(crate) fn commit(root: &Path) -> String {
    git(root, &["describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"])
        .map_or("commit unknown".to_string(), |commit| format!("commit {commit}"))
}

/// What changes when the commit does, or when the sources begin to differ from it: in a worktree the first lie elsewhere.
/// A path that is missing is left out, since Cargo would take it for changed every time.
fn watched(root: &Path) -> Vec<String> {
    let head = git(root, &["symbolic-ref", "--quiet", "HEAD"]);
    let names = ["HEAD".to_string(), "logs/HEAD".to_string(), "packed-refs".to_string()];
    let of_git =
        names.into_iter().chain(head).filter_map(|name| git(root, &["rev-parse", "--git-path", &name]));
    let sources = ["Cargo.toml", "Cargo.lock", "pipeline", "datasets", "stages"].map(String::from);
    of_git.chain(sources).filter(|path| root.join(path).exists()).collect()
}
