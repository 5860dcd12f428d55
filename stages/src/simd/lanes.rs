//! Vectors of 16-bit lanes as an inverse transform uses them, one block with NEON, two side by side with
//! AVX2, four with AVX-512, and of bytes as pixels are made of them.
//!
//! A kernel is written once over [`Lanes`] and compiled for each of its instruction sets, by inlining it into a function that
//! has the set enabled.

/// A vector of 16-bit lanes, in groups of eight that do not see each other. 32-bit lanes are pairs of them.
///
/// A vector is made of a proof that the machine has the instructions, so that whoever has one may use it.
pub(crate) trait Lanes: Copy {
    /// Says that the machine has the instructions.
    type Proof: Copy;

    /// Groups of eight lanes.
    const GROUPS: usize;

    /// Lanes from index `at` on, `8 * GROUPS` of them.
    fn load(proof: Self::Proof, from: &[i16; 32], at: usize) -> Self;
    /// Eight lanes in each group.
    fn splat_group(proof: Self::Proof, lanes: &[i16; 8]) -> Self;
    /// A pair of lanes over and over.
    #[inline(always)]
    fn splat_pair(proof: Self::Proof, [low, high]: [i16; 2]) -> Self {
        Self::splat32(proof, i32::from(high) << 16 | i32::from(low as u16))
    }
    fn splat32(proof: Self::Proof, lane: i32) -> Self;
    /// The first bytes, `16 * GROUPS` of them.
    fn load_bytes(proof: Self::Proof, from: &[u8; 64]) -> Self;

    fn add16(self, other: Self) -> Self;
    fn sub16(self, other: Self) -> Self;
    /// Arithmetic.
    fn shift_right16<const N: u32>(self) -> Self;
    /// The upper halves of the products.
    fn mul_high16(self, other: Self) -> Self;
    /// The lower halves of the products.
    fn mul16(self, other: Self) -> Self;
    /// Products of 16-bit lanes, added in pairs to 32 bits.
    fn mul_add_pairs(self, other: Self) -> Self;
    fn add32(self, other: Self) -> Self;
    fn sub32(self, other: Self) -> Self;
    /// Arithmetic.
    fn shift_right32(self, by: u32) -> Self;

    /// 32-bit lanes of both cut to 16 bits, saturating.
    fn narrow32(self, other: Self) -> Self;
    /// 16-bit lanes of both cut to 8 bits, saturating, signed.
    fn narrow16(self, other: Self) -> Self;

    /// 16-bit lanes of both cut to 8 bits, saturating, unsigned.
    fn narrow_unsigned16(self, other: Self) -> Self;

    /// The lower lanes of both, in turn; lanes of 8, 16, 32 and 64 bits.
    fn low8(self, other: Self) -> Self;
    fn high8(self, other: Self) -> Self;
    fn low16(self, other: Self) -> Self;
    fn high16(self, other: Self) -> Self;
    fn low32(self, other: Self) -> Self;
    fn high32(self, other: Self) -> Self;
    fn low64(self, other: Self) -> Self;
    fn high64(self, other: Self) -> Self;

    /// Bytes with their highest bit turned, from -128..=127 to 0..=255.
    fn to_unsigned8(self) -> Self;
    /// The lower eight bytes of each group into one row, the upper eight into the other one, from byte `at` on.
    fn store_rows(self, rows: [&mut [u8; 32]; 2], at: usize);
    /// Bytes of the three in turn, `48 * GROUPS` of them.
    fn store_triples(of: [Self; 3], to: &mut [u8; 192]);
    /// What [`Lanes::store_triples`] stored.
    fn load_triples(proof: Self::Proof, from: &[u8; 192]) -> [Self; 3];
    /// The bytes into the first ones, `16 * GROUPS` of them.
    fn store_bytes(self, to: &mut [u8; 64]);
    /// The bytes from the last one to the first.
    fn reversed8(self) -> Self;
}
