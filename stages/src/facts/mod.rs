//! What one file and its picture are like, beside what they show: facts about an image that a user would want to know
//! before training on thousands of its kind.
//!
//! [`FileFacts`] come from the bytes, [`PixelFacts`] from the decoded pixels; both are small, so that those of a whole
//! source can be held. What of it stands out is a [`Flaw`], by thresholds with a published origin that flag none of 512
//! ImageNet photos.

mod damage;
mod flaw;
mod pixels;
mod quality;

use forebay_datasets::sample::Fault;

use crate::decode::{Format, StoredColor, probe};

pub use damage::Damage;
pub use flaw::{Flaw, crop_loss};
pub use pixels::PixelFacts;
pub use quality::jpeg_quality;

/// What a file says of itself before any pixel is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// How large it is.
    pub bytes: u64,
    /// By content.
    pub format: Format,
    /// The colours that it stores.
    pub color: StoredColor,
    /// Columns as displayed.
    pub width: u32,
    /// Rows as displayed.
    pub height: u32,
    /// Whether its EXIF data turn or mirror it.
    pub is_turned: bool,
    /// Of a JPEG file, as [`jpeg_quality`] estimates it.
    pub jpeg_quality: Option<u8>,
}

impl FileFacts {
    /// Reads the headers of a file.
    ///
    /// # Errors
    /// As [`probe`].
    pub fn of(bytes: &[u8]) -> Result<FileFacts, Fault> {
        let header = probe(bytes)?;
        let jpeg_quality = (header.format == Format::Jpeg).then(|| jpeg_quality(bytes)).flatten();
        Ok(FileFacts {
            bytes: bytes.len() as u64,
            format: header.format,
            color: header.color,
            width: header.width,
            height: header.height,
            is_turned: header.is_turned,
            jpeg_quality,
        })
    }
}

/// The format that the extension of a name promises, in any case; `None` where it promises none.
pub fn promised_format(name: &str) -> Option<Format> {
    let (_, extension) = name.rsplit_once('.')?;
    match extension.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" | "jpe" | "jfif" => Some(Format::Jpeg),
        "png" | "apng" => Some(Format::Png),
        "webp" => Some(Format::WebP),
        "gif" => Some(Format::Gif),
        "bmp" | "dib" => Some(Format::Bmp),
        "tif" | "tiff" => Some(Format::Tiff),
        "pnm" | "pbm" | "pgm" | "ppm" | "pam" => Some(Format::Pnm),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::ColorModel;

    #[test]
    fn an_extension_promises_a_format_in_any_case_and_others_promise_none() {
        for (name, format) in [
            ("a/b.JPeG", Some(Format::Jpeg)),
            ("b.jfif", Some(Format::Jpeg)),
            ("x.y.tif", Some(Format::Tiff)),
            ("a.png/b", None),
            ("a.jpg.bak", None),
            ("noname", None),
        ] {
            assert_eq!(promised_format(name), format, "{name}");
        }
    }

    #[test]
    fn the_colours_of_a_file_are_those_that_it_stores() {
        let encoded = |image: image::DynamicImage, format| {
            let mut bytes = std::io::Cursor::new(Vec::new());
            image.write_to(&mut bytes, format).expect("it can be encoded");
            let facts = FileFacts::of(&bytes.into_inner()).expect("a header");
            assert_eq!((facts.width, facts.height, facts.is_turned), (5, 3, false));
            facts.color.to_string()
        };
        use image::{DynamicImage as Image, ImageFormat};
        assert_eq!(encoded(Image::new_luma8(5, 3), ImageFormat::Png), "gray");
        assert_eq!(encoded(Image::new_luma_a8(5, 3), ImageFormat::Png), "gray with alpha");
        assert_eq!(encoded(Image::new_rgb16(5, 3), ImageFormat::Png), "RGB, 16 bit");
        assert_eq!(encoded(Image::new_rgba8(5, 3), ImageFormat::Png), "RGB with alpha");
        assert_eq!(encoded(Image::new_luma8(5, 3), ImageFormat::Jpeg), "gray");
        assert_eq!(encoded(Image::new_rgb8(5, 3), ImageFormat::Bmp), "RGB");
        assert_eq!(encoded(Image::new_rgba8(5, 3), ImageFormat::Gif), "palette");
        assert_eq!(encoded(Image::new_rgb8(5, 3), ImageFormat::Tiff), "RGB");
        assert_eq!(encoded(Image::new_rgba8(5, 3), ImageFormat::WebP), "RGB with alpha");
        assert_eq!(encoded(Image::new_luma8(5, 3), ImageFormat::Pnm), "gray");
        let cmyk = include_bytes!("../../../tests/fixtures/cmyk-adobe.jpg");
        assert_eq!(FileFacts::of(cmyk).expect("a header").color.model, ColorModel::Cmyk);
    }
}
