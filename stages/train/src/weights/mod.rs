//! Pretrained weights: reading a file of any of the usual kinds, and which of its tensors belong to which of the
//! network.

pub mod golden;
mod matching;
pub mod names;
mod pytorch;
pub mod registry;
mod report;
mod stored;

use std::collections::BTreeMap;

use forebay_datasets::escape::{is_printable, one_line};
use safetensors::SafeTensors;

pub use self::matching::Strictness;
pub(super) use self::matching::{match_names, match_shapes};
pub use self::report::WeightsReport;
use self::stored::{Stored, StoredKind, StoredTensor};
use crate::error::{TrainError, unreadable};
use crate::file::{self, AVERAGE, FileDescription, LOSS_SCALE, OPTIMIZER};

/// Tensors of one file. The largest network here has some six hundred, and a checkpoint three times as many.
const TENSORS_MAX: usize = 1 << 15;

/// Bytes of a tensor's name.
const NAME_BYTES_MAX: usize = 256;

/// Bytes of a safetensors header: names, shapes and places of as many tensors as a file may have. What is read of it
/// takes several times as much.
const HEADER_BYTES_MAX: u64 = 4 << 20;

/// What a weights file holds, and what it says of itself.
#[derive(Clone, Debug)]
pub(super) struct WeightsFile<'a> {
    /// By name in the file. Nothing is copied: values are read when a network takes them.
    held: BTreeMap<String, Stored<'a>>,
    /// The key of a checkpoint under which they were.
    found_under: Option<String>,
    /// Of a file of this program, whose norms then have the constants of this one under any names.
    own: Option<FileDescription>,
    /// How many tensors were left out because no network has a use for them.
    passed_over: usize,
}

impl WeightsFile<'_> {
    /// The classes of a file of this program.
    pub(super) fn classes(&self) -> Option<&[String]> {
        self.own.as_ref().map(|own| own.classes.as_slice())
    }
}

/// Reads safetensors, and PyTorch's `.pth` and `.bin` of either form, by what the bytes are. A file costs no more memory
/// than its names and shapes.
///
/// # Errors
/// [`TrainError::Weights`] when the bytes are of a known kind and damaged, [`TrainError::File`] otherwise.
pub(super) fn read(bytes: &[u8]) -> Result<WeightsFile<'_>, TrainError> {
    if pytorch::is_archive(bytes) || pytorch::is_legacy(bytes) {
        // A pickle's keys stand in what is wrong with it.
        let damaged = |line: String| TrainError::Weights(one_line(&line).into_owned());
        let (held, found_under) = pytorch::read(bytes).map_err(damaged)?;
        return Ok(WeightsFile { held, found_under, own: None, passed_over: 0 });
    }
    if let Some(kind) = other_kind(bytes) {
        return Err(TrainError::Weights(kind.to_owned()));
    }
    let length = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    if length > HEADER_BYTES_MAX && length <= bytes.len() as u64 {
        return Err(TrainError::Weights(format!(
            "its header has {length} bytes, which is no list of tensors"
        )));
    }
    let own = file::header(bytes).map_err(unreadable("weights"))?;
    let whole = SafeTensors::deserialize(bytes);
    let whole = whole.map_err(candle_core::Error::wrap).map_err(unreadable("weights"))?;
    let mut held = BTreeMap::new();
    for (name, view) in whole.iter() {
        check_name(name, held.len()).map_err(TrainError::Weights)?;
        let element = StoredKind::of_safetensors(view.dtype());
        let tensor = element.and_then(|element| StoredTensor::whole(view.data(), element, view.shape()));
        let unreadable = Stored::Unreadable("a tensor of an element type that is not known");
        held.insert(name.to_owned(), tensor.map_or(unreadable, Stored::Tensor));
    }
    let file = WeightsFile { held, found_under: None, own, passed_over: 0 };
    Ok(if file.own.is_some() { eval_weights(file) } else { file })
}

/// The weights of a checkpoint of this program that the run evaluates and keeps: the moving average where there is one.
fn eval_weights(mut file: WeightsFile<'_>) -> WeightsFile<'_> {
    let all = file.held.len();
    let average: BTreeMap<_, _> = file
        .held
        .iter()
        .filter_map(|(name, stored)| Some((name.strip_prefix(AVERAGE)?.to_owned(), stored.clone())))
        .collect();
    match average.is_empty() {
        false => (file.held, file.found_under) = (average, Some(AVERAGE.trim_end_matches('.').to_owned())),
        true => file.held.retain(|name, _| name != LOSS_SCALE && !name.starts_with(OPTIMIZER)),
    }
    file.passed_over = all - file.held.len();
    file
}

/// Refuses names that are too long or do not print, and one more tensor than a file may have: names stand in reports and
/// errors, and a network's are of letters and digits.
fn check_name(name: &str, tensors: usize) -> Result<(), String> {
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("the name of a tensor has {} bytes, which is no name", name.len()));
    }
    if !is_printable(name) {
        return Err(format!("the name of a tensor does not print: `{}`", one_line(name)));
    }
    if tensors >= TENSORS_MAX {
        return Err(format!("it holds more than {TENSORS_MAX} tensors, which no network here has"));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_damage_of_a_safetensors_file_is_a_panic() {
        let values: Vec<u8> = (0..24u8).flat_map(|n| f32::from(n).to_le_bytes()).collect();
        let view = |shape: &[usize], bytes| {
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes)
                .expect("it fits")
        };
        let tensors = [("fc.weight", view(&[3, 4], &values[..48])), ("fc.bias", view(&[12], &values[48..]))];
        let whole = safetensors::serialize(tensors, None).expect("room");
        assert_eq!(read(&whole).expect("a whole file").held.len(), 2);
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
            assert_eq!(read(&file).expect("a whole file").held.len(), 1);
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

    #[test]
    fn a_tensor_whose_name_commands_a_terminal_is_refused() {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).expect("it fits");
        let file = safetensors::serialize([("fc.\u{1b}[2Jbias", view)], None).expect("room");
        let line = read(&file).expect_err("no name").to_string();
        assert_eq!(line, r"the name of a tensor does not print: `fc.\u{1b}[2Jbias`");
    }

    #[test]
    fn one_tensor_of_an_odd_type_does_not_make_a_file_broken() {
        use safetensors::Dtype;
        use safetensors::tensor::TensorView;
        let view =
            |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).expect("it fits");
        let tensors = [
            ("mask", view(Dtype::BOOL, &[2], &[0, 1])),
            ("quantised", view(Dtype::I8, &[2], &[255, 3])),
            ("short", view(Dtype::I16, &[1], &[2, 1])),
            ("eight", view(Dtype::F8_E4M3, &[2], &[1, 2])),
            ("fc.bias", view(Dtype::F16, &[1], &[0, 0x3c])),
        ];
        let bytes = safetensors::serialize(tensors, None).expect("room");
        let file = read(&bytes).expect("a whole file");
        let value = |name: &str| match &file.held[name] {
            Stored::Tensor(tensor) => Some(tensor.values()),
            Stored::Unreadable(_) => None,
        };
        assert_eq!(value("mask"), Some(vec![0.0, 1.0]));
        assert_eq!(value("quantised"), Some(vec![-1.0, 3.0]));
        assert_eq!(value("short"), Some(vec![258.0]));
        assert_eq!(value("fc.bias"), Some(vec![1.0]));
        assert_eq!(value("eight"), None);
    }
}
