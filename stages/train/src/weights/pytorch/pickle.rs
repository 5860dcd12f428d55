//! The stack machine that a pickle is a program for, without the instructions that would do anything.

mod rebuild;

use std::collections::BTreeMap;

use super::tensors::StorageElement;

/// An object of a pickle. Others are referred to by their place among the objects of its [`Machine`]. What is large or
/// rare is behind a pointer, so that the many small ones are small.
#[derive(Debug)]
pub(super) enum Node<'a> {
    None,
    Integer(i64),
    Text(&'a str),
    /// A class or function by module and name; it stays a name.
    Global(Box<Class<'a>>),
    Tuple(Box<[u32]>),
    List(Vec<u32>),
    Dict(Vec<(u32, u32)>),
    Storage {
        key: &'a str,
        element: StorageElement,
    },
    Tensor(Box<TensorView>),
    /// What stands for a tensor and cannot be read as one, in words.
    Unreadable(&'static str),
    /// An object that is of no use here: numbers of an optimiser, arguments of a program, or a whole network.
    Opaque(Box<Class<'a>>),
}

/// Module and name of a class or function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class<'a>(pub(super) &'a str, pub(super) &'a str);

impl std::fmt::Display for Class<'_> {
    /// `module.name`, as a line of an error has room for it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", shortened(self.0), shortened(self.1))
    }
}

/// The beginning of a text of a file, without what would move a terminal's cursor.
pub(super) fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    let end = text.char_indices().nth(CHARACTERS_MAX).map_or(text.len(), |(end, _)| end);
    let more = if end < text.len() { "…" } else { "" };
    format!("{}{more}", text[..end].escape_debug())
}

/// A tensor: the place of its storage, and a strided view of that, in values.
#[derive(Debug)]
pub(super) struct TensorView {
    pub(super) storage: u32,
    pub(super) offset: usize,
    pub(super) size: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

/// Axes of a tensor.
const AXES_MAX: usize = 8;

/// Bytes of an object and of its place on the stack.
const NODE_BYTES: usize = size_of::<Node<'_>>() + size_of::<u32>();

/// Bytes that something with values of its own takes beside them: what the allocator adds and rounds up.
const HEAP_BYTES: usize = 32;

/// Bytes of an entry of the memo, in the half-filled nodes of its tree.
const MEMO_BYTES: usize = 24;

/// The stack machine that a pickle is written for, without the instructions that would do anything.
pub(super) struct Machine<'a> {
    nodes: Vec<Node<'a>>,
    stack: Vec<u32>,
    marks: Vec<u32>,
    memo: BTreeMap<u32, u32>,
    /// Bytes that may still be taken.
    left: usize,
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
    /// Reads one pickle, whose objects may take so many bytes: its objects, which of them it is about, and where it ends.
    ///
    /// # Errors
    /// With one sentence when it is cut short or damaged, asks to run code, or takes more.
    pub(super) fn run(bytes: &'a [u8], bytes_max: usize) -> Result<(Machine<'a>, u32, usize), String> {
        let mut machine = Machine {
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
            left: bytes_max,
        };
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

    /// The object at a place that another one, or [`Machine::run`], has given.
    pub(super) fn node(&self, place: u32) -> &Node<'a> {
        &self.nodes[place as usize]
    }

