//! What the calls of a pickle make: storages, tensors and dicts, and names of everything else.

use super::{AXES_MAX, Class, HEAP_BYTES, Machine, Node, StorageElement, TensorView, pairs};

impl<'a> Machine<'a> {
    /// `('storage', class, key, device, count)`, as `torch.save` refers to values outside the pickle.
    pub(super) fn storage(&self, id: u32) -> Result<Node<'a>, String> {
        let damaged = || "the pickle is damaged: a storage is not described as torch.save does".to_owned();
        let Node::Tuple(fields) = self.node(id) else { return Err(damaged()) };
        let field = |index: usize| fields.get(index).map(|place| self.node(*place));
        let (Some(Node::Text("storage")), Some(Node::Global(class)), Some(Node::Text(key))) =
            (field(0), field(1), field(2))
        else {
            return Err(damaged());
        };
        if !matches!(field(5), None | Some(Node::None)) {
            return Err("a storage is a view of another, as torch 0.3 wrote: save the file again".to_owned());
        }
        Ok(Node::Storage { key, element: StorageElement::of(class.1) })
    }

    /// The class or function that an object is, or is an object of.
    fn class(&self, place: u32) -> Option<Class<'a>> {
        match self.node(place) {
            Node::Global(class) | Node::Opaque(class) => Some(**class),
            _ => None,
        }
    }

    fn fields(&self, arguments: u32) -> &[u32] {
        match self.node(arguments) {
            Node::Tuple(fields) => fields,
            _ => &[],
        }
    }

    /// What calling something with arguments gives, for the few callables that a state dict is made with. Of all
    /// others the name is kept and nothing else.
    pub(super) fn reduce(&mut self, callable: u32, arguments: u32) -> Result<(), String> {
        let called = self.class(callable);
        let Class(module, name) =
            called.ok_or_else(|| "the pickle is damaged: it calls what cannot be called".to_owned())?;
        if !matches!((module, name), ("torch._tensor", "_rebuild_from_type_v2" | "_rebuild_from_type")) {
            return self.rebuild(module, name, arguments);
        }
        // `(function, class, arguments, attributes)`: a tensor that a program has hung attributes on, or one of a class
        // of its own. Its values are those of the tensor that the function makes.
        if let &[function, _, arguments, ..] = self.fields(arguments)
            && let Some(Class(module, name)) = self.class(function)
            && !name.starts_with("_rebuild_from_type")
        {
            return self.rebuild(module, name, arguments);
        }
        self.push(Node::Unreadable("a tensor of a class of its own"))
    }

    fn rebuild(&mut self, module: &'a str, name: &'a str, arguments: u32) -> Result<(), String> {
        match (module, name) {
            ("collections", "OrderedDict") => {
                let first = self.fields(arguments).first().copied();
                let n = match first.map(|place| self.node(place)) {
                    Some(Node::List(listed)) => listed.len(),
                    _ => 0,
                };
                // One list may be the argument of many calls.
                self.charge_items(2 * n)?;
                let mut items = Vec::new();
                if let Some(Node::List(listed)) = first.map(|place| self.node(place)) {
                    for pair in listed {
                        if let Node::Tuple(pair) = self.node(*pair) {
                            items.extend(pairs(&pair[..pair.len().min(2)]));
                        }
                    }
                }
                self.push(Node::Dict(items))
            }
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => {
                let tensor = self.tensor(self.fields(arguments));
                let tensor =
                    tensor.ok_or_else(|| "the pickle is damaged: a tensor has no shape".to_owned())?;
                self.charge(3 * HEAP_BYTES + size_of::<TensorView>() + 2 * AXES_MAX * size_of::<usize>())?;
                self.push(tensor)
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                match self.fields(arguments).first() {
                    Some(&data) => self.push_again(data),
                    None => Err("the pickle is damaged: a parameter has no tensor".to_owned()),
                }
            }
            _ => match unreadable(module, name) {
                Some(kind) => self.push(Node::Unreadable(kind)),
                None => self.push_opaque(module, name),
            },
        }
    }

    /// `(storage, offset, size, stride, ..)`.
    fn tensor(&self, fields: &[u32]) -> Option<Node<'a>> {
        let number = |place: u32| match self.node(place) {
            Node::Integer(value) => usize::try_from(*value).ok(),
            _ => None,
        };
        let numbers = |place: u32| match self.node(place) {
            Node::Tuple(items) if items.len() <= AXES_MAX => {
                items.iter().map(|item| number(*item)).collect::<Option<Vec<usize>>>()
            }
            _ => None,
        };
        let [storage, offset, size, stride, ..] = *fields else { return None };
        let (offset, size, stride) = (number(offset)?, numbers(size)?, numbers(stride)?);
        let Node::Storage { element, .. } = self.node(storage) else { return None };
        if size.len() != stride.len() {
            return None;
        }
        Some(match element {
            StorageElement::Plain(_) => Node::Tensor(Box::new(TensorView { storage, offset, size, stride })),
            StorageElement::Other(kind, _) => Node::Unreadable(kind),
        })
    }
}

/// What a function that stands for a tensor makes, in words, where that cannot be read; `None` for one that stands for
/// anything else.
fn unreadable(module: &str, name: &str) -> Option<&'static str> {
    let is_torch = module == "torch" || module.starts_with("torch.");
    Some(match name {
        "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" if is_torch => "a sparse tensor",
        "_rebuild_qtensor" if is_torch => "a quantised tensor",
        "_rebuild_nested_tensor" if is_torch => "a nested tensor",
        "_rebuild_meta_tensor_no_storage" if is_torch => "a tensor without values",
        "_rebuild_tensor_v3" if is_torch => "a tensor of an element type that is not known",
        "_rebuild_wrapper_subclass" if is_torch => "a tensor of a class of its own",
        _ if is_torch && name.starts_with("_rebuild") => "a tensor in a form that is not known",
        "_reconstruct" | "scalar" if module.starts_with("numpy") => "a NumPy array",
        _ => return None,
    })
}
