//! Differential evolution (Storn and Price 1997) in its form current-to-best/1/bin: a child takes its parent's place as soon as
//! it is as good.

use forebay_datasets::seed::Stream;

use super::{Axis, uniform};

/// Share of the coordinates that a child takes from the mutant.
const CROSSOVER: f64 = 0.9;

/// The next child.
pub(super) fn point(axes: &[Axis], points: &[&[f64]], losses: &[f64], stream: &mut Stream) -> Vec<f64> {
    let members = (5 * axes.len()).clamp(8, 40);
    if points.len() < members {
        return uniform(axes, stream);
    }
    let mut population: Vec<(&[f64], f64)> =
        points[..members].iter().copied().zip(losses[..members].iter().copied()).collect();
    for (trial, (point, loss)) in points.iter().zip(losses).enumerate().skip(members) {
        let parent = &mut population[trial % members];
        if *loss <= parent.1 {
            *parent = (point, *loss);
        }
    }
    let parent = population[points.len() % members].0;
    let best = population.iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("eight members or more").0;
    let mut others: Vec<usize> = (0..members).filter(|member| *member != points.len() % members).collect();
    stream.shuffle(&mut others);
    let (a, b) = (population[others[0]].0, population[others[1]].0);
    let factor = stream.range(0.4, 0.9);
    let sure = stream.below(axes.len() as u64) as usize;
    let coordinate = |index: usize| {
        if index != sure && !stream.chance(CROSSOVER) {
            return parent[index];
        }
        let mutant = parent[index] + factor * (best[index] - parent[index]) + factor * (a[index] - b[index]);
        match (axes[index], mutant) {
            // A sum of values without order is none of them.
            (Axis::Unordered(_), _) => [parent, best, a, b][stream.below(4) as usize][index],
            // What would leave the cube goes half of the way to its side.
            (_, mutant) if mutant < 0.0 => parent[index] / 2.0,
            (_, mutant) if mutant > 1.0 => (1.0 + parent[index]) / 2.0,
            (_, mutant) => mutant,
        }
    };
    (0..axes.len()).map(coordinate).collect()
}
