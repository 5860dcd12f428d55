//! TIFF: what the samples of a pixel mean is decided here; the `tiff` crate only unpacks them.
//!
//! Gray, palettes, RGB, CMYK and YCbCr, side by side or in planes, with or without alpha; 1, 2, 4, 8 and 16 bits, and
//! floats, which are taken as 0 to 1.

use std::borrow::Cow;
use std::io::{Cursor, ErrorKind};

use forebay_datasets::sample::Pixels;
use image::metadata::Orientation;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::{SampleFormat, Tag};
use tiff::{ColorType, TiffError};

use super::still::{composite, narrow, quantize};
use super::{ColorModel, Decode, StoredColor, fault, image_bytes, jpeg, oriented, rgb_bytes, turned_bytes};
use crate::stage::Fault;

/// What the first directory says.
pub(super) struct TiffHeader {
    /// As stored, before the orientation.
    pub(super) width: u32,
    /// As stored, before the orientation.
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    color: Color,
    alpha: Option<Alpha>,
    /// Samples of a pixel that are unpacked.
    samples: usize,
    sample_bits: u8,
    is_planar: bool,
    /// The bytes of a copy of the file, where one was made.
    copy_bytes: u64,
    /// The bytes of a strip or tile as it is unpacked.
    chunk_bytes: u64,
}

/// What the samples of a pixel mean.
enum Color {
    Gray,
    Palette(Vec<[u8; 3]>),
    Rgb,
    Cmyk,
    YCbCr,
}

impl Color {
    /// Samples of a pixel without alpha.
    fn samples(&self) -> usize {
        match self {
            Color::Gray | Color::Palette(_) => 1,
            Color::Rgb | Color::YCbCr => 3,
            Color::Cmyk => 4,
        }
    }
}

/// How alpha and colour go together.
#[derive(Clone, Copy, PartialEq)]
enum Alpha {
    /// Colours are multiplied by it already.
    Associated,
    /// Colours are as they are.
    Straight,
}

/// What unpacks the samples.
type Samples<'a> = Decoder<Cursor<Cow<'a, [u8]>>>;

