//! Which tensors of a file belong to which of a network, and whether the file is of that network at all.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};

use super::names;
use super::report::WeightsReport;
use super::stored::{Stored, StoredTensor};
use super::{OPTIMIZER, WeightsFile};
use crate::error::{TrainError, compute};
use crate::models::NAMES;
use crate::params::ParamStore;

/// What is done about a file that does not fill a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// Every tensor of the backbone comes from the file, and the file is of this network and no other, as with PyTorch's
    /// `load_state_dict`; anything else is refused.
    #[default]
    Strict,
    /// What fits is taken, and the rest keeps its initial values, which the report says.
    Lenient,
}

/// What to do with a weights file: the report, and the tensors to set.
pub(in crate::weights) struct Take<'a> {
    name: String,
    tensor: StoredTensor<'a>,
    /// In the network, which may have fewer axes.
    shape: Vec<usize>,
    /// What is added to every value.
    shift: f64,
}

/// Why a file does not fill a network, in a sentence.
#[derive(Debug)]
pub(crate) struct Misfit {
    line: String,
    /// Whether what fits could be taken all the same.
    is_partial: bool,
}

impl Misfit {
    fn partial(line: String) -> Misfit {
        Misfit { line, is_partial: true }
    }
}

impl From<String> for Misfit {
    fn from(line: String) -> Misfit {
        Misfit { line, is_partial: false }
    }
}

impl From<Misfit> for TrainError {
    fn from(Misfit { line, is_partial }: Misfit) -> TrainError {
        match is_partial {
            true => TrainError::Incomplete(line),
            false => TrainError::Weights(line),
        }
    }
}

/// What becomes of the tensors of a weights file.
pub(crate) struct Matched<'a> {
    pub(crate) report: WeightsReport,
    taken: Vec<Take<'a>>,
    strictness: Strictness,
}

impl Matched<'_> {
    /// Takes nothing of the classifier, whose classes are others.
    pub(crate) fn leave_head(&mut self, is_head: impl Fn(&str) -> bool, classes: Vec<String>) {
        self.taken.retain(|take| !is_head(&take.name));
        let head = self.report.loaded.extract_if(.., |name| is_head(name)).collect::<Vec<_>>();
        self.report.missing.extend(head);
        self.report.missing.sort();
        self.report.other_classes = Some(classes);
    }

    /// Reads the values and sets those of `store`, one tensor at a time.
    ///
    /// # Errors
    /// When the device cannot hold them, or one is no finite number and the file was to fill the network as it is.
    pub(crate) fn set(&self, store: &ParamStore) -> Result<(), TrainError> {
        for Take { name, tensor, shape, shift } in &self.taken {
            let values = tensor.values();
            if self.strictness == Strictness::Strict && values.iter().any(|value| !value.is_finite()) {
                return Err(TrainError::Weights(format!(
                    "`{name}` holds values that are no finite numbers: take weights of a run that did not diverge"
                )));
            }
            let values = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)
                .and_then(|values| if *shift == 0.0 { Ok(values) } else { values + *shift });
            let set = values.and_then(|values| store.set(name, &values));
            set.map_err(compute("set the weights"))?;
        }
        Ok(())
    }
}

/// Compares the tensors of a file with those of a network, whose names are torchvision's: prefixes of wrappers
/// are stripped, names of timm and transformers are translated, and what no network needs is passed over.
///
/// # Errors
/// With one sentence when the file is for another network: it says so, its names look like another one's, nothing of the
/// backbone fits, or a tensor of it has another shape. Where `strictness` asks for it also when a tensor of the backbone
/// is missing or cannot be read, or the file has tensors where this network ends.
pub(crate) fn match_names<'a>(
    file: WeightsFile<'a>,
    store: &ParamStore,
    model: &str,
    head: &str,
    strictness: Strictness,
) -> Result<Matched<'a>, Misfit> {
    let network: Vec<(&str, Vec<usize>)> =
        store.iter().map(|(name, entry)| (name, entry.values().dims().to_vec())).collect();
    match_shapes(file, &network, model, head, strictness)
}

