//! The invariants of the READMEs that the compiler cannot enforce.

use std::path::Path;

fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.to_string_lossy().replace('\\', "/"), text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    found.sort();
    found
}

#[test]
fn datasets_and_stages_name_no_tokio_and_only_train_ops_name_rayon() {
    for (path, text) in [sources("datasets/src"), sources("stages/src")].concat() {
        let code = || text.lines().filter(|line| !line.trim_start().starts_with("//"));
        assert!(!code().any(|line| line.contains("tokio")), "{path} names tokio");
        // A test may build pools to show that their size changes nothing.
        let tested = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_ops = path.contains("stages/src/train/ops") || path.ends_with("tests.rs");
        assert!(is_ops || !tested.contains("rayon::"), "{path} names rayon");
    }
}

#[test]
fn only_the_runtime_spawns() {
    for (path, text) in sources("pipeline") {
        if path.ends_with("pipeline/flow.rs") || path.contains("pipeline/flow/") {
            continue;
        }
        for word in ["spawn(", "ThreadPoolBuilder", "spawn_blocking", "thread::Builder"] {
            assert!(!text.contains(word), "{path} has {word}");
        }
    }
}

#[test]
fn no_stage_is_named_twice_and_every_file_says_what_it_is() {
    let mut names = std::collections::BTreeSet::new();
    for (path, text) in
        [sources("datasets/src"), sources("stages/src"), sources("pipeline"), sources("benches")].concat()
    {
        assert!(
            text.starts_with("//!") || text.starts_with("#![doc"),
            "{path} does not open with a sentence"
        );
        let tested = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in tested
            .lines()
            .filter(|line| line.contains("const NAME: &'static str = \"") && path.contains("/src/"))
        {
            assert!(names.insert(line.trim().to_string()), "{path}: {line} is taken");
        }
    }
    assert!(names.len() > 10, "{names:?}");
}
