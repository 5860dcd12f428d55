//! Do weights and images fit together? Two numbers that are far off when the normalisation, the channel order or
//! the weights are not what they should be.

use std::fmt;

use forebay_stages::normalize::Normalize;

/// Mean and standard deviation of each channel of a batch after normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChannelStatistics {
    /// Red, green, blue.
    pub mean: [f64; 3],
    /// Over all pixels of all images.
    pub std: [f64; 3],
}

impl ChannelStatistics {
    /// Of `images`, `[n, 3, side, side]`, u8, and a normalisation of values from 0 to 1; `None` without images.
    pub fn of(images: &[u8], side: u32, normalize: &Normalize) -> Option<ChannelStatistics> {
        let Normalize { mean, std } = normalize;
        let plane = side as usize * side as usize;
        let mut found = ChannelStatistics { mean: [0.0; 3], std: [0.0; 3] };
        for channel in 0..3 {
            let planes = || images.chunks_exact(plane.max(1)).skip(channel).step_by(3);
            let count = planes().map(<[u8]>::len).sum::<usize>() as f64;
            if count == 0.0 {
                return None;
            }
            // Sums of bytes and of their squares are whole numbers, and exact.
            let sum: u64 = planes().flatten().map(|level| u64::from(*level)).sum();
            let squares: u64 = planes().flatten().map(|level| u64::from(*level).pow(2)).sum();
            let level = sum as f64 / count;
            let variance = (squares as f64 / count - level * level).max(0.0);
            found.mean[channel] = (level / 255.0 - f64::from(mean[channel])) / f64::from(std[channel]);
            found.std[channel] = variance.sqrt() / 255.0 / f64::from(std[channel]);
        }
        Some(found)
    }

    /// What is wrong with the input of a pretrained network, in one sentence; `None` when it looks like
    /// photographs that are normalised as they should be, whose means are near 0 and deviations near 1.
    pub fn complaint(&self) -> Option<String> {
        let is_off = self.mean.iter().any(|mean| mean.abs() > 1.5)
            || self.std.iter().any(|std| !(0.3..=2.5).contains(std));
        is_off.then(|| {
            format!(
                "the first batch does not look like what pretrained weights are used to: {self}; expected are means \
                 near 0 and deviations near 1. Check --mean and --std, and `forebay inspect` the images"
            )
        })
    }
}

impl fmt::Display for ChannelStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.mean;
        let [red_std, green_std, blue_std] = self.std;
        write!(
            f,
            "channel means {red:.2}, {green:.2}, {blue:.2} and deviations {red_std:.2}, {green_std:.2}, {blue_std:.2}"
        )
    }
}

/// The mean entropy of the predictions over the largest possible, `ln classes`: 0 for a classifier that is sure of
/// every image, 1 for one that knows nothing. `None` without rows, or for one class.
pub fn entropy_share(logits: &[Vec<f32>]) -> Option<f64> {
    let classes = logits.first()?.len();
    let entropy = |row: &Vec<f32>| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exponentials: Vec<f64> = row.iter().map(|logit| f64::from(logit - largest).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        // -sum p ln p, with ln p = logit - largest - ln sum.
        sum.ln()
            - exponentials.iter().zip(row).map(|(e, logit)| e / sum * f64::from(logit - largest)).sum::<f64>()
    };
    let mean = logits.iter().map(entropy).sum::<f64>() / logits.len() as f64;
    (classes > 1).then(|| mean / (classes as f64).ln())
}

/// What is wrong with a pretrained classifier whose predictions have this share of the largest entropy, in one
/// sentence; `None` when it knows something. Photographs outside its classes give some 0.3 to 0.7.
pub fn entropy_complaint(share: f64) -> Option<String> {
    // A sum that is not a number is as wrong as one that is too large.
    let knows = share <= 0.95;
    (!knows).then(|| {
        format!(
            "the pretrained classifier knows nothing about the first batch (entropy {:.0} % of the largest): the \
             weights may be of another network, or the images prepared in another way",
            100.0 * share
        )
    })
}

/// The mean loss of a pretrained classifier on a batch whose labels are known: the cross-entropy, without smoothing or
/// weights. `None` without rows, or for one class.
pub fn mean_loss(logits: &[Vec<f32>], labels: &[u32]) -> Option<f64> {
    if logits.len() != labels.len() || logits.first()?.len() < 2 {
        return None;
    }
    let loss = |(row, label): (&Vec<f32>, &u32)| {
        let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = row.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum();
        row.get(*label as usize).map(|logit| largest + sum.ln() - f64::from(*logit))
    };
    let losses: Option<Vec<f64>> = logits.iter().zip(labels).map(loss).collect();
    losses.map(|losses| losses.iter().sum::<f64>() / losses.len() as f64)
}

