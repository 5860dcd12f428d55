//! The learning rate as a pure function of the step, so that a resumed run cannot drift from it.

use std::f64::consts::PI;

/// How the learning rate moves after the warm-up.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// It stays.
    Constant,
    /// It is multiplied by `factor` every so many steps of the run, warm-up included.
    Step {
        /// Steps between two changes.
        every: u64,
        /// At each of them.
        factor: f64,
    },
    /// It is multiplied by `factor` at each of these steps of the run, warm-up included.
    MultiStep {
        /// The steps.
        at: Vec<u64>,
        /// At each of them.
        factor: f64,
    },
    /// It is multiplied by `factor` every step.
    Exponential {
        /// At every step.
        factor: f64,
    },
    /// Half a cosine down to `floor` (Loshchilov and Hutter, arXiv 1608.03983).
    Cosine {
        /// What it ends at.
        floor: f64,
    },
    /// Half cosines down to zero, each `growth` times as long as the one before (same paper).
    CosineRestarts {
        /// Steps of the first.
        period: u64,
        /// At least 1.
        growth: f64,
    },
    /// Half cosines down to zero, each `period` steps long (Huang et al., arXiv 1704.00109, equation 2); the warm-up is part of the
    /// first.
    Cycles {
        /// Steps of each.
        period: u64,
    },
    /// Up from `peak / start_divisor` and down to `start / end_divisor`, both by half cosines (Smith, arXiv 1708.07120,
    /// in PyTorch's form), while the momentum goes from 0.95 down to 0.85 and up again. It has a warm-up of its own, and
    /// ignores the other.
    OneCycle {
        /// Share of the steps that go up.
        warm_share: f64,
        /// Peak over start.
        start_divisor: f64,
        /// Start over end.
        end_divisor: f64,
    },
    /// The share of the steps that is left, to this power.
    Polynomial {
        /// 1 is linear.
        power: f64,
    },
    /// Straight down to zero.
    Linear,
}

/// A linear warm-up followed by a shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// What follows the warm-up.
    pub shape: Shape,
    /// The largest learning rate, reached at the end of the warm-up.
    pub peak: f64,
    /// Steps of the warm-up; step 0 already moves, with `peak / warmup_steps`.
    pub warmup_steps: u64,
    /// All steps, warm-up included.
    pub steps_total: u64,
}

/// What the momentum of one cycle begins and ends at, and what it is at the largest learning rate: PyTorch's defaults.
const MOMENTUM_MAX: f64 = 0.95;
const MOMENTUM_MIN: f64 = 0.85;

fn half_cosine(from: f64, to: f64, share: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (PI * share).cos())
}

impl Schedule {
    /// The momentum of step `step`, counted from 0, or the decay of Adam's mean of gradients, which stands for it; `None`
    /// where the shape leaves it as it is. One cycle lowers it while the learning rate climbs, and raises it again.
    pub fn momentum_at(&self, step: u64) -> Option<f64> {
        let Shape::OneCycle { warm_share, .. } = self.shape else { return None };
        Some(self.on_cycle(warm_share, step, [MOMENTUM_MAX, MOMENTUM_MIN, MOMENTUM_MAX]))
    }

    /// A value on its way between three points, of which the middle one is reached after `warm_share` of the steps.
    fn on_cycle(&self, warm_share: f64, step: u64, [start, middle, end]: [f64; 3]) -> f64 {
        let last = self.steps_total.saturating_sub(1) as f64;
        let (turn, step) = (warm_share * self.steps_total as f64 - 1.0, (step as f64).min(last));
        match step <= turn {
            true => half_cosine(start, middle, step / turn.max(1e-9)),
            false => half_cosine(middle, end, (step - turn) / (last - turn).max(1e-9)),
        }
    }

