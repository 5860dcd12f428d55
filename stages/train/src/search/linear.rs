//! The two decompositions of small symmetric matrices that the samplers need, row by row in a vector.

/// The lower Cholesky factor of an `n` by `n` matrix, over itself; `false` where it is not positive definite.
pub(super) fn cholesky(matrix: &mut [f64], n: usize) -> bool {
    for row in 0..n {
        for column in 0..=row {
            let (above, below) = matrix.split_at(row * n);
            let this = &below[..n];
            let other = if column == row { this } else { &above[column * n..column * n + n] };
            let dot: f64 = this[..column].iter().zip(&other[..column]).map(|(a, b)| a * b).sum();
            let rest = this[column] - dot;
            if column < row {
                let value = rest / other[column];
                matrix[row * n + column] = value;
            } else if rest > 1e-12 {
                matrix[row * n + row] = rest.sqrt();
            } else {
                return false;
            }
        }
    }
    true
}

/// Solves `L x = b` over `b`, where `L` is a lower Cholesky factor.
pub(super) fn forward(factor: &[f64], n: usize, b: &mut [f64]) {
    for row in 0..n {
        let line = &factor[row * n..row * n + row + 1];
        let dot: f64 = line[..row].iter().zip(&b[..row]).map(|(a, b)| a * b).sum();
        b[row] = (b[row] - dot) / line[row];
    }
}

/// Solves `Lᵀ x = b` over `b`.
pub(super) fn backward(factor: &[f64], n: usize, b: &mut [f64]) {
    for row in (0..n).rev() {
        let value = b[row] / factor[row * n + row];
        b[row] = value;
        for (column, b) in b[..row].iter_mut().enumerate() {
            *b -= factor[row * n + column] * value;
        }
    }
}

/// Eigenvalues of a symmetric matrix and its eigenvectors, in columns (cyclic Jacobi rotations).
pub(super) fn eigen(mut matrix: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; n * n];
    (0..n).for_each(|i| vectors[i * n + i] = 1.0);
    for _ in 0..60 {
        let off: f64 =
            (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| matrix[i * n + j].powi(2)).sum();
        let on: f64 = (0..n).map(|i| matrix[i * n + i].powi(2)).sum();
        if off <= 1e-26 * on {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                let apq = matrix[p * n + q];
                if apq == 0.0 {
                    continue;
                }
                let theta = (matrix[q * n + q] - matrix[p * n + p]) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for k in 0..n {
                    let (a, b) = (matrix[k * n + p], matrix[k * n + q]);
                    (matrix[k * n + p], matrix[k * n + q]) = (c * a - s * b, s * a + c * b);
                }
                for k in 0..n {
                    let (a, b) = (matrix[p * n + k], matrix[q * n + k]);
                    (matrix[p * n + k], matrix[q * n + k]) = (c * a - s * b, s * a + c * b);
                    let (a, b) = (vectors[k * n + p], vectors[k * n + q]);
                    (vectors[k * n + p], vectors[k * n + q]) = (c * a - s * b, s * a + c * b);
                }
            }
        }
    }
    ((0..n).map(|i| matrix[i * n + i]).collect(), vectors)
}
