//! Files of every kind, whole and broken, against what they should decode to.

use std::io::Cursor;

use forebay_datasets::seed::Seed;
use image::{DynamicImage, ImageFormat, LumaA, Rgb, RgbImage, Rgba, RgbaImage};
use libjpeg_turbo_rs::{Encoder, PixelFormat, Subsampling};

use super::*;

fn decode(bytes: &[u8]) -> Result<Pixels, Fault> {
    decode_with(bytes, &Decode::default())
}

fn decode_with(bytes: &[u8], options: &Decode) -> Result<Pixels, Fault> {
    options.apply(Encoded { bytes: bytes.to_vec().into() }, &Seed(0).draws("a", 0, 0))
}

/// What the header says of format, width and height.
fn shape(bytes: &[u8]) -> Result<(Format, u32, u32), Fault> {
    probe(bytes).map(|header| (header.format, header.width, header.height))
}

/// The reason why a file is refused, in one line.
#[track_caller]
fn refusal(bytes: &[u8]) -> String {
    let fault = decode(bytes).expect_err("the file is refused");
    assert_eq!(fault.stage, "decode");
    assert!(!fault.reason.contains('\n'));
    fault.reason
}

/// A picture with edges and gradients in both directions and all colours. The fixtures show it too, 67 × 45.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let blue = if (x / 16 + y / 16) % 2 == 0 { 60 } else { 180 };
        Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, blue])
    })
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A JPEG of quality 90 of [`picture`], with chroma in full unless the settings say otherwise.
fn jpeg(width: u32, height: u32, settings: impl for<'a> FnOnce(Encoder<'a>) -> Encoder<'a>) -> Vec<u8> {
    let image = picture(width, height);
    let encoder = Encoder::new(image.as_raw(), width as usize, height as usize, PixelFormat::Rgb);
    settings(encoder.quality(90).subsampling(Subsampling::S444)).encode().unwrap()
}

/// The same with 4:2:0 and a scan for each component, which no encoder here writes: put together of the files of three grey
/// images, which have the tables of luma.
fn one_scan_per_component(width: u32, height: u32) -> Vec<u8> {
    let image = picture(width, height);
    let luma = |&Rgb([r, g, b]): &Rgb<u8>| 0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b);
    let chroma = |channel: usize, scale: f32| {
        let of = move |pixel: &Rgb<u8>| 128.0 + scale * (f32::from(pixel[channel]) - luma(pixel));
        let (across, down) = (width.div_ceil(2), height.div_ceil(2));
        let at = |i: u32| image.get_pixel(i % across * 2, i / across * 2);
        ((across, down), (0..across * down).map(|i| of(at(i)) as u8).collect::<Vec<_>>())
    };
    let luma = ((width, height), image.pixels().map(|pixel| luma(pixel) as u8).collect());
    let grays = [luma, chroma(2, 0.564), chroma(0, 0.713)].map(|((width, height), data): (_, Vec<u8>)| {
        Encoder::new(&data, width as usize, height as usize, PixelFormat::Grayscale)
            .quality(90)
            .encode()
            .unwrap()
    });
    let find = |bytes: &[u8], marker: u8| bytes.windows(2).position(|two| two == [0xff, marker]).unwrap();
    let (frame, tables) = (find(&grays[0], 0xc0), find(&grays[0], 0xc4));
    let (height, width) = ((height as u16).to_be_bytes(), (width as u16).to_be_bytes());
    let size = [height[0], height[1], width[0], width[1]];
    let components = [3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0];
    let mut bytes = [&grays[0][..frame], &[0xff, 0xc0, 0, 17, 8], &size, &components].concat();
    bytes.extend_from_slice(&grays[0][tables..find(&grays[0], 0xda)]);
    for (gray, id) in grays.iter().zip(1..) {
        bytes.extend_from_slice(&[0xff, 0xda, 0, 8, 1, id, 0, 0, 63, 0]);
        bytes.extend_from_slice(&gray[find(gray, 0xda) + 10..gray.len() - 2]);
    }
    [&bytes[..], &[0xff, 0xd9]].concat()
}

