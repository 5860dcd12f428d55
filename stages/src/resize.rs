//! Changes the size of an image: antialiased, its aspect kept unless asked otherwise.

use std::fmt;
use std::str::FromStr;

use fast_image_resize::images::{CroppedImage, Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use forebay_datasets::sample::Pixels;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::crop::cut;
use crate::stage::{Draws, Fault, Stage};

/// The stage that resizes.
///
/// In and out: `[height, width, 3]`, u8. Interpolation is that of Pillow: the filter grows with the reduction, so
/// that nothing aliases, and results differ from Pillow's by a grey level at most.
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

/// How pixels are interpolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// A triangle of radius 1: what torchvision resizes with.
    Bilinear,
    /// Catmull-Rom (a = -0.5) of radius 2, as in Pillow.
    Bicubic,
    /// A windowed sinc of radius 3.
    Lanczos3,
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
                let (width, height) = self.scaled(width, height, side);
                (width.min(side), height.min(side))
            }
            Fit::Pad => (side, side),
            Fit::Squash if self.enlarge => (side, side),
            Fit::Squash => (width.min(side), height.min(side)),
        }
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

    /// The size whose longer side is `side`, the shorter one rounded, as Pillow's `ImageOps.pad` does.
    fn contained(&self, width: u32, height: u32, side: u32) -> (u32, u32) {
        let (short, long) = (width.min(height), width.max(height));
        if long <= side && !self.enlarge {
            return (width, height);
        }
        let short = (f64::from(side) * f64::from(short) / f64::from(long)).round().max(1.0) as u32;
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
        let (width, height) = self.output_size(input.width, input.height);
        if width.max(height) > Self::SIDE_PX_MAX {
            return Err(Fault::new(
                Self::NAME,
                format_args!(
                    "{}x{} pixels would become {width}x{height}, and no side may be longer than {}",
                    input.width,
                    input.height,
                    Self::SIDE_PX_MAX
                ),
            ));
        }
        Ok(match self.fit {
            Fit::Shortest | Fit::Squash => resample(input, width, height, self.filter),
            Fit::Crop => self.crop(input, side, width, height),
            Fit::Pad => {
                let (inner_width, inner_height) = self.contained(input.width, input.height, side);
                let inner = resample(input, inner_width, inner_height, self.filter);
                pad(inner, side, self.pad_color)
            }
        })
    }
}

impl Resize {
    /// Resizes only what survives the centre crop. The box in the source is that of resizing everything and
    /// then cropping, so that the result is the same.
    fn crop(&self, input: Pixels, side: u32, width: u32, height: u32) -> Pixels {
        let (whole_width, whole_height) = self.scaled(input.width, input.height, side);
        // torchvision's and timm's centre: `round((whole - crop) / 2)`, which Python rounds half to even.
        let offset = |whole: u32, crop: u32| (f64::from(whole - crop) / 2.0).round_ties_even();
        let (left, top) = (offset(whole_width, width), offset(whole_height, height));
        if (whole_width, whole_height) == (input.width, input.height) {
            return cut(input, left as u32, top as u32, width, height);
        }
        let across = f64::from(input.width) / f64::from(whole_width);
        let down = f64::from(input.height) / f64::from(whole_height);
        let options = ResizeOptions::new().crop(
            left * across,
            top * down,
            // A last bit too much would reach over the edge.
            (f64::from(width) * across).min(f64::from(input.width) - left * across),
            (f64::from(height) * down).min(f64::from(input.height) - top * down),
        );
        let original = input.original;
        let source = view(&input);
        Pixels { original, ..run(&source, options, width, height, self.filter) }
    }
}

/// The whole image at another size; the same image where the size is the same.
pub(crate) fn resample(input: Pixels, width: u32, height: u32, filter: Filter) -> Pixels {
    if (width, height) == (input.width, input.height) {
        return input;
    }
    let original = input.original;
    Pixels { original, ..run(&view(&input), ResizeOptions::new(), width, height, filter) }
}

/// A window of the image at another size: the same as cutting it out and then resizing, without the copy.
///
/// # Panics
/// When the window is empty or reaches over the edge.
pub(crate) fn resample_window(
    input: Pixels,
    [left, top, window_width, window_height]: [u32; 4],
    width: u32,
    height: u32,
    filter: Filter,
) -> Pixels {
    if (width, height) == (window_width, window_height) {
        return cut(input, left, top, width, height);
    }
    let original = input.original;
    let whole = view(&input);
    let window = CroppedImage::new(&whole, left, top, window_width, window_height)
        .expect("the window lies within the image");
    Pixels { original, ..run(&window, ResizeOptions::new(), width, height, filter) }
}

fn view(pixels: &Pixels) -> ImageRef<'_> {
    ImageRef::new(pixels.width, pixels.height, &pixels.data, PixelType::U8x3)
        .expect("pixels hold width * height * 3 bytes")
}

fn run(
    source: &impl fast_image_resize::IntoImageView,
    options: ResizeOptions,
    width: u32,
    height: u32,
    filter: Filter,
) -> Pixels {
    let filter = match filter {
        Filter::Bilinear => FilterType::Bilinear,
        Filter::Bicubic => FilterType::CatmullRom,
        Filter::Lanczos3 => FilterType::Lanczos3,
    };
    let options = options.resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
    let mut target = Image::new(width, height, PixelType::U8x3);
    Resizer::new()
        .resize(source, &mut target, &options)
        .expect("source and target are 8-bit RGB, and the box lies within the source");
    Pixels::new(width, height, target.into_vec())
}

/// Centres an image on a square canvas.
fn pad(inner: Pixels, side: u32, color: [u8; 3]) -> Pixels {
    if (inner.width, inner.height) == (side, side) {
        return inner;
    }
    let (left, top) = ((side - inner.width) / 2, (side - inner.height) / 2);
    let mut data = color.repeat(side as usize * side as usize);
    let (canvas_stride, stride) = (side as usize * 3, inner.width as usize * 3);
    for (row, line) in inner.data.chunks_exact(stride).enumerate() {
        let start = (top as usize + row) * canvas_stride + left as usize * 3;
        data[start..start + stride].copy_from_slice(line);
    }
    Pixels { width: side, height: side, data, original: inner.original }
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

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Fit::Shortest => "shortest",
            Fit::Crop => "crop",
            Fit::Pad => "pad",
            Fit::Squash => "squash",
        })
    }
}

impl FromStr for Fit {
    type Err = String;

    fn from_str(text: &str) -> Result<Fit, String> {
        match text {
            "shortest" => Ok(Fit::Shortest),
            "crop" => Ok(Fit::Crop),
            "pad" => Ok(Fit::Pad),
            "squash" => Ok(Fit::Squash),
            _ => Err(format!("fit is {text:?}, and must be shortest, crop, pad or squash")),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Filter::Bilinear => "bilinear",
            Filter::Bicubic => "bicubic",
            Filter::Lanczos3 => "lanczos3",
        })
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        match text {
            "bilinear" => Ok(Filter::Bilinear),
            "bicubic" => Ok(Filter::Bicubic),
            "lanczos3" => Ok(Filter::Lanczos3),
            _ => Err(format!("filter is {text:?}, and must be bilinear, bicubic or lanczos3")),
        }
    }
}
