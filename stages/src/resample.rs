//! A window of an image at another size: what a stage shows of an image, told before the image is decoded.

use std::ops::Range;

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{F32x3, U8x3};
use fast_image_resize::{FilterType, ImageView, ResizeAlg, ResizeOptions, Resizer};
use forebay_datasets::sample::{Pixels, SeenPart};
use forebay_datasets::words;
use serde::{Deserialize, Serialize};

#[cfg(target_arch = "x86_64")]
use crate::bilinear;
use crate::crop::{cut, in_one_piece};
use crate::simd::isa::{Isa, for_each_isa};
use crate::spare;

/// How many times as many columns and rows as are wanted are left of an image that is decoded at a part of its size.
const GAP: f64 = 4.5;
const GAP_OF_SMALL: f64 = 8.0;

/// How pixels are interpolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// A triangle of radius 1: what torchvision resizes with.
    Bilinear,
    /// Catmull-Rom (a = -0.5) of radius 2, as in Pillow.
    Bicubic,
    /// A windowed sinc of radius 3.
    Lanczos3,
}
words!(Filter { Bilinear => "bilinear", Bicubic => "bicubic", Lanczos3 => "lanczos3" });

/// What is shown of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// Left, top, width and height of what nothing is seen outside of, pixels of the whole image.
    pub inside: [u32; 4],
    /// Left, top, width and height of what is shown, pixels of the whole image. It lies within `inside`.
    pub window: [f64; 4],
    /// Width and height that it becomes, pixels.
    pub size: [u32; 2],
    /// How pixels are interpolated.
    pub filter: Filter,
}

impl View {
    /// All of an image as it is.
    pub fn of_whole([width, height]: [u32; 2], filter: Filter) -> View {
        View::of_part([0, 0, width, height], [width, height], filter)
    }

    /// A part of an image, left, top, width and height, at another size: the same as cutting it out and then resizing.
    pub fn of_part(inside: [u32; 4], size: [u32; 2], filter: Filter) -> View {
        View { inside, window: inside.map(f64::from), size, filter }
    }

    /// True where the window is whole pixels that are shown as they are.
    pub(crate) fn is_cut(&self) -> bool {
        let [left, top, width, height] = self.window;
        [width, height] == self.size.map(f64::from) && left.fract() == 0.0 && top.fract() == 0.0
    }

    /// How far an axis (0 across, 1 down) sees beyond the ends of the window, pixels.
    fn reach(&self, axis: usize) -> f64 {
        let radius = match self.filter {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos3 => 3.0,
        };
        radius * (self.window[2 + axis] / f64::from(self.size[axis])).max(1.0) + 1.0
    }

    /// Left, top, width and height of the pixels that are seen.
    pub fn seen(&self) -> [u32; 4] {
        let [from, to] = [0, 1].map(|end| {
            [0, 1].map(|axis| {
                let (first, length) = (self.inside[axis], self.inside[2 + axis]);
                let reach = if self.is_cut() { 0.0 } else { self.reach(axis) };
                let at = match end {
                    0 => (self.window[axis] - reach).floor(),
                    _ => (self.window[axis] + self.window[2 + axis] + reach).ceil(),
                };
                at.clamp(f64::from(first), f64::from(first + length)) as u32
            })
        });
        [from[0], from[1], to[0] - from[0], to[1] - from[1]]
    }

    /// How many columns and rows of the image may become one before it is resized: 1, 2, 4 or 8. So many times as many as are wanted
    /// are left that grey levels differ by 0.2 in the mean from those of the whole image, and by 6 at most in 512 photographs
    /// (`benches/results` has the table; hard lines and low qualities may differ by more): [`GAP`], and [`GAP_OF_SMALL`] where a side
    /// becomes less than 64 pixels.
    pub(crate) fn reduction(&self) -> u32 {
        let is_small = self.size.iter().any(|side| *side < 64);
        let gap = if is_small { GAP_OF_SMALL } else { GAP };
        let fits = |reduced: u32| {
            (0..2).all(|axis| self.window[2 + axis] >= gap * f64::from(reduced) * f64::from(self.size[axis]))
        };
        [8, 4, 2].into_iter().find(|reduced| fits(*reduced)).unwrap_or(1)
    }

