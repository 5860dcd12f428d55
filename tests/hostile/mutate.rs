//! One seeded mutator for files of any kind: what bytes break readers of lengths, and what words break readers of text.

use std::ops::Range;

use forebay_datasets::seed::{Seed, Stream};

/// Bytes that mean something to most formats: ends, signs, quotes, brackets, an escape.
const BYTES: [u8; 16] =
    [0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff, b'\n', 0x1b, b'"', b'\\', b'{', b'[', b'(', b'.', b' ', b'0'];

/// Numbers at which arithmetic goes wrong.
const NUMBERS: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 38,
    1_000_000_000_000_000_000,
    i64::MAX as u64,
    u64::MAX,
];

/// The same as people and programs write them.
const NUMERALS: [&str; 16] = [
    "0",
    "-1",
    "1e400",
    "-1e308",
    "1e-45",
    "NaN",
    "Infinity",
    "0.5",
    "255",
    "65536",
    "4294967296",
    "274877906944",
    "1000000000000000000",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
];

/// Texts that draw on a terminal, turn the direction of a line, are no text, or are very long.
const TEXTS: [&str; 12] = [
    "",
    "\x1b[2J\x1b[31m",
    "\\u001b[31m",
    "\\u0000",
    "\u{7}",
    "\\n\\r",
    "\u{202e}",
    "\\ud800",
    "../../x",
    "\\u2028",
    "\u{85}",
    "long",
];

/// Draws mutations of the files of one reader.
pub(crate) struct Mutator<'a> {
    draws: Stream,
    originals: &'a [Vec<u8>],
    is_text: bool,
}

impl<'a> Mutator<'a> {
    /// `reader` names what the draws are for, so that a new reader changes no other one's files.
    pub(crate) fn new(reader: &str, originals: &'a [Vec<u8>], is_text: bool) -> Mutator<'a> {
        Mutator { draws: Seed(0).stream(&format!("hostile {reader}")), originals, is_text }
    }

    fn below(&mut self, n: usize) -> usize {
        self.draws.below(n as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A range within `length`, short more often than long.
    fn block(&mut self, length: usize) -> Range<usize> {
        let start = self.below(length + 1);
        let most = [4, 16, 256, length][self.below(4)];
        start..(start + self.below(most.max(1)) + 1).min(length)
    }

    /// The next file, and whether what its format checks about itself (sums, lengths) should be made right again.
    pub(crate) fn next(&mut self) -> (Vec<u8>, bool) {
        let originals = self.originals;
        let mut bytes = originals[self.below(originals.len())].clone();
        for _ in 0..[1, 1, 1, 2, 3, 8][self.below(6)] {
            match self.is_text && self.below(3) > 0 {
                true => self.change_token(&mut bytes),
                false => self.change_bytes(&mut bytes),
            }
        }
        (bytes, self.below(2) == 0)
    }

    fn change_bytes(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            bytes.push(self.draws.bits() as u8);
            return;
        }
        let at = self.below(bytes.len());
        match self.below(10) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.of(&BYTES),
            2 => bytes[at] = self.draws.bits() as u8,
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(self.block(bytes.len()))),
            5 => {
                let block = self.block(bytes.len());
                let copy = bytes[block].repeat([1, 1, 2, 16][self.below(4)]);
                bytes.splice(at..at, copy);
            }
            6 => {
                // Two blocks change places.
                let first = self.block(at);
                let second = at..self.block(bytes.len() - at).end + at;
                let swapped = [&bytes[second.clone()], &bytes[first.end..at], &bytes[first.clone()]].concat();
                bytes.splice(first.start..second.end, swapped);
            }
            7 => {
                // The end of another file, or a part of it, in place of a part of this one.
                let other = &self.originals[self.draws.below(self.originals.len() as u64) as usize];
                let part = self.block(other.len());
                let here = self.block(bytes.len());
                bytes.splice(here, other[part].iter().copied());
            }
            8 => {
                // Whatever stands here is a length.
                let width = [1, 2, 4, 8][self.below(4)];
                let length = bytes.len() as u64;
                let near = [length, length + 1, length.wrapping_sub(at as u64), at as u64];
                let value = if self.below(4) == 0 { self.of(&near) } else { self.of(&NUMBERS) };
                let mut written = value.to_le_bytes()[..width].to_vec();
                if self.below(2) == 0 {
                    written.reverse();
                }
                let end = (at + width).min(bytes.len());
                bytes.splice(at..end, written);
            }
            _ => {
                // The same where lengths have seven bits a byte.
                let mut written = vec![0xff; 1 + self.below(9)];
                written.push(self.of(&[0x01, 0x07, 0x7f]));
                let end = (at + self.of(&[1, written.len()])).min(bytes.len());
                bytes.splice(at..end, written);
            }
        }
    }

