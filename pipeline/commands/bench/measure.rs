//! A figure that was measured several times: its median, and how far the measurements lie around it.

use serde::{Deserialize, Serialize};

use super::repetition::Repetition;

/// The median of repetitions, with the smallest and the largest of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// The one in the middle; of an even number the mean of the two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Measure {
    /// That of these numbers, of which there is at least one.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Measure {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        let (first, last) = ((numbers.len() - 1) / 2, numbers.len() / 2);
        Measure {
            median: (numbers[first] + numbers[last]) / 2.0,
            min: numbers[0],
            max: numbers[numbers.len() - 1],
        }
    }

    /// How far the farthest repetition is from the median.
    pub fn spread(&self) -> f64 {
        (self.max - self.median).max(self.median - self.min)
    }
}

/// What is compared between two benches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Images per second of wall time.
    pub images_per_second: Measure,
    /// Processor time per 1000 images, user and system, of all threads.
    pub cpu_seconds_per_1000: Measure,
    /// Time to the first batch.
    pub first_batch_seconds: Measure,
}

impl Measures {
    /// Those of repetitions, of which there is at least one.
    pub fn of(repetitions: &[Repetition]) -> Measures {
        let figure = |pick: fn(&Repetition) -> f64| Measure::of(repetitions.iter().map(pick));
        Measures {
            images_per_second: figure(|one| one.images_per_second),
            cpu_seconds_per_1000: figure(|one| one.cpu_seconds_per_1000),
            first_batch_seconds: figure(|one| one.first_batch_seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_middle_and_both_ends() {
        for (numbers, median, min, max, spread) in [
            (&[3.0][..], 3.0, 3.0, 3.0, 0.0),
            (&[4.0, 1.0], 2.5, 1.0, 4.0, 1.5),
            (&[9.0, 1.0, 2.0, 3.0, 4.0], 3.0, 1.0, 9.0, 6.0),
        ] {
            let figure = Measure::of(numbers.iter().copied());
            assert_eq!(figure, Measure { median, min, max });
            assert_eq!(figure.spread(), spread);
        }
    }
}
