//! The inverse discrete cosine transform of four blocks at once, from quantised coefficients to samples.
//!
//! It is the accurate integer transform of libjpeg (`jidctint.c`; Loeffler, Ligtenberg and Moschytz, ICASSP 1989), bit for bit:
//! columns first, with two fractional bits between the passes.
//!
//! A reduced pass gives the means of 2, 4 or 8 samples that stand side by side. The mean of two samples of a wave is a sample of
//! the same wave at half as many places, lower by the cosine of half a step, and a wave too short for these places looks there
//! like a longer one: coefficient 8 - u counts as coefficient u, with the sine of half a step and turned.

use super::coefficients::Quad;
use crate::simd::isa::for_each_isa;
use crate::simd::lanes::Lanes;

/// Fractional bits of the constants.
const CONST_BITS: u32 = 13;
/// Fractional bits between the passes.
const PASS_BITS: u32 = 2;

/// A constant of the transform with its fractional bits.
const fn fix(value: f64) -> i16 {
    (value * (1 << CONST_BITS) as f64 + 0.5) as i16
}

const F_0_298: i16 = fix(0.298631336);
const F_0_390: i16 = fix(0.390180644);
const F_0_541: i16 = fix(0.541196100);
const F_0_765: i16 = fix(0.765366865);
const F_0_899: i16 = fix(0.899976223);
const F_1_175: i16 = fix(1.175875602);
const F_1_501: i16 = fix(1.501321110);
const F_1_847: i16 = fix(1.847759065);
const F_1_961: i16 = fix(1.961570560);
const F_2_053: i16 = fix(2.053119869);
const F_2_562: i16 = fix(2.562915447);
const F_3_072: i16 = fix(3.072711026);

/// What coefficients 2 and 6 give to the mean of two samples: the cosine and the sine of pi / 8.
const MEAN_2: i16 = fix(0.923879533);
const MEAN_6: i16 = fix(0.382683432);
/// The same of coefficients 1, 7, 3 and 5, for the outer means of a block and for the inner ones: sqrt(2) times the cosine of
/// pi / 8 or of 3 pi / 8 times the cosine or the sine of pi / 16 or of 3 pi / 16.
const OUTER_1: i16 = fix(1.281457724);
const OUTER_7: i16 = fix(0.254897789);
const OUTER_3: i16 = fix(0.449988112);
const OUTER_5: i16 = fix(0.300672444);
const INNER_1: i16 = fix(0.530797170);
const INNER_7: i16 = fix(0.105582121);
const INNER_3: i16 = fix(1.086367403);
const INNER_5: i16 = fix(0.725887494);

/// A plane of samples that blocks are put into.
pub(super) struct Target<'a> {
    /// From the first sample of the blocks on.
    pub(super) samples: &'a mut [u8],
    /// Samples from a row to the next one, at least 32.
    pub(super) stride: usize,
}

impl Target<'_> {
    /// Two rows of 32 samples, the second one lower.
    #[inline(always)]
    fn rows(&mut self, row: usize) -> [&mut [u8; 32]; 2] {
        let (a, b) = self.samples[row * self.stride..].split_at_mut(self.stride);
        [a, b].map(|row| (&mut row[..32]).try_into().expect("32 of them"))
    }

    /// Puts four blocks, the first of 8 columns and rows of each where they are `reduced`, side by side.
    #[inline(always)]
    fn put(&mut self, samples: &[u8; 256], [across, down]: [usize; 2]) {
        let rows = samples.as_chunks::<32>().0.iter().take(8 / down);
        for (row, to) in rows.zip(self.samples.chunks_mut(self.stride)) {
            match across {
                1 => to[..32].copy_from_slice(row),
                2 => put_row::<4>(row, to),
                4 => put_row::<2>(row, to),
                _ => put_row::<1>(row, to),
            }
        }
    }
}

/// The first of each eight samples, side by side.
#[inline(always)]
fn put_row<const N: usize>(row: &[u8; 32], to: &mut [u8]) {
    for (block, to) in row.as_chunks::<8>().0.iter().zip(to.as_chunks_mut::<N>().0) {
        to.copy_from_slice(&block[..N]);
    }
}

