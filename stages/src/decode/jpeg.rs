//! JPEG: the markers are read here, and say which decoder gets the file right, if any.
//!
//! Huffman-coded files go to our own decoder ([`own`]) first. Of what it leaves, zune-jpeg is the fast one, in its strict mode, which
//! refuses truncated files. Some legal layouts it decodes
//! to garbage without an error, or not at all; those go to the `jpeg-decoder` crate, and what neither gets right
//! to `libjpeg-turbo-rs`, which is exact but refuses layouts that `jpeg-decoder` reads. Which is which was found by
//! comparing with libjpeg-turbo over 2,500 combinations of subsampling, restart interval, scan script and size.

mod baseline;
mod bits;
mod coefficients;
mod color;
mod frame;
mod huffman;
mod idct;
mod own;
mod rows;
mod sparse;
mod spectrum;
#[cfg(test)]
mod tests;
mod units;

use forebay_datasets::sample::{Pixels, SeenPart};
use image::metadata::Orientation;
use libjpeg_turbo_rs::common::error::DecodeWarning;
use libjpeg_turbo_rs::{DecodeLimits, PixelFormat};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use self::bits::ScanBytes;
pub(super) use self::own::KEPT_BYTES_MAX;
use self::rows::Region;
use self::spectrum::Spectrum;
use super::{
    ColorModel, Decode, DecodeScale, Decoder, StoredColor, exif, fault, oriented, rgb_bytes, stored,
    swaps_sides, turned_bytes,
};
use crate::resample::View;
use crate::resized_rows::ResizedRows;
use crate::simd::isa::Isa;
use crate::stage::Fault;

/// What the markers up to the first scan say.
#[derive(Debug)]
pub(super) struct JpegHeader {
    /// As stored, before the orientation.
    pub(super) width: u32,
    /// As stored, before the orientation.
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    progressive: bool,
    /// True where coefficients are coded arithmetically rather than by Huffman's codes.
    arithmetic: bool,
    components: Vec<ComponentHeader>,
    /// How many components the first scan holds.
    first_scan: usize,
    /// Where the first scan's marker is.
    scan_at: usize,
    /// Minimum coded units between restart markers; 0 where there are none.
    restart_interval: usize,
    /// True where three components are red, green and blue rather than luma and chroma.
    is_rgb: bool,
    /// True where bytes lie between segments that belong to none.
    has_stray_bytes: bool,
}

#[derive(Debug)]
struct ComponentHeader {
    id: u8,
    /// Horizontal and vertical sampling factor, 1 to 4.
    sampling: [u8; 2],
}

/// Which decoder gets a layout right.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Zune,
    JpegDecoder,
    LibjpegTurbo,
}

/// Scans that a file may have, each of which takes time by the size of the image; encoders write about ten. As in the fuzzers of
/// libjpeg-turbo.
const SCANS_MAX: usize = 500;

