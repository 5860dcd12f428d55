//! What became of the tensors of a weights file, for people and programs.

use std::fmt;

use forebay_datasets::escape::printable;

/// What became of the tensors of a weights file. Each list is in the order of names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightsReport {
    /// Taken from the file.
    pub loaded: Vec<String>,
    /// Not in the file: they keep their initial values.
    pub missing: Vec<String>,
    /// In the file, and no part of the network.
    pub unexpected: Vec<String>,
    /// Of another shape in the file, with (name, shape in the file, shape in the network): they keep their
    /// initial values. Only the classifier may be among them, where the file knows other classes.
    pub mismatched: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// How many tensors no network here has a use for: counters of batch norms, auxiliary classifiers, the state
    /// of an optimiser.
    pub passed_over: usize,
    /// How many names were translated from those of timm or transformers.
    pub translated: usize,
    /// The key of a checkpoint under which the weights were found.
    pub found_under: Option<String>,
    /// What the file holds in a form that is not read, with (name in the file, what it is: `a sparse tensor`).
    pub unreadable: Vec<(String, String)>,
    /// The classes that the file's classifier tells apart, where they are as many as this run's and others: then it
    /// is not taken.
    pub other_classes: Option<Vec<String>>,
    /// What the norms of the file's network and of this one add to the variance, where that differs. The running
    /// variances were moved by the difference, so that evaluation computes what it did there.
    pub norm_epsilons: Option<(f64, f64)>,
}

impl fmt::Display for WeightsReport {
    /// A table: one line per list, then the names that were not loaded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |f: &mut fmt::Formatter<'_>, what: &str, names: &[String]| {
            writeln!(f, "{what:<11} {:>4}", names.len())?;
            names.iter().try_for_each(|name| writeln!(f, "    {}", printable(name)))
        };
        write!(f, "{:<11} {:>4}", "loaded", self.loaded.len())?;
        if self.translated > 0 {
            write!(f, "  ({} under other names than torchvision's)", self.translated)?;
        }
        if let Some(key) = &self.found_under {
            write!(f, "  (from `{}` of the file)", printable(key))?;
        }
        writeln!(f)?;
        names(f, "missing", &self.missing)?;
        names(f, "unexpected", &self.unexpected)?;
        for (name, kind) in &self.unreadable {
            writeln!(f, "not read: `{}` is {kind}", printable(name))?;
        }
        if let Some((theirs, ours)) = self.norm_epsilons {
            writeln!(
                f,
                "running variances are moved by {:e}: batch norms add {theirs} there and {ours} here",
                theirs - ours
            )?;
        }
        if self.passed_over > 0 {
            writeln!(f, "{:<11} {:>4}", "passed over", self.passed_over)?;
        }
        write!(f, "{:<11} {:>4}", "mismatched", self.mismatched.len())?;
        for (name, file, network) in &self.mismatched {
            let name = printable(name);
            write!(f, "\n    {name}: {file:?} in the file, {network:?} here; initialised anew")?;
        }
        if let Some(classes) = &self.other_classes {
            let classes = classes.join(", ");
            let classes = printable(&classes);
            write!(f, "\nthe classifier is initialised anew: the file's classes are {classes}")?;
        }
        if let Some((_, file, network)) = self.mismatched.first() {
            let (file, network) = (file.first().unwrap_or(&0), network.first().unwrap_or(&0));
            let background = if *file == 1001 { " (ImageNet's after one for the background)" } else { "" };
            write!(
                f,
                "\nthe classifier is initialised anew: the file tells {file} classes apart{background}, this run {network}"
            )?;
        }
        Ok(())
    }
}