/// [`match_names`] with the names and shapes of a network, in the order of names.
///
/// # Errors
/// As there.
pub(crate) fn match_shapes<'a>(
    file: WeightsFile<'a>,
    network: &[(&str, Vec<usize>)],
    model: &str,
    head: &str,
    strictness: Strictness,
) -> Result<Matched<'a>, Misfit> {
    let is_strict = strictness == Strictness::Strict;
    let other = |why: String| Err(format!("the file is for another network than {model}: {why}").into());
    let mut report = WeightsReport {
        found_under: file.found_under,
        passed_over: file.passed_over,
        ..WeightsReport::default()
    };
    if let Some(own) = file.own.as_ref().filter(|own| is_strict && own.model != model) {
        return other(format!("it says that it is of {}; choose that network, or other weights", own.model));
    }
    let (stripped, copy) = one_copy(file.held, &mut report.passed_over)?;
    report.found_under = report.found_under.or(copy);
    let looks =
        names::looks_like(&stripped.iter().map(|(name, stored)| (name.as_str(), stored.shape())).collect());
    if let Some((looks, whose)) = looks.filter(|(looks, _)| is_strict && *looks != model) {
        let way_out = match NAMES.contains(&looks) {
            true => "choose that network, or other weights",
            false => "which is no network here: choose other weights",
        };
        return other(format!("its names are those of {looks} in {whose}; {way_out}"));
    }
    report.norm_epsilons =
        looks.filter(|_| file.own.is_none()).and_then(|(_, whose)| names::norm_epsilons(model, whose));
    let first = stripped.keys().next().cloned();
    let mut found: BTreeMap<String, Stored<'a>> = BTreeMap::new();
    // Where the layers of the network stand in the file, by the letters that their names begin with.
    let mut places: BTreeSet<String> = network.iter().map(|(name, _)| place_of(name).to_owned()).collect();
    for (name, stored) in stripped {
        let ours = names::translate(model, &name);
        report.translated += usize::from(ours != name);
        if network.binary_search_by(|(known, _)| (*known).cmp(&ours)).is_ok() {
            places.insert(place_of(&name).to_owned());
        }
        found.insert(ours, stored);
    }
    let mut taken = Vec::new();
    let is_head = |name: &str| name.strip_prefix(head).is_some_and(|rest| rest.starts_with('.'));
    let mut unreadable = Vec::new();
    for (name, here) in network {
        let tensor = match found.remove(*name) {
            None => None,
            Some(Stored::Tensor(tensor)) if !tensor.is_of_fractions() => {
                unreadable.push((
                    (*name).to_owned(),
                    "a tensor of whole numbers, as quantised ones are".to_owned(),
                ));
                None
            }
            Some(Stored::Tensor(tensor)) => Some(tensor),
            Some(Stored::Unreadable(kind)) => {
                unreadable.push(((*name).to_owned(), kind.to_owned()));
                None
            }
        };
        let Some(tensor) = tensor else {
            report.missing.push((*name).to_owned());
            continue;
        };
        let mut there = tensor.shape().to_vec();
        if (there.len(), here.len()) == (4, 2) {
            // A linear layer that was stored as a convolution over the whole plane has its values in this order.
            there = vec![there[0], there[1..].iter().product()];
        }
        if there == *here {
            let moved = report.norm_epsilons.filter(|_| name.ends_with(".running_var"));
            let shift = moved.map_or(0.0, |(theirs, ours)| theirs - ours);
            report.loaded.push((*name).to_owned());
            taken.push(Take { name: (*name).to_owned(), tensor, shape: here.clone(), shift });
        } else if is_head(name) && there.get(1..) == here.get(1..) {
            // Another number of classes is another first side, and nothing else.
            report.mismatched.push(((*name).to_owned(), there, here.clone()));
        } else {
            return other(format!("`{name}` is {there:?} in the file and {here:?} here"));
        }
    }
    if !report.loaded.iter().any(|name| !is_head(name)) {
        if let Some((name, kind)) = unreadable.first() {
            return Err(not_read(name, kind).into());
        }
        let first = first.map_or_else(|| "no tensor".to_owned(), |name| format!("`{name}`"));
        let wanted = network.first().map_or("", |(name, _)| name);
        return other(format!("it holds {first}, but nothing like `{wanted}`"));
    }
    // A layer of the classifier of which one tensor fits and one does not would be half trained and half not.
    let layer = |name: &str| name.rsplit_once('.').map_or(String::new(), |(layer, _)| layer.to_owned());
    let lacking = report.missing.iter().filter(|name| is_head(name));
    let broken: Vec<String> =
        report.mismatched.iter().map(|(name, ..)| name).chain(lacking).map(|name| layer(name)).collect();
    taken.retain(|take| !broken.contains(&layer(&take.name)));
    let (kept, dropped) = report.loaded.drain(..).partition(|name| !broken.contains(&layer(name)));
    report.loaded = kept;
    report.missing.extend::<Vec<String>>(dropped);
    report.missing.sort();
    for (name, stored) in found {
        match stored {
            Stored::Tensor(_) => report.unexpected.push(name),
            Stored::Unreadable(kind) => unreadable.push((name, kind.to_owned())),
        }
    }
    report.unreadable = unreadable;
    if is_strict {
        refuse_gaps(&report, network.len(), is_head)?;
        let beyond = |name: &&String| !is_head(name) && places.contains(place_of(name));
        let mut beyond = report.unexpected.iter().filter(beyond);
        if let Some(first) = beyond.next() {
            return Err(Misfit::partial(format!(
                "the file is for another network than {model}: it holds `{first}`{} where {model} has no layer; choose \
                 that network",
                and_more(beyond.count())
            )));
        }
    }
    Ok(Matched { report, taken, strictness })
}

