//! Parquet's structures (Thrift's compact protocol), walked before the Parquet crate reads them: it allocates what the
//! length of a list promises, and unpacks a page into as many bytes as its header says.

use super::Unsound;

/// How deep structures may lie in each other; Parquet's own reach 6.
const DEPTH_MAX: usize = 16;

/// The fewest bytes of a structure in a list, on average: a key of one letter has as many.
const STRUCT_BYTES_MIN: usize = 3;

/// The kinds of values of the protocol.
const I32: u8 = 5;
const STRUCT: u8 = 12;

/// The protocol's bytes and how far they are walked.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The number of a field, within the numbers of the fields that it lies in.
type FieldPath = [i16; 2];

impl Walk<'_> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        (length <= self.left()).then(|| self.at += length)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.number()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Walks over a structure. `found` is shown every field of it and of those directly within it: its path, its kind, and
    /// its value where it is a number.
    fn structure(
        &mut self,
        depth: usize,
        outer: Option<i16>,
        found: &mut dyn FnMut(FieldPath, u8, i64),
    ) -> Option<()> {
        let mut id: i16 = 0;
        loop {
            let header = self.byte()?;
            if header == 0 {
                return Some(());
            }
            id = match header >> 4 {
                0 => i16::try_from(self.signed()?).ok()?,
                step => id.checked_add(i16::from(step))?,
            };
            let kind = header & 15;
            let path = outer.map_or([id, 0], |outer| [outer, id]);
            match kind {
                1 | 2 => found(path, kind, i64::from(kind == 1)),
                4..=6 => found(path, kind, self.signed()?),
                STRUCT if depth < DEPTH_MAX => {
                    found(path, kind, 0);
                    let is_outermost = depth == 0;
                    match is_outermost {
                        true => self.structure(depth + 1, Some(id), found)?,
                        false => self.structure(depth + 1, None, &mut |_, _, _| {})?,
                    }
                }
                _ => {
                    found(path, kind, 0);
                    self.value(kind, depth)?;
                }
            }
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            1..=3 => self.skip(1),
            4..=6 => self.number().map(drop),
            7 => self.skip(8),
            8 => {
                let length = self.number()?;
                self.skip(usize::try_from(length).ok()?)
            }
            9 | 10 => {
                let header = self.byte()?;
                let (n, kind) = match header >> 4 {
                    15 => (usize::try_from(self.number()?).ok()?, header & 15),
                    n => (usize::from(n), header & 15),
                };
                let each = if kind == STRUCT { STRUCT_BYTES_MIN } else { 1 };
                if depth >= DEPTH_MAX || n > self.left() / each {
                    return None;
                }
                (0..n).try_for_each(|_| self.value(kind, depth + 1))
            }
            STRUCT if depth < DEPTH_MAX => self.structure(depth + 1, None, &mut |_, _, _| {}),
            // Parquet has no maps.
            _ => None,
        }
    }
}

/// Refuses a structure whose lists hold less than they say, or that lies in itself too deeply.
///
/// # Errors
/// [`Unsound::Odd`].
pub(crate) fn check(bytes: &[u8]) -> Result<(), Unsound> {
    let mut walk = Walk { bytes, at: 0 };
    let whole = walk.structure(1, None, &mut |_, _, _| {});
    whole.ok_or_else(|| Unsound::Odd("what stands about its columns is cut short or damaged".to_string()))
}

/// What the header of a page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub(crate) kind: PageKind,
    /// Once it is unpacked.
    pub(crate) unpacked_bytes: usize,
    /// As it is stored, after the header.
    pub(crate) bytes: usize,
    pub(crate) values: usize,
    /// The number of its encoding.
    pub(crate) encoding: i64,
    /// Of the header itself.
    pub(crate) header_bytes: usize,
}

/// The pages that hold values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageKind {
    Data,
    /// Of the second version, which none of ours is.
    DataV2,
    Dictionary,
}

impl PageHeader {
    /// Reads the header at the start of `bytes`; `None` where it is none, or of a page that holds no values.
    pub(crate) fn read(bytes: &[u8]) -> Option<PageHeader> {
        let mut walk = Walk { bytes, at: 0 };
        // Kind, bytes, stored bytes; values and encoding of a page of data; the same of a dictionary, and of a page of
        // data of the second version.
        const WANTED: [FieldPath; 9] =
            [[1, 0], [2, 0], [3, 0], [5, 1], [5, 2], [7, 1], [7, 2], [8, 1], [8, 4]];
        let mut numbers: [Option<i64>; 9] = [None; 9];
        let mut is_odd = false;
        walk.structure(0, None, &mut |path, kind, value| {
            if let Some(place) = WANTED.iter().position(|wanted| *wanted == path) {
                // A field that is there twice means one thing here and another elsewhere.
                is_odd |= kind != I32 || numbers[place].replace(value).is_some();
            }
            is_odd |= matches!(path, [5 | 7 | 8, 0]) && kind != STRUCT;
            is_odd |= matches!(path, [6, 0]);
        })?;
        let [Some(kind), Some(unpacked), Some(stored), of_kinds @ ..] = numbers else { return None };
        let [data_values, data_encoding, dictionary_values, dictionary_encoding, v2_values, v2_encoding] =
            of_kinds;
        let (kind, values, encoding) = match kind {
            0 => (PageKind::Data, data_values?, data_encoding?),
            2 => (PageKind::Dictionary, dictionary_values?, dictionary_encoding?),
            3 => (PageKind::DataV2, v2_values?, v2_encoding?),
            _ => return None,
        };
        let size = |value: i64| i32::try_from(value).ok().and_then(|value| usize::try_from(value).ok());
        (!is_odd).then_some(())?;
        Some(PageHeader {
            kind,
            unpacked_bytes: size(unpacked)?,
            bytes: size(stored)?,
            values: size(values)?,
            encoding,
            header_bytes: walk.at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind 0, 10 bytes, 8 stored, a structure of 3 values in encoding 0.
    const DATA: &[u8] = &[0x15, 0x00, 0x15, 0x14, 0x15, 0x10, 0x2c, 0x15, 0x06, 0x15, 0x00, 0x00, 0x00];

    #[test]
    fn a_header_is_read_with_its_length() {
        let expected = PageHeader {
            kind: PageKind::Data,
            unpacked_bytes: 10,
            bytes: 8,
            values: 3,
            encoding: 0,
            header_bytes: 13,
        };
        assert_eq!(PageHeader::read(&[DATA, &[1, 2, 3]].concat()), Some(expected));
        for length in 0..DATA.len() {
            assert_eq!(PageHeader::read(&DATA[..length]), None);
        }
        // -1 bytes; a second number of bytes; a page of the second version.
        for (at, bytes) in [(3, &[0x01][..]), (6, &[0x05, 0x04, 0x14]), (6, &[0x5c, 0x00, 0x05, 0x0a])] {
            let mut odd = DATA.to_vec();
            odd.splice(at..at + usize::from(at == 3), bytes.iter().copied());
            assert_eq!(PageHeader::read(&odd), None, "{odd:?}");
        }
    }

    #[test]
    fn a_list_that_promises_more_than_is_there_is_refused_before_anything_is_made_for_it() {
        // Field 1: a list of 2^31 structures.
        let promises = [0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00];
        assert!(check(&promises).is_err());
        assert!(check(&[0x19, 0x1c, 0x15, 0x02, 0x00, 0x00]).is_ok());
        assert!(check(&[0x1c; 40]).is_err(), "structures in structures");
    }
}