/// Mean difference from [`picture`] in grey levels.
fn distance(pixels: &Pixels) -> f64 {
    let picture = picture(pixels.width, pixels.height);
    let differences = pixels.data.iter().zip(picture.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b)));
    differences.sum::<f64>() / pixels.data.len() as f64
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
        let bytes = encoded(image.clone(), written);
        assert_eq!(shape(&bytes), Ok((format, 19, 13)));
        let pixels = decode(&bytes).unwrap();
        assert_eq!((pixels.width, pixels.height, pixels.original.size), (19, 13, (19, 13)));
        assert_eq!(pixels.data, *image.as_raw(), "{format}");
    }
}

#[test]
fn a_gif_gives_its_first_frame() {
    let frame = |level: u8| image::Frame::new(RgbaImage::from_pixel(3, 2, Rgba([level, level, level, 255])));
    let mut bytes = Vec::new();
    image::codecs::gif::GifEncoder::new(&mut bytes).encode_frames([frame(10), frame(200)]).unwrap();
    assert_eq!(shape(&bytes), Ok((Format::Gif, 3, 2)));
    assert_eq!(decode(&bytes).unwrap().data, [10; 18]);
}

#[test]
fn gray_alpha_and_sixteen_bits_become_rgb() {
    let gray = image::GrayImage::from_raw(2, 1, vec![3, 250]).unwrap();
    assert_eq!(decode(&encoded(gray, ImageFormat::Png)).unwrap().data, [3, 3, 3, 250, 250, 250]);

    let deep = image::ImageBuffer::<Rgb<u16>, _>::from_raw(1, 1, vec![0, 32_896, 65_535]).unwrap();
    assert_eq!(decode(&encoded(deep, ImageFormat::Png)).unwrap().data, [0, 128, 255]);

    let deep = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(2, 1, vec![257, 65_406]).unwrap();
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        assert_eq!(decode(&encoded(deep.clone(), format)).unwrap().data, [1, 1, 1, 254, 254, 254]);
    }
}

#[test]
fn alpha_is_dropped_or_composited_on_a_background() {
    let white = Decode { background: Some([255; 3]), ..Decode::default() };
    let image = RgbaImage::from_raw(3, 1, vec![9, 8, 7, 255, 9, 8, 7, 0, 0, 0, 0, 51]).unwrap();
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff] {
        let bytes = encoded(image.clone(), format);
        assert_eq!(decode(&bytes).unwrap().data, [9, 8, 7, 9, 8, 7, 0, 0, 0], "{format:?}");
        let composited = decode_with(&bytes, &white).unwrap().data;
        assert_eq!(composited, [9, 8, 7, 255, 255, 255, 204, 204, 204], "{format:?}");
    }
    let gray = image::ImageBuffer::<LumaA<u8>, _>::from_raw(2, 1, vec![10, 255, 10, 0]).unwrap();
    let bytes = encoded(gray, ImageFormat::Png);
    assert_eq!(decode(&bytes).unwrap().data, [10; 6]);
    assert_eq!(decode_with(&bytes, &white).unwrap().data, [10, 10, 10, 255, 255, 255]);
}

#[test]
fn a_palette_becomes_its_colours() {
    // 2 × 1, two bits per pixel, colours 1 and 2 of three; colour 2 is half transparent.
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_color(::png::ColorType::Indexed);
    encoder.set_depth(::png::BitDepth::Two);
    encoder.set_palette(vec![0, 0, 0, 250, 100, 50, 1, 2, 3]);
    encoder.set_trns(vec![255, 255, 128]);
    encoder.write_header().unwrap().write_image_data(&[0b0110_0000]).unwrap();
    assert_eq!(decode(&bytes).unwrap().data, [250, 100, 50, 1, 2, 3]);
}

#[test]
fn every_size_and_sampling_of_jpeg_shows_its_picture() {
    let samplings =
        [Subsampling::S444, Subsampling::S422, Subsampling::S420, Subsampling::S440, Subsampling::S411];
    for sampling in samplings {
        for (width, height) in [(1, 1), (1, 40), (40, 1), (17, 33), (64, 48), (67, 45)] {
            for (progressive, optimised, restarts) in
                [(false, false, 0), (false, false, 1), (true, false, 0), (false, true, 0), (true, false, 3)]
            {
                let bytes = jpeg(width, height, |encoder| {
                    let encoder = encoder.subsampling(sampling).progressive(progressive);
                    encoder.optimize_huffman(optimised).restart_blocks(restarts)
                });
                let name = format!("{sampling:?} {width}x{height} {progressive} {optimised} {restarts}");
                assert_eq!(shape(&bytes), Ok((Format::Jpeg, width, height)), "{name}");
                let pixels = decode(&bytes).unwrap_or_else(|fault| panic!("{name}: {fault}"));
                // Most is lost with chroma of a quarter of the width; garbage is above 20.
                assert!(distance(&pixels) < 12.0, "{name}: {}", distance(&pixels));
            }
        }
    }
}