impl JpegHeader {
    /// Walks the markers from the start of the image to its first scan. Only lengths are trusted, and only
    /// within the file.
    pub(super) fn read(bytes: &[u8]) -> Result<JpegHeader, Fault> {
        let mut frame: Option<(u8, &[u8])> = None;
        let mut orientation = None;
        let mut has_jfif = false;
        let mut adobe = None;
        let mut restart_interval = 0;
        let mut has_stray_bytes = false;
        let mut at = 2;
        loop {
            let Segment { marker, body, start, end } = segment(bytes, at)?;
            has_stray_bytes |= start > at;
            at = end;
            match marker {
                0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    if frame.is_some() {
                        return Err(fault("broken JPEG: two frame headers"));
                    }
                    frame = Some((marker, body));
                }
                0xdd => restart_interval = body.get(..2).map_or(0, |two| usize::from(be16(two))),
                0xe0 => has_jfif |= body.starts_with(b"JFIF\0"),
                0xe1 if orientation.is_none() => {
                    orientation = body.starts_with(b"Exif\0\0").then(|| exif::orientation(body));
                }
                0xee if body.starts_with(b"Adobe") => adobe = body.get(11).copied().or(adobe),
                0xda => {
                    let Some((sof, frame)) = frame else {
                        return Err(fault("broken JPEG: a scan without a frame header"));
                    };
                    let (width, height, components) = read_frame(sof, frame)?;
                    // As libjpeg decides (`default_decompress_parms`).
                    let is_rgb = !has_jfif
                        && match adobe {
                            Some(transform) => transform == 0,
                            None => components.iter().map(|component| component.id).eq(*b"RGB"),
                        };
                    return Ok(JpegHeader {
                        width,
                        height,
                        orientation: orientation.unwrap_or(Orientation::NoTransforms),
                        progressive: matches!(sof, 0xc2 | 0xca),
                        arithmetic: matches!(sof, 0xc9 | 0xca),
                        components,
                        first_scan: usize::from(body.first().copied().unwrap_or(0)),
                        scan_at: start,
                        restart_interval,
                        is_rgb,
                        has_stray_bytes,
                    });
                }
                0xd9 => return Err(fault("broken JPEG: it ends before its first scan")),
                _ => {}
            }
        }
    }

    /// The colours of the file.
    pub(super) fn color(&self) -> StoredColor {
        let model = match self.components.len() {
            1 => ColorModel::Gray,
            4 => ColorModel::Cmyk,
            _ => ColorModel::Rgb,
        };
        StoredColor { model, has_alpha: false, bits: 8 }
    }

    /// The largest sampling factors, horizontal and vertical.
    fn sampling_max(&self) -> [u8; 2] {
        [0, 1].map(|axis| self.components.iter().map(|component| component.sampling[axis]).max().unwrap_or(1))
    }

    /// See [`super::Header::decode_bytes`].
    pub(super) fn decode_bytes(&self, bytes: &[u8]) -> u64 {
        let [h_max, v_max] = self.sampling_max().map(u64::from);
        let size = [u64::from(self.width).div_ceil(8 * h_max), u64::from(self.height).div_ceil(8 * v_max)];
        let [units_across, units_down] = size;
        let units = units_across * units_down;
        let blocks = |units: u64| -> u64 {
            let per_unit = self.components.iter().map(|ComponentHeader { sampling: [h, v], .. }| h * v);
            units * per_unit.map(u64::from).sum::<u64>()
        };
        // Of several scans all coefficients are held until the last one.
        let held = self.components.iter().map(|one| Spectrum::bytes_of(size, one.sampling.map(u64::from)));
        let coefficients = if self.is_one_scan() { 0 } else { held.sum() };
        // Each restart marker takes two bytes of the file; later scans may have more of them.
        let markers = match self.restart_interval as u64 {
            0 if self.is_one_scan() => 0,
            interval if self.is_one_scan() => units.div_ceil(interval),
            _ => blocks(units),
        };
        let markers = markers.min(bytes.len() as u64 / 2) * ScanBytes::MARKER_BYTES;
        let rgb = rgb_bytes(self.width, self.height);
        let image = coefficients
            + match self.route() {
                // A row of units as coefficients and as samples, once as stored and up to four times upsampled.
                Route::Zune => rgb + 12 * 64 * units_across * h_max * v_max * self.components.len() as u64,
                // Whole planes, then the samples side by side, then RGB.
                Route::JpegDecoder | Route::LibjpegTurbo => 64 * blocks(units) + 2 * rgb,
            };
        // The bits of the scan, without stuffing.
        let image = image + bytes.len() as u64 + markers;
        // Without an end marker the file is decoded twice, from copies.
        let again = if bytes.ends_with(&[0xff, 0xd9]) { 0 } else { rgb + 2 * bytes.len() as u64 };
        turned_bytes(image + again, self.width, self.height, self.orientation)
    }

    /// The restart markers of a scan with a header of this body, with so many minimum coded units between two of them.
    fn restarts(&self, body: &[u8], interval: usize) -> usize {
        let max = self.sampling_max();
        let of_one = match *body {
            [1, id, ..] if self.components.len() > 1 => self.components.iter().find(|one| one.id == id),
            _ => None,
        };
        let across_and_down = [(0, self.width), (1, self.height)].map(|(axis, pixels)| match of_one {
            // Single blocks, as many as show something.
            Some(one) => {
                (pixels * u32::from(one.sampling[axis])).div_ceil(u32::from(max[axis])).div_ceil(8) as usize
            }
            None if self.components.len() == 1 => pixels.div_ceil(8) as usize,
            None => pixels.div_ceil(8 * u32::from(max[axis])) as usize,
        });
        let units: usize = across_and_down.iter().product();
        if interval == 0 { 0 } else { units.div_ceil(interval) - 1 }
    }

    /// True where the first scan brings all of the image.
    fn is_one_scan(&self) -> bool {
        !self.progressive && self.first_scan == self.components.len()
    }

    fn route(&self) -> Route {
        if self.arithmetic {
            return Route::LibjpegTurbo;
        }
        let max = self.sampling_max();
        let factors = || self.components.iter().flat_map(|component| std::iter::zip(component.sampling, max));
        // zune-jpeg takes luma to be the component with the most samples, and divides by shifting.
        let odd = self.components.first().is_none_or(|luma| luma.sampling != max)
            || factors().any(|(factor, _)| factor == 3);
        let one_scan = self.is_one_scan();
        // Neither zune-jpeg nor jpeg-decoder finds the blocks of such a component where it has a scan of its own.
        if factors().any(|(factor, max)| 1 < factor && factor < max) {
            return if one_scan && !odd { Route::Zune } else { Route::LibjpegTurbo };
        }
        // A baseline file with several scans is zune-image#419.
        let separate = !self.progressive && !one_scan;
        if odd || separate || self.has_stray_bytes { Route::JpegDecoder } else { Route::Zune }
    }
}

