//! Turns the bytes of an image file into 8-bit RGB pixels, or says in one line why it cannot.
//!
//! The format is recognised by content, never by extension: JPEG, PNG, WebP, GIF (first frame), BMP, TIFF and
//! PNM. Whatever a file holds becomes RGB as Pillow's `convert("RGB")` gives it, with two differences: the
//! orientation in the EXIF data is applied, and 16-bit samples are divided by 257 and rounded, never clipped.
//! Colour profiles (ICC, gamma, cHRM) are ignored, as torchvision, timm and Keras ignore them.
//!
//! Nothing is allocated for an image before its header has passed the [`Limits`]. Decoders meet hostile
//! bytes, so they run inside `catch_unwind`: a panic in one is a [`Fault`] of this image and no more.

mod exif;
pub(crate) mod jpeg;
mod netpbm;
mod png;
mod still;
mod tiff;

use std::fmt;

use forebay_datasets::panics;
use forebay_datasets::sample::{Encoded, Pixels};
use forebay_datasets::words;
use image::metadata::Orientation;
use serde::{Deserialize, Serialize};

use crate::resample::View;
use crate::stage::{Draws, Fault, Stage};

/// The stage that decodes a file.
///
/// Out: `[height, width, 3]`, u8, 0 to 255, in the file's own gamma, as displayed (orientation applied).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decode {
    /// The colour that transparent pixels are composited on. `None`: alpha is dropped, which shows whatever
    /// colour the transparent pixels happen to have, as Pillow's `convert("RGB")` does.
    pub background: Option<[u8; 3]>,
    /// What is refused by its header.
    pub limits: Limits,
    /// Who decodes JPEG.
    pub decoder: Decoder,
    /// Whether large images are decoded at a fraction of their size where the next stage makes them smaller still.
    pub scale: DecodeScale,
    /// Whether the pixels know the BLAKE3 of their file.
    #[serde(skip)]
    pub hashes: bool,
}

/// Who decodes JPEG.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decoder {
    /// Forebay, with libjpeg-turbo's pixels, and of an image no more than is seen; what it refuses goes the other way.
    #[default]
    Forebay,
    /// The decoder of the `image` crate, whole images.
    Image,
}
words!(Decoder { Forebay => "forebay", Image => "image" });

/// What a thread that decodes keeps between two images, bytes at most.
pub const KEPT_BYTES_MAX: usize = jpeg::KEPT_BYTES_MAX + crate::spare::BYTES_MAX + ROWS_AND_TABLES;

/// Huffman tables, rows of pixels and those between two passes of a resize.
const ROWS_AND_TABLES: usize = 2 << 20;

/// At which size JPEG is decoded for a stage that makes it smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecodeScale {
    /// At a half, a quarter or an eighth of its size, where that leaves at least 4.5 times as many columns and rows as are wanted (8 times
    /// where a side becomes less than 64 pixels): each pixel is then the mean of those that it stands for, but for chroma that is not smoothed and
    /// levels that are not cut off before. Pillow's `reducing_gap` does much the same.
    #[default]
    Scaled,
    /// At its full size.
    Exact,
}
words!(DecodeScale { Scaled => "scaled", Exact => "exact" });

/// The largest image that is decoded; larger ones are refused by their header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The longest side in pixels.
    pub side_px_max: u32,
    /// The most bytes that decoding one image may hold at once beside its file: the decoder's own buffers, at the
    /// depth and with the channels of the file, and the pixels that come of them ([`Header::decode_bytes`]).
    pub memory_bytes_max: u64,
}

impl Default for Limits {
    /// 16,384 pixels and 256 MiB.
    fn default() -> Limits {
        Limits { side_px_max: 16_384, memory_bytes_max: 256 << 20 }
    }
}

impl Limits {
    /// Refuses an image that takes `bytes` to decode.
    fn check(&self, width: u32, height: u32, bytes: u64) -> Result<(), Fault> {
        check_sides(width, height)?;
        if width.max(height) > self.side_px_max {
            let max = self.side_px_max;
            return Err(fault(format_args!("{width}x{height} pixels are more than decode.max_side {max}")));
        }
        if bytes > self.memory_bytes_max {
            let max = self.memory_bytes_max;
            return Err(fault(format_args!(
                "{width}x{height} pixels take {bytes} bytes to decode, more than decode.max_bytes {max}"
            )));
        }
        Ok(())
    }
}