    fn change_token(&mut self, bytes: &mut Vec<u8>) {
        let tokens = tokens(bytes);
        if tokens.is_empty() {
            return self.change_bytes(bytes);
        }
        let token = tokens[self.below(tokens.len())].clone();
        match self.below(9) {
            0..=2 => {
                let numerals: Vec<_> =
                    tokens.iter().filter(|token| bytes[token.start].is_ascii_digit()).collect();
                let token = match numerals.is_empty() {
                    true => token,
                    false => numerals[self.below(numerals.len())].clone(),
                };
                let numeral = self.of(&NUMERALS);
                bytes.splice(token, numeral.bytes());
            }
            3 | 4 => {
                let text = self.of(&TEXTS);
                let text = if text == "long" { "a".repeat(1 << self.below(16)) } else { text.to_string() };
                // In place of the token, in quotes or not, or inside of it.
                let written = match self.below(2) {
                    0 => format!("\"{text}\""),
                    _ => text,
                };
                let place = if self.below(2) == 0 { token } else { token.start..token.start };
                bytes.splice(place, written.bytes());
            }
            5 => {
                let (open, close) =
                    self.of(&[("[", "]"), ("{\"a\":", "}"), ("<a>", "</a>"), ("a.", ""), ("(", ")")]);
                let depth = 1 << self.below(15);
                let inner = bytes[token.clone()].to_vec();
                let nested =
                    [open.repeat(depth).into_bytes(), inner, close.repeat(depth).into_bytes()].concat();
                bytes.splice(token, nested);
            }
            6 => drop(bytes.drain(token)),
            7 => {
                let other = tokens[self.below(tokens.len())].clone();
                let other = bytes[other].to_vec();
                bytes.splice(token, other);
            }
            _ => {
                // A part from one token to another, twice.
                let other = tokens[self.below(tokens.len())].clone();
                let part = token.start.min(other.start)..token.end.max(other.end);
                let copy = bytes[part.clone()].to_vec();
                bytes.splice(part.end..part.end, copy);
            }
        }
    }
}

/// Numbers, words and texts in quotes, wherever they stand.
fn tokens(bytes: &[u8]) -> Vec<Range<usize>> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._".contains(byte) || *byte >= 0x80;
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = match rest[0] {
            b'"' => rest[1..].iter().position(|byte| *byte == b'"').map_or(1, |end| end + 2),
            _ => rest.iter().take_while(|byte| is_word(byte)).count(),
        };
        if length > 0 {
            tokens.push(at..at + length);
        }
        at += length.max(1);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_files_and_nearly_none_is_the_original() {
        let originals = [br#"{"a": 1, "b": [2.5, "c"]}"#.to_vec()];
        let files = || {
            let mut mutator = Mutator::new("x", &originals, true);
            (0..500).map(|_| mutator.next()).collect::<Vec<_>>()
        };
        let drawn = files();
        assert_eq!(drawn, files());
        let same = drawn.iter().filter(|(bytes, _)| *bytes == originals[0]).count();
        assert!(same < 50, "{same} of 500 are the original");
        let mut distinct: Vec<_> = drawn.into_iter().map(|(bytes, _)| bytes).collect();
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 400, "{} of 500 are distinct", distinct.len());
    }
}
