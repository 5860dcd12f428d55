//! Small whole files of every kind that a reader takes, which mutations begin with.

use std::io::Cursor;

use bytes::Bytes;
use forebay::predictions::Predictions;
use forebay_datasets::sample::Split;
use forebay_datasets::shard::{Footer, Reject, Row, encode};
use forebay_train::FileDescription;
use forebay_train::models::Head;
use image::{DynamicImage, ImageFormat, RgbImage, RgbaImage};
use libjpeg_turbo_rs::{Encoder, PixelFormat, Subsampling};
use safetensors::tensor::{Dtype, TensorView};

fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 9) as u8, (y * 7) as u8, (x * y) as u8]))
}

fn see_through(width: u32, height: u32) -> RgbaImage {
    RgbaImage::from_fn(width, height, |x, y| {
        image::Rgba([(x * 9) as u8, (y * 7) as u8, 128, ((x + y) * 5) as u8])
    })
}

pub(super) fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).expect("it can be written");
    bytes.into_inner()
}

/// EXIF data that turns the image, after the start of `jpeg`.
fn turned(mut jpeg: Vec<u8>) -> Vec<u8> {
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let segment = [&[0xff, 0xe1][..], &(exif.len() as u16 + 2).to_be_bytes(), exif].concat();
    jpeg.splice(2..2, segment);
    jpeg
}

/// Baseline, progressive, arithmetic and with restarts, gray and of four inks, of several samplings, and such as one of the
/// three decoders only gets right.
pub(super) fn jpegs() -> Vec<Vec<u8>> {
    let jpeg = |format: PixelFormat, data: &[u8], settings: &dyn for<'a> Fn(Encoder<'a>) -> Encoder<'a>| {
        let encoder = Encoder::new(data, 40, 24, format).quality(80).subsampling(Subsampling::S420);
        settings(encoder).encode().expect("it can be written")
    };
    let rgb = picture(40, 24).into_raw();
    let gray = image::imageops::grayscale(&picture(40, 24)).into_raw();
    let inks = see_through(40, 24).into_raw();
    let mut files = vec![
        jpeg(PixelFormat::Rgb, &rgb, &|encoder| encoder),
        jpeg(PixelFormat::Rgb, &rgb, &|encoder| encoder.subsampling(Subsampling::S411)),
        jpeg(PixelFormat::Rgb, &rgb, &|encoder| encoder.progressive(true)),
        jpeg(PixelFormat::Rgb, &rgb, &|encoder| encoder.restart_blocks(2)),
        jpeg(PixelFormat::Rgb, &rgb, &|encoder| encoder.arithmetic(true)),
        jpeg(PixelFormat::Rgb, &rgb, &|encoder| encoder.arithmetic(true).progressive(true)),
        jpeg(PixelFormat::Grayscale, &gray, &|encoder| encoder),
        jpeg(PixelFormat::Cmyk, &inks, &|encoder| encoder.subsampling(Subsampling::S444)),
    ];
    files.push(turned(files[0].clone()));
    // Bytes that belong to no segment send a file to the other decoder.
    let mut stray = files[0].clone();
    stray.splice(20..20, [1, 2, 3]);
    files.push(stray);
    // The luma component no longer has the most samples.
    let mut odd = files[1].clone();
    let frame = odd.windows(2).position(|two| two == [0xff, 0xc0]).expect("a frame");
    odd.swap(frame + 11, frame + 14);
    files.push(odd);
    files
}

pub(super) fn pngs() -> Vec<Vec<u8>> {
    let mut files = vec![
        encoded(picture(24, 16), ImageFormat::Png),
        encoded(see_through(24, 16), ImageFormat::Png),
        encoded(DynamicImage::from(see_through(24, 16)).into_rgba16(), ImageFormat::Png),
    ];
    let written = |set: &dyn Fn(&mut png::Encoder<'_, &mut Vec<u8>>), data: &[u8]| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 16, 8);
        set(&mut encoder);
        let mut writer = encoder.write_header().expect("a header");
        writer.write_image_data(data).expect("as many bytes");
        writer.finish().expect("an end");
        bytes
    };
    files.push(written(
        &|encoder| {
            encoder.set_color(png::ColorType::Indexed);
            encoder.set_depth(png::BitDepth::Four);
            encoder.set_palette((0..48).collect::<Vec<u8>>());
            encoder.set_trns(vec![0, 128, 255]);
            encoder
                .add_ztxt_chunk("Raw profile type exif".into(), "\nexif\n 4\n4d4d002a".into())
                .expect("text");
        },
        &[0x12; 64],
    ));
    files
}

