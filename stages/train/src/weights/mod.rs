//! Pretrained weights: reading a file of any of the usual kinds, and which of its tensors belong to which of the
//! network.

pub mod golden;
pub mod names;
mod pytorch;
pub mod registry;

use std::collections::BTreeMap;
use std::fmt;

use candle_core::Tensor;

use self::names::Family;
use super::params::ParamStore;
use crate::error::{TrainError, unreadable};
use crate::file::{self, OPTIMIZER};

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
            names.iter().try_for_each(|name| writeln!(f, "    {name}"))
        };
        write!(f, "{:<11} {:>4}", "loaded", self.loaded.len())?;
        if self.translated > 0 {
            write!(f, "  ({} under other names than torchvision's)", self.translated)?;
        }
        if let Some(key) = &self.found_under {
            write!(f, "  (from `{key}` of the file)")?;
        }
        writeln!(f)?;
        names(f, "missing", &self.missing)?;
        names(f, "unexpected", &self.unexpected)?;
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
            write!(f, "\n    {name}: {file:?} in the file, {network:?} here; initialised anew")?;
        }
        if let Some(classes) = &self.other_classes {
            write!(f, "\nthe classifier is initialised anew: the file's classes are {}", classes.join(", "))?;
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

/// The tensors of a weights file, and what else is known of it.
#[derive(Clone, Debug)]
pub(super) struct WeightsFile {
    /// By name in the file; floating-point ones are f32.
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// The key of a checkpoint under which they were.
    pub(super) found_under: Option<String>,
    /// The classes of a file of this program, whose norms then have the constants of this one under any names.
    pub(super) classes: Option<Vec<String>>,
}

/// Reads safetensors, and PyTorch's `.pth` and `.bin` of either form, by what the bytes are.
///
/// # Errors
/// [`TrainError::Weights`] when the bytes are of a known kind and damaged, [`TrainError::File`] otherwise.
pub(super) fn read(bytes: &[u8]) -> Result<WeightsFile, TrainError> {
    if pytorch::is_archive(bytes) || pytorch::is_legacy(bytes) {
        let (tensors, found_under) = pytorch::read(bytes).map_err(TrainError::Weights)?;
        return Ok(WeightsFile { tensors, found_under, classes: None });
    }
    if let Some(kind) = other_kind(bytes) {
        return Err(TrainError::Weights(kind.to_owned()));
    }
    let (header, tensors) = file::decode(bytes).map_err(unreadable("weights"))?;
    Ok(WeightsFile { tensors, found_under: None, classes: header.map(|header| header.classes) })
}

/// What a file is that is often taken for weights.
fn other_kind(bytes: &[u8]) -> Option<&'static str> {
    // A safetensors file begins with the length of its header, which may be any bytes, and JSON.
    if bytes.get(8) == Some(&b'{') {
        return None;
    }
    let starts =
        |magic: &[u8]| bytes.get(..magic.len()).is_some_and(|start| start.eq_ignore_ascii_case(magic));
    Some(if starts(b"version https://git-lfs") {
        "a pointer of Git LFS instead of the weights: run `git lfs pull` where the file lies"
    } else if starts(b"<!doctype html") || starts(b"<html") {
        "a web page instead of the weights: download the file itself"
    } else if starts(b"\x89HDF") {
        "an HDF5 file (Keras): convert it to safetensors with PyTorch's names"
    } else if starts(b"GGUF") {
        "a GGUF file, which holds language models"
    } else if starts(b"\x1f\x8b") {
        "a gzip file: unpack it"
    } else if bytes.len() > 2 && bytes[0] == 0x80 && bytes[1] < 6 {
        "a bare pickle, not what torch.save writes: save a state_dict() with torch.save, or as safetensors"
    } else {
        return None;
    })
}

/// What to do with a weights file: the report, and the tensors to set.
pub(super) struct Matched {
    pub(super) report: WeightsReport,
    pub(super) tensors: Vec<(String, Tensor)>,
}

