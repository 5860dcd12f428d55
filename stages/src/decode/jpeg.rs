//! JPEG: the markers are read here, and say which decoder gets the file right.
//!
//! zune-jpeg is the fast one, in its strict mode, which refuses truncated files. It decodes some legal layouts
//! to garbage without an error; those go to the `jpeg-decoder` crate instead.

use forebay_datasets::sample::Pixels;
use image::metadata::Orientation;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::{Limits, fault, oriented};
use crate::stage::Fault;

/// What the markers up to the first scan say.
#[derive(Debug)]
pub(super) struct Layout {
    /// As stored, before the orientation.
    pub(super) width: u32,
    /// As stored, before the orientation.
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    progressive: bool,
    /// Horizontal and vertical sampling factor of each component.
    components: Vec<(u8, u8)>,
    /// How many components the first scan holds.
    first_scan: usize,
}

impl Layout {
    /// Walks the markers from the start of the image to its first scan. Only lengths are trusted, and only
    /// within the file.
    pub(super) fn read(bytes: &[u8]) -> Result<Layout, Fault> {
        let mut frame: Option<(u8, &[u8])> = None;
        let mut orientation = None;
        let mut at = 2;
        loop {
            let (marker, segment, next) = segment(bytes, at)?;
            at = next;
            match marker {
                0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    if frame.is_some() {
                        return Err(fault("broken JPEG: two frame headers"));
                    }
                    frame = Some((marker, segment));
                }
                0xe1 if orientation.is_none() => {
                    orientation = segment.strip_prefix(b"Exif\0\0").and_then(Orientation::from_exif_chunk);
                }
                0xda => {
                    let Some((sof, frame)) = frame else {
                        return Err(fault("broken JPEG: a scan without a frame header"));
                    };
                    let first_scan = usize::from(segment.first().copied().unwrap_or(0));
                    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
                    return Layout::of_frame(sof, frame, first_scan, orientation);
                }
                0xd9 => return Err(fault("broken JPEG: it ends before its first scan")),
                _ => {}
            }
        }
    }

    fn of_frame(sof: u8, frame: &[u8], first_scan: usize, orientation: Orientation) -> Result<Layout, Fault> {
        let &[precision, h1, h0, w1, w0, n, ref components @ ..] = frame else {
            return Err(fault("broken JPEG: its frame header is too short"));
        };
        match sof {
            0xc0..=0xc2 => {}
            0xc3 => return Err(fault("lossless JPEG is not supported")),
            0xc9 | 0xca => return Err(fault("JPEG with arithmetic coding is not supported")),
            _ => return Err(fault("hierarchical or lossless JPEG is not supported")),
        }
        if precision != 8 {
            return Err(fault(format_args!("JPEG of {precision} bits is not supported, only of 8")));
        }
        let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
        if height == 0 {
            return Err(fault("JPEG with its height after the first scan (DNL) is not supported"));
        }
        if width == 0 {
            return Err(fault("broken JPEG: its width is 0"));
        }
        if components.len() < usize::from(n) * 3 {
            return Err(fault("broken JPEG: its frame header is too short"));
        }
        let components: Vec<(u8, u8)> = components
            .chunks_exact(3)
            .take(usize::from(n))
            .map(|component| (component[1] >> 4, component[1] & 15))
            .collect();
        if !matches!(n, 1 | 3 | 4) {
            return Err(fault(format_args!("JPEG with {n} components is not supported")));
        }
        if components.iter().any(|&(h, v)| !(1..=4).contains(&h) || !(1..=4).contains(&v)) {
            return Err(fault("broken JPEG: a sampling factor is not 1 to 4"));
        }
        Ok(Layout {
            width: width.into(),
            height: height.into(),
            orientation,
            progressive: sof == 0xc2,
            components,
            first_scan,
        })
    }

    /// True where zune-jpeg 0.5 gives garbage without an error.
    fn needs_the_slow_decoder(&self) -> bool {
        // A baseline file with one scan per component (zune-image#419).
        !self.progressive && self.first_scan < self.components.len()
    }
}

/// The marker at `at`, its segment without the length, and where the next marker is.
fn segment(bytes: &[u8], at: usize) -> Result<(u8, &[u8], usize), Fault> {
    let ends = || fault("truncated JPEG: the file ends in its headers");
    let mut at = at;
    // Some writers leave bytes between segments; libjpeg skips to the next marker, and so do we.
    while *bytes.get(at).ok_or_else(ends)? != 0xff {
        at += 1;
    }
    // A marker may be preceded by any number of fill bytes.
    while *bytes.get(at).ok_or_else(ends)? == 0xff {
        at += 1;
    }
    let marker = bytes[at];
    at += 1;
    if matches!(marker, 0x00 | 0x01 | 0xd0..=0xd9) {
        return Ok((marker, &[], at));
    }
    let length = bytes.get(at..at + 2).ok_or_else(ends)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length < 2 {
        return Err(fault("broken JPEG: a segment of no length"));
    }
    let segment = bytes.get(at + 2..at + length).ok_or_else(ends)?;
    Ok((marker, segment, at + length))
}

/// Decodes after the header has passed the limits.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Pixels, Fault> {
    let layout = Layout::read(bytes)?;
    limits.check(layout.width, layout.height, 3)?;
    let data = if layout.needs_the_slow_decoder() { slow(bytes, &layout)? } else { fast(bytes, &layout)? };
    Ok(oriented(Pixels::new(layout.width, layout.height, data), layout.orientation))
}

fn fast(bytes: &[u8], layout: &Layout) -> Result<Vec<u8>, Fault> {
    let options = DecoderOptions::new_fast()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let mut data = vec![0; layout.width as usize * layout.height as usize * 3];
    decoder.decode_into(&mut data).map_err(|error| refused(&format!("{error:?}")))?;
    Ok(data)
}

fn slow(bytes: &[u8], layout: &Layout) -> Result<Vec<u8>, Fault> {
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    let data = decoder.decode().map_err(|error| refused(&error.to_string()))?;
    let pixels = layout.width as usize * layout.height as usize;
    match layout.components.len() {
        1 if data.len() == pixels => Ok(data.iter().flat_map(|&gray| [gray; 3]).collect()),
        3 if data.len() == pixels * 3 => Ok(data),
        n => Err(fault(format_args!("JPEG with {n} components in several scans is not supported"))),
    }
}

/// One line for what a decoder says.
fn refused(text: &str) -> Fault {
    let lower = text.to_lowercase();
    if ["premature", "exhausted", "unexpected end", "failed to fill"].iter().any(|word| lower.contains(word))
    {
        return fault("truncated JPEG: the file ends before the image does");
    }
    fault(format_args!("broken JPEG: {text}"))
}
