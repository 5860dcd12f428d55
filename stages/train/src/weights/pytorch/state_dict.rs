//! The state dict in a pickle: where it is, and its tensors.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::pickle::{Machine, Node};
use super::tensors::gather;

/// How many values the tensors may hold per byte of the file: half-precision ones take two bytes each, and views
/// may share a storage.
const VALUES_PER_BYTE_MAX: usize = 2;

/// Under which keys training programs keep the weights, best first: averaged ones before raw ones, as timm does.
const WRAPPERS: [&str; 9] = [
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "module",
];

impl<'a> Machine<'a> {
    /// Finds the dict that holds tensors, below the keys that training programs wrap it in.
    fn find(&self, root: usize, depth: usize) -> Option<(usize, Option<String>)> {
        let Node::Dict(items) = &self.nodes[root] else { return None };
        for wrapper in WRAPPERS {
            let inner =
                items.iter().rev().find(|(key, _)| matches!(self.nodes[*key], Node::Text(t) if t == wrapper));
            if let Some((_, inner)) = inner
                && depth < 3
                && let Some((found, below)) = self.find(*inner, depth + 1)
            {
                return Some((
                    found,
                    Some(below.map_or(wrapper.to_owned(), |below| format!("{wrapper}.{below}"))),
                ));
            }
        }
        self.holds_tensors(root).then_some((root, None))
    }

    fn holds_tensors(&self, place: usize) -> bool {
        let Node::Dict(items) = &self.nodes[place] else { return false };
        items.iter().any(|(_, value)| matches!(self.nodes[*value], Node::Tensor { .. }))
    }

    /// What stands where a state dict should, for people.
    fn describe(&self, root: usize) -> String {
        match &self.nodes[root] {
            Node::Dict(items) => {
                let text = |place: usize| match self.nodes[place] {
                    Node::Text(text) => Some(text),
                    _ => None,
                };
                let keys: Vec<&str> = items.iter().filter_map(|(key, _)| text(*key)).take(5).collect();
                let network = items.iter().find_map(|(key, value)| match self.nodes[*value] {
                    Node::Opaque(module, name) if text(*key) == Some("model") => {
                        Some(format!("{module}.{name}"))
                    }
                    _ => None,
                });
                match network {
                    Some(class) => format!("a whole network of the class {class} under `model`"),
                    None if keys.is_empty() => "an empty dict".to_owned(),
                    None => format!("a dict of {}", keys.join(", ").escape_debug()),
                }
            }
            Node::Opaque(module, name) => format!("an object of the class {module}.{name}"),
            Node::Tensor { .. } => "one tensor".to_owned(),
            Node::List(_) | Node::Tuple(_) => "a list".to_owned(),
            _ => "no object".to_owned(),
        }
    }

    /// The tensors of the state dict under `root`. `storages` gives the bytes of a storage by its key.
    pub(super) fn state_dict<'b>(
        &self,
        root: usize,
        file_bytes: usize,
        storages: impl Fn(&str) -> Result<&'b [u8], String>,
    ) -> Result<(BTreeMap<String, Tensor>, Option<String>), String> {
        let (dict, wrapper) = self.find(root, 0).ok_or_else(|| {
            let found = self.describe(root);
            format!(
                "it holds {found} and no state dict: write the file with torch.save(model.state_dict(), ..)"
            )
        })?;
        let Node::Dict(items) = &self.nodes[dict] else { unreachable!("find gives dicts only") };
        let budget = file_bytes.saturating_mul(VALUES_PER_BYTE_MAX) + (1 << 16);
        let mut left = budget;
        let mut tensors = BTreeMap::new();
        for (key, value) in items {
            let (Node::Text(name), Node::Tensor { storage, offset, size, stride }) =
                (&self.nodes[*key], &self.nodes[*value])
            else {
                continue;
            };
            let Node::Storage { key, element } = &self.nodes[*storage] else {
                unreachable!("a tensor is made of a storage only")
            };
            let bytes = storages(key)?;
            let values = size.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
            left = values.and_then(|count| left.checked_sub(count)).ok_or_else(|| {
                format!(
                    "`{name}` declares the shape {size:?}: more than a file of {file_bytes} bytes can hold"
                )
            })?;
            let values = gather(bytes, *element, *offset, size, stride)
                .ok_or_else(|| format!("the values of `{name}` are cut short: download the file again"))?;
            let tensor = Tensor::from_vec(values, size.as_slice(), &Device::Cpu);
            tensors.insert(
                (*name).to_owned(),
                tensor.map_err(|error| format!("cannot hold `{name}`: {error}"))?,
            );
        }
        Ok((tensors, wrapper))
    }
}
