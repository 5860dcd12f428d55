//! Cuts rectangles out of an image.

use forebay_datasets::sample::Pixels;

use crate::planes::reverse_rows;
use crate::simd::isa::Isa;

/// The same in memory of its own, from which no row is to be read backwards.
pub(crate) fn in_one_piece(image: Pixels) -> Pixels {
    let Some(stored) = image.data.stored().filter(|stored| stored.is_mirrored()) else {
        let mut image = image;
        image.data.settle();
        return image;
    };
    let [columns, rows] = stored.size();
    let mut data = vec![0; 3 * columns * rows];
    for (row, out) in data.chunks_exact_mut(3 * columns).enumerate() {
        reverse_rows(Isa::detect(), columns, &stored.row(row)[..3 * columns], out);
    }
    Pixels { data: data.into(), ..image }
}

/// Cuts a rectangle out of an image; no copy where it is the whole image.
///
/// # Panics
/// When the rectangle reaches over the edge.
pub(crate) fn cut(input: Pixels, left: u32, top: u32, width: u32, height: u32) -> Pixels {
    if (width, height) == (input.width, input.height) {
        return input;
    }
    if let Some(stored) = input.data.stored() {
        let [from, size] = [[left, top], [width, height]].map(|two| two.map(|length| length as usize));
        let data = stored.clone().part(from, size).into();
        return in_one_piece(Pixels { width, height, data, ..input });
    }
    let data = rectangle(&input.data, input.width, [left, top, width, height]).into();
    Pixels { width, height, data, ..input }
}

/// Left, top, width and height of pixels that stand in rows of `columns`.
///
/// # Panics
/// When the rectangle reaches over the edge.
fn rectangle(pixels: &[u8], columns: u32, [left, top, width, height]: [u32; 4]) -> Vec<u8> {
    let (stride, length) = (columns as usize * 3, width as usize * 3);
    let mut data = Vec::with_capacity(length * height as usize);
    for row in top as usize..top as usize + height as usize {
        let start = row * stride + left as usize * 3;
        data.extend_from_slice(&pixels[start..start + length]);
    }
    data
}

/// A rectangle that may reach over the edges of the image; what lies outside is `fill`.
pub(crate) fn window(input: Pixels, left: i64, top: i64, width: u32, height: u32, fill: [u8; 3]) -> Pixels {
    let inside =
        |start: i64, length: u32, whole: u32| start >= 0 && start + i64::from(length) <= i64::from(whole);
    if inside(left, width, input.width) && inside(top, height, input.height) {
        return cut(input, left as u32, top as u32, width, height);
    }
    let input = in_one_piece(input);
    let mut data = fill.repeat(width as usize * height as usize);
    // The columns of the window that lie within the image.
    let first = (-left).clamp(0, i64::from(width));
    let last = (i64::from(input.width) - left).clamp(first, i64::from(width));
    for (row, line) in data.chunks_exact_mut(width as usize * 3).enumerate() {
        let source = top + row as i64;
        if source < 0 || source >= i64::from(input.height) || first == last {
            continue;
        }
        let start = (source as usize * input.width as usize + (left + first) as usize) * 3;
        let length = (last - first) as usize * 3;
        line[first as usize * 3..][..length].copy_from_slice(&input.data[start..start + length]);
    }
    Pixels { width, height, data: data.into(), ..input }
}
