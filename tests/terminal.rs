//! What the program says of itself, and what it writes of names that come from outside.

use std::io::Write;
use std::process::{Command, Stdio};

use forebay_datasets::manifest::Manifest;

use crate::fixture::{Place, Said};

#[path = "../pipeline/build.rs"]
#[allow(dead_code)]
mod build_script;

#[test]
fn the_version_in_short_is_a_name_and_a_number_and_in_long_says_what_was_built() {
    let place = Place::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(place.run("-V").done().stdout, format!("forebay {version}\n"));
    let long = place.run("--version").done().stdout;
    // Every change of the sources would else compile the whole package twice.
    assert!(long.starts_with(&format!("forebay {version} (debug build, ")), "{long}");
    assert!(long.contains("features: ") && long.lines().count() == 1, "{long}");
}

#[test]
fn a_build_names_its_commit_in_a_worktree_and_none_outside_of_a_repository() {
    let place = Place::new();
    let git = |folder: &str, arguments: &str| {
        let mut command = Command::new("git");
        command.arg("-C").arg(place.path(folder)).args(arguments.split(' '));
        command.env_clear().env("HOME", place.path("")).env("PATH", std::env::var_os("PATH").unwrap());
        for name in ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"] {
            command.env(name, "a@b");
        }
        let output = command.output();
        output.is_ok_and(|output| output.status.success())
    };
    place.write("tree/file", b"1");
    assert_eq!(build_script::commit(&place.path("tree")), "commit unknown", "a tarball");
    if !git("tree", "init -q") {
        // Whoever builds without git has this much.
        return;
    }
    assert!(git("tree", "add file") && git("tree", "commit -q -m one"));
    let named = build_script::commit(&place.path("tree"));
    let hash = named.strip_prefix("commit ").unwrap();
    assert!(hash.len() >= 10 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{named}");
    assert!(git("tree", "worktree add -q ../other"));
    assert_eq!(build_script::commit(&place.path("other")), named);
    place.write("other/file", b"2");
    assert_eq!(build_script::commit(&place.path("other")), format!("{named}-dirty"));
    // Unpacked below a repository of something else.
    place.write("tree/inside/file", b"3");
    assert_eq!(build_script::commit(&place.path("tree/inside")), "commit unknown");
}

