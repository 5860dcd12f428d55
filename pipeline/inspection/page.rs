//! What was found in a source as a page: which images it shows, and what it says in each section.

use forebay_datasets::duplicates::LinkKind;
use forebay_datasets::sample::SampleId;
use forebay_stages::facts::Flaw;

use super::pass::{ImageFacts, Looked};
use super::{DuplicateImage, Inspected, Percentiles};
use crate::options::bytes_in_words;
use crate::report::html::{
    self, DataBlock, DataPage, DataSection, DataTile, Gallery, PagePicture, ReportPage,
};

/// Groups of duplicates that are shown, and images of each.
const GROUPS_SHOWN: usize = 24;
const PER_GROUP: usize = 6;

/// Images that are shown of each flaw.
const PER_FLAW: usize = 24;

/// Bars of a histogram.
const BARS: usize = 24;

/// Rows of a list of files.
const ROWS_MAX: usize = 200;

/// The images that a page shows, the most important first.
pub(super) fn shown(found: &Inspected) -> Vec<SampleId> {
    let groups = found.duplicates.groups.iter().take(GROUPS_SHOWN);
    let copies =
        groups.flat_map(|group| group.images.iter().take(PER_GROUP).map(|image| image.id.as_str().into()));
    let flagged = found
        .pictures
        .flagged
        .values()
        .flat_map(|images| images.iter().take(PER_FLAW).map(|id| id.as_str().into()));
    copies.chain(flagged).collect()
}

/// The page.
pub(super) fn page(
    location: &str,
    found: &Inspected,
    looked: &Looked,
    gallery: &Gallery,
    command: &str,
    budget_bytes: u64,
) -> ReportPage {
    let mut sections = vec![summary(found)];
    sections.push(classes(found));
    sections.extend(duplicates(found));
    sections.extend(pictures(found));
    sections.push(sizes(found, looked));
    sections.push(files(found));
    sections.extend(shortcuts(found));
    if let Some(suggestion) = &found.suggestion {
        let blocks =
            vec![DataBlock::Lines(suggestion.command.clone()), DataBlock::List(suggestion.reasons.clone())];
        sections.push(DataSection { id: "next", title: "How to prepare it", blocks });
    }
    sections.push(DataSection {
        id: "made",
        title: "How this was made",
        blocks: vec![DataBlock::Lines(command.to_string())],
    });
    let lead = format!(
        "{} images in {} classes, {}, as {}.",
        found.found,
        found.classes.len(),
        bytes_in_words(found.bytes),
        found.layout
    );
    let page = DataPage { title: location, lead: &lead, tiles: &tiles(found), sections: &sections, gallery };
    html::data(&page, budget_bytes)
}

