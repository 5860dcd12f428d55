//! How much memory one image takes on its way: told from its header and the stages that it passes, before any of
//! it is taken.

use std::sync::Arc;

use forebay_datasets::sample::{Encoded, Pixels};
use forebay_datasets::seed::{DrawRecord, Drawn};

use crate::augment::Augment;
use crate::decode::{Decode, probe};
use crate::encode::Encode;
use crate::resample::View;
use crate::resize::Resize;
use crate::stage::{Draws, Fault, Label, Stage, Work};

/// What one image takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// The most between two stages: its file, then its pixels or what is stored of them.
    pub held: u64,
    /// The most while a stage works on it: what goes in, what comes out, and what the stage works with.
    pub peak: u64,
}

/// One of the stages from pixels to pixels.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a flow has three of them")]
pub enum Step {
    /// To another size.
    Resize(Resize),
    /// As a training image is changed.
    Augment(Augment),
    /// Other steps for images of rare classes.
    ByClass(ByClass),
}

/// Steps of images that are others for those of rare classes.
#[derive(Clone, Debug)]
pub struct ByClass {
    /// Those of most.
    pub common: Vec<Step>,
    /// Those of rare classes.
    pub rare: Vec<Step>,
    /// Whether each class is rare.
    pub is_rare: Arc<[bool]>,
}

impl ByClass {
    fn of(&self, class: Option<Label>) -> &[Step] {
        match class.is_some_and(|class| self.is_rare.get(class as usize).copied().unwrap_or(false)) {
            true => &self.rare,
            false => &self.common,
        }
    }
}

impl Stage for ByClass {
    const NAME: &'static str = Augment::NAME;
    type In = Pixels;
    type Out = Pixels;

    fn apply(&self, input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        self.apply_to(input, None, draws)
    }

    fn apply_to(&self, input: Pixels, class: Option<Label>, draws: &Draws) -> Result<Pixels, Fault> {
        self.of(class).iter().try_fold(input, |image, step| step.apply_to(image, class, draws))
    }
}

impl Step {
    /// What happens to an image of a class.
    pub(crate) fn apply_to(
        &self,
        image: Pixels,
        class: Option<Label>,
        draws: &Draws,
    ) -> Result<Pixels, Fault> {
        match self {
            Step::Resize(resize) => resize.apply(image, draws),
            Step::Augment(augment) => augment.apply(image, draws),
            Step::ByClass(by_class) => by_class.apply_to(image, class, draws),
        }
    }

    /// What the step shows of an image of `width` x `height` pixels; `None` where it sees all of it.
    fn view(&self, (width, height): (u32, u32), class: Option<Label>, draws: &Draws) -> Option<View> {
        match self {
            Step::Resize(resize) => resize.view(width, height),
            Step::Augment(augment) => augment.view(width, height, draws),
            Step::ByClass(by_class) => by_class.of(class).first()?.view((width, height), class, draws),
        }
    }

    /// What `made` gives for the changes of most images; where `augment` has others for rare classes, and it is known which
    /// are, one step that heeds the class.
    pub fn by_class(
        augment: Option<&Augment>,
        is_rare: Option<&Arc<[bool]>>,
        made: impl Fn(Option<&Augment>) -> Vec<Step>,
    ) -> Vec<Step> {
        let made = |augment: &Augment| made((!augment.is_off()).then_some(augment));
        let Some(augment) = augment else { return made(&Augment::default()) };
        let common = made(&augment.common());
        match (&augment.minority, is_rare) {
            (Some(minority), Some(is_rare)) => {
                let rare = made(&minority.changes);
                vec![Step::ByClass(ByClass { common, rare, is_rare: is_rare.clone() })]
            }
            _ => common,
        }
    }

    /// What makes the image of a row of shards, changed at random where that is asked for.
    pub fn of_a_row(resize: &Resize, augment: Option<&Augment>) -> Vec<Step> {
        let whole = augment.is_some_and(|augment| augment.of_whole_images(resize).is_some());
        let mut steps = Step::squares(resize, augment);
        if augment.is_some() && !whole {
            // Rows may be of any size, which an augmentation may change.
            steps.pop();
        }
        steps
    }