for_each_isa! {
    /// Multiplies the coefficients of four blocks, whose rows are `[8, 4, 8]`, with their quantisers `[8, 8]`, transforms them
    /// and writes them as 8 rows of 32 samples, 0 to 255. Both are in natural order. Of `reduced` columns and rows, each 1, 2, 4
    /// or 8, the samples are means, and there are so many fewer of them.
    quad = vector / scalar(blocks: &Quad, quantisers: &[[i16; 8]; 8], reduced: [usize; 2], target: &mut Target<'_>)
}

/// As many blocks at once as a vector has groups.
#[inline(always)]
fn vector<L: Lanes>(
    proof: L::Proof,
    blocks: &Quad,
    quantisers: &[[i16; 8]; 8],
    reduced: [usize; 2],
    target: &mut Target<'_>,
) {
    if reduced == [1, 1] {
        for at in (0..4).step_by(L::GROUPS) {
            transform::<L>(proof, blocks, quantisers, reduced, target, at);
        }
    } else {
        let mut samples = [0; 256];
        for at in (0..4).step_by(L::GROUPS) {
            let mut all = Target { samples: &mut samples, stride: 32 };
            transform::<L>(proof, blocks, quantisers, reduced, &mut all, at);
        }
        target.put(&samples, reduced);
    }
}

/// As many blocks as a vector has groups, from block `at` on; of samples that are means the first ones of eight columns and rows.
#[inline(always)]
fn transform<L: Lanes>(
    proof: L::Proof,
    blocks: &Quad,
    quantisers: &[[i16; 8]; 8],
    [across, down]: [usize; 2],
    target: &mut Target<'_>,
    at: usize,
) {
    let rows: [L; 8] = std::array::from_fn(|row| {
        let lanes = blocks[row * 32..row * 32 + 32].try_into().expect("32 of them");
        L::load(proof, lanes, at * 8).mul16(L::splat_group(proof, &quantisers[row]))
    });
    let between = transpose(pass::<L, { CONST_BITS - PASS_BITS }>(proof, rows, down));
    let columns = pass::<L, { CONST_BITS + PASS_BITS + 3 }>(proof, between, across);
    let pairs: [L; 4] = std::array::from_fn(|i| columns[i].narrow16(columns[i + 4]).to_unsigned8());
    // Bytes of eight columns, transposed to rows.
    let (a, b) = (pairs[0].low8(pairs[1]), pairs[2].low8(pairs[3]));
    let (c, d) = (pairs[0].high8(pairs[1]), pairs[2].high8(pairs[3]));
    let (low, high) = (a.low16(b), a.high16(b));
    let (low_right, high_right) = (c.low16(d), c.high16(d));
    low.low32(low_right).store_rows(target.rows(0), at * 8);
    low.high32(low_right).store_rows(target.rows(2), at * 8);
    high.low32(high_right).store_rows(target.rows(4), at * 8);
    high.high32(high_right).store_rows(target.rows(6), at * 8);
}

/// What coefficients 1, 7, 3 and 5 are multiplied with for the outer and the inner means of two samples.
const MEANS_OF_2: [[[i16; 2]; 2]; 2] =
    [[[OUTER_1, -OUTER_7], [OUTER_3, -OUTER_5]], [[INNER_1, -INNER_7], [-INNER_3, INNER_5]]];
/// The mean of both.
const MEANS_OF_4: [[i16; 2]; 2] =
    [[(OUTER_1 + INNER_1) / 2, -(OUTER_7 + INNER_7) / 2], [(OUTER_3 - INNER_3) / 2, (INNER_5 - OUTER_5) / 2]];

/// One pass over eight vectors, to means of so many; results are divided by `2^SHIFT` and rounded. Those beyond mean nothing.
#[inline(always)]
fn pass<L: Lanes, const SHIFT: u32>(proof: L::Proof, v: [L; 8], reduced: usize) -> [L; 8] {
    let half = L::splat32(proof, 1 << (SHIFT - 1));
    // Lower and upper halves of 16-bit lanes, in 32 bits.
    let pairs = |a: L, b: L| [a.low16(b), a.high16(b)];
    let times = |pairs: [L; 2], by: [i16; 2]| {
        let by = L::splat_pair(proof, by);
        [pairs[0].mul_add_pairs(by), pairs[1].mul_add_pairs(by)]
    };
    let add = |a: [L; 2], b: [L; 2]| [a[0].add32(b[0]), a[1].add32(b[1])];
    let sub = |a: [L; 2], b: [L; 2]| [a[0].sub32(b[0]), a[1].sub32(b[1])];
    let done = |a: [L; 2]| a[0].shift_right32(SHIFT).narrow32(a[1].shift_right32(SHIFT));

    if reduced > 1 {
        let flat = add(times(pairs(v[0], v[4]), [1 << CONST_BITS, 0]), [half; 2]);
        let [outer, inner] = [pairs(v[1], v[7]), pairs(v[3], v[5])];
        let mixed = |by: [[i16; 2]; 2]| add(times(outer, by[0]), times(inner, by[1]));
        return match reduced {
            2 => {
                let turned = times(pairs(v[2], v[6]), [MEAN_2, -MEAN_6]);
                let (outer, inner) = (mixed(MEANS_OF_2[0]), mixed(MEANS_OF_2[1]));
                let (ends, middle) = (add(flat, turned), sub(flat, turned));
                let [a, b] = [done(add(ends, outer)), done(add(middle, inner))];
                let [c, d] = [done(sub(middle, inner)), done(sub(ends, outer))];
                [a, b, c, d, d, d, d, d]
            }
            4 => {
                let slope = mixed(MEANS_OF_4);
                let [a, b] = [done(add(flat, slope)), done(sub(flat, slope))];
                [a, b, b, b, b, b, b, b]
            }
            _ => [done(flat); 8],
        };
    }

    // The even part.
    let outer = pairs(v[0], v[4]);
    let sum = add(times(outer, [1 << CONST_BITS, 1 << CONST_BITS]), [half; 2]);
    let difference = add(times(outer, [1 << CONST_BITS, -1 << CONST_BITS]), [half; 2]);
    let inner = pairs(v[2], v[6]);
    let turned = times(inner, [F_0_541 + F_0_765, F_0_541]);
    let turned_back = times(inner, [F_0_541, F_0_541 - F_1_847]);
    let even =
        [add(sum, turned), add(difference, turned_back), sub(difference, turned_back), sub(sum, turned)];

    // The odd part.
    let crossed = pairs(v[7].add16(v[3]), v[5].add16(v[1]));
    let z3 = times(crossed, [F_1_175 - F_1_961, F_1_175]);
    let z4 = times(crossed, [F_1_175, F_1_175 - F_0_390]);
    let outer = pairs(v[7], v[1]);
    let inner = pairs(v[5], v[3]);
    let odd = [
        add(times(outer, [-F_0_899, F_1_501 - F_0_899]), z4),
        add(times(inner, [-F_2_562, F_3_072 - F_2_562]), z3),
        add(times(inner, [F_2_053 - F_2_562, -F_2_562]), z4),
        add(times(outer, [F_0_298 - F_0_899, -F_0_899]), z3),
    ];
    [
        done(add(even[0], odd[0])),
        done(add(even[1], odd[1])),
        done(add(even[2], odd[2])),
        done(add(even[3], odd[3])),
        done(sub(even[3], odd[3])),
        done(sub(even[2], odd[2])),
        done(sub(even[1], odd[1])),
        done(sub(even[0], odd[0])),
    ]
}

/// Rows of eight lanes to columns, in each group.
#[inline(always)]
fn transpose<L: Lanes>(v: [L; 8]) -> [L; 8] {
    let low: [L; 4] = std::array::from_fn(|i| v[2 * i].low16(v[2 * i + 1]));
    let high: [L; 4] = std::array::from_fn(|i| v[2 * i].high16(v[2 * i + 1]));
    let ([a, b, c, d], [e, f, g, h]) = (quarters(low), quarters(high));
    [a, b, c, d, e, f, g, h]
}

/// Half of [`transpose`].
#[inline(always)]
fn quarters<L: Lanes>(half: [L; 4]) -> [L; 4] {
    let (a, b) = (half[0].low32(half[1]), half[2].low32(half[3]));
    let (c, d) = (half[0].high32(half[1]), half[2].high32(half[3]));
    [a.low64(b), a.high64(b), c.low64(d), c.high64(d)]
}

/// The same block by block.
fn scalar(blocks: &Quad, quantisers: &[[i16; 8]; 8], reduced: [usize; 2], target: &mut Target<'_>) {
    let [across, down] = reduced;
    let mut all = [0; 256];
    for block in 0..4 {
        let mut between = [[0i32; 8]; 8];
        for column in 0..8 {
            // 16 bits, as what vectors multiply.
            let v = std::array::from_fn(|row| {
                i32::from(blocks[row * 32 + block * 8 + column].wrapping_mul(quantisers[row][column]))
            });
            for (row, value) in scalar_pass(v, CONST_BITS - PASS_BITS, down).into_iter().enumerate() {
                between[row][column] = value;
            }
        }
        for (row, v) in between.into_iter().enumerate() {
            let samples = scalar_pass(v, CONST_BITS + PASS_BITS + 3, across);
            for (out, sample) in all[row * 32 + block * 8..][..8].iter_mut().zip(samples) {
                *out = (sample + 128).clamp(0, 255) as u8;
            }
        }
    }
    target.put(&all, reduced);
}

/// One pass over eight values, to means of so many, divided by `2^shift`, rounded and cut to 16 bits. Those beyond mean nothing.
fn scalar_pass(v: [i32; 8], shift: u32, reduced: usize) -> [i32; 8] {
    let times = |value: i32, by: i16| value.wrapping_mul(i32::from(by));
    let done = |value: i32| {
        (value.wrapping_add(1 << (shift - 1)) >> shift).clamp(i32::from(i16::MIN), i32::from(i16::MAX))
    };
    if reduced > 1 {
        let flat = v[0] << CONST_BITS;
        let mixed = |[[one, seven], [three, five]]: [[i16; 2]; 2]| {
            let outer = times(v[1], one).wrapping_add(times(v[7], seven));
            outer.wrapping_add(times(v[3], three).wrapping_add(times(v[5], five)))
        };
        let mut out = [0; 8];
        match reduced {
            2 => {
                let turned = times(v[2], MEAN_2).wrapping_add(times(v[6], -MEAN_6));
                let (outer, inner) = (mixed(MEANS_OF_2[0]), mixed(MEANS_OF_2[1]));
                let (ends, middle) = (flat.wrapping_add(turned), flat.wrapping_sub(turned));
                out[0] = done(ends.wrapping_add(outer));
                out[1] = done(middle.wrapping_add(inner));
                out[2] = done(middle.wrapping_sub(inner));
                out[3] = done(ends.wrapping_sub(outer));
            }
            4 => {
                let slope = mixed(MEANS_OF_4);
                (out[0], out[1]) = (done(flat.wrapping_add(slope)), done(flat.wrapping_sub(slope)));
            }
            _ => out[0] = done(flat),
        }
        return out;
    }
    let turn = times(v[2].wrapping_add(v[6]), F_0_541);
    let turned = turn.wrapping_add(times(v[2], F_0_765));
    let turned_back = turn.wrapping_sub(times(v[6], F_1_847));
    let sum = v[0].wrapping_add(v[4]) << CONST_BITS;
    let difference = v[0].wrapping_sub(v[4]) << CONST_BITS;
    let even = [
        sum.wrapping_add(turned),
        difference.wrapping_add(turned_back),
        difference.wrapping_sub(turned_back),
        sum.wrapping_sub(turned),
    ];
    let (z3, z4) = (
        i32::from((v[7] as i16).wrapping_add(v[3] as i16)),
        i32::from((v[5] as i16).wrapping_add(v[1] as i16)),
    );
    let z5 = times(z3.wrapping_add(z4), F_1_175);
    let (z3, z4) = (z5.wrapping_sub(times(z3, F_1_961)), z5.wrapping_sub(times(z4, F_0_390)));
    let outer = times(v[7].wrapping_add(v[1]), F_0_899);
    let inner = times(v[5].wrapping_add(v[3]), F_2_562);
    let odd = [
        times(v[1], F_1_501).wrapping_sub(outer).wrapping_add(z4),
        times(v[3], F_3_072).wrapping_sub(inner).wrapping_add(z3),
        times(v[5], F_2_053).wrapping_sub(inner).wrapping_add(z4),
        times(v[7], F_0_298).wrapping_sub(outer).wrapping_add(z3),
    ];
    let mut out = [0; 8];
    for i in 0..4 {
        out[i] = done(even[i].wrapping_add(odd[i]));
        out[7 - i] = done(even[i].wrapping_sub(odd[i]));
    }
    out
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::simd::isa::Isa;

    #[test]
    fn vectors_give_what_single_numbers_give() {
        let mut stream = Seed(3).stream("blocks");
        for round in 0..4000 {
            let mut blocks: Quad = [0; 256];
            let most = [3.0, 60.0, 1024.0, 32767.0][round % 4];
            let share = stream.range(0.02, 1.0);
            for coefficient in &mut blocks[..256] {
                if stream.range(0.0, 1.0) < share {
                    *coefficient = stream.range(-most, most) as i16;
                }
            }
            let quantisers = std::array::from_fn(|_| {
                std::array::from_fn(|_| stream.range(1.0, if round % 8 < 6 { 3.0 } else { 255.0 }) as i16)
            });
            for reduced in REDUCED.map(|across| REDUCED.map(|down| [across, down])).concat() {
                let run = |isa| {
                    let mut samples = vec![7; 8 * 40];
                    quad(
                        isa,
                        &blocks,
                        &quantisers,
                        reduced,
                        &mut Target { samples: &mut samples, stride: 40 },
                    );
                    samples
                };
                let expected = run(Isa::Scalar);
                for isa in Isa::all() {
                    assert_eq!(run(isa), expected, "round {round}, {isa:?}, {reduced:?}");
                }
            }
        }
    }

    const REDUCED: [usize; 4] = [1, 2, 4, 8];

    #[test]
    fn a_reduced_sample_is_the_mean_of_those_it_stands_for() {
        let mut stream = Seed(5).stream("blocks");
        for round in 0..500 {
            // So that no sample is cut off at 0 or 255.
            let mut blocks: Quad = [0; 256];
            for block in 0..4 {
                blocks[block * 8] = stream.range(-300.0, 300.0) as i16;
                for _ in 0..round % 9 {
                    let (row, column) = (stream.below(8) as usize, stream.below(8) as usize);
                    blocks[row * 32 + block * 8 + column] = stream.range(-60.0, 60.0) as i16;
                }
            }
            let samples = |reduced| {
                let mut samples = vec![0; 8 * 32];
                let mut target = Target { samples: &mut samples, stride: 32 };
                quad(Isa::detect(), &blocks, &[[1; 8]; 8], reduced, &mut target);
                samples
            };
            let whole = samples([1, 1]);
            for reduced @ [across, down] in REDUCED.map(|across| REDUCED.map(|down| [across, down])).concat()
            {
                let found = samples(reduced);
                for (y, x) in (0..8 / down).flat_map(|y| (0..32 / across).map(move |x| (y, x))) {
                    let square = (y * down..(y + 1) * down)
                        .flat_map(|y| (x * across..(x + 1) * across).map(move |x| y * 32 + x));
                    let sum: f64 = square.map(|at| f64::from(whole[at])).sum();
                    let (mean, found) = (sum / (across * down) as f64, f64::from(found[y * 32 + x]));
                    assert!((mean - found).abs() <= 1.0, "round {round} {reduced:?}: {found} for {mean}");
                }
            }
        }
    }
}