    /// Shows it of an image, or of a part of one in which all is that is seen.
    ///
    /// # Panics
    /// When the view reaches over the edge.
    pub fn of(&self, input: Pixels) -> Pixels {
        let original = input.original;
        let whole = SeenPart { left: 0, top: 0, reduced: 1, rows_are_resized: false };
        let part = input.part.unwrap_or(whole);
        let mut input = Pixels { part: None, ..input };
        if self.is_cut() && part.reduced == 1 {
            let [at, down] = [self.window[0] as u32 - part.left, self.window[1] as u32 - part.top];
            return cut(input, at, down, self.size[0], self.size[1]);
        }
        let Placed { inside, window, ends } = self.placed(part, [input.width, input.height]);
        let shown = if part.rows_are_resized {
            // They are of this view: of the columns alone its place is told.
            assert_eq!(input.height, self.size[1], "rows that are resized for another view");
            self.narrowed(&input, window[0], window[2])
        } else {
            if input.data.stored().is_some_and(|stored| stored.in_order().is_none()) {
                input = in_one_piece(input);
            }
            weigh_ends(&mut input, inside, ends);
            self.run(&mut input, inside, window)
        };
        if input.data.stored().is_none() {
            spare::give(input.data.into_vec());
        }
        Pixels { original, ..shown }
    }

    /// Where it is in a part of the image that has so many columns and rows.
    pub(crate) fn placed(&self, part: SeenPart, here: [u32; 2]) -> Placed {
        let (origin, reduced) = ([part.left, part.top], part.reduced);
        let (mut inside, mut window, mut ends) = ([0; 4], [0.0; 4], [[None, None], [None, None]]);
        for axis in 0..2 {
            let (first, length) = (self.inside[axis], self.inside[2 + axis]);
            let from = first.saturating_sub(origin[axis]) / reduced;
            let to = (first + length - origin[axis]).div_ceil(reduced).min(here[axis]);
            (inside[axis], inside[2 + axis]) = (from, to - from);
            let scale = f64::from(reduced);
            let start = ((self.window[axis] - f64::from(origin[axis])) / scale - f64::from(from)).max(0.0);
            window[axis] = start;
            // A last bit too much would reach over the edge.
            window[2 + axis] = (self.window[2 + axis] / scale).min(f64::from(to - from) - start);
            ends[axis] = self.ends(axis, from..to, origin[axis], reduced);
        }
        Placed { inside, window, ends }
    }

    /// The first and the last column or row of a part of a reduced image, whose first pixel is `origin` of the image, where what they
    /// stand for lies in part outside of [`View::inside`].
    fn ends(&self, axis: usize, here: Range<u32>, origin: u32, reduced: u32) -> [Option<End>; 2] {
        let length = here.len();
        let (first, end) = (self.inside[axis], self.inside[axis] + self.inside[2 + axis]);
        let starts = origin + here.start * reduced;
        let last_starts = origin + (here.end - 1) * reduced;
        let one = self.window[2 + axis] / f64::from(self.size[axis] * reduced);
        let beside = (one.round() as usize).clamp(1, (length - 1).max(1));
        [
            (here.start, (starts + reduced).saturating_sub(first), false),
            (here.end - 1, end - last_starts, true),
        ]
        .map(|(at, has, is_last)| {
            let share = has as f32 / reduced as f32;
            (has < reduced && length > 1).then_some(End { at: at as usize, share, beside, is_last })
        })
    }

    /// Columns `left` to `left + width` of rows that are resized.
    fn narrowed(&self, rows: &Pixels, left: f64, width: f64) -> Pixels {
        #[cfg(target_arch = "x86_64")]
        if let Some(narrowed) = bilinear::narrowed(rows, left, width, self.size[0]) {
            return narrowed;
        }
        let image = TypedImageRef::from_buffer(rows.width, rows.height, &rows.data)
            .expect("pixels hold width * height * 3 bytes");
        pass(&image, [left, 0.0, width, f64::from(rows.height)], self.size[0], rows.height, self.filter)
    }