/// The file formats that are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Baseline and progressive, 8-bit.
    Jpeg,
    /// All colour types and depths; of an animation the default image.
    Png,
    /// Lossy and lossless; of an animation the first frame.
    WebP,
    /// The first frame.
    Gif,
    /// Windows bitmaps.
    Bmp,
    /// The first page.
    Tiff,
    /// PBM, PGM, PPM and PAM; a binary 8-bit PPM is what raw shards hold.
    Pnm,
}

impl Format {
    /// The format as people write it: `JPEG`, `WebP`, ….
    pub fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::WebP => "WebP",
            Format::Gif => "GIF",
            Format::Bmp => "BMP",
            Format::Tiff => "TIFF",
            Format::Pnm => "PNM",
        }
    }

    /// What the names of such files end in, in lower case and without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Jpeg => "jpg",
            Format::Png => "png",
            Format::WebP => "webp",
            Format::Gif => "gif",
            Format::Bmp => "bmp",
            Format::Tiff => "tif",
            Format::Pnm => "ppm",
        }
    }

    /// Recognises a file by its first bytes.
    ///
    /// # Errors
    /// A [`Fault`] of stage `decode` that says what it is instead, as far as that shows.
    pub(crate) fn of(bytes: &[u8]) -> Result<Format, Fault> {
        use image::ImageFormat as Known;
        if bytes.is_empty() {
            return Err(fault("not an image: the file is empty"));
        }
        let known = match image::guess_format(bytes) {
            Ok(Known::Jpeg) => return Ok(Format::Jpeg),
            Ok(Known::Png) => return Ok(Format::Png),
            Ok(Known::WebP) => return Ok(Format::WebP),
            Ok(Known::Gif) => return Ok(Format::Gif),
            Ok(Known::Bmp) => return Ok(Format::Bmp),
            Ok(Known::Tiff) => return Ok(Format::Tiff),
            Ok(Known::Pnm) => return Ok(Format::Pnm),
            Ok(other) => other.extensions_str().first().copied(),
            Err(_) => None,
        };
        Err(match known.or_else(|| guess_other(bytes)) {
            Some(name) => fault(format_args!(
                "not an image that can be read: the content is {name}, and JPEG, PNG, WebP, GIF, BMP, TIFF \
                 and PNM are"
            )),
            None => fault("not an image: the content begins like no known image format"),
        })
    }
}

/// Names common contents that carry an image's extension by mistake.
fn guess_other(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes.trim_ascii_start();
    let begins = |with: &[u8]| text.len() >= with.len() && text[..with.len()].eq_ignore_ascii_case(with);
    if begins(b"<!doctype html") || begins(b"<html") {
        Some("HTML")
    } else if begins(b"<svg") {
        Some("SVG")
    } else if begins(b"<?xml") {
        Some("XML")
    } else if begins(b"{") || begins(b"[{") {
        Some("JSON")
    } else if begins(b"%PDF") {
        Some("PDF")
    } else if begins(b"PK\x03\x04") {
        Some("a zip archive")
    } else if begins(&[0x1f, 0x8b]) {
        Some("a gzip archive")
    } else if bytes.get(4..8) == Some(b"ftyp") {
        Some("HEIC or a video")
    } else {
        None
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a file says about itself before any pixel is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// By content.
    pub format: Format,
    /// Columns as displayed, the orientation applied; at least 1.
    pub width: u32,
    /// Rows as displayed, the orientation applied; at least 1.
    pub height: u32,
    /// The most bytes that decoding holds at once beside the file: the decoder's buffers and the RGB pixels.
    pub decode_bytes: u64,
    /// The colours that it stores, before they become RGB.
    pub color: StoredColor,
    /// Whether its EXIF data turn or mirror it.
    pub is_turned: bool,
}

/// The colours that a file stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredColor {
    /// What the samples of a pixel mean.
    pub model: ColorModel,
    /// Whether pixels can be transparent.
    pub has_alpha: bool,
    /// Bits of a sample; of a palette those of its colours.
    pub bits: u8,
}