/// Refuses a file that leaves tensors of the backbone as they were drawn.
fn refuse_gaps(report: &WeightsReport, tensors: usize, is_head: impl Fn(&str) -> bool) -> Result<(), Misfit> {
    let needed = |name: &&String| !is_head(name);
    let mut missing = report.missing.iter().filter(needed);
    let Some(first) = missing.next() else { return Ok(()) };
    let n = 1 + missing.count();
    if let Some((name, kind)) =
        report.unreadable.iter().find(|(name, _)| report.missing.contains(name) && !is_head(name))
    {
        return Err(Misfit::partial(not_read(name, kind)));
    }
    let statistics = report.missing.iter().filter(|name| name.contains(".running_")).count();
    let what = if statistics == n { "running statistics of norms" } else { "tensors" };
    Err(Misfit::partial(format!(
        "the file lacks {n} of the {tensors} tensors of the network ({what}), the first is `{first}`: they would keep \
         their initial values; take whole weights"
    )))
}

/// That a tensor is in a form that is not read.
fn not_read(name: &str, kind: &str) -> String {
    format!(
        "`{name}` is {kind}, which is not read: save the weights as plain tensors of f32 or half precision"
    )
}

/// ` and 3 more`, or nothing.
fn and_more(n: usize) -> String {
    if n == 0 { String::new() } else { format!(" and {n} more") }
}

/// The letters that a name begins with, by which layers are counted: `layer` of `layer3.6.conv1.weight`.
fn place_of(name: &str) -> &str {
    &name[..name.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(name.len())]
}

