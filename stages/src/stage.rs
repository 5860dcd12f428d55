//! What can happen: to one image ([`Stage`]), to the stream of them ([`Regroup`]), or that many become one ([`Gather`]).

pub use forebay_datasets::sample::{Fault, Label};
pub use forebay_datasets::seed::Draws;

/// What happens to one image: the same input and the same draws give the same output, on any thread, in any
/// order.
pub trait Stage: Send + Sync + 'static {
    /// Key in the run file, name of the metric, name in errors, name of its draws.
    const NAME: &'static str;
    /// What it takes.
    type In: Send + 'static;
    /// What it gives.
    type Out: Send + 'static;

    /// Transforms one image.
    ///
    /// # Errors
    /// A [`Fault`] rejects this image and no other.
    fn apply(&self, input: Self::In, draws: &Draws) -> Result<Self::Out, Fault>;

    /// The same for an image of which the class may be known.
    ///
    /// # Errors
    /// As [`Stage::apply`].
    fn apply_to(&self, input: Self::In, _class: Option<Label>, draws: &Draws) -> Result<Self::Out, Fault> {
        self.apply(input, draws)
    }
}

/// What a stage makes of an image, and what it takes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Columns of what comes out.
    pub width: u32,
    /// Rows of what comes out.
    pub height: u32,
    /// The most bytes of what comes out.
    pub out_bytes: u64,
    /// The most bytes that the stage holds beside what goes in and what comes out.
    pub work_bytes: u64,
}

impl Work {
    /// What comes out and what the stage holds beside it, bytes.
    pub(crate) fn total(&self) -> u64 {
        self.out_bytes + self.work_bytes
    }
}

/// What happens to the stream: items are repeated, held back, reordered or grouped. It touches no pixels.
pub trait Regroup: Send + 'static {
    /// Key in the run file, name of the metric, name in errors.
    const NAME: &'static str;
    /// What it takes.
    type In: Send + 'static;
    /// What it gives.
    type Out: Send + 'static;

    /// Takes one item and puts what it releases, if anything, at the end of `out`.
    fn push(&mut self, item: Self::In, out: &mut Vec<Self::Out>);

    /// Releases what is still held. Called at the end of the source, and not when a run is interrupted.
    fn finish(&mut self, _out: &mut Vec<Self::Out>) {}
}

/// What fills large items with what comes: each is begun when there is room for it, and leaves when it is complete. What is in none
/// at the end of the stream is thrown away.
pub trait Gather: Send + 'static {
    /// Name of the metric, name in errors.
    const NAME: &'static str;
    /// What it takes.
    type In: Send + 'static;
    /// What it gives.
    type Out: Send + 'static;

    /// Takes one item.
    fn take(&mut self, item: Self::In);

    /// Works on what was taken until an item is complete, which leaves. Where none does, all that was taken is in the item that is
    /// begun.
    fn fill(&mut self) -> Option<Self::Out>;

    /// Whether all that was taken is in items, so that nothing of it is held any more.
    fn is_idle(&self) -> bool;
}
