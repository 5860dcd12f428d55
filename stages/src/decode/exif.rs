//! How an image is to be turned, from whatever holds its EXIF data.

use image::metadata::Orientation;

/// The orientation that EXIF data gives. `Exif\0\0`, with which JPEG introduces the data, is skipped wherever it
/// stands: older Pillow, several cameras and converters write it into WebP and PNG too, some twice.
pub(super) fn orientation(mut data: &[u8]) -> Orientation {
    while let Some(rest) = data.strip_prefix(b"Exif\0\0") {
        data = rest;
    }
    Orientation::from_exif_chunk(data).unwrap_or(Orientation::NoTransforms)
}

/// The bytes of a profile as ImageMagick writes it into text: a line break, its name, its length, then lines of
/// hexadecimal digits. `None` where it is none.
pub(super) fn from_raw_profile(text: &str) -> Option<Vec<u8>> {
    let mut lines = text.trim_start_matches('\n').splitn(3, '\n');
    let (_name, _length, digits) = (lines.next()?, lines.next()?, lines.next()?);
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let value = |digit: u8| (digit as char).to_digit(16).map(|value| value as u8);
    digits.chunks_exact(2).map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_profile_is_its_digits() {
        let text = "\nexif\n      10\n457869660000\n4d4D002A\n";
        assert_eq!(from_raw_profile(text).as_deref(), Some(b"Exif\0\0MM\0*".as_slice()));
        assert_eq!(from_raw_profile("exif"), None);
    }
}
