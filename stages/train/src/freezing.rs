//! Which parts of a network a step trains.

use crate::models::{self, Network};
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
        let reached = self.options.unfreeze.iter().filter(|unfreeze| unfreeze.step <= step);
        let stalled = self.options.unfreeze_on_stall.iter().zip(&self.stalls).filter(|(_, at)| **at <= step);
        let thawed = reached.map(|unfreeze| &unfreeze.part).chain(stalled.map(|(name, _)| name));
        self.first_with(thawed.map(String::as_str))
    }

    /// The number of the first part that is trained at some time.
    fn first_ever_trained(&self) -> usize {
        self.first_with(self.options.thawed())
    }

    fn first_with<'a>(&self, thawed: impl IntoIterator<Item = &'a str>) -> usize {
        let first = first_trained(&self.network, &self.options.freeze, thawed);
        first.expect("checked when the trainer was made")
    }

    /// The number of the first part of the network called `arch` that is trained once the parts called `thawed` are, where
    /// `freeze` holds at first; `None` where the network does not have one of these parts, or there is none called so.
    pub fn first_trained_part<'a>(
        arch: &str,
        freeze: &Freeze,
        thawed: impl IntoIterator<Item = &'a str>,
    ) -> Option<usize> {
        first_trained(&models::blank(arch)?, freeze, thawed)
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

/// As [`Trainer::first_trained_part`].
fn first_trained<'a>(
    network: &Network,
    freeze: &Freeze,
    thawed: impl IntoIterator<Item = &'a str>,
) -> Option<usize> {
    let begin = match freeze {
        Freeze::None => 0,
        Freeze::Backbone => network.parts() - 1,
        Freeze::Until(name) => network.part_index(name)? + 1,
    };
    thawed.into_iter().try_fold(begin, |first, name| Some(first.min(network.part_index(name)?)))
}
