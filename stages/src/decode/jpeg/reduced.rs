//! Four blocks to fewer samples, each the mean of a rectangle of those that the whole transform gives, after these were cut off
//! at black and white: what an antialiased resize makes of them next comes out as if all of them had been there.

use super::coefficients::Quad;
use super::color::for_each_isa;
use super::idct::{self, Isa, Target};

/// As [`idct::quad`], to `size` columns and rows of each block: 8, 4, 2 or 1.
pub(super) fn quad(
    isa: Isa,
    blocks: &Quad,
    quantisers: &[[i16; 8]; 8],
    size: [usize; 2],
    target: &mut Target<'_>,
) {
    let mut whole = [0; 8 * 32];
    idct::quad(isa, blocks, quantisers, &mut Target { samples: &mut whole, stride: 32 });
    means(isa, &whole, size, target);
}

for_each_isa! {
    /// The means of 8 rows of 32 samples, rounded.
    means = means_loop(whole: &[u8; 8 * 32], size: [usize; 2], target: &mut Target<'_>)
}

#[inline(always)]
fn means_loop(whole: &[u8; 8 * 32], [columns, rows]: [usize; 2], target: &mut Target<'_>) {
    let (across, down) = (8 / columns, 8 / rows);
    let half = (across * down / 2) as u16;
    let shift = (across * down).ilog2();
    for (row, lines) in whole.chunks_exact(32 * down).enumerate() {
        let mut sums = [0u16; 32];
        for line in lines.chunks_exact(32) {
            for (sum, sample) in sums.iter_mut().zip(line) {
                *sum += u16::from(*sample);
            }
        }
        let out = &mut target.samples[row * target.stride..][..4 * columns];
        let mut put = |means: &mut dyn Iterator<Item = u16>| {
            out.iter_mut().zip(means).for_each(|(out, sum)| *out = ((sum + half) >> shift) as u8);
        };
        match across {
            1 => put(&mut sums.iter().copied()),
            2 => put(&mut sums.as_chunks::<2>().0.iter().map(|part| part.iter().sum())),
            4 => put(&mut sums.as_chunks::<4>().0.iter().map(|part| part.iter().sum())),
            _ => put(&mut sums.as_chunks::<8>().0.iter().map(|part| part.iter().sum())),
        }
    }
}
