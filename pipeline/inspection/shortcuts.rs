//! Which facts beside the picture predict its class.

use forebay_datasets::catalog::Catalog;
use forebay_datasets::seed::Seed;
use forebay_train::metrics::{ImageAttribute, ShortcutProbe, shortcut_probe};

use super::duplicates::Duplicates;
use super::pass::{ImageFacts, LookedAt};

/// Probes what is known of each image beside its picture: sizes, format, quality, and its mean colour.
pub(super) fn probe(
    catalog: &Catalog,
    images: &[LookedAt],
    duplicates: &Duplicates,
    seed: Seed,
) -> Option<ShortcutProbe> {
    let entries = || catalog.entries().iter().zip(images).filter(|(_, image)| image.is_ok());
    let labels: Vec<u32> = entries().map(|(entry, _)| entry.label).collect();
    let column = |value: &dyn Fn(&ImageFacts) -> f32| -> Vec<f32> {
        images.iter().filter_map(|image| Some(value(image.as_ref().ok()?))).collect()
    };
    let one =
        |name, value: &dyn Fn(&ImageFacts) -> f32| ImageAttribute { name, columns: vec![column(value)] };
    let channel = |channel: usize| column(&move |facts| facts.pixels.mean_color[channel]);
    let attributes = [
        one("width", &|facts| facts.file.width as f32),
        one("height", &|facts| facts.file.height as f32),
        one("aspect", &|facts| facts.file.width as f32 / facts.file.height as f32),
        one("file size", &|facts| facts.file.bytes as f32),
        one("format", &|facts| f32::from(facts.file.format as u8)),
        one("jpeg quality", &|facts| facts.file.jpeg_quality.map_or(-1.0, f32::from)),
        ImageAttribute { name: "mean color", columns: (0..3).map(channel).collect() },
    ];
    let groups = duplicates.groups_of(entries().map(|(entry, _)| &entry.id));
    shortcut_probe(&attributes, &labels, &groups, seed)
}

/// A line that names the attributes which predict the class, the best first.
pub(super) fn warning(probe: &ShortcutProbe) -> Option<String> {
    let mut found: Vec<_> = probe.attributes.iter().filter(|found| found.predicts).collect();
    found.sort_by(|a, b| b.accuracy.total_cmp(&a.accuracy));
    let (together, alone): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|found| found.name == "all together");
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let names: Vec<String> =
        alone.iter().map(|found| format!("{} {}", found.name, percent(found.accuracy))).collect();
    let names = match (names.is_empty(), together.first()) {
        (false, _) => format!("{} alone", names.join(", ")),
        (true, Some(all)) => format!("sizes, format and mean color together {}", percent(all.accuracy)),
        (true, None) => return None,
    };
    Some(format!(
        "the class can be told without looking at the picture ({} by chance): {names}; where that is not of the subject, a network learns it instead",
        percent(probe.baseline)
    ))
}
