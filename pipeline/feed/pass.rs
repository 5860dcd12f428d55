//! A pass over a split, and who may make one over the test split.

use forebay_datasets::sample::Split;

/// One pass over a split. One over the test split takes a [`TestAccess`], so that what searches for a model cannot look
/// at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    split: Split,
    /// The epoch of training whose order and augmentation it has; none where images come as they are.
    epoch: Option<u32>,
}

/// The right to look at test images: whoever makes one has counted it, or shows nothing of what they score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestAccess {
    openings: u64,
}

impl TestAccess {
    /// A look at the test images of a run, of which a model was scored on them so often, with this one: that is counted.
    pub(crate) fn counted(openings: u64) -> TestAccess {
        TestAccess { openings }
    }

    /// A look at the test images of a source that no run is of.
    pub(crate) fn of_no_run() -> TestAccess {
        TestAccess { openings: 1 }
    }

    /// How often a model of the run was scored on its test images, with this one.
    pub fn openings(self) -> u64 {
        self.openings
    }
}

impl Pass {
    /// The training split in the order of this epoch, augmented.
    pub fn train(epoch: u32) -> Pass {
        Pass { split: Split::Train, epoch: Some(epoch) }
    }

    /// The training images in their own order, as they are.
    pub fn training_images() -> Pass {
        Pass { split: Split::Train, epoch: None }
    }

    /// The validation split in its own order, as it is.
    pub fn validation() -> Pass {
        Pass { split: Split::Validation, epoch: None }
    }

    /// A split in its own order, as it is.
    pub fn evaluate(split: Split, _: TestAccess) -> Pass {
        Pass { split, epoch: None }
    }

    /// Whose rows it has.
    pub fn split(self) -> Split {
        self.split
    }

    /// The epoch whose augmentation images get; none where they are as they are.
    pub(crate) fn epoch(self) -> Option<u32> {
        self.epoch
    }
}

/// A global batch of an epoch, or the part of one that this process takes, as far as it could be read.
#[derive(Clone, Debug)]
pub struct PassBatch<B> {
    /// Its number in the pass, counted from 0: the pass goes on with the next one.
    pub index: u64,
    /// Its planned rows; those that could not be read are missing in `batch`.
    pub planned: usize,
    /// The others.
    pub batch: B,
}

impl<B> PassBatch<B> {
    /// Whether a step can be done on the `images` that could be read. A batch of holes has no gradient, and one
    /// that rejects leave with a single image could not be normalised; each counts as a step of the schedule that
    /// changes no weight.
    pub fn has_a_step(&self, images: usize) -> bool {
        images >= self.planned.clamp(1, 2)
    }
}
