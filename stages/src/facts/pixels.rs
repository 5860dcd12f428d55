//! What a picture is like, measured on a grid of cells in one pass over its pixels.

use forebay_datasets::sample::Pixels;

/// The most cells along the longer side of a picture: at this scale sizes hardly matter, and noise does not.
const CELLS_MAX: u32 = 128;

/// Parts of a grey level in which cells are kept: whole numbers add up in any order, and so several at once.
const QUARTERS: usize = 4;

/// What a picture is like, whatever its size: it is first averaged into at most 128 cells along its longer side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelFacts {
    /// `[3]`: mean red, green and blue, 0 to 1.
    pub mean_color: [f32; 3],
    /// Mean luma (0.299 R + 0.587 G + 0.114 B, ITU-R BT.601), 0 to 1.
    pub brightness: f32,
    /// 5 % of the cells are darker, 0 to 1.
    pub brightness_p5: f32,
    /// 1 % of the cells are brighter, 0 to 1.
    pub brightness_p99: f32,
    /// Standard deviation of the cells' luma, 0 to 0.5.
    pub contrast: f32,
    /// Entropy of the histogram of the cells' luma in 256 levels, 0 to 8 bits.
    pub entropy: f32,
    /// Variance of the 4-neighbour Laplacian of the cells' luma, levels²; `None` below 3 cells a side.
    pub sharpness: Option<f32>,
    /// Whether red, green and blue are equal in every pixel.
    pub is_gray: bool,
    /// How many cells there are.
    pub cells: u32,
}

impl PixelFacts {
    /// Measures a picture.
    pub fn of(pixels: &Pixels) -> PixelFacts {
        let grid = Grid::of(pixels);
        let n = grid.cells.len().max(1) as f64;
        let (mut sum, mut squares, mut histogram) = (0u64, 0u64, [0u32; 256]);
        for cell in &grid.cells {
            sum += u64::from(*cell);
            squares += u64::from(*cell) * u64::from(*cell);
            histogram[(usize::from(*cell) / QUARTERS).min(255)] += 1;
        }
        let quarters = QUARTERS as f64;
        let mean = sum as f64 / n / quarters;
        let variance = (squares as f64 / n / quarters / quarters - mean * mean).max(0.0);
        let shares = histogram.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / n);
        let entropy: f64 = shares.map(|share| -share * share.log2()).sum();
        let level = |share: f64| {
            let wanted = (share * n).ceil().max(1.0) as u32;
            let mut below = 0;
            let at = histogram.iter().position(|count| {
                below += count;
                below >= wanted
            });
            at.unwrap_or(255) as f32 / 255.0
        };
        PixelFacts {
            mean_color: grid.mean_color,
            brightness: (mean / 255.0) as f32,
            brightness_p5: level(0.05),
            brightness_p99: level(0.99),
            contrast: (variance.sqrt() / 255.0) as f32,
            entropy: entropy as f32,
            sharpness: grid.laplacian_variance(),
            is_gray: grid.is_gray,
            cells: grid.cells.len() as u32,
        }
    }
}

/// Mean luma of cells that tile a picture, each of whole pixels.
struct Grid {
    width: usize,
    height: usize,
    /// `[height, width]`, in quarters of a grey level: 0 to 1020.
    cells: Vec<u16>,
    mean_color: [f32; 3],
    is_gray: bool,
}