#[test]
fn one_scan_per_component_is_not_garbage() {
    // zune-jpeg 0.5 gets these wrong without an error (zune-image#419).
    let bytes = one_scan_per_component(67, 45);
    let scans = bytes.windows(2).filter(|two| two == b"\xff\xda").count();
    assert_eq!(scans, 3);
    assert!(distance(&decode(&bytes).unwrap()) < 4.0);
}

/// Every layout that only libjpeg-turbo-rs reads here, by libjpeg-turbo's own pixels.
#[test]
fn arithmetic_coding_shows_what_huffman_codes_show() {
    for (width, height) in [(1, 1), (17, 33), (67, 45)] {
        for sampling in [Subsampling::S444, Subsampling::S420, Subsampling::S411] {
            for (progressive, restarts) in [(false, 0), (false, 2), (true, 0), (true, 1)] {
                let bytes = jpeg(width, height, |encoder| {
                    encoder
                        .subsampling(sampling)
                        .progressive(progressive)
                        .arithmetic(true)
                        .restart_blocks(restarts)
                });
                let pixels =
                    decode(&bytes).unwrap_or_else(|fault| panic!("{width}x{height} {sampling:?}: {fault}"));
                assert!(distance(&pixels) < 12.0, "{width}x{height} {sampling:?}: {}", distance(&pixels));
            }
        }
    }
}

/// Files of layouts that no encoder here writes; made with cjpeg 2.1.5, and edited where they are out of order.
macro_rules! fixture {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../../tests/fixtures/", $name, ".jpg")).as_slice())
    };
}

#[test]
fn rare_layouts_of_jpeg_show_their_picture() {
    let files = [
        fixture!("chroma-larger-than-luma"),
        fixture!("chroma-larger-progressive"),
        fixture!("sampling-3x1"),
        fixture!("sampling-uneven"),
        fixture!("one-scan-per-component"),
        fixture!("luma-then-chroma"),
        fixture!("progressive-refined"),
        fixture!("restarts"),
        fixture!("jfif-and-adobe-0"),
        fixture!("adobe-2"),
        fixture!("jfif-and-rgb-ids"),
        fixture!("rgb"),
        fixture!("cmyk-adobe"),
        fixture!("ycck-adobe"),
        fixture!("stray-bytes"),
        fixture!("arithmetic"),
        fixture!("sampling-uneven-in-scans"),
    ];
    for (name, bytes) in files {
        assert_eq!(shape(bytes), Ok((Format::Jpeg, 67, 45)), "{name}");
        let pixels = decode(bytes).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        // Pillow's own distances are 0.3 to 4.3; garbage is above 20.
        assert!(distance(&pixels) < 5.0, "{name}: {}", distance(&pixels));
    }
}

#[test]
fn a_jpeg_that_no_decoder_gets_right_is_refused() {
    let plain = jpeg(67, 45, |encoder| encoder);
    let frame = plain.windows(2).position(|two| two == b"\xff\xc0").unwrap();
    let edited = |at: usize, value: u8| {
        let mut bytes = plain.clone();
        bytes[frame + at] = value;
        bytes
    };
    let files = [
        (fixture!("restart-missing").1.to_vec(), "broken JPEG: a restart marker is missing or out of order"),
        (edited(1, 0xc3), "lossless or hierarchical JPEG is not supported"),
        (edited(4, 12), "JPEG of 12 bits is not supported, only of 8"),
        (edited(6, 0), "JPEG with its height after the first scan (DNL) is not supported"),
        (edited(8, 0), "broken JPEG: its width is 0"),
        (edited(9, 2), "JPEG with 2 components is not supported"),
        (edited(11, 0x05), "broken JPEG: a sampling factor is not 1 to 4"),
    ];
    for (bytes, reason) in files {
        assert_eq!(refusal(&bytes), reason);
    }
}

