//! Randomness is an argument: every random number is a function of what it is for.
//!
//! A stream is ChaCha8 under a BLAKE3 key of the seed and of the purpose, and the steps from bits to numbers
//! are written here, so that neither a new version of a random-number crate nor another order of calls changes
//! what a dataset or a training run looks like. Golden vectors below hold this still.

use std::sync::{Arc, Mutex};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The seed of a run, from which every stream is derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream for a purpose that belongs to no sample, such as the initial weights of one layer.
    pub fn stream(self, purpose: &str) -> Stream {
        Stream::new(&self.key("forebay stream v1").field(purpose))
    }

    /// The draws of one copy of one sample in one epoch.
    pub fn draws(self, id: &str, copy: u32, epoch: u32) -> Draws {
        Draws { key: self.key("forebay draws v1").field(id).numbers([copy, epoch]), record: None }
    }

    /// A hash that ranks samples for a purpose: sorting by it is a seeded permutation that a missing sample
    /// does not disturb.
    pub fn rank(self, purpose: &str, id: &str, copy: u32, epoch: u32) -> u128 {
        let key = self.key("forebay rank v1").field(purpose).field(id).numbers([copy, epoch]);
        u128::from_le_bytes(key.hash()[..16].try_into().expect("a BLAKE3 hash has 32 bytes"))
    }

    fn key(self, domain: &str) -> Key {
        let mut key = Key(Vec::with_capacity(KEY_BYTES)).field(domain);
        key.0.extend(self.0.to_le_bytes());
        key
    }
}

/// Most keys are shorter.
const KEY_BYTES: usize = 128;

/// What a stream is derived from. It is hashed at once: the state of a hash is fifteen times as large.
#[derive(Clone, Debug)]
struct Key(Vec<u8>);

impl Key {
    /// The key with a field and its length, so that ("ab", "c") and ("a", "bc") differ.
    fn field(mut self, text: &str) -> Key {
        self.0.extend((text.len() as u64).to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    fn numbers(mut self, numbers: [u32; 2]) -> Key {
        numbers.iter().for_each(|number| self.0.extend(number.to_le_bytes()));
        self
    }

    /// The same with one more field, for a purpose of its own.
    fn with(&self, text: &str) -> Key {
        let mut key = Vec::with_capacity(self.0.len() + text.len() + 8);
        key.extend(&self.0);
        Key(key).field(text)
    }

    fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.0).as_bytes()
    }
}

/// What a stage may draw from for one sample: it knows (seed, sample id, copy, epoch).
#[derive(Clone, Debug)]
pub struct Draws {
    key: Key,
    record: Option<DrawRecord>,
}

/// What was drawn, for those who want to know why an image became what it is.
pub type DrawRecord = Arc<Mutex<Vec<Drawn>>>;

/// One draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// The stage that drew.
    pub stage: String,
    /// What from.
    pub from: DrawnFrom,
    /// What came: a number, or 1 for yes and 0 for no.
    pub value: f64,
}

/// What a draw is from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DrawnFrom {
    /// Yes with this probability.
    Chance(f64),
    /// A number between these.
    Range(f64, f64),
    /// A whole number below this.
    Below(u64),
}

impl Draws {
    /// The stream of the stage called `name`. Streams of different names are independent, so that adding a
    /// stage changes no other stage's draws.
    pub fn of(&self, name: &str) -> Stream {
        let record = self.record.as_ref().map(|record| (name.to_string(), record.clone()));
        Stream { record, ..Stream::new(&self.key.with(name)) }
    }

    /// The same draws, each of which is put down in `record` as it is made; normal numbers are not.
    pub fn recorded(self, record: DrawRecord) -> Draws {
        Draws { record: Some(record), ..self }
    }

    /// Draws for a purpose of their own, such as one of several views of the sample: independent of these, and of those for
    /// any other purpose.
    pub fn within(&self, purpose: &str) -> Draws {
        Draws { key: self.key.with("within").field(purpose), record: self.record.clone() }
    }
}

/// An endless stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream {
    rng: ChaCha8Rng,
    /// Who draws, and where that is put down.
    record: Option<(String, DrawRecord)>,
}

impl Stream {
    fn new(key: &Key) -> Stream {
        Stream { rng: ChaCha8Rng::from_seed(key.hash()), record: None }
    }

    fn put_down(&self, from: DrawnFrom, value: f64) {
        if let Some((stage, record)) = &self.record {
            let drawn = Drawn { stage: stage.clone(), from, value };
            record.lock().expect("no panic under the lock").push(drawn);
        }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Uniform in `[0, 1)`, a multiple of 2⁻⁵³.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `[low, high)`; `low` where both are equal.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        let value = low + (high - low) * self.unit();
        self.put_down(DrawnFrom::Range(low, high), value);
        value
    }

    /// Uniform in `0..n` without bias (Lemire's method, arXiv 1805.10941).
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "a draw from an empty range");
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.bits()) * u128::from(n);
            if product as u64 >= threshold {
                let value = (product >> 64) as u64;
                self.put_down(DrawnFrom::Below(n), value as f64);
                return value;
            }
        }
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        let is_so = self.unit() < p;
        self.put_down(DrawnFrom::Chance(p), f64::from(u8::from(is_so)));
        is_so
    }

    /// A standard normal number (Box-Muller; the second one is thrown away, so that a draw is a pure function
    /// of two uniform ones).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Shuffles in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_what_it_always_was() {
        let mut stream = Seed(7).draws("cat/1.jpg", 2, 3).of("flip");
        let golden: Vec<u64> = (0..3).map(|_| stream.bits()).collect();
        assert_eq!(golden, [9402815602462563430, 14898448479659464944, 12822682405005633898]);
        let mut stream = Seed(0).stream("weights/fc");
        assert_eq!(
            (stream.unit(), stream.below(10), stream.normal()),
            (0.23780036311262098, 6, -1.1143386311720826)
        );
        assert_eq!(Seed(1).rank("split", "a", 0, 0), 169569889026587337821830004604014401742);
    }

    #[test]
    fn another_name_copy_epoch_or_seed_is_another_stream() {
        let base = Seed(1).draws("a", 0, 0).of("x").bits();
        for other in [
            Seed(2).draws("a", 0, 0).of("x").bits(),
            Seed(1).draws("b", 0, 0).of("x").bits(),
            Seed(1).draws("a", 1, 0).of("x").bits(),
            Seed(1).draws("a", 0, 1).of("x").bits(),
            Seed(1).draws("a", 0, 0).of("y").bits(),
            Seed(1).draws("a", 0, 0).within("view 1").of("x").bits(),
            Seed(1).draws("a", 0, 0).within("view 2").of("x").bits(),
            Seed(1).stream("x").bits(),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn draws_are_uniform_and_normal_enough() {
        let mut stream = Seed(3).stream("test");
        let mut counts = [0u32; 6];
        for _ in 0..6000 {
            counts[stream.below(6) as usize] += 1;
        }
        // Chi-square with 5 degrees of freedom: above 20.5 once in a thousand seeds.
        let chi: f64 = counts.iter().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 20.5, "{counts:?}");
        let normals: Vec<f64> = (0..10_000).map(|_| stream.normal()).collect();
        let mean = normals.iter().sum::<f64>() / 1e4;
        let variance = normals.iter().map(|x| x * x).sum::<f64>() / 1e4;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.06, "{mean} {variance}");
    }

    #[test]
    fn a_shuffle_is_a_permutation() {
        let mut items: Vec<u32> = (0..50).collect();
        Seed(4).stream("s").shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
