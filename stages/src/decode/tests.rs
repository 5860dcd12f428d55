use std::io::Cursor;

use forebay_datasets::seed::Seed;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

use super::*;

fn decode(bytes: &[u8]) -> Result<Pixels, Fault> {
    decode_with(bytes, &Decode::default())
}

fn decode_with(bytes: &[u8], options: &Decode) -> Result<Pixels, Fault> {
    options.apply(Encoded { bytes: bytes.to_vec().into() }, &Seed(0).draws("a", 0, 0))
}

/// The reason why a file is refused, in one line.
fn refusal(bytes: &[u8]) -> String {
    let fault = decode(bytes).expect_err("the file is refused");
    assert_eq!(fault.stage, "decode");
    assert!(!fault.reason.contains('\n'));
    fault.reason
}

/// A picture with edges in both directions and all colours.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([
            (x * 255 / width) as u8,
            (y * 255 / height) as u8,
            if (x / 8 + y / 8) % 2 == 0 { 60 } else { 180 },
        ])
    })
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn lossless_formats_give_back_every_pixel() {
    let image = picture(19, 13);
    let formats = [
        (ImageFormat::Png, Format::Png),
        (ImageFormat::WebP, Format::WebP),
        (ImageFormat::Bmp, Format::Bmp),
        (ImageFormat::Tiff, Format::Tiff),
        (ImageFormat::Pnm, Format::Pnm),
    ];
    for (written, format) in formats {
        let bytes = encoded(&image.clone().into(), written);
        assert_eq!(probe(&bytes).unwrap(), Header { format, width: 19, height: 13 });
        let pixels = decode(&bytes).unwrap();
        assert_eq!((pixels.width, pixels.height, pixels.original), (19, 13, (19, 13)));
        assert_eq!(pixels.data, *image.as_raw(), "{format}");
    }
}