#[test]
fn a_jpeg_with_more_or_fewer_restart_markers_than_it_says_is_refused() {
    for progressive in [false, true] {
        let good = jpeg(160, 120, |encoder| encoder.restart_blocks(2).progressive(progressive));
        assert!(decode(&good).is_ok());
        let at = good.windows(2).position(|two| two == b"\xff\xdd").expect("it has restarts");
        let without = [&good[..at], &good[at + 6..]].concat();
        let with = |interval: u8| [&good[..at + 5], &[interval], &good[at + 6..]].concat();
        // One more after the last interval is none too many, also where there is but one.
        for (interval, marker) in [(2, (150_u16 - 1) % 8), (300, 0)] {
            let whole = jpeg(160, 120, |encoder| encoder.restart_blocks(interval).progressive(progressive));
            let end = whole.len() - 2;
            // The last scan of a progressive file is one of single blocks, of which there are as many here.
            let one_more = [&whole[..end], &[0xff, 0xd0 + marker as u8], &whole[end..]].concat();
            assert!(decode(&one_more) == decode(&whole), "progressive: {progressive}, {interval}");
            let other = Decode { decoder: Decoder::Image, ..Decode::default() };
            assert!(progressive || decode_with(&one_more, &other).is_ok(), "{interval}");
        }
        // One too many that is not at the end.
        assert!(refusal(&with(3)).contains("restart"));
        for bytes in [without, with(1), with(3), with(200)] {
            let reason = refusal(&bytes);
            assert!(reason.contains("restart marker") || reason.contains("truncated"), "{reason}");
        }
    }
}

#[test]
fn a_truncated_jpeg_is_refused_wherever_it_is_cut() {
    let files = [
        jpeg(160, 120, |encoder| encoder),
        jpeg(160, 120, |encoder| encoder.progressive(true)),
        one_scan_per_component(160, 120),
        jpeg(160, 120, |encoder| encoder.restart_blocks(7)),
        jpeg(32, 32, |encoder| encoder.subsampling(Subsampling::S420)),
        fixture!("cmyk-adobe").1.to_vec(),
        fixture!("sampling-uneven-in-scans").1.to_vec(),
        jpeg(160, 120, |encoder| encoder.arithmetic(true)),
        jpeg(160, 120, |encoder| encoder.arithmetic(true).progressive(true)),
    ];
    for bytes in files {
        let per_cent = [1, 10, 30, 50, 75, 90, 95, 99].map(|share| bytes.len() * share / 100);
        // The end marker is two bytes; two more are the last of the image.
        let last = [3, 4, 5, 8, 16].map(|n| bytes.len() - n);
        for length in per_cent.into_iter().chain(last) {
            let reason = refusal(&bytes[..length]);
            assert!(reason.starts_with("truncated JPEG: "), "{length} of {}: {reason}", bytes.len());
        }
    }
}

#[test]
fn a_jpeg_without_its_end_marker_or_with_bytes_after_it_is_whole() {
    let files = [
        jpeg(160, 120, |encoder| encoder),
        jpeg(160, 120, |encoder| encoder.progressive(true)),
        one_scan_per_component(160, 120),
        jpeg(160, 120, |encoder| encoder.restart_blocks(7)),
        fixture!("cmyk-adobe").1.to_vec(),
        fixture!("sampling-uneven-in-scans").1.to_vec(),
    ];
    for bytes in files {
        let whole = decode(&bytes).unwrap();
        assert_eq!(decode(&bytes[..bytes.len() - 1]).as_ref(), Ok(&whole));
        assert_eq!(decode(&bytes[..bytes.len() - 2]).as_ref(), Ok(&whole));
        assert_eq!(decode(&[&bytes[..], &[0; 1000]].concat()).as_ref(), Ok(&whole));
        assert_eq!(decode(&[&bytes[..], b"trailing"].concat()).as_ref(), Ok(&whole));
        assert_eq!(decode(&[&bytes[..], &bytes[..]].concat()).as_ref(), Ok(&whole));
    }
}

