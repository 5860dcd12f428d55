//! Turns pixels into the bytes that a shard stores: JPEG, PNG, or raw pixels behind a short PPM header.

use bytes::Bytes;
use forebay_datasets::manifest::StoredFormat;
use forebay_datasets::sample::{Encoded, Original, Pixels};
use forebay_datasets::words;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use jpeg_encoder::{Encoder, ImageBuffer, JpegColorType, SamplingFactor};
use serde::{Deserialize, Serialize};

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
    /// Baseline, 4:2:0. Small; loses detail.
    Jpeg {
        /// 1 to 100.
        quality: u8,
    },
    /// Lossless, written for speed rather than size.
    Png,
    /// Lossless and uncompressed: a binary PPM, `P6\n<width> <height>\n255\n` and `[height, width, 3]` bytes.
    Raw,
}

impl Default for Encoding {
    /// JPEG of quality 90.
    fn default() -> Encoding {
        Encoding::Jpeg { quality: 90 }
    }
}

impl Encoding {
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

words!(Encoding { Jpeg { quality: 90 } => "jpeg", Png => "png", Raw => "raw" });

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
            // Noise at quality 100 takes less than half of its pixels. Growing, the bytes exist twice for a moment.
            Encoding::Jpeg { .. } => (rgb / 2 + 4096, rgb / 2),
            // What cannot be compressed grows by a few per cent; filtered rows and the stream come before the file.
            Encoding::Png => (rgb + rgb / 16 + 4096, 3 * rgb),
            Encoding::Raw => (rgb + 32, 0),
        };
        Work { width, height, out_bytes, work_bytes }
    }
}

impl Stage for Encode {
    const NAME: &'static str = "encode";
    type In = Pixels;
    type Out = Stored;

    fn apply(&self, input: Pixels, _draws: &Draws) -> Result<Stored, Fault> {
        let bytes = match self.encoding {
            Encoding::Jpeg { quality } => jpeg(&input, quality)?,
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

fn jpeg(pixels: &Pixels, quality: u8) -> Result<Vec<u8>, Fault> {
    let (Ok(width), Ok(height)) = (u16::try_from(pixels.width), u16::try_from(pixels.height)) else {
        let (width, height) = (pixels.width, pixels.height);
        return Err(fault(format_args!("{width}x{height} pixels are more than the 65535 of a JPEG's side")));
    };
    if !(1..=100).contains(&quality) {
        return Err(fault(format_args!("encode.quality is {quality}, and must be 1 to 100")));
    }
    // A guess that saves most reallocations: quality 90 takes about 2 bits per pixel.
    let mut bytes = Vec::with_capacity(pixels.data.len() / 8 + 1024);
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode_image(MeanChroma { pixels, width, height }).map_err(fault)?;
    Ok(bytes)
}

/// Luma and chroma for an encoder that takes the chroma of the top left one of each four pixels: it gets the mean of the
/// four, as from libjpeg. That of a single one would move colours by half a pixel, and make patterns of fine stripes.
struct MeanChroma<'a> {
    pixels: &'a Pixels,
    width: u16,
    height: u16,
}

impl MeanChroma<'_> {
    fn row(&self, y: usize) -> &[[u8; 3]] {
        let width = usize::from(self.width);
        &self.pixels.data.as_chunks::<3>().0[y * width..][..width]
    }
}

impl ImageBuffer for MeanChroma<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.width
    }

    fn height(&self) -> u16 {
        self.height
    }

    /// The weights are those of JFIF, times 2^16; the sums of four pixels are divided by 2^18.
    fn fill_buffers(&self, y: u16, [luma, blue, red, _]: &mut [Vec<u8>; 4]) {
        let (y, last) = (usize::from(y), usize::from(self.height) - 1);
        let (start, end) = (luma.len(), luma.len() + usize::from(self.width));
        let row = self.row(y);
        luma.resize(end, 0);
        for (luma, &[r, g, b]) in luma[start..].iter_mut().zip(row) {
            *luma =
                ((19_595 * u32::from(r) + 38_470 * u32::from(g) + 7_471 * u32::from(b) + 0x7fff) >> 16) as u8;
        }
        blue.resize(end, 128);
        red.resize(end, 128);
        if y % 2 == 1 && y < last {
            // Nobody looks at the chroma of these.
            return;
        }
        let (upper, lower) = (self.row(y & !1), self.row((y | 1).min(last)));
        let chroma = |four: [&[u8; 3]; 4]| {
            let [r, g, b] =
                [0, 1, 2].map(|channel| four.iter().map(|pixel| i32::from(pixel[channel])).sum::<i32>());
            let mean = |sum: i32| ((sum + (128 << 18) + 0x1_ffff) >> 18) as u8;
            (mean(-11_059 * r - 21_709 * g + 32_768 * b), mean(32_768 * r - 27_439 * g - 5_329 * b))
        };
        let (upper, upper_rest) = upper.as_chunks::<2>();
        let (lower, lower_rest) = lower.as_chunks::<2>();
        let (blue, blue_rest) = blue[start..].as_chunks_mut::<2>();
        let (red, red_rest) = red[start..].as_chunks_mut::<2>();
        for (((upper, lower), blue), red) in upper.iter().zip(lower).zip(blue).zip(red) {
            let (cb, cr) = chroma([&upper[0], &upper[1], &lower[0], &lower[1]]);
            (*blue, *red) = ([cb; 2], [cr; 2]);
        }
        if let ([upper], [lower], [blue], [red]) = (upper_rest, lower_rest, blue_rest, red_rest) {
            (*blue, *red) = chroma([upper, upper, lower, lower]);
        }
    }
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
        let (fine, decoded) = round_trip(&smooth, Encoding::Jpeg { quality: 95 });
        let (coarse, _) = round_trip(&smooth, Encoding::Jpeg { quality: 30 });
        assert_eq!(probe(&fine.bytes).unwrap().format, Format::Jpeg);
        assert!(coarse.bytes.len() < fine.bytes.len());
        let worst = decoded.data.iter().zip(&smooth.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= 4, "{worst}");
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
        let (_, decoded) = round_trip(stripes, Encoding::Jpeg { quality: 95 });
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
        let written = serde_json::to_string(&Encoding::Jpeg { quality: 80 }).unwrap();
        assert_eq!(written, r#"{"jpeg":{"quality":80}}"#);
        assert_eq!(serde_json::from_str::<Encoding>(r#""raw""#).unwrap(), Encoding::Raw);
    }
}
