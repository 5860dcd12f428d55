//! Pretrained weights: which tensors of a file belong to which of the network, and what does not fit.

use std::collections::BTreeMap;
use std::fmt;

use candle_core::Tensor;

use super::checkpoint::OPTIMIZER;
use super::params::ParamStore;

/// What became of the tensors of a weights file. Each list is in the order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
}

impl fmt::Display for WeightsReport {
    /// A table: one line per list, then the names that were not loaded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |f: &mut fmt::Formatter<'_>, what: &str, names: &[String]| {
            writeln!(f, "{what:<11} {:>4}", names.len())?;
            names.iter().try_for_each(|name| writeln!(f, "    {name}"))
        };
        writeln!(f, "{:<11} {:>4}", "loaded", self.loaded.len())?;
        names(f, "missing", &self.missing)?;
        names(f, "unexpected", &self.unexpected)?;
        write!(f, "{:<11} {:>4}", "mismatched", self.mismatched.len())?;
        for (name, file, network) in &self.mismatched {
            write!(f, "\n    {name}: {file:?} in the file, {network:?} here; initialised anew")?;
        }
        Ok(())
    }
}

/// What to do with a weights file: the report, and the tensors to set.
pub(super) struct Matched {
    pub(super) report: WeightsReport,
    pub(super) tensors: Vec<(String, Tensor)>,
}

/// Compares the tensors of a file with those of a network. Prefixes that wrappers leave (`module.`, `model.`)
/// are stripped, `num_batches_tracked` and optimiser state are passed over.
///
/// # Errors
/// With one sentence when the file is for another network: nothing of the backbone fits, or a tensor of it has
/// another shape.
pub(super) fn match_names(
    file: BTreeMap<String, Tensor>,
    store: &ParamStore,
    model: &str,
    head: &str,
) -> Result<Matched, String> {
    let mut report = WeightsReport::default();
    let mut tensors = Vec::new();
    let mut found: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, tensor) in file {
        let mut short = name.as_str();
        while let Some(rest) = short.strip_prefix("module.").or_else(|| short.strip_prefix("model.")) {
            short = rest;
        }
        if short.ends_with("num_batches_tracked") || short.starts_with(OPTIMIZER) {
            continue;
        }
        found.insert(short.to_owned(), tensor);
    }
    let first = found.keys().next().cloned();
    let is_head = |name: &str| name.strip_prefix(head).is_some_and(|rest| rest.starts_with('.'));
    for (name, entry) in store.iter() {
        let here = entry.values().dims().to_vec();
        match found.remove(name) {
            None => report.missing.push(name.to_owned()),
            Some(tensor) if tensor.dims() == here => {
                report.loaded.push(name.to_owned());
                tensors.push((name.to_owned(), tensor));
            }
            Some(tensor) if is_head(name) => {
                report.mismatched.push((name.to_owned(), tensor.dims().to_vec(), here));
            }
            Some(tensor) => {
                return Err(format!(
                    "the file is for another network than {model}: `{name}` is {:?} in the file and {here:?} here",
                    tensor.dims()
                ));
            }
        }
    }
    // A head of which one tensor fits and one does not would be half trained and half not.
    if report.mismatched.iter().any(|(name, ..)| is_head(name)) {
        tensors.retain(|(name, _)| !is_head(name));
        let kept: Vec<String> = report.loaded.iter().filter(|name| is_head(name)).cloned().collect();
        report.loaded.retain(|name| !is_head(name));
        report.missing.extend(kept);
        report.missing.sort();
    }
    report.unexpected = found.into_keys().collect();
    if !report.loaded.iter().any(|name| !is_head(name)) {
        let first = first.map_or_else(|| "no tensor".to_owned(), |name| format!("`{name}`"));
        let wanted = store.iter().next().map_or("", |(name, _)| name);
        return Err(format!(
            "the file is for another network than {model}: it holds {first}, but nothing like `{wanted}`"
        ));
    }
    Ok(Matched { report, tensors })
}