    /// A window of a part of an image; nothing outside the part is seen. Both are left, top, width and height, the window in
    /// pixels of the part.
    fn run(
        &self,
        input: &mut Pixels,
        [part_left, part_top, part_width, part_height]: [u32; 4],
        [left, top, window_width, window_height]: [f64; 4],
    ) -> Pixels {
        let View { size: [width, height], filter, .. } = *self;
        // Weights that are never negative cannot leave the range of a byte, so that the order of the passes
        // changes nothing but roundings.
        if filter == Filter::Bilinear {
            #[cfg(target_arch = "x86_64")]
            {
                let part = [part_left, part_top, part_width, part_height];
                let window = [left, top, window_width, window_height];
                let rows = match input.data.stored() {
                    Some(stored) => stored.in_order(),
                    None => Some((&*input.data, 3 * input.width as usize)),
                };
                let resized = rows.and_then(|rows| bilinear::resized(rows, part, window, [width, height]));
                if let Some(resized) = resized {
                    return resized;
                }
            }
            input.data.settle();
            let whole = TypedImageRef::<U8x3>::from_buffer(input.width, input.height, &input.data)
                .expect("pixels hold width * height * 3 bytes");
            let part = TypedCroppedImage::from_ref(&whole, part_left, part_top, part_width, part_height)
                .expect("the part lies within the image");
            return pass(&part, [left, top, window_width, window_height], width, height, filter);
        }
        input.data.settle();
        // What overshoots is cut off after each pass, so that their order shows. A level that the first pass rounds the
        // other way may become two in the second, so that it has to be exact.
        let first_axis = usize::from(self.is_down_first());
        let other = 1 - first_axis;
        let (mut inside, mut window) =
            ([part_left, part_top, part_width, part_height], [left, top, window_width, window_height]);
        // Rows (or columns) of the source that none of the result sees are left out.
        let reach = self.reach(other);
        let first = (window[other] - reach).floor().max(0.0);
        let last = (window[other] + window[2 + other] + reach).ceil().min(f64::from(inside[2 + other]));
        inside[other] += first as u32;
        inside[2 + other] = (last - first) as u32;
        window[other] -= first;
        // A last bit too much would reach over the edge.
        window[2 + other] = window[2 + other].min(last - first - window[other]);
        let levels = self.first_pass(input, first_axis, inside, window);
        (window[first_axis], window[2 + first_axis]) = (0.0, f64::from(self.size[first_axis]));
        let image = TypedImageRef::<U8x3>::from_buffer(levels.width, levels.height, &levels.data)
            .expect("three levels per pixel");
        pass(&image, window, width, height, filter)
    }

    /// Whether the pass down the columns comes before the one along the rows, which shows with filters that overshoot: where the height
    /// loses more than twice the pixels that the width loses, as found by trying Pillow 13.0 (before it, rows always came first). What is
    /// lost is that of [`View::inside`] as a whole, also where only a window of it is shown.
    fn is_down_first(&self) -> bool {
        let [width, height] = [0, 1].map(|axis| {
            let inside = f64::from(self.inside[2 + axis]);
            inside - (inside * f64::from(self.size[axis]) / self.window[2 + axis]).round()
        });
        height > 0.0 && height > 2.0 * width
    }

    /// Resizes a part of an image along one axis (0: along each row, 1: down each column), to as many pixels as the view has along it.
    ///
    /// Lines do not see each other in this pass: a band of them at a time takes little memory as floats.
    fn first_pass(&self, input: &Pixels, axis: usize, inside: [u32; 4], window: [f64; 4]) -> Pixels {
        let lines = 1 - axis;
        let sides_of = |along: u32, across: u32| if axis == 0 { [along, across] } else { [across, along] };
        let [width, height] = sides_of(self.size[axis], inside[2 + lines]);
        let (stride, to_stride) = (3 * input.width as usize, 3 * width as usize);
        let mut levels = vec![0; to_stride * height as usize];
        let (isa, mut pixels) = (Isa::detect(), Vec::new());
        let band_lines = band_lines(inside[2 + axis], self.size[axis]);
        for start in (0..inside[2 + lines]).step_by(band_lines as usize) {
            let band = band_lines.min(inside[2 + lines] - start);
            let [band_width, band_height] = sides_of(inside[2 + axis], band);
            let mut corner = [inside[0], inside[1]];
            corner[lines] += start;
            let [left, top] = corner.map(|place| place as usize);
            pixels.resize(band_width as usize * band_height as usize, F32x3::new([0.0; 3]));
            for (row, pixels) in (top..).zip(pixels.chunks_exact_mut(band_width as usize)) {
                let line = &input.data[row * stride + 3 * left..][..3 * band_width as usize];
                to_floats(isa, line, pixels);
            }
            let source = TypedImageRef::new(band_width, band_height, &pixels).expect("as many pixels");
            let [to_width, to_height] = sides_of(self.size[axis], band);
            let mut resized = TypedImage::<F32x3>::new(to_width, to_height);
            let mut of = [0.0, 0.0, f64::from(band_width), f64::from(band_height)];
            (of[axis], of[2 + axis]) = (window[axis], window[2 + axis]);
            Resizer::new()
                .resize_typed(&source, &mut resized, &options(of, self.filter))
                .expect("the window lies within the part");
            let place = start as usize * if axis == 0 { to_stride } else { 3 };
            let rows = levels[place..].chunks_mut(to_stride);
            for (row, pixels) in rows.zip(resized.pixels().chunks_exact(to_width as usize)) {
                to_levels(isa, pixels, row);
            }
        }
        Pixels::new(width, height, levels)
    }
}

