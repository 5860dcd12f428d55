//! Average pooling: over sliding windows, over a grid of any size, over the whole plane.

use std::ops::Range;

use candle_core::{Device, Result, Tensor, WithDType, bail};
use rayon::prelude::*;

use super::tape::note;
use super::{CHUNK, Element, Pooling, has_kernel, with_element, with_values, zeros};

/// The mean of each window of `x` `[batch, channels, height, width]`, with the output size of
/// [`max_pool`](super::max_pool). Padding counts as zeros where `count_padding` is true, and not at all otherwise
/// (PyTorch's `count_include_pad`).
///
/// # Errors
/// When a window is larger than the padded image, or lies wholly in the padding.
pub fn average_pool(x: &Tensor, pooling: Pooling, count_padding: bool) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    pooling.check(height, width)?;
    let windows = |size: usize| -> Vec<Window> {
        let of = |index: usize| {
            let inside = pooling.inside(index, size);
            // A window of ceil mode is cut at the end of the padding.
            let start = index * pooling.stride;
            let padded = (start + pooling.window).min(size + 2 * pooling.padding) - start;
            let count = if count_padding { padded } else { inside.len() };
            Window { inside, count }
        };
        (0..pooling.output(size)).map(of).collect()
    };
    pool(x, windows(height), windows(width))
}

/// The mean of each cell of a grid of `rows` x `columns` over `x` `[batch, channels, height, width]`; cells of an
/// image that does not divide overlap by a pixel, as in PyTorch's `AdaptiveAvgPool2d`.
///
/// # Errors
/// When the image or the grid is empty.
pub fn adaptive_average_pool(x: &Tensor, (rows, columns): (usize, usize)) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    if height * width * rows * columns == 0 {
        bail!("a grid of {rows} x {columns} over an image of {height} x {width} pixels is empty");
    }
    if (height, width) == (rows, columns) {
        return Ok(x.clone());
    }
    let windows = |size: usize, cells: usize| -> Vec<Window> {
        let of = |cell: usize| {
            let inside = cell * size / cells..((cell + 1) * size).div_ceil(cells);
            Window { count: inside.len(), inside }
        };
        (0..cells).map(of).collect()
    };
    pool(x, windows(height, rows), windows(width, columns))
}

/// The mean over the pixels of `x` `[batch, channels, height, width]`, as `[batch, channels]`.
///
/// # Errors
/// When `x` has not four dimensions, or no pixel.
pub fn global_average_pool(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let plane = height * width;
    if plane == 0 {
        bail!("the mean over an image of {height} x {width} pixels is not defined");
    }
    if !has_kernel(x) {
        return x.reshape((batch, channels, plane))?.mean(2);
    }
    let y = with_element!("global_average_pool", x.dtype(), T => with_values::<T, _, 1>([x], |[x_values]| {
        let mean = |plane: &[T]| {
            let mut sum = [0.0];
            super::batch_norm::add_sums([plane], &mut sum, |[x]| [x]);
            T::from_f64(sum[0] / plane.len() as f64)
        };
        let y: Vec<T> = x_values.par_chunks(plane).map(mean).collect();
        Tensor::from_vec(y, (batch, channels), &Device::Cpu)
    }))?;
    note("global_average_pool", &y, [x], move |gradient, _| {
        with_element!("global_average_pool", gradient.dtype(), T => {
            with_values::<T, _, 1>([gradient], |[gradient]| {
                let share = T::from_f64(1.0 / plane as f64);
                let mut dx = zeros(gradient.len() * plane);
                dx.par_chunks_mut(plane).zip(gradient).for_each(|(dx, &gradient)| dx.fill(gradient * share));
                Ok([Some(Tensor::from_vec(dx, (batch, channels, height, width), &Device::Cpu)?)])
            })
        })
    })?;
    Ok(y)
}

/// The rows or columns that one output value is a mean of, and by how many it divides.
#[derive(Clone)]
struct Window {
    inside: Range<usize>,
    count: usize,
}

fn pool(x: &Tensor, rows: Vec<Window>, columns: Vec<Window>) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    if !has_kernel(x) {
        return composed(x, &rows, &columns);
    }
    let shape = (batch, channels, rows.len(), columns.len());
    let y = with_element!("average_pool", x.dtype(), T => with_values::<T, _, 1>([x], |[x_values]| {
        let y = forward(x_values, (height, width), &rows, &columns);
        Tensor::from_vec(y, shape, &Device::Cpu)
    }))?;
    note("average_pool", &y, [x], move |gradient, _| {
        with_element!("average_pool", gradient.dtype(), T => with_values::<T, _, 1>([gradient], |[gradient]| {
            let dx = backward(gradient, (height, width), &rows, &columns);
            Ok([Some(Tensor::from_vec(dx, (batch, channels, height, width), &Device::Cpu)?)])
        }))
    })?;
    Ok(y)
}

/// The mean as a matrix product from each side, for other devices than the CPU.
fn composed(x: &Tensor, rows: &[Window], columns: &[Window]) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let matrix = |windows: &[Window], size: usize| -> Result<Tensor> {
        let mut weights = vec![0f64; windows.len() * size];
        for (index, window) in windows.iter().enumerate() {
            weights[index * size..][window.inside.clone()].fill(1.0 / window.count as f64);
        }
        Tensor::from_vec(weights, (windows.len(), size), x.device())?.to_dtype(x.dtype())
    };
    matrix(rows, height)?.broadcast_matmul(x)?.broadcast_matmul(&matrix(columns, width)?.t()?)
}

