//! The plan of a training run as people read it.

use forebay_datasets::sample::Split;
use forebay_train::ClassWeights;
use forebay_train::schedule::Shape;

use super::plan::TrainPlan;
use crate::plan::{balance_in_words, indented, memory_in_words, nodes_in_words, schedule_in_words};

impl std::fmt::Display for TrainPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let feed = &self.feed;
        let source = feed.source.description();
        writeln!(f, "train {} ({source})", feed.store.location())?;
        for split in Split::ALL {
            writeln!(f, "  {split:<12} {} images", feed.rows(split))?;
        }
        writeln!(f, "  size         {side} x {side} ({})", feed.side_by, side = feed.side)?;
        f.write_str(&nodes_in_words(feed.source.chunk(), &feed.nodes()))?;
        let options = &self.options;
        if let Some(summary) = &self.balance {
            let mode = self.settings.get("balance.mode").and_then(|mode| mode.as_str()).unwrap_or_default();
            writeln!(f, "  balance      {mode}, training split:")?;
            f.write_str(&indented(&balance_in_words(&options.classes, summary)))?;
        }
        let is_corrected = options.loss.corrects_priors() || options.class_weights != ClassWeights::None;
        if is_corrected || self.balance.is_some() || self.resampling.is_some() {
            writeln!(f, "  prior        after balance and loss:")?;
            f.write_str(&indented(&self.priors().table()))?;
        }
        writeln!(f, "  model        {} with {} classes", options.model, options.classes.len())?;
        if let Some(programs) = self.preparation.opens_in(&options.model, &options.head) {
            writeln!(f, "  opens in     {programs}")?;
        }
        writeln!(
            f,
            "  optimizer    {}, learning rate {}, weight decay {}",
            options.optimizer, options.schedule.peak, options.weight_decay
        )?;
        writeln!(
            f,
            "  schedule     {} epochs of {} steps, {}{}",
            self.epochs,
            self.steps_per_epoch,
            match options.schedule.shape {
                // It has a warm-up of its own.
                Shape::OneCycle { .. } => String::new(),
                _ => format!("{} steps of warm-up, then ", options.schedule.warmup_steps),
            },
            match &self.plateau {
                Some(_) => "lower whenever validation stalls".to_string(),
                None => schedule_in_words(&options.schedule.shape),
            }
        )?;
        if let Some(frozen) = self.freezing.in_words() {
            writeln!(f, "  frozen       {frozen}")?;
        }
        for note in &self.notes {
            writeln!(f, "  note         {note}")?;
        }
        writeln!(f, "  keeping      {}", self.keeping)?;
        writeln!(f, "  threads      {}", feed.rooms.threads)?;
        f.write_str(&memory_in_words(&self.memory()))
    }
}
