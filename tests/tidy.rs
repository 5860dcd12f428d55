//! The invariants of the READMEs that the compiler cannot enforce.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The crates of the workspace: the folder of each with its sources.
const CRATES: [&str; 4] = ["datasets/src", "stages/src", "stages/train/src", "pipeline"];

/// The floors of the program, from the top: a file may name rooms of the floors below its own, and of its own.
const FLOORS: [&[&str]; 10] = [
    &["main", "commands"],
    &["trials"],
    &["demo", "model"],
    &["train"],
    &["inspection", "prepare", "weights"],
    &["feed", "hub", "predictions"],
    &["report"],
    &["plan"],
    &["options"],
    &["flow"],
];

/// Lines of code that a file may have, its tests apart: one that outgrows this is usually two ideas.
const CODE_LINES_MAX: usize = 500;

/// The files with `unsafe`, and how many times: kernels each with the test that compares them with scalar code, and calls
/// of the system that nix or std have no safe form of, without one.
const UNSAFE: [(&str, usize, Option<&str>); 10] = [
    // Vectors, and the calls of functions that use them; tests of idct, color and planes hold each against single numbers.
    ("stages/src/simd/isa.rs", 2, None),
    ("stages/src/simd/neon.rs", 19, None),
    ("stages/src/simd/stream.rs", 5, None),
    // A test of resample holds it against fast_image_resize.
    ("stages/src/simd/weigh.rs", 4, None),
    ("stages/src/simd/x86.rs", 25, None),
    ("stages/train/src/ops/product.rs", 1, Some("a_product_equals_that_of_scalar_loops")),
    ("stages/train/src/ops/mod.rs", 1, Some("zeros_of_all_threads_are_those_of_one")),
    ("pipeline/flow/candle.rs", 1, None),
    ("pipeline/flow/stop.rs", 1, None),
    ("pipeline/main.rs", 3, None),
];

/// A source file: its path from the root of the repository, the module that it is, and its code without tests and
/// comments.
struct Source {
    path: String,
    module: Vec<String>,
    text: String,
    code: String,
}

fn sources(folder: &str) -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // The build script is a program of its own, which speaks to Cargo on stdout.
            let is_source =
                path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("build.rs");
            if path.is_dir() {
                walk(&path, found);
            } else if is_source {
                found.push(path);
            }
        }
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = repository.join(folder);
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let source = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let is_test = path.ends_with("tests.rs");
        let is_code = |line: &&str| !line.trim_start().starts_with("//") && !line.trim().is_empty();
        let mut code = if is_test { Vec::new() } else { text.lines().filter(is_code).collect::<Vec<_>>() };
        while let Some(start) = code.iter().position(|line| line.trim() == "#[cfg(test)]") {
            code.drain(start..start + item(&code[start..]));
        }
        let code = code.join("\n");
        let module = path.strip_prefix(&root).unwrap().with_extension("");
        let mut module: Vec<String> =
            module.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        module.pop_if(|last| last == "mod");
        let path = path.strip_prefix(repository).unwrap().to_string_lossy().replace('\\', "/");
        Source { path, module, text, code }
    };
    paths.into_iter().map(source).collect()
}

/// How many lines an item takes, its attributes among them: up to the brace at its own depth, or its semicolon.
fn item(lines: &[&str]) -> usize {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let attributes = lines.iter().take_while(|line| line.trim_start().starts_with("#[")).count();
    let rest = &lines[attributes..];
    let is_last = |line: &&str| {
        depth(line) == depth(lines[0]) && [";", ",", "}"].iter().any(|end| line.trim_end().ends_with(end))
    };
    attributes + rest.iter().position(is_last).expect("an item ends") + 1
}

/// The paths that `code` of `module` names with `crate::` or `super::`, each as the parts of a module path.
fn named(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| is_name(c) || c == ':') {
            continue;
        }
        let mut rest = &code[at..];
        let mut path: Vec<String> = match rest.starts_with("crate::") {
            true => Vec::new(),
            false => module.to_vec(),
        };
        rest = rest.strip_prefix("crate::").unwrap_or(rest);
        while let Some(after) = rest.strip_prefix("super::") {
            path.pop();
            rest = after;
        }
        loop {
            if let Some(list) = rest.strip_prefix('{') {
                let list = list.split('}').next().unwrap_or_default();
                for item in list.split(',') {
                    let name: String = item.trim().chars().take_while(|c| is_name(*c)).collect();
                    found.push([&path[..], &[name]].concat());
                }
                break;
            }
            let name: String = rest.chars().take_while(|c| is_name(*c)).collect();
            rest = &rest[name.len()..];
            path.push(name);
            match rest.strip_prefix("::") {
                Some(after) => rest = after,
                None => {
                    found.push(path);
                    break;
                }
            }
        }
    }
    found
}

