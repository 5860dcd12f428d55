//! Changes the size of an image: antialiased, its aspect kept unless asked otherwise.

use std::fmt;
use std::str::FromStr;

use forebay_datasets::sample::Pixels;
use forebay_datasets::words;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::resample::Filter;
use crate::resample::{View, band_lines};
use crate::stage::{Draws, Fault, Stage, Work};

/// The stage that resizes.
///
/// In and out: `[height, width, 3]`, u8. Interpolation is that of Pillow: the filter grows with the reduction, so
/// that nothing aliases, and results differ from Pillow's by at most a grey level, or by two where weights have fewer bits
/// here and many values lie halfway, as of a checkerboard and of some photographs. What bicubic and Lanczos overshoot is cut off
/// between the two passes, so that their order shows: it is that of Pillow 13.0, down the columns first where the height loses more than
/// twice the pixels that the width loses. Pillow before it went along the rows first in any case, and differs there beside hard edges.
/// With [`Fit::Pad`] a very thin image keeps a row or column, where Pillow shows the bars alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resize {
    /// The size to reach; what it is the size of, `fit` says.
    pub size: Size,
    /// How an image that is not square gets there.
    pub fit: Fit,
    /// Whether images that are smaller than `size` are enlarged. Where not, `shortest` and `squash` leave them
    /// as they are (`squash` by side), `crop` cuts what is longer than `size`, and `pad` frames them.
    pub enlarge: bool,
    /// How pixels are interpolated.
    pub filter: Filter,
    /// The colour of the bars that `pad` adds.
    pub pad_color: [u8; 3],
    /// With `crop`: the shorter side before the centre square is cut out, where that is larger than `size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shorter_side: Option<u32>,
}

impl Default for Resize {
    /// The original size; with another one: shorter side, enlarged where smaller, bilinear, black bars.
    fn default() -> Resize {
        Resize {
            size: Size::Original,
            fit: Fit::Shortest,
            enlarge: true,
            filter: Filter::Bilinear,
            pad_color: [0; 3],
            shorter_side: None,
        }
    }
}

/// The size to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As the file has it: nothing is resized, cut or padded.
    Original,
    /// A side in pixels, at least 1.
    Side(u32),
}

/// How an image that is not square gets to a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// The shorter side becomes `size`, the longer one `int(size * long / short)`, as in torchvision and timm.
    Shortest,
    /// As `Shortest`, then the centre square.
    Crop,
    /// The longer side becomes `size`, and bars in `pad_color` fill the square.
    Pad,
    /// Both sides become `size`; the aspect is lost.
    Squash,
}

impl Resize {
    /// No image leaves this stage with a longer side. A 1 × 10,000 image whose shorter side is enlarged to 256
    /// would otherwise take two gigabytes.
    pub const SIDE_PX_MAX: u32 = 16_384;

    /// Width and height of what an image of `width` × `height` pixels becomes. No side is ever 0.
    pub fn output_size(&self, width: u32, height: u32) -> (u32, u32) {
        let Size::Side(side) = self.size else { return (width, height) };
        match self.fit {
            Fit::Shortest => self.scaled(width, height, side),
            Fit::Crop => {
                let (width, height) = self.scaled(width, height, self.before_crop(side));
                (width.min(side), height.min(side))
            }
            Fit::Pad => (side, side),
            Fit::Squash if self.enlarge => (side, side),
            Fit::Squash => (width.min(side), height.min(side)),
        }
    }

    /// The same, refused where it is larger than an image may be.
    pub(crate) fn output_size_checked(&self, width: u32, height: u32) -> Result<(u32, u32), Fault> {
        let (to_width, to_height) = self.output_size(width, height);
        match to_width.max(to_height) {
            0..=Self::SIDE_PX_MAX => Ok((to_width, to_height)),
            _ => Err(Fault::new(
                Self::NAME,
                format_args!(
                    "{width}x{height} pixels would become {to_width}x{to_height}, and no side may be longer than {}",
                    Self::SIDE_PX_MAX
                ),
            )),
        }
    }

