//! Moves pixels: mirrored, by a linear map about the centre, by whole pixels; what follows each other is one pass where that gives,
//! to a rounding, the same levels.

use std::ops::Range;

use forebay_datasets::sample::Pixels;

use crate::crop::{in_one_piece, window};
use crate::simd::isa::{Isa, for_each_isa};
use crate::stage::Draws;

/// An augmentation that moves pixels.
pub(super) trait Geometry {
    /// What it draws, after what was drawn before.
    fn moved(&self, moves: Moves, draws: &Draws) -> Moves;
}

/// An image and how it is moved: mirrored, then by a linear map, then by whole pixels.
///
/// A mirror image that is mapped is mapped by another map, and what is shifted can be put where it goes: all three are one pass. Two
/// maps are two, because levels between pixels are made of levels between pixels then.
pub(super) struct Moves {
    image: Pixels,
    /// Left to right, and top to bottom.
    mirrored: [bool; 2],
    map: Option<Map>,
    shift: Option<Shift>,
}

/// A linear map about the centre of the image.
pub(super) struct Map {
    /// From a place of the result to where it comes from, `[[xx, xy], [yx, yy]]`.
    inverse: [[f64; 2]; 2],
    /// What is outside the image; its edge blends into it, as in torchvision.
    fill: [u8; 3],
}

/// By whole pixels.
struct Shift {
    /// To the right, and down.
    by: [i64; 2],
    /// What moves in.
    fill: [u8; 3],
}

impl Moves {
    pub(super) fn of(image: Pixels) -> Moves {
        Moves { image, mirrored: [false; 2], map: None, shift: None }
    }

    /// Width and height.
    pub(super) fn size(&self) -> [u32; 2] {
        [self.image.width, self.image.height]
    }

    /// Mirrors across an axis: 0 left to right, 1 top to bottom.
    pub(super) fn mirror(self, axis: usize) -> Moves {
        let mut moves = if self.map.is_some() || self.shift.is_some() { self.done() } else { self };
        moves.mirrored[axis] ^= true;
        moves
    }

    /// Maps about the centre; `inverse` from a place of the result to where it comes from, `[[xx, xy], [yx, yy]]`.
    pub(super) fn map(self, inverse: [[f64; 2]; 2], fill: [u8; 3]) -> Moves {
        let moves = if self.map.is_some() || self.shift.is_some() { self.done() } else { self };
        Moves { map: Some(Map { inverse, fill }), ..moves }
    }

    /// Shifts to the right and down.
    pub(super) fn shift(self, by: [i64; 2], fill: [u8; 3]) -> Moves {
        let moves = if self.shift.is_some() { self.done() } else { self };
        Moves { shift: Some(Shift { by, fill }), ..moves }
    }

    fn done(self) -> Moves {
        Moves::of(self.pixels())
    }

    /// The image, moved.
    pub(super) fn pixels(self) -> Pixels {
        let Moves { image, mirrored, map, shift } = self;
        let Some(map) = map else {
            let image = mirror_image(image, mirrored);
            return match shift {
                Some(Shift { by: [right, down], fill }) => {
                    let (width, height) = (image.width, image.height);
                    window(image, -right, -down, width, height, fill)
                }
                None => image,
            };
        };
        // About the centre a mirror image has the same places with another sign.
        let mut inverse = map.inverse;
        for (row, mirrored) in inverse.iter_mut().zip(mirrored) {
            *row = row.map(|factor| if mirrored { -factor } else { factor });
        }
        warp(image, &Map { inverse, ..map }, shift)
    }
}

fn mirror_image(image: Pixels, mirrored: [bool; 2]) -> Pixels {
    let size = [image.width, image.height].map(|side| side as usize);
    Pixels { data: image.data.mirrored(size, mirrored), ..image }
}

/// Fills each pixel from where the map says it comes from, interpolating between four neighbours.
fn warp(image: Pixels, map: &Map, shift: Option<Shift>) -> Pixels {
    let isa = Isa::detect();
    let Shift { by, fill } = shift.unwrap_or(Shift { by: [0, 0], fill: [0; 3] });
    // What of the result is not moved in.
    let kept = |by: i64, length: u32| {
        let length = i64::from(length);
        by.clamp(0, length) as usize..(length + by).clamp(0, length) as usize
    };
    let (columns, rows) = (kept(by[0], image.width), kept(by[1], image.height));
    let image = in_one_piece(image);
    let mut data = vec![0; image.data.len()];
    for (y, line) in data.chunks_exact_mut(3 * image.width as usize).enumerate() {
        let line = line.as_chunks_mut::<3>().0;
        if rows.contains(&y) {
            line[..columns.start].fill(fill);
            line[columns.end..].fill(fill);
            let first = [columns.start as i64 - by[0], y as i64 - by[1]];
            row(isa, &image, map, first, &mut line[columns.clone()]);
        } else {
            line.fill(fill);
        }
    }
    Pixels { data: data.into(), ..image }
}

