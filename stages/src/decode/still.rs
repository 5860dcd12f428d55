//! The formats without a decoder of their own here, through the `image` crate: WebP, GIF, BMP, PNM.

use std::io::{Cursor, ErrorKind};

use forebay_datasets::sample::Pixels;
use image::error::{DecodingError, ImageError, LimitErrorKind};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageReader};

use super::{
    ColorModel, Decode, Format, StoredColor, exif, fault, image_bytes, oriented, rgb_bytes, turned_bytes,
};
use crate::stage::Fault;

/// What the decoder says before it decodes.
pub(super) struct StillHeader {
    /// As stored, before the orientation.
    pub(super) width: u32,
    /// As stored, before the orientation.
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    color: ColorType,
}

impl StillHeader {
    pub(super) fn read(bytes: &[u8], format: Format) -> Result<StillHeader, Fault> {
        Ok(StillHeader::of(&mut open(bytes, format, image::Limits::default())?, format))
    }

    fn of(decoder: &mut impl ImageDecoder, format: Format) -> StillHeader {
        let (width, height) = decoder.dimensions();
        let orientation = match format {
            Format::WebP => decoder.exif_metadata().ok().flatten().map(|data| exif::orientation(&data)),
            _ => decoder.orientation().ok(),
        };
        let orientation = orientation.unwrap_or(Orientation::NoTransforms);
        StillHeader { width, height, orientation, color: decoder.color_type() }
    }

    /// The colours of the file. What GIF and BMP keep in a palette leaves their decoders as RGB.
    pub(super) fn stored_color(&self, bytes: &[u8], format: Format) -> StoredColor {
        // `biBitCount` of a BITMAPINFOHEADER.
        let is_indexed_bmp = format == Format::Bmp && bytes.get(28).is_some_and(|bits| *bits <= 8);
        let model = match (format, self.color.has_color()) {
            (Format::Gif, _) => ColorModel::Palette,
            _ if is_indexed_bmp => ColorModel::Palette,
            (_, true) => ColorModel::Rgb,
            (_, false) => ColorModel::Gray,
        };
        // Every frame of a GIF may have a transparent colour; few pictures do.
        let has_alpha = self.color.has_alpha() && format != Format::Gif;
        let bits = (self.color.bits_per_pixel() / u16::from(self.color.channel_count())) as u8;
        StoredColor { model, has_alpha, bits }
    }

    /// See [`super::Header::decode_bytes`].
    pub(super) fn decode_bytes(&self, bytes: &[u8], format: Format) -> u64 {
        let channels = u64::from(self.color.bytes_per_pixel());
        // What the decoders hold per pixel beside what they were asked for: WebP its planes, the frame, and of an
        // animation the canvas; GIF a frame that is smaller than its screen; PNM all samples before they are copied.
        let own = match format {
            Format::WebP => 12,
            Format::Gif => 5,
            Format::Pnm => channels,
            Format::Bmp | Format::Png | Format::Tiff | Format::Jpeg => 0,
        };
        let copies = if format == Format::WebP { bytes.len() as u64 } else { 0 };
        let rgb = if self.color == ColorType::Rgb8 { 0 } else { rgb_bytes(self.width, self.height) };
        let decoded = image_bytes(self.width, self.height, channels + own);
        let bytes = decoded.saturating_add(copies).saturating_add(rgb);
        turned_bytes(bytes, self.width, self.height, self.orientation)
    }
}