    /// What makes the image that [`Fit::Crop`] cuts the centre square out of.
    pub(crate) fn before_the_cut(&self) -> Resize {
        let size = match self.size {
            Size::Side(side) => Size::Side(self.before_crop(side)),
            Size::Original => Size::Original,
        };
        Resize { size, fit: Fit::Shortest, shorter_side: None, ..self.clone() }
    }

    /// What resizing an image takes.
    pub fn work(&self, width: u32, height: u32) -> Work {
        let (to_width, to_height) = self.output_size(width, height);
        let rgb = |width: u32, height: u32| u64::from(width) * u64::from(height) * 3;
        let out_bytes = rgb(to_width, to_height);
        if (to_width, to_height) == (width, height) && self.fit != Fit::Pad {
            // What goes in is what comes out.
            return Work { width, height, out_bytes, work_bytes: 0 };
        }
        if to_width.max(to_height) > Self::SIDE_PX_MAX {
            // Refused.
            return Work { width: 1, height: 1, out_bytes: 0, work_bytes: 0 };
        }
        // The image after one of the two passes, the weights of both, and with `pad` the image inside the bars.
        let between = rgb(to_width, height).max(rgb(width, to_height));
        let weights =
            64 * (u64::from(width) + u64::from(height) + u64::from(to_width) + u64::from(to_height));
        let inner = if self.fit == Fit::Pad { out_bytes } else { 0 };
        let band = match self.filter {
            Filter::Bilinear => 0,
            // Before and after the first pass, which goes along the rows or down the columns. Of a part of the image lines are
            // shorter and more, and take no more bytes.
            _ => [(width, to_width), (height, to_height)]
                .map(|(from, to)| 4 * 2 * rgb(from.max(to), band_lines(from, to)))
                .into_iter()
                .fold(0, u64::max),
        };
        Work { width: to_width, height: to_height, out_bytes, work_bytes: between + weights + inner + band }
    }

    fn before_crop(&self, side: u32) -> u32 {
        self.shorter_side.unwrap_or(side).max(side)
    }

    /// The size whose shorter side is `side`; the size as it is where that would enlarge and must not.
    fn scaled(&self, width: u32, height: u32, side: u32) -> (u32, u32) {
        let (short, long) = (width.min(height), width.max(height));
        if short <= side && !self.enlarge {
            return (width, height);
        }
        // Rounded down, as torchvision's and timm's `int(size * long / short)`.
        let long = u64::from(side) * u64::from(long) / u64::from(short);
        let long = u32::try_from(long).unwrap_or(u32::MAX);
        if width <= height { (side, long) } else { (long, side) }
    }

    /// The size whose longer side is `side`, the shorter one rounded half to even, as Pillow's `ImageOps.pad` does.
    fn contained(&self, width: u32, height: u32, side: u32) -> (u32, u32) {
        let (short, long) = (width.min(height), width.max(height));
        if long <= side && !self.enlarge {
            return (width, height);
        }
        let short = (f64::from(short) / f64::from(long) * f64::from(side)).round_ties_even().max(1.0) as u32;
        if width <= height { (short, side) } else { (side, short) }
    }
}

impl Stage for Resize {
    const NAME: &'static str = "resize";
    type In = Pixels;
    type Out = Pixels;

    fn apply(&self, input: Pixels, _draws: &Draws) -> Result<Pixels, Fault> {
        let Size::Side(side) = self.size else { return Ok(input) };
        if side == 0 {
            return Err(Fault::new(Self::NAME, "resize.size is 0, and a side has at least 1 pixel"));
        }
        let (from_width, from_height) = input.whole();
        self.output_size_checked(from_width, from_height)?;
        let shown = match self.view(from_width, from_height) {
            Some(view) => view.of(input),
            None => input,
        };
        Ok(if self.fit == Fit::Pad { pad(shown, side, self.pad_color) } else { shown })
    }
}

