//! `fixes.csv`: labels that look wrong, what a person decided to do about each, and what that makes of a source.
//!
//! It is written with the action `keep` on every line, so that nothing changes until somebody has looked.

use std::collections::{BTreeMap, HashMap};

use forebay_datasets::catalog::Catalog;
use forebay_datasets::escape::printable;
use forebay_datasets::manifest::FixedLabels;
use forebay_datasets::words;
use forebay_datasets::words::Words;
use forebay_train::metrics::LabelErrors;

/// The columns, in the order in which they are written; they may be read in any order, with others among them.
const COLUMNS: [&str; 6] = ["id", "action", "label", "suggested", "probability", "margin"];

/// Of many lines with the same problem, so many are named.
const NAMED_MAX: usize = 20;

/// What is done about a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixAction {
    /// Nothing.
    Keep,
    /// The image becomes one of the class in `suggested`.
    Relabel,
    /// The image is left out.
    Drop,
}

words!(FixAction { Keep => "keep", Relabel => "relabel", Drop => "drop" });

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// The sample.
    pub id: String,
    /// What is done about it.
    pub action: FixAction,
    /// The name of the class that it becomes; empty where none is given.
    pub suggested: String,
    /// The class that it had when the file was written; empty where the file does not say.
    pub label: String,
}

/// The file for these suspects, the most suspicious first, each with the action `keep`.
///
/// `probability` is that of the suggested class, `margin` how much more probable it is than the label.
pub fn to_csv(errors: &LabelErrors) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut write = |record: &[&str]| writer.write_record(record).expect("memory takes everything");
    write(&COLUMNS);
    for suspect in &errors.suspects {
        let class = |label: u32| errors.classes[label as usize].as_str();
        let (probability, margin) = (format!("{:.4}", suspect.probability), format!("{:.4}", suspect.margin));
        let (label, suggestion) = (class(suspect.label), class(suspect.suggestion));
        write(&[&suspect.id, FixAction::Keep.name(), label, suggestion, &probability, &margin]);
    }
    writer.into_inner().expect("memory takes everything")
}

/// Reads the file, as it was written or as a spreadsheet has saved it: with a byte order mark, or with semicolons.
///
/// # Errors
/// What is wrong, a line for each kind of problem: a file that is no such table, unknown actions, ids that come twice,
/// images that are to be relabelled and no class to.
pub fn parse(bytes: &[u8]) -> Result<Vec<Fix>, Vec<String>> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let delimiter = if first.contains(&b';') && !first.contains(&b',') { b';' } else { b',' };
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::Headers).from_reader(bytes);
    let headers = reader.headers().map_err(|error| vec![error.to_string()])?.clone();
    let column = |name: &str| headers.iter().position(|header| header.eq_ignore_ascii_case(name));
    let (Some(id), Some(action)) = (column("id"), column("action")) else {
        return Err(vec![format!(
            "it has no columns id and action; its first line must be {}",
            COLUMNS.join(",")
        )]);
    };
    let (suggested, label) = (column("suggested"), column("label"));
    let mut fixes = Vec::new();
    let (mut unknown, mut without, mut twice, mut seen) =
        (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
    for record in reader.records() {
        let record = record.map_err(|error| vec![error.to_string()])?;
        let line = record.position().map_or(0, csv::Position::line);
        let field = |column: Option<usize>| column.and_then(|column| record.get(column)).unwrap_or_default();
        let word = field(Some(action)).trim().to_ascii_lowercase();
        let fix = Fix {
            id: field(Some(id)).to_string(),
            action: match word.as_str() {
                "" => FixAction::Keep,
                word => FixAction::of_word(word).unwrap_or_else(|| {
                    unknown.push(format!("{} (line {line})", printable(word)));
                    FixAction::Keep
                }),
            },
            suggested: field(suggested).trim().to_string(),
            label: field(label).trim().to_string(),
        };
        if fix.action == FixAction::Relabel && fix.suggested.is_empty() {
            without.push(format!("{} (line {line})", printable(&fix.id)));
        }
        if let Some(first) = seen.insert(fix.id.clone(), line) {
            twice.push(format!("{} (lines {first} and {line})", printable(&fix.id)));
        }
        fixes.push(fix);
    }
    let problems = [
        said("an action is keep, relabel or drop, and not", &unknown),
        said("suggested is empty, and so says no class to relabel to:", &without),
        said("an image has one line, but these have two:", &twice),
    ];
    match problems.concat() {
        problems if problems.is_empty() => Ok(fixes),
        problems => Err(problems),
    }
}

