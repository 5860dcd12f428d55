//! A heatmap over the image that it explains, as a PNG file.

use std::io::Cursor;

use image::{ImageFormat, RgbImage};

/// The least side of a picture, in pixels: an image of 32 would show nothing.
const SIDE_PX_MIN: usize = 224;

/// How much of the colour is seen.
const OPACITY: f32 = 0.5;

/// The longest name of a file without its ending, in bytes.
const NAME_BYTES_MAX: usize = 180;

/// Colours from 0 to 1, as far from each other to people who see few colours: some of matplotlib's viridis.
const VIRIDIS: [[u8; 3]; 10] = [
    [68, 1, 84],
    [72, 40, 120],
    [62, 74, 137],
    [49, 104, 142],
    [38, 130, 142],
    [31, 158, 137],
    [53, 183, 121],
    [110, 206, 88],
    [181, 222, 43],
    [253, 231, 37],
];

/// By how much a side is enlarged for people.
pub(super) fn enlargement(side: usize) -> usize {
    SIDE_PX_MIN.div_ceil(side.max(1))
}

/// The image `[3, side, side]`, as the network saw it, under `heat` from 0 to 1, a value for each pixel of the picture, whose
/// side is [`enlargement`] times as long.
pub(super) fn png(planes: &[u8], side: usize, heat: &[f32]) -> Vec<u8> {
    let factor = enlargement(side);
    let length = side * factor;
    let mut pixels = Vec::with_capacity(3 * length * length);
    for (index, heat) in heat.iter().enumerate() {
        let place = (index / length / factor) * side + index % length / factor;
        for (channel, color) in color(*heat).into_iter().enumerate() {
            let level = f32::from(planes[channel * side * side + place]);
            pixels.push((level * (1.0 - OPACITY) + color * OPACITY).round() as u8);
        }
    }
    let picture =
        RgbImage::from_raw(length as u32, length as u32, pixels).expect("three levels for each value");
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).expect("an image is encoded into memory");
    png.into_inner()
}

fn color(heat: f32) -> [f32; 3] {
    let at = heat.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f32;
    let below = at.floor() as usize;
    let above = (below + 1).min(VIRIDIS.len() - 1);
    let share = at - below as f32;
    std::array::from_fn(|channel| {
        f32::from(VIRIDIS[below][channel]) * (1.0 - share) + f32::from(VIRIDIS[above][channel]) * share
    })
}

/// The name of the file for a sample: no two samples have one name, and none leads to another folder.
pub(super) fn file_name(id: &str) -> String {
    let mut name = String::new();
    for (index, byte) in id.bytes().enumerate() {
        match byte {
            b'.' if index == 0 => name.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => name.push(char::from(byte)),
            other => name.push_str(&format!("%{other:02X}")),
        }
    }
    if name.len() > NAME_BYTES_MAX {
        let digest = blake3::hash(id.as_bytes()).to_hex();
        name.truncate(NAME_BYTES_MAX);
        name = format!("{name}-{}", &digest[..16]);
    }
    name + ".png"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_safe_and_of_one_sample_each() {
        for (id, expected) in [
            ("cat.jpg", "cat.jpg.png"),
            ("a/b c.jpg", "a%2Fb%20c.jpg.png"),
            ("a%2Fb c.jpg", "a%252Fb%20c.jpg.png"),
            ("../up", "%2E.%2Fup.png"),
            ("é", "%C3%A9.png"),
        ] {
            assert_eq!(file_name(id), expected);
        }
        let (long, other) = ("x".repeat(300), "x".repeat(301));
        assert!(file_name(&long).len() < 255 && file_name(&long) != file_name(&other));
    }

    #[test]
    fn a_picture_is_half_image_and_half_colour() {
        let side = 200;
        let planes = vec![100; 3 * side * side];
        let mut heat = vec![0.0; (2 * side) * (2 * side)];
        heat[2 * side + 3] = 1.0;
        let picture = image::load_from_memory(&png(&planes, side, &heat)).expect("a PNG").to_rgb8();
        assert_eq!(picture.dimensions(), (400, 400));
        assert_eq!(picture.get_pixel(3, 1).0, [177, 166, 69], "(100 + [253, 231, 37]) / 2");
        assert_eq!(picture.get_pixel(0, 0).0, [84, 51, 92], "(100 + [68, 1, 84]) / 2");
    }
}
