//! The images of a page: which of them are wanted, their thumbnails, and what of these fits into the page.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use base64::prelude::{BASE64_STANDARD, Engine};
use forebay_datasets::escape;
use forebay_datasets::sample::{Pixels, SampleId};
use forebay_datasets::seed::{Draws, Seed};
use forebay_stages::encode::{Encode, Encoding};
use forebay_stages::resize::{Filter, Fit, Resize, Size};
use forebay_stages::stage::Stage;

use super::answers::{PER_CELL, ScoredAnswers};

/// The longer side of a thumbnail, pixels.
pub const THUMBNAIL_PX: u32 = 96;

/// Below this side pixels are shown as squares, as smoothing would show nothing.
const SMALL_PX: u32 = 48;

/// The least that a thumbnail takes in a page, bytes: more than so many images are not asked for.
const THUMBNAIL_BYTES_MIN: u64 = 900;

/// The thumbnails of a page, as far as they were found.
#[derive(Clone, Debug, Default)]
pub struct Gallery {
    /// The images that are wanted, the most important first.
    order: Vec<SampleId>,
    wanted: HashSet<SampleId>,
    thumbnails: HashMap<SampleId, Vec<u8>>,
    side_px: u32,
}

impl Gallery {
    /// A gallery without pixels yet, of the images that a page of `budget_bytes` would show of these answers: one of every
    /// kind of mistake, the mistakes of most confidence, suspected labels, right answers of least confidence, and then more
    /// of each cell of the confusion matrix.
    pub fn wanted(answers: &ScoredAnswers<'_>, budget_bytes: u64) -> Gallery {
        let cells = answers.shown_cells();
        let nth = |n: usize, is_mistake: bool| {
            let cells =
                cells.iter().filter(move |((truth, prediction), _)| (truth != prediction) == is_mistake);
            cells.filter_map(move |(_, members)| members.get(n).copied())
        };
        let mut order: Vec<usize> = nth(0, true).collect();
        order.extend(answers.confident_mistakes());
        order.extend(
            answers.shown_suspects().iter().filter_map(|suspect| answers.scored.position(&suspect.id)),
        );
        order.extend(answers.unsure_hits());
        order.extend(nth(0, false));
        for n in 1..PER_CELL {
            order.extend(nth(n, true));
            order.extend(nth(n, false));
        }
        Gallery::of(order.into_iter().map(|index| answers.scored.ids()[index].clone()), budget_bytes)
    }

    /// A gallery without pixels yet, of these images, the most important first: as many as a page of `budget_bytes` could
    /// show.
    pub fn of(ids: impl IntoIterator<Item = SampleId>, budget_bytes: u64) -> Gallery {
        let most = (budget_bytes / THUMBNAIL_BYTES_MIN) as usize;
        let mut wanted = HashSet::new();
        let ids = ids.into_iter();
        let order: Vec<SampleId> = ids.filter(|id| wanted.insert(id.clone())).take(most).collect();
        let wanted = order.iter().cloned().collect();
        Gallery { order, wanted, thumbnails: HashMap::new(), side_px: 0 }
    }

    /// How many images are wanted.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no image is wanted.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether the image of this sample is wanted and not yet there.
    pub fn wants(&self, id: &str) -> bool {
        self.wanted.contains(id) && !self.thumbnails.contains_key(id)
    }

    /// Whether every image that is wanted is there.
    pub fn is_complete(&self) -> bool {
        self.thumbnails.len() == self.order.len()
    }

    /// Adds the image of a sample; one that cannot be encoded is left out.
    pub fn add(&mut self, id: SampleId, pixels: Pixels) {
        let side_px = pixels.width.max(pixels.height);
        if let Some(jpeg) = thumbnail(pixels) {
            self.add_thumbnail(id, side_px, jpeg);
        }
    }

    /// Adds the [`thumbnail`] of a sample whose longer side has `side_px` pixels.
    pub fn add_thumbnail(&mut self, id: SampleId, side_px: u32, jpeg: Vec<u8>) {
        self.side_px = self.side_px.max(side_px);
        self.thumbnails.insert(id, jpeg);
    }

    /// Adds the image of a sample from planes of `[3, side, side]`, as a batch has it.
    ///
    /// # Panics
    /// When there are not as many bytes.
    pub fn add_planes(&mut self, id: SampleId, planes: &[u8], side: u32) {
        self.add(id, of_planes(planes, side));
    }

