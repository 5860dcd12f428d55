//! Every format but JPEG, through the `image` crate: PNG, WebP, GIF, BMP, TIFF, PNM.

use std::io::{Cursor, ErrorKind};

use forebay_datasets::sample::Pixels;
use image::error::{DecodingError, ImageError, LimitErrorKind};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageReader};

use super::{Decode, Format, fault, oriented};
use crate::stage::Fault;

/// Width and height as stored, and how the image is to be turned.
pub(super) fn dimensions(bytes: &[u8], format: Format) -> Result<(u32, u32, Orientation), Fault> {
    let mut decoder = open(bytes, format, image::Limits::default())?;
    let (width, height) = decoder.dimensions();
    Ok((width, height, decoder.orientation().unwrap_or(Orientation::NoTransforms)))
}

/// Decodes after the header has passed the limits.
pub(super) fn decode(bytes: &[u8], format: Format, options: &Decode) -> Result<Pixels, Fault> {
    let mut limits = image::Limits::no_limits();
    // For what decoders allocate besides the pixels: a palette, one row, a decompressed chunk.
    limits.max_alloc = Some(options.limits.memory_bytes_max);
    let mut decoder = open(bytes, format, limits)?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    options.limits.check(width, height, u64::from(color.bytes_per_pixel()).max(3))?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);

    let mut data = vec![0; width as usize * height as usize * usize::from(color.bytes_per_pixel())];
    decoder.read_image(&mut data).map_err(|error| refused(format, &error))?;
    Ok(oriented(Pixels::new(width, height, rgb(data, color, options.background)?), orientation))
}

fn open(bytes: &[u8], format: Format, limits: image::Limits) -> Result<impl ImageDecoder + '_, Fault> {
    let known = match format {
        Format::Jpeg => image::ImageFormat::Jpeg,
        Format::Png => image::ImageFormat::Png,
        Format::WebP => image::ImageFormat::WebP,
        Format::Gif => image::ImageFormat::Gif,
        Format::Bmp => image::ImageFormat::Bmp,
        Format::Tiff => image::ImageFormat::Tiff,
        Format::Pnm => image::ImageFormat::Pnm,
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), known);
    reader.limits(limits);
    reader.into_decoder().map_err(|error| refused(format, &error))
}

/// One line that says what is wrong with the file.
fn refused(format: Format, error: &ImageError) -> Fault {
    if let ImageError::Limits(limit) = error
        && matches!(limit.kind(), LimitErrorKind::InsufficientMemory)
    {
        return fault(format_args!("decoding this {format} takes more memory than decode.max_bytes"));
    }
    if let ImageError::Unsupported(_) = error {
        return fault(format_args!("{format} of a kind that is not supported: {error}"));
    }
    let truncated = match error {
        ImageError::IoError(error) => error.kind() == ErrorKind::UnexpectedEof,
        ImageError::Decoding(error) => ends_early(error),
        _ => false,
    };
    if truncated {
        return fault(format_args!("truncated {format}: the file ends before the image does"));
    }
    fault(format_args!("broken {format}: {error}"))
}

/// True where an unexpected end of file is among the causes, or the only thing the decoder says.
fn ends_early(error: &DecodingError) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == ErrorKind::UnexpectedEof
        {
            return true;
        }
        cause = error.source();
    }
    let text = error.to_string().to_lowercase();
    text.contains("unexpected end of file") || text.contains("unexpected eof")
}

/// Any pixel layout to RGB. `background` is what transparent pixels are composited on; without it alpha is
/// dropped.
fn rgb(data: Vec<u8>, color: ColorType, background: Option<[u8; 3]>) -> Result<Vec<u8>, Fault> {
    let (data, channels) = match color {
        ColorType::L8 => (data, 1),
        ColorType::La8 => (data, 2),
        ColorType::Rgb8 => return Ok(data),
        ColorType::Rgba8 => (data, 4),
        ColorType::L16 => (narrow(&data), 1),
        ColorType::La16 => (narrow(&data), 2),
        ColorType::Rgb16 => return Ok(narrow(&data)),
        ColorType::Rgba16 => (narrow(&data), 4),
        ColorType::Rgb32F => return Ok(quantize(&data)),
        ColorType::Rgba32F => (quantize(&data), 4),
        other => return Err(fault(format_args!("pixels of type {other:?} are not supported"))),
    };
    Ok(match (channels, background) {
        (1, _) => data.iter().flat_map(|&gray| [gray; 3]).collect(),
        (2, None) => data.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        (2, Some(background)) => {
            data.chunks_exact(2).flat_map(|pixel| composite([pixel[0]; 3], pixel[1], background)).collect()
        }
        (_, None) => data.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        (_, Some(background)) => data
            .chunks_exact(4)
            .flat_map(|pixel| composite([pixel[0], pixel[1], pixel[2]], pixel[3], background))
            .collect(),
    })
}

/// `color * alpha + background * (1 - alpha)`, rounded.
fn composite(color: [u8; 3], alpha: u8, background: [u8; 3]) -> [u8; 3] {
    let alpha = u32::from(alpha);
    std::array::from_fn(|channel| {
        let sum = u32::from(color[channel]) * alpha + u32::from(background[channel]) * (255 - alpha);
        ((sum + 127) / 255) as u8
    })
}

/// 16-bit samples in native order to 8 bits: divided by 257 and rounded, so that 65,535 becomes 255.
fn narrow(data: &[u8]) -> Vec<u8> {
    let sample = |pair: &[u8]| u32::from(u16::from_ne_bytes([pair[0], pair[1]]));
    data.chunks_exact(2).map(|pair| ((sample(pair) + 128) / 257) as u8).collect()
}

/// Float samples in native order, 0 to 1, to 8 bits; what lies outside is clipped.
fn quantize(data: &[u8]) -> Vec<u8> {
    let sample = |four: &[u8]| f32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
    data.chunks_exact(4).map(|four| (sample(four) * 255.0).round().clamp(0.0, 255.0) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_are_divided_by_257_and_rounded() {
        let samples: Vec<u8> = [0u16, 128, 129, 257, 32_896, 65_406, 65_407, 65_535]
            .into_iter()
            .flat_map(u16::to_ne_bytes)
            .collect();
        assert_eq!(narrow(&samples), [0, 0, 1, 1, 128, 254, 255, 255]);
    }

    #[test]
    fn compositing_at_full_and_no_alpha_gives_either_colour() {
        assert_eq!(composite([10, 20, 30], 255, [1, 2, 3]), [10, 20, 30]);
        assert_eq!(composite([10, 20, 30], 0, [1, 2, 3]), [1, 2, 3]);
        assert_eq!(composite([0, 0, 0], 128, [255, 255, 255]), [127, 127, 127]);
    }

    #[test]
    fn float_samples_outside_the_range_are_clipped() {
        let samples: Vec<u8> = [-1.0f32, 0.0, 0.5, 1.0, 7.0].into_iter().flat_map(f32::to_ne_bytes).collect();
        assert_eq!(quantize(&samples), [0, 0, 128, 255, 255]);
    }
}