for_each_isa! {
    /// Levels as floats.
    to_floats = floats_loop(levels: &[u8], pixels: &mut [F32x3])
}
for_each_isa! {
    /// Floats as the first of some levels: half is rounded up, and what is below 0 or above 255 is cut off.
    to_levels = levels_loop(pixels: &[F32x3], levels: &mut [u8])
}

#[inline(always)]
fn floats_loop(levels: &[u8], pixels: &mut [F32x3]) {
    for (pixel, levels) in pixels.iter_mut().zip(levels.as_chunks::<3>().0) {
        pixel.0 = levels.map(f32::from);
    }
}

#[inline(always)]
fn levels_loop(pixels: &[F32x3], levels: &mut [u8]) {
    // The conversion of a float to a number asks for those that are none. Between 256 and 512 the 8 bits after the exponent are the
    // whole ones.
    let level = |float: f32| (((float + 0.5).clamp(0.0, 255.0) + 256.0).to_bits() >> 15) as u8;
    let ((some, rest), levels) = (pixels.as_chunks::<16>(), &mut levels[..3 * pixels.len()]);
    let (to, to_rest) = levels.as_chunks_mut::<48>();
    for (pixels, levels) in some.iter().zip(to) {
        let mut floats = [[0.0; 3]; 16];
        floats.iter_mut().zip(pixels).for_each(|(floats, pixel)| *floats = pixel.0);
        levels.iter_mut().zip(floats.as_flattened()).for_each(|(to, float)| *to = level(*float));
    }
    for (pixel, levels) in rest.iter().zip(to_rest.as_chunks_mut::<3>().0) {
        *levels = pixel.0.map(level);
    }
}

/// Where a view is in a part of an image.
pub(crate) struct Placed {
    /// Left, top, width and height of what nothing is seen outside of, columns and rows of the part.
    pub(crate) inside: [u32; 4],
    /// The same of what is shown.
    pub(crate) window: [f64; 4],
    /// The first and the last column, the first and the last row, where they are not to count as whole ones.
    pub(crate) ends: [[Option<End>; 2]; 2],
}

/// The first or the last column or row of a part of a reduced image. A resize gives it the weight of a whole one, so that it has to
/// count as much as what it stands for lies within [`View::inside`]. What lies outside is replaced with the mean of as many next to
/// it as one pixel of the result is made of, which moves that least.
pub(crate) struct End {
    at: usize,
    share: f32,
    beside: usize,
    is_last: bool,
}

impl End {
    /// How many next to it are looked at.
    pub(crate) fn reach(&self) -> usize {
        self.beside
    }

    /// Replaces its level, of all whose places in `levels` `place` says.
    pub(crate) fn weigh(&self, levels: &mut [u8], place: impl Fn(usize) -> usize) {
        let End { at, share, beside, is_last } = *self;
        let next = |n: usize| if is_last { at - n } else { at + n };
        let sum: f32 = (1..=beside).map(|n| f32::from(levels[place(next(n))])).sum();
        let level = &mut levels[place(at)];
        *level = (share * f32::from(*level) + (1.0 - share) * sum / beside as f32).round() as u8;
    }
}

/// Lets the ends of columns, then of rows, of a part of an image count as they should.
fn weigh_ends(input: &mut Pixels, [left, top, width, height]: [u32; 4], ends: [[Option<End>; 2]; 2]) {
    let strides = [3, 3 * input.width as usize];
    let (from, lengths) = ([left, top], [width, height]);
    for (axis, ends) in ends.iter().enumerate() {
        let (along, across) = (strides[axis], strides[1 - axis]);
        for end in ends.iter().flatten() {
            for line in (0..lengths[1 - axis]).map(|line| (from[1 - axis] + line) as usize * across) {
                (0..3).for_each(|channel| end.weigh(&mut input.data, |at| line + at * along + channel));
            }
        }
    }
}