pub(super) fn tiffs() -> Vec<Vec<u8>> {
    let gray16 = DynamicImage::from(picture(16, 12)).into_luma16();
    vec![
        encoded(picture(16, 12), ImageFormat::Tiff),
        encoded(see_through(16, 12), ImageFormat::Tiff),
        encoded(gray16, ImageFormat::Tiff),
        palette_tiff(),
    ]
}

/// A palette image of one strip: another path than that of all others.
fn palette_tiff() -> Vec<u8> {
    let entries: [(u16, u16, u32, u32); 9] = [
        (256, 3, 1, 4),
        (257, 3, 1, 4),
        (258, 3, 1, 4),
        (259, 3, 1, 1),
        (262, 3, 1, 3),
        (273, 4, 1, 218),
        (278, 3, 1, 4),
        (279, 4, 1, 8),
        (320, 3, 48, 122),
    ];
    let mut bytes = b"II\x2a\0\x08\0\0\0\x09\0".to_vec();
    for (tag, kind, count, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend((0..48u16).flat_map(|level| (level * 999).to_le_bytes()));
    bytes.extend([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0]);
    bytes
}

pub(super) fn pnms() -> Vec<Vec<u8>> {
    vec![
        encoded(picture(16, 12), ImageFormat::Pnm),
        b"P5 # gray\n4 3\n255\n0123456789ab".to_vec(),
        b"P3 2 2 255\n1 2 3 4 5 6 7 8 9 10 11 12\n".to_vec(),
        b"P4\n9 2\n\xaa\x80\x55\x00".to_vec(),
        b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n0123456789abcdef".to_vec(),
    ]
}

pub(super) fn webps() -> Vec<Vec<u8>> {
    vec![encoded(picture(24, 16), ImageFormat::WebP), encoded(see_through(24, 16), ImageFormat::WebP)]
}

pub(super) fn gifs() -> Vec<Vec<u8>> {
    vec![encoded(picture(16, 12), ImageFormat::Gif), encoded(see_through(16, 12), ImageFormat::Gif)]
}

pub(super) fn bmps() -> Vec<Vec<u8>> {
    vec![encoded(picture(16, 12), ImageFormat::Bmp), encoded(see_through(16, 12), ImageFormat::Bmp)]
}

/// A shard of two groups whose images are of several sizes, after a group without a row.
pub(super) fn shard() -> Bytes {
    let row = |index: usize, bytes: usize| Row {
        bytes: vec![index as u8; bytes].into(),
        label: (index % 2) as u32,
        id: format!("chat/{index:04}.jpeg").into(),
        copy: (index % 3) as u32,
        size: (4, 5),
        original_size: (40, 50),
        extension: "jpg",
        provenance: Default::default(),
    };
    let footer = Footer {
        fingerprint: "f".repeat(64),
        holes: vec![1],
        rejects: vec![Reject { id: "x".into(), stage: "decode".into(), reason: "bad".into() }],
        ..Footer::of(Split::Train, 0)
    };
    let groups = vec![(0..5).map(|i| row(i, 20 + 7 * i)).collect(), vec![], vec![row(6, 300), row(7, 1)]];
    encode(&["chat".to_string(), "naïve".to_string()], groups, footer).expect("it can be written").0
}

/// What a model said of a few samples of two splits, one of them without a label.
pub(super) fn predictions() -> Bytes {
    let mut predictions = Predictions::new(vec!["chat".into(), "naïve".into(), "zèbre".into()]);
    for index in 0..9u32 {
        let (split, label) = ([Split::Validation, Split::Test][index as usize % 2], Some(index % 3));
        let id = format!("chat/{index:04}.jpeg");
        predictions.push(id.into(), Some(split), label.filter(|_| index != 4), &[0.25, 0.5, 0.25]);
    }
    predictions.to_parquet()
}

/// What `torch.save` writes, in both of its forms.
pub(super) fn pytorch() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../stages/train/src/weights/testdata/checkpoint.pth").to_vec(),
        include_bytes!("../../stages/train/src/weights/testdata/views.pth").to_vec(),
        include_bytes!("../../stages/train/src/weights/testdata/views-legacy.pth").to_vec(),
    ]
}

