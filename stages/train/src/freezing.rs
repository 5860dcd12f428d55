//! Which parts of a network a step trains.

use crate::models;
use crate::options::Freeze;
use crate::trainer::Trainer;

impl Trainer {
    /// The parts of the network called `arch`, from the images to the head; none when no network is called so.
    pub fn part_names(arch: &str) -> Vec<String> {
        models::blank(arch)
            .map(|network| network.part_names().map(str::to_owned).collect())
            .unwrap_or_default()
    }

    /// Says after which steps nothing got better: each lets the next of [`TrainOptions::unfreeze_on_stall`](crate::TrainOptions::unfreeze_on_stall) be trained from
    /// there on.
    pub fn set_stalls(&mut self, steps: Vec<u64>) {
        self.stalls = steps;
    }

    /// The names of the parts that the next step trains, from the images to the head.
    pub fn trained_parts(&self) -> Vec<String> {
        self.network.part_names().skip(self.first_trained(self.step)).map(str::to_owned).collect()
    }

    /// The number of the first part that a step trains.
    pub(crate) fn first_trained(&self, step: u64) -> usize {
        let part = |name: &str| self.network.part_index(name).expect("checked when the trainer was made");
        let last = self.network.parts() - 1;
        let begin = match &self.options.freeze {
            Freeze::None => 0,
            Freeze::Backbone => last,
            Freeze::Until(name) => part(name) + 1,
        };
        let reached = self.options.unfreeze.iter().filter(|unfreeze| unfreeze.step <= step);
        let reached = reached.map(|unfreeze| part(&unfreeze.part)).fold(begin, usize::min);
        let stalled = self.options.unfreeze_on_stall.iter().zip(&self.stalls).filter(|(_, at)| **at <= step);
        stalled.map(|(name, _)| part(name)).fold(reached, usize::min)
    }

    /// The number of the first part that is trained at some time.
    fn first_ever_trained(&self) -> usize {
        let part = |name: &String| self.network.part_index(name).expect("checked when the trainer was made");
        self.options.unfreeze_on_stall.iter().map(part).fold(self.first_trained(u64::MAX), usize::min)
    }

    /// Freezes what the next step does not train.
    pub(crate) fn freeze_for_step(&mut self) {
        self.store.freeze_before(self.first_trained(self.step));
    }

    /// The first part that is trained at some time, where parts before it stay frozen for the whole run.
    pub fn frozen_prefix(&self) -> Option<usize> {
        Some(self.first_ever_trained()).filter(|first| *first > 0)
    }
}
