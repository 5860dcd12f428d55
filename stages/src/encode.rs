//! Turns pixels into the bytes that a shard stores: JPEG, PNG, or raw pixels behind a short PPM header.

use bytes::Bytes;
use forebay_datasets::manifest::StoredFormat;
use forebay_datasets::sample::{Encoded, Original, Pixels};
use forebay_datasets::words;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use libjpeg_turbo_rs::{Encoder, PixelFormat, Subsampling};
use serde::{Deserialize, Serialize};

use crate::crop::in_one_piece;
use crate::decode::{Format, Header, probe};
use crate::stage::{Draws, Fault, Stage, Work};

/// The stage that encodes an image for its shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encode {
    /// What the bytes are.
    pub encoding: Encoding,
}

/// What the bytes of a stored image are. All three open as images in Pillow, and so in Hugging Face `datasets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Baseline, 4:2:0, the tables of the standard: byte for byte what libjpeg-turbo writes, and so Pillow at
    /// `subsampling="4:2:0"`. Small; loses detail. Huffman tables made for each image would save another 5 % of its bytes
    /// (4 % at 256 pixels) and take more than twice as long.
    Jpeg {
        /// 1 to 100.
        quality: u8,
        /// Whether a restart marker stands after each row of blocks, so that a reader can begin at any of them. It costs
        /// 0.1 % of the bytes (0.2 % at 256 pixels) and 3 to 5 % of the time of encoding.
        #[serde(default)]
        restarts: bool,
    },
    /// Lossless, written for speed rather than size.
    Png,
    /// Lossless and uncompressed: a binary PPM, `P6\n<width> <height>\n255\n` and `[height, width, 3]` bytes.
    Raw,
}

impl Default for Encoding {
    /// JPEG of quality 90.
    fn default() -> Encoding {
        Encoding::Jpeg { quality: 90, restarts: false }
    }
}

impl Encoding {
    /// Which encoder's bytes a stored JPEG is: with another one the same pixels are another file.
    pub const JPEG_ENCODER: &str = "libjpeg-turbo";

    /// What the files are, however they were made.
    pub fn format(self) -> StoredFormat {
        match self {
            Encoding::Jpeg { .. } => StoredFormat::Jpeg,
            Encoding::Png => StoredFormat::Png,
            Encoding::Raw => StoredFormat::Raw,
        }
    }

    /// What the names of such files end in.
    pub fn extension(self) -> &'static str {
        match self {
            Encoding::Jpeg { .. } => Format::Jpeg.extension(),
            Encoding::Png => Format::Png.extension(),
            Encoding::Raw => Format::Pnm.extension(),
        }
    }
}

words!(Encoding { Jpeg { quality: 90, restarts: false } => "jpeg", Png => "png", Raw => "raw" });

/// An image as a shard stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The encoded image.
    pub bytes: Bytes,
    /// Columns as stored.
    pub width: u32,
    /// Rows as stored.
    pub height: u32,
    /// What the name of such a file ends in.
    pub extension: &'static str,
    /// What it was made of.
    pub original: Original,
}

/// The stage that stores image files as they are; it reads their headers and decodes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Keep;

impl Stage for Keep {
    const NAME: &'static str = "keep";
    type In = Encoded;
    type Out = Stored;

    fn apply(&self, Encoded { bytes }: Encoded, _draws: &Draws) -> Result<Stored, Fault> {
        let Header { format, width, height, .. } = probe(&bytes)?;
        let blake3 = Some(*blake3::hash(&bytes).as_bytes());
        let original = Original { size: (width, height), blake3 };
        Ok(Stored { bytes, width, height, extension: format.extension(), original })
    }
}

impl Encode {
    /// What storing an image takes.
    pub fn work(&self, width: u32, height: u32) -> Work {
        let rgb = u64::from(width) * u64::from(height) * 3;
        let (out_bytes, work_bytes) = match self.encoding {
            Encoding::Jpeg { quality, .. } => jpeg_bytes(width.into(), height.into(), quality),
            // What cannot be compressed grows by a few per cent; filtered rows and the stream come before the file.
            Encoding::Png => (rgb + rgb / 16 + 4096, 3 * rgb),
            Encoding::Raw => (rgb + 32, 0),
        };
        Work { width, height, out_bytes, work_bytes }
    }
}

/// The most bytes of a JPEG, and of what its encoder holds beside it.
fn jpeg_bytes(width: u64, height: u64, quality: u8) -> (u64, u64) {
    let (across, down) = (width.next_multiple_of(16), height.next_multiple_of(16));
    // Of noise that is black or white in each channel, the worst that was found: 1.12, 1.43 and 2.3 bytes a pixel.
    let (bytes, pixels) = match quality {
        ..=90 => (5, 4),
        91..=95 => (3, 2),
        _ => (12, 5),
    };
    let scan = across * down * bytes / pixels;
    // It begins with two bytes a pixel, and wants 3072 for each 16x16 pixels of the row of blocks that comes next. Where that
    // is not enough it doubles, and holds both for a moment.
    let row = 192 * across;
    let buffer = match scan + row <= 2 * width * height {
        true => 2 * width * height,
        false => 2 * scan + 3 * row,
    };
    // Three planes of a row of blocks, and two of them in half of each side.
    (scan + 4096, buffer + 56 * across + 8192)
}