    /// What makes squares of images that are wanted in one size, changed at random where that is asked for.
    pub fn squares(resize: &Resize, augment: Option<&Augment>) -> Vec<Step> {
        let resize = resize.clone();
        let Some(augment) = augment else { return vec![Step::Resize(resize)] };
        // An augmentation may change the size; a batch wants squares. The margin of a crop is cut off once.
        let again = Resize { shorter_side: None, ..resize.clone() };
        match augment.of_whole_images(&resize) {
            Some(augment) => vec![Step::Augment(augment), Step::Resize(again)],
            None => vec![Step::Resize(resize), Step::Augment(augment.clone()), Step::Resize(again)],
        }
    }

    fn work(&self, width: u32, height: u32) -> Work {
        match self {
            Step::Resize(resize) => resize.work(width, height),
            Step::Augment(augment) => augment.work(width, height),
            Step::ByClass(ByClass { common, rare, .. }) => {
                let [a, b] = [common, rare].map(|steps| work_of(steps, width, height));
                // What comes out may be of either size.
                let most = if a.out_bytes >= b.out_bytes { a } else { b };
                let total = a.total().max(b.total());
                Work { work_bytes: total - most.out_bytes, ..most }
            }
        }
    }
}

/// What steps take one after the other, as if they were one.
fn work_of(steps: &[Step], mut width: u32, mut height: u32) -> Work {
    let rgb = |width: u32, height: u32| u64::from(width) * u64::from(height) * 3;
    let before = rgb(width, height);
    let (mut pixels, mut peak) = (before, before);
    for step in steps {
        let work = step.work(width, height);
        peak = peak.max(pixels + work.total());
        (width, height, pixels) = (work.width, work.height, work.out_bytes);
    }
    // Where nothing is done, the image that goes in is the one that comes out.
    Work { width, height, out_bytes: pixels, work_bytes: (peak - before).saturating_sub(pixels) }
}

/// Decodes of an image what the step after it sees, if there is one.
#[derive(Clone, Debug)]
pub struct DecodeSeen {
    decode: Decode,
    next: Option<Step>,
}

impl Stage for DecodeSeen {
    const NAME: &'static str = Decode::NAME;
    type In = Encoded;
    type Out = Pixels;

    fn apply(&self, input: Encoded, draws: &Draws) -> Result<Pixels, Fault> {
        self.apply_to(input, None, draws)
    }

    fn apply_to(&self, input: Encoded, class: Option<Label>, draws: &Draws) -> Result<Pixels, Fault> {
        self.decode.seen(&input, &|size| self.next.as_ref()?.view(size, class, draws))
    }
}

/// The stages of a flow from files to what leaves it, as a scale for what passes them.
#[derive(Clone, Debug)]
pub struct Scales {
    /// The first stage.
    pub decode: Decode,
    /// The stages after it, in their order.
    pub steps: Vec<Step>,
    /// The last stage, where images are stored.
    pub encode: Option<Encode>,
}

impl Scales {
    /// The first stage, which decodes no more of an image than the first step sees.
    pub fn decode_seen(&self) -> DecodeSeen {
        DecodeSeen { decode: self.decode.clone(), next: self.steps.first().cloned() }
    }