/// Width, height and components of a frame that can be decoded.
fn read_frame(sof: u8, frame: &[u8]) -> Result<(u32, u32, Vec<ComponentHeader>), Fault> {
    let &[precision, h1, h0, w1, w0, n, ref components @ ..] = frame else {
        return Err(fault("broken JPEG: its frame header is too short"));
    };
    match sof {
        0xc0..=0xc2 | 0xc9 | 0xca => {}
        _ => return Err(fault("lossless or hierarchical JPEG is not supported")),
    }
    if precision != 8 {
        return Err(fault(format_args!("JPEG of {precision} bits is not supported, only of 8")));
    }
    let (width, height) = (be16(&[w1, w0]), be16(&[h1, h0]));
    if width == 0 {
        return Err(fault("broken JPEG: its width is 0"));
    }
    if height == 0 {
        return Err(fault("JPEG with its height after the first scan (DNL) is not supported"));
    }
    if !matches!(n, 1 | 3 | 4) {
        return Err(fault(format_args!("JPEG with {n} components is not supported")));
    }
    let Some(components) = components.get(..usize::from(n) * 3) else {
        return Err(fault("broken JPEG: its frame header is too short"));
    };
    let components: Vec<ComponentHeader> = components
        .chunks_exact(3)
        .map(|component| ComponentHeader {
            id: component[0],
            sampling: [component[1] >> 4, component[1] & 15],
        })
        .collect();
    if components.iter().flat_map(|component| component.sampling).any(|factor| !(1..=4).contains(&factor)) {
        return Err(fault("broken JPEG: a sampling factor is not 1 to 4"));
    }
    Ok((width.into(), height.into(), components))
}

/// A marker and what belongs to it.
struct Segment<'a> {
    marker: u8,
    /// Without its length; empty for a marker that has none.
    body: &'a [u8],
    /// Where the marker's first byte is.
    start: usize,
    /// Where the next marker should be.
    end: usize,
}

/// The next segment at or after `at`. Some writers leave bytes between segments; libjpeg skips them.
fn segment(bytes: &[u8], at: usize) -> Result<Segment<'_>, Fault> {
    let ends = || fault("truncated JPEG: the file ends in its headers");
    let start =
        at + bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff)).ok_or_else(ends)?;
    // A marker may be preceded by any number of fill bytes.
    let fill = bytes[start..].iter().position(|&byte| byte != 0xff).ok_or_else(ends)?;
    let marker = bytes[start + fill];
    let end = start + fill + 1;
    if matches!(marker, 0x00 | 0x01 | 0xd0..=0xd9) {
        return Ok(Segment { marker, body: &[], start, end });
    }
    let length = usize::from(be16(bytes.get(end..end + 2).ok_or_else(ends)?));
    if length < 2 {
        return Err(fault("broken JPEG: a segment of no length"));
    }
    let body = bytes.get(end + 2..end + length).ok_or_else(ends)?;
    Ok(Segment { marker, body, start, end: end + length })
}

fn be16(two: &[u8]) -> u16 {
    u16::from_be_bytes([two[0], two[1]])
}