/// A TIFF structure that holds nothing but an orientation.
fn exif(orientation: u8) -> Vec<u8> {
    [b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".as_slice(), &[orientation], &[0; 6]].concat()
}

#[test]
fn the_orientation_is_applied_in_every_format_that_has_one() {
    // Wider than high, black but for the top left corner, in blocks that JPEG and its chroma leave sharp.
    let image = RgbImage::from_fn(48, 32, |x, y| Rgb(if x < 16 && y < 16 { [255; 3] } else { [0; 3] }));
    // Where the white corner is after orientation n: (right, bottom).
    let corners = [
        (1, false, false),
        (2, true, false),
        (3, true, true),
        (4, false, true),
        (5, false, false),
        (6, true, false),
        (7, true, true),
        (8, false, true),
        (9, false, false),
    ];
    for (orientation, right, bottom) in corners {
        let tags = exif(orientation);
        let encoder = Encoder::new(image.as_raw(), 48, 32, PixelFormat::Rgb).quality(90);
        let jpeg = encoder.exif_data(&tags).encode().unwrap();

        let mut with_chunk = Vec::new();
        let mut info = ::png::Info::with_size(48, 32);
        info.color_type = ::png::ColorType::Rgb;
        info.exif_metadata = Some(exif(orientation).into());
        let encoder = ::png::Encoder::with_info(&mut with_chunk, info).unwrap();
        encoder.write_header().unwrap().write_image_data(image.as_raw()).unwrap();

        let mut webp = Vec::new();
        let mut encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut webp);
        image::ImageEncoder::set_exif_metadata(&mut encoder, exif(orientation)).unwrap();
        encoder.encode(image.as_raw(), 48, 32, image::ExtendedColorType::Rgb8).unwrap();

        for (name, bytes) in [("JPEG", jpeg), ("PNG", with_chunk), ("WebP", webp)] {
            let (width, height) = if (5..=8).contains(&orientation) { (32, 48) } else { (48, 32) };
            let header = probe(&bytes).unwrap();
            assert_eq!((header.width, header.height), (width, height), "{name} {orientation}");
            let pixels = decode(&bytes).unwrap();
            assert_eq!((pixels.width, pixels.height), (width, height), "{name} {orientation}");
            assert_eq!(pixels.original.size, (width, height), "{name} {orientation}");
            for (is_right, is_bottom) in [(false, false), (true, false), (false, true), (true, true)] {
                let x = if is_right { width - 3 } else { 2 };
                let y = if is_bottom { height - 3 } else { 2 };
                let is_white = pixels.data[((y * width + x) * 3) as usize] > 128;
                assert_eq!(is_white, (is_right, is_bottom) == (right, bottom), "{name} {orientation}");
            }
        }
    }
}

/// A chunk of PNG with its length and checksum.
fn png_chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let named = [name.as_slice(), data].concat();
    [&(data.len() as u32).to_be_bytes(), &named[..], &crc32(&named).to_be_bytes()].concat()
}

#[test]
fn an_orientation_is_found_behind_a_prefix_and_in_a_text() {
    // Wider than high, so that turning shows in the size. Pillow 13.0 turns all of these.
    let plain = exif(6);
    let prefixed = [b"Exif\0\0".as_slice(), &plain].concat();

    let mut webp = Vec::new();
    let mut encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut webp);
    image::ImageEncoder::set_exif_metadata(&mut encoder, prefixed.clone()).unwrap();
    encoder.encode(picture(6, 4).as_raw(), 6, 4, image::ExtendedColorType::Rgb8).unwrap();
    assert_eq!(shape(&webp), Ok((Format::WebP, 4, 6)));
    assert_eq!(decode(&webp).unwrap().width, 4);

    let digits: String = prefixed.iter().map(|byte| format!("{byte:02x}")).collect();
    let profile = format!("\nexif\n{:8}\n{}\n{}\n", prefixed.len(), &digits[..20], &digits[20..]);
    // Stored, not compressed: a zlib stream of one block.
    let (length, sum) = (profile.len() as u16, adler32(profile.as_bytes()));
    let stored = [
        &[0x78, 0x01, 0x01],
        &length.to_le_bytes()[..],
        &(!length).to_le_bytes(),
        profile.as_bytes(),
        &sum.to_be_bytes(),
    ]
    .concat();
    let keyword = b"Raw profile type exif\0".as_slice();
    let chunks = [
        png_chunk(b"eXIf", &plain),
        png_chunk(b"eXIf", &prefixed),
        png_chunk(b"tEXt", &[keyword, profile.as_bytes()].concat()),
        png_chunk(b"zTXt", &[keyword, &[0], &stored].concat()),
    ];
    let file = encoded(picture(6, 4), ImageFormat::Png);
    let end = file.len() - 12;
    for chunk in chunks {
        // Before the image, and after it.
        for at in [33, end] {
            let bytes = [&file[..at], &chunk, &file[at..]].concat();
            assert_eq!(shape(&bytes), Ok((Format::Png, 4, 6)), "{:?} at {at}", &chunk[4..8]);
            assert_eq!(decode(&bytes).unwrap().width, 4);
        }
    }
}