/// A line that names what is wrong, if there is something.
fn said(what: &str, names: &[String]) -> Vec<String> {
    let more = match names.len() {
        0 => return Vec::new(),
        n if n > NAMED_MAX => format!(" and {} more", n - NAMED_MAX),
        _ => String::new(),
    };
    vec![format!("{what} {}{more}", names[..names.len().min(NAMED_MAX)].join(", "))]
}

/// The catalog with its labels mended, and what was done.
///
/// # Errors
/// What is wrong, a line for each kind of problem: ids that are no sample, classes that are none.
pub fn apply(catalog: Catalog, fixes: &[Fix]) -> Result<(Catalog, FixedLabels), Vec<String>> {
    let ids: BTreeMap<&str, usize> =
        catalog.entries().iter().enumerate().map(|(index, entry)| (&*entry.id, index)).collect();
    let class = |name: &str| catalog.classes().binary_search_by(|class| class.as_str().cmp(name)).ok();
    let (mut unknown, mut classless, mut stale) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = FixedLabels::default();
    let (mut labels, mut dropped) = (Vec::new(), Vec::new());
    for fix in fixes {
        let Some(index) = ids.get(fix.id.as_str()).copied() else {
            unknown.push(printable(&fix.id).into_owned());
            continue;
        };
        let label = &catalog.classes()[catalog.entries()[index].label as usize];
        if fix.action != FixAction::Keep && !fix.label.is_empty() && fix.label != *label {
            stale.push(format!(
                "{} ({} there, {} here)",
                printable(&fix.id),
                printable(&fix.label),
                printable(label)
            ));
            continue;
        }
        match (fix.action, class(&fix.suggested)) {
            (FixAction::Keep, _) => done.kept += 1,
            (FixAction::Drop, _) => {
                done.dropped += 1;
                dropped.push(index);
            }
            (FixAction::Relabel, None) => {
                classless.push(format!("{} (for {})", printable(&fix.suggested), printable(&fix.id)));
            }
            (FixAction::Relabel, Some(label)) => {
                done.relabelled += u64::from(catalog.entries()[index].label != label as u32);
                labels.push((index, label as u32));
            }
        }
    }
    let problems = [
        said("these are the ids of no image of SOURCE:", &unknown),
        said("these have another class in SOURCE than when the file was written:", &stale),
        said(&format!("SOURCE has no class called (it has {}):", in_short(catalog.classes())), &classless),
    ];
    let problems = problems.concat();
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut contents = catalog.into_contents();
    for (index, label) in labels {
        contents.entries[index].label = label;
    }
    dropped.sort_unstable();
    for index in dropped.into_iter().rev() {
        contents.entries.remove(index);
    }
    let mended = Catalog::new(contents).map_err(|error| vec![error.to_string()])?;
    Ok((mended, done))
}