fn tiles(found: &Inspected) -> Vec<DataTile> {
    let tile = |name: &'static str, value: String, note: String| DataTile { name, value, note };
    let shares = &found.class_shares;
    let flagged: usize = found.pictures.flagged.values().map(Vec::len).sum();
    let mut tiles = vec![tile(
        "Majority baseline",
        percent(shares.majority_accuracy),
        format!("always “{}”", shares.majority.as_deref().unwrap_or("–")),
    )];
    if let Some(imbalance) = shares.imbalance {
        tiles.push(tile("Imbalance", format!("{imbalance:.1} : 1"), "largest class to smallest".to_string()));
    }
    tiles.push(tile("Rejected", found.rejects.len().to_string(), format!("of {} files", found.found)));
    let duplicates = &found.duplicates;
    let note = match (duplicates.across_splits, duplicates.across_classes) {
        (0, 0) => "none in several splits or classes".to_string(),
        (splits, classes) => format!("{splits} in several splits, {classes} in several classes"),
    };
    tiles.push(tile("Groups of duplicates", duplicates.groups.len().to_string(), note));
    tiles.push(tile(
        "Pictures that stand out",
        flagged.to_string(),
        "dark, bright, blurry, empty or long".to_string(),
    ));
    tiles
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn summary(found: &Inspected) -> DataSection {
    let mut lines = found.warnings.clone();
    match found.rejects.len() {
        0 => {}
        1 => lines.push("one file cannot be a sample".to_string()),
        n => lines.push(format!("{n} files cannot be samples")),
    }
    let blocks = match lines.is_empty() {
        true => vec![DataBlock::Text("Nothing that would spoil a training was found.".to_string())],
        false => vec![DataBlock::List(lines)],
    };
    DataSection { id: "summary", title: "What to see to", blocks }
}

fn classes(found: &Inspected) -> DataSection {
    let shares = &found.class_shares;
    let most = found.classes.iter().map(|(_, n)| *n).max().unwrap_or(0).max(1) as f64;
    let total = found.classes.iter().map(|(_, n)| *n).sum::<u64>().max(1) as f64;
    let bars = found.classes.iter().map(|(name, n)| {
        (name.clone(), *n as f64 / most, format!("{n} ({:.1} %)", 100.0 * *n as f64 / total))
    });
    let mut names = vec!["class".to_string(), "images".to_string()];
    names.extend(found.classes_by_split.keys().map(|split| split.name().to_string()));
    names.push("effective number".to_string());
    let rows = found.classes.iter().enumerate().map(|(class, (name, n))| {
        let mut row = vec![name.clone(), n.to_string()];
        row.extend(found.classes_by_split.values().map(|counts| counts[class].to_string()));
        row.push(format!("{:.1}", shares.effective[class].effective_number));
        row
    });
    let caption = format!(
        "Images of each class; the effective number counts repetition, with beta {} (Cui et al. 2019)",
        shares.beta
    );
    let table = DataBlock::Table { caption, names, rows: rows.collect() };
    let bars: Vec<_> = bars.collect();
    let blocks = match bars.len() <= 40 {
        true => vec![DataBlock::Bars { label: "Images of each class", rows: bars }, table],
        false => vec![table],
    };
    DataSection { id: "classes", title: "Classes", blocks }
}

fn duplicates(found: &Inspected) -> Option<DataSection> {
    let duplicates = &found.duplicates;
    if duplicates.groups.is_empty() {
        return None;
    }
    let mut blocks = vec![DataBlock::Text(format!(
        "{} groups of images that show the same picture, as copies or re-encoded, resized, cropped a little or mirrored; {} \
         images could go. Those in several splits make scores too good, and of those in several classes at least one \
         label is wrong.",
        duplicates.groups.len(),
        duplicates.superfluous
    ))];
    for group in duplicates.groups.iter().take(GROUPS_SHOWN) {
        let alike = match (group.is_exact, group.alike) {
            (true, _) => "the same file",
            (false, LinkKind::Exact) => "the same pixels",
            (false, LinkKind::Near) => "re-encoded or resized",
            (false, LinkKind::Cropped) => "cropped a little",
            (false, LinkKind::Mirrored) => "mirrored",
        };
        let mut caption = format!("{} images, {alike}", group.images.len());
        if group.across_splits {
            caption += ", in several splits";
        }
        if group.across_classes {
            caption += ", in several classes";
        }
        let picture = |image: &DuplicateImage| PagePicture {
            id: image.id.as_str().into(),
            lines: vec![image.id.clone(), format!("{} · {}", image.class, image.split)],
        };
        let pictures = group.images.iter().take(PER_GROUP).map(picture).collect();
        blocks.push(DataBlock::Pictures { caption, pictures });
    }
    if duplicates.groups.len() > GROUPS_SHOWN {
        let more = duplicates.groups.len() - GROUPS_SHOWN;
        blocks.push(DataBlock::Text(format!("{more} more groups are in the output of --json.")));
    }
    Some(DataSection { id: "duplicates", title: "The same picture several times", blocks })
}

fn pictures(found: &Inspected) -> Option<DataSection> {
    let block = |(flaw, images): (&Flaw, &Vec<String>)| {
        let what = match flaw {
            Flaw::Dark => "Dark: 99 % of the picture is below 0.32 of full brightness",
            Flaw::Bright => "Bright: 95 % of the picture is above 0.95 of full brightness",
            Flaw::LowInformation => "Hardly anything to see: less than 3 bits of entropy",
            Flaw::Blurry => "Blurry: the variance of the Laplacian is below 100",
            Flaw::OddAspect => "Long: one side is below 0.35 of the other",
        };
        let shown = images.iter().take(PER_FLAW);
        let pictures =
            shown.map(|id| PagePicture { id: id.as_str().into(), lines: vec![id.clone()] }).collect();
        let more = match images.len().saturating_sub(PER_FLAW) {
            0 => String::new(),
            _ => format!(", the worst {PER_FLAW}"),
        };
        DataBlock::Pictures { caption: format!("{what} ({} images{more})", images.len()), pictures }
    };
    let blocks: Vec<DataBlock> = found.pictures.flagged.iter().map(block).collect();
    (!blocks.is_empty()).then_some(DataSection { id: "pictures", title: "Pictures that stand out", blocks })
}

fn sizes(found: &Inspected, looked: &Looked) -> DataSection {
    let of = |value: &dyn Fn(&ImageFacts) -> f64| looked.whole().map(value).collect::<Vec<f64>>();
    let mut histograms = vec![
        ("Width", "px", of(&|facts| f64::from(facts.file.width))),
        ("Height", "px", of(&|facts| f64::from(facts.file.height))),
        (
            "Width over height",
            "ratio",
            of(&|facts| f64::from(facts.file.width) / f64::from(facts.file.height)),
        ),
        ("Brightness", "mean luma, 0 to 1", of(&|facts| f64::from(facts.pixels.brightness))),
        ("Contrast", "standard deviation of luma", of(&|facts| f64::from(facts.pixels.contrast))),
        (
            "Sharpness",
            "log10 of the Laplacian's variance",
            of(&|facts| f64::from(facts.pixels.sharpness.unwrap_or(1.0).max(1.0)).log10()),
        ),
    ];
    if found.files.jpeg_quality.is_some() {
        let qualities = looked.whole().filter_map(|facts| facts.file.jpeg_quality.map(f64::from)).collect();
        histograms.push(("JPEG quality", "estimate", qualities));
    }
    let charts = histograms
        .into_iter()
        .filter(|(.., values)| !values.is_empty())
        .map(|(title, unit, values)| DataBlock::histogram(title, unit, &values, BARS));
    let mut blocks = vec![DataBlock::Charts(charts.collect())];
    if let Some(Percentiles { median, p95, max, .. }) = found.crop_loss {
        blocks.push(DataBlock::Text(format!(
            "--fit crop would cut away {} of the median image, {} or more of one in twenty, and {} of the worst.",
            percent(median),
            percent(p95),
            percent(max)
        )));
    }
    DataSection { id: "sizes", title: "Sizes and light", blocks }
}

fn files(found: &Inspected) -> DataSection {
    let files = &found.files;
    let total = found.formats.values().sum::<u64>().max(1) as f64;
    let mut rows: Vec<(String, f64, String)> = Vec::new();
    for (name, n) in found.formats.iter().chain(&files.colors) {
        rows.push((name.clone(), *n as f64 / total, n.to_string()));
    }
    for (name, n) in [("gray in RGB", files.gray_as_color), ("turned by EXIF", files.turned)] {
        rows.push((name.to_string(), n as f64 / total, n.to_string()));
    }
    let mut blocks = vec![DataBlock::Bars { label: "Formats and colours", rows }];
    if !found.rejects.is_empty() {
        let damaged = files.damaged.iter().map(|(damage, n)| format!("{n} {}", damage.in_words()));
        let shown = found.rejects.iter().take(ROWS_MAX);
        blocks.push(DataBlock::Table {
            caption: format!(
                "Files that would be rejected: {} ({})",
                found.rejects.len(),
                damaged.collect::<Vec<_>>().join(", ")
            ),
            names: ["file", "stage", "reason"].map(String::from).to_vec(),
            rows: shown
                .map(|reject| vec![reject.id.clone(), reject.stage.clone(), reject.reason.clone()])
                .collect(),
        });
    }
    if !files.mislabelled.is_empty() {
        let shown = files.mislabelled.iter().take(ROWS_MAX);
        blocks.push(DataBlock::Table {
            caption: format!("Files with the extension of another format: {}", files.mislabelled.len()),
            names: ["file", "extension", "content"].map(String::from).to_vec(),
            rows: shown
                .map(|file| vec![file.id.clone(), file.extension.clone(), file.content.clone()])
                .collect(),
        });
    }
    DataSection { id: "files", title: "Files", blocks }
}

fn shortcuts(found: &Inspected) -> Option<DataSection> {
    let probe = found.shortcuts.as_ref()?;
    let rows = probe.attributes.iter().map(|found| {
        vec![
            found.name.to_string(),
            percent(found.accuracy),
            format!("{} to {}", percent(found.low), percent(found.high)),
            if found.predicts { "predicts the class" } else { "no more than chance" }.to_string(),
        ]
    });
    let text = format!(
        "Accuracy of a small decision tree that sees one fact about each image and not its picture, cross-validated on {} images, \
         beside the {} of always naming the most common class. The intervals hold at 95 % for all rows together. What predicts \
         the class may be an accident of how images were collected, which a network will learn too; a mean color may also be of \
         the subject.",
        probe.images,
        percent(probe.baseline)
    );
    let table = DataBlock::Table {
        caption: "How well facts beside the picture predict its class".to_string(),
        names: ["fact", "accuracy", "interval", "verdict"].map(String::from).to_vec(),
        rows: rows.collect(),
    };
    let blocks = vec![DataBlock::Text(text), table];
    Some(DataSection { id: "shortcuts", title: "Shortcuts", blocks })
}