/// What the samples of a pixel mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ColorModel {
    /// One grey level.
    Gray,
    /// Red, green and blue, or luma and two chroma.
    Rgb,
    /// The place of a colour in a table.
    Palette,
    /// Four inks.
    Cmyk,
}

impl fmt::Display for StoredColor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = match self.model {
            ColorModel::Gray => "gray",
            ColorModel::Rgb => "RGB",
            ColorModel::Palette => "palette",
            ColorModel::Cmyk => "CMYK",
        };
        let alpha = if self.has_alpha { " with alpha" } else { "" };
        let depth = if self.bits == 8 { String::new() } else { format!(", {} bit", self.bits) };
        f.pad(&format!("{model}{alpha}{depth}"))
    }
}

/// Reads the header only. It allocates nothing of the image's size and applies no limit, so that the caller can
/// print what is there.
///
/// # Errors
/// A [`Fault`] of stage `decode` when the content is no known image, its header is broken, or there are no pixels.
pub fn probe(bytes: &[u8]) -> Result<Header, Fault> {
    guard(|| {
        let format = Format::of(bytes)?;
        let (width, height, orientation, decode_bytes, color) = match format {
            Format::Jpeg => {
                let layout = jpeg::JpegHeader::read(bytes)?;
                (layout.width, layout.height, layout.orientation, layout.decode_bytes(bytes), layout.color())
            }
            Format::Png => {
                let layout = png::PngHeader::read(bytes)?;
                (layout.width, layout.height, layout.orientation, layout.decode_bytes(), layout.color)
            }
            Format::Tiff => {
                let layout = tiff::TiffHeader::read(bytes)?;
                (layout.width, layout.height, layout.orientation, layout.decode_bytes(), layout.color())
            }
            Format::Pnm | Format::WebP | Format::Gif | Format::Bmp => {
                let ppm = if format == Format::Pnm { netpbm::Ppm::read(bytes) } else { None };
                match ppm {
                    Some(netpbm::Ppm { width, height, .. }) => {
                        let color = StoredColor { model: ColorModel::Rgb, has_alpha: false, bits: 8 };
                        (width, height, Orientation::NoTransforms, rgb_bytes(width, height), color)
                    }
                    None => {
                        let layout = still::StillHeader::read(bytes, format)?;
                        let bytes_held = layout.decode_bytes(bytes, format);
                        let color = layout.stored_color(bytes, format);
                        (layout.width, layout.height, layout.orientation, bytes_held, color)
                    }
                }
            }
        };
        let (width, height) = if swaps_sides(orientation) { (height, width) } else { (width, height) };
        check_sides(width, height)?;
        let is_turned = orientation != Orientation::NoTransforms;
        Ok(Header { format, width, height, decode_bytes, color, is_turned })
    })
}

/// Refuses an image without pixels.
fn check_sides(width: u32, height: u32) -> Result<(), Fault> {
    if width.min(height) > 0 {
        return Ok(());
    }
    Err(fault(format_args!("the header says {width}x{height} pixels: there is no image")))
}

/// The bytes of an image with so many a pixel; a header may say what 64 bits do not hold.
fn image_bytes(width: u32, height: u32, pixel_bytes: u64) -> u64 {
    (u64::from(width) * u64::from(height)).saturating_mul(pixel_bytes)
}

/// The bytes of an RGB image.
fn rgb_bytes(width: u32, height: u32) -> u64 {
    image_bytes(width, height, 3)
}

impl Stage for Decode {
    const NAME: &'static str = "decode";
    type In = Encoded;
    type Out = Pixels;

    fn apply(&self, input: Encoded, _draws: &Draws) -> Result<Pixels, Fault> {
        self.seen(&input, &|_| None)
    }
}

impl Decode {
    /// At which scale JPEG is decoded: the other decoder knows but one.
    pub fn scale_used(&self) -> DecodeScale {
        if self.decoder == Decoder::Image { DecodeScale::Exact } else { self.scale }
    }