    /// What the steps draw for an image of a class that was decoded to `size`; its pixels decide none of it.
    ///
    /// # Errors
    /// As the steps, and for a size that no decoded image has.
    pub fn drawn(
        &self,
        (width, height): (u32, u32),
        class: Label,
        draws: Draws,
    ) -> Result<Vec<Drawn>, Fault> {
        // Sizes come from shards, which are not believed.
        let bytes = (width.min(height) > 0)
            .then(|| u64::from(width) * u64::from(height))
            .and_then(|n| n.checked_mul(3));
        let most = self.decode.limits.memory_bytes_max;
        let Some(bytes) = bytes.filter(|bytes| *bytes <= most) else {
            return Err(Fault::new(
                Decode::NAME,
                format!("no image that is decoded has {width}x{height} pixels"),
            ));
        };
        let record = DrawRecord::default();
        let draws = draws.recorded(record.clone());
        let blank = Pixels::new(width, height, vec![0; bytes as usize]);
        self.steps.iter().try_fold(blank, |image, step| step.apply_to(image, Some(class), &draws))?;
        drop(draws);
        let drawn = std::mem::take(&mut *record.lock().expect("no panic under the lock"));
        Ok(drawn)
    }

    /// What the image in these bytes takes. One that will be refused by its header takes no more than its file.
    pub fn weigh(&self, file: &[u8]) -> Weight {
        let bytes = file.len() as u64;
        match probe(file) {
            Ok(header) if header.decode_bytes <= self.decode.limits.memory_bytes_max => {
                self.weight(bytes, header.decode_bytes, header.width, header.height)
            }
            _ => Weight { held: bytes, peak: bytes },
        }
    }

    /// The most that any image within the limits of [`Decode`] takes beside its file: what a run needs for one, however little memory
    /// it is given.
    pub fn most(&self) -> Weight {
        let decode_bytes = self.decode.limits.memory_bytes_max;
        self.shapes().fold(Weight::default(), |most, (width, height)| {
            let found = self.weight(0, decode_bytes, width, height);
            Weight { held: most.held.max(found.held), peak: most.peak.max(found.peak) }
        })
    }

    /// The most bytes that leave the last stage for any image within the limits of [`Decode`].
    pub fn most_stored(&self) -> u64 {
        let stored = |(mut width, mut height)| {
            for step in &self.steps {
                let work = step.work(width, height);
                (width, height) = (work.width, work.height);
            }
            match &self.encode {
                Some(encode) => encode.work(width, height).out_bytes,
                None => u64::from(width) * u64::from(height) * 3,
            }
        };
        self.shapes().map(stored).max().unwrap_or(0)
    }

    /// Sizes of images at the limits of [`Decode`], from a row to a column. Between two of them lies less than a 25th
    /// of either side.
    fn shapes(&self) -> impl Iterator<Item = (u32, u32)> {
        let pixels = self.decode.limits.memory_bytes_max / 3;
        let side_max = u64::from(self.decode.limits.side_px_max);
        (-400_i32..=400).map(move |step| {
            let aspect = (f64::from(step) * 0.04).exp2();
            let width = ((pixels as f64 * aspect).sqrt() as u64).clamp(1, side_max);
            (width as u32, (pixels / width).clamp(1, side_max) as u32)
        })
    }

    fn weight(&self, file_bytes: u64, decode_bytes: u64, mut width: u32, mut height: u32) -> Weight {
        let mut pixels = u64::from(width) * u64::from(height) * 3;
        let mut weight = Weight { held: file_bytes.max(pixels), peak: file_bytes + decode_bytes.max(pixels) };
        let works = |width, height, step: usize| match self.steps.get(step) {
            Some(step) => Some(step.work(width, height)),
            None if step == self.steps.len() => Some(self.encode.as_ref()?.work(width, height)),
            None => None,
        };
        let mut step = 0;
        while let Some(work) = works(width, height, step) {
            step += 1;
            weight.peak = weight.peak.max(pixels + work.total());
            weight.held = weight.held.max(work.out_bytes);
            (width, height, pixels) = (work.width, work.height, work.out_bytes);
        }
        weight
    }
}