    /// What of it fits into so many bytes of a page.
    pub(super) fn fit(&self, budget_bytes: usize) -> Thumbnails<'_> {
        let mut fitting = Thumbnails { is_small: self.side_px < SMALL_PX, ..Thumbnails::default() };
        let there = self.order.iter().filter_map(|id| Some((id, self.thumbnails.get(id)?)));
        for (id, jpeg) in there {
            // The file and its rule.
            let bytes = jpeg.len().div_ceil(3) * 4 + 96;
            if fitting.bytes + bytes > budget_bytes {
                fitting.left_out += 1;
                continue;
            }
            let n = fitting.numbers.len();
            fitting.bytes += bytes;
            fitting.numbers.insert(id, n);
            let _ = writeln!(fitting.rules, ".t{n}{{background-image:url({})}}", data_uri(jpeg));
        }
        fitting
    }
}

/// The thumbnails that stand in a page: each once, as the background of a class.
#[derive(Debug, Default)]
pub(super) struct Thumbnails<'a> {
    numbers: HashMap<&'a str, usize>,
    /// A rule for each.
    pub(super) rules: String,
    /// Those that were there and had no room.
    pub(super) left_out: usize,
    pub(super) is_small: bool,
    bytes: usize,
}

impl<'a> Thumbnails<'a> {
    /// How many stand in the page.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The image of a sample as a square, or where it has none the place of it.
    pub(super) fn image(&self, id: &str) -> String {
        let name = escape::html(id);
        match self.numbers.get(id) {
            Some(n) => {
                format!("<i class=\"t t{n}\" role=\"img\" aria-label=\"{name}\" title=\"{name}\"></i>")
            }
            // It takes more bytes than an image that is there, so that a page never grows by more than its thumbnails.
            None => format!(
                "<i class=\"t\" role=\"img\" aria-label=\"{name}: no image\" title=\"{name}\">no image</i>"
            ),
        }
    }

    /// Items of a gallery, as HTML.
    pub(super) fn list(&self, id: &str, items: &str) -> String {
        let id = if id.is_empty() { String::new() } else { format!(" id=\"{id}\"") };
        let small = if self.is_small { " px" } else { "" };
        format!("<ul class=\"gallery{small}\"{id}>\n{items}</ul>\n")
    }
}

/// A square of planes `[3, side, side]` as an image.
pub(super) fn of_planes(planes: &[u8], side: u32) -> Pixels {
    let plane = side as usize * side as usize;
    assert_eq!(planes.len(), 3 * plane, "planes of {side} pixels");
    let data = (0..plane).flat_map(|at| [planes[at], planes[plane + at], planes[2 * plane + at]]).collect();
    Pixels::new(side, side, data)
}

/// A JPEG of at most [`THUMBNAIL_PX`] a side; `None` where an image cannot be made smaller.
pub fn thumbnail(pixels: Pixels) -> Option<Vec<u8>> {
    let draws: Draws = Seed(0).draws("report", 0, 0);
    let longer = pixels.width.max(pixels.height);
    let shorter = pixels.width.min(pixels.height);
    let side = (u64::from(shorter) * u64::from(THUMBNAIL_PX.min(longer)) / u64::from(longer)).max(1) as u32;
    let resize = Resize {
        size: Size::Side(side),
        fit: Fit::Shortest,
        enlarge: false,
        filter: Filter::Bilinear,
        ..Resize::default()
    };
    let small = resize.apply(pixels, &draws).ok()?;
    let quality = if longer < SMALL_PX { 92 } else { 78 };
    let stored =
        Encode { encoding: Encoding::Jpeg { quality, restarts: false } }.apply(small, &draws).ok()?;
    Some(stored.bytes.to_vec())
}

/// A JPEG as an address that holds it.
pub(super) fn data_uri(jpeg: &[u8]) -> String {
    format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(jpeg))
}

/// The same of planes `[3, side, side]`, as a batch has them.
///
/// # Panics
/// When there are not as many bytes.
pub fn thumbnail_of_planes(planes: &[u8], side: u32) -> Option<Vec<u8>> {
    thumbnail(of_planes(planes, side))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbnail_is_a_jpeg_whose_longer_side_is_bounded() {
        for (width, height, wide, high) in
            [(32, 32, 32, 32), (400, 200, 96, 48), (1, 500, 1, 500), (224, 224, 96, 96)]
        {
            let pixels = Pixels::new(width, height, vec![90; (width * height * 3) as usize]);
            let jpeg = thumbnail(pixels).unwrap();
            let found = image::load_from_memory(&jpeg).unwrap();
            assert_eq!((found.width(), found.height()), (wide, high));
        }
        let planes: Vec<u8> = [[1u8; 4], [2; 4], [3; 4]].concat();
        assert_eq!(of_planes(&planes, 2).data, [1, 2, 3].repeat(4));
    }
}