    /// The learning rate of step `step`, counted from 0. Beyond the last step it stays at its end.
    pub fn at(&self, step: u64) -> f64 {
        if let Shape::OneCycle { warm_share, start_divisor, end_divisor } = self.shape {
            let start = self.peak / start_divisor;
            return self.on_cycle(warm_share, step, [start, self.peak, start / end_divisor]);
        }
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let (done, all) = (step - self.warmup_steps, self.steps_total.saturating_sub(self.warmup_steps));
        let share = if done >= all { 1.0 } else { done as f64 / all as f64 };
        match &self.shape {
            Shape::Constant | Shape::OneCycle { .. } => self.peak,
            Shape::Step { every, factor } => self.peak * factor.powf((step / (*every).max(1)) as f64),
            Shape::MultiStep { at, factor } => {
                self.peak * factor.powf(at.iter().filter(|&&at| at <= step).count() as f64)
            }
            Shape::Exponential { factor } => self.peak * factor.powf(done as f64),
            Shape::Cosine { floor } => half_cosine(self.peak, *floor, share),
            Shape::CosineRestarts { period, growth } => {
                let (mut period, mut done) = ((*period).max(1) as f64, done as f64);
                while done >= period {
                    done -= period;
                    period *= growth.max(1.0);
                }
                half_cosine(self.peak, 0.0, done / period)
            }
            Shape::Cycles { period } => {
                let period = (*period).max(1);
                let (start, place) = match step < period {
                    true => (self.warmup_steps.min(period - 1), step),
                    false => (0, step % period),
                };
                half_cosine(self.peak, 0.0, place.saturating_sub(start) as f64 / (period - start) as f64)
            }
            Shape::Polynomial { power } => self.peak * (1.0 - share).powf(*power),
            Shape::Linear => self.peak * (1.0 - share),
        }
    }
}

/// Lowers the learning rate when a score has stopped improving, as PyTorch's `ReduceLROnPlateau` with an absolute
/// threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct Plateau {
    /// What the learning rate is multiplied by so far.
    pub scale: f64,
    factor: f64,
    patience: u32,
    min_delta: f64,
    /// The score that the next improvement is measured from, the higher the better; `None` before the first.
    pub best: Option<f64>,
    /// Scores since the last improvement.
    pub stale: u32,
}

impl Plateau {
    /// Multiplies by `factor` after more than `patience` scores without an improvement of more than `min_delta`.
    pub fn new(factor: f64, patience: u32, min_delta: f64) -> Plateau {
        Plateau { scale: 1.0, factor, patience, min_delta, best: None, stale: 0 }
    }

