//! Samples ranked by a probability: areas under the curves of all thresholds, and the curves.

use super::CurvePoint;

/// The most points that a stored curve has.
pub(super) const POINTS_MAX: usize = 200;

/// The bit of an entry whose sample is positive.
const POSITIVE: u32 = 1;
/// The bit of the last entry of equal score.
const LAST_OF_EQUALS: u32 = 2;

/// Samples from the highest score to the lowest; samples of equal score are passed by a threshold together.
///
/// Sorted once: under weights, which are how often each sample was drawn, the order stays.
#[derive(Debug)]
pub(super) struct Ranking {
    /// The sample in the upper 30 bits, and the two bits above.
    entries: Vec<u32>,
    /// True positive rate against false positive rate, thinned; empty without positives or negatives.
    pub(super) roc: Vec<CurvePoint>,
    /// Precision against recall, thinned; empty without positives.
    pub(super) pr: Vec<CurvePoint>,
}

/// The areas under the curves of one ranking.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Areas {
    /// Under true positive rate against false positive rate, by trapezoids; `None` without positives or negatives.
    pub(super) roc_auc: Option<f64>,
    /// Under precision against recall, in steps: scikit-learn's `average_precision_score`. `None` without positives.
    pub(super) average_precision: Option<f64>,
}

/// What a pass from the highest threshold to the lowest has counted.
#[derive(Default)]
pub(super) struct Sweep {
    positives: u64,
    negatives: u64,
    /// Twice the area under the ROC curve in units of one positive times one negative: a whole number.
    twice_area: u128,
    /// Σ positives of this step × precision after it.
    precision_sum: f64,
}

impl Sweep {
    /// Passes samples of one score.
    pub(super) fn pass(&mut self, positives: u64, negatives: u64) {
        self.twice_area += u128::from(negatives) * u128::from(2 * self.positives + positives);
        self.positives += positives;
        self.negatives += negatives;
        if positives > 0 {
            let precision = self.positives as f64 / (self.positives + self.negatives) as f64;
            self.precision_sum += positives as f64 * precision;
        }
    }

    /// The areas under the curves of all that was passed.
    pub(super) fn areas(&self) -> Areas {
        let (positives, negatives) = (self.positives as f64, self.negatives as f64);
        Areas {
            roc_auc: (positives * negatives > 0.0)
                .then(|| self.twice_area as f64 / (2.0 * positives * negatives)),
            average_precision: (positives > 0.0).then(|| self.precision_sum / positives),
        }
    }
}

impl Ranking {
    /// Ranks (sample, score, whether it is positive), with curves of at most `points_max` points. A sample may come several
    /// times.
    ///
    /// # Panics
    /// When a sample is 2^30 or more.
    pub(super) fn new(mut scores: Vec<(u32, f64, bool)>, points_max: usize) -> Ranking {
        scores.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let (roc, pr) = curves(&scores, points_max);
        let entry = |(index, &(sample, score, is_positive)): (usize, &(u32, f64, bool))| {
            assert!(sample < 1 << 30, "sample {sample} has no place in a ranking");
            let is_last = is_last_of_equals(&scores, index, score);
            (sample << 2) | (u32::from(is_positive) * POSITIVE) | (u32::from(is_last) * LAST_OF_EQUALS)
        };
        Ranking { entries: scores.iter().enumerate().map(entry).collect(), roc, pr }
    }

    /// The areas where each sample counts as often as `weights` says.
    pub(super) fn areas(&self, weights: &[u32]) -> Areas {
        let mut sweep = Sweep::default();
        // Of one score: negatives, positives.
        let mut counts = [0u64; 2];
        for entry in &self.entries {
            counts[(entry & POSITIVE) as usize] += u64::from(weights[(entry >> 2) as usize]);
            if entry & LAST_OF_EQUALS != 0 {
                sweep.pass(counts[1], counts[0]);
                counts = [0; 2];
            }
        }
        sweep.areas()
    }
}

fn is_last_of_equals(scores: &[(u32, f64, bool)], index: usize, score: f64) -> bool {
    scores.get(index + 1).is_none_or(|next| next.1 != score)
}

/// The corners of both curves of sorted scores, thinned: the ROC curve, and that of precision against recall.
fn curves(scores: &[(u32, f64, bool)], points_max: usize) -> (Vec<CurvePoint>, Vec<CurvePoint>) {
    let total = scores.iter().filter(|score| score.2).count() as f64;
    let all = scores.len() as f64;
    let (mut positives, mut negatives) = (0.0, 0.0);
    let mut roc = vec![CurvePoint { x: 0.0, y: 0.0, threshold: None }];
    // Precision of nothing is 1, as scikit-learn ends its curve.
    let mut pr = vec![CurvePoint { x: 0.0, y: 1.0, threshold: None }];
    let (mut before, mut is_level) = (0.0, false);
    for (index, &(_, score, is_positive)) in scores.iter().enumerate() {
        if is_positive {
            positives += 1.0
        } else {
            negatives += 1.0
        }
        if !is_last_of_equals(scores, index, score) {
            continue;
        }
        // Negatives alone move both curves along a line: only the end of it is a corner.
        let was_level = std::mem::replace(&mut is_level, positives == before);
        before = positives;
        if was_level && is_level {
            roc.pop();
            pr.pop();
        }
        let threshold = Some(score);
        roc.push(CurvePoint { x: negatives / (all - total), y: positives / total, threshold });
        pr.push(CurvePoint { x: positives / total, y: positives / (positives + negatives), threshold });
    }
    let thinned = |is_one: bool, curve| if is_one { thin(curve, points_max) } else { Vec::new() };
    (thinned(total > 0.0 && total < all, roc), thinned(total > 0.0, pr))
}

