//! What is wrong with a file that cannot be decoded.

use forebay_datasets::words;
use serde::Serialize;

use crate::decode::{Format, probe};

/// What is wrong with a file that cannot be decoded, by its bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// It has no bytes.
    Empty,
    /// Its content begins like no image that is read: text, an archive, a format that is not supported.
    NotAnImage,
    /// It begins as an image and ends before that does.
    Truncated,
    /// Its bytes are there and mean no image, or one of a kind or size that is refused.
    Broken,
    /// It could not be read, or is no sample by its name.
    Unreadable,
}
words!(Damage {
    Empty => "empty",
    NotAnImage => "not-an-image",
    Truncated => "truncated",
    Broken => "broken",
    Unreadable => "unreadable",
});

impl Damage {
    /// That of a file which was read and not decoded, with the reason that its decoder gave.
    pub fn of(bytes: &[u8], reason: &str) -> Damage {
        let Ok(format) = Format::of(bytes) else {
            return if bytes.is_empty() { Damage::Empty } else { Damage::NotAnImage };
        };
        // Every decoder here says `truncated` of a file that ends early; a JPEG may also lack nothing but its end.
        let lacks_end = format == Format::Jpeg && probe(bytes).is_ok() && !ends_as_jpeg(bytes);
        if reason.starts_with("truncated") || lacks_end { Damage::Truncated } else { Damage::Broken }
    }

    /// What it is, after a number of files.
    pub fn in_words(self) -> &'static str {
        match self {
            Damage::Empty => "empty",
            Damage::NotAnImage => "no image by content",
            Damage::Truncated => "truncated",
            Damage::Broken => "broken or refused",
            Damage::Unreadable => "not readable",
        }
    }
}

/// Whether the marker of its end is among the last bytes: some writers pad files.
fn ends_as_jpeg(bytes: &[u8]) -> bool {
    let tail = &bytes[bytes.len().saturating_sub(64)..];
    tail.windows(2).any(|two| two == [0xff, 0xd9])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decode;
    use crate::stage::Stage;
    use forebay_datasets::sample::Encoded;
    use forebay_datasets::seed::Seed;

    fn damage(bytes: &[u8]) -> Damage {
        let encoded = Encoded { bytes: bytes.to_vec().into() };
        let fault = Decode::default().apply(encoded, &Seed(0).draws("x", 0, 0)).expect_err("damaged");
        Damage::of(bytes, &fault.reason)
    }

    #[test]
    fn each_damage_is_told_from_the_others() {
        let image = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([(x * 8) as u8, (y * 8) as u8, 9]));
        let encoded = |format| {
            let mut bytes = std::io::Cursor::new(Vec::new());
            image.write_to(&mut bytes, format).expect("it can be encoded");
            bytes.into_inner()
        };
        assert_eq!(damage(b""), Damage::Empty);
        assert_eq!(damage(b"<html>not found</html>"), Damage::NotAnImage);
        for format in [image::ImageFormat::Jpeg, image::ImageFormat::Png, image::ImageFormat::Bmp] {
            let bytes = encoded(format);
            assert_eq!(damage(&bytes[..bytes.len() * 2 / 3]), Damage::Truncated, "{format:?}");
        }
        let mut png = encoded(image::ImageFormat::Png);
        let middle = png.len() / 2;
        png[middle] ^= 0x55;
        assert_eq!(damage(&png), Damage::Broken);
    }
}