    /// Decodes what of an image is seen, which `view` tells from its width and height; all of it where that is `None`, or
    /// where the format has no parts.
    ///
    /// # Errors
    /// As the stage. What is broken where no one sees it may go unnoticed.
    pub fn seen(&self, input: &Encoded, view: &dyn Fn((u32, u32)) -> Option<View>) -> Result<Pixels, Fault> {
        guard(|| {
            let bytes = input.bytes.as_ref();
            let format = Format::of(bytes)?;
            let mut pixels = match format {
                Format::Jpeg => jpeg::decode(bytes, self, view),
                Format::Png => png::decode(bytes, self),
                Format::Tiff => tiff::decode(bytes, self),
                Format::Pnm => match netpbm::Ppm::read(bytes) {
                    Some(ppm) => ppm.decode(&input.bytes, &self.limits, view),
                    None => still::decode(bytes, format, self),
                },
                Format::WebP | Format::Gif | Format::Bmp => still::decode(bytes, format, self),
            }?;
            pixels.original.blake3 = self.hashes.then(|| *blake3::hash(bytes).as_bytes());
            Ok(pixels)
        })
    }
}

/// For programs that look for faults of decoders, which the stage would turn into rejects.
#[doc(hidden)]
pub mod fuzzing {
    use super::jpeg;

    /// What Forebay's own decoder makes of a file.
    pub struct OwnJpeg {
        /// Columns of the file.
        pub width: usize,
        /// Rows of the file.
        pub height: usize,
        /// `[height, width, 3]` of the part, at its size.
        pub pixels: Vec<u8>,
    }

    /// A part of a JPEG of at most a million pixels as it is stored (left, top, width, height), or all of it, at a fraction of its
    /// size, by Forebay's own decoder; `None` where the file is none of its kind, or broken.
    pub fn own_jpeg(
        bytes: &[u8],
        part: Option<[usize; 4]>,
        reduced: usize,
        has_vectors: bool,
    ) -> Option<OwnJpeg> {
        let (width, height, pixels) = jpeg::own_alone(bytes, part, reduced, has_vectors)?;
        Some(OwnJpeg { width, height, pixels })
    }
}

/// Runs a decoder, whose panic is a fault of this image.
fn guard<T>(decode: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    panics::guard(decode).unwrap_or_else(|message| Err(fault(format_args!("decoder panicked: {message}"))))
}

/// A fault of this stage.
fn fault(reason: impl fmt::Display) -> Fault {
    Fault::new(Decode::NAME, reason)
}

/// True where width and height change places.
fn swaps_sides(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

/// What decoding holds in the end, where turning the image takes a second one.
fn turned_bytes(decode_bytes: u64, width: u32, height: u32, orientation: Orientation) -> u64 {
    match orientation {
        Orientation::NoTransforms => decode_bytes,
        _ => decode_bytes.max(rgb_bytes(width, height).saturating_mul(2)),
    }
}

/// Where a part of an image, left, top, width and height as displayed, is in an image that is stored as `width` x `height`
/// pixels.
fn stored(
    [left, top, across, down]: [u32; 4],
    (width, height): (u32, u32),
    orientation: Orientation,
) -> [u32; 4] {
    use Orientation as O;
    let is_swapped = swaps_sides(orientation);
    // Along the stored axes, before they are mirrored.
    let [left, top, across, down] =
        if is_swapped { [top, left, down, across] } else { [left, top, across, down] };
    let from_right =
        matches!(orientation, O::FlipHorizontal | O::Rotate180 | O::Rotate270 | O::Rotate270FlipH);
    let from_bottom = matches!(orientation, O::FlipVertical | O::Rotate180 | O::Rotate90 | O::Rotate270FlipH);
    let left = if from_right { width - left - across } else { left };
    let top = if from_bottom { height - top - down } else { top };
    [left, top, across, down]
}

/// Turns an image as its orientation says.
fn oriented(pixels: Pixels, orientation: Orientation) -> Pixels {
    if orientation == Orientation::NoTransforms {
        return pixels;
    }
    let image = image::RgbImage::from_raw(pixels.width, pixels.height, pixels.data.into_vec())
        .expect("pixels hold width * height * 3 bytes");
    let mut image = image::DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    Pixels::new(width, height, image.into_bytes())
}

#[cfg(test)]
mod tests;