/// The first few of many names.
fn in_short(names: &[String]) -> String {
    let first: Vec<_> = names.iter().take(5).map(|name| printable(name)).collect();
    match names.len() {
        n if n > 5 => format!("{} and {} more", first.join(", "), n - 5),
        _ => first.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_datasets::catalog::{Entry, Locator, SourceContents};
    use forebay_datasets::store::Version;
    use forebay_train::metrics::Suspect;

    fn catalog() -> Catalog {
        let entry = |id: &str, label: u32| {
            Entry::new(id.into(), label, None, Locator::whole(id.into(), 1), Version::UNKNOWN)
        };
        let entries = vec![entry("cat/1, old.png", 0), entry("cat/2.png", 0), entry("dog/1.png", 1)];
        let classes = vec!["cat".to_string(), "dog".to_string()];
        Catalog::new(SourceContents { classes, entries, ..SourceContents::default() }).unwrap()
    }

    fn problems(csv: &str) -> Vec<String> {
        parse(csv.as_bytes()).and_then(|fixes| apply(catalog(), &fixes).map(drop)).unwrap_err()
    }

    #[test]
    fn what_is_written_is_read_and_changes_nothing() {
        let suspect =
            |id: &str| Suspect { id: id.into(), label: 0, suggestion: 1, probability: 0.91, margin: 0.8 };
        let errors = LabelErrors {
            classes: catalog().classes().to_vec(),
            thresholds: vec![],
            joint: vec![],
            noise_rate: 0.1,
            suspects: vec![suspect("cat/1, old.png"), suspect("cat/2.png")],
        };
        let csv = String::from_utf8(to_csv(&errors)).unwrap();
        assert_eq!(
            csv,
            "id,action,label,suggested,probability,margin\n\"cat/1, old.png\",keep,cat,dog,0.9100,0.8000\n\
             cat/2.png,keep,cat,dog,0.9100,0.8000\n"
        );
        let fixes = parse(csv.as_bytes()).unwrap();
        let (mended, done) = apply(catalog(), &fixes).unwrap();
        assert_eq!((mended, done), (catalog(), FixedLabels { relabelled: 0, dropped: 0, kept: 2 }));
    }

    #[test]
    fn a_file_of_another_state_of_the_labels_is_refused() {
        let fixes =
            parse(b"id,action,label,suggested\ncat/2.png,relabel,dog,cat\ndog/1.png,keep,cat,dog\n").unwrap();
        let problems = apply(catalog(), &fixes).unwrap_err();
        assert_eq!(
            problems,
            [
                "these have another class in SOURCE than when the file was written: cat/2.png (dog there, cat here)"
            ]
        );
    }

    #[test]
    fn images_are_relabelled_and_dropped_by_id_whatever_program_saved_the_file() {
        for csv in [
            "id,action,suggested\n\"cat/1, old.png\",drop,\ncat/2.png,relabel,dog\ndog/1.png,,\n",
            "\u{feff}margin;id;Action;suggested\r\n0,8;cat/1, old.png;DROP;dog\r\n0,7;cat/2.png;Relabel;dog\r\n;dog/1.png;keep;\r\n",
        ] {
            let (mended, done) = apply(catalog(), &parse(csv.as_bytes()).unwrap()).unwrap();
            assert_eq!(done, FixedLabels { relabelled: 1, dropped: 1, kept: 1 }, "{csv}");
            let found: Vec<(&str, u32)> =
                mended.entries().iter().map(|entry| (&*entry.id, entry.label)).collect();
            assert_eq!(found, [("cat/2.png", 1), ("dog/1.png", 1)]);
        }
    }

    #[test]
    fn all_that_is_wrong_is_named_in_one_answer() {
        assert_eq!(
            problems("id,action,suggested\na,relable,dog\nb,relabel,\nc,keep,\nc,drop,\n"),
            [
                "an action is keep, relabel or drop, and not relable (line 2)",
                "suggested is empty, and so says no class to relabel to: b (line 3)",
                "an image has one line, but these have two: c (lines 4 and 5)"
            ]
        );
        assert_eq!(
            problems("id,action,suggested\nx\u{1b}.png,keep,\ncat/2.png,relabel,fox\n"),
            [
                "these are the ids of no image of SOURCE: x\\u{1b}.png",
                "SOURCE has no class called (it has cat, dog): fox (for cat/2.png)"
            ]
        );
        let no_table = problems("cat/1.png\tdrop\n");
        assert!(no_table[0].starts_with("it has no columns id and action"), "{no_table:?}");
        assert!(problems("")[0].starts_with("it has no columns"), "an empty file");
        assert!(!problems("id,action\n\"a,keep\nb").is_empty());
        let many: String = (0..30).map(|n| format!("no/{n},drop\n")).collect();
        assert!(problems(&format!("id,action\n{many}"))[0].ends_with("no/19 and 10 more"));
    }
}
