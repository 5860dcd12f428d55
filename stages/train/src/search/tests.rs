//! What the search promises, on functions whose minima are known.

use super::*;

const PI: f64 = std::f64::consts::PI;

/// Branin: three minima of 0.397887.
fn branin(x: &[f64]) -> f64 {
    let (x, y) = (15.0 * x[0] - 5.0, 15.0 * x[1]);
    (y - 5.1 * x * x / (4.0 * PI * PI) + 5.0 * x / PI - 6.0).powi(2)
        + 10.0 * (1.0 - 1.0 / (8.0 * PI)) * x.cos()
        + 10.0
}

/// Rosenbrock in two dimensions from -2 to 2: one minimum of 0 in a bent valley.
fn rosenbrock(x: &[f64]) -> f64 {
    let (x, y) = (4.0 * x[0] - 2.0, 4.0 * x[1] - 2.0);
    100.0 * (y - x * x).powi(2) + (1.0 - x).powi(2)
}

/// Hartmann in six dimensions: minimum of -3.32237.
fn hartmann(x: &[f64]) -> f64 {
    const A: [[f64; 6]; 4] = [
        [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
        [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
        [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
        [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
    ];
    const P: [[f64; 6]; 4] = [
        [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
        [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
        [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
        [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
    ];
    let term = |i: usize| {
        let square: f64 = (0..6).map(|j| A[i][j] * (x[j] - P[i][j]).powi(2)).sum();
        [1.0, 1.2, 3.0, 3.2][i] * (-square).exp()
    };
    -(0..4).map(term).sum::<f64>()
}

/// The least value that a search of so many trials finds, with three seeds in the middle.
fn median_of_three(method: Method, n: usize, trials: usize, of: fn(&[f64]) -> f64) -> f64 {
    let axes = vec![Axis::Continuous; n];
    let mut found: Vec<f64> = (0..3)
        .map(|seed| {
            let mut tried: Vec<Tried> = Vec::new();
            for _ in 0..trials {
                let point = next(method, &axes, Seed(seed), &tried).unwrap();
                let score = Some(-of(&point));
                tried.push(Tried { point, score });
            }
            tried.iter().filter_map(|tried| tried.score).fold(f64::NEG_INFINITY, f64::max)
        })
        .map(|best| -best)
        .collect();
    found.sort_by(f64::total_cmp);
    found[1]
}

#[test]
fn every_model_finds_the_known_minima_within_its_usual_budget() {
    type Case = (Method, usize, usize, fn(&[f64]) -> f64, f64);
    let cases: [Case; 12] = [
        (Method::Tpe, 2, 150, branin, 0.5),
        (Method::Tpe, 2, 150, rosenbrock, 0.2),
        (Method::Tpe, 6, 200, hartmann, -2.8),
        (Method::GaussianProcess, 2, 40, branin, 0.41),
        (Method::GaussianProcess, 2, 80, rosenbrock, 0.2),
        (Method::GaussianProcess, 6, 80, hartmann, -3.1),
        (Method::CmaEs, 2, 250, branin, 0.3979),
        (Method::CmaEs, 2, 400, rosenbrock, 0.001),
        (Method::CmaEs, 6, 400, hartmann, -3.19),
        (Method::Evolution, 2, 300, branin, 0.3989),
        (Method::Evolution, 2, 400, rosenbrock, 0.01),
        (Method::Evolution, 6, 1000, hartmann, -3.19),
    ];
    let mut missed = Vec::new();
    for (method, n, trials, of, enough) in cases {
        let found = median_of_three(method, n, trials, of);
        if found > enough {
            missed.push(format!("{method} in {n} dimensions: {found} after {trials} trials, not {enough}"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn a_search_that_begins_again_from_what_was_tried_goes_on_with_the_same_trial() {
    use forebay_datasets::words::Words;
    let axes = [Axis::Continuous, Axis::Unordered(3), Axis::Ordered(4), Axis::Continuous];
    for method in Method::ALL {
        let mut tried: Vec<Tried> = Vec::new();
        for trial in 0..30 {
            let point = next(*method, &axes, Seed(5), &tried).unwrap();
            assert_eq!(next(*method, &axes, Seed(5), &tried.clone()).unwrap(), point, "{method} {trial}");
            assert!(point.iter().all(|at| (0.0..=1.0).contains(at)), "{method}: {point:?}");
            // What was tried before is not tried again, also where trials fail.
            assert!(tried.iter().all(|before| before.point != point), "{method} repeats trial {trial}");
            let score = (trial % 7 != 3).then(|| -point[0] + point[1]);
            tried.push(Tried { point, score });
        }
        let other = next(*method, &axes, Seed(6), &tried).unwrap();
        assert_ne!(next(*method, &axes, Seed(5), &tried).unwrap(), other, "{method} ignores its seed");
    }
}

#[test]
fn a_grid_tries_every_combination_once_and_ends() {
    let axes = [Axis::Continuous, Axis::Unordered(3), Axis::Ordered(2)];
    let mut tried: Vec<Tried> = Vec::new();
    while let Some(point) = next(Method::Grid, &axes, Seed(1), &tried) {
        assert!(tried.iter().all(|before| before.point != point));
        tried.push(Tried { point, score: None });
    }
    assert_eq!((tried.len() as u64, grid_points(&axes)), (30, 30));
    for end in [0.0, 1.0] {
        assert!(tried.iter().any(|tried| tried.point[0] == end), "a range is tried up to its ends");
    }
}

#[test]
fn the_brackets_of_hyperband_are_those_of_the_paper() {
    let bracket = |trials, rungs: &[u32]| Bracket { trials, rungs: rungs.to_vec() };
    let expected =
        [bracket(27, &[1, 3, 9, 27]), bracket(12, &[3, 9, 27]), bracket(6, &[9, 27]), bracket(4, &[27])];
    assert_eq!(brackets(Pruning::Hyperband, 27), expected);
    assert_eq!(brackets(Pruning::Halving, 27), expected[..1]);
    assert_eq!(brackets(Pruning::None, 27), [bracket(1, &[27])]);
    assert_eq!(brackets(Pruning::Hyperband, 1), [bracket(1, &[1])]);
    for epochs in 1..200 {
        for Bracket { trials, rungs } in brackets(Pruning::Hyperband, epochs) {
            assert!(trials > 0 && rungs.is_sorted() && rungs.last() == Some(&epochs), "{epochs}: {rungs:?}");
        }
    }
}

#[test]
fn the_best_third_goes_on_past_a_rung() {
    assert!(goes_on(&[], 0.1), "the first has nothing to be compared with");
    assert!(goes_on(&[0.5], 0.6) && !goes_on(&[0.5], 0.4) && !goes_on(&[0.5], 0.5));
    let before = [0.1, 0.2, 0.3, 0.4, 0.5];
    assert!(goes_on(&before, 0.45) && !goes_on(&before, 0.35));
}

#[test]
fn the_setting_that_decides_the_score_is_the_important_one() {
    let axes = [Axis::Continuous, Axis::Continuous, Axis::Unordered(3)];
    let mut tried: Vec<Tried> = Vec::new();
    for _ in 0..150 {
        let point = next(Method::Random, &axes, Seed(2), &tried).unwrap();
        let score = Some(-(point[1] - 0.3).powi(2) + 0.001 * point[0]);
        tried.push(Tried { point, score });
    }
    let shares = importance(&axes, &tried).unwrap();
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12 && shares[1] > 0.7, "{shares:?}");
    assert_eq!(importance(&axes, &tried[..5]), None);
}
