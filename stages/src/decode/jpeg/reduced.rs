//! The inverse transform of four blocks to fewer samples, each the mean of a rectangle of those that the whole transform gives:
//! what an antialiased resize makes of them next comes out as if all of them had been there.

use super::coefficients::Quad;
use super::color::for_each_isa;
use super::idct::{Isa, Target};

/// Rows are places, columns are frequencies: what each frequency adds to the mean of the samples of a place, where a block
/// becomes 8, 4, 2 or 1 of them (ITU-T T.81, A.3.3).
static MEANS: [[[f32; 8]; 8]; 4] = {
    let mut means = [[[0.0; 8]; 8]; 4];
    let mut level = 0;
    while level < 4 {
        let each = 1 << level;
        let mut at = 0;
        while at < 8 {
            let mut frequency = 0;
            while frequency < 8 {
                let scale = if frequency == 0 { std::f64::consts::FRAC_1_SQRT_2 } else { 1.0 };
                let part = COSINES[(2 * at + 1) * frequency % 32] * scale / 2.0 / each as f64;
                means[level][at / each][frequency] += part as f32;
                frequency += 1;
            }
            at += 1;
        }
        level += 1;
    }
    means
};

/// Cosines of sixteenths of a half turn, all around.
const COSINES: [f64; 32] = {
    // Those of the first quarter; the others mirror them.
    const QUARTER: [f64; 9] = [
        1.0,
        0.980_785_280_403_230_4,
        0.923_879_532_511_286_7,
        0.831_469_612_302_545_2,
        std::f64::consts::FRAC_1_SQRT_2,
        0.555_570_233_019_602_2,
        0.382_683_432_365_089_8,
        0.195_090_322_016_128_27,
        0.0,
    ];
    let mut all = [0.0; 32];
    let mut at = 0;
    while at < 32 {
        let half = if at > 16 { 32 - at } else { at };
        all[at] = if half > 8 { -QUARTER[16 - half] } else { QUARTER[half] };
        at += 1;
    }
    all
};

for_each_isa! {
    /// As [`idct::quad`](super::idct::quad), to `size` columns and rows of each block: 8, 4, 2 or 1.
    quad = quad_loop(blocks: &Quad, quantisers: &[[i16; 8]; 8], size: [usize; 2], target: &mut Target<'_>)
}

#[inline(always)]
fn quad_loop(
    blocks: &Quad,
    quantisers: &[[i16; 8]; 8],
    [columns, rows]: [usize; 2],
    target: &mut Target<'_>,
) {
    let [across, down] = [columns, rows].map(|n| &MEANS[(8 / n).ilog2() as usize]);
    for block in 0..4 {
        let mut coefficients = [[0f32; 8]; 8];
        for (row, line) in coefficients.iter_mut().enumerate() {
            let quantised = &blocks.0[row * 32 + block * 8..][..8];
            for column in 0..8 {
                line[column] = f32::from(quantised[column]) * f32::from(quantisers[row][column]);
            }
        }
        for (row, means) in down[..rows].iter().enumerate() {
            let mut between = [0f32; 8];
            for frequency in 0..8 {
                for column in 0..8 {
                    between[column] += means[frequency] * coefficients[frequency][column];
                }
            }
            let out = &mut target.samples[row * target.stride + block * columns..][..columns];
            for (out, means) in out.iter_mut().zip(across) {
                let mut mean = 128.5;
                for frequency in 0..8 {
                    mean += means[frequency] * between[frequency];
                }
                // A cast from float to integer rounds down and cuts off.
                *out = mean as u8;
            }
        }
    }
}