fn open(bytes: Cow<'_, [u8]>) -> Result<Samples<'_>, Fault> {
    Directory::of(&bytes).map_or(Ok(()), |directory| directory.check())?;
    Decoder::new(Cursor::new(bytes)).map_err(|error| refused(&error))
}

impl TiffHeader {
    /// The colours of the file.
    pub(super) fn color(&self) -> StoredColor {
        let model = match self.color {
            Color::Gray => ColorModel::Gray,
            Color::Palette(_) => ColorModel::Palette,
            Color::Rgb | Color::YCbCr => ColorModel::Rgb,
            Color::Cmyk => ColorModel::Cmyk,
        };
        StoredColor { model, has_alpha: self.alpha.is_some(), bits: self.sample_bits }
    }

    pub(super) fn read(bytes: &[u8]) -> Result<TiffHeader, Fault> {
        TiffHeader::open(bytes).map(|(layout, _)| layout)
    }

    fn open(bytes: &[u8]) -> Result<(TiffHeader, Samples<'_>), Fault> {
        let mut decoder = open(Cow::Borrowed(bytes))?;
        let mut copy_bytes = 0;
        let palette = match tag(&mut decoder, Tag::PhotometricInterpretation)?.as_deref() {
            Some([3]) => {
                let map = tag(&mut decoder, Tag::ColorMap)?
                    .ok_or_else(|| fault("broken TIFF: a palette image without a palette"))?;
                // The crate refuses palettes, and unpacks their indices where they are called gray.
                copy_bytes = bytes.len() as u64;
                decoder = open(Cow::Owned(called_gray(bytes)?))?;
                let n = map.len() / 3;
                // The high byte of 16 bits, as Pillow takes it.
                let level = |place: usize| (map[place] >> 8) as u8;
                Some((0..n).map(|index| [0, n, 2 * n].map(|channel| level(channel + index))).collect())
            }
            _ => None,
        };
        let (width, height) = decoder.dimensions().map_err(|error| refused(&error))?;
        let kind = decoder.colortype().map_err(|error| refused(&error))?;
        let extra = tag(&mut decoder, Tag::ExtraSamples)?;
        let named_alpha = match extra.as_deref() {
            Some([1, ..]) => Some(Alpha::Associated),
            // Pillow too takes a fourth sample that is not named for alpha.
            Some([2, ..]) | None => Some(Alpha::Straight),
            _ => None,
        };
        let (color, samples, sample_bits) = match kind {
            ColorType::Gray(bits) => (palette.map_or(Color::Gray, Color::Palette), 1, bits),
            ColorType::Multiband { bit_depth, num_samples } => {
                (palette.map_or(Color::Gray, Color::Palette), usize::from(num_samples), bit_depth)
            }
            ColorType::GrayA(bits) => (Color::Gray, 2, bits),
            ColorType::RGB(bits) => (Color::Rgb, 3, bits),
            ColorType::RGBA(bits) => (Color::Rgb, 4, bits),
            ColorType::CMYK(bits) => (Color::Cmyk, 4, bits),
            ColorType::CMYKA(bits) => (Color::Cmyk, 5, bits),
            ColorType::YCbCr(bits) => (Color::YCbCr, 3, bits),
            other => return Err(fault(format_args!("TIFF of a kind that is not supported: {other:?}"))),
        };
        let formats = tag(&mut decoder, Tag::SampleFormat)?.unwrap_or_default();
        let is_float = formats.iter().any(|&format| format == u64::from(SampleFormat::IEEEFP.to_u16()));
        let is_plain = formats.iter().all(|&format| format == 1 || is_float);
        let is_known = match (sample_bits, &color) {
            (32, Color::Gray | Color::Rgb) => is_float,
            (8, _) | (16, Color::Gray | Color::Rgb | Color::Cmyk) => !is_float,
            (1 | 2 | 4, Color::Gray | Color::Palette(_)) => !is_float && samples == 1,
            _ => false,
        };
        // What decodes such a JPEG takes its two components for something else.
        let is_two_in_jpeg = samples == 2 && tag(&mut decoder, Tag::Compression)?.as_deref() == Some(&[7]);
        if !is_known || !is_plain || is_two_in_jpeg {
            return Err(fault(format_args!(
                "TIFF of a kind that is not supported: {kind:?}{}",
                if is_float { " as floats" } else { "" }
            )));
        }
        let orientation = tag(&mut decoder, Tag::Orientation)?;
        let orientation =
            orientation.and_then(|values| Orientation::from_exif((*values.first()?).min(255) as u8));
        let (chunk_width, chunk_height) = decoder.chunk_dimensions();
        let is_planar = tag(&mut decoder, Tag::PlanarConfiguration)?.as_deref() == Some(&[2]);
        let sample_bytes = u64::from(sample_bits).div_ceil(8);
        let layout = TiffHeader {
            width,
            height,
            orientation: orientation.unwrap_or(Orientation::NoTransforms),
            alpha: named_alpha.filter(|_| samples > color.samples()),
            chunk_bytes: image_bytes(
                chunk_width.min(width),
                chunk_height.min(height),
                if is_planar { sample_bytes } else { samples as u64 * sample_bytes },
            ),
            color,
            samples,
            sample_bits,
            is_planar,
            copy_bytes,
        };
        Ok((layout, decoder))
    }

    /// The bytes of all samples as they are unpacked.
    fn sample_bytes(&self) -> u64 {
        let row_bits = u64::from(self.width) * self.samples as u64 * u64::from(self.sample_bits);
        row_bits.div_ceil(8).saturating_mul(u64::from(self.height))
    }

    /// See [`super::Header::decode_bytes`].
    pub(super) fn decode_bytes(&self) -> u64 {
        // Less than 8 bits are spread before they mean anything.
        let spread = if self.sample_bits < 8 { image_bytes(self.width, self.height, 1) } else { 0 };
        // A strip of JPEG is decoded as a whole, and its coefficients with it.
        let rgb = rgb_bytes(self.width, self.height);
        let chunks = self.chunk_bytes.saturating_mul(4);
        let parts = [self.sample_bytes(), spread, rgb, self.copy_bytes, chunks];
        let bytes = parts.into_iter().fold(0, u64::saturating_add);
        turned_bytes(bytes, self.width, self.height, self.orientation)
    }
}

/// The whole numbers of a tag; `None` where it is not there.
fn tag(decoder: &mut Samples<'_>, tag: Tag) -> Result<Option<Vec<u64>>, Fault> {
    decoder.find_tag_unsigned_vec(tag).map_err(|error| refused(&error))
}

/// The first directory of a file: how its tags are found.
struct Directory<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
    is_big: bool,
    /// Where its first entry is.
    start: usize,
    entries: usize,
}

