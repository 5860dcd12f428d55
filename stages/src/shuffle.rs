//! Rows that were read group by group take their places in the order of their window.

use forebay_datasets::sample::Sample;

use crate::stage::Regroup;

/// Rows of one window that were read together.
#[derive(Debug)]
pub struct WindowPart<P> {
    /// How many rows the window has.
    pub window_rows: usize,
    /// Each row with its place in the order of the window.
    pub samples: Vec<(usize, Sample<P>)>,
}

/// Holds the rows of one window until all are there, and lets them go in their order, in chunks.
#[derive(Debug)]
pub struct Shuffle<P> {
    chunk: usize,
    held: Vec<Option<Sample<P>>>,
    missing: usize,
}

impl<P> Shuffle<P> {
    /// Gives chunks of `chunk` samples.
    pub fn new(chunk: usize) -> Shuffle<P> {
        Shuffle { chunk: chunk.max(1), held: Vec::new(), missing: 0 }
    }
}

impl<P: Send + 'static> Regroup for Shuffle<P> {
    const NAME: &'static str = "shuffle";
    type In = WindowPart<P>;
    type Out = Vec<Sample<P>>;

    /// # Panics
    /// When the parts of a window do not make up its rows.
    fn push(&mut self, part: WindowPart<P>, out: &mut Vec<Self::Out>) {
        if self.missing == 0 {
            self.held = (0..part.window_rows).map(|_| None).collect();
            self.missing = part.window_rows;
        }
        for (place, sample) in part.samples {
            let before = self.held[place].replace(sample);
            assert!(before.is_none(), "a window has one row at a place");
            self.missing -= 1;
        }
        if self.missing > 0 {
            return;
        }
        let mut rows = std::mem::take(&mut self.held).into_iter().flatten().peekable();
        while rows.peek().is_some() {
            out.push(rows.by_ref().take(self.chunk).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_leave_in_the_order_of_their_window_when_the_last_has_come() {
        let part = |window_rows, rows: &[(usize, u32)]| WindowPart {
            window_rows,
            samples: rows
                .iter()
                .map(|&(place, i)| {
                    (place, Sample { id: format!("{i}").into(), copy: 0, label: 0, payload: Ok(i) })
                })
                .collect(),
        };
        let mut shuffle = Shuffle::new(2);
        let mut out = Vec::new();
        shuffle.push(part(5, &[(4, 40), (0, 0), (2, 20)]), &mut out);
        assert!(out.is_empty());
        shuffle.push(part(5, &[(1, 10), (3, 30)]), &mut out);
        shuffle.push(part(1, &[(0, 50)]), &mut out);
        let values: Vec<Vec<u32>> =
            out.into_iter().map(|chunk| chunk.into_iter().map(|s| s.payload.unwrap()).collect()).collect();
        assert_eq!(values, [vec![0, 10], vec![20, 30], vec![40], vec![50]]);
    }
}