/// Cuts a sequence of images where they would take more than `bytes_max` together: how many lie in each part, and
/// what it takes. One stage works on the images of a part one after the other. An image that is heavier than that
/// is a part of its own.
pub fn parts(weights: impl IntoIterator<Item = Weight>, bytes_max: u64) -> Vec<(usize, u64)> {
    let mut parts: Vec<(usize, u64)> = Vec::new();
    // Of the last part: what lies between stages, and the most that work adds to it.
    let (mut held, mut work) = (0, 0);
    for weight in weights {
        let (more, most) = (held + weight.held, work.max(weight.peak.saturating_sub(weight.held)));
        match parts.last_mut() {
            Some((n, bytes)) if more + most <= bytes_max => {
                (held, work) = (more, most);
                (*n, *bytes) = (*n + 1, held + work);
            }
            _ => {
                (held, work) = (weight.held, weight.peak.saturating_sub(weight.held));
                parts.push((1, held + work));
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::augment::{HorizontalFlip, RandomCrop, RandomResizedCrop};
    use crate::decode::Limits;
    use crate::encode::Encoding;
    use crate::resize::{Fit, Size};

    fn file(width: u32, height: u32) -> Vec<u8> {
        let pixels = Pixels::new(width, height, vec![7; width as usize * height as usize * 3]);
        let draws = Seed(0).draws("a", 0, 0);
        Encode { encoding: Encoding::Png }.apply(pixels, &draws).unwrap().bytes.to_vec()
    }

    fn side(side: u32) -> Step {
        Step::Resize(Resize { size: Size::Side(side), fit: Fit::Squash, ..Resize::default() })
    }

    #[test]
    fn what_is_drawn_is_told_of_sizes_that_images_have() {
        let augment: Augment = "light".parse().expect("a preset");
        let steps = Step::squares(&Resize { size: Size::Side(8), ..Resize::default() }, Some(&augment));
        let scales = Scales { decode: Decode::default(), steps, encode: None };
        let drawn = |size: (u32, u32)| scales.drawn(size, 0, Seed(1).draws("a", 0, 0));
        let stages: Vec<String> =
            drawn((40, 30)).expect("draws").into_iter().map(|drawn| drawn.stage).collect();
        assert!(stages.contains(&"horizontal_flip".to_string()) && stages.len() > 3, "{stages:?}");
        for size in [(0, 4), (u32::MAX, u32::MAX), (1 << 20, 1 << 20)] {
            assert!(drawn(size).expect_err("no image").reason.contains("no image that is decoded"));
        }
    }

    #[test]
    fn what_is_decoded_of_an_image_for_its_steps_is_what_they_see_of_all_of_it() {
        let mut stream = Seed(3).stream("pixels");
        let pixels = Pixels::new(50, 41, (0..50 * 41 * 3).map(|_| stream.below(256) as u8).collect());
        let encode = Encode { encoding: Encoding::Raw };
        let stored = encode.apply(pixels, &Seed(0).draws("a", 0, 0)).expect("a PPM");
        let raw = Encoded { bytes: stored.bytes };
        let crop = |side, pad| Augment {
            random_crop: Some(RandomCrop::new(side, pad)),
            horizontal_flip: Some(HorizontalFlip::default()),
            ..Augment::default()
        };
        let window =
            Augment { random_resized_crop: Some(RandomResizedCrop::default()), ..Augment::default() };
        let to = |side, shorter_side| Resize {
            size: Size::Side(side),
            fit: Fit::Crop,
            shorter_side,
            ..Resize::default()
        };
        for (resize, augment) in [
            (to(41, None), crop(41, 0)),
            (to(41, None), crop(41, 4)),
            (to(30, Some(41)), crop(30, 0)),
            (to(30, Some(41)), crop(30, 30)),
            (to(20, Some(27)), crop(20, 3)),
            (to(20, None), window),
            (to(20, None), Augment::default()),
        ] {
            let steps = Step::squares(&resize, Some(&augment));
            let scales = Scales { decode: Decode::default(), steps, encode: None };
            for copy in 0..40 {
                let draws = Seed(1).draws("a", copy, 0);
                let through = |decoded: Pixels| {
                    scales.steps.iter().try_fold(decoded, |image, step| step.apply_to(image, None, &draws))
                };
                let whole = scales.decode.apply(raw.clone(), &draws).and_then(through).expect("an image");
                let seen = scales.decode_seen().apply(raw.clone(), &draws).expect("a part");
                assert_eq!(seen.whole(), (50, 41));
                // Where a square lies in the padding alone, all is decoded and nothing shown.
                let is_cut =
                    augment.random_crop.as_ref().is_some_and(|crop| crop.pad == 0 && crop.side == 30);
                assert!(!is_cut || seen.data.len() == 30 * 30 * 3, "more was decoded than {augment:?} shows");
                assert_eq!(through(seen).expect("an image"), whole, "{resize:?} {augment:?}");
            }
        }
    }

    #[test]
    fn an_image_takes_what_its_heaviest_stage_takes() {
        let small = file(32, 32);
        let scales = |steps| Scales { decode: Decode::default(), steps, encode: None };
        let decoded = scales(vec![]).weigh(&small);
        assert!(
            decoded.held >= 32 * 32 * 3 && decoded.peak >= decoded.held + small.len() as u64,
            "{decoded:?}"
        );
        let enlarged = scales(vec![side(1024)]).weigh(&small);
        assert!(enlarged.held >= 1024 * 1024 * 3, "{enlarged:?}");
        let augment = Augment {
            random_resized_crop: Some(RandomResizedCrop { side: Some(2048), ..RandomResizedCrop::default() }),
            ..Augment::default()
        };
        let cropped = scales(vec![side(32), Step::Augment(augment), side(32)]).weigh(&small);
        assert!(cropped.held >= 2048 * 2048 * 3, "{cropped:?}");
    }

    #[test]
    fn what_a_limit_refuses_takes_no_more_than_its_file() {
        let large = file(500, 400);
        let limits = Limits { memory_bytes_max: 500_000, ..Limits::default() };
        let scales =
            Scales { decode: Decode { limits, ..Decode::default() }, steps: vec![side(64)], encode: None };
        let bytes = large.len() as u64;
        assert_eq!(scales.weigh(&large), Weight { held: bytes, peak: bytes });
        assert_eq!(scales.weigh(b"no image"), Weight { held: 8, peak: 8 });
    }

    #[test]
    fn no_image_within_the_limits_is_heavier_than_the_most() {
        let limits = Limits { memory_bytes_max: 1_000_000, side_px_max: 2000 };
        for steps in [
            vec![],
            vec![side(300)],
            vec![Step::Resize(Resize { size: Size::Side(99), ..Resize::default() })],
        ] {
            let scales = Scales {
                decode: Decode { limits: limits.clone(), ..Decode::default() },
                steps,
                encode: None,
            };
            let most = scales.most();
            for (width, height) in [(570, 570), (2000, 160), (160, 2000), (40, 40), (1000, 300), (2000, 3)] {
                let bytes = file(width, height);
                let weight = scales.weigh(&bytes);
                assert!(
                    weight.peak <= most.peak + bytes.len() as u64,
                    "{width}x{height} {weight:?} {most:?}"
                );
                assert!(
                    weight.held <= most.held.max(bytes.len() as u64),
                    "{width}x{height} {weight:?} {most:?}"
                );
            }
        }
        // Decoding at its limit, with the pixels that are left of it.
        let scales = Scales { decode: Decode { limits, ..Decode::default() }, steps: vec![], encode: None };
        assert_eq!(scales.most().peak, 1_000_000);
    }

    #[test]
    fn images_pass_together_as_long_as_they_are_light() {
        let weight = |held, peak| Weight { held, peak };
        let light = [weight(10, 15); 7];
        assert_eq!(parts(light, 45), [(4, 45), (3, 35)]);
        let mixed = [weight(10, 10), weight(10, 90), weight(10, 10), weight(200, 300), weight(10, 10)];
        assert_eq!(parts(mixed, 100), [(2, 100), (1, 10), (1, 300), (1, 10)]);
        assert_eq!(parts([], 100), []);
    }
}