/// At most `points_max` (at least 3) points of a curve, its ends among them, evenly along its length.
pub(super) fn thin(curve: Vec<CurvePoint>, points_max: usize) -> Vec<CurvePoint> {
    if curve.len() <= points_max {
        return curve;
    }
    let length = |pair: &[CurvePoint]| (pair[1].x - pair[0].x).abs() + (pair[1].y - pair[0].y).abs();
    let step = curve.windows(2).map(length).sum::<f64>() / (points_max - 2) as f64;
    let (mut since, mut thinned) = (0.0, vec![curve[0]]);
    for pair in curve.windows(2) {
        since += length(pair);
        if since >= step && thinned.len() < points_max - 1 {
            thinned.push(pair[1]);
            since = 0.0;
        }
    }
    thinned.pop_if(|point| Some(&*point) == curve.last());
    thinned.extend(curve.last());
    thinned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(scores: &[f64], positives: &[u8]) -> Ranking {
        let rows = scores.iter().zip(positives).enumerate();
        Ranking::new(
            rows.map(|(i, (score, positive))| (i as u32, *score, *positive == 1)).collect(),
            POINTS_MAX,
        )
    }

    fn check(scores: &[f64], positives: &[u8], roc_auc: Option<f64>, average_precision: Option<f64>) {
        let areas = ranking(scores, positives).areas(&vec![1; scores.len()]);
        let is_near = |ours: Option<f64>, theirs: Option<f64>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => (ours - theirs).abs() < 1e-15,
            (ours, theirs) => ours == theirs,
        };
        assert!(
            is_near(areas.roc_auc, roc_auc) && is_near(areas.average_precision, average_precision),
            "{areas:?}"
        );
    }

    #[test]
    fn areas_count_ties_half_and_are_absent_where_a_rate_has_nothing_to_be_of() {
        check(&[0.1, 0.4, 0.35, 0.8], &[0, 0, 1, 1], Some(0.75), Some(5.0 / 6.0));
        // All are equal: chance, and the share of positives.
        check(&[0.5; 4], &[0, 1, 0, 0], Some(0.5), Some(0.25));
        check(&[0.9, 0.5, 0.5, 0.1], &[1, 1, 0, 0], Some(0.875), Some((1.0 + 2.0 / 3.0) / 2.0));
        check(&[0.3, 0.2], &[1, 1], None, Some(1.0));
        check(&[0.3, 0.2], &[0, 0], None, None);
        check(&[], &[], None, None);
    }

    #[test]
    fn a_weight_is_as_many_copies() {
        let scores = [0.9, 0.7, 0.7, 0.6, 0.2];
        let positives = [1, 0, 1, 0, 1];
        let weights = [2u32, 0, 3, 1, 1];
        let repeated: Vec<usize> = (0..5).flat_map(|i| std::iter::repeat_n(i, weights[i] as usize)).collect();
        let copies = ranking(
            &repeated.iter().map(|i| scores[*i]).collect::<Vec<_>>(),
            &repeated.iter().map(|i| positives[*i]).collect::<Vec<_>>(),
        );
        assert_eq!(ranking(&scores, &positives).areas(&weights), copies.areas(&[1; 7]));
    }

    #[test]
    fn curves_run_from_nothing_to_all_and_thinned_ones_hold_their_area() {
        let scores: Vec<f64> = (0..5000).map(|i| f64::from(i * 7919 % 5000)).collect();
        let positives: Vec<u8> =
            scores.iter().enumerate().map(|(i, s)| u8::from(s + (i % 900) as f64 * 3.0 > 3500.0)).collect();
        let ranking = ranking(&scores, &positives);
        let (roc, pr) = (&ranking.roc, &ranking.pr);
        assert!(roc.len() <= POINTS_MAX && pr.len() <= POINTS_MAX && roc.len() > 100, "{}", roc.len());
        assert_eq!((roc[0].x, roc[0].y, roc[0].threshold), (0.0, 0.0, None));
        assert_eq!(roc.last().map(|point| (point.x, point.y)), Some((1.0, 1.0)));
        assert_eq!((pr[0].x, pr[0].y, pr.last().unwrap().x), (0.0, 1.0, 1.0));
        let area: f64 = roc.windows(2).map(|p| (p[1].x - p[0].x) * (p[1].y + p[0].y) / 2.0).sum();
        let exact = ranking.areas(&vec![1; 5000]).roc_auc.unwrap();
        assert!((area - exact).abs() < 2e-3, "{area} {exact}");
        let ranking = Ranking::new(vec![(0, 0.5, true)], POINTS_MAX);
        assert_eq!((ranking.roc.len(), ranking.pr.len()), (0, 2));
    }
}