/// The quantisation table with number 0, which is that of luma, in the zigzag order of the file. `None` where there is
/// none before the first scan.
pub(crate) fn luma_quantization(bytes: &[u8]) -> Option<[u16; 64]> {
    let (mut at, mut found) = (2, None);
    loop {
        let Segment { marker, mut body, end, .. } = segment(bytes, at).ok()?;
        at = end;
        match marker {
            0xda | 0xd9 => return found,
            0xdb => {
                // Each table: precision and number in one byte, then 64 values of one or two bytes.
                while let Some((&kind, values)) = body.split_first() {
                    let width = if kind >> 4 == 0 { 1 } else { 2 };
                    let (values, rest) = values.split_at_checked(64 * width)?;
                    let value = |at: usize| match width {
                        1 => u16::from(values[at]),
                        _ => be16(&values[2 * at..2 * at + 2]),
                    };
                    if kind & 15 == 0 {
                        found = Some(std::array::from_fn(value));
                    }
                    body = rest;
                }
            }
            _ => {}
        }
    }
}

/// Decodes what is seen of an image, after the header has passed the limits.
pub(super) fn decode(
    bytes: &[u8],
    options: &Decode,
    view: &dyn Fn((u32, u32)) -> Option<View>,
) -> Result<Pixels, Fault> {
    let layout = JpegHeader::read(bytes)?;
    let JpegHeader { width, height, orientation, .. } = layout;
    options.limits.check(width, height, layout.decode_bytes(bytes))?;
    let size = if swaps_sides(orientation) { (height, width) } else { (width, height) };
    let seen_by = view(size);
    if options.decoder == Decoder::Forebay {
        let reduced = seen_by.map_or(1, |view| reduction(options, &view, &layout));
        let seen = seen_by.map(|view| whole_squares(view.seen(), reduced, size));
        let region = seen.map(|seen| {
            let [x, y, across, down] = stored(seen, (width, height), orientation).map(|at| at as usize);
            Region { columns: x..x + across, rows: y..y + down }
        });
        let [left, top, across, down] = seen.unwrap_or([0, 0, size.0, size.1]);
        let [across, down] = if swaps_sides(orientation) { [down, across] } else { [across, down] };
        let [across, down] = [across, down].map(|pixels| pixels.div_ceil(reduced));
        let part = SeenPart { left, top, reduced, rows_are_resized: false };
        let isa = Isa::detect();
        let resized = seen_by
            .filter(|_| orientation == Orientation::NoTransforms)
            .and_then(|view| ResizedRows::begin(&view, part, [across, down], isa));
        let rows_are_resized = resized.is_some();
        let rows = seen_by.filter(|_| rows_are_resized).map_or(down, |view| view.size[1]);
        if let Some(data) = own::pixels(bytes, layout.is_rgb, region, reduced as usize, resized, isa) {
            let decoded = Pixels::new(across, rows, data);
            let part = seen.map(|_| SeenPart { rows_are_resized, ..part });
            return Ok(Pixels { original: size.into(), part, ..oriented(decoded, orientation) });
        }
    }
    // The end marker is nearly always the last two bytes, so that this search is short.
    let has_end = bytes[layout.scan_at..].windows(2).rev().any(|two| two == [0xff, 0xd9]);
    let data = if has_end {
        check_restarts(bytes, &layout)?;
        decode_whole(bytes, &layout)?
    } else {
        decode_without_end(bytes, &layout)?
    };
    Ok(oriented(Pixels::new(layout.width, layout.height, data), layout.orientation))
}

/// Forebay's own decoder alone, on files of at most a million pixels, for those who look for its faults.
pub(super) fn own_alone(
    bytes: &[u8],
    part: Option<[usize; 4]>,
    reduced: usize,
    has_vectors: bool,
) -> Option<(usize, usize, Vec<u8>)> {
    let JpegHeader { width, height, is_rgb, .. } = JpegHeader::read(bytes).ok()?;
    let (width, height) = (width as usize, height as usize);
    if !(1..=1 << 20).contains(&(width * height)) {
        return None;
    }
    let region =
        part.map(|[left, top, across, down]| Region { columns: left..left + across, rows: top..top + down });
    let isa = if has_vectors { Isa::detect() } else { Isa::Scalar };
    Some((width, height, own::pixels(bytes, is_rgb, region, reduced, None, isa)?))
}

/// How many columns and rows of an image become one before it is resized. An image that is turned is reduced as it is stored, and
/// so only where that comes to the same.
fn reduction(options: &Decode, view: &View, layout: &JpegHeader) -> u32 {
    let reduced = if options.scale == DecodeScale::Exact { 1 } else { view.reduction() };
    let fits = [layout.width, layout.height].iter().all(|side| side.is_multiple_of(reduced));
    if layout.orientation == Orientation::NoTransforms || fits { reduced } else { 1 }
}