#[test]
fn a_shell_completes_commands_options_and_the_words_of_a_choice() {
    let place = Place::new();
    place.write("forebay.bash", place.run("completions bash").done().stdout.as_bytes());
    let complete = |words: &[&str]| {
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let script = format!(
            "source forebay.bash; COMP_WORDS=({}); COMP_CWORD={}; _forebay forebay '{last}' '{before}'; echo \"${{COMPREPLY[@]}}\"",
            words.join(" ").replace("''", "\"\""),
            words.len() - 1
        );
        let output = Command::new("bash").args(["-c", &script]).current_dir(place.path("")).output().ok()?;
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let Some(networks) = complete(&["forebay", "train", "--arch", "res"]) else { return };
    assert_eq!(networks.split_whitespace().next(), Some("resnet18"), "{networks}");
    for (words, expected) in [
        (&["forebay", "trai"][..], "train"),
        (&["forebay", "train", "--img-s"], "--img-size"),
        (&["forebay", "train", "--learning-r"], "--learning-rate"),
        (&["forebay", "plan", "train", "--optimizer", "adamw"], "adamw"),
        (&["forebay", "completions", "z"], "zsh"),
        (&["forebay", "bench", "model", "--mod"], "--mode"),
    ] {
        assert_eq!(complete(words).unwrap().trim(), expected, "{words:?}");
    }
    place.run("completions tcsh").refused(2, "choose one of bash, elvish, fish, powershell, zsh");
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let place = Place::new();
    place.run("man --dir pages").done();
    for name in ["forebay", "forebay-train", "forebay-plan-train", "forebay-bench-model", "forebay-man"] {
        let page = std::fs::read_to_string(place.path(&format!("pages/{name}.1"))).unwrap();
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{page}");
    }
    let page = place.run("man train").done().stdout;
    assert_eq!(page, std::fs::read_to_string(place.path("pages/forebay-train.1")).unwrap());
    assert!(page.contains("\\-\\-arch") && page.contains(".SH NETWORK"), "{page}");
    place.run("man trian").refused(2, "there is no command trian");
    place.write("file", b"");
    place.run("man --dir file/x").refused(1, "write manual pages to file/x");
}

/// Folder names that mean something to the formats that a run writes; `/` cannot be in one.
const HOSTILE: [&str; 10] = [
    "<script>alert(1)<",
    "a|b",
    "](x) `code`",
    "\u{1b}[2J",
    "a\u{202e}b",
    "a\u{85}b",
    "\u{1f600}",
    "two\nlines",
    "# x",
    "- \"x\"",
];

#[test]
fn no_class_name_breaks_out_of_a_file_that_is_written() {
    let place = Place::new();
    for (class, name) in HOSTILE.iter().enumerate() {
        for index in 0..4u64 {
            place.write_png(&format!("in/{name}/{index}.png"), 16, 16, class as u64 * 10 + index);
        }
    }
    place.run("prepare in shards --size 16 --fit crop").done();
    place.run("train shards --batch-size 8 --epochs 1 --out run").done();
    let read = |name: &str| String::from_utf8(std::fs::read(place.path(name)).unwrap()).unwrap();
    // One class a line, and every character prints.
    let labels = read("run/labels.txt");
    assert_eq!(labels.lines().count(), HOSTILE.len(), "{labels}");
    for line in [r"\u{1b}[2J", r"a\u{202e}b", r"a\u{85}b", "\u{1f600}", r"two\nlines", "# x", "- \"x\""] {
        assert!(labels.lines().any(|label| label == line), "{line} in\n{labels}");
    }
    for file in ["labels.txt", "summary.md", "report.html", "loss.svg", "config.toml", "summary.json"] {
        let text = read(&format!("run/{file}"));
        assert!(text.lines().all(forebay_datasets::escape::is_printable), "{file}:\n{text}");
    }
    let (summary, report) = (read("run/summary.md"), read("run/report.html"));
    // The page has one script, its own.
    assert!(!summary.contains("<script") && report.matches("<script").count() == 1, "{summary}");
    assert!(report.contains("<th scope=\"row\">&lt;script&gt;alert(1)&lt;</th>"), "{report}");
    let rows: Vec<&str> = summary.lines().skip_while(|line| !line.starts_with("| class")).skip(2).collect();
    let rows = &rows[..HOSTILE.len()];
    for row in rows {
        // A cell ends at a bar without a backslash before it.
        assert_eq!(row.replace("\\\\", "").replace("\\|", "").matches('|').count(), 6, "{row}");
    }
    let card = read("shards/README.md");
    let names: Vec<&str> = card.lines().filter(|line| line.starts_with("          '")).collect();
    assert_eq!(names.len(), HOSTILE.len(), "{card}");
    assert!(names.iter().any(|line| line.ends_with(": \"\u{1f600}\"")), "{card}");
    assert!(!card.contains("\\ud83d"), "YAML has no surrogate pairs\n{card}");
}

#[test]
fn no_password_of_an_address_is_said_or_written() {
    let mut place = Place::new();
    for index in 0..8u64 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 16, 16, index);
    }
    let train = "train in --size 16 --batch-size 4 --epochs 1 --split none --out run";
    for endpoint in ["--endpoint http://me:geheim@host:1", "--set store.endpoint='http://me:geheim@host:1'"] {
        for command in [train, "inspect in", "plan train in", "prepare s3://b/x out --size 16"] {
            let said = place.run(&format!("{command} {endpoint}"));
            assert_ne!(said.code, 0, "{command}: {}", said.stdout);
            assert!(
                !(said.stdout + &said.stderr).contains("geheim"),
                "{command} {endpoint}: {}",
                said.stderr
            );
        }
    }
    for address in ["ich:geheim@host", "http://ich:geheim@host", "http://ich:ge/heim@host"] {
        place.set("HF_ENDPOINT", address);
        let said = place.run(&format!("{train} --weights hf:a/b")).refused(2, "HF_ENDPOINT");
        assert!(!said.stderr.contains("heim") && !said.stderr.contains("ich:"), "{}", said.stderr);
    }
    assert!(!place.path("run").exists());
}

