//! Numbers by class, as a flag names the file that holds them, and as a command line can say them again.

use std::collections::BTreeMap;

use forebay_datasets::escape::printable;
use toml::Table;

/// The numbers that a text gives: an inline table `{ant = 30, bee = 12}`, or the path of a local CSV file with a head and two
/// columns, class and images. What a run is depends on the numbers, so that the file is read with the options.
pub(super) fn read(text: &str) -> Result<Table, String> {
    if text.starts_with('{') {
        let parsed = format!("counts = {text}").parse::<Table>().ok();
        let table = parsed.and_then(|mut table| match table.remove("counts") {
            Some(toml::Value::Table(counts)) => Some(counts),
            _ => None,
        });
        return table.ok_or_else(|| format!("{text} is no table as {{ant = 30, bee = 12}}"));
    }
    let refused = |why: String| format!("{}: {}", printable(text), printable(&why));
    let content =
        std::fs::read_to_string(text).map_err(|error| refused(format!("cannot read it: {error}")))?;
    let content = content.trim_start_matches('\u{feff}');
    let mut rows = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(content.as_bytes());
    let mut counts = BTreeMap::new();
    for row in rows.records() {
        let row = row.map_err(|error| refused(error.to_string()))?;
        let line = row.position().map_or(0, csv::Position::line);
        let (class, images) = match (row.get(0), row.get(1), row.len()) {
            (Some(class), Some(images), 2) => (class, images),
            _ => {
                return Err(refused(format!(
                    "line {line} has {} columns and not class and images",
                    row.len()
                )));
            }
        };
        let number: u32 = images
            .parse()
            .map_err(|_| refused(format!("line {line}: {images:?} is no whole number of images")))?;
        if counts.insert(class.to_string(), i64::from(number)).is_some() {
            return Err(refused(format!("line {line}: class {class:?} is there twice")));
        }
    }
    if counts.is_empty() {
        return Err(refused(
            "it names no class: it needs a head and the columns class and images".to_string(),
        ));
    }
    Ok(counts.into_iter().map(|(class, images)| (class, images.into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_a_table_or_a_file_and_what_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("targets.csv");
        let read_file = |content: &str| {
            std::fs::write(&path, content).unwrap();
            read(path.to_str().unwrap())
        };
        let expected = read("{ant = 30, \"a, b\" = 0}").unwrap();
        assert_eq!(expected["ant"].as_integer(), Some(30));
        assert_eq!(read_file("\u{feff}class,images\r\nant, 30\r\n\"a, b\",0\r\n"), Ok(expected));
        for (content, text) in [
            ("class,images\nant,-1\n", "line 2: \"-1\" is no whole number"),
            ("class,images\nant,2.5\n", "\"2.5\" is no whole number"),
            ("class,images\nant,1\nant,2\n", "line 3: class \"ant\" is there twice"),
            ("class\nant\n", "has 1 columns"),
            ("class,images\n", "it names no class"),
        ] {
            let why = read_file(content).unwrap_err();
            assert!(why.contains(text), "{why}");
        }
        assert!(read("no/such/file").unwrap_err().contains("no/such/file: cannot read it"));
        assert!(read("{ant}").is_err());
    }
}