impl Stage for Encode {
    const NAME: &'static str = "encode";
    type In = Pixels;
    type Out = Stored;

    fn apply(&self, input: Pixels, _draws: &Draws) -> Result<Stored, Fault> {
        let input = in_one_piece(input);
        let bytes = match self.encoding {
            Encoding::Jpeg { quality, restarts } => jpeg(&input, quality, restarts)?,
            Encoding::Png => png(&input)?,
            Encoding::Raw => raw(&input),
        };
        let original = input.original;
        let (width, height) = (input.width, input.height);
        // Rows wait in memory until their shard is written: not with the room that they grew in.
        let bytes = bytes.into_boxed_slice();
        let extension = self.encoding.extension();
        Ok(Stored { bytes: bytes.into(), width, height, extension, original })
    }
}

fn jpeg(pixels: &Pixels, quality: u8, restarts: bool) -> Result<Vec<u8>, Fault> {
    let (width, height) = (pixels.width, pixels.height);
    if u16::try_from(width.max(height)).is_err() {
        return Err(fault(format_args!("{width}x{height} pixels are more than the 65535 of a JPEG's side")));
    }
    if !(1..=100).contains(&quality) {
        return Err(fault(format_args!("encode.quality is {quality}, and must be 1 to 100")));
    }
    let encoder = Encoder::new(&pixels.data, width as usize, height as usize, PixelFormat::Rgb)
        .quality(quality)
        .subsampling(Subsampling::S420);
    let encoder = if restarts { encoder.restart_rows(1) } else { encoder };
    encoder.encode().map_err(fault)
}

fn png(pixels: &Pixels) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::with_capacity(pixels.data.len() / 2 + 1024);
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive)
        .write_image(&pixels.data, pixels.width, pixels.height, ExtendedColorType::Rgb8)
        .map_err(fault)?;
    Ok(bytes)
}

fn raw(pixels: &Pixels) -> Vec<u8> {
    let header = format!("P6\n{} {}\n255\n", pixels.width, pixels.height);
    [header.as_bytes(), &pixels.data].concat()
}

