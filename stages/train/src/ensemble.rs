//! What several trained networks are worth together: weights of a vote, and means of weights.

use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::tensor::{Dtype, SafeTensors, TensorInfo};

use crate::error::{TrainError, unreadable};
use crate::file::FileDescription;
use crate::metrics::Scored;

/// Rounds of [`fit_vote`], each of which makes the fit better.
const ROUNDS: usize = 1000;

/// A round that makes the mean log-likelihood better by less than this is the last.
const GAIN_MIN: f64 = 1e-10;

/// The weights, of sum 1, with which the mean of the members' probabilities gives the samples the largest likelihood: the
/// weights of a mixture, found by expectation maximisation (Dempster, Laird and Rubin 1977), which has one maximum here
/// since the log-likelihood is concave in them. `temperatures` are what each member's logits are divided by. Samples are
/// joined by their ids.
///
/// # Errors
/// In a line, when the members were not scored on the same samples.
pub fn fit_vote(members: &[&Scored], temperatures: &[f64]) -> Result<Vec<f64>, String> {
    let rows = joined(members)?;
    let probability = |member: usize, row: usize, label: u32| {
        members[member].probabilities(row, temperatures[member])[label as usize].max(1e-12)
    };
    // `[samples][members]`: the probability of the true class.
    let of_truth: Vec<Vec<f64>> = rows
        .iter()
        .map(|(label, rows)| {
            (0..members.len()).map(|member| probability(member, rows[member], *label)).collect()
        })
        .collect();
    let mut weights = vec![1.0 / members.len() as f64; members.len()];
    let mut before = f64::NEG_INFINITY;
    for _ in 0..ROUNDS {
        let mut next = vec![0.0; members.len()];
        let mut likelihood = 0.0;
        for of_sample in &of_truth {
            let mixture: f64 = of_sample.iter().zip(&weights).map(|(p, weight)| p * weight).sum();
            likelihood += mixture.ln();
            for ((sum, p), weight) in next.iter_mut().zip(of_sample).zip(&weights) {
                *sum += p * weight / mixture;
            }
        }
        let total: f64 = next.iter().sum();
        weights = next.into_iter().map(|sum| sum / total).collect();
        let mean = likelihood / of_truth.len() as f64;
        if mean - before < GAIN_MIN {
            break;
        }
        before = mean;
    }
    Ok(weights)
}

/// The label of each sample and its row in each member.
fn joined(members: &[&Scored]) -> Result<Vec<(u32, Vec<usize>)>, String> {
    let Some(first) = members.first() else { return Err("there is no member".to_string()) };
    let row = |index: usize| {
        let (id, label) = (&first.ids()[index], first.labels()[index]);
        let places = members.iter().enumerate().map(|(member, scored)| match scored.position(id) {
            Some(place) if scored.labels()[place] == label && scored.classes() == first.classes() => {
                Ok(place)
            }
            _ => Err(format!("member {} was not scored on {id} of the same class", member + 1)),
        });
        Ok((label, places.collect::<Result<Vec<_>, String>>()?))
    };
    if let Some(other) = members.iter().position(|scored| scored.len() != first.len()) {
        return Err(format!(
            "member {} was scored on {} samples, and member 1 on {}",
            other + 1,
            members[other].len(),
            first.len()
        ));
    }
    (0..first.len()).map(row).collect()
}

/// The mean of the weights of several files of one network (a model soup, Wortsman et al., arXiv 2203.05482), running
/// statistics among them; what the first file says of itself is kept.
///
/// # Errors
/// [`TrainError::Weights`] when a file is of another network, head or list of classes than the first.
pub fn mean_of_files(files: &[&[u8]]) -> Result<Vec<u8>, TrainError> {
    let described = |bytes: &[u8]| {
        let none = || TrainError::Weights("the file does not say which network it is of".to_string());
        FileDescription::read(bytes)?.ok_or_else(none)
    };
    let [first, ..] = files else {
        return Err(TrainError::Weights("there is no file to take the mean of".to_string()));
    };
    let own = described(first)?;
    let (mut mean, places) = (first.to_vec(), tensors(first)?);
    let mut sums: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        let theirs = described(file)?;
        let found = tensors(file)?;
        let shapes = |tensors: &Tensors| -> Vec<(String, Vec<usize>)> {
            tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect()
        };
        if (&theirs.model, &theirs.head, &theirs.classes) != (&own.model, &own.head, &own.classes)
            || shapes(&found) != shapes(&places)
        {
            return Err(TrainError::Weights(format!(
                "file {} is of another network, head or list of classes than the first, so that their weights have no mean",
                index + 1
            )));
        }
        // Counters of batches are whole numbers, of which the first file's is as good as any.
        for (name, place) in places.iter().filter(|(_, place)| place.dtype == Dtype::F32) {
            let sum = sums.entry(name).or_insert_with(|| vec![0.0; place.bytes.len() / 4]);
            let values = file[found[name].bytes.clone()].chunks_exact(4);
            for (sum, value) in sum.iter_mut().zip(values) {
                *sum += f64::from(f32::from_le_bytes(value.try_into().expect("four bytes")));
            }
        }
    }
    for (name, sum) in sums {
        let values = sum.iter().flat_map(|sum| ((sum / files.len() as f64) as f32).to_le_bytes());
        mean[places[name].bytes.clone()].copy_from_slice(&values.collect::<Vec<u8>>());
    }
    Ok(mean)
}