/// The checksum of zlib.
fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

#[test]
fn an_interlaced_png_of_sixteen_bits_with_alpha_is_read() {
    // 2 × 2, Adam7: passes of one pixel, one pixel, and a row of two; made with zlib's stored block.
    let row = |pixels: &[[u16; 4]]| -> Vec<u8> {
        std::iter::once(0).chain(pixels.iter().flatten().flat_map(|sample| sample.to_be_bytes())).collect()
    };
    let pixel = |level: u16| [level * 257, 65_535, 0, 32_768];
    let data = [row(&[pixel(10)]), row(&[pixel(20)]), row(&[pixel(30), pixel(40)])].concat();
    let (length, sum) = (data.len() as u16, adler32(&data));
    let stored =
        [&[0x78, 0x01, 0x01], &length.to_le_bytes()[..], &(!length).to_le_bytes(), &data, &sum.to_be_bytes()]
            .concat();
    let header = [0, 0, 0, 2, 0, 0, 0, 2, 16, 6, 0, 0, 1];
    let bytes = [
        b"\x89PNG\r\n\x1a\n".as_slice(),
        &png_chunk(b"IHDR", &header),
        &png_chunk(b"IDAT", &stored),
        &png_chunk(b"IEND", &[]),
    ]
    .concat();
    let pixels = decode(&bytes).unwrap();
    assert_eq!(pixels.data, [10, 255, 0, 20, 255, 0, 30, 255, 0, 40, 255, 0]);
    assert!(probe(&bytes).unwrap().decode_bytes >= 4 * (8 + 3));
}

#[test]
fn what_is_no_image_is_named() {
    let known = "and JPEG, PNG, WebP, GIF, BMP, TIFF and PNM are";
    let files: [(&[u8], String); 9] = [
        (b"", "not an image: the file is empty".into()),
        (b"x", "not an image: the content begins like no known image format".into()),
        (&[0; 5000], "not an image: the content begins like no known image format".into()),
        (b"\n<!DOCTYPE html><p>404", format!("not an image that can be read: the content is HTML, {known}")),
        (
            b"<?xml version='1.0'?><Error/>",
            format!("not an image that can be read: the content is XML, {known}"),
        ),
        (b"{\"error\": 403}", format!("not an image that can be read: the content is JSON, {known}")),
        (b"qoif\0\0", format!("not an image that can be read: the content is qoi, {known}")),
        (
            b"\0\0\0\x18ftypheic",
            format!("not an image that can be read: the content is HEIC or a video, {known}"),
        ),
        (b"\xff\xd8\xff", "truncated JPEG: the file ends in its headers".into()),
    ];
    for (bytes, reason) in files {
        assert_eq!(refusal(bytes), reason);
        assert_eq!(probe(bytes).unwrap_err().reason, reason);
    }
    for magic in [b"\x89PNG\r\n\x1a\n".as_slice(), b"GIF89a", b"RIFF\0\0\0\0WEBP", b"BM", b"II*\0", b"P6"] {
        refusal(magic);
        probe(magic).unwrap_err();
    }
}

#[test]
fn other_formats_cut_short_are_refused() {
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Pnm]
    {
        let bytes = encoded(picture(60, 40), format);
        for share in [30, 50, 90, 99] {
            let reason = refusal(&bytes[..bytes.len() * share / 100]);
            assert!(reason.starts_with("truncated") || reason.starts_with("broken"), "{format:?}: {reason}");
        }
    }
    let raw = b"P6\n4 4\n255\nabc";
    assert_eq!(refusal(raw), "truncated PPM: 3 of 48 bytes of pixels are there");
}