/// Compares the tensors of a file with those of a network, whose names are torchvision's: prefixes of wrappers
/// are stripped, names of timm and transformers are translated, and what no network needs is passed over.
///
/// # Errors
/// With one sentence when the file is for another network: its names look like another one's, nothing of the
/// backbone fits, or a tensor of it has another shape.
pub(super) fn match_names(
    file: WeightsFile,
    store: &ParamStore,
    model: &str,
    head: &str,
) -> Result<Matched, String> {
    let network: Vec<(&str, Vec<usize>)> =
        store.iter().map(|(name, entry)| (name, entry.values().dims().to_vec())).collect();
    match_shapes(file, &network, model, head)
}

/// [`match_names`] with the names and shapes of a network, in the order of names.
fn match_shapes(
    file: WeightsFile,
    network: &[(&str, Vec<usize>)],
    model: &str,
    head: &str,
) -> Result<Matched, String> {
    let mut report = WeightsReport { found_under: file.found_under, ..WeightsReport::default() };
    let mut stripped: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, tensor) in file.tensors {
        let short = names::without_prefixes(&name);
        if short.starts_with(OPTIMIZER) || names::is_passed_over(short) {
            report.passed_over += 1;
        } else {
            stripped.insert(short.to_owned(), tensor);
        }
    }
    let looks = names::looks_like(stripped.iter().map(|(name, tensor)| (name.as_str(), tensor.dims())));
    if let Some((looks, whose)) = looks
        && !model.contains(looks)
    {
        return Err(format!(
            "the file is for another network than {model}: its names are those of {looks} in {whose}; choose that \
             network, or other weights"
        ));
    }
    let family = Family::of(model);
    report.norm_epsilons = family
        .zip(looks)
        .filter(|_| file.classes.is_none())
        .and_then(|(family, (_, whose))| names::norm_epsilons(family, whose));
    let first = stripped.keys().next().cloned();
    let mut found: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, tensor) in stripped {
        let ours = family.map_or_else(|| name.clone(), |family| names::translate(family, &name));
        report.translated += usize::from(ours != name);
        found.insert(ours, tensor);
    }
    let mut tensors = Vec::new();
    let is_head = |name: &str| name.strip_prefix(head).is_some_and(|rest| rest.starts_with('.'));
    for (name, here) in network {
        let tensor = found.remove(*name).map(|tensor| match (tensor.dims().len(), here.len()) {
            // A linear layer that was stored as a convolution over the whole plane has its values in this order.
            (4, 2) => tensor.flatten_from(1).map_err(|error| format!("cannot reshape `{name}`: {error}")),
            _ => Ok(tensor),
        });
        match tensor.transpose()? {
            None => report.missing.push((*name).to_owned()),
            Some(mut tensor) if tensor.dims() == here => {
                if let Some((theirs, ours)) = report.norm_epsilons.filter(|_| name.ends_with(".running_var"))
                {
                    let moved = tensor + (theirs - ours);
                    tensor = moved.map_err(|error| format!("cannot move `{name}`: {error}"))?;
                }
                report.loaded.push((*name).to_owned());
                tensors.push(((*name).to_owned(), tensor));
            }
            // Another number of classes is another first side, and nothing else.
            Some(tensor) if is_head(name) && tensor.dims().get(1..) == here.get(1..) => {
                report.mismatched.push(((*name).to_owned(), tensor.dims().to_vec(), here.clone()));
            }
            Some(tensor) => {
                return Err(format!(
                    "the file is for another network than {model}: `{name}` is {:?} in the file and {here:?} here",
                    tensor.dims()
                ));
            }
        }
    }
    // A layer of which one tensor fits and one does not would be half trained and half not.
    let layer = |name: &str| name.rsplit_once('.').map_or(String::new(), |(layer, _)| layer.to_owned());
    let broken: Vec<String> = report.mismatched.iter().map(|(name, ..)| layer(name)).collect();
    tensors.retain(|(name, _)| !broken.contains(&layer(name)));
    let (kept, dropped) = report.loaded.drain(..).partition(|name| !broken.contains(&layer(name)));
    report.loaded = kept;
    report.missing.extend::<Vec<String>>(dropped);
    report.missing.sort();
    report.unexpected = found.into_keys().collect();
    if !report.loaded.iter().any(|name| !is_head(name)) {
        let first = first.map_or_else(|| "no tensor".to_owned(), |name| format!("`{name}`"));
        let wanted = network.first().map_or("", |(name, _)| name);
        return Err(format!(
            "the file is for another network than {model}: it holds {first}, but nothing like `{wanted}`"
        ));
    }
    Ok(Matched { report, tensors })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn file(tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> WeightsFile {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("memory");
        WeightsFile {
            tensors: tensors.into_iter().map(|(name, shape)| (name, zeros(&shape))).collect(),
            found_under: None,
            classes: None,
        }
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
        file: WeightsFile,
        network: &[(String, Vec<usize>)],
        model: &str,
    ) -> Result<WeightsReport, String> {
        let network: Vec<(&str, Vec<usize>)> =
            network.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
        match_shapes(file, &network, model, head(model)).map(|matched| {
            assert_eq!(matched.tensors.len(), matched.report.loaded.len());
            matched.report
        })
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
            let matched = match_shapes(file(tensors), &network, "mobilenet_v3_small", "classifier");
            let matched = matched.expect("the same network");
            let (_, tensor) = matched
                .tensors
                .iter()
                .find(|(name, _)| name == "features.0.1.running_var")
                .expect("it is there");
            let values: Vec<f32> = tensor.to_vec1().expect("f32 on the CPU");
            values[0]
        };
        // Zeros in the file: timm's variance plus 1e-5 is ours plus 1e-3.
        let timm = variance(tensors.iter().map(|(name, _, shape)| (name.clone(), shape.clone())).collect());
        assert!((f64::from(timm) + 1e-3 - 1e-5).abs() < 1e-9, "{timm}");
        let ours =
            variance(network.iter().map(|(name, shape)| ((*name).to_owned(), shape.clone())).collect());
        assert_eq!(ours, 0.0);
    }

    #[test]
    fn no_damage_of_a_safetensors_file_is_a_panic() {
        let values: Vec<u8> = (0..24u8).flat_map(|n| f32::from(n).to_le_bytes()).collect();
        let view = |shape: &[usize], bytes| {
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes)
                .expect("it fits")
        };
        let tensors = [("fc.weight", view(&[3, 4], &values[..48])), ("fc.bias", view(&[12], &values[48..]))];
        let whole = safetensors::serialize(tensors, None).expect("room");
        assert_eq!(read(&whole).expect("a whole file").tensors.len(), 2);
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
        }
        for place in 0..whole.len() {
            for flip in [0x01, 0x02, 0x10, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[place] ^= flip;
                let _ = read(&damaged);
            }
        }
        // A length of the header that begins as a pickle does.
        for length in [0x0280, 0x0580] {
            let tensors = [("fc.bias", view(&[24], &values))];
            let mut file = safetensors::serialize(tensors, None).expect("room");
            let header = u64::from_le_bytes(*file.first_chunk().expect("a length")) as usize;
            let spaces = vec![b' '; length - header];
            file.splice(8 + header..8 + header, spaces);
            file[..8].copy_from_slice(&(length as u64).to_le_bytes());
            assert_eq!(read(&file).expect("a whole file").tensors.len(), 1);
        }
        // A shape whose number of values is beyond 64 bits.
        let header = br#"{"w":{"dtype":"F32","shape":[4294967296,4294967296,16],"data_offsets":[0,4]}}"#;
        let huge = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
        assert!(read(&huge).is_err());
    }

    #[test]
    fn a_file_that_is_no_weights_is_named_by_what_it_is() {
        for (bytes, words) in [
            (b"version https://git-lfs.github.com/spec/v1\n".as_slice(), "git lfs pull"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"\x80\x04\x95abc", "bare pickle"),
            (b"PK\x03\x04", "cut short"),
        ] {
            let line = read(bytes).expect_err("no weights").to_string();
            assert!(line.contains(words), "{line}");
        }
        assert!(matches!(read(b"nothing"), Err(TrainError::File { .. })));
        assert!(matches!(read(b""), Err(TrainError::File { .. })));
    }
}