/// Values of a tag that is read: the places of strips or tiles, of which an image within the limits has fewer.
const VALUES_MAX: usize = 1 << 18;

impl<'a> Directory<'a> {
    /// `None` where it lies outside the file.
    fn of(bytes: &'a [u8]) -> Option<Directory<'a>> {
        let mut directory =
            Directory { bytes, is_big_endian: bytes.starts_with(b"MM"), is_big: false, start: 0, entries: 0 };
        // Offsets and counts are of 4 and 2 bytes, in a BigTIFF of 8.
        directory.is_big = directory.number(2, 2)? == 43;
        let (at, count_bytes) =
            if directory.is_big { (directory.number(8, 8)?, 8) } else { (directory.number(4, 4)?, 2) };
        directory.entries = directory.number(at, count_bytes)?;
        directory.start = at + count_bytes;
        Some(directory)
    }

    fn number(&self, at: usize, length: usize) -> Option<usize> {
        let digits = self.bytes.get(at..at.checked_add(length)?)?;
        let add = |sum: u64, digit: &u8| sum << 8 | u64::from(*digit);
        let number =
            if self.is_big_endian { digits.iter().fold(0, add) } else { digits.iter().rev().fold(0, add) };
        usize::try_from(number).ok()
    }

    /// Tag, kind, number of values, and where they or their place stand; `None` beyond the end of the file.
    fn entry(&self, index: usize) -> Option<(usize, usize, usize, usize)> {
        let (bytes, count_bytes) = if self.is_big { (20, 8) } else { (12, 4) };
        let at = self.start.checked_add(index.checked_mul(bytes)?)?;
        let count = self.number(at.checked_add(4)?, count_bytes)?;
        Some((self.number(at, 2)?, self.number(at + 2, 2)?, count, at + 4 + count_bytes))
    }

    /// The entries that are in the file.
    fn entries(&self) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        (0..self.entries.min(65_535)).map_while(|index| self.entry(index))
    }

    /// Refuses a tag with more values than the file has room for, or than any image needs: the crate makes room for them
    /// before it looks, and its limits begin after that.
    fn check(&self) -> Result<(), Fault> {
        // Those that are read, here or by the crate. Descriptions and the data of other programs may be long.
        let is_read = |tag: usize| {
            matches!(tag, 254..=259 | 262 | 266 | 273 | 274 | 277..=279 | 284 | 317 | 320 | 322..=325 | 330)
                || matches!(tag, 338 | 339 | 347 | 530)
        };
        for (tag, kind, count, _) in self.entries().filter(|(tag, ..)| is_read(*tag)) {
            let value_bytes = match kind {
                3 | 8 => 2,
                4 | 9 | 11 | 13 => 4,
                5 | 10 | 12 | 16..=18 => 8,
                _ => 1,
            };
            if count > (self.bytes.len() / value_bytes).min(VALUES_MAX) {
                return Err(fault(format_args!("broken TIFF: tag {tag} has {count} values")));
            }
        }
        Ok(())
    }
}

/// A copy of a file in whose first directory the photometric interpretation is 1, black is zero.
fn called_gray(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let broken = || fault("broken TIFF: its directory lies outside the file");
    let directory = Directory::of(bytes).ok_or_else(broken)?;
    let mut copy = bytes.to_vec();
    for (tag, _, _, value_at) in directory.entries() {
        if tag == usize::from(Tag::PhotometricInterpretation.to_u16()) {
            let value = copy.get_mut(value_at..value_at + 2).ok_or_else(broken)?;
            value.copy_from_slice(if directory.is_big_endian { &[0, 1] } else { &[1, 0] });
        }
    }
    Ok(copy)
}