/// A part of an image with the whole of each square of `reduced` pixels that it touches, as far as the image has them.
fn whole_squares([left, top, width, height]: [u32; 4], reduced: u32, size: (u32, u32)) -> [u32; 4] {
    let from = |at: u32| at / reduced * reduced;
    let to = |end: u32, side: u32| end.next_multiple_of(reduced).min(side);
    let (from_left, from_top) = (from(left), from(top));
    [from_left, from_top, to(left + width, size.0) - from_left, to(top + height, size.1) - from_top]
}

fn decode_whole(bytes: &[u8], layout: &JpegHeader) -> Result<Vec<u8>, Fault> {
    match layout.route() {
        Route::Zune => with_zune(bytes, layout),
        Route::JpegDecoder => with_jpeg_decoder(bytes, layout),
        Route::LibjpegTurbo => with_libjpeg_turbo(bytes, layout),
    }
}

/// Decodes a file without an end marker: one that lacks nothing else is whole, any other is truncated.
///
/// Decoders read ahead and make up what they miss, so that a cut of a few bytes goes unnoticed. But the pixels
/// of a whole image cannot depend on what follows it: it is decoded with zeros and with ones after it. All ones
/// is no valid code.
fn decode_without_end(bytes: &[u8], layout: &JpegHeader) -> Result<Vec<u8>, Fault> {
    let cut = || fault("truncated JPEG: the file ends before the image does");
    // A lone 0xff is the first half of the end marker.
    let length = bytes.iter().rposition(|&byte| byte != 0xff).map_or(0, |last| last + 1);
    if check_restarts(bytes, layout).is_err() || !all_coefficients_are_there(&bytes[..length], layout) {
        return Err(cut());
    }
    let with_zeros = [&bytes[..length], &[0xff, 0xd9]].concat();
    let with_ones = [&bytes[..length], &[0xff, 0x00].repeat(64), &[0xff, 0xd9]].concat();
    let data = decode_whole(&with_zeros, layout)?;
    match decode_whole(&with_ones, layout) {
        Ok(other) if other == data => Ok(data),
        _ => Err(cut()),
    }
}

/// True where the scans that begin in the file bring every coefficient of every component to full precision.
fn all_coefficients_are_there(bytes: &[u8], layout: &JpegHeader) -> bool {
    let mut missing: Vec<(u8, u64)> =
        layout.components.iter().map(|component| (component.id, u64::MAX)).collect();
    let mut at = layout.scan_at;
    while let Ok(Segment { marker, body, end, .. }) = segment(bytes, at) {
        at = end;
        let Some((&n, rest)) = body.split_first() else { continue };
        let Some((ids, &[from, to, approximation, ..])) = rest.split_at_checked(2 * usize::from(n)) else {
            continue;
        };
        if marker != 0xda || approximation & 15 != 0 || from > to || to > 63 {
            continue;
        }
        let band = (u64::MAX >> (63 - to)) & (u64::MAX << from);
        for (id, coefficients) in &mut missing {
            if ids.chunks_exact(2).any(|pair| pair[0] == *id) {
                *coefficients &= !band;
            }
        }
    }
    missing.iter().all(|&(_, coefficients)| coefficients == 0)
}

/// Refuses a file whose restart markers are out of order, too few or too many: a decoder would shift the rest of the image. One more
/// may stand at the end of a scan.
fn check_restarts(bytes: &[u8], layout: &JpegHeader) -> Result<(), Fault> {
    let wrong = || fault("broken JPEG: restart markers are missing, too many, or the image is cut short");
    let mut interval = layout.restart_interval;
    // Of the scan: its restart markers, and as many as it should have.
    let (mut seen, mut wanted) = (0, 0);
    let mut at = layout.scan_at;
    while let Ok(Segment { marker, body, end, .. }) = segment(bytes, at) {
        at = end;
        match marker {
            0xda if seen < wanted => return Err(wrong()),
            0xda => (seen, wanted) = (0, layout.restarts(body, interval)),
            0xdd => interval = body.get(..2).map_or(0, |two| usize::from(be16(two))),
            0xd0..=0xd7 if usize::from(marker - 0xd0) == seen % 8 => {
                let ends_scan = matches!(bytes[end..], [] | [0xff] | [0xff, 0x01..=0xcf | 0xd8.., ..]);
                if seen >= wanted && !ends_scan {
                    return Err(wrong());
                }
                seen += 1;
            }
            0xd0..=0xd7 => return Err(fault("broken JPEG: a restart marker is missing or out of order")),
            0xd9 => break,
            _ => {}
        }
    }
    if seen < wanted { Err(wrong()) } else { Ok(()) }
}