/// Which files of a crate each file names, as module paths; the crate root is not among them.
fn imports(sources: &[Source]) -> BTreeMap<&[String], BTreeSet<&[String]>> {
    let modules: BTreeSet<&[String]> = sources.iter().map(|source| source.module.as_slice()).collect();
    let of = |source: &Source| {
        named(&source.code, &source.module)
            .into_iter()
            .filter_map(|path| (1..=path.len()).rev().find_map(|n| modules.get(&path[..n]).copied()))
            .filter(|path| *path != source.module)
            .collect()
    };
    sources.iter().map(|source| (source.module.as_slice(), of(source))).collect()
}

#[test]
fn datasets_and_stages_name_no_tokio_and_only_train_ops_name_rayon() {
    for source in CRATES[..3].iter().flat_map(|folder| sources(folder)) {
        let Source { path, code, .. } = source;
        assert!(!code.contains("tokio"), "{path} names tokio");
        assert!(path.contains("stages/train/src/ops") || !code.contains("rayon::"), "{path} names rayon");
    }
}

#[test]
fn only_the_runtime_spawns() {
    for Source { path, text, .. } in sources("pipeline") {
        if path == "pipeline/flow.rs" || path.starts_with("pipeline/flow/") {
            continue;
        }
        for word in ["spawn(", "ThreadPoolBuilder", "spawn_blocking", "thread::Builder"] {
            assert!(!text.contains(word), "{path} has {word}");
        }
    }
}

#[test]
fn no_stage_is_named_twice_and_every_file_says_what_it_is() {
    let mut names = BTreeSet::new();
    for folder in CRATES.iter().chain(&["benches"]) {
        for Source { path, text, code, .. } in sources(folder) {
            assert!(
                text.starts_with("//!") || text.starts_with("#![doc"),
                "{path} does not open with a sentence"
            );
            for line in code.lines().filter(|line| line.contains("const NAME: &'static str = \"")) {
                assert!(names.insert(line.trim().to_string()), "{path}: {line} is taken");
            }
        }
    }
    assert!(names.len() > 10, "{names:?}");
}

#[test]
fn no_file_holds_more_than_one_holds_in_the_head() {
    for Source { path, code, .. } in CRATES.iter().flat_map(|folder| sources(folder)) {
        let lines = code.lines().count();
        assert!(lines <= CODE_LINES_MAX, "{path} has {lines} lines of code: it is probably two ideas");
    }
}

#[test]
fn no_type_of_a_crate_is_named_twice() {
    for folder in CRATES {
        let mut types: BTreeMap<String, String> = BTreeMap::new();
        for Source { path, code, .. } in sources(folder) {
            for line in code.lines() {
                // Indented ones are inside a function or a trait.
                let mut words = line.split(' ').filter(|word| !word.starts_with("pub"));
                if !words.next().is_some_and(|word| ["struct", "enum", "trait", "type"].contains(&word)) {
                    continue;
                }
                let name = words.next().unwrap_or_default();
                let name: String = name.chars().take_while(char::is_ascii_alphanumeric).collect();
                let other = types.insert(name.clone(), path.clone());
                assert!(other.is_none(), "{name} is a type of {path} and of {}", other.unwrap());
            }
        }
        assert!(types.len() > 10, "{folder}: {types:?}");
    }
}

#[test]
fn no_file_imports_from_one_that_imports_it() {
    for folder in CRATES {
        let sources = sources(folder);
        let imports = imports(&sources);
        // A module and what is inside it are one.
        let is_family = |a: &[String], b: &[String]| a.starts_with(b) || b.starts_with(a);
        // All that a file imports, however far away.
        let reached = |from: &[String]| {
            let mut reached: BTreeSet<&[String]> = BTreeSet::new();
            let mut next: Vec<&[String]> = imports[from].iter().copied().collect();
            next.retain(|file| !is_family(file, from));
            while let Some(file) = next.pop() {
                if reached.insert(file) {
                    next.extend(imports[file].iter().filter(|to| !is_family(to, file)));
                }
            }
            reached
        };
        let n_imports: usize = imports.values().map(BTreeSet::len).sum();
        assert!(n_imports > 10, "{folder}: only {n_imports} imports were found");
        for source in &sources {
            let is_circle = reached(&source.module).contains(source.module.as_slice());
            assert!(!is_circle, "{} imports, in the end, itself", source.path);
        }
    }
}

#[test]
fn an_arrow_of_the_program_runs_down() {
    let floor = |room: &str| FLOORS.iter().position(|rooms| rooms.contains(&room));
    let sources = sources("pipeline");
    for source in sources.iter().filter(|source| source.path != "pipeline/lib.rs") {
        let room = &source.module[0];
        let here = floor(room).unwrap_or_else(|| panic!("{} is on no floor", source.path));
        for path in named(&source.code, &source.module) {
            let Some(there) = path.first().and_then(|room| floor(room)) else { continue };
            assert!(there >= here, "{} names {}, which is above it", source.path, path.join("::"));
        }
    }
}