/// Where the tensors of a file lie in it, by name.
type Tensors = BTreeMap<String, TensorPlace>;

struct TensorPlace {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

fn tensors(file: &[u8]) -> Result<Tensors, TrainError> {
    let read = SafeTensors::deserialize(file).and_then(|_| SafeTensors::read_metadata(file));
    let (length, header) = read.map_err(|error| unreadable("weights")(candle_core::Error::wrap(error)))?;
    let start = 8 + length;
    let place = |(name, tensor): (String, &TensorInfo)| {
        let (from, to) = tensor.data_offsets;
        let place =
            TensorPlace { dtype: tensor.dtype, shape: tensor.shape.clone(), bytes: start + from..start + to };
        (name, place)
    };
    Ok(header.tensors().into_iter().map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Predictor, TrainOptions, Trainer};

    fn scored(rows: &[(&str, u32, [f32; 2])]) -> Scored {
        let mut scored = Scored::new(["a", "b"].map(String::from).to_vec());
        for (id, label, logits) in rows {
            scored.push((*id).into(), *label, logits).expect("a row");
        }
        scored
    }

    #[test]
    fn the_better_member_weighs_more_and_samples_are_joined_by_id() {
        let good = scored(&[("x", 0, [2.0, 0.0]), ("y", 1, [0.0, 2.0]), ("z", 0, [1.0, 0.0])]);
        let poor = scored(&[("z", 0, [0.1, 0.0]), ("y", 1, [0.3, 0.0]), ("x", 0, [0.0, 0.0])]);
        let weights = fit_vote(&[&good, &poor], &[1.0, 1.0]).expect("the same samples");
        assert!(weights[0] > 0.999 && (weights.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{weights:?}");
        // Each knows what the other does not: half and half.
        let left = scored(&[("x", 0, [3.0, 0.0]), ("y", 1, [1.0, 0.0])]);
        let right = scored(&[("x", 0, [0.0, 1.0]), ("y", 1, [0.0, 3.0])]);
        let weights = fit_vote(&[&left, &right], &[1.0, 1.0]).expect("the same samples");
        assert!((weights[0] - 0.5).abs() < 1e-4, "{weights:?}");
        let other = scored(&[("x", 0, [3.0, 0.0]), ("q", 1, [1.0, 0.0])]);
        assert!(fit_vote(&[&left, &other], &[1.0, 1.0]).expect_err("another sample").contains('y'));
    }

    #[test]
    fn the_fit_is_the_maximum_of_the_likelihood() {
        let one =
            scored(&[("x", 0, [1.0, 0.0]), ("y", 1, [0.5, 0.0]), ("z", 0, [2.0, 0.0]), ("w", 1, [0.0, 0.2])]);
        let two =
            scored(&[("x", 0, [0.0, 0.3]), ("y", 1, [0.0, 2.0]), ("z", 0, [0.1, 0.0]), ("w", 1, [0.0, 1.0])]);
        let weights = fit_vote(&[&one, &two], &[1.0, 1.5]).expect("the same samples");
        let likelihood = |share: f64| -> f64 {
            (0..4)
                .map(|row| {
                    let label = one.labels()[row] as usize;
                    let (a, b) = (one.probabilities(row, 1.0)[label], two.probabilities(row, 1.5)[label]);
                    (share * a + (1.0 - share) * b).ln()
                })
                .sum()
        };
        for step in 0..=1000 {
            assert!(likelihood(weights[0]) >= likelihood(f64::from(step) / 1000.0) - 1e-7, "{step}");
        }
    }

    #[test]
    fn the_mean_of_files_is_that_of_their_weights() {
        let trainer = |seed: u64, model: &str| {
            let classes = ["a", "b"].map(String::from).to_vec();
            let seed = forebay_datasets::seed::Seed(seed);
            let options = TrainOptions { seed, ..TrainOptions::new(model, classes) };
            Trainer::new(&options).expect("a network").weights(&Default::default()).expect("bytes")
        };
        let (one, two) = (trainer(1, "small"), trainer(2, "small"));
        let mean = mean_of_files(&[&one, &two]).expect("one network");
        let tensor = |bytes: &[u8]| {
            let (predictor, _) = Predictor::of_run(bytes).expect("a run's");
            let map = predictor.var_map();
            let data = map.data().lock().expect("alone");
            data["fc.weight"].flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values")
        };
        for ((mean, one), two) in tensor(&mean).iter().zip(tensor(&one)).zip(tensor(&two)) {
            assert!((mean - (one + two) / 2.0).abs() < 1e-6);
        }
        assert!(mean_of_files(&[&one, &trainer(1, "resnet20")]).is_err());
        assert!(mean_of_files(&[]).is_err());
    }
}