for_each_isa! {
    /// A row of what the map makes of an image, from its column and row `first` on.
    row = row_loop(image: &Pixels, map: &Map, first: [i64; 2], out: &mut [[u8; 3]])
}

#[inline(always)]
fn row_loop(image: &Pixels, map: &Map, [first, y]: [i64; 2], out: &mut [[u8; 3]]) {
    // Positions are those of pixel centres, so that the identity gives back every pixel.
    let size = [image.width, image.height];
    let centre = size.map(|length| f64::from(length - 1) / 2.0);
    let below = y as f64 - centre[1];
    let ahead = |x: usize| (first + x as i64) as f64 - centre[0];
    let [[xx, xy], [yx, yy]] = map.inverse;
    let place = |x: usize| [xx * ahead(x) + xy * below + centre[0], yx * ahead(x) + yy * below + centre[1]];
    let [start, one] = [place(0), place(1)];
    let inside = [0, 1].map(|axis| within(start[axis], one[axis] - start[axis], size[axis], out.len()));
    let mut inside = inside[0].start.max(inside[1].start)..inside[0].end.min(inside[1].end);
    // Steps are rounded, and where they are very small far from the true ones; places go one way, so that those between two that
    // are inside are, too.
    let is_inside = |x: usize| {
        let place = place(x);
        (0..2).all(|axis| (0.0..f64::from(size[axis]) - 1.0).contains(&place[axis]))
    };
    while inside.start < inside.end && !is_inside(inside.start) {
        inside.start += 1;
    }
    while inside.start < inside.end && !is_inside(inside.end - 1) {
        inside.end -= 1;
    }
    let inside = inside.start.min(inside.end)..inside.end;
    for x in (0..inside.start).chain(inside.end..out.len()) {
        out[x] = between(image, place(x), map.fill);
    }
    let stride = 3 * image.width as usize;
    for start in inside.clone().step_by(AT_ONCE) {
        let out = &mut out[start..inside.end.min(start + AT_ONCE)];
        let mut corners = [[0; 3 * AT_ONCE]; 4];
        let mut shares = [[0.0; 3 * AT_ONCE]; 2];
        for i in 0..out.len() {
            let [(left, right), (top, lower)] = place(start + i).map(split);
            let at = top * stride + 3 * left;
            let [above, below] = [at, at + stride].map(|at| &image.data[at..at + 6]);
            for (corners, from) in
                corners.iter_mut().zip([&above[..3], &above[3..], &below[..3], &below[3..]])
            {
                corners[3 * i..3 * i + 3].copy_from_slice(from);
            }
            shares[0][3 * i..3 * i + 3].fill(right);
            shares[1][3 * i..3 * i + 3].fill(lower);
        }
        let ([a, b, c, d], [right, lower]) = (&corners, &shares);
        let mut levels = [0; 3 * AT_ONCE];
        for (i, level) in levels.iter_mut().enumerate() {
            *level = blend([a[i], b[i], c[i], d[i]], [right[i], lower[i]]);
        }
        let n = 3 * out.len();
        out.as_flattened_mut().copy_from_slice(&levels[..n]);
    }
}

/// Pixels whose levels are made at once.
const AT_ONCE: usize = 16;

/// The pixel before a place, which is not negative, and the share of the one after it.
#[inline(always)]
fn split(place: f64) -> (usize, f32) {
    let whole = place.floor();
    // As in [`blend`].
    let pixel = (whole + (1u64 << 52) as f64).to_bits() as u32;
    (pixel as usize, (place - whole) as f32)
}

/// The steps, of `steps`, at which a place that begins at `start` and goes on by `step` has a pixel of `length` on either side, about.
#[inline(always)]
fn within(start: f64, step: f64, length: u32, steps: usize) -> Range<usize> {
    let last = f64::from(length) - 1.0;
    if step == 0.0 {
        return if (0.0..last).contains(&start) { 0..steps } else { 0..0 };
    }
    let (a, b) = (-start / step, (last - start) / step);
    let from = a.min(b).ceil().clamp(0.0, steps as f64);
    let to = a.max(b).floor().clamp(from, steps as f64);
    from as usize..to as usize
}