/// What a file holds by names without the prefixes of wrappers, and of what no network needs only its number. Where it
/// holds a network more than once, under several prefixes, the averaged one is taken whole, and its prefix returned.
///
/// # Errors
/// With one sentence when there are several and none, or more than one, is averaged.
fn one_copy<'a>(
    held: BTreeMap<String, Stored<'a>>,
    passed_over: &mut usize,
) -> Result<(BTreeMap<String, Stored<'a>>, Option<String>), String> {
    let mut copies: BTreeMap<String, BTreeMap<String, Stored<'a>>> = BTreeMap::new();
    for (name, stored) in held {
        let short = names::without_prefixes(&name);
        if short.starts_with(OPTIMIZER) || names::is_passed_over(short) {
            *passed_over += 1;
            continue;
        }
        let prefix = name[..name.len() - short.len()].to_owned();
        copies.entry(prefix).or_default().insert(short.to_owned(), stored);
    }
    let is_twice = |prefix: &String| {
        let others = copies.iter().filter(|(other, _)| *other != prefix);
        others.into_iter().any(|(_, other)| copies[prefix].keys().any(|name| other.contains_key(name)))
    };
    let twice: Vec<String> = copies.keys().filter(|prefix| is_twice(prefix)).cloned().collect();
    if twice.is_empty() {
        return Ok((copies.into_values().flatten().collect(), None));
    }
    let averaged: Vec<&String> = twice.iter().filter(|prefix| names::is_average(prefix)).collect();
    let [average] = averaged[..] else {
        let prefixes: Vec<String> = twice.iter().map(|prefix| format!("`{prefix}`")).collect();
        return Err(format!(
            "the file holds the network more than once, under {}: save the state dict of one of them",
            prefixes.join(" and ")
        ));
    };
    let average = average.clone();
    let chosen = copies.remove(&average).unwrap_or_default();
    *passed_over +=
        copies.iter().filter(|(prefix, _)| twice.contains(prefix)).map(|(_, copy)| copy.len()).sum::<usize>();
    // What stands under another prefix and under none of the copies belongs to the file, as a part of its own.
    let rest = copies.into_iter().filter(|(prefix, _)| !twice.contains(prefix)).flat_map(|(_, rest)| rest);
    Ok((rest.chain(chosen).collect(), Some(average.trim_end_matches('.').to_owned())))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::stored::StoredKind;
    use super::*;
    use crate::models::{self, Head};
    use crate::params::Builder;

    /// A file of zeros under these names.
    fn file(tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> WeightsFile<'static> {
        // One zero that stands for all of them.
        let zeros = |shape: Vec<usize>| {
            let stride = vec![0; shape.len()];
            Stored::Tensor(
                StoredTensor::view(&[0; 4], StoredKind::F32, 0, &shape, &stride).expect("one value"),
            )
        };
        let held = tensors.into_iter().map(|(name, shape)| (name, zeros(shape))).collect();
        WeightsFile { held, found_under: None, own: None, passed_over: 0 }
    }

    /// A network of torchvision's names, whose linear layers have two sides.
    fn network(model: &str, tensors: &[(String, String, Vec<usize>)]) -> Vec<(String, Vec<usize>)> {
        let is_linear = |name: &str| name.starts_with("classifier") && name.ends_with("weight");
        let mut network: Vec<_> = tensors
            .iter()
            .map(|(_, name, shape)| match is_linear(name) {
                true => (name.clone(), vec![shape[0], shape[1..].iter().product()]),
                false => (name.clone(), shape.clone()),
            })
            .collect();
        network.sort();
        assert!(!network.is_empty(), "{model}");
        network
    }

    fn head(model: &str) -> &'static str {
        if model.contains("resnet") || model == "inception_v3" { "fc" } else { "classifier" }
    }

    fn matched(
        file: WeightsFile<'_>,
        network: &[(String, Vec<usize>)],
        model: &str,
    ) -> Result<WeightsReport, String> {
        let network: Vec<(&str, Vec<usize>)> =
            network.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
        let matched = match_shapes(file, &network, model, head(model), Strictness::Strict);
        let matched = matched.map_err(|misfit| misfit.line)?;
        assert_eq!(matched.taken.len(), matched.report.loaded.len());
        Ok(matched.report)
    }

    #[test]
    fn files_of_other_libraries_fill_the_whole_network() {
        for (model, prefix, whose, table) in names::tests::TABLES {
            // The layers of VGG that hold a hundred million values are not needed to compare names.
            let mut tensors = names::tests::tensors(table);
            tensors.retain(|(_, name, _)| !(model.starts_with("vgg") && name == "classifier.0.weight"));
            let network = network(model, &tensors);
            let prefix = if prefix == "timm" { "module." } else { prefix };
            let report = matched(
                file(tensors.iter().map(|(name, _, shape)| (format!("{prefix}{name}"), shape.clone()))),
                &network,
                model,
            )
            .unwrap_or_else(|line| panic!("{model} by {whose}: {line}"));
            assert_eq!(report.loaded.len(), tensors.len(), "{model} by {whose}");
            assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report}");
        }
    }

    #[test]
    fn a_file_of_another_network_is_named() {
        let of = |model: &str| {
            let table = names::tests::TABLES.iter().find(|(name, ..)| *name == model).expect("a table");
            names::tests::tensors(table.3)
        };
        for (here, there) in [
            ("resnet50", "resnet18"),
            ("resnet18", "resnet50"),
            ("resnet18", "mobilenet_v2"),
            ("mobilenet_v3_small", "mobilenet_v3_large"),
            ("mobilenet_v2", "efficientnet_b0"),
            ("inception_v3", "mobilenet_v3_small"),
        ] {
            let tensors = of(there).into_iter().map(|(name, _, shape)| (name, shape));
            let line = matched(file(tensors), &network(here, &of(here)), here).expect_err("another network");
            assert!(line.contains(&format!("another network than {here}")), "{line}");
            assert!(line.contains(&format!("those of {there} in")), "{line}");
        }
        let line = matched(
            file([("encoder.weight".into(), vec![2])]),
            &network("resnet18", &of("resnet18")),
            "resnet18",
        )
        .expect_err("no name of it");
        assert!(line.contains("it holds `encoder.weight`, but nothing like"), "{line}");
    }

    #[test]
    fn only_the_layer_of_other_classes_is_initialised_anew() {
        let tensors = names::tests::tensors(names::tests::TABLES[6].3);
        let mut network = network("mobilenet_v3_small", &tensors);
        for (name, shape) in &mut network {
            if name.starts_with("classifier.3.") {
                shape[0] = 7;
            }
        }
        let mut given: Vec<_> =
            tensors.iter().map(|(name, _, shape)| (name.clone(), shape.clone())).collect();
        given.extend([
            ("bn1.num_batches_tracked".to_owned(), vec![]),
            ("optimizer.step".to_owned(), vec![1]),
            ("extra.weight".to_owned(), vec![1]),
        ]);
        let report = matched(file(given), &network, "mobilenet_v3_small").expect("the same network");
        let names: Vec<&str> = report.mismatched.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["classifier.3.bias", "classifier.3.weight"]);
        assert!(report.loaded.iter().any(|name| name == "classifier.0.weight"), "its first layer fits");
        assert_eq!((report.passed_over, report.unexpected.as_slice()), (2, &["extra.weight".to_owned()][..]));
        let text = report.to_string();
        assert!(text.contains("the file tells 1000 classes apart, this run 7"), "{text}");
    }

    #[test]
    fn another_epsilon_of_norms_goes_into_the_running_variance() {
        let tensors = names::tests::tensors(names::tests::TABLES[6].3);
        let network = network("mobilenet_v3_small", &tensors);
        let network: Vec<(&str, Vec<usize>)> =
            network.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
        let variance = |tensors: Vec<(String, Vec<usize>)>| {
            let matched =
                match_shapes(file(tensors), &network, "mobilenet_v3_small", "classifier", Strictness::Strict);
            let matched = matched.expect("the same network");
            let taken = matched.taken.iter().find(|take| take.name == "features.0.1.running_var");
            taken.expect("it is there").shift
        };
        // Zeros in the file: timm's variance plus 1e-5 is ours plus 1e-3.
        let timm = variance(tensors.iter().map(|(name, _, shape)| (name.clone(), shape.clone())).collect());
        assert!((timm + 1e-3 - 1e-5).abs() < 1e-9, "{timm}");
        let ours =
            variance(network.iter().map(|(name, shape)| ((*name).to_owned(), shape.clone())).collect());
        assert_eq!(ours, 0.0);
    }

    /// Names and shapes of a network, and of its head.
    fn built(model: &str) -> (Vec<(String, Vec<usize>)>, String) {
        let mut store = ParamStore::new(Device::Cpu);
        let network = models::build(model, &Head::linear(10), &mut Builder::blank(&mut store));
        let head = network.expect("memory").expect("a known name").head().to_owned();
        (store.iter().map(|(name, entry)| (name.to_owned(), entry.values().dims().to_vec())).collect(), head)
    }

    fn load(
        held: Vec<(String, Vec<usize>)>,
        model: &str,
        strictness: Strictness,
    ) -> Result<WeightsReport, String> {
        load_file(file(held), model, strictness)
    }

    fn load_file(
        file: WeightsFile<'_>,
        model: &str,
        strictness: Strictness,
    ) -> Result<WeightsReport, String> {
        let (network, head) = built(model);
        let network: Vec<(&str, Vec<usize>)> =
            network.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
        match_shapes(file, &network, model, &head, strictness)
            .map(|matched| matched.report)
            .map_err(|misfit| misfit.line)
    }

    #[test]
    fn a_tensor_that_the_file_lacks_is_refused_unless_forced() {
        for model in ["small", "resnet20", "mobilenet_v2", "efficientnet_b0", "vgg11_bn", "inception_v3"] {
            let (whole, head) = built(model);
            let is_head = |name: &str| name.starts_with(&format!("{head}."));
            let one = whole.iter().position(|(name, _)| !is_head(name)).expect("a backbone");
            let mut gap = whole.clone();
            let (lost, _) = gap.remove(one);
            let line = load(gap.clone(), model, Strictness::Strict).expect_err("a gap");
            assert!(line.contains(&format!("lacks 1 of the {} tensors", whole.len())), "{model}: {line}");
            assert!(line.contains(&format!("`{lost}`")), "{model}: {line}");
            assert_eq!(load(gap, model, Strictness::Lenient).expect("forced").missing, [lost]);
            // A backbone without a classifier is whole.
            let backbone = whole.iter().filter(|(name, _)| !is_head(name)).cloned().collect();
            let report = load(backbone, model, Strictness::Strict).expect("a backbone");
            assert!(report.missing.iter().all(|name| is_head(name)), "{report}");
        }
    }

    #[test]
    fn weights_without_running_statistics_are_refused() {
        let (mut whole, _) = built("resnet20");
        whole.retain(|(name, _)| !name.contains(".running_"));
        let line = load(whole, "resnet20", Strictness::Strict).expect_err("no statistics");
        assert!(line.contains("running statistics"), "{line}");
    }

    #[test]
    fn whole_numbers_are_no_weights() {
        let (whole, _) = built("resnet20");
        let as_bytes = |name: &String| {
            let shape = &whole.iter().find(|(known, _)| known == name).expect("a tensor").1;
            let stride = vec![0; shape.len()];
            let values = StoredTensor::view(&[3], StoredKind::I8, 0, shape, &stride).expect("one value");
            Stored::Tensor(values)
        };
        let mut some = file(whole.clone());
        for (name, stored) in some.held.iter_mut().filter(|(name, _)| name.contains("conv")) {
            *stored = as_bytes(name);
        }
        let line = load_file(some, "resnet20", Strictness::Strict).expect_err("quantised");
        assert!(
            line.contains("is a tensor of whole numbers, as quantised ones are, which is not read"),
            "{line}"
        );
        let mut all = file(whole.clone());
        all.held.iter_mut().for_each(|(name, stored)| *stored = as_bytes(name));
        for strictness in [Strictness::Strict, Strictness::Lenient] {
            let line = load_file(all.clone(), "resnet20", strictness).expect_err("nothing can be taken");
            assert!(line.contains("is a tensor of whole numbers"), "{line}");
        }
    }

    #[test]
    fn a_tensor_that_cannot_be_read_is_named_where_the_network_needs_it() {
        let (whole, _) = built("resnet20");
        let with = |name: &str| {
            let mut file = file(whole.clone());
            file.held.insert(name.to_owned(), Stored::Unreadable("a sparse tensor"));
            file
        };
        let line = load_file(with("conv1.weight"), "resnet20", Strictness::Strict).expect_err("not read");
        assert!(line.starts_with("`conv1.weight` is a sparse tensor, which is not read"), "{line}");
        let forced = load_file(with("conv1.weight"), "resnet20", Strictness::Lenient).expect("forced");
        assert_eq!(forced.missing, ["conv1.weight"]);
        let other = load_file(with("neck.mask"), "resnet20", Strictness::Strict).expect("not needed");
        assert_eq!(other.unreadable, [("neck.mask".to_owned(), "a sparse tensor".to_owned())]);
        assert!(other.to_string().contains("not read: `neck.mask` is a sparse tensor"), "{other}");
    }

    #[test]
    fn a_deeper_network_of_the_same_family_is_refused() {
        // Under torchvision's names, and under timm's where they are others.
        for (model, deeper) in [
            ("efficientnet_b0", "features.1.1.block.0.0.weight"),
            ("efficientnet_b0", "blocks.0.1.conv_dw.weight"),
            ("mobilenet_v2", "features.19.0.weight"),
            ("mobilenet_v2", "blocks.1.2.conv_pw.weight"),
            ("mobilenet_v3_small", "blocks.1.2.conv_pw.weight"),
            ("mobilenet_v3_large", "features.17.block.0.0.weight"),
            ("vgg11", "features.21.bias"),
            ("vgg16_bn", "features.43.running_mean"),
            ("resnet50", "layer3.6.bn1.bias"),
            ("resnet18", "layer1.0.se.fc1.weight"),
            ("cifar_resnet18", "layer5.0.bn1.bias"),
            ("resnet56", "layer1.9.bn1.bias"),
            ("small", "layer1.1.bn1.bias"),
            ("inception_v3", "Mixed_8a.branch0.conv.weight"),
        ] {
            let (mut held, _) = built(model);
            if deeper.starts_with("blocks.") {
                let table = names::tests::TABLES.iter().find(|(name, ..)| *name == model).expect("a table");
                held = names::tests::tensors(table.3)
                    .into_iter()
                    .map(|(name, _, shape)| (name, shape))
                    .collect();
                held.retain(|(name, _)| !name.starts_with("classifier"));
            }
            assert!(load(held.clone(), model, Strictness::Strict).is_ok(), "{model}");
            held.push((deeper.to_owned(), vec![1]));
            let line = load(held.clone(), model, Strictness::Strict).expect_err("a deeper network");
            assert!(
                line.contains(&format!("`{deeper}`")) && line.contains("has no layer"),
                "{model}: {line}"
            );
            let forced = load(held, model, Strictness::Lenient).expect("forced");
            assert_eq!(forced.unexpected, [deeper]);
        }
    }

    #[test]
    fn a_network_with_the_same_names_is_known_by_its_blocks() {
        for (model, other) in [
            ("resnet50", "resnet101"),
            ("resnet18", "resnet34"),
            ("resnet20", "resnet56"),
            ("resnet20", "resnet20_b"),
            ("resnet32_b", "resnet32"),
            ("cifar_resnet18", "resnet18"),
            ("resnet34", "cifar_resnet34"),
            ("vgg16", "vgg19"),
            ("vgg11", "vgg11_bn"),
            ("vgg13_bn", "vgg13"),
        ] {
            let line = load(built(other).0, model, Strictness::Strict).expect_err("another network");
            assert!(line.contains(&format!("its names are those of {other} in")), "{model}: {line}");
        }
    }

    #[test]
    fn of_two_copies_the_averaged_one_is_taken_whole_or_both_are_named() {
        let (whole, _) = built("resnet20");
        let under = |prefix: &str, n: usize| -> Vec<(String, Vec<usize>)> {
            whole.iter().take(n).map(|(name, shape)| (format!("{prefix}{name}"), shape.clone())).collect()
        };
        let all = whole.len();
        for average in ["ema_model.", "model_ema.", "ema_model.module.", "ema."] {
            let report =
                load([under("model.", all), under(average, all)].concat(), "resnet20", Strictness::Strict);
            let report = report.expect("an average");
            assert_eq!((report.loaded.len(), report.passed_over), (all, all));
            assert_eq!(report.found_under.as_deref(), Some(average.trim_end_matches('.')));
        }
        // An average of some tensors is not filled up from the other copy.
        let line = load([under("model.", all), under("ema.", 9)].concat(), "resnet20", Strictness::Strict);
        assert!(line.expect_err("half an average").contains("lacks"));
        for prefix in ["", "net.", "online_model."] {
            let line =
                load([under("model.", all), under(prefix, all)].concat(), "resnet20", Strictness::Strict);
            let line = line.expect_err("two copies");
            assert!(line.contains("`model.`") && line.contains(&format!("`{prefix}`")), "{line}");
        }
        // Parts under several prefixes are one network.
        let parts: Vec<_> = [("backbone.", false), ("", true)]
            .into_iter()
            .flat_map(|(prefix, is_head)| {
                let part = whole.iter().filter(move |(name, _)| name.starts_with("fc.") == is_head);
                part.map(move |(name, shape)| (format!("{prefix}{name}"), shape.clone()))
            })
            .collect();
        assert_eq!(load(parts, "resnet20", Strictness::Strict).expect("one network").loaded.len(), all);
    }
}
