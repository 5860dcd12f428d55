//! The nearest neighbours of rows, exact and by comparison with every row.

use rayon::prelude::*;

use super::product::{Matrix, product};

/// Queries that one job takes, and points that they are compared with at a time: their products stay in cache.
const QUERIES: usize = 64;
const POINTS: usize = 512;

/// More neighbours than asked for are compared in double precision, since the products are rounded.
const SPARE: usize = 8;

/// The `k` nearest of `points` for each of the rows numbered `queries` among the same points, itself left out, nearest
/// first: `[queries][k]` row numbers of `points` `[n, width]`. `among` says which rows may be neighbours, by number. Distances
/// are Euclidean; of equal ones the lower number is first. There are fewer than `k` where there are not so many others.
///
/// # Panics
/// When `points` are not whole rows, or a query or neighbour is none of them.
pub fn nearest(points: &[f32], width: usize, queries: &[u32], among: &[u32], k: usize) -> Vec<Vec<u32>> {
    assert!(width > 0 && points.len().is_multiple_of(width), "points are whole rows");
    let centred = centred(points, width, queries, among);
    let row = |index: u32| &points[index as usize * width..(index as usize + 1) * width];
    let exact = |a: u32, b: u32| -> f64 {
        let squares = row(a).iter().zip(row(b)).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
        squares.sum()
    };
    let found = queries.par_chunks(QUERIES).enumerate().map(|(job, chunk)| {
        let of_chunk = &centred.queries[job * QUERIES * width..][..chunk.len() * width];
        let mut nearest = vec![Candidates::new(k + SPARE); chunk.len()];
        let mut products = vec![0f32; chunk.len() * POINTS];
        for (block, points) in centred.points.chunks(POINTS * width).enumerate() {
            let n = points.len() / width;
            let (left, right) = (Matrix::rows(of_chunk, width), Matrix::transposed(points, width));
            product((chunk.len(), width, n), left, right, &mut products, POINTS, false);
            for (query, nearest) in nearest.iter_mut().enumerate() {
                for (column, product) in products[query * POINTS..][..n].iter().enumerate() {
                    let index = block * POINTS + column;
                    // The query's own square is the same for all.
                    let distance = centred.squares[index] - 2.0 * product;
                    if among[index] != chunk[query] {
                        nearest.offer(distance, among[index]);
                    }
                }
            }
        }
        let sorted = chunk.iter().zip(nearest).map(|(&query, nearest)| {
            let mut rows: Vec<(f64, u32)> =
                nearest.rows.into_iter().map(|(_, index)| (exact(query, index), index)).collect();
            rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            rows.into_iter().take(k).map(|(_, index)| index).collect()
        });
        sorted.collect::<Vec<Vec<u32>>>()
    });
    found.collect::<Vec<_>>().into_iter().flatten().collect()
}

/// Queries and possible neighbours around the mean of these, so that their products are small numbers.
struct Centred {
    queries: Vec<f32>,
    points: Vec<f32>,
    /// The squared length of each point.
    squares: Vec<f32>,
}

fn centred(points: &[f32], width: usize, queries: &[u32], among: &[u32]) -> Centred {
    let row = |index: &u32| &points[*index as usize * width..(*index as usize + 1) * width];
    let mut mean = vec![0f64; width];
    for index in among {
        mean.iter_mut().zip(row(index)).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    mean.iter_mut().for_each(|sum| *sum /= among.len().max(1) as f64);
    let of = |rows: &[u32]| -> Vec<f32> {
        let values = rows.iter().flat_map(|index| row(index).iter().zip(&mean));
        values.map(|(value, mean)| (f64::from(*value) - mean) as f32).collect()
    };
    let points = of(among);
    let square = |row: &[f32]| row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() as f32;
    let squares = points.chunks_exact(width).map(square).collect();
    Centred { queries: of(queries), points, squares }
}

/// The rows with the smallest distances so far, by ascending distance.
#[derive(Clone)]
struct Candidates {
    rows: Vec<(f32, u32)>,
    most: usize,
}

impl Candidates {
    fn new(most: usize) -> Candidates {
        Candidates { rows: Vec::with_capacity(most + 1), most }
    }

    #[inline]
    fn offer(&mut self, distance: f32, index: u32) {
        if self.rows.len() == self.most && self.rows.last().is_some_and(|last| distance >= last.0) {
            return;
        }
        let place = self.rows.partition_point(|row| row.0 <= distance);
        self.rows.insert(place, (distance, index));
        self.rows.truncate(self.most);
    }
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;

    fn by_loops(points: &[f32], width: usize, query: u32, among: &[u32], k: usize) -> Vec<u32> {
        let row = |index: u32| &points[index as usize * width..][..width];
        let mut found: Vec<(f64, u32)> = among
            .iter()
            .filter(|index| **index != query)
            .map(|&index| {
                let squares =
                    row(query).iter().zip(row(index)).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
                (squares.sum(), index)
            })
            .collect();
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        found.into_iter().take(k).map(|(_, index)| index).collect()
    }

    #[test]
    fn neighbours_are_those_of_comparing_every_pair() {
        let mut stream = Seed(2).stream("points");
        for (n, width, k) in [(1, 3, 5), (2, 1, 5), (70, 4, 5), (600, 9, 3)] {
            // Far from the origin, where single precision would lose them, and some of them twice.
            let mut points: Vec<f32> = (0..n * width).map(|_| 500.0 + stream.normal() as f32).collect();
            if n > 10 {
                points.copy_within(0..width, 3 * width);
            }
            let all: Vec<u32> = (0..n as u32).collect();
            let some: Vec<u32> = all.iter().copied().filter(|index| index % 3 != 1).collect();
            for (queries, among) in [(&all, &all), (&some, &all), (&some, &some), (&all, &some)] {
                let found = nearest(&points, width, queries, among, k);
                assert_eq!(found.len(), queries.len());
                for (query, found) in queries.iter().zip(found) {
                    assert_eq!(found, by_loops(&points, width, *query, among, k), "{n} rows, query {query}");
                }
            }
        }
    }
}
