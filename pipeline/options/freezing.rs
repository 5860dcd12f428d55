//! What of a network is frozen and when it thaws: `--freeze`, `--unfreeze`, `--layer-decay` and the recipe, read in one
//! place. The run, its plan, and the options that have an effect only where something is frozen all ask here.

use forebay_train::{Freeze, Trainer};

use super::choices::Recipe;
use super::values::Config;

/// What recipe fine-tune multiplies the learning rate by, from each part to the one before it.
const FINE_TUNE_DECAY: f64 = 0.75;

/// From the start of an epoch on, a part and those after it are trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thaw {
    /// The epoch, counted from 1.
    pub epoch: u64,
    /// The first part.
    pub part: String,
}

/// What is frozen at first, what thaws when, and how fast the parts learn that are trained.
#[derive(Clone, Debug, PartialEq)]
pub struct FreezePlan {
    /// The network.
    arch: String,
    /// What is frozen at first.
    pub freeze: Freeze,
    /// What thaws at an epoch, as it is written.
    pub by_epoch: Vec<Thaw>,
    /// What thaws when validation stalls, one after the other.
    pub by_stall: Vec<String>,
    /// Whether these steps are those of recipe fine-tune.
    pub is_recipe: bool,
    /// What the learning rate is multiplied by, from each part to the one before it.
    pub layer_decay: f64,
    /// Whether that is the recipe's number.
    pub decays_by_recipe: bool,
    /// What is wrong with what is written, one a line.
    pub problems: Vec<String>,
}

impl FreezePlan {
    /// What the options say.
    pub fn of(config: &Config) -> FreezePlan {
        let arch = config.text("train.arch").unwrap_or_default();
        let epochs = config.whole("train.epochs");
        let (freeze, unfreeze) = (config.text("train.freeze"), config.text("train.unfreeze"));
        let fine_tunes = config.get("train.weights").is_some()
            && config.choice::<Recipe>("train.recipe") == Recipe::FineTune;
        let layer_decay = config.number("train.layer_decay");
        let mut plan = FreezePlan {
            freeze: match freeze.as_deref() {
                None if unfreeze.is_some() => Freeze::Backbone,
                None | Some("none") => Freeze::None,
                Some("backbone") => Freeze::Backbone,
                Some(part) => Freeze::Until(part.to_string()),
            },
            arch,
            by_epoch: Vec::new(),
            by_stall: Vec::new(),
            is_recipe: fine_tunes && freeze.is_none() && unfreeze.is_none(),
            layer_decay: layer_decay.unwrap_or(if fine_tunes { FINE_TUNE_DECAY } else { 1.0 }),
            decays_by_recipe: fine_tunes && layer_decay.is_none(),
            problems: Vec::new(),
        };
        if plan.is_recipe {
            // fastai's fine_tune: one epoch for the new head, then everything.
            plan.freeze = Freeze::Backbone;
            let first = Trainer::part_names(&plan.arch).into_iter().next().filter(|_| epochs > 1);
            plan.by_epoch.extend(first.map(|part| Thaw { epoch: 2, part }));
        }
        for milestone in unfreeze.iter().flat_map(|text| text.split(',')) {
            plan.read(milestone.trim(), epochs);
        }
        plan.refuse_trained();
        plan
    }

    /// Takes in one `EPOCH: PART` or `stall: PART`.
    fn read(&mut self, milestone: &str, epochs: u64) {
        if let Some(("stall", part)) = milestone.split_once(':').map(|(when, part)| (when.trim(), part)) {
            self.by_stall.push(part.trim().to_string());
            return;
        }
        let parsed = milestone.split_once(':').and_then(|(epoch, part)| {
            let epoch = epoch.trim().parse::<u64>().ok().filter(|epoch| *epoch > 0)?;
            Some(Thaw { epoch, part: part.trim().to_string() })
        });
        match parsed {
            Some(Thaw { epoch, .. }) if epoch > epochs => self.problems.push(format!(
                "train.unfreeze: epoch {epoch} comes after the last, {epochs}; leave \"{milestone}\" out, or give more \
                 --epochs"
            )),
            Some(thaw) => self.by_epoch.push(thaw),
            None => self.problems.push(format!(
                "train.unfreeze: \"{milestone}\" is not EPOCH: PART, as in \"3: layer4, 5: layer3\", nor stall: PART"
            )),
        }
    }

    /// Refuses parts that are to thaw and are trained already by then. Names that the network does not have are none of this.
    fn refuse_trained(&mut self) {
        let names = Trainer::part_names(&self.arch);
        let Some(first) = self.first_trained([]).filter(|first| *first > 0) else { return };
        let mut by_epoch: Vec<&Thaw> = self.by_epoch.iter().collect();
        by_epoch.sort_by_key(|thaw| thaw.epoch);
        let by_epoch: Vec<&str> = by_epoch.into_iter().map(|thaw| thaw.part.as_str()).collect();
        let by_stall: Vec<&str> = self.by_stall.iter().map(String::as_str).collect();
        let mut problems = Vec::new();
        for parts in [by_epoch, by_stall] {
            let mut trained_from = first;
            for part in parts {
                let Some(index) = names.iter().position(|name| name == part) else { continue };
                if index >= trained_from {
                    problems
                        .push(format!("train.unfreeze: `{part}` is trained by then already; leave it out"));
                }
                trained_from = trained_from.min(index);
            }
        }
        self.problems.extend(problems);
    }