/// How many lines, each of so many pixels before and after, are floats at once: a mebibyte of them, or 64 that are more.
pub(crate) fn band_lines(from: u32, to: u32) -> u32 {
    ((1 << 20) / (12 * from.max(to).max(1))).max(64)
}

// One kind of pixel: a view of any kind would compile every kernel of the resizer for every kind.
fn pass(
    source: &impl ImageView<Pixel = U8x3>,
    window: [f64; 4],
    width: u32,
    height: u32,
    filter: Filter,
) -> Pixels {
    let mut data = vec![0; width as usize * height as usize * 3];
    let mut target =
        TypedImage::<U8x3>::from_buffer(width, height, &mut data).expect("three bytes per pixel");
    Resizer::new()
        .resize_typed(source, &mut target, &options(window, filter))
        .expect("the window lies within the source");
    Pixels::new(width, height, data)
}

fn options([left, top, width, height]: [f64; 4], filter: Filter) -> ResizeOptions {
    let filter = match filter {
        Filter::Bilinear => FilterType::Bilinear,
        Filter::Bicubic => FilterType::CatmullRom,
        Filter::Lanczos3 => FilterType::Lanczos3,
    };
    let options = ResizeOptions::new().crop(left, top, width, height);
    options.resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `fast_image_resize` makes of a window of a part.
    #[cfg(target_arch = "x86_64")]
    fn by_the_crate(
        input: &Pixels,
        [left, top, width, height]: [u32; 4],
        window: [f64; 4],
        size: [u32; 2],
    ) -> Pixels {
        let whole = TypedImageRef::<U8x3>::from_buffer(input.width, input.height, &input.data).unwrap();
        let part = TypedCroppedImage::from_ref(&whole, left, top, width, height).unwrap();
        pass(&part, window, size[0], size[1], Filter::Bilinear)
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn vectors_resize_to_the_levels_of_single_numbers() {
        let Isa::Avx512(_) = Isa::detect() else {
            println!("not compared: this machine has no AVX-512 with VBMI");
            return;
        };
        let mut stream = forebay_datasets::seed::Seed(9).stream("pixels");
        let (mut tried, mut taken) = (0, 0);
        for _ in 0..400 {
            let [width, height] = [0; 2].map(|_| 1 + stream.below(400) as u32);
            let is_hard = stream.below(2) == 0;
            let mut level = || if is_hard { 255 * stream.below(2) as u8 } else { stream.below(256) as u8 };
            let data = (0..width * height * 3).map(|_| level()).collect();
            let input = Pixels::new(width, height, data);
            let side = |from: u32, all: u32, stream: &mut forebay_datasets::seed::Stream| {
                1 + stream.below(u64::from(all - from)) as u32
            };
            let left = stream.below(u64::from(width.div_ceil(4))) as u32;
            let top = stream.below(u64::from(height.div_ceil(4))) as u32;
            let part = [left, top, side(left, width, &mut stream), side(top, height, &mut stream)];
            let [across, down] = [part[2], part[3]].map(f64::from);
            let window = if stream.below(3) == 0 {
                [0.0, 0.0, across, down]
            } else {
                let [x, y] = [across, down].map(|length| stream.range(0.0, length * 0.5));
                [x, y, stream.range(0.5, 1.0) * (across - x), stream.range(0.5, 1.0) * (down - y)]
            };
            let size = [2, 3].map(|axis| (window[axis] * stream.range(0.5, 4.0)).ceil() as u32);
            tried += 1;
            if let Some(found) = bilinear::resized((&input.data, 3 * width as usize), part, window, size) {
                taken += 1;
                assert!(
                    found == by_the_crate(&input, part, window, size),
                    "{width}x{height} {part:?} {window:?} {size:?}"
                );
            }
        }
        assert!(taken * 4 > tried, "{taken} of {tried}");
    }

    #[test]
    fn the_axis_that_pillow_takes_first_comes_first() {
        // `Image.resize` of Pillow 13.0; the other order gives levels that are 9 to 18 away. The second size loses just twice as
        // many rows as columns.
        let golden = [
            (
                (Filter::Bicubic, [4, 2]),
                vec![
                    96, 65, 78, 175, 154, 66, 89, 211, 109, 180, 102, 64, 86, 55, 77, 176, 149, 60, 97, 204,
                    94, 184, 112, 60,
                ],
            ),
            (
                (Filter::Bicubic, [3, 5]),
                vec![
                    186, 129, 69, 86, 233, 172, 120, 99, 130, 100, 71, 27, 169, 164, 9, 175, 101, 20, 87, 28,
                    134, 105, 159, 115, 178, 235, 83, 160, 127, 79, 112, 242, 143, 115, 79, 119, 104, 52, 7,
                    159, 129, 0, 200, 136, 2,
                ],
            ),
            (
                (Filter::Lanczos3, [4, 2]),
                vec![
                    104, 64, 76, 178, 153, 68, 77, 222, 120, 182, 99, 63, 88, 50, 73, 181, 146, 57, 89, 206,
                    94, 190, 116, 55,
                ],
            ),
            (
                (Filter::Lanczos3, [3, 5]),
                vec![
                    186, 128, 73, 88, 241, 175, 109, 94, 138, 93, 69, 34, 182, 168, 0, 169, 101, 18, 94, 21,
                    126, 91, 148, 127, 184, 253, 82, 163, 130, 84, 117, 255, 144, 100, 66, 128, 101, 52, 10,
                    169, 132, 0, 195, 135, 0,
                ],
            ),
        ];
        let is_white = |x: u32, y: u32, c: u32| (c + x * x + 3 * y * y + x * y) % 5 < 2;
        let pixel = |x: u32, y: u32| [0, 1, 2].map(|channel| 255 * u8::from(is_white(x, y, channel)));
        let data = (0..9).flat_map(|y| (0..5).flat_map(move |x| pixel(x, y))).collect();
        let image = Pixels::new(5, 9, data);
        for ((filter, size), expected) in golden {
            let view = View { size, ..View::of_whole([5, 9], filter) };
            let found = view.of(image.clone()).data.to_vec();
            let worst = found.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(1), "{filter} {size:?}: {found:?}, {expected:?}");
        }
    }

    #[test]
    fn columns_are_resized_as_rows_of_the_transposed_image_are() {
        let mut stream = forebay_datasets::seed::Seed(10).stream("pixels");
        for filter in [Filter::Bicubic, Filter::Lanczos3] {
            for _ in 0..20 {
                // More columns than are floats at once.
                let [width, height] = [100 + stream.below(100) as usize, 900 + stream.below(200) as usize];
                let size = [20 + stream.below(150) as u32, 100];
                let levels: Vec<[u8; 3]> =
                    (0..width * height).map(|_| [0; 3].map(|_| 255 * stream.below(2) as u8)).collect();
                let turned: Vec<[u8; 3]> =
                    (0..width * height).map(|at| levels[at % height * width + at / height]).collect();
                let of = |levels: Vec<[u8; 3]>, [width, height]: [usize; 2], size: [u32; 2]| {
                    let sides = [width, height].map(|side| side as u32);
                    let view = View { size, ..View::of_whole(sides, filter) };
                    let image = Pixels::new(sides[0], sides[1], levels.into_flattened());
                    (view.is_down_first(), view.of(image).data.to_vec())
                };
                let (is_first, tall) = of(levels, [width, height], size);
                let (is_first_of_turned, wide) = of(turned, [height, width], [size[1], size[0]]);
                assert!(is_first && !is_first_of_turned);
                let [columns, rows] = size.map(|side| side as usize);
                for (at, pixel) in tall.as_chunks::<3>().0.iter().enumerate() {
                    let turned = wide.as_chunks::<3>().0[at % columns * rows + at / columns];
                    // A second pass may round in another way.
                    assert!((0..3).all(|at| pixel[at].abs_diff(turned[at]) <= 1), "{pixel:?} {turned:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_left_of_a_reduced_image_is_more_than_four_times_what_is_wanted() {
        for (side, reduced) in [(899, 1), (900, 2), (1799, 2), (1800, 4), (3599, 4), (3600, 8), (9999, 8)] {
            let of = |window| View::of_part(window, [100, 100], Filter::Bilinear).reduction();
            assert_eq!(of([0, 0, side, side]), reduced, "{side}");
            assert_eq!(of([7, 5, 9999, side]), of([0, 0, side, 9999]), "the shorter side decides");
        }
        let of = |side, small| View::of_part([0, 0, side, 9999], [100, small], Filter::Bilinear).reduction();
        assert_eq!((of(1599, 63), of(1600, 63), of(1599, 64)), (1, 2, 2));
    }
}