/// What is wrong with a pretrained classifier of so many classes that has this mean loss, in one sentence; `None` when
/// it is better than guessing, which costs `ln classes`.
pub fn loss_complaint(loss: f64, classes: usize) -> Option<String> {
    let guessing = (classes as f64).ln();
    let is_better = loss <= guessing;
    (!is_better).then(|| {
        format!(
            "the pretrained classifier is worse than guessing on the first batch: its mean loss is {loss:.2}, and guessing \
             among {classes} classes has {guessing:.2}. Its classes may be in another order than the folders here, which \
             are sorted by name, or its images were prepared with another --mean and --std, or of another --size"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn statistics_are_those_of_each_channel_after_normalisation() {
        // Two images of 1 x 1 and two of 2 x 1 would be another side; here n = 2, side = 1.
        let images = [0, 100, 200, 255, 100, 0];
        let found = ChannelStatistics::of(&images, 1, &Normalize { mean: [0.5; 3], std: [0.25; 3] })
            .expect("two images");
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        close(found.mean[0], 0.0);
        close(found.std[0], 2.0);
        close(found.mean[1], (100.0 / 255.0 - 0.5) / 0.25);
        close(found.std[1], 0.0);
        close(found.mean[2], (100.0 / 255.0 - 0.5) / 0.25);
        assert_eq!(ChannelStatistics::of(&[], 8, &Normalize::UNIT), None);
    }

    #[test]
    fn photographs_pass_and_wrong_normalisations_do_not() {
        // Grey levels with ImageNet's mean and deviation.
        let images: Vec<u8> = (0..2)
            .flat_map(|_| {
                [(124.0, 58.0), (116.0, 57.0), (104.0, 57.0)].into_iter().flat_map(|(mean, std)| {
                    (0..64).map(move |n| (mean + std * if n % 2 == 0 { 1.0 } else { -1.0 }) as u8)
                })
            })
            .collect();
        let complaint =
            |normalize: Normalize| ChannelStatistics::of(&images, 8, &normalize).expect("images").complaint();
        assert_eq!(complaint(Normalize::IMAGENET), None);
        // Twice divided by 255, or not at all.
        assert!(complaint(Normalize { mean: [0.485, 0.456, 0.406], std: [0.229 * 255.0; 3] }).is_some());
        assert!(complaint(Normalize { mean: [0.0; 3], std: [1.0 / 255.0; 3] }).is_some());
        assert!(complaint(Normalize { mean: [124.0, 116.0, 104.0], std: [58.0; 3] }).is_some());
    }

    #[test]
    fn a_classifier_of_another_order_is_worse_than_guessing_and_a_blank_one_is_not() {
        let logits = vec![vec![4.0, 0.0, 0.0], vec![0.0, 4.0, 0.0], vec![0.0, 0.0, 4.0]];
        let complaint = |labels: [u32; 3]| loss_complaint(mean_loss(&logits, &labels).expect("labels"), 3);
        assert_eq!(complaint([0, 1, 2]), None);
        let line = complaint([1, 2, 0]).expect("worse than guessing");
        assert!(line.contains("mean loss is 4.04, and guessing among 3 classes has 1.10"), "{line}");
        let blank = mean_loss(&[vec![7.0; 4]], &[2]).expect("a label");
        assert!((blank - 4f64.ln()).abs() < 1e-9);
        assert!(loss_complaint(f64::NAN, 3).is_some());
        assert_eq!(mean_loss(&logits, &[0, 1]), None);
        assert_eq!(mean_loss(&logits, &[0, 1, 3]), None, "a label outside of the classes");
    }

    #[test]
    fn a_sure_classifier_has_no_entropy_and_a_blank_one_all_of_it() {
        assert!(entropy_share(&[vec![50.0, 0.0, 0.0], vec![0.0, 50.0, 0.0]]).expect("rows") < 1e-6);
        let blank = entropy_share(&[vec![3.0; 7]]).expect("rows");
        assert!((blank - 1.0).abs() < 1e-9);
        assert!(entropy_complaint(blank).is_some() && entropy_complaint(f64::NAN).is_some());
        assert_eq!(entropy_complaint(0.6), None);
        assert_eq!(entropy_share(&[]), None);
        assert_eq!(entropy_share(&[vec![1.0]]), None);
    }
}