    fn first_trained<'a>(&self, thawed: impl IntoIterator<Item = &'a str>) -> Option<usize> {
        Trainer::first_trained_part(&self.arch, &self.freeze, thawed)
    }

    /// The first part that is trained at some time; `None` where a name is no part of the network.
    fn first_ever_trained(&self) -> Option<usize> {
        let by_epoch = self.by_epoch.iter().map(|thaw| &thaw.part);
        self.first_trained(by_epoch.chain(&self.by_stall).map(String::as_str))
    }

    fn is_head(&self, part: Option<usize>) -> bool {
        part.is_some_and(|part| part + 1 == Trainer::part_names(&self.arch).len())
    }

    /// Whether a part of the network is frozen when the run begins.
    pub fn begins_frozen(&self) -> bool {
        self.freeze != Freeze::None
    }

    /// Whether the first parts stay frozen for the whole run. Where a name is no part of the network nobody knows, and that
    /// is said elsewhere.
    pub fn stays_frozen(&self) -> bool {
        self.first_ever_trained().is_none_or(|first| first > 0)
    }

    /// Whether nothing but the head is ever trained.
    pub fn trains_head_only(&self) -> bool {
        self.is_head(self.first_ever_trained())
    }

    /// Whether nothing but the head is trained in the first epoch.
    pub fn begins_with_head_only(&self) -> bool {
        let at_once = self.by_epoch.iter().filter(|thaw| thaw.epoch == 1);
        self.is_head(self.first_trained(at_once.map(|thaw| thaw.part.as_str())))
    }

    /// What is frozen at first and when it thaws; `None` where everything is trained.
    pub fn in_words(&self) -> Option<String> {
        let mut text = match &self.freeze {
            Freeze::None => return None,
            Freeze::Backbone => "all but the classifier".to_string(),
            Freeze::Until(part) => format!("up to and including {part}"),
        };
        for Thaw { epoch, part } in &self.by_epoch {
            text += &format!("; from epoch {epoch} on {part} and what follows it are trained");
        }
        for part in &self.by_stall {
            text += &format!("; then {part} and what follows it, once validation stalls");
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(flags: &[(&'static str, &str)]) -> FreezePlan {
        let flags: Vec<_> = flags.iter().map(|(key, text)| (*key, text.to_string())).collect();
        FreezePlan::of(&Config::resolve(None, &[], &flags).expect("sound options"))
    }

    const WEIGHTS: (&str, &str) = ("train.weights", "w.pth");

    #[test]
    fn a_plan_says_what_is_frozen_at_first_what_for_ever_and_whether_only_the_head_is_trained() {
        let (freeze, unfreeze) = ("train.freeze", "train.unfreeze");
        let once = ("train.epochs", "1");
        // Parts of `small`: conv1, layer1 to layer4, head.
        for (flags, begins_frozen, stays_frozen, head_only, begins_with_head) in [
            (&[] as &[(&'static str, &str)], false, false, false, false),
            (&[WEIGHTS], true, false, false, true),
            (&[WEIGHTS, once], true, true, true, true),
            (&[WEIGHTS, ("train.recipe", "plain")], false, false, false, false),
            (&[WEIGHTS, (freeze, "none")], false, false, false, false),
            (&[(freeze, "backbone")], true, true, true, true),
            (&[(freeze, "layer4")], true, true, true, true),
            (&[(freeze, "layer3")], true, true, false, false),
            (&[(unfreeze, "2: layer3")], true, true, false, true),
            (&[(unfreeze, "1: layer3")], true, true, false, false),
            (&[(unfreeze, "2: conv1")], true, false, false, true),
            (&[(unfreeze, "stall: conv1")], true, false, false, true),
            (&[(freeze, "layer2"), (unfreeze, "stall: layer1, stall: conv1")], true, false, false, false),
        ] {
            let plan = plan(flags);
            assert_eq!(plan.problems, Vec::<String>::new(), "{flags:?}");
            let said = (plan.begins_frozen(), plan.stays_frozen(), plan.trains_head_only());
            assert_eq!(said, (begins_frozen, stays_frozen, head_only), "{flags:?}");
            assert_eq!(plan.begins_with_head_only(), begins_with_head, "{flags:?}");
        }
    }

    #[test]
    fn every_milestone_that_cannot_be_is_named() {
        let problems =
            plan(&[("train.unfreeze", "layer4, 0: layer3, 99: layer2, 2: layer3, 3: layer4")]).problems;
        let says = [
            "\"layer4\" is not EPOCH: PART",
            "\"0: layer3\" is not",
            "epoch 99 comes",
            "`layer4` is trained",
        ];
        assert_eq!(problems.len(), says.len(), "{problems:?}");
        for (problem, says) in problems.iter().zip(says) {
            assert!(problem.contains(says), "{problem}");
        }
    }
}