/// Decodes after the header has passed the limits.
pub(super) fn decode(bytes: &[u8], options: &Decode) -> Result<Pixels, Fault> {
    let (layout, decoder) = TiffHeader::open(bytes)?;
    let TiffHeader { width, height, orientation, .. } = layout;
    options.limits.check(width, height, layout.decode_bytes())?;

    let mut limits = Limits::default();
    limits.decoding_buffer_size = layout.sample_bytes() as usize;
    limits.intermediate_buffer_size = bytes.len().max(layout.chunk_bytes as usize) + 65_536;
    limits.ifd_value_size = bytes.len();
    let mut samples = DecodingResult::U8(Vec::new());
    let mut decoder = decoder.with_limits(limits);
    let unpacked = decoder.read_image_to_buffer(&mut samples).map_err(|error| refused(&error))?;
    if samples.as_buffer(0).byte_len() < unpacked.complete_len {
        return Err(fault("broken TIFF: its planes do not add up to its size"));
    }
    let data = match samples {
        DecodingResult::U8(samples) if layout.sample_bits < 8 => {
            let spread = spread(&samples, width as usize, layout.sample_bits);
            let highest = (1_u32 << layout.sample_bits) - 1;
            match layout.color {
                Color::Palette(_) => layout.rgb(&spread, options.background, |index| index)?,
                _ => layout
                    .rgb(&spread, options.background, |level| (u32::from(level) * 255 / highest) as u8)?,
            }
        }
        DecodingResult::U8(samples) => layout.rgb(&samples, options.background, |level| level)?,
        DecodingResult::U16(samples) => layout.rgb(&samples, options.background, narrow)?,
        DecodingResult::F32(samples) => layout.rgb(&samples, options.background, quantize)?,
        _ => return Err(fault("TIFF of a kind that is not supported: signed or long samples")),
    };
    Ok(oriented(Pixels::new(width, height, data), orientation))
}

/// Samples of less than 8 bits, one to a byte; rows begin at whole bytes.
fn spread(packed: &[u8], width: usize, bits: u8) -> Vec<u8> {
    let per_byte = usize::from(8 / bits);
    let mask = ((1_u16 << bits) - 1) as u8;
    let row_bytes = width.div_ceil(per_byte);
    let mut samples = Vec::with_capacity(packed.len() / row_bytes * width);
    for row in packed.chunks_exact(row_bytes) {
        let at =
            |place: usize| (row[place / per_byte] >> (8 - bits as usize * (place % per_byte + 1))) & mask;
        samples.extend((0..width).map(at));
    }
    samples
}

impl TiffHeader {
    /// Samples to RGB.
    fn rgb<T: Copy>(
        &self,
        samples: &[T],
        background: Option<[u8; 3]>,
        level: impl Fn(T) -> u8,
    ) -> Result<Vec<u8>, Fault> {
        let n_pixels = self.width as usize * self.height as usize;
        if samples.len() < n_pixels * self.samples {
            return Err(fault("truncated TIFF: the file ends before the image does"));
        }
        let mut rgb = Vec::with_capacity(n_pixels * 3);
        for pixel in 0..n_pixels {
            let at = |channel: usize| {
                let place =
                    if self.is_planar { channel * n_pixels + pixel } else { pixel * self.samples + channel };
                level(samples[place])
            };
            let color = match &self.color {
                Color::Gray => [at(0); 3],
                Color::Palette(palette) => *palette
                    .get(usize::from(at(0)))
                    .ok_or_else(|| fault("broken TIFF: an index beyond the palette"))?,
                Color::Rgb => [at(0), at(1), at(2)],
                Color::YCbCr => jpeg::from_ycbcr([at(0), at(1), at(2)]),
                Color::Cmyk => from_cmyk([at(0), at(1), at(2), at(3)]),
            };
            let color = match self.alpha {
                None => color,
                Some(alpha) => {
                    let share = at(self.color.samples());
                    let color = if alpha == Alpha::Associated { divided(color, share) } else { color };
                    background.map_or(color, |background| composite(color, share, background))
                }
            };
            rgb.extend_from_slice(&color);
        }
        Ok(rgb)
    }
}

/// A colour that was multiplied by its alpha, as Pillow undoes it: rounded down, and black where nothing shows.
fn divided(color: [u8; 3], alpha: u8) -> [u8; 3] {
    match u32::from(alpha) {
        0 => [0; 3],
        alpha => color.map(|level| (u32::from(level) * 255 / alpha).min(255) as u8),
    }
}

/// Inks to light, as Pillow's `convert("RGB")`: black takes its share of what each ink leaves.
fn from_cmyk([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let left = 255 - u32::from(k);
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * left + 128;
        (left - (((product >> 8) + product) >> 8).min(left)) as u8
    })
}