/// torchvision's and timm's place of a centre crop along one side, in pixels: `round((whole - crop) / 2)`, which Python
/// rounds half to even.
pub(crate) fn centre_offset(whole: u32, crop: u32) -> f64 {
    (f64::from(whole - crop) / 2.0).round_ties_even()
}

impl Resize {
    /// What is shown of an image of `width` x `height` pixels. `None` where it stays as it is, or is refused.
    pub fn view(&self, width: u32, height: u32) -> Option<View> {
        let Size::Side(side @ 1..) = self.size else { return None };
        let (to_width, to_height) = self.output_size(width, height);
        if to_width.max(to_height) > Self::SIDE_PX_MAX {
            return None;
        }
        let whole = View::of_whole([width, height], self.filter);
        let view = match self.fit {
            Fit::Shortest | Fit::Squash => View { size: [to_width, to_height], ..whole },
            Fit::Pad => View { size: self.contained(width, height, side).into(), ..whole },
            Fit::Crop => {
                // Only what survives the centre crop is resized. The window in the source is that of resizing everything
                // and then cropping, so that the result is the same.
                let (whole_width, whole_height) = self.scaled(width, height, self.before_crop(side));
                let left = centre_offset(whole_width, to_width);
                let top = centre_offset(whole_height, to_height);
                let across = f64::from(width) / f64::from(whole_width);
                let down = f64::from(height) / f64::from(whole_height);
                let window = [
                    left * across,
                    top * down,
                    // A last bit too much would reach over the edge.
                    (f64::from(to_width) * across).min(f64::from(width) - left * across),
                    (f64::from(to_height) * down).min(f64::from(height) - top * down),
                ];
                View { window, size: [to_width, to_height], ..whole }
            }
        };
        (view != View::of_whole([width, height], self.filter)).then_some(view)
    }
}