fn fault(reason: impl std::fmt::Display) -> Fault {
    Fault::new(Encode::NAME, reason)
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::decode::Decode;

    /// A colour gradient with a little structure.
    fn gradient(width: u32, height: u32) -> Pixels {
        let pixel =
            |x: u32, y: u32| [(x * 255 / width) as u8, (y * 255 / height) as u8, ((x ^ y) & 63) as u8];
        let data = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
        Pixels { original: (7, 9).into(), ..Pixels::new(width, height, data) }
    }

    fn round_trip(pixels: &Pixels, encoding: Encoding) -> (Stored, Pixels) {
        let draws = Seed(0).draws("a", 0, 0);
        let stored = Encode { encoding }.apply(pixels.clone(), &draws).unwrap();
        let decoded = Decode::default().apply(Encoded { bytes: stored.bytes.clone() }, &draws).unwrap();
        (stored, decoded)
    }

    #[test]
    fn png_and_raw_give_back_every_pixel() {
        for (width, height) in [(1, 1), (1, 40), (40, 1), (33, 17)] {
            let pixels = gradient(width, height);
            for encoding in [Encoding::Png, Encoding::Raw] {
                let (stored, decoded) = round_trip(&pixels, encoding);
                assert_eq!(decoded.data, pixels.data, "{encoding} {width}x{height}");
                assert_eq!((stored.width, stored.height), (width, height));
                assert_eq!(stored.original.size, (7, 9));
            }
        }
    }

    #[test]
    fn a_file_that_is_kept_is_the_same_file_and_what_is_no_image_is_refused() {
        let draws = Seed(0).draws("a", 0, 0);
        for (encoding, extension) in
            [(Encoding::default(), "jpg"), (Encoding::Png, "png"), (Encoding::Raw, "ppm")]
        {
            let (stored, _) = round_trip(&gradient(33, 17), encoding);
            let bytes = stored.bytes;
            let kept = Keep.apply(Encoded { bytes: bytes.clone() }, &draws).unwrap();
            assert_eq!(kept.original.blake3, Some(*blake3::hash(&bytes).as_bytes()));
            assert_eq!((kept.bytes, kept.width, kept.height, kept.extension), (bytes, 33, 17, extension));
        }
        assert!(Keep.apply(Encoded { bytes: "text".into() }, &draws).is_err());
    }

    #[test]
    fn raw_is_a_ppm_header_and_the_pixels() {
        let pixels = Pixels::new(2, 1, vec![1, 2, 3, 4, 5, 6]);
        let (stored, _) = round_trip(&pixels, Encoding::Raw);
        assert_eq!(&stored.bytes[..], b"P6\n2 1\n255\n\x01\x02\x03\x04\x05\x06");
    }

    #[test]
    fn jpeg_of_high_quality_is_close_and_of_low_quality_smaller() {
        let smooth = Pixels::new(64, 48, (0..64 * 48 * 3).map(|i| (i / 3 % 64 * 3) as u8).collect());
        let (fine, decoded) = round_trip(&smooth, Encoding::Jpeg { quality: 95, restarts: false });
        let (coarse, _) = round_trip(&smooth, Encoding::Jpeg { quality: 30, restarts: false });
        assert_eq!(probe(&fine.bytes).unwrap().format, Format::Jpeg);
        assert!(coarse.bytes.len() < fine.bytes.len());
        let worst = decoded.data.iter().zip(&smooth.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= 4, "{worst}");
    }

    /// Lengths and sums of what Pillow 13 (libjpeg-turbo 3.2) writes.
    #[test]
    fn a_jpeg_is_that_of_libjpeg_turbo_byte_for_byte() {
        let files = [
            ((1, 1), false, 631, 0x5563_48af),
            ((1, 1), true, 637, 0xc814_c269),
            ((40, 1), false, 672, 0xeb7a_d957),
            ((40, 1), true, 678, 0x490a_b621),
            ((33, 17), false, 806, 0x67c8_1cb6),
            ((33, 17), true, 814, 0xa84e_47c1),
            ((64, 48), false, 1103, 0xabfd_88cf),
            ((64, 48), true, 1115, 0xb5c6_70d3),
        ];
        for ((width, height), restarts, length, sum) in files {
            let (stored, _) = round_trip(&gradient(width, height), Encoding::Jpeg { quality: 90, restarts });
            let found = (stored.bytes.len(), crc32c::crc32c(&stored.bytes));
            assert_eq!(found, (length, sum), "{width}x{height} {restarts}");
        }
    }

    #[test]
    fn no_jpeg_is_larger_than_its_bound() {
        let mut stream = Seed(3).stream("noise");
        for (width, height) in [(1, 1), (8, 300), (300, 8), (100, 70), (256, 256)] {
            let mut noise = |levels: u64| {
                let level = |_| (stream.below(levels) * 255 / (levels - 1)) as u8;
                Pixels::new(width, height, (0..width * height * 3).map(level).collect())
            };
            for pixels in [noise(2), noise(3), noise(256)] {
                for (quality, restarts) in [(1, false), (90, true), (95, true), (100, true)] {
                    let encode = Encode { encoding: Encoding::Jpeg { quality, restarts } };
                    let stored = encode.apply(pixels.clone(), &Seed(0).draws("a", 0, 0)).unwrap();
                    let (bytes, most) = (stored.bytes.len() as u64, encode.work(width, height).out_bytes);
                    assert!(bytes <= most, "{width}x{height} {quality}: {bytes} of {most}");
                }
            }
        }
    }

    #[test]
    fn stripes_of_two_colours_keep_the_mean_of_both() {
        let (one, other) = ([200, 60, 60], [40, 120, 120]);
        // Odd and even sides, and both directions.
        for (width, height) in [(64u32, 64u32), (63, 64), (64, 62), (65, 63)] {
            for turned in [false, true] {
                let is_one = |i: u32| (if turned { i / width } else { i % width }) % 2 == 0;
                let stripes = (0..width * height).flat_map(|i| if is_one(i) { one } else { other }).collect();
                check_means(&Pixels::new(width, height, stripes));
            }
        }
    }

    fn check_means(stripes: &Pixels) {
        let (_, decoded) = round_trip(stripes, Encoding::Jpeg { quality: 95, restarts: false });
        let means = |pixels: &Pixels| -> [f64; 3] {
            std::array::from_fn(|channel| {
                let values = pixels.data.iter().skip(channel).step_by(3);
                values.map(|value| f64::from(*value)).sum::<f64>() / f64::from(pixels.width * pixels.height)
            })
        };
        let (means, wanted) = (means(&decoded), means(stripes));
        assert!(means.iter().zip(wanted).all(|(mean, wanted)| (mean - wanted).abs() < 3.0), "{means:?}");
    }

    #[test]
    fn a_side_that_jpeg_cannot_hold_is_refused() {
        let long = Pixels::new(65_536, 1, vec![0; 65_536 * 3]);
        let refused = Encode::default().apply(long, &Seed(0).draws("a", 0, 0)).unwrap_err();
        assert_eq!(refused.to_string(), "encode: 65536x1 pixels are more than the 65535 of a JPEG's side");
    }

    #[test]
    fn names_and_values_go_both_ways() {
        for name in ["jpeg", "png", "raw"] {
            assert_eq!(name.parse::<Encoding>().unwrap().to_string(), name);
        }
        assert!("webp".parse::<Encoding>().is_err());
        let written = serde_json::to_string(&Encoding::Jpeg { quality: 80, restarts: false }).unwrap();
        assert_eq!(written, r#"{"jpeg":{"quality":80,"restarts":false}}"#);
        assert_eq!(serde_json::from_str::<Encoding>(r#""raw""#).unwrap(), Encoding::Raw);
    }
}