/// The colour at a place between pixels that may not all be there.
fn between(image: &Pixels, [x, y]: [f64; 2], fill: [u8; 3]) -> [u8; 3] {
    let (left, top) = (x.floor(), y.floor());
    let shares = [(x - left) as f32, (y - top) as f32];
    let at = |x: i64, y: i64| -> [u8; 3] {
        if x < 0 || y < 0 || x >= i64::from(image.width) || y >= i64::from(image.height) {
            return fill;
        }
        let start = (y as usize * image.width as usize + x as usize) * 3;
        [image.data[start], image.data[start + 1], image.data[start + 2]]
    };
    let (left, top) = (left as i64, top as i64);
    let corners = [at(left, top), at(left + 1, top), at(left, top + 1), at(left + 1, top + 1)];
    std::array::from_fn(|channel| blend(corners.map(|corner| corner[channel]), shares))
}

/// The level between four: two above, two below; shares of the right ones and of the lower ones.
#[inline(always)]
fn blend(corners: [u8; 4], [right, lower]: [f32; 2]) -> u8 {
    let [a, b, c, d] = corners.map(f32::from);
    let above = a + (b - a) * right;
    let below = c + (d - c) * right;
    // Whole numbers are the lower bits of those from here on; a conversion would look for what is none, one by one.
    (above + (below - above) * lower + (1 << 23) as f32).to_bits() as u8
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;

    #[test]
    fn the_smallest_turns_of_large_images_reach_over_no_edge() {
        for (width, height) in [(224, 224), (601, 401), (3001, 16), (16, 3001), (9000, 7), (7, 9000)] {
            let image = Pixels::new(width, height, vec![100; 3 * (width * height) as usize]);
            let small = (1..=17).flat_map(|k| [1.0, -1.0, 3.3].map(|by: f64| by * 0.1_f64.powi(k)));
            let halves = [180.0, -180.0, 179.999_999_999, 90.0, -90.0, 90.000_000_000_1];
            for degrees in small.chain(halves) {
                let (sin, cos) = f64::to_radians(degrees).sin_cos();
                let turned = Moves::of(image.clone()).map([[cos, -sin], [sin, cos]], [100; 3]).pixels();
                assert!(turned.data.iter().all(|level| *level == 100), "{width}x{height} {degrees}");
            }
        }
    }

    #[test]
    fn moves_in_another_order_are_passes_of_their_own() {
        let image = Pixels::new(5, 4, (0..60).collect());
        let quarter = [[0.0, -1.0], [1.0, 0.0]];
        let one_by_one = |moves: [&dyn Fn(Moves) -> Moves; 3]| {
            moves.iter().fold(image.clone(), |image, step| step(Moves::of(image)).pixels())
        };
        let at_once = |moves: [&dyn Fn(Moves) -> Moves; 3]| {
            moves.iter().fold(Moves::of(image.clone()), |moves, step| step(moves)).pixels()
        };
        let mirror = |moves: Moves| moves.mirror(0);
        let map = |moves: Moves| moves.map(quarter, [7; 3]);
        let shift = |moves: Moves| moves.shift([1, -2], [9; 3]);
        let steps: [&dyn Fn(Moves) -> Moves; 3] = [&mirror, &map, &shift];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0], [2, 2, 1], [1, 1, 0]]
        {
            let steps = order.map(|step| steps[step]);
            assert_eq!(at_once(steps), one_by_one(steps), "{order:?}");
        }
    }

    #[test]
    fn a_row_is_what_lies_between_the_pixels_at_its_places() {
        let mut stream = Seed(5).stream("maps");
        for _ in 0..400 {
            let [width, height] = [(); 2].map(|()| 1 + stream.below(60) as u32);
            let data = (0..3 * width * height).map(|_| stream.below(256) as u8).collect();
            let image = Pixels::new(width, height, data);
            let mut factor = || stream.range(-1.5, 1.5) * f64::from(stream.below(4) as u8 % 3);
            let inverse = [[factor(), factor()], [factor(), factor()]];
            let map = Map { inverse, fill: [9, 90, 200] };
            let y = stream.below(u64::from(height)) as i64;
            for isa in Isa::all() {
                let mut found = vec![[0; 3]; width as usize];
                row(isa, &image, &map, [0, y], &mut found);
                for (x, found) in found.iter().enumerate() {
                    let from = [x as f64, y as f64];
                    let from = [from[0] - f64::from(width - 1) / 2.0, from[1] - f64::from(height - 1) / 2.0];
                    let place = [0, 1].map(|axis| {
                        let length = [width, height][axis];
                        inverse[axis][0] * from[0] + inverse[axis][1] * from[1] + f64::from(length - 1) / 2.0
                    });
                    assert_eq!(*found, between(&image, place, map.fill), "{inverse:?} {x} {y} {isa:?}");
                }
            }
        }
    }
}
