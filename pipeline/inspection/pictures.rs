//! What the pictures of a source are like, and which of them stand out.

use std::collections::BTreeMap;

use forebay_datasets::catalog::Catalog;
use forebay_stages::facts::Flaw;
use serde::Serialize;

use super::Percentiles;
use super::pass::{ImageFacts, LookedAt};

/// What the pictures of a source are like, and which of them stand out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PictureFindings {
    /// The images that stand out, by what for; the worst first.
    pub flagged: BTreeMap<Flaw, Vec<String>>,
    /// Mean luma, 0 to 1.
    pub brightness: Option<Percentiles<f32>>,
    /// Standard deviation of the luma, 0 to 0.5.
    pub contrast: Option<Percentiles<f32>>,
    /// Entropy of the grey levels, 0 to 8 bits.
    pub entropy: Option<Percentiles<f32>>,
    /// Variance of the Laplacian at a longer side of at most 128 cells.
    pub sharpness: Option<Percentiles<f32>>,
}

impl PictureFindings {
    pub(super) fn of(catalog: &Catalog, images: &[LookedAt]) -> PictureFindings {
        let mut flagged: BTreeMap<Flaw, Vec<(f64, String)>> = BTreeMap::new();
        for (entry, image) in catalog.entries().iter().zip(images) {
            let Ok(facts) = image else { continue };
            for flaw in Flaw::of(&facts.pixels, facts.file.width, facts.file.height) {
                flagged.entry(flaw).or_default().push((merit(flaw, facts), entry.id.to_string()));
            }
        }
        let worst_first = |(flaw, mut images): (Flaw, Vec<(f64, String)>)| {
            images.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            (flaw, images.into_iter().map(|(_, id)| id).collect())
        };
        let whole = || images.iter().filter_map(|image| Some(image.as_ref().ok()?.pixels));
        PictureFindings {
            flagged: flagged.into_iter().map(worst_first).collect(),
            brightness: Percentiles::of(whole().map(|facts| facts.brightness)),
            contrast: Percentiles::of(whole().map(|facts| facts.contrast)),
            entropy: Percentiles::of(whole().map(|facts| facts.entropy)),
            sharpness: Percentiles::of(whole().filter_map(|facts| facts.sharpness)),
        }
    }
}

/// What an image lacks of a flaw: the less, the worse it is.
fn merit(flaw: Flaw, facts: &ImageFacts) -> f64 {
    let ImageFacts { file, pixels, .. } = facts;
    match flaw {
        Flaw::Dark => pixels.brightness_p99.into(),
        Flaw::Bright => f64::from(1.0 - pixels.brightness_p5),
        Flaw::LowInformation => pixels.entropy.into(),
        Flaw::Blurry => pixels.sharpness.unwrap_or(0.0).into(),
        Flaw::OddAspect => -forebay_stages::facts::crop_loss(file.width, file.height),
    }
}
