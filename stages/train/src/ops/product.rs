//! One matrix product with strides, bounds-checked, on the thread that calls it.

use super::Element;

/// A matrix inside a slice: element (row, column) is at `row * row_stride + column * column_stride`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    pub(super) values: &'a [T],
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows one after the other, `row_stride` apart.
    pub(super) fn rows(values: &'a [T], row_stride: usize) -> Matrix<'a, T> {
        Matrix { values, row_stride, column_stride: 1 }
    }

    /// The transpose of a matrix whose rows are `row_stride` apart.
    pub(super) fn transposed(values: &'a [T], row_stride: usize) -> Matrix<'a, T> {
        Matrix { values, row_stride: 1, column_stride: row_stride }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.values.len()
    }
}

/// `target = left × right`, or `target += left × right`; `left` is `[rows, inner]`, `right` `[inner,
/// columns]`, and the rows of `target` are `target_stride` apart.
///
/// # Panics
/// When a matrix reaches beyond its slice, or rows of `target` overlap.
#[allow(unsafe_code)]
pub(super) fn product<T: Element>(
    (rows, inner, columns): (usize, usize, usize),
    left: Matrix<'_, T>,
    right: Matrix<'_, T>,
    target: &mut [T],
    target_stride: usize,
    accumulate: bool,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(inner > 0 && left.holds(rows, inner) && right.holds(inner, columns), "a matrix leaves its slice");
    assert!((rows - 1) * target_stride + columns <= target.len(), "the target leaves its slice");
    assert!(rows == 1 || target_stride >= columns, "rows of the target overlap");
    let one = T::from_f64(1.0);
    // SAFETY: the assertions above keep every element of the three matrices inside its slice; `target` is
    // borrowed mutably, so it overlaps neither operand; strides fit isize because slices do. `gemm` is given
    // f32 or f64 only (Element has no other implementation) and runs on this thread.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            target.as_mut_ptr(),
            1,
            target_stride as isize,
            accumulate,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            if accumulate { one } else { T::ZERO },
            one,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_reads_strides_and_adds_when_asked() {
        // [[1 2 3] [4 5 6]] × [[1 0] [0 1] [1 1]], the right one stored transposed.
        let left = [1f64, 2.0, 3.0, 4.0, 5.0, 6.0];
        let right = [1f64, 0.0, 1.0, 0.0, 1.0, 1.0];
        let mut target = [10.0, 10.0, -1.0, 10.0, 10.0];
        let (left, right) = (Matrix::rows(&left, 3), Matrix::transposed(&right, 3));
        product((2, 3, 2), left, right, &mut target, 3, true);
        assert_eq!(target, [14.0, 15.0, -1.0, 20.0, 21.0]);
        product((2, 3, 2), left, right, &mut target, 3, false);
        assert_eq!(target, [4.0, 5.0, -1.0, 10.0, 11.0]);
    }

    /// The twin of the product: what it must be, number by number.
    fn by_loops(
        (rows, inner, columns): (usize, usize, usize),
        left: impl Fn(usize, usize) -> f32,
        right: impl Fn(usize, usize) -> f32,
    ) -> Vec<f32> {
        let sum = |row, column| (0..inner).map(|i| left(row, i) * right(i, column)).sum();
        (0..rows * columns).map(|index| sum(index / columns, index % columns)).collect()
    }

    #[test]
    fn a_product_equals_that_of_scalar_loops() {
        // Whole numbers, so that the order of the sums changes nothing; sizes around the widths of registers.
        for (rows, inner, columns) in
            [(1, 1, 1), (3, 17, 5), (8, 8, 8), (16, 33, 31), (65, 7, 129), (1, 64, 9)]
        {
            let number = |index: usize| (index * 7 % 13) as f32 - 6.0;
            let left: Vec<f32> = (0..rows * inner).map(number).collect();
            let right: Vec<f32> = (0..inner * columns).map(|index| number(index + 3)).collect();
            let expected = by_loops(
                (rows, inner, columns),
                |row, i| left[row * inner + i],
                |i, column| right[i * columns + column],
            );
            let mut target = vec![0.0; rows * columns];
            let (left, right) = (Matrix::rows(&left, inner), Matrix::rows(&right, columns));
            product((rows, inner, columns), left, right, &mut target, columns, false);
            assert_eq!(target, expected, "{rows} x {inner} x {columns}");
        }
    }

    #[test]
    #[should_panic(expected = "a matrix leaves its slice")]
    fn a_matrix_beyond_its_slice_panics() {
        let values = [0f32; 5];
        product((2, 3, 1), Matrix::rows(&values, 3), Matrix::rows(&values, 1), &mut [0.0; 2], 1, false);
    }
}