/// Values are read by their keys, and one that no option has would be absent for ever, in silence.
#[test]
fn every_key_that_is_read_is_one_of_the_table() {
    const READERS: [&str; 11] = [
        "text", "choice", "chosen", "integer", "number", "whole", "real", "is_on", "numbers", "is_given",
        "get",
    ];
    let keys: BTreeSet<&str> = forebay::options::OPTIONS.iter().map(|row| row.key).collect();
    let mut checked = 0;
    for Source { path, code, .. } in sources("pipeline") {
        for (at, _) in code.match_indices("(\"") {
            // `config.choice::<Fit>("resize.fit")` reads as `config.choice("resize.fit")` does.
            let call = code[..at].trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "<>:_".contains(c));
            let reader = code[call.len()..at].split("::<").next().unwrap_or_default();
            let key = code[at + 2..].split('"').next().unwrap_or_default();
            if call.ends_with("config.") && READERS.contains(&reader) {
                assert!(keys.contains(key), "{path} reads {key}, which no option is called");
                checked += 1;
            }
        }
    }
    assert!(checked > 60, "only {checked} keys were found");
}

/// The other way round: an option that nobody reads is accepted and ignored.
#[test]
fn every_key_of_the_table_is_read_where_a_run_is_made() {
    // Here options are judged, not read.
    const JUDGES: [&str; 3] =
        ["pipeline/options/applies.rs", "pipeline/options/identity.rs", "pipeline/options/table.rs"];
    let sources = sources("pipeline");
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // `config.text("out")`, `number("train.l1")`, `open(config, "source", ..)`; `config.with("out", ..)` writes.
    let reads = |code: &str, key: &str| {
        code.match_indices(&format!("\"{key}\"")).any(|(at, _)| {
            let before = code[..at].trim_end();
            let call = before.strip_suffix('(').map(|call| match call.strip_suffix('>') {
                Some(generic) => &generic[..generic.rfind("::<").unwrap_or(0)],
                None => call,
            });
            let is_call = call.is_some_and(|call| call.ends_with(is_name) && !call.ends_with(".with"));
            is_call || before.ends_with("config,")
        })
    };
    for row in forebay::options::OPTIONS {
        let readers = sources.iter().filter(|source| !JUDGES.contains(&source.path.as_str()));
        let is_read = readers.into_iter().any(|source| reads(&source.code, row.key));
        assert!(is_read, "nothing reads {}: give it an effect, or take it out of the table", row.key);
    }
}

#[test]
fn nothing_prints_but_the_reporter() {
    // What a run wants to say goes to the one reporter, which writes to stdout and stderr without these.
    for Source { path, code, .. } in CRATES.iter().flat_map(|folder| sources(folder)) {
        for word in ["println!", "print!", "dbg!"] {
            assert!(!code.contains(word), "{path} prints");
        }
        let may_write = path == "pipeline/report/reporter.rs" || path == "pipeline/report/live/screen.rs";
        for word in ["io::stdout()", "io::stderr()"] {
            let uses = code.matches(word).count() - code.matches(&format!("{word}.is_terminal()")).count();
            assert!(may_write || uses == 0, "{path} writes to {word}");
        }
    }
}

#[test]
fn unsafe_stands_in_kernels_with_a_scalar_twin_and_in_named_calls_of_the_system() {
    let mut found = BTreeMap::new();
    for Source { path, text, code, .. } in CRATES.iter().flat_map(|folder| sources(folder)) {
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        let n_unsafe = code
            .match_indices("unsafe")
            .filter(|(at, word)| {
                let (before, after) = (&code[..*at], &code[at + word.len()..]);
                !is_word(before.chars().next_back()) && !is_word(after.chars().next())
            })
            .count();
        if n_unsafe > 0 {
            found.insert(path, (n_unsafe, text));
        }
    }
    let named: BTreeSet<&str> = UNSAFE.iter().map(|(path, ..)| *path).collect();
    assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), named);
    for (path, n_unsafe, twin) in UNSAFE {
        let (there, text) = &found[path];
        assert_eq!(*there, n_unsafe, "{path}");
        assert!(
            text.matches("// SAFETY:").count() >= n_unsafe,
            "{path} does not say why each of its is sound"
        );
        if let Some(test) = twin {
            assert!(text.contains(&format!("#[test]\n    fn {test}(")), "{path} has no test {test}");
        }
    }
}