/// Centres an image on a square canvas; half a pixel goes to the even side, as in Pillow's `ImageOps.pad`.
fn pad(inner: Pixels, side: u32, color: [u8; 3]) -> Pixels {
    if (inner.width, inner.height) == (side, side) {
        return inner;
    }
    let offset = |length: u32| (f64::from(side - length) / 2.0).round_ties_even() as u32;
    let (left, top) = (offset(inner.width), offset(inner.height));
    let mut data = color.repeat(side as usize * side as usize);
    let (canvas_stride, stride) = (side as usize * 3, inner.width as usize * 3);
    for (row, line) in inner.data.chunks_exact(stride).enumerate() {
        let start = (top as usize + row) * canvas_stride + left as usize * 3;
        data[start..start + stride].copy_from_slice(line);
    }
    Pixels { original: inner.original, ..Pixels::new(side, side, data) }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Original => f.pad("original"),
            Size::Side(side) => f.pad(&side.to_string()),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        match text.parse() {
            Ok(side) if side > 0 => Ok(Size::Side(side)),
            _ if text == "original" => Ok(Size::Original),
            _ => Err(format!("size is {text:?}, and must be a number of pixels or \"original\"")),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Size::Original => serializer.serialize_str("original"),
            Size::Side(side) => serializer.serialize_u32(*side),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        /// A run file may hold a number or a word.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Side(u32),
            Word(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Side(side) => side.to_string(),
            Written::Word(word) => word,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

words!(Fit { Shortest => "shortest", Crop => "crop", Pad => "pad", Squash => "squash" });

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::crop::cut;

    /// An image that folds over, so that it has edges.
    fn image(width: u32, height: u32) -> Pixels {
        let pixel = |x: u32, y: u32| [(x * 37 + y * 11) as u8, (x * x * 5) as u8, (y * 53) as u8];
        let data = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
        Pixels::new(width, height, data)
    }

    fn apply(resize: &Resize, pixels: Pixels) -> Result<Pixels, Fault> {
        resize.apply(pixels, &Seed(0).draws("a", 0, 0))
    }

    fn resize(side: u32, fit: Fit) -> Resize {
        Resize { size: Size::Side(side), fit, ..Resize::default() }
    }

    /// The largest difference of any value.
    fn distance(a: &Pixels, b: &Pixels) -> u8 {
        assert_eq!((a.width, a.height, a.original), (b.width, b.height, b.original));
        a.data.iter().zip(&b.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    }

    #[test]
    fn sizes_are_those_of_torchvision() {
        // (fit, side, enlarge), (from), (to); torchvision.transforms.functional.resize, int(256 * 500 / 375).
        let cases = [
            ((Fit::Shortest, 256, true), (500, 375), (341, 256)),
            ((Fit::Shortest, 256, true), (375, 500), (256, 341)),
            ((Fit::Shortest, 256, true), (100, 100), (256, 256)),
            ((Fit::Shortest, 256, false), (100, 50), (100, 50)),
            ((Fit::Shortest, 256, false), (1000, 256), (1000, 256)),
            ((Fit::Shortest, 10, true), (1, 7), (10, 70)),
            ((Fit::Crop, 256, true), (500, 375), (256, 256)),
            ((Fit::Crop, 256, false), (500, 100), (256, 100)),
            ((Fit::Pad, 256, true), (500, 375), (256, 256)),
            ((Fit::Pad, 256, false), (5, 3), (256, 256)),
            ((Fit::Squash, 256, true), (500, 100), (256, 256)),
            ((Fit::Squash, 256, false), (500, 100), (256, 100)),
        ];
        for ((fit, side, enlarge), (width, height), expected) in cases {
            let resize = Resize { enlarge, ..resize(side, fit) };
            assert_eq!(resize.output_size(width, height), expected, "{fit} {side} {width}x{height}");
            let pixels = apply(&resize, image(width, height)).unwrap();
            assert_eq!((pixels.width, pixels.height), expected);
            assert_eq!(pixels.data.len() as u32, expected.0 * expected.1 * 3);
            assert_eq!(pixels.original.size, (width, height));
        }
    }

    #[test]
    fn no_side_is_ever_zero() {
        for fit in [Fit::Shortest, Fit::Crop, Fit::Pad, Fit::Squash] {
            for (width, height) in [(1, 1), (1, 60), (60, 1), (2, 59)] {
                for enlarge in [true, false] {
                    let resize = Resize { enlarge, ..resize(7, fit) };
                    let pixels = apply(&resize, image(width, height)).unwrap();
                    assert!(pixels.width >= 1 && pixels.height >= 1);
                    assert_eq!((pixels.width, pixels.height), resize.output_size(width, height));
                }
            }
        }
    }

    #[test]
    fn values_are_those_of_pillow() {
        let golden = [
            (
                (Filter::Bilinear, [9, 6], [4, 3]),
                vec![
                    39, 6, 38, 114, 45, 38, 180, 137, 38, 69, 165, 38, 59, 6, 133, 134, 45, 133, 191, 137,
                    133, 82, 165, 133, 78, 6, 117, 153, 45, 117, 160, 137, 117, 64, 165, 117,
                ],
            ),
            (
                (Filter::Bicubic, [9, 6], [4, 3]),
                vec![
                    31, 3, 29, 112, 41, 29, 192, 143, 29, 61, 166, 29, 53, 3, 141, 134, 41, 141, 206, 143,
                    141, 78, 166, 141, 74, 3, 117, 162, 41, 117, 160, 143, 117, 57, 166, 117,
                ],
            ),
            (
                (Filter::Lanczos3, [9, 6], [4, 3]),
                vec![
                    28, 3, 22, 111, 35, 22, 196, 149, 22, 59, 167, 22, 50, 3, 149, 135, 35, 149, 211, 149,
                    149, 77, 167, 149, 69, 3, 118, 171, 35, 118, 158, 149, 118, 51, 167, 118,
                ],
            ),
            (
                (Filter::Bilinear, [3, 2], [5, 4]),
                vec![
                    0, 0, 0, 15, 2, 0, 37, 5, 0, 59, 14, 0, 74, 20, 0, 3, 0, 13, 18, 2, 13, 40, 5, 13, 62,
                    14, 13, 77, 20, 13, 8, 0, 40, 23, 2, 40, 45, 5, 40, 67, 14, 40, 82, 20, 40, 11, 0, 53,
                    26, 2, 53, 48, 5, 53, 70, 14, 53, 85, 20, 53,
                ],
            ),
            (
                (Filter::Bicubic, [3, 2], [5, 4]),
                vec![
                    0, 0, 0, 10, 1, 0, 36, 5, 0, 62, 15, 0, 76, 21, 0, 2, 0, 11, 13, 1, 11, 39, 5, 11, 65,
                    15, 11, 79, 21, 11, 6, 0, 42, 20, 1, 42, 46, 5, 42, 72, 15, 42, 86, 21, 42, 9, 0, 58, 23,
                    1, 58, 49, 5, 58, 75, 15, 58, 89, 21, 58,
                ],
            ),
            (
                (Filter::Lanczos3, [3, 2], [5, 4]),
                vec![
                    0, 0, 0, 6, 0, 0, 35, 5, 0, 64, 16, 0, 75, 21, 0, 2, 0, 12, 11, 0, 12, 40, 5, 12, 69, 16,
                    12, 80, 21, 12, 6, 0, 41, 16, 0, 41, 45, 5, 41, 74, 16, 41, 85, 21, 41, 9, 0, 62, 21, 0,
                    62, 50, 5, 62, 79, 16, 62, 90, 21, 62,
                ],
            ),
            ((Filter::Bilinear, [12, 4], [3, 1]), vec![87, 27, 80, 149, 133, 80, 107, 159, 80]),
            ((Filter::Bicubic, [12, 4], [3, 1]), vec![84, 19, 80, 153, 139, 80, 104, 160, 80]),
            ((Filter::Lanczos3, [12, 4], [3, 1]), vec![87, 15, 80, 153, 140, 80, 100, 162, 80]),
        ];
        for ((filter, [width, height], [to_width, to_height]), expected) in golden {
            let found = View { size: [to_width, to_height], ..View::of_whole([width, height], filter) };
            let found = found.of(image(width, height));
            let worst = found.data.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(1), "{filter} {width}x{height}: {:?}, {expected:?}", found.data);
        }
    }

    #[test]
    fn crop_gives_what_resizing_everything_and_then_cropping_gives() {
        for (width, height) in [(90, 40), (40, 90), (41, 97), (50, 50), (33, 200), (20, 31), (16, 100)] {
            for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3] {
                let whole =
                    apply(&Resize { filter, ..resize(32, Fit::Shortest) }, image(width, height)).unwrap();
                let offset = |length: u32| (f64::from(length - 32) / 2.0).round_ties_even() as u32;
                let (left, top) = (offset(whole.width), offset(whole.height));
                let expected = cut(whole, left, top, 32, 32);
                let found = apply(&Resize { filter, ..resize(32, Fit::Crop) }, image(width, height)).unwrap();
                // A weight may round the other way.
                assert!(distance(&found, &expected) <= 1, "{filter} {width}x{height}");
            }
        }
    }

    #[test]
    fn a_margin_is_cut_off_after_resizing() {
        for (width, height) in [(90, 40), (41, 97), (36, 36), (20, 31)] {
            let margin = Resize { shorter_side: Some(36), ..resize(32, Fit::Crop) };
            let whole = apply(&resize(36, Fit::Shortest), image(width, height)).unwrap();
            let offset = |length: u32| (f64::from(length - 32) / 2.0).round_ties_even() as u32;
            let (left, top) = (offset(whole.width), offset(whole.height));
            let found = apply(&margin, image(width, height)).unwrap();
            assert!(distance(&found, &cut(whole, left, top, 32, 32)) <= 1, "{width}x{height}");
            assert_eq!(margin.output_size(width, height), (32, 32));
        }
    }

    #[test]
    fn an_image_of_the_right_size_is_untouched() {
        let square = image(32, 32);
        for fit in [Fit::Shortest, Fit::Crop, Fit::Pad, Fit::Squash] {
            assert_eq!(apply(&resize(32, fit), square.clone()).unwrap(), square);
        }
        let any = image(31, 17);
        assert_eq!(apply(&Resize::default(), any.clone()).unwrap(), any);
        let cropped = apply(&resize(17, Fit::Crop), any.clone()).unwrap();
        assert_eq!(cropped, cut(any, 7, 0, 17, 17));
    }

    #[test]
    fn padding_centres_the_image_between_bars() {
        let white = Pixels::new(4, 2, vec![255; 24]);
        let padded = apply(&Resize { pad_color: [1, 2, 3], ..resize(4, Fit::Pad) }, white).unwrap();
        let bar = [1, 2, 3].repeat(4);
        assert_eq!(padded.data, [bar.clone(), vec![255; 24], bar].concat());
    }

    #[test]
    fn an_odd_margin_is_divided_as_pillow_divides_it() {
        // ImageOps.pad(image, (side, side)) of Pillow 11: `round((side - length) / 2)`, half to even; and the shorter
        // side is `round(short / long * side)`.
        for ((width, height), side, first) in
            [((4, 3), 4, 0), ((4, 1), 4, 2), ((8, 3), 8, 2), ((8, 1), 8, 4), ((8, 5), 8, 2), ((16, 5), 8, 3)]
        {
            let white = Pixels::new(width, height, vec![255; (width * height * 3) as usize]);
            let padded = apply(&resize(side, Fit::Pad), white).unwrap();
            let row = padded.data.chunks_exact(side as usize * 3).position(|row| row[0] == 255);
            assert_eq!(row, Some(first), "{width}x{height} on {side}");
        }
        let rows = |width, height, side| resize(side, Fit::Pad).contained(width, height, side).1;
        assert_eq!((rows(8, 5, 4), rows(8, 3, 4), rows(16, 7, 8)), (2, 2, 4));
    }

    #[test]
    fn a_side_that_would_grow_beyond_bounds_is_refused() {
        let fault = apply(&resize(256, Fit::Shortest), image(1, 10_000)).unwrap_err();
        let expected =
            "resize: 1x10000 pixels would become 256x2560000, and no side may be longer than 16384";
        assert_eq!(fault.to_string(), expected);
        let cropped = apply(&resize(256, Fit::Crop), image(1, 10_000)).unwrap();
        assert_eq!((cropped.width, cropped.height), (256, 256));
        assert!(apply(&resize(0, Fit::Crop), image(2, 2)).unwrap_err().reason.contains("resize.size is 0"));
    }

    #[test]
    fn settings_are_words_and_numbers() {
        for (text, size) in [("224", Size::Side(224)), ("original", Size::Original)] {
            assert_eq!(text.parse(), Ok(size));
            assert_eq!(size.to_string(), text);
        }
        assert!("0".parse::<Size>().is_err() && "big".parse::<Size>().is_err());
        let resize: Resize =
            serde_json::from_str(r#"{"size": 256, "fit": "crop", "filter": "lanczos3"}"#).unwrap();
        assert_eq!(resize, Resize { filter: Filter::Lanczos3, ..super::tests::resize(256, Fit::Crop) });
        let again: Resize = serde_json::from_str(&serde_json::to_string(&resize).unwrap()).unwrap();
        assert_eq!(again, resize);
        let original: Resize = serde_json::from_str(r#"{"size": "original"}"#).unwrap();
        assert_eq!(original, Resize::default());
        assert!(serde_json::from_str::<Resize>(r#"{"sise": 1}"#).is_err());
        for fit in [Fit::Shortest, Fit::Crop, Fit::Pad, Fit::Squash] {
            assert_eq!(fit.to_string().parse(), Ok(fit));
        }
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3] {
            assert_eq!(filter.to_string().parse(), Ok(filter));
        }
    }
}
