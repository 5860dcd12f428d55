//! The state dict in a pickle: where it is, and what it holds.

use std::collections::BTreeMap;

use super::super::stored::{Stored, StoredTensor};
use super::pickle::{Machine, Node, shortened};
use super::tensors::StorageElement;

/// How many values the tensors may have per byte of the file: quantised ones take a byte each, and views may share a
/// storage.
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
    fn find(&self, root: u32, depth: usize) -> Option<(u32, Option<String>)> {
        let Node::Dict(items) = self.node(root) else { return None };
        for wrapper in WRAPPERS {
            let inner =
                items.iter().rev().find(|(key, _)| matches!(self.node(*key), Node::Text(t) if *t == wrapper));
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

    fn holds_tensors(&self, place: u32) -> bool {
        let Node::Dict(items) = self.node(place) else { return false };
        items.iter().any(|(_, value)| matches!(self.node(*value), Node::Tensor(_) | Node::Unreadable(_)))
    }

    /// What stands where a state dict should, for people.
    fn describe(&self, root: u32) -> String {
        match self.node(root) {
            Node::Dict(items) => {
                let text = |place: u32| match self.node(place) {
                    Node::Text(text) => Some(*text),
                    _ => None,
                };
                let keys: Vec<String> =
                    items.iter().filter_map(|(key, _)| text(*key)).take(5).map(shortened).collect();
                let network = items.iter().find_map(|(key, value)| match self.node(*value) {
                    Node::Opaque(class) if text(*key) == Some("model") => Some(class.to_string()),
                    _ => None,
                });
                match network {
                    Some(class) => format!("a whole network of the class {class} under `model`"),
                    None if keys.is_empty() => "an empty dict".to_owned(),
                    None => format!("a dict of {}", keys.join(", ")),
                }
            }
            Node::Opaque(class) => format!("an object of the class {class}"),
            Node::Tensor { .. } => "one tensor".to_owned(),
            Node::List(_) | Node::Tuple(_) => "a list".to_owned(),
            _ => "no object".to_owned(),
        }
    }

    /// What the state dict under `root` holds by name, and the key under which it was found, if any. `storages` gives
    /// the bytes of a storage by its key.
    ///
    /// # Errors
    /// With one sentence when there is no state dict, or a tensor reaches over the end of its storage.
    pub(super) fn state_dict<'b>(
        &self,
        root: u32,
        file_bytes: usize,
        storages: impl Fn(&str) -> Result<&'b [u8], String>,
    ) -> Result<(BTreeMap<String, Stored<'b>>, Option<String>), String> {
        let (dict, wrapper) = self.find(root, 0).ok_or_else(|| {
            let found = self.describe(root);
            format!(
                "it holds {found} and no state dict: write the file with torch.save(model.state_dict(), ..)"
            )
        })?;
        let Node::Dict(items) = self.node(dict) else { unreachable!("find gives dicts only") };
        let mut left = file_bytes.saturating_mul(VALUES_PER_BYTE_MAX) + (1 << 16);
        let mut held = BTreeMap::new();
        for (key, value) in items {
            let Node::Text(name) = self.node(*key) else { continue };
            let tensor = match self.node(*value) {
                Node::Tensor(tensor) => tensor,
                Node::Unreadable(kind) => {
                    super::super::check_name(name, held.len())?;
                    held.insert((*name).to_owned(), Stored::Unreadable(kind));
                    continue;
                }
                _ => continue,
            };
            super::super::check_name(name, held.len())?;
            let Node::Storage { key, element: StorageElement::Plain(element) } = self.node(tensor.storage)
            else {
                unreachable!("a tensor is made of a storage of numbers only")
            };
            let bytes = storages(key)?;
            let values = tensor.size.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
            left = values.and_then(|count| left.checked_sub(count)).ok_or_else(|| {
                format!(
                    "`{name}` declares the shape {:?}: more than a file of {file_bytes} bytes can hold",
                    tensor.size
                )
            })?;
            let stored = StoredTensor::view(bytes, *element, tensor.offset, &tensor.size, &tensor.stride)
                .ok_or_else(|| format!("the values of `{name}` are cut short: download the file again"))?;
            held.insert((*name).to_owned(), Stored::Tensor(stored));
        }
        Ok((held, wrapper))
    }
}
