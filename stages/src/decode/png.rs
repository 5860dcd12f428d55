//! PNG: rows go straight from the decoder to RGB, so that neither depth nor alpha takes a second image.

use std::io::{Cursor, ErrorKind};

use forebay_datasets::sample::Pixels;
use image::ColorType;
use image::metadata::Orientation;
use png::{BitDepth, DecodingError, Transformations};

use super::{
    ColorModel, Decode, StoredColor, exif, fault, image_bytes, oriented, rgb_bytes, still, turned_bytes,
};
use crate::stage::Fault;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// What the decoder may take beside rows and pixels: the data of a chunk, such as a palette.
const CHUNK_BYTES_MAX: usize = 4 << 20;

/// What the chunks say before any row is decoded.
#[derive(Debug)]
pub(super) struct PngHeader {
    /// As stored, before the orientation.
    pub(super) width: u32,
    /// As stored, before the orientation.
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    /// As rows leave the decoder: palettes and transparent colours expanded, at least 8 bits.
    bytes_per_pixel: u64,
    is_interlaced: bool,
    pub(super) color: StoredColor,
}

/// A chunk: its four letters, its data, and all of it with length and checksum.
struct Chunk<'a> {
    name: &'a [u8],
    data: &'a [u8],
    whole: &'a [u8],
}

/// The chunks of a file, as far as they are whole.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = bytes.get(SIGNATURE.len()..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(*rest.first_chunk::<4>()?) as usize;
        let (whole, after) = rest.split_at_checked(length.checked_add(12)?)?;
        rest = after;
        Some(Chunk { name: &whole[4..8], data: &whole[8..8 + length], whole })
    })
}

impl PngHeader {
    pub(super) fn read(bytes: &[u8]) -> Result<PngHeader, Fault> {
        let mut chunks = chunks(bytes);
        let Some(Chunk {
            name: b"IHDR", data: &[a, b, c, d, e, f, g, h, depth, color, _, _, interlace], ..
        }) = chunks.next()
        else {
            return Err(fault("truncated PNG: the file ends in its header"));
        };
        let mut has_transparency = false;
        let mut orientation = None;
        for chunk in chunks {
            match chunk.name {
                b"tRNS" => has_transparency = true,
                b"eXIf" => orientation = Some(exif::orientation(chunk.data)),
                b"tEXt" | b"zTXt" if orientation.is_none() => {
                    orientation = raw_profile(&chunk).map(|profile| exif::orientation(&profile));
                }
                _ => {}
            }
        }
        let channels = match color {
            0 => 1,
            4 => 2,
            2 | 3 => 3,
            _ => 4,
        } + u64::from(has_transparency && color < 4);
        Ok(PngHeader {
            width: u32::from_be_bytes([a, b, c, d]),
            height: u32::from_be_bytes([e, f, g, h]),
            orientation: orientation.unwrap_or(Orientation::NoTransforms),
            bytes_per_pixel: channels * if depth == 16 { 2 } else { 1 },
            is_interlaced: interlace != 0,
            color: StoredColor {
                model: match color {
                    0 | 4 => ColorModel::Gray,
                    3 => ColorModel::Palette,
                    _ => ColorModel::Rgb,
                },
                has_alpha: has_transparency || color >= 4,
                bits: if color == 3 { 8 } else { depth },
            },
        })
    }

    /// See [`super::Header::decode_bytes`].
    pub(super) fn decode_bytes(&self) -> u64 {
        let row = u64::from(self.width) * self.bytes_per_pixel;
        // Passes of an interlaced image are put together before they become RGB.
        let image =
            if self.is_interlaced { image_bytes(self.width, self.height, self.bytes_per_pixel) } else { 0 };
        // The decoder holds the row before, the one that is filtered, the one that is expanded, and reads ahead.
        let bytes = rgb_bytes(self.width, self.height).saturating_add(image).saturating_add(4 * row);
        turned_bytes(bytes, self.width, self.height, self.orientation)
    }
}

/// EXIF data that stands as text, as ImageMagick writes it.
fn raw_profile(chunk: &Chunk<'_>) -> Option<Vec<u8>> {
    let known = [b"Raw profile type exif\0".as_slice(), b"Raw profile type APP1\0"];
    if !known.iter().any(|keyword| chunk.data.starts_with(keyword)) {
        return None;
    }
    // A file of one grey pixel around the chunk: what is compressed is inflated within the decoder's limits.
    let header = b"\0\0\0\x0dIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a\x7e\x9b\x55";
    let data = b"\0\0\0\0IDAT\x35\xaf\x06\x1e";
    let file = [SIGNATURE, header, chunk.whole, data].concat();
    let decoder = png::Decoder::new_with_limits(Cursor::new(file), png::Limits { bytes: CHUNK_BYTES_MAX });
    let reader = decoder.read_info().ok()?;
    let info = reader.info();
    let text = match info.uncompressed_latin1_text.first() {
        Some(plain) => plain.text.clone(),
        None => {
            let mut compressed = info.compressed_latin1_text.first()?.clone();
            compressed.decompress_text_with_limit(CHUNK_BYTES_MAX).ok()?;
            compressed.get_text().ok()?
        }
    };
    exif::from_raw_profile(&text)
}

/// Decodes after the header has passed the limits.
pub(super) fn decode(bytes: &[u8], options: &Decode) -> Result<Pixels, Fault> {
    let layout = PngHeader::read(bytes)?;
    let PngHeader { width, height, orientation, .. } = layout;
    options.limits.check(width, height, layout.decode_bytes())?;

    let limits = png::Limits { bytes: CHUNK_BYTES_MAX.saturating_add(16 * width as usize) };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(refused)?;
    let color = match reader.output_color_type() {
        (png::ColorType::Grayscale, BitDepth::Eight) => ColorType::L8,
        (png::ColorType::Grayscale, BitDepth::Sixteen) => ColorType::L16,
        (png::ColorType::GrayscaleAlpha, BitDepth::Eight) => ColorType::La8,
        (png::ColorType::GrayscaleAlpha, BitDepth::Sixteen) => ColorType::La16,
        (png::ColorType::Rgb, BitDepth::Eight) => ColorType::Rgb8,
        (png::ColorType::Rgb, BitDepth::Sixteen) => ColorType::Rgb16,
        (png::ColorType::Rgba, BitDepth::Eight) => ColorType::Rgba8,
        (png::ColorType::Rgba, BitDepth::Sixteen) => ColorType::Rgba16,
        (color, depth) => return Err(fault(format_args!("PNG of {color:?} in {depth:?} is not supported"))),
    };
    // Rows of 16 bits come with the most significant byte first.
    let to_rgb = still::ToRgb { color, is_big_endian: true, background: options.background };
    let mut data = Vec::with_capacity(rgb_bytes(width, height) as usize);
    if layout.is_interlaced {
        let mut image = vec![0; reader.output_buffer_size().ok_or_else(|| fault("broken PNG: its size"))?];
        reader.next_frame(&mut image).map_err(refused)?;
        to_rgb.append(&image, &mut data)?;
    } else {
        while let Some(row) = reader.next_row().map_err(refused)? {
            to_rgb.append(row.data(), &mut data)?;
        }
    }
    Ok(oriented(Pixels::new(width, height, data), orientation))
}

/// One line for what the decoder says.
fn refused(error: DecodingError) -> Fault {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            fault("truncated PNG: the file ends before the image does")
        }
        DecodingError::LimitsExceeded => fault(format_args!(
            "broken PNG: a chunk beside the image takes more than {CHUNK_BYTES_MAX} bytes"
        )),
        error => fault(format_args!("broken PNG: {error}")),
    }
}