    /// All objects.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node<'a>> {
        self.nodes.iter()
    }

    /// Takes bytes from what is left, before they are allocated.
    fn charge(&mut self, bytes: usize) -> Result<(), String> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            "the pickle holds more objects than any network has, which is no list of tensors".to_owned()
        })?;
        Ok(())
    }

    /// Takes the bytes of a list of so many places.
    fn charge_items(&mut self, items: usize) -> Result<(), String> {
        self.charge(HEAP_BYTES + items * size_of::<u32>())
    }

    fn push(&mut self, node: Node<'a>) -> Result<(), String> {
        self.charge(NODE_BYTES)?;
        self.nodes.push(node);
        self.stack.push(u32::try_from(self.nodes.len() - 1).expect("objects are fewer than bytes left"));
        Ok(())
    }

    fn push_opaque(&mut self, module: &'a str, name: &'a str) -> Result<(), String> {
        self.charge(HEAP_BYTES + size_of::<Class<'_>>())?;
        self.push(Node::Opaque(Box::new(Class(module, name))))
    }

    fn push_tuple(&mut self, items: Vec<u32>) -> Result<(), String> {
        self.charge_items(items.len())?;
        self.push(Node::Tuple(items.into()))
    }

    /// Puts an object that is there on the stack again.
    fn push_again(&mut self, place: u32) -> Result<(), String> {
        self.charge(size_of::<u32>())?;
        self.stack.push(place);
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let top = self.top()?;
        self.charge(MEMO_BYTES)?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn pop(&mut self) -> Result<u32, String> {
        let floor = self.marks.last().map_or(0, |mark| *mark as usize);
        match self.stack.len() > floor {
            true => Ok(self.stack.pop().expect("the stack is longer than its floor")),
            false => Err("the pickle is damaged: it takes more than it put".to_owned()),
        }
    }

    fn top(&self) -> Result<u32, String> {
        self.stack
            .last()
            .copied()
            .ok_or_else(|| "the pickle is damaged: it uses what it did not put".to_owned())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<u32>, String> {
        let mark = self.marks.pop().ok_or_else(|| "the pickle is damaged: a mark is missing".to_owned())?;
        Ok(self.stack.split_off((mark as usize).min(self.stack.len())))
    }

    fn pop_text(&mut self) -> Result<&'a str, String> {
        let place = self.pop()?;
        match self.node(place) {
            Node::Text(text) => Ok(text),
            _ => Err("the pickle is damaged: a name is no text".to_owned()),
        }
    }

    fn step(&mut self, instruction: u8, cursor: &mut Cursor<'a>) -> Result<(), String> {
        match instruction {
            0x80 => drop(cursor.take(1)?),
            // Frames only say how much to read at once.
            0x95 => drop(cursor.take(8)?),
            b'(' => {
                self.charge(size_of::<u32>())?;
                self.marks.push(self.stack.len() as u32);
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => self.push_again(self.top()?)?,
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
                match length {
                    0..=8 => {
                        let mut wide = [if negative { 255 } else { 0 }; 8];
                        wide[..length].copy_from_slice(bytes);
                        self.push(Node::Integer(i64::from_le_bytes(wide)))?;
                    }
                    _ => self.push_opaque("builtins", "int")?,
                }
            }
            b'G' => {
                cursor.take(8)?;
                self.push_opaque("builtins", "float")?;
            }
            b'X' | b'T' | 0x8c | b'U' | 0x8d => {
                let length = cursor.number(match instruction {
                    0x8c | b'U' => 1,
                    0x8d => 8,
                    _ => 4,
                })?;
                // Python 2 wrote bytes as texts; those that are none are of no use here.
                match std::str::from_utf8(cursor.take(length)?) {
                    Ok(text) => self.push(Node::Text(text))?,
                    Err(_) => self.push_opaque("builtins", "bytes")?,
                }
            }
            b'B' | b'C' | 0x8e => {
                let length = cursor.number(match instruction {
                    b'C' => 1,
                    0x8e => 8,
                    _ => 4,
                })?;
                cursor.take(length)?;
                self.push_opaque("builtins", "bytes")?;
            }
            b')' => self.push(Node::Tuple(Box::default()))?,
            b']' => self.push(Node::List(Vec::new()))?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            0x8f => self.push_opaque("builtins", "set")?,
            0x85..=0x87 => {
                let mut items = Vec::with_capacity(3);
                for _ in 0x84..instruction {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push_tuple(items)?;
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_tuple(items)?;
            }
            b'l' => {
                let items = self.pop_to_mark()?;
                self.charge_items(items.len())?;
                self.push(Node::List(items))?;
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.charge_items(items.len())?;
                self.push(Node::Dict(pairs(&items)))?;
            }
            0x91 => {
                self.pop_to_mark()?;
                self.push_opaque("builtins", "frozenset")?;
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
                self.remember(key as u32)?;
            }
            0x94 => {
                self.remember(self.memo.len() as u32)?;
            }
            b'h' | b'j' => {
                let key = cursor.number(if instruction == b'h' { 1 } else { 4 })?;
                let place = self.memo.get(&(key as u32)).copied();
                let place =
                    place.ok_or_else(|| "the pickle is damaged: it recalls what it never kept".to_owned())?;
                self.push_again(place)?;
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
                "the pickle asks to run {}, which weights never need: nothing was run; do not trust this file",
                Class(module, name)
            ));
        }
        self.charge(HEAP_BYTES + size_of::<Class<'_>>())?;
        self.push(Node::Global(Box::new(Class(module, name))))
    }

    fn extend(&mut self, items: &[u32]) -> Result<(), String> {
        let list = self.top()?;
        self.charge_items(items.len())?;
        if let Node::List(list) = &mut self.nodes[list as usize] {
            list.extend_from_slice(items);
        }
        Ok(())
    }

    fn set(&mut self, items: &[u32]) -> Result<(), String> {
        let dict = self.top()?;
        self.charge_items(items.len())?;
        if let Node::Dict(dict) = &mut self.nodes[dict as usize] {
            dict.extend(pairs(items));
        }
        Ok(())
    }
}

fn pairs(items: &[u32]) -> Vec<(u32, u32)> {
    items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}