/// One line for what the crate says.
fn refused(error: &TiffError) -> Fault {
    match error {
        TiffError::UnsupportedError(what) => {
            fault(format_args!("TIFF of a kind that is not supported: {what}"))
        }
        TiffError::LimitsExceeded => fault("decoding this TIFF takes more memory than its size says"),
        TiffError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            fault("truncated TIFF: the file ends before the image does")
        }
        error => fault(format_args!("broken TIFF: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use forebay_datasets::sample::Encoded;
    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::stage::Stage;

    /// An uncompressed image of one strip per plane.
    struct Written<'a> {
        size: [u16; 2],
        bits: u16,
        samples: u16,
        photometric: u16,
        planes: &'a [&'a [u8]],
        /// Further entries: tag and 16-bit values.
        more: &'a [(u16, &'a [u16])],
        is_big_endian: bool,
    }

    impl Written<'_> {
        fn bytes(&self) -> Vec<u8> {
            let short =
                |value: u16| if self.is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
            let long =
                |value: u32| if self.is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
            let longs = |values: &mut dyn Iterator<Item = usize>| -> (u16, u32, Vec<u8>) {
                let bytes: Vec<u8> = values.flat_map(|value| long(value as u32)).collect();
                (4, bytes.len() as u32 / 4, bytes)
            };
            let shorts = |values: &[u16]| -> (u16, u32, Vec<u8>) {
                (3, values.len() as u32, values.iter().flat_map(|value| short(*value)).collect())
            };
            let is_planar = self.planes.len() > 1;
            let place = |first: usize| {
                let sizes = self.planes.iter().map(|plane| plane.len());
                longs(&mut sizes.scan(first, |at, size| Some(std::mem::replace(at, *at + size))))
            };
            // Far beyond any directory here.
            let data_at = 8192;
            let mut entries = vec![
                (256, shorts(&self.size[..1])),
                (257, shorts(&self.size[1..])),
                (258, shorts(&vec![self.bits; usize::from(self.samples)])),
                (259, shorts(&[1])),
                (262, shorts(&[self.photometric])),
                (273, place(data_at)),
                (277, shorts(&[self.samples])),
                (278, shorts(&self.size[1..])),
                (279, longs(&mut self.planes.iter().map(|plane| plane.len()))),
                (284, shorts(&[if is_planar { 2 } else { 1 }])),
            ];
            entries.extend(self.more.iter().map(|(tag, values)| (*tag, shorts(values))));
            entries.sort_by_key(|(tag, _)| *tag);
            let mut bytes = if self.is_big_endian { b"MM\0\x2a".to_vec() } else { b"II\x2a\0".to_vec() };
            bytes.extend(long(8));
            bytes.extend(short(entries.len() as u16));
            let values_at = 8 + 2 + 12 * entries.len() + 4;
            let mut values: Vec<u8> = Vec::new();
            for (tag, (kind, count, mut value)) in entries {
                bytes.extend(short(tag));
                bytes.extend(short(kind));
                bytes.extend(long(count));
                if value.len() > 4 {
                    bytes.extend(long((values_at + values.len()) as u32));
                    values.append(&mut value);
                } else {
                    value.resize(4, 0);
                    bytes.append(&mut value);
                }
            }
            bytes.extend(long(0));
            bytes.append(&mut values);
            bytes.resize(data_at, 0);
            self.planes.iter().for_each(|plane| bytes.extend_from_slice(plane));
            bytes
        }
    }

    const PLAIN: Written<'_> = Written {
        size: [1, 1],
        bits: 8,
        samples: 1,
        photometric: 1,
        planes: &[],
        more: &[],
        is_big_endian: false,
    };

    const EXTRA_SAMPLES: u16 = 338;
    const SAMPLE_FORMAT: u16 = 339;
    const COLOR_MAP: u16 = 320;

    fn decoded(bytes: &[u8], background: Option<[u8; 3]>) -> Result<Vec<u8>, Fault> {
        let options = Decode { background, ..Decode::default() };
        let encoded = Encoded { bytes: bytes.to_vec().into() };
        options.apply(encoded, &Seed(0).draws("a", 0, 0)).map(|pixels| pixels.data.into_vec())
    }

    #[track_caller]
    fn check(written: &Written<'_>, expected: &[u8]) {
        let bytes = written.bytes();
        assert_eq!(decoded(&bytes, None).unwrap(), expected);
        for length in [8191, bytes.len() - 1] {
            decoded(&bytes[..length], None).unwrap_err();
        }
    }

    /// A palette of so many bits whose first three colours are given, channel by channel.
    fn palette(bits: u16) -> Vec<u16> {
        let mut map = vec![0; 3 << bits];
        for (channel, levels) in
            [[0, 0xff80, 0x8000], [0x1234, 0x00ff, 0x7fff], [0xffff, 0x0100, 0]].iter().enumerate()
        {
            let n = levels.len().min(1 << bits);
            map[channel << bits..][..n].copy_from_slice(&levels[..n]);
        }
        map
    }

    // What is expected is what Pillow 13.0 makes of the same bytes, but for floats, which it takes as levels, and for
    // gray with associated alpha, which it refuses.

    #[test]
    fn a_tag_of_more_values_than_the_file_has_room_for_is_refused_before_room_is_made() {
        let mut bytes = Written { planes: &[&[7]], ..PLAIN }.bytes();
        let strips =
            (0..9).map(|index| 10 + 12 * index).find(|at| bytes[*at..*at + 2] == 273u16.to_le_bytes());
        let strips = strips.expect("the places of strips");
        for (count, is_fine) in [(1u32, true), (1 << 20, false), (u32::MAX, false)] {
            bytes[strips + 4..strips + 8].copy_from_slice(&count.to_le_bytes());
            let found = decoded(&bytes, None).map_err(|fault| fault.reason);
            match is_fine {
                true => assert_eq!(found, Ok(vec![7; 3])),
                false => assert_eq!(found, Err(format!("broken TIFF: tag 273 has {count} values"))),
            }
        }
    }

    #[test]
    fn palettes_of_every_depth_are_expanded() {
        let expected = [0, 18, 255, 128, 127, 0, 255, 0, 1];
        for (bits, row) in [(8, &[0, 2, 1][..]), (4, &[0x02, 0x10]), (2, &[0b0010_0100])] {
            let map = palette(bits);
            let more: &[(u16, &[u16])] = &[(COLOR_MAP, &map)];
            check(&Written { size: [3, 1], bits, photometric: 3, planes: &[row], more, ..PLAIN }, &expected);
        }
        let map = palette(1);
        let more: &[(u16, &[u16])] = &[(COLOR_MAP, &map)];
        let rows: &[&[u8]] = &[&[0b0100_0000, 0b1010_0000]];
        let two = Written {
            size: [3, 2],
            bits: 1,
            photometric: 3,
            planes: rows,
            more,
            is_big_endian: true,
            ..PLAIN
        };
        let (first, second) = ([0, 18, 255], [255, 0, 1]);
        check(&two, &[first, second, first, second, first, second].concat());
        let map = &palette(8)[..6];
        let more: &[(u16, &[u16])] = &[(COLOR_MAP, map)];
        let short = Written { bits: 8, photometric: 3, planes: &[&[2]], more, ..PLAIN };
        assert_eq!(
            decoded(&short.bytes(), None).unwrap_err().reason,
            "broken TIFF: an index beyond the palette"
        );
    }

    #[test]
    fn gray_of_every_depth_and_with_alpha_is_gray() {
        let gray = |bits, planes| Written { size: [3, 1], bits, planes, ..PLAIN };
        check(&gray(4, &[&[0x02, 0xf0]]), &[0, 0, 0, 34, 34, 34, 255, 255, 255]);
        check(&gray(2, &[&[0b0010_0100]]), &[0, 0, 0, 170, 170, 170, 85, 85, 85]);
        check(&gray(1, &[&[0b0100_0000]]), &[0, 0, 0, 255, 255, 255, 0, 0, 0]);
        let inverse = Written { photometric: 0, ..gray(4, &[&[0x02, 0xf0]]) };
        check(&inverse, &[255, 255, 255, 221, 221, 221, 0, 0, 0]);
        fn alpha<'a>(more: &'a [(u16, &'a [u16])]) -> Written<'a> {
            Written { size: [2, 1], samples: 2, planes: &[&[100, 255, 50, 128]], more, ..PLAIN }
        }
        check(&alpha(&[(EXTRA_SAMPLES, &[2])]), &[100, 100, 100, 50, 50, 50]);
        check(&alpha(&[(EXTRA_SAMPLES, &[0])]), &[100, 100, 100, 50, 50, 50]);
        let straight = alpha(&[(EXTRA_SAMPLES, &[2])]).bytes();
        assert_eq!(decoded(&straight, Some([255; 3])).unwrap(), [100, 100, 100, 152, 152, 152]);
        check(&alpha(&[(EXTRA_SAMPLES, &[1])]), &[100, 100, 100, 99, 99, 99]);
    }

    #[test]
    fn colours_that_were_multiplied_by_alpha_are_divided_by_it() {
        let data: &[&[u8]] = &[&[100, 50, 20, 128, 10, 20, 30, 255, 7, 8, 9, 0, 200, 100, 50, 100]];
        let rgba =
            |kind| Written { size: [4, 1], samples: 4, photometric: 2, planes: data, more: kind, ..PLAIN };
        let associated = rgba(&[(EXTRA_SAMPLES, &[1])]);
        check(&associated, &[199, 99, 39, 10, 20, 30, 0, 0, 0, 255, 255, 127]);
        check(&rgba(&[(EXTRA_SAMPLES, &[2])]), &[100, 50, 20, 10, 20, 30, 7, 8, 9, 200, 100, 50]);
        let on_black = decoded(&associated.bytes(), Some([0; 3])).unwrap();
        assert_eq!(on_black, [100, 50, 20, 10, 20, 30, 0, 0, 0, 100, 100, 50]);
        let deep: Vec<u8> =
            [0x6440u16, 0x3210, 0x1400, 0x8080].into_iter().flat_map(u16::to_le_bytes).collect();
        let more: &[(u16, &[u16])] = &[(EXTRA_SAMPLES, &[1])];
        check(
            &Written { samples: 4, bits: 16, photometric: 2, planes: &[&deep], more, ..PLAIN },
            &[199, 99, 39],
        );
    }

    #[test]
    fn inks_become_light() {
        let data: &[&[u8]] = &[&[0, 0, 0, 0, 255, 0, 128, 0, 10, 100, 200, 77]];
        let inks = Written { size: [3, 1], samples: 4, photometric: 5, planes: data, ..PLAIN };
        check(&inks, &[255, 255, 255, 0, 255, 127, 171, 108, 38]);
        let planes: &[&[u8]] = &[&[0, 10], &[0, 100], &[0, 200], &[0, 77]];
        check(&Written { size: [2, 1], planes, ..inks }, &[255, 255, 255, 171, 108, 38]);
    }

    #[test]
    fn planes_are_put_together() {
        let planes: &[&[u8]] = &[&[1, 2, 3, 4], &[5, 6, 7, 8], &[9, 10, 11, 12]];
        let rgb = Written { size: [2, 2], samples: 3, photometric: 2, planes, ..PLAIN };
        check(&rgb, &[1, 5, 9, 2, 6, 10, 3, 7, 11, 4, 8, 12]);
    }

    #[test]
    fn luma_and_chroma_become_colours() {
        let data: &[&[u8]] = &[&[100, 90, 200, 50, 128, 128]];
        let more: &[(u16, &[u16])] = &[(530, &[1, 1])];
        let whole = Written { size: [2, 1], samples: 3, photometric: 6, planes: data, more, ..PLAIN };
        // 200.9 and 61.6 of the first, which Pillow's tables round down.
        check(&whole, &[201, 62, 33, 50, 50, 50]);
        let fewer = Written { more: &[(530, &[2, 2])], ..whole };
        let reason = decoded(&fewer.bytes(), None).unwrap_err().reason;
        assert!(reason.starts_with("TIFF of a kind that is not supported: "), "{reason}");
    }

    #[test]
    fn floats_are_taken_as_zero_to_one() {
        let floats =
            |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        let data = floats(&[0.5, 7.0]);
        let more: &[(u16, &[u16])] = &[(SAMPLE_FORMAT, &[3])];
        check(
            &Written { size: [2, 1], bits: 32, planes: &[&data], more, ..PLAIN },
            &[128, 128, 128, 255, 255, 255],
        );
        let data = floats(&[0.5, 1.0, 0.2]);
        let more: &[(u16, &[u16])] = &[(SAMPLE_FORMAT, &[3, 3, 3])];
        let rgb = Written { bits: 32, samples: 3, photometric: 2, planes: &[&data], more, ..PLAIN };
        check(&rgb, &[128, 255, 51]);
        let signed = Written { planes: &[&[1]], more: &[(SAMPLE_FORMAT, &[2])], ..PLAIN };
        let reason = decoded(&signed.bytes(), None).unwrap_err().reason;
        assert!(reason.starts_with("TIFF of a kind that is not supported: "), "{reason}");
    }
}
