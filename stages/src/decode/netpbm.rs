//! The fast path for binary 8-bit PPM, which raw shards hold: a header of a dozen bytes, then the pixels.

use bytes::Bytes;
use forebay_datasets::levels::StoredRows;
use forebay_datasets::sample::{Pixels, SeenPart};

use super::{Limits, fault, rgb_bytes};
use crate::resample::View;
use crate::stage::Fault;

/// A binary PPM of depth 255, the header read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ppm {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Where the first pixel is.
    start: usize,
}

impl Ppm {
    /// Reads `P6`, width, height and 255 between whitespace and `#` comments; `None` for anything else, which
    /// the general decoder then reads or refuses.
    pub(super) fn read(bytes: &[u8]) -> Option<Ppm> {
        let mut rest = bytes.strip_prefix(b"P6")?;
        let mut numbers = [0u32; 3];
        for number in &mut numbers {
            rest = skip_space(rest)?;
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            *number = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
            rest = &rest[digits..];
        }
        let [width, height, 255] = numbers else { return None };
        // Exactly one byte of whitespace: the next one is already a pixel.
        rest.first().filter(|byte| byte.is_ascii_whitespace())?;
        Some(Ppm { width, height, start: bytes.len() - rest.len() + 1 })
    }

    /// The pixels that are seen, in the file. Those that are shown as they are and are a small part of it are copied, since they would
    /// keep all of it. Bytes after them are ignored.
    pub(super) fn decode(
        &self,
        bytes: &Bytes,
        limits: &Limits,
        view: &dyn Fn((u32, u32)) -> Option<View>,
    ) -> Result<Pixels, Fault> {
        let Ppm { width, height, start } = *self;
        limits.check(width, height, rgb_bytes(width, height))?;
        let length = width as usize * height as usize * 3;
        let found = bytes.len() - start;
        if found < length {
            return Err(fault(format_args!("truncated PPM: {found} of {length} bytes of pixels are there")));
        }
        let seen_by = view((width, height));
        let [left, top, across, down] = seen_by.map_or([0, 0, width, height], |view| view.seen());
        let stride = 3 * width as usize;
        let first = start + top as usize * stride + 3 * left as usize;
        let rows = StoredRows::new(bytes.clone(), first, stride, [across, down].map(|side| side as usize));
        let mut pixels = Pixels::stored(rows);
        let is_cut = seen_by.is_some_and(|view| view.is_cut());
        if is_cut && 2 * bytes.len() > 3 * pixels.data.len() {
            pixels.data.settle();
        }
        let part = seen_by.map(|_| SeenPart { left, top, reduced: 1, rows_are_resized: false });
        Ok(Pixels { original: (width, height).into(), part, ..pixels })
    }
}

/// Skips at least one byte of whitespace, and comments up to the ends of their lines.
fn skip_space(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    loop {
        match rest.first()? {
            b'#' => rest = &rest[rest.iter().position(|&byte| byte == b'\n')?..],
            byte if byte.is_ascii_whitespace() => rest = &rest[1..],
            _ if rest.len() < bytes.len() => return Some(rest),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resample::Filter;

    fn check(bytes: &[u8], expected: Option<(u32, u32, usize)>) {
        let found = Ppm::read(bytes).map(|ppm| (ppm.width, ppm.height, ppm.start));
        assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn a_header_is_read_with_comments_and_any_whitespace() {
        check(b"P6\n3 2\n255\nxxx", Some((3, 2, 11)));
        check(b"P6 #a 9\n3\t2\r255 ", Some((3, 2, 16)));
        check(b"P6\n3 2\n65535\n", None);
        check(b"P6\n3 2\n255", None);
        check(b"P6\n3 -2\n255\n", None);
        check(b"P63 2\n255\n", None);
        check(b"P5\n3 2\n255\n", None);
        check(b"P6\n99999999999 2\n255\n", None);
        check(b"P6\n#", None);
    }

    #[test]
    fn a_pixel_that_looks_like_whitespace_stays_a_pixel() {
        let ppm = Ppm::read(b"P6\n1 1\n255\n\n\n\n").unwrap();
        let decoded =
            ppm.decode(&Bytes::from_static(b"P6\n1 1\n255\n\n\n\n"), &Limits::default(), &|_| None).unwrap();
        assert_eq!(*decoded.data, *b"\n\n\n");
    }

    #[test]
    fn what_is_a_small_part_of_a_file_does_not_keep_it() {
        let (header, [width, height]) = (b"P6\n60 50\n255\n".to_vec(), [60, 50]);
        let pixels: Vec<u8> = (0..width * height * 3).map(|at| (at * 7 % 251) as u8).collect();
        let file = Bytes::from([header, pixels.clone()].concat());
        let ppm = Ppm::read(&file).unwrap();
        let whole = Pixels::new(width, height, pixels);
        for (inside, size, is_stored) in [
            ([0, 0, 60, 50], [60, 50], true),
            ([3, 2, 50, 45], [50, 45], true),
            ([3, 2, 50, 35], [50, 35], false),
            // That is resized next, and then let go.
            ([3, 2, 50, 35], [20, 30], true),
        ] {
            for filter in [Filter::Bilinear, Filter::Lanczos3] {
                let view = View::of_part(inside, size, filter);
                let seen = ppm.decode(&file, &Limits::default(), &|_| Some(view)).unwrap();
                assert_eq!(seen.data.stored().is_some(), is_stored, "{inside:?} {size:?}");
                let expected = view.of(whole.clone());
                assert_eq!(view.of(seen.clone()), expected, "{inside:?} {size:?}");
            }
        }
    }
}