/// The pickles in the archives of [`pytorch`], which are most of what is read of them.
pub(super) fn pickles() -> Vec<Vec<u8>> {
    let pickle = |file: &Vec<u8>| {
        let name = file.windows(9).position(|window| window == b"/data.pkl").expect("a pickle") + 9;
        let start = name + file[name..].iter().position(|byte| *byte == 0x80).expect("its protocol");
        let end = start
            + file[start..]
                .windows(3)
                .position(|three| three == b".PK")
                .unwrap_or_else(|| file[start..].iter().rposition(|byte| *byte == b'.').expect("its end"));
        file[start..=end].to_vec()
    };
    pytorch()[..2].iter().map(pickle).collect()
}

/// Storages of an archive here.
const N_STORAGES: u8 = 20;

/// An archive as `torch.save` lays it out, with this pickle and 1 KiB of values a storage.
pub(super) fn archive(pickle: &[u8]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    let values: Vec<_> = (0..N_STORAGES).map(|key| (format!("a/data/{key}"), &[7; 1024][..])).collect();
    let files: Vec<_> = [("a/data.pkl".to_string(), pickle)].into_iter().chain(values).collect();
    for (name, data) in &files {
        let at = bytes.len() as u32;
        let mut shared = [0u8; 26];
        for place in [14, 18] {
            shared[place..place + 4].copy_from_slice(&(data.len() as u32).to_le_bytes());
        }
        shared[22..24].copy_from_slice(&(name.len() as u16).to_le_bytes());
        for part in [&b"PK\x03\x04"[..], &shared, name.as_bytes(), *data] {
            bytes.extend_from_slice(part);
        }
        for part in [&b"PK\x01\x02\0\0"[..], &shared, &[0; 10], &at.to_le_bytes(), name.as_bytes()] {
            directory.extend_from_slice(part);
        }
    }
    let (at, length) = (bytes.len() as u32, directory.len() as u32);
    bytes.extend_from_slice(&directory);
    bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    bytes.extend_from_slice(&[files.len() as u8, 0, files.len() as u8, 0]);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&at.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes
}

/// The header of a safetensors file of six tensors; the second says of itself what files of ours say.
pub(super) fn safetensors_headers() -> Vec<Vec<u8>> {
    let values = [1; 256];
    let tensors = || {
        [
            ("fc.weight", Dtype::F32, vec![2, 4], 32),
            ("fc.bias", Dtype::F16, vec![2], 4),
            ("average.fc.bias", Dtype::F32, vec![2], 8),
            ("optimizer.fc.bias.momentum", Dtype::F32, vec![2], 8),
            ("loss_scale", Dtype::F32, vec![], 4),
            ("n", Dtype::I64, vec![1], 8),
        ]
        .map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(dtype, shape, &values[..bytes]).expect("it fits"))
        })
    };
    let says = FileDescription {
        model: "small".to_string(),
        classes: vec!["a".to_string(), "b".to_string()],
        head: Head::linear(2),
        step: 7,
        optimizer: serde_json::from_str(r#"{"sgd": {"momentum": 0.9, "nesterov": true}}"#)
            .expect("its own words"),
        metadata: [("chain".to_string(), "{\"resize\": []}".to_string())].into(),
    };
    let says = serde_json::to_string(&says).expect("plain data");
    let ours = [("forebay".to_string(), says)].into();
    [None, Some(ours)]
        .map(|metadata| {
            let file = safetensors::serialize(tensors(), metadata).expect("room");
            let length = u64::from_le_bytes(*file.first_chunk().expect("a length")) as usize;
            file[8..8 + length].to_vec()
        })
        .to_vec()
}

/// A file with this header and as many bytes of values as its tensors have.
pub(super) fn safetensors_file(header: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, &[1; 64]].concat()
}

pub(super) fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}