fn with_zune(bytes: &[u8], layout: &JpegHeader) -> Result<Vec<u8>, Fault> {
    let options = DecoderOptions::new_fast()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let refused = |error: zune_jpeg::errors::DecodeErrors| refused(&format!("{error:?}"));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(refused)?;
    // In some files it takes for luma and chroma what libjpeg takes for red, green and blue, or the other way
    // round. Asked for luma and chroma it converts nothing, and nor does it where it sees none.
    let converts = matches!(decoder.input_colorspace(), Some(ColorSpace::YCbCr | ColorSpace::YCCK));
    let is_misread = layout.components.len() == 3 && converts == layout.is_rgb;
    if is_misread && converts {
        decoder.set_options(options.jpeg_set_out_colorspace(ColorSpace::YCbCr));
    }
    let mut data = vec![0; layout.width as usize * layout.height as usize * 3];
    decoder.decode_into(&mut data).map_err(refused)?;
    if is_misread && !converts {
        data.as_chunks_mut::<3>().0.iter_mut().for_each(|pixel| *pixel = from_ycbcr(*pixel));
    }
    Ok(data)
}

/// Full-range BT.601, as JFIF defines it.
pub(super) fn from_ycbcr(pixel: [u8; 3]) -> [u8; 3] {
    let [y, cb, cr] = pixel.map(f32::from);
    let (cb, cr) = (cb - 128.0, cr - 128.0);
    // A cast from float to integer clips.
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|value| value.round() as u8)
}

fn with_jpeg_decoder(bytes: &[u8], layout: &JpegHeader) -> Result<Vec<u8>, Fault> {
    use jpeg_decoder::ColorTransform;
    let n = layout.components.len();
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    match n {
        1 => {}
        3 if layout.is_rgb => decoder.set_color_transform(ColorTransform::RGB),
        3 => decoder.set_color_transform(ColorTransform::YCbCr),
        _ => return Err(fault(format_args!("JPEG with {n} components in such scans is not supported"))),
    }
    let data = decoder.decode().map_err(|error| refused(&error.to_string()))?;
    let pixels = layout.width as usize * layout.height as usize;
    if data.len() != pixels * n {
        return Err(fault("broken JPEG: its scans do not add up to its size"));
    }
    Ok(if n == 1 { data.iter().flat_map(|&gray| [gray; 3]).collect() } else { data })
}

fn with_libjpeg_turbo(bytes: &[u8], layout: &JpegHeader) -> Result<Vec<u8>, Fault> {
    let n = layout.components.len();
    if n == 4 {
        return Err(fault("JPEG with 4 components in such scans is not supported"));
    }
    let side_max = usize::from(u16::MAX);
    let limits = DecodeLimits {
        max_width: side_max,
        max_height: side_max,
        max_scans: SCANS_MAX,
        ..DecodeLimits::default()
    };
    let refused = |error: libjpeg_turbo_rs::JpegError| refused(&error.to_string());
    let mut decoder = libjpeg_turbo_rs::Decoder::new_with_limits(bytes, limits).map_err(refused)?;
    decoder.set_output_format(PixelFormat::Rgb);
    let mut data = vec![0; layout.width as usize * layout.height as usize * 3];
    let found = decoder.decode_image_into(&mut data).map_err(refused)?;
    if found.bytes_written != data.len() {
        return Err(fault("broken JPEG: it has another size than its header says"));
    }
    // Bytes between segments, which are skipped, are all that it may have to say.
    let warning = |warning: &&DecodeWarning| !matches!(warning, DecodeWarning::ExtraneousData { .. });
    match found.warnings.iter().find(warning) {
        Some(warning) => Err(fault(format_args!("broken JPEG: {warning}"))),
        None => Ok(data),
    }
}

/// One line for what a decoder says.
fn refused(text: &str) -> Fault {
    let lower = text.to_lowercase();
    let early = ["premature", "exhausted", "bits left", "bytes left", "unexpected end", "failed to fill"];
    if early.iter().any(|words| lower.contains(words)) {
        return fault("truncated JPEG: the file ends before the image does");
    }
    if lower.contains("non-interleaved baseline scan") {
        return fault("JPEG with scans of some of its components is not supported where sampling is uneven");
    }
    fault(format_args!("broken JPEG: {}", text.trim_matches('"')))
}
