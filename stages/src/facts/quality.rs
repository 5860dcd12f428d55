//! The quality at which a JPEG file was probably encoded.

use crate::decode::jpeg::luma_quantization;

/// The luma table of ITU-T T.81, table K.1, row by row.
const STANDARD_LUMA: [u16; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17,
    22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78,
    87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];

/// Estimates the quality of a JPEG file on libjpeg's scale of 1 to 100, from its luma quantisation table: that whose
/// table differs least from it, as the sum of absolute differences; the higher one of two.
///
/// libjpeg scales table K.1 by 5000 / quality below 50 and by 200 - 2 quality from there on, in per cent, rounded and
/// kept within 1 to 255 (`jpeg_quality_scaling` and `jpeg_add_quant_table` in its jcparam.c). Of files of libjpeg,
/// Pillow and most other programs the estimate is exact; of those with tables of their own (cameras, Photoshop) it is
/// the quality at which libjpeg would lose about as much. `None` where a file has no such table before its first scan.
pub fn jpeg_quality(bytes: &[u8]) -> Option<u8> {
    let found = luma_quantization(bytes)?;
    let zigzag = zigzag();
    let distance = |quality: u8| -> u32 {
        (0..64).map(|at| u32::from(found[at].abs_diff(scaled(STANDARD_LUMA[zigzag[at]], quality)))).sum()
    };
    (1..=100).rev().min_by_key(|quality| distance(*quality))
}

/// A value of the standard table as libjpeg writes it at a quality.
fn scaled(value: u16, quality: u8) -> u16 {
    let quality = u16::from(quality);
    let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    ((u32::from(value) * u32::from(percent) + 50) / 100).clamp(1, 255) as u16
}

/// The place in rows of each value as a file has them: along the diagonals, up and down in turn.
fn zigzag() -> [usize; 64] {
    let mut places = [0; 64];
    let cells = (0..15).flat_map(|diagonal: usize| {
        let along = diagonal.saturating_sub(7)..=diagonal.min(7);
        // An even diagonal runs up, an odd one down.
        along
            .map(move |at| if diagonal.is_multiple_of(2) { (diagonal - at, at) } else { (at, diagonal - at) })
    });
    for (place, (row, column)) in places.iter_mut().zip(cells) {
        *place = 8 * row + column;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quality_of_a_file_of_libjpegs_tables_is_found_exactly() {
        assert_eq!(zigzag()[..10], [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]);
        assert_eq!(zigzag()[60..], [47, 55, 62, 63]);
        let image = image::RgbImage::from_fn(16, 16, |x, y| image::Rgb([(x * 16) as u8, (y * 16) as u8, 90]));
        for quality in [1, 10, 30, 49, 50, 51, 75, 90, 95, 99, 100] {
            let mut bytes = Vec::new();
            let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality);
            image.write_with_encoder(encoder).expect("it can be encoded");
            assert_eq!(jpeg_quality(&bytes), Some(quality));
        }
        assert_eq!(jpeg_quality(b"\xff\xd8\xff\xd9"), None);
        assert_eq!(jpeg_quality(b"no image"), None);
    }
}