#[test]
fn a_kind_of_tiff_that_is_not_supported_is_not_called_broken() {
    let mut bytes = encoded(image::GrayImage::new(4, 4), ImageFormat::Tiff);
    // PhotometricInterpretation, one short, becomes 8: CIELab.
    let tag = bytes.windows(8).position(|eight| eight == [6, 1, 3, 0, 1, 0, 0, 0]).unwrap();
    bytes[tag + 8] = 8;
    let reason = refusal(&bytes);
    assert!(reason.starts_with("TIFF of a kind that is not supported: "), "{reason}");
}

#[test]
fn a_png_with_a_wrong_checksum_is_refused() {
    let mut bytes = encoded(picture(20, 20), ImageFormat::Png);
    let data = bytes.windows(4).position(|four| four == b"IDAT").unwrap();
    bytes[data + 40] ^= 1;
    let reason = refusal(&bytes);
    assert!(reason.starts_with("broken PNG: "), "{reason}");
}

#[test]
fn too_large_an_image_is_refused_by_its_header() {
    let mut bytes = jpeg(8, 8, |encoder| encoder);
    let frame = bytes.windows(2).position(|two| two == b"\xff\xc0").unwrap();
    bytes[frame + 5..frame + 9].fill(0xff);
    assert_eq!(refusal(&bytes), "65535x65535 pixels are more than decode.max_side 16384");
    let header = probe(&bytes).unwrap();
    assert_eq!((header.width, header.height), (65_535, 65_535));

    // A header of 30,000 × 30,000 in a PNG of a few dozen bytes.
    let mut bytes = encoded(picture(1, 1), ImageFormat::Png);
    bytes[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]);
    let checksum = crc32(&bytes[12..29]).to_be_bytes();
    bytes[29..33].copy_from_slice(&checksum);
    assert_eq!(refusal(&bytes), "30000x30000 pixels are more than decode.max_side 16384");
    // Sides whose product, three bytes a pixel, no 64 bits hold.
    bytes[16..24].fill(0xff);
    let checksum = crc32(&bytes[12..29]).to_be_bytes();
    bytes[29..33].copy_from_slice(&checksum);
    assert_eq!(refusal(&bytes), "4294967295x4294967295 pixels are more than decode.max_side 16384");
    assert_eq!(
        refusal(b"P6\n4294967295 4294967295\n255\n"),
        "4294967295x4294967295 pixels are more than decode.max_side 16384"
    );

    assert_eq!(refusal(b"P6\n20000 2\n255\n"), "20000x2 pixels are more than decode.max_side 16384");
    let reason = "16000x16000 pixels take 768000000 bytes to decode, more than decode.max_bytes 268435456";
    assert_eq!(refusal(b"P6\n16000 16000\n255\n"), reason);

    let small = Limits { side_px_max: 10, memory_bytes_max: 200 };
    let small = Decode { limits: small, ..Decode::default() };
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP, ImageFormat::Tiff, ImageFormat::Pnm]
    {
        let reason = decode_with(&encoded(picture(11, 2), format), &small).unwrap_err().reason;
        assert_eq!(reason, "11x2 pixels are more than decode.max_side 10", "{format:?}");
        let bytes = encoded(picture(10, 7), format);
        let held = probe(&bytes).unwrap().decode_bytes;
        assert!(held >= 210, "{format:?}: {held}");
        let reason = decode_with(&bytes, &small).unwrap_err().reason;
        let expected = format!("10x7 pixels take {held} bytes to decode, more than decode.max_bytes 200");
        assert_eq!(reason, expected, "{format:?}");
    }
}

/// The checksum of PNG, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

#[test]
fn a_flipped_bit_never_panics_out_of_the_stage() {
    let sources = [
        jpeg(40, 30, |encoder| encoder),
        jpeg(40, 30, |encoder| encoder.progressive(true)),
        one_scan_per_component(40, 30),
        encoded(picture(40, 30), ImageFormat::Png),
        encoded(picture(40, 30), ImageFormat::WebP),
        encoded(picture(40, 30), ImageFormat::Tiff),
        encoded(picture(40, 30), ImageFormat::Bmp),
    ];
    let mut stream = Seed(11).stream("flips");
    let mut refused = 0;
    for source in &sources {
        for _ in 0..200 {
            let mut bytes = source.clone();
            for _ in 0..3 {
                let at = stream.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << stream.below(8);
            }
            if let Err(fault) = decode(&bytes) {
                refused += 1;
                assert!(!fault.reason.contains('\n') && !fault.reason.is_empty());
            }
        }
    }
    assert!(refused > 300, "{refused}");
}
