//! Images of a batch mixed with one another, and their targets with them: mixup (Zhang et al., arXiv 1710.09412) and
//! CutMix (Yun et al., arXiv 1905.04899).

use forebay_datasets::seed::Stream;

/// How a batch is mixed: one share for all of it, and image `i` with image `n - 1 - i`, as in timm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixing {
    /// Of Beta(alpha, alpha), from which the share of mixup is drawn; 0 is off.
    pub mixup: f64,
    /// The same of CutMix, whose share is that of the area that stays; where both are on, half of the batches get each.
    pub cutmix: f64,
    /// Of the batches, how many are mixed, in `[0, 1]`.
    pub probability: f64,
}

impl Mixing {
    /// Mixes `images` `[batch, 3, side, side]` and `targets` `[batch, classes]` in place.
    pub fn apply(
        &self,
        images: &mut [f32],
        side: usize,
        targets: &mut [f32],
        classes: usize,
        stream: &mut Stream,
    ) {
        if !stream.chance(self.probability) {
            return;
        }
        let cut = match (self.mixup > 0.0, self.cutmix > 0.0) {
            (false, false) => return,
            (true, true) => stream.chance(0.5),
            (_, cutmix) => cutmix,
        };
        let share = beta(if cut { self.cutmix } else { self.mixup }, stream);
        let size = 3 * side * side;
        let share = if cut {
            let (rows, columns) = cut_box(side, share, stream);
            for_pairs(images, size, |a, b| {
                for channel in 0..3 {
                    for row in rows.clone() {
                        let line = (channel * side + row) * side;
                        a[line + columns.start..line + columns.end]
                            .swap_with_slice(&mut b[line + columns.start..line + columns.end]);
                    }
                }
            });
            1.0 - (rows.len() * columns.len()) as f64 / (side * side) as f64
        } else {
            for_pairs(images, size, |a, b| blend(a, b, share as f32));
            share
        };
        for_pairs(targets, classes, |a, b| blend(a, b, share as f32));
    }
}

/// Calls `mix` with the first and the last of the `size` values long rows, the second and the last but one, and so on.
fn for_pairs(values: &mut [f32], size: usize, mut mix: impl FnMut(&mut [f32], &mut [f32])) {
    let count = values.len() / size;
    for first in 0..count / 2 {
        let (front, back) = values.split_at_mut((count - 1 - first) * size);
        mix(&mut front[first * size..(first + 1) * size], &mut back[..size]);
    }
}

fn blend(a: &mut [f32], b: &mut [f32], share: f32) {
    for (a, b) in a.iter_mut().zip(b) {
        (*a, *b) = (*a * share + *b * (1.0 - share), *b * share + *a * (1.0 - share));
    }
}

/// The rows and columns of a box of about `1 - share` of the area around a random centre, cut at the edges.
fn cut_box(side: usize, share: f64, stream: &mut Stream) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let half = (side as f64 * (1.0 - share).sqrt() / 2.0) as usize;
    let mut range = || {
        let centre = stream.below(side as u64) as usize;
        centre.saturating_sub(half)..(centre + half).min(side)
    };
    (range(), range())
}

/// A draw of Beta(alpha, alpha), as the share that one of two Gamma draws has in their sum.
fn beta(alpha: f64, stream: &mut Stream) -> f64 {
    let (a, b) = (gamma(alpha, stream), gamma(alpha, stream));
    // Both may be too small for a number when alpha is.
    if a + b > 0.0 { a / (a + b) } else { f64::from(u8::from(stream.chance(0.5))) }
}

/// A draw of Gamma(alpha, 1) (Marsaglia and Tsang, ACM TOMS 26, 2000).
fn gamma(alpha: f64, stream: &mut Stream) -> f64 {
    if alpha < 1.0 {
        let power = stream.unit().max(f64::MIN_POSITIVE).powf(1.0 / alpha);
        return gamma(alpha + 1.0, stream) * power;
    }
    let d = alpha - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let normal = stream.normal();
        let v = (1.0 + c * normal).powi(3);
        let unit = stream.unit().max(f64::MIN_POSITIVE);
        if v > 0.0 && unit.ln() < 0.5 * normal * normal + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;

    /// Four images of one grey each, and their one-hot targets.
    fn batch(side: usize) -> (Vec<f32>, Vec<f32>) {
        let images = (0..4).flat_map(|image| vec![image as f32; 3 * side * side]).collect();
        let targets =
            (0..4).flat_map(|image| (0..4).map(move |class| f32::from(u8::from(class == image)))).collect();
        (images, targets)
    }

    #[test]
    fn targets_are_mixed_as_the_pixels_are() {
        for mixing in [
            Mixing { mixup: 0.4, cutmix: 0.0, probability: 1.0 },
            Mixing { mixup: 0.0, cutmix: 1.0, probability: 1.0 },
            Mixing { mixup: 0.4, cutmix: 1.0, probability: 1.0 },
        ] {
            for seed in 0..20 {
                let (mut images, mut targets) = batch(8);
                mixing.apply(&mut images, 8, &mut targets, 4, &mut Seed(seed).stream("mix"));
                for (image, target) in images.chunks_exact(3 * 64).zip(targets.chunks_exact(4)) {
                    // The mean grey is the mean of the classes' greys by the shares of the target.
                    let grey = image.iter().sum::<f32>() / 192.0;
                    let expected: f32 =
                        target.iter().enumerate().map(|(class, share)| class as f32 * share).sum();
                    assert!((grey - expected).abs() < 1e-4, "{grey} is not {expected}");
                    assert!((target.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn the_same_stream_mixes_alike_and_nothing_is_mixed_with_probability_zero() {
        let mixing = Mixing { mixup: 0.4, cutmix: 1.0, probability: 1.0 };
        let mixed = |mixing: Mixing| {
            let (mut images, mut targets) = batch(4);
            mixing.apply(&mut images, 4, &mut targets, 4, &mut Seed(3).stream("mix"));
            (images, targets)
        };
        assert!(mixed(mixing) == mixed(mixing));
        assert!(mixed(Mixing { probability: 0.0, ..mixing }) == batch(4));
    }

    #[test]
    fn beta_draws_have_their_mean_and_variance() {
        let mut stream = Seed(5).stream("beta");
        for alpha in [0.2, 1.0, 3.0] {
            let draws: Vec<f64> = (0..20_000).map(|_| beta(alpha, &mut stream)).collect();
            let mean = draws.iter().sum::<f64>() / 20_000.0;
            let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 20_000.0;
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            // Five standard errors of a mean of 20,000 draws, whose deviation is below a half.
            assert!((mean - 0.5).abs() < 0.018, "{alpha}: {mean}");
            assert!((variance - expected).abs() < 0.01, "{alpha}: {variance} is not {expected}");
        }
    }
}
