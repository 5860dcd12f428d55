//! The stack machine that a pickle is a program for, without the instructions that would do anything.

use std::collections::BTreeMap;

use super::tensors::StorageElement;

/// Objects of one pickle. A checkpoint of a large network with its optimiser has some ten thousand.
pub(super) const OBJECTS_MAX: usize = 1 << 22;

/// An object of a pickle. Others are referred to by their place in [`Machine::nodes`].
#[derive(Debug)]
pub(super) enum Node<'a> {
    None,
    Integer(i64),
    Text(&'a str),
    /// A class or function by module and name; it stays a name.
    Global(&'a str, &'a str),
    Tuple(Vec<usize>),
    List(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    Storage {
        key: &'a str,
        element: StorageElement,
    },
    Tensor {
        storage: usize,
        offset: usize,
        size: Vec<usize>,
        stride: Vec<usize>,
    },
    /// An object that is of no use here: numbers of an optimiser, arguments of a program, or a whole network.
    Opaque(&'a str, &'a str),
}

/// The stack machine that a pickle is written for, without the instructions that would do anything.
pub(super) struct Machine<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    stack: Vec<usize>,
    marks: Vec<usize>,
    memo: BTreeMap<u32, usize>,
}

/// The bytes of a pickle and how far they are read.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(length);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| "the pickle is cut short: download the file again".to_owned())?;
        self.at += length;
        Ok(taken)
    }

    /// An unsigned number of so many bytes, little-endian.
    fn number(&mut self, width: usize) -> Result<usize, String> {
        let value = self.take(width)?.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).map_err(|_| "a number of the pickle is too large".to_owned())
    }

    fn text(&mut self, length: usize) -> Result<&'a str, String> {
        std::str::from_utf8(self.take(length)?).map_err(|_| "a text of the pickle is not UTF-8".to_owned())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let length = self.bytes[self.at..].iter().position(|byte| *byte == b'\n');
        let line = self.text(length.ok_or_else(|| "the pickle is cut short".to_owned())?)?;
        self.at += 1;
        Ok(line.trim_end_matches('\r'))
    }
}

/// Modules whose members do something when they are called. A state dict has no use for them.
fn runs_code(module: &str, name: &str) -> bool {
    const MODULES: [&str; 30] = [
        "os",
        "posix",
        "nt",
        "subprocess",
        "sys",
        "shutil",
        "socket",
        "runpy",
        "pty",
        "importlib",
        "ctypes",
        "commands",
        "webbrowser",
        "code",
        "codeop",
        "pdb",
        "bdb",
        "asyncio",
        "multiprocessing",
        "threading",
        "operator",
        "functools",
        "types",
        "pickle",
        "_pickle",
        "marshal",
        "timeit",
        "urllib",
        "requests",
        "pip",
    ];
    const BUILTINS: [&str; 15] = [
        "eval",
        "exec",
        "execfile",
        "compile",
        "open",
        "getattr",
        "setattr",
        "delattr",
        "__import__",
        "input",
        "breakpoint",
        "globals",
        "locals",
        "apply",
        "vars",
    ];
    let top = module.split('.').next().unwrap_or_default();
    MODULES.contains(&top)
        || (matches!(top, "builtins" | "__builtin__") && BUILTINS.contains(&name))
        || module.starts_with("torch.hub")
        || (module == "torch" && matches!(name, "load" | "compile"))
}

impl<'a> Machine<'a> {
    /// Reads one pickle: its objects, which of them it is about, and where it ends.
    pub(super) fn run(bytes: &'a [u8]) -> Result<(Machine<'a>, usize, usize), String> {
        let mut machine =
            Machine { nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: BTreeMap::new() };
        let mut cursor = Cursor { bytes, at: 0 };
        loop {
            let instruction = cursor.take(1)?[0];
            if instruction == b'.' {
                let root = machine.pop()?;
                return Ok((machine, root, cursor.at));
            }
            machine.step(instruction, &mut cursor)?;
        }
    }

    fn push(&mut self, node: Node<'a>) -> Result<(), String> {
        if self.nodes.len() >= OBJECTS_MAX {
            return Err(format!(
                "the pickle holds more than {OBJECTS_MAX} objects, which is no list of tensors"
            ));
        }
        self.nodes.push(node);
        self.stack.push(self.nodes.len() - 1);
        Ok(())
    }