/// A row of a README's table "How to add": an example of what can be added, and the files that name it.
struct Recipe {
    readme: String,
    /// Any of these words, or a file of this name.
    examples: Vec<String>,
    files: BTreeSet<String>,
}

fn recipes() -> Vec<Recipe> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut recipes = Vec::new();
    for folder in ["datasets", "stages", "stages/train", "pipeline"] {
        let readme = format!("{folder}/README.md");
        let text = std::fs::read_to_string(repository.join(&readme)).unwrap();
        let section =
            text.split("\n## How to add\n").nth(1).unwrap_or_else(|| panic!("{readme} says nothing"));
        let section = section.split("\n## ").next().unwrap_or_default();
        for row in section.lines().filter(|line| line.starts_with("| a")) {
            // What is added, the example in code, and the files in code.
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
            let quoted = |cell: &str| -> Vec<String> {
                cell.split('`').skip(1).step_by(2).map(str::to_string).collect()
            };
            let [_, example, files] = cells[..] else { panic!("{readme}: {row}") };
            recipes.push(Recipe {
                readme: readme.clone(),
                examples: quoted(example),
                files: quoted(files).into_iter().collect(),
            });
        }
    }
    recipes
}

/// What one addition touches is what the examples of the READMEs touch: the files that name them, and no fourth one.
#[test]
fn what_the_readmes_say_how_to_add_stands_in_the_files_that_they_name_and_in_three_at_most() {
    let sources: Vec<Source> = CRATES.iter().flat_map(|folder| sources(folder)).collect();
    let recipes = recipes();
    assert!(recipes.len() >= 5, "only {} recipes were found", recipes.len());
    for Recipe { readme, examples, files } in recipes {
        let is_name = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        let names = |source: &Source, example: &str| {
            let is_there = source.code.match_indices(example).any(|(at, word)| {
                let (before, after) = (&source.code[..at], &source.code[at + word.len()..]);
                !is_name(before.chars().next_back()) && !is_name(after.chars().next())
            });
            let module = example.split("::").next();
            is_there || source.module.last().map(String::as_str) == module
        };
        let is_named = |source: &&Source| examples.iter().any(|example| names(source, example));
        let found: BTreeSet<String> =
            sources.iter().filter(is_named).map(|source| source.path.clone()).collect();
        assert_eq!(found, files, "{readme}: the files that name {examples:?}");
        assert!((1..=3).contains(&files.len()), "{readme}: {examples:?} in {files:?}");
    }
}

/// The pages for people: their paths from the root of the repository, and their text.
fn pages() -> Vec<(String, String)> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<String> = ["", "datasets/", "stages/", "stages/train/", "pipeline/"]
        .map(|folder| format!("{folder}README.md"))
        .to_vec();
    for entry in std::fs::read_dir(repository.join("pipeline/docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            paths.push(format!("pipeline/docs/{name}"));
        }
    }
    let read = |path: String| {
        let text = std::fs::read_to_string(repository.join(&path)).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn every_link_of_a_page_leads_to_a_file() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut n_links = 0;
    for (page, text) in pages() {
        let folder = repository.join(&page).parent().unwrap().to_path_buf();
        for after in text.split("](").skip(1) {
            let target = after.split([')', '#']).next().unwrap_or_default();
            // Names of Rust's items, other places, and headings of the page itself.
            if target.is_empty() || target.contains(':') {
                continue;
            }
            assert!(folder.join(target).exists(), "{page} leads to {target}, which is not there");
            n_links += 1;
        }
    }
    assert!(n_links > 20, "only {n_links} links were found");
}

#[test]
fn every_option_that_a_page_names_is_one() {
    // Of every command, of two commands outside the table, and of other programs.
    const OTHERS: [&str; 16] = [
        "help",
        "json",
        "config",
        "set",
        "version",
        "release",
        "workspace",
        "test",
        "dir",
        "features",
        "path",
        "logdir",
        "locked",
        "write",
        "patience",
        "workers",
    ];
    let mut n_options = 0;
    for (page, text) in pages() {
        for (at, _) in text.match_indices("--") {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '|' || c == ':';
            if text[..at].chars().next_back().is_some_and(is_part) {
                continue;
            }
            let rest = text[at + 2..].chars();
            let flag: String =
                rest.take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-').collect();
            if flag.is_empty()
                || flag.starts_with('-')
                || flag.ends_with('-')
                || OTHERS.contains(&flag.as_str())
            {
                continue;
            }
            let is_option = forebay::options::OPTIONS.iter().any(|row| row.flag == flag);
            let is_spelling = ["img-size", "model", "opt", "sched"].contains(&flag.as_str());
            assert!(is_option || is_spelling, "{page} names --{flag}, which is no option");
            n_options += 1;
        }
    }
    assert!(n_options > 80, "only {n_options} options were found");
}
