//! The plan of a training run as people read it.

use forebay_datasets::sample::Split;

use super::plan::TrainPlan;
use crate::plan::memory_in_words;

impl std::fmt::Display for TrainPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let feed = &self.feed;
        let source = feed.source.description();
        writeln!(f, "train {} ({source})", feed.store.location())?;
        for split in Split::ALL {
            writeln!(f, "  {split:<12} {} images", feed.rows(split))?;
        }
        let (read, compute) = (feed.rooms.read(), feed.rooms.compute());
        writeln!(f, "  stages       (slots + queue, of chunks of {} samples)", feed.source.chunk())?;
        let augment = match &feed.augment {
            Some(augment) => serde_json::to_string(augment).unwrap_or_default(),
            None => "off".to_string(),
        };
        for (name, room, what) in [
            ("read", read, feed.store.location().to_string()),
            ("decode", compute, "to RGB".to_string()),
            ("resize", compute, feed.chain.to_string()),
            ("augment", compute, augment),
            ("batch", compute, format!("{} images", feed.batch_size)),
        ] {
            writeln!(f, "    {name:<10} {:>3} + {:<3} {what}", room.slots, room.queue)?;
        }
        let options = &self.options;
        writeln!(f, "  model        {} with {} classes", options.model, options.classes.len())?;
        writeln!(
            f,
            "  optimizer    {}, learning rate {}, weight decay {}",
            options.optimizer.name(),
            options.schedule.peak,
            options.weight_decay
        )?;
        writeln!(
            f,
            "  schedule     {} epochs of {} steps, {} steps of warm-up, {:?}",
            self.epochs, self.steps_per_epoch, options.schedule.warmup_steps, options.schedule.shape
        )?;
        for note in &self.notes {
            writeln!(f, "  note         {note}")?;
        }
        writeln!(f, "  keeping      {}", self.keeping)?;
        writeln!(f, "  threads      {}", feed.rooms.threads)?;
        f.write_str(&memory_in_words(&feed.memory()))
    }
}