impl Grid {
    fn of(pixels: &Pixels) -> Grid {
        let (columns, rows) = (pixels.width as usize, pixels.height as usize);
        let longer = pixels.width.max(pixels.height).max(1);
        let cells_of = |side: u32| match longer <= CELLS_MAX {
            true => side as usize,
            false => ((u64::from(side) * u64::from(CELLS_MAX) + u64::from(longer) / 2) / u64::from(longer))
                .max(1) as usize,
        };
        let (width, height) = (cells_of(pixels.width), cells_of(pixels.height));
        let edge = |at: usize, side: usize, cells: usize| at * side / cells;
        let mut cells = Vec::with_capacity(width * height);
        // Per byte of a line, so that the loop over all bytes is one addition each; a column of 16,384 lines fits.
        let mut sums = vec![0u32; 3 * columns];
        let mut totals = [0u64; 3];
        let mut is_gray = true;
        let mut lines = pixels.data.chunks_exact((3 * columns).max(3));
        for row in 0..height {
            let n_lines = edge(row + 1, rows, height) - edge(row, rows, height);
            sums.fill(0);
            for line in lines.by_ref().take(n_lines) {
                for (sum, byte) in sums.iter_mut().zip(line) {
                    *sum = sum.wrapping_add(u32::from(*byte));
                }
                if is_gray {
                    is_gray = line.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]);
                }
            }
            let (by_column, _) = sums.as_chunks::<3>();
            for column in 0..width {
                let (from, to) = (edge(column, columns, width), edge(column + 1, columns, width));
                let mut cell = [0u64; 3];
                for pixel in &by_column[from..to] {
                    for (sum, value) in cell.iter_mut().zip(pixel) {
                        *sum = sum.wrapping_add(u64::from(*value));
                    }
                }
                for (total, sum) in totals.iter_mut().zip(cell) {
                    *total += sum;
                }
                // BT.601 in 256ths: 77 + 150 + 29.
                let luma = 77 * cell[0] + 150 * cell[1] + 29 * cell[2];
                let quarters = luma as f32 / (256 / QUARTERS * (to - from) * n_lines) as f32;
                cells.push((quarters + 0.5) as u16);
            }
        }
        let n = (columns * rows).max(1) as f64 * 255.0;
        let mean_color = totals.map(|total| (total as f64 / n) as f32);
        Grid { width, height, cells, mean_color, is_gray }
    }

    fn laplacian_variance(&self) -> Option<f32> {
        let Grid { width, height, cells, .. } = self;
        if *width < 3 || *height < 3 {
            return None;
        }
        let (mut sum, mut squares) = (0i64, 0u64);
        for row in 1..height - 1 {
            let line = |row: usize| &cells[row * width..(row + 1) * width];
            let (above, here, below) = (line(row - 1), line(row), line(row + 1));
            let (mut row_sum, mut row_squares) = (0i32, 0u32);
            for (((above, below), left), (middle, right)) in
                above[1..].iter().zip(&below[1..]).zip(here).zip(here[1..width - 1].iter().zip(&here[2..]))
            {
                let [above, below, left, middle, right] =
                    [above, below, left, middle, right].map(|cell| i32::from(*cell));
                let value = 4 * middle - above - below - left - right;
                // At most 4080, of at most 128 cells: 4080² * 128 < 2³².
                row_sum = row_sum.wrapping_add(value);
                row_squares = row_squares.wrapping_add(value.wrapping_mul(value) as u32);
            }
            sum += i64::from(row_sum);
            squares += u64::from(row_squares);
        }
        let n = ((width - 2) * (height - 2)) as f64;
        let quarters = QUARTERS as f64;
        let (sum, squares) = (sum as f64 / quarters, squares as f64 / quarters / quarters);
        let mean = sum / n;
        Some((squares / n - mean * mean).max(0.0) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_a_small_picture_are_those_worked_out_by_hand() {
        // Columns of 0 and 255 in turn.
        let data = (0..16).flat_map(|at| [[0u8; 3], [255; 3]][at % 2]).collect();
        let facts = PixelFacts::of(&Pixels::new(4, 4, data));
        assert_eq!((facts.brightness, facts.contrast, facts.entropy), (0.5, 0.5, 1.0));
        assert_eq!((facts.brightness_p5, facts.brightness_p99), (0.0, 1.0));
        // The Laplacian is 2 · 255 and -2 · 255 in turn.
        assert_eq!(facts.sharpness, Some(510.0 * 510.0));
        assert!(facts.is_gray);
        assert_eq!(facts.mean_color, [0.5; 3]);
        let facts = PixelFacts::of(&Pixels::new(2, 1, vec![0, 0, 0, 0, 255, 0]));
        assert_eq!((facts.is_gray, facts.mean_color, facts.sharpness), (false, [0.0, 0.5, 0.0], None));
    }

    #[test]
    fn size_matters_little() {
        let picture = |side: u32| {
            let level = |x: u32, y: u32| {
                let (x, y) = (x as f32 / side as f32, y as f32 / side as f32);
                (127.0 + 100.0 * (40.0 * x).sin() * (25.0 * y).cos()) as u8
            };
            let data = (0..side * side).flat_map(|at| [level(at % side, at / side); 3]).collect();
            PixelFacts::of(&Pixels::new(side, side, data))
        };
        let (small, large) = (picture(256), picture(1000));
        let (a, b) = (small.sharpness.expect("many cells"), large.sharpness.expect("many cells"));
        assert!((a / b - 1.0).abs() < 0.1, "{a} {b}");
        assert!(
            (small.entropy - large.entropy).abs() < 0.1 && (small.contrast - large.contrast).abs() < 0.01
        );
        assert_eq!((small.cells, large.cells), (128 * 128, 128 * 128));
    }
}