#[test]
fn no_key_of_a_manifest_forges_a_line() {
    let place = Place::new();
    for index in 0..8u64 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 16, 16, index);
    }
    place.run("prepare in shards --size 16 --fit crop").done();
    let mut manifest = Manifest::parse(&std::fs::read(place.path("shards/manifest.json")).unwrap()).unwrap();
    manifest.shards[0].key = "data/x\u{1b}[1A\nforged: 1 shards, all as the manifest says".to_string();
    place.write("shards/manifest.json", &manifest.to_bytes());
    let said = place.run("verify shards");
    assert_ne!(said.code, 0, "{}", said.stdout);
    assert!(!said.stderr.contains('\u{1b}') && said.stderr.contains("forged"), "{}", said.stderr);
    let is_forged = |line: &str| line.trim_start_matches("forebay: ").starts_with("forged");
    assert!(!said.stderr.lines().any(is_forged), "{}", said.stderr);
}

#[test]
fn an_epoch_on_cached_features_has_no_images_per_second() {
    let place = Place::new();
    for index in 0..24u64 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 16, 16, index);
    }
    let said = place
        .run("train in --size 16 --batch-size 4 --epochs 2 --log-every 1 --freeze backbone --out run")
        .done();
    assert_eq!(said.stdout.matches("  cached features\n").count(), 2, "{}", said.stdout);
    assert!(!said.stdout.contains("images/s"), "{}", said.stdout);
    for file in ["metrics.jsonl", "steps.jsonl", "summary.json", "summary.md", "report.html"] {
        let text = std::fs::read_to_string(place.path(&format!("run/{file}"))).unwrap();
        assert!(!text.contains("images/s") && !text.contains("images_per_second"), "{file}: {text}");
        let is_said = text.contains("cached features") || text.contains("cached_features_per_second");
        assert!(is_said || file == "report.html", "{file}: {text}");
    }
}

/// `script` of util-linux gives a program a terminal; where there is none this is not tested.
#[test]
fn keys_typed_in_the_live_view_stop_nothing_and_the_screen_is_given_back() {
    let place = Place::new();
    for index in 0..24u64 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 16, 16, index);
    }
    let train = "train in --size 16 --batch-size 4 --epochs 2 --split none --live --out run";
    let mut script = Command::new("script");
    script.args(["-qec", &format!("{} {train}", env!("CARGO_BIN_EXE_forebay")), "/dev/null"]);
    script.current_dir(place.path("")).env_clear().env("HOME", place.path("")).env("TERM", "xterm");
    script.env("PATH", std::env::var_os("PATH").unwrap());
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = script.spawn() else { return };
    child.stdin.take().unwrap().write_all(b"q\x1bls\n").unwrap();
    let said = Said::of(child.wait_with_output().unwrap()).done();
    let (before, rest) = said.stdout.split_once("\u{1b}[?1049h").expect("it takes the screen");
    let (_, after) = rest.rsplit_once("\u{1b}[?1049l").expect("and gives it back");
    assert!(before.contains("no validation images"), "{before}");
    for line in ["epoch   1/2", "epoch   2/2", "accuracy", "written to run"] {
        assert!(after.contains(line), "{line} in {after}");
    }
    assert!(!after.contains("interrupted"), "{after}");
}