fn forward<T: Element>(
    x: &[T],
    (height, width): (usize, usize),
    rows: &[Window],
    columns: &[Window],
) -> Vec<T> {
    let out_plane = rows.len() * columns.len();
    let mut y = zeros(x.len() / (height * width) * out_plane);
    let planes = (CHUNK / (height * width)).max(1);
    let jobs = y.par_chunks_mut(planes * out_plane).zip(x.par_chunks(planes * height * width));
    jobs.for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(out_plane).zip(x.chunks_exact(height * width)) {
            for (y, row) in y.chunks_exact_mut(columns.len()).zip(rows) {
                for (y, column) in y.iter_mut().zip(columns) {
                    let mut sum = T::ZERO;
                    for row in row.inside.clone() {
                        for &value in &x[row * width..][column.inside.clone()] {
                            sum += value;
                        }
                    }
                    *y = sum * T::from_f64(1.0 / (row.count * column.count) as f64);
                }
            }
        }
    });
    y
}

fn backward<T: Element>(
    gradient: &[T],
    (height, width): (usize, usize),
    rows: &[Window],
    columns: &[Window],
) -> Vec<T> {
    let out_plane = rows.len() * columns.len();
    let mut dx = zeros(gradient.len() / out_plane * height * width);
    let jobs = dx.par_chunks_mut(height * width).zip(gradient.par_chunks(out_plane));
    jobs.for_each(|(dx, gradient)| {
        for (gradient, row) in gradient.chunks_exact(columns.len()).zip(rows) {
            for (&gradient, column) in gradient.iter().zip(columns) {
                let share = gradient * T::from_f64(1.0 / (row.count * column.count) as f64);
                for row in row.inside.clone() {
                    for dx in &mut dx[row * width..][column.inside.clone()] {
                        *dx += share;
                    }
                }
            }
        }
    });
    dx
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, close, gradients, normal};
    use super::*;

    const CASES: &[([usize; 4], Pooling)] = &[
        ([2, 2, 5, 7], Pooling { window: 3, stride: 1, padding: 1, ceil: false }),
        ([1, 2, 6, 5], Pooling { window: 2, stride: 2, padding: 0, ceil: false }),
        ([1, 1, 6, 5], Pooling { window: 3, stride: 2, padding: 1, ceil: true }),
        ([1, 1, 3, 3], Pooling { window: 3, stride: 3, padding: 0, ceil: false }),
    ];
    const GRIDS: &[([usize; 4], (usize, usize))] =
        &[([2, 2, 7, 5], (3, 2)), ([1, 1, 2, 3], (4, 7)), ([1, 2, 4, 6], (2, 3)), ([1, 1, 3, 3], (1, 1))];

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        for &(shape, pooling) in CASES {
            for counted in [true, false] {
                check(&[normal(&shape, "x")], &|inputs| average_pool(&inputs[0], pooling, counted))?;
            }
        }
        for &(shape, grid) in GRIDS {
            check(&[normal(&shape, "x")], &|inputs| adaptive_average_pool(&inputs[0], grid))?;
        }
        check(&[normal(&[2, 3, 3, 5], "x")], &|inputs| global_average_pool(&inputs[0]))
    }

    #[test]
    fn the_kernel_equals_the_composition_of_other_devices() -> Result<()> {
        let windows = |ranges: &[(usize, usize, usize)]| -> Vec<Window> {
            ranges.iter().map(|&(start, end, count)| Window { inside: start..end, count }).collect()
        };
        let (rows, columns) = (windows(&[(0, 2, 3), (1, 4, 3)]), windows(&[(0, 3, 3), (2, 5, 3), (4, 5, 2)]));
        let x = normal(&[2, 2, 4, 5], "x");
        close(&pool(&x, rows.clone(), columns.clone())?, &composed(&x, &rows, &columns)?, 1e-12)?;
        let kernel = |inputs: &[Tensor]| pool(&inputs[0], rows.clone(), columns.clone());
        let other = |inputs: &[Tensor]| composed(&inputs[0], &rows, &columns);
        let x = std::slice::from_ref(&x);
        close(&gradients(x, &kernel)?[0], &gradients(x, &other)?[0], 1e-12)
    }

    #[test]
    fn padding_counts_only_where_asked() -> Result<()> {
        let x = Tensor::new(&[[[[4f64, 8.0], [0.0, 4.0]]]], &Device::Cpu)?;
        let pooling = Pooling { window: 2, stride: 2, padding: 1, ceil: false };
        let values = |counted| average_pool(&x, pooling, counted)?.flatten_all()?.to_vec1::<f64>();
        assert_eq!(values(true)?, [1.0, 2.0, 0.0, 1.0]);
        assert_eq!(values(false)?, [4.0, 8.0, 0.0, 4.0]);
        Ok(())
    }

    #[test]
    fn cells_of_a_grid_are_pytorchs() -> Result<()> {
        // torch.nn.AdaptiveAvgPool2d((1, 2)) of a row of five: cells 0..3 and 2..5.
        let x = Tensor::new(&[[[[1f64, 2.0, 6.0, 4.0, 8.0]]]], &Device::Cpu)?;
        let y = adaptive_average_pool(&x, (1, 2))?.flatten_all()?.to_vec1::<f64>()?;
        assert_eq!(y, [3.0, 6.0]);
        assert!(adaptive_average_pool(&x, (0, 2)).is_err());
        Ok(())
    }
}