    /// Takes the next score into account; true when it lowered the learning rate.
    pub fn observe(&mut self, score: f64, higher_is_better: bool) -> bool {
        let score = if higher_is_better { score } else { -score };
        // A score that is not a number is no improvement, and must not become the one to beat.
        if !score.is_nan() && self.best.is_none_or(|best| score > best + self.min_delta) {
            (self.best, self.stale) = (Some(score), 0);
            return false;
        }
        self.stale += 1;
        if self.stale <= self.patience {
            return false;
        }
        (self.scale, self.stale) = (self.scale * self.factor, 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: Shape, expected: [f64; 12]) {
        let schedule = Schedule { shape, peak: 0.4, warmup_steps: 0, steps_total: 12 };
        for (step, expected) in expected.into_iter().enumerate() {
            let rate = schedule.at(step as u64);
            assert!(
                (rate - expected).abs() < 2e-9,
                "{:?} step {step}: {rate} is not {expected}",
                schedule.shape
            );
        }
    }

    #[test]
    #[rustfmt::skip]
    fn shapes_are_those_of_pytorch() {
        // torch.optim.lr_scheduler of PyTorch 2.15.
        check(Shape::Step { every: 4, factor: 0.5 },
            [0.4, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1]);
        check(Shape::MultiStep { at: vec![3, 8], factor: 0.1 },
            [0.4, 0.4, 0.4, 0.04, 0.04, 0.04, 0.04, 0.04, 0.004, 0.004, 0.004, 0.004]);
        check(Shape::Exponential { factor: 0.9 },
            [0.4, 0.36, 0.324, 0.2916, 0.26244, 0.236196, 0.2125764, 0.19131876, 0.172186884, 0.154968196, 0.139471376, 0.125524238]);
        check(Shape::Cosine { floor: 0.0 },
            [0.4, 0.393185165, 0.373205081, 0.341421356, 0.3, 0.251763809, 0.2, 0.148236191, 0.1, 0.058578644, 0.026794919, 0.006814835]);
        check(Shape::CosineRestarts { period: 3, growth: 2.0 },
            [0.4, 0.3, 0.1, 0.4, 0.373205081, 0.3, 0.2, 0.1, 0.026794919, 0.4, 0.393185165, 0.373205081]);
        // CosineAnnealingWarmRestarts with T_mult 1.
        check(Shape::Cycles { period: 4 },
            [0.4, 0.341421356, 0.2, 0.058578644, 0.4, 0.341421356, 0.2, 0.058578644, 0.4, 0.341421356, 0.2, 0.058578644]);
        check(Shape::Polynomial { power: 2.0 },
            [0.4, 0.336111111, 0.277777778, 0.225, 0.177777778, 0.136111111, 0.1, 0.069444444, 0.044444444, 0.025, 0.011111111, 0.002777778]);
        check(Shape::Linear,
            [0.4, 0.366666667, 0.333333333, 0.3, 0.266666667, 0.233333333, 0.2, 0.166666667, 0.133333333, 0.1, 0.066666667, 0.033333333]);
        check(Shape::OneCycle { warm_share: 0.3, start_divisor: 25.0, end_divisor: 1e4 },
            [0.016, 0.139915862, 0.351714064, 0.397766174, 0.373205188, 0.324698262, 0.258951599, 0.185054841, 0.113224399, 0.053391012, 0.013826795, 1.6e-6]);
    }

    #[test]
    fn one_cycle_moves_the_momentum_as_pytorchs_does() {
        // torch.optim.lr_scheduler.OneCycleLR(SGD(.., momentum=0.9), max_lr=0.4, total_steps=12), before each step.
        let expected = [
            0.95,
            0.917730244352,
            0.862574462591,
            0.850558458689,
            0.856698729811,
            0.868825509907,
            0.885262241279,
            0.903736504679,
            0.921694186956,
            0.936652593591,
            0.946543687432,
            0.95,
        ];
        let shape = Shape::OneCycle { warm_share: 0.3, start_divisor: 25.0, end_divisor: 1e4 };
        let schedule = Schedule { shape, peak: 0.4, warmup_steps: 0, steps_total: 12 };
        for (step, expected) in expected.into_iter().enumerate() {
            let momentum = schedule.momentum_at(step as u64).expect("one cycle moves it");
            assert!((momentum - expected).abs() < 1e-9, "step {step}: {momentum}");
        }
        assert_eq!(Schedule { shape: Shape::Linear, ..schedule }.momentum_at(3), None);
    }

    #[test]
    fn milestones_are_steps_of_the_run_whatever_the_warm_up() {
        let rate =
            |shape: Shape, step| Schedule { shape, peak: 1.0, warmup_steps: 5, steps_total: 40 }.at(step);
        let shapes = [Shape::MultiStep { at: vec![10], factor: 0.5 }, Shape::Step { every: 10, factor: 0.5 }];
        for shape in shapes {
            assert_eq!((rate(shape.clone(), 9), rate(shape, 10)), (1.0, 0.5));
        }
    }

    #[test]
    fn a_warm_up_is_part_of_the_first_cycle() {
        let schedule = |warmup_steps| {
            let shape = Shape::Cycles { period: 4 };
            let schedule = Schedule { shape, peak: 1.0, warmup_steps, steps_total: 8 };
            (0..8).map(|step| schedule.at(step)).collect::<Vec<_>>()
        };
        let (plain, warm) = (schedule(0), schedule(2));
        assert_eq!(warm[4..], plain[4..]);
        assert_eq!(warm[..3], [0.5, 1.0, 1.0]);
        assert!((warm[3] - 0.5).abs() < 1e-12, "{warm:?}");
        assert!(schedule(4).iter().all(|rate| rate.is_finite()), "a cycle that is all warm-up");
    }

    #[test]
    fn a_plateau_lowers_the_rate_when_pytorchs_does() {
        let mut plateau = Plateau::new(0.1, 2, 0.01);
        let scores = [0.5, 0.6, 0.605, 0.6, 0.6, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7];
        let expected = [1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001];
        for (score, expected) in scores.into_iter().zip(expected) {
            plateau.observe(score, true);
            assert!((plateau.scale - expected).abs() < 1e-12, "{plateau:?}");
        }
    }

    #[test]
    fn the_rate_climbs_to_its_peak_and_falls_to_zero() {
        let schedule =
            Schedule { shape: Shape::Cosine { floor: 0.0 }, peak: 0.4, warmup_steps: 4, steps_total: 12 };
        let rates: Vec<f64> = (0..13).map(|step| schedule.at(step)).collect();
        for (rate, expected) in rates.iter().zip([0.1, 0.2, 0.3, 0.4, 0.4]) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
        assert!((rates[8] - 0.2).abs() < 1e-12, "half-way down at half the steps: {rates:?}");
        assert!(rates[4..].windows(2).all(|pair| pair[1] < pair[0]), "{rates:?}");
        assert!(rates[11] > 0.0 && rates[12].abs() < 1e-16, "{rates:?}");
    }

    #[test]
    fn no_warm_up_starts_at_the_peak_and_a_warm_up_longer_than_the_run_still_climbs() {
        let shape = Shape::Cosine { floor: 0.0 };
        let schedule = Schedule { shape, peak: 1.0, warmup_steps: 0, steps_total: 2 };
        assert_eq!(schedule.at(0), 1.0);
        assert_eq!(Schedule { warmup_steps: 10, steps_total: 5, ..schedule.clone() }.at(4), 0.5);
        assert!(Schedule { steps_total: 0, ..schedule }.at(0).abs() < 1e-16);
    }
}