/// Decodes after the header has passed the limits.
pub(super) fn decode(bytes: &[u8], format: Format, options: &Decode) -> Result<Pixels, Fault> {
    let mut limits = image::Limits::no_limits();
    // For what decoders allocate besides the pixels: a palette, one row, a decompressed chunk.
    limits.max_alloc = Some(options.limits.memory_bytes_max);
    let mut decoder = open(bytes, format, limits)?;
    let layout = StillHeader::of(&mut decoder, format);
    let StillHeader { width, height, orientation, color } = layout;
    options.limits.check(width, height, layout.decode_bytes(bytes, format))?;

    let mut data = vec![0; width as usize * height as usize * usize::from(color.bytes_per_pixel())];
    decoder.read_image(&mut data).map_err(|error| refused(format, &error))?;
    if color != ColorType::Rgb8 {
        let to_rgb =
            ToRgb { color, is_big_endian: cfg!(target_endian = "big"), background: options.background };
        let mut rgb = Vec::with_capacity(rgb_bytes(width, height) as usize);
        to_rgb.append(&data, &mut rgb)?;
        data = rgb;
    }
    Ok(oriented(Pixels::new(width, height, data), orientation))
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

/// Any pixel layout to RGB, in one pass: no depth and no alpha takes an image between.
pub(super) struct ToRgb {
    /// What a pixel is.
    pub(super) color: ColorType,
    /// The order of the bytes of a sample of 16 or 32 bits.
    pub(super) is_big_endian: bool,
    /// What transparent pixels are composited on; without it alpha is dropped.
    pub(super) background: Option<[u8; 3]>,
}

impl ToRgb {
    /// Appends whole pixels.
    pub(super) fn append(&self, data: &[u8], rgb: &mut Vec<u8>) -> Result<(), Fault> {
        let byte = |[level]: [u8; 1]| level;
        let short =
            |pair| if self.is_big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) };
        let short = |pair: [u8; 2]| narrow(short(pair));
        let float =
            |four| if self.is_big_endian { f32::from_be_bytes(four) } else { f32::from_le_bytes(four) };
        let float = |four: [u8; 4]| quantize(float(four));
        match self.color {
            ColorType::Rgb8 => rgb.extend_from_slice(data),
            ColorType::L8 => self.gray(data, byte, rgb),
            ColorType::La8 => self.gray_alpha(data, byte, rgb),
            ColorType::Rgba8 => self.color_alpha(data, byte, rgb),
            ColorType::L16 => self.gray(data, short, rgb),
            ColorType::La16 => self.gray_alpha(data, short, rgb),
            ColorType::Rgb16 => rgb.extend(data.as_chunks().0.iter().map(|&sample| short(sample))),
            ColorType::Rgba16 => self.color_alpha(data, short, rgb),
            ColorType::Rgb32F => rgb.extend(data.as_chunks().0.iter().map(|&sample| float(sample))),
            ColorType::Rgba32F => self.color_alpha(data, float, rgb),
            other => return Err(fault(format_args!("pixels of type {other:?} are not supported"))),
        }
        Ok(())
    }

    fn gray<const N: usize>(&self, data: &[u8], level: impl Fn([u8; N]) -> u8, rgb: &mut Vec<u8>) {
        rgb.extend(data.as_chunks::<N>().0.iter().flat_map(|&sample| [level(sample); 3]));
    }

    fn gray_alpha<const N: usize>(&self, data: &[u8], level: impl Fn([u8; N]) -> u8, rgb: &mut Vec<u8>) {
        let (samples, _) = data.as_chunks::<N>();
        let pixels = samples.as_chunks::<2>().0.iter();
        rgb.extend(pixels.flat_map(|&[gray, alpha]| self.flat([level(gray); 3], || level(alpha))));
    }

    fn color_alpha<const N: usize>(&self, data: &[u8], level: impl Fn([u8; N]) -> u8, rgb: &mut Vec<u8>) {
        let (samples, _) = data.as_chunks::<N>();
        let pixels = samples.as_chunks::<4>().0.iter();
        rgb.extend(pixels.flat_map(|&[r, g, b, alpha]| self.flat([r, g, b].map(&level), || level(alpha))));
    }

    fn flat(&self, color: [u8; 3], alpha: impl FnOnce() -> u8) -> [u8; 3] {
        self.background.map_or(color, |background| composite(color, alpha(), background))
    }
}

/// `color * alpha + background * (1 - alpha)`, rounded.
pub(super) fn composite(color: [u8; 3], alpha: u8, background: [u8; 3]) -> [u8; 3] {
    let alpha = u32::from(alpha);
    std::array::from_fn(|channel| {
        let sum = u32::from(color[channel]) * alpha + u32::from(background[channel]) * (255 - alpha);
        ((sum + 127) / 255) as u8
    })
}

/// 16 bits to 8: divided by 257 and rounded, so that 65,535 becomes 255.
pub(super) fn narrow(sample: u16) -> u8 {
    ((u32::from(sample) + 128) / 257) as u8
}

/// A float of 0 to 1 to 8 bits; what lies outside is clipped.
pub(super) fn quantize(sample: f32) -> u8 {
    (sample * 255.0).round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_are_divided_by_257_and_rounded() {
        let samples = [0u16, 128, 129, 257, 32_896, 65_406, 65_407, 65_535];
        assert_eq!(samples.map(narrow), [0, 0, 1, 1, 128, 254, 255, 255]);
    }

    #[test]
    fn compositing_at_full_and_no_alpha_gives_either_colour() {
        assert_eq!(composite([10, 20, 30], 255, [1, 2, 3]), [10, 20, 30]);
        assert_eq!(composite([10, 20, 30], 0, [1, 2, 3]), [1, 2, 3]);
        assert_eq!(composite([0, 0, 0], 128, [255, 255, 255]), [127, 127, 127]);
    }

    #[test]
    fn float_samples_outside_the_range_are_clipped() {
        assert_eq!([-1.0f32, 0.0, 0.5, 1.0, 7.0].map(quantize), [0, 0, 128, 255, 255]);
    }
}