    fn pop(&mut self) -> Result<usize, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => Ok(self.stack.pop().expect("the stack is longer than its floor")),
            false => Err("the pickle is damaged: it takes more than it put".to_owned()),
        }
    }

    fn top(&self) -> Result<usize, String> {
        self.stack
            .last()
            .copied()
            .ok_or_else(|| "the pickle is damaged: it uses what it did not put".to_owned())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<usize>, String> {
        let mark = self.marks.pop().ok_or_else(|| "the pickle is damaged: a mark is missing".to_owned())?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn pop_text(&mut self) -> Result<&'a str, String> {
        let place = self.pop()?;
        match self.nodes[place] {
            Node::Text(text) => Ok(text),
            _ => Err("the pickle is damaged: a name is no text".to_owned()),
        }
    }

    fn step(&mut self, instruction: u8, cursor: &mut Cursor<'a>) -> Result<(), String> {
        match instruction {
            0x80 => drop(cursor.take(1)?),
            // Frames only say how much to read at once.
            0x95 => drop(cursor.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => self.stack.push(self.top()?),
            b'N' => self.push(Node::None)?,
            0x88 | 0x89 => self.push(Node::Integer(i64::from(instruction == 0x88)))?,
            b'K' => {
                let value = cursor.number(1)?;
                self.push(Node::Integer(value as i64))?;
            }
            b'M' => {
                let value = cursor.number(2)?;
                self.push(Node::Integer(value as i64))?;
            }
            b'J' => {
                let value = cursor.number(4)?;
                self.push(Node::Integer(i64::from(value as u32 as i32)))?;
            }
            0x8a | 0x8b => {
                let length = cursor.number(if instruction == 0x8a { 1 } else { 4 })?;
                let bytes = cursor.take(length)?;
                let negative = bytes.last().is_some_and(|byte| *byte >= 128);
                let value = match length {
                    0..=8 => {
                        let mut wide = [if negative { 255 } else { 0 }; 8];
                        wide[..length].copy_from_slice(bytes);
                        Node::Integer(i64::from_le_bytes(wide))
                    }
                    _ => Node::Opaque("builtins", "int"),
                };
                self.push(value)?;
            }
            b'G' => {
                cursor.take(8)?;
                self.push(Node::Opaque("builtins", "float"))?;
            }
            b'X' | b'T' | 0x8c | b'U' | 0x8d => {
                let length = cursor.number(match instruction {
                    0x8c | b'U' => 1,
                    0x8d => 8,
                    _ => 4,
                })?;
                // Python 2 wrote bytes as texts; those that are none are of no use here.
                let node = match std::str::from_utf8(cursor.take(length)?) {
                    Ok(text) => Node::Text(text),
                    Err(_) => Node::Opaque("builtins", "bytes"),
                };
                self.push(node)?;
            }
            b'B' | b'C' | 0x8e => {
                let length = cursor.number(match instruction {
                    b'C' => 1,
                    0x8e => 8,
                    _ => 4,
                })?;
                cursor.take(length)?;
                self.push(Node::Opaque("builtins", "bytes"))?;
            }
            b')' => self.push(Node::Tuple(Vec::new()))?,
            b']' => self.push(Node::List(Vec::new()))?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            0x8f => self.push(Node::Opaque("builtins", "set"))?,
            0x85..=0x87 => {
                let mut items = Vec::with_capacity(3);
                for _ in 0x84..instruction {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Node::Tuple(items))?;
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items))?;
            }
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Node::List(items))?;
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Dict(pairs(&items)))?;
            }
            0x91 => {
                self.pop_to_mark()?;
                self.push(Node::Opaque("builtins", "frozenset"))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.extend(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(&items)?;
            }
            b'q' | b'r' => {
                let key = cursor.number(if instruction == b'q' { 1 } else { 4 })?;
                let top = self.top()?;
                self.memo.insert(key as u32, top);
            }
            0x94 => {
                let (key, top) = (self.memo.len() as u32, self.top()?);
                self.memo.insert(key, top);
            }
            b'h' | b'j' => {
                let key = cursor.number(if instruction == b'h' { 1 } else { 4 })?;
                let place = self.memo.get(&(key as u32)).copied();
                self.stack.push(
                    place.ok_or_else(|| "the pickle is damaged: it recalls what it never kept".to_owned())?,
                );
            }
            b'c' => {
                let (module, name) = (cursor.line()?, cursor.line()?);
                self.push_global(module, name)?;
            }
            0x93 => {
                let name = self.pop_text()?;
                let module = self.pop_text()?;
                self.push_global(module, name)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage)?;
            }
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let callable = self.pop()?;
                self.reduce(callable, arguments)?;
            }
            0x92 => {
                self.pop()?;
                let arguments = self.pop()?;
                let callable = self.pop()?;
                self.reduce(callable, arguments)?;
            }
            b'b' => {
                // The state of an object; of a state dict it is the versions of its modules.
                self.pop()?;
                self.top()?;
            }
            other => {
                return Err(format!(
                    "unknown pickle instruction {other:#04x}: the file is damaged, or no weights"
                ));
            }
        }
        Ok(())
    }

    fn push_global(&mut self, module: &'a str, name: &'a str) -> Result<(), String> {
        if runs_code(module, name) {
            return Err(format!(
                "the pickle asks to run {module}.{name}, which weights never need: nothing was run; do not trust \
                 this file"
            ));
        }
        self.push(Node::Global(module, name))
    }

    fn extend(&mut self, items: &[usize]) -> Result<(), String> {
        let list = self.top()?;
        if let Node::List(list) = &mut self.nodes[list] {
            list.extend_from_slice(items);
        }
        Ok(())
    }

    fn set(&mut self, items: &[usize]) -> Result<(), String> {
        let dict = self.top()?;
        if let Node::Dict(dict) = &mut self.nodes[dict] {
            dict.extend(pairs(items));
        }
        Ok(())
    }

    /// `('storage', class, key, device, count)`, as `torch.save` refers to values outside the pickle.
    fn storage(&self, id: usize) -> Result<Node<'a>, String> {
        let damaged = || "the pickle is damaged: a storage is not described as torch.save does".to_owned();
        let Node::Tuple(fields) = &self.nodes[id] else { return Err(damaged()) };
        let field = |index: usize| fields.get(index).map(|place| &self.nodes[*place]);
        let (Some(Node::Text("storage")), Some(Node::Global(_, class)), Some(Node::Text(key))) =
            (field(0), field(1), field(2))
        else {
            return Err(damaged());
        };
        if !matches!(field(5), None | Some(Node::None)) {
            return Err("a storage is a view of another, as torch 0.3 wrote: save the file again".to_owned());
        }
        let element = StorageElement::of(class)
            .ok_or_else(|| format!("values of the kind {class} (quantised or complex) are not supported"))?;
        Ok(Node::Storage { key, element })
    }

    /// What calling something with arguments gives, for the few callables that a state dict is made with. Of all
    /// others the name is kept and nothing else.
    fn reduce(&mut self, callable: usize, arguments: usize) -> Result<(), String> {
        let (module, name) = match self.nodes[callable] {
            Node::Global(module, name) | Node::Opaque(module, name) => (module, name),
            _ => return Err("the pickle is damaged: it calls what cannot be called".to_owned()),
        };
        let fields: &[usize] = match &self.nodes[arguments] {
            Node::Tuple(fields) => fields,
            _ => &[],
        };
        match (module, name) {
            ("collections", "OrderedDict") => {
                let mut items = Vec::new();
                if let Some(Node::List(listed)) = fields.first().map(|place| &self.nodes[*place]) {
                    for pair in listed {
                        if let Node::Tuple(pair) = &self.nodes[*pair] {
                            items.extend(pairs(pair));
                        }
                    }
                }
                self.push(Node::Dict(items))
            }
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => {
                let tensor = self.tensor(fields);
                let tensor =
                    tensor.ok_or_else(|| "the pickle is damaged: a tensor has no shape".to_owned())?;
                self.push(tensor)
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                match fields.first() {
                    Some(data) => {
                        self.stack.push(*data);
                        Ok(())
                    }
                    None => Err("the pickle is damaged: a parameter has no tensor".to_owned()),
                }
            }
            _ => self.push(Node::Opaque(module, name)),
        }
    }

    /// `(storage, offset, size, stride, ..)`.
    fn tensor(&self, fields: &[usize]) -> Option<Node<'a>> {
        let number = |place: usize| match self.nodes[place] {
            Node::Integer(value) => usize::try_from(value).ok(),
            _ => None,
        };
        let numbers = |place: usize| match &self.nodes[place] {
            Node::Tuple(items) => items.iter().map(|item| number(*item)).collect::<Option<Vec<usize>>>(),
            _ => None,
        };
        let [storage, offset, size, stride, ..] = fields else { return None };
        let (size, stride) = (numbers(*size)?, numbers(*stride)?);
        let is_storage = matches!(self.nodes[*storage], Node::Storage { .. });
        (is_storage && size.len() == stride.len() && size.len() <= 8).then_some(Node::Tensor {
            storage: *storage,
            offset: number(*offset)?,
            size,
            stride,
        })
    }
}

fn pairs(items: &[usize]) -> Vec<(usize, usize)> {
    items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}
