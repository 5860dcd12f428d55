//! PyTorch's `.pth` and `.bin` files as data: a pickle is a program, and nothing of it is run here.
//!
//! Both forms are read: the zip archive that `torch.save` writes since 1.6, and the stream of pickles before it.
//! The reader works on the bytes of the file and borrows from them. It keeps objects in one list and refers to
//! them by number, so that nesting costs no stack and sharing costs no copy; what a file can make it allocate is
//! bounded by the size of the file.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

/// Objects of one pickle. A checkpoint of a large network with its optimiser has some ten thousand.
const OBJECTS_MAX: usize = 1 << 22;
/// Bytes of one pickle in an archive, which holds names and shapes and no values.
const PICKLE_BYTES_MAX: usize = 64 << 20;
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
/// What the pickle of a legacy file starts with, after its two bytes of protocol: the number
/// `0x1950a86a20f9469cfc6c`, then stop.
const LEGACY_MAGIC: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// True for a zip archive.
pub(super) fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

/// True for what `torch.save` wrote before 1.6.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.len() > 2 && bytes[0] == 0x80 && bytes[2..].starts_with(LEGACY_MAGIC)
}

/// The tensors of a state dict by name, as f32 on the CPU, and the key it was found under, if any.
///
/// # Errors
/// With one sentence when the file is cut short, damaged, asks to run code, or holds no state dict.
pub(super) fn read(bytes: &[u8]) -> Result<(BTreeMap<String, Tensor>, Option<String>), String> {
    if is_legacy(bytes) { read_legacy(bytes) } else { read_archive(bytes) }
}

fn read_archive(bytes: &[u8]) -> Result<(BTreeMap<String, Tensor>, Option<String>), String> {
    let entries = zip_entries(bytes)?;
    let mut pickles = entries.keys().filter(|name| **name == "data.pkl" || name.ends_with("/data.pkl"));
    let (Some(pickle), None) = (pickles.next(), pickles.next()) else {
        return Err("a zip archive, but not one of torch.save, which holds one data.pkl".to_owned());
    };
    let folder = &pickle[..pickle.len() - "data.pkl".len()];
    let entry = |name: &str| entries.get(format!("{folder}{name}").as_str()).copied();
    if entry("constants.pkl").is_some() {
        return Err(
            "a TorchScript archive, which holds a program; save the state_dict() of the network instead"
                .to_owned(),
        );
    }
    if entry("byteorder").is_some_and(|order| order != b"little") {
        return Err("written on a big-endian machine, which is not supported".to_owned());
    }
    let data = entries[pickle];
    if data.len() > PICKLE_BYTES_MAX {
        return Err(format!("its pickle has {} bytes, which is no list of tensors", data.len()));
    }
    let (machine, root, _) = Machine::run(data)?;
    let storages = |key: &str| {
        entry(&format!("data/{key}")).ok_or_else(|| format!("the archive lacks the values data/{key}"))
    };
    machine.state_dict(root, bytes.len(), storages)
}

fn read_legacy(bytes: &[u8]) -> Result<(BTreeMap<String, Tensor>, Option<String>), String> {
    let legacy = |reason: String| format!("a legacy PyTorch file (before 1.6): {reason}");
    // Magic number, protocol version and a description of the machine come first.
    let mut rest = bytes;
    for _ in 0..3 {
        let (.., end) = Machine::run(rest).map_err(legacy)?;
        rest = &rest[end..];
    }
    let (machine, root, end) = Machine::run(rest).map_err(legacy)?;
    rest = &rest[end..];
    let (keys, list, end) = Machine::run(rest).map_err(legacy)?;
    rest = &rest[end..];
    let Node::List(list) = &keys.nodes[list] else {
        return Err(legacy("it lists no storages".to_owned()));
    };
    let widths: BTreeMap<&str, usize> = machine
        .nodes
        .iter()
        .filter_map(|node| match node {
            Node::Storage { key, element } => Some((*key, element.bytes())),
            _ => None,
        })
        .collect();
    let mut storages: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for key in list {
        let Node::Text(key) = &keys.nodes[*key] else {
            return Err(legacy("the name of a storage is no text".to_owned()));
        };
        let cut = || legacy(format!("cut short in the values of storage {key}"));
        let (count, values) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let width = widths.get(key).ok_or_else(|| legacy(format!("no tensor has the storage {key}")))?;
        let length = usize::try_from(i64::from_le_bytes(*count)).ok().and_then(|n| n.checked_mul(*width));
        let (values, after) = length.and_then(|length| values.split_at_checked(length)).ok_or_else(cut)?;
        storages.insert(key, values);
        rest = after;
    }
    machine.state_dict(root, bytes.len(), |key| {
        storages.get(key).copied().ok_or_else(|| legacy(format!("it lacks the storage {key}")))
    })
}

/// The files of an archive by name, in whose bytes they lie as they are: `torch.save` compresses nothing.
fn zip_entries(bytes: &[u8]) -> Result<BTreeMap<&str, &[u8]>, String> {
    let cut = || "a zip archive that is cut short or damaged: download it again".to_owned();
    let number = |at: usize, width: usize| -> Result<usize, String> {
        let field = at.checked_add(width).and_then(|end| bytes.get(at..end)).ok_or_else(cut)?;
        let value = field.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).map_err(|_| cut())
    };
    let has =
        |at: usize, signature: &[u8; 4]| bytes.get(at..).is_some_and(|rest| rest.starts_with(signature));
    // The record at the end may be followed by a comment of at most 64 KiB.
    let last = bytes.len().checked_sub(22).ok_or_else(cut)?;
    let end =
        (last.saturating_sub(65_535)..=last).rev().find(|&at| has(at, b"PK\x05\x06")).ok_or_else(cut)?;
    let (mut count, mut directory) = (number(end + 10, 2)?, number(end + 16, 4)?);
    if let Some(locator) = end.checked_sub(20).filter(|&at| has(at, b"PK\x06\x07")) {
        let record = number(locator + 8, 8)?;
        if !has(record, b"PK\x06\x06") {
            return Err(cut());
        }
        (count, directory) = (number(record + 32, 8)?, number(record + 48, 8)?);
    }
    let mut entries = BTreeMap::new();
    let mut at = directory;
    for _ in 0..count {
        if !has(at, b"PK\x01\x02") {
            return Err(cut());
        }
        let method = number(at + 10, 2)?;
        let (mut packed, mut size, mut header) =
            (number(at + 20, 4)?, number(at + 24, 4)?, number(at + 42, 4)?);
        let (name_length, extra_length) = (number(at + 28, 2)?, number(at + 30, 2)?);
        let name = bytes.get(at + 46..at + 46 + name_length).ok_or_else(cut)?;
        let name = std::str::from_utf8(name).map_err(|_| cut())?;
        // Sizes and places beyond 32 bits stand in an extra field, those that need it, in this order.
        let mut extra = at + 46 + name_length;
        let extra_end = extra + extra_length;
        while extra + 4 <= extra_end {
            let (id, length) = (number(extra, 2)?, number(extra + 2, 2)?);
            if id == 1 {
                let mut field = extra + 4;
                for value in [&mut size, &mut packed, &mut header] {
                    if *value == 0xffff_ffff {
                        *value = number(field, 8)?;
                        field += 8;
                    }
                }
            }
            extra += 4 + length;
        }
        if method != 0 || packed != size {
            return Err(format!("{name} is compressed in the archive, which torch.save does not do"));
        }
        if !has(header, b"PK\x03\x04") {
            return Err(cut());
        }
        let start = header + 30 + number(header + 26, 2)? + number(header + 28, 2)?;
        let data = start.checked_add(size).and_then(|end| bytes.get(start..end)).ok_or_else(cut)?;
        if entries.insert(name, data).is_some() {
            return Err(format!("the archive holds {name} twice"));
        }
        at = extra_end + number(at + 32, 2)?;
    }
    Ok(entries)
}

/// How the values of a storage are written; little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    F16,
    Bf16,
    F32,
    F64,
    U8,
    I8,
    I16,
    I32,
    I64,
}

impl Element {
    fn of(class: &str) -> Option<Element> {
        Some(match class {
            "HalfStorage" => Element::F16,
            "BFloat16Storage" => Element::Bf16,
            "FloatStorage" => Element::F32,
            "DoubleStorage" => Element::F64,
            "ByteStorage" | "BoolStorage" => Element::U8,
            "CharStorage" => Element::I8,
            "ShortStorage" => Element::I16,
            "IntStorage" => Element::I32,
            "LongStorage" => Element::I64,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Element::U8 | Element::I8 => 1,
            Element::F16 | Element::Bf16 | Element::I16 => 2,
            Element::F32 | Element::I32 => 4,
            Element::F64 | Element::I64 => 8,
        }
    }

    /// The value at the start of `bytes`, which hold one.
    fn value(self, bytes: &[u8]) -> f32 {
        fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
            *bytes.first_chunk().expect("the caller checked the length of the storage")
        }
        match self {
            Element::F16 => half(u16::from_le_bytes(first(bytes))),
            Element::Bf16 => f32::from_bits(u32::from(u16::from_le_bytes(first(bytes))) << 16),
            Element::F32 => f32::from_le_bytes(first(bytes)),
            Element::F64 => f64::from_le_bytes(first(bytes)) as f32,
            Element::U8 => f32::from(bytes[0]),
            Element::I8 => f32::from(bytes[0] as i8),
            Element::I16 => f32::from(i16::from_le_bytes(first(bytes))),
            Element::I32 => i32::from_le_bytes(first(bytes)) as f32,
            Element::I64 => i64::from_le_bytes(first(bytes)) as f32,
        }
    }
}

/// IEEE 754 half precision: 1 sign, 5 exponent and 10 fraction bits.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1024.0 + fraction) * 2f32.powi(exponent - 25),
    }
}

/// An object of a pickle. Others are referred to by their place in [`Machine::nodes`].
#[derive(Debug)]
enum Node<'a> {
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
        element: Element,
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
struct Machine<'a> {
    nodes: Vec<Node<'a>>,
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
    fn run(bytes: &'a [u8]) -> Result<(Machine<'a>, usize, usize), String> {
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
        let element = Element::of(class)
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

    fn holds_tensors(&self, place: usize) -> bool {
        let Node::Dict(items) = &self.nodes[place] else { return false };
        items.iter().any(|(_, value)| matches!(self.nodes[*value], Node::Tensor { .. }))
    }

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
    fn state_dict<'b>(
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

fn pairs(items: &[usize]) -> Vec<(usize, usize)> {
    items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

/// The values of a strided view, in the order of its indices; `None` where it reaches over the end.
fn gather(
    bytes: &[u8],
    element: Element,
    offset: usize,
    size: &[usize],
    stride: &[usize],
) -> Option<Vec<f32>> {
    if size.contains(&0) {
        return Some(Vec::new());
    }
    let width = element.bytes();
    let last = size
        .iter()
        .zip(stride)
        .try_fold(offset, |last, (size, stride)| last.checked_add((size - 1).checked_mul(*stride)?))?;
    if last >= bytes.len() / width {
        return None;
    }
    let count = size.iter().product();
    let mut step = 1;
    let is_contiguous = size.iter().zip(stride).rev().all(|(size, stride)| {
        let fits = *size == 1 || *stride == step;
        step *= size;
        fits
    });
    if is_contiguous {
        let values = bytes[offset * width..].chunks_exact(width).take(count);
        return Some(values.map(|value| element.value(value)).collect());
    }
    let mut values = Vec::with_capacity(count);
    let mut index = vec![0; size.len()];
    let mut place = offset;
    for _ in 0..count {
        values.push(element.value(&bytes[place * width..]));
        for axis in (0..size.len()).rev() {
            index[axis] += 1;
            // The place is within the storage again after the axis is rewound; an axis of one may have any stride.
            place = place.wrapping_add(stride[axis]);
            if index[axis] < size[axis] {
                break;
            }
            place = place.wrapping_sub(stride[axis].wrapping_mul(size[axis]));
            index[axis] = 0;
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEWS: &[u8] = include_bytes!("testdata/views.pth");
    const LEGACY: &[u8] = include_bytes!("testdata/views-legacy.pth");
    const CHECKPOINT: &[u8] = include_bytes!("testdata/checkpoint.pth");
    const MODULE: &[u8] = include_bytes!("testdata/module.pth");

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f32 on the CPU")
    }

    /// An archive with these files, as `torch.save` lays them out.
    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let (mut bytes, mut directory) = (Vec::new(), Vec::new());
        for (name, data) in files {
            let at = bytes.len() as u32;
            let mut shared = [0u8; 26];
            for place in [14, 18] {
                shared[place..place + 4].copy_from_slice(&(data.len() as u32).to_le_bytes());
            }
            shared[22..24].copy_from_slice(&(name.len() as u16).to_le_bytes());
            bytes.extend_from_slice(b"PK\x03\x04");
            bytes.extend_from_slice(&shared);
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(data);
            directory.extend_from_slice(b"PK\x01\x02\0\0");
            directory.extend_from_slice(&shared);
            directory.extend_from_slice(&[0; 10]);
            directory.extend_from_slice(&at.to_le_bytes());
            directory.extend_from_slice(name.as_bytes());
        }
        let at = bytes.len() as u32;
        let n = (files.len() as u16).to_le_bytes();
        bytes.extend_from_slice(&directory);
        bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        bytes.extend_from_slice(&[n[0], n[1], n[0], n[1]]);
        bytes.extend_from_slice(&(directory.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&at.to_le_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes
    }

    fn refusal(pickle: &[u8]) -> String {
        read(&archive(&[("a/data.pkl", pickle), ("a/data/0", &[0; 16])])).expect_err("it is refused")
    }

    #[test]
    fn views_of_every_kind_come_out_as_pytorch_sees_them() {
        for bytes in [VIEWS, LEGACY] {
            let (tensors, under) = read(bytes).expect("torch.save wrote it");
            assert_eq!(under, None);
            let check = |name: &str, shape: &[usize], expected: &[f32]| {
                assert_eq!(tensors[name].dims(), shape, "{name}");
                assert_eq!(values(&tensors[name]), expected, "{name}");
            };
            let counting: Vec<f32> = (0..24).map(|n| n as f32).collect();
            check("plain.weight", &[2, 3, 4], &counting);
            let transposed: Vec<f32> = (0..6).flat_map(|c| (0..4).map(move |r| (r * 6 + c) as f32)).collect();
            check("transposed.weight", &[6, 4], &transposed);
            let permuted: Vec<f32> = (0..4)
                .flat_map(|k| (0..2).flat_map(move |i| (0..3).map(move |j| (i * 12 + j * 4 + k) as f32)))
                .collect();
            check("permuted.weight", &[4, 2, 3], &permuted);
            check("shared.a", &[2, 3], &[2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
            check("shared.b", &[6], &[4.0, 7.0, 10.0, 13.0, 16.0, 19.0]);
            check("expanded.weight", &[2, 3], &[5.0, 5.0, 5.0, 6.0, 6.0, 6.0]);
            // 6e-8 is the smallest half-precision number that is not 0: 2 to the power of -24.
            check("half.weight", &[5], &[0.5, -2.0, 65504.0, 2f32.powi(-24), f32::INFINITY]);
            let large = f32::from_bits(3e38f32.to_bits() & 0xffff_0000);
            assert_eq!(values(&tensors["bfloat.weight"])[..2], [0.5, -2.0]);
            assert!((values(&tensors["bfloat.weight"])[2] / large - 1.0).abs() < 0.01);
            check("double.weight", &[2], &[0.1, 1e-3]);
            check("parameter.weight", &[2], &[1.0, 2.0]);
            check("scalar.weight", &[], &[3.5]);
            check("bn.num_batches_tracked", &[], &[7.0]);
            assert_eq!(tensors["empty.weight"].dims(), [0, 4]);
            assert_eq!(tensors.len(), 13);
        }
    }

    #[test]
    fn the_state_dict_of_a_checkpoint_is_found() {
        let (tensors, under) = read(CHECKPOINT).expect("torch.save wrote it");
        assert_eq!(under.as_deref(), Some("state_dict"));
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["bias", "weight"]);
        assert_eq!(values(&tensors["weight"]), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn a_whole_network_is_refused_by_its_class() {
        let line = read(MODULE).expect_err("no state dict");
        assert!(line.contains("torch.nn.modules.linear.Linear") && line.contains("state_dict()"), "{line}");
    }

    #[test]
    fn a_pickle_runs_no_code() {
        let marker = std::env::temp_dir().join(format!("forebay-pickle-{}", std::process::id()));
        let command = format!("touch {}", marker.display());
        let mut pickle = b"\x80\x02cposix\nsystem\nX".to_vec();
        pickle.extend_from_slice(&(command.len() as u32).to_le_bytes());
        pickle.extend_from_slice(command.as_bytes());
        pickle.extend_from_slice(b"\x85R.");
        let line = refusal(&pickle);
        assert!(line.contains("posix.system") && line.contains("nothing was run"), "{line}");
        assert!(!marker.exists());
        for (module, name) in
            [("builtins", "eval"), ("os", "system"), ("subprocess", "Popen"), ("runpy", "_run_code")]
        {
            let line = refusal(format!("\u{0}c{module}\n{name}\n.").replace('\u{0}', "").as_bytes());
            assert!(line.contains(&format!("asks to run {module}.{name}")), "{line}");
        }
        // An unknown class is a name, not a call.
        assert!(refusal(b"cmy.project\nConfig\n)R.").contains("my.project.Config"));
    }

    #[test]
    fn hostile_sizes_and_nesting_cost_nothing() {
        // A tensor of four values that says it has 2^62.
        let tensor = |size: &[u8], stride: &[u8]| {
            let mut pickle = b"}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQK\0".to_vec();
            pickle.extend_from_slice(size);
            pickle.extend_from_slice(stride);
            pickle.extend_from_slice(b"\x89}tRs.");
            pickle
        };
        let huge = b"\x8a\x08\0\0\0\0\0\0\0\x40\x85";
        for stride in [b"K\0\x85".as_slice(), b"K\x01\x85", huge] {
            assert!(refusal(&tensor(huge, stride)).contains("more than a file of"));
        }
        assert!(refusal(&tensor(b"K\x05\x85", b"K\x01\x85")).contains("cut short"));
        assert!(refusal(&tensor(b"K\x02\x85", huge)).contains("cut short"));
        // An axis of one may have any stride.
        let (tensors, _) =
            read(&archive(&[("a/data.pkl", &tensor(b"K\x01\x85", huge)), ("a/data/0", &[0; 16])]))
                .expect("one value");
        assert_eq!(tensors["w"].dims(), [1]);
        // A million tuples in each other would overflow a stack that follows them.
        let mut deep = vec![b')'];
        deep.extend(std::iter::repeat_n(0x85, 1_000_000));
        deep.push(b'.');
        assert!(refusal(&deep).contains("a list"));
        // Lists that hold the one before twice would double with each copy.
        let doubling: Vec<u8> = std::iter::once(b')').chain([b'2', 0x86].repeat(100)).chain([b'.']).collect();
        assert!(refusal(&doubling).contains("a list"));
        assert!(refusal(&vec![b'N'; OBJECTS_MAX + 1]).contains("objects"));
        assert!(refusal(b"X\xff\xff\xff\xff").contains("cut short"));
    }

    #[test]
    fn names_in_an_archive_are_no_paths() {
        let line = read(&archive(&[("../../etc/passwd", b"x")])).expect_err("no weights");
        assert!(line.contains("not one of torch.save"), "{line}");
        let line = read(&archive(&[("a/data.pkl", b"."), ("b/data.pkl", b".")])).expect_err("two");
        assert!(line.contains("one data.pkl"), "{line}");
        let line = read(&archive(&[("a/data.pkl", b"."), ("a/constants.pkl", b"")])).expect_err("a program");
        assert!(line.contains("TorchScript"), "{line}");
        let mut packed = archive(&[("a/data.pkl", b".")]);
        let directory = packed.windows(4).position(|window| window == b"PK\x01\x02").expect("a directory");
        packed[directory + 10] = 8;
        assert!(read(&packed).expect_err("compressed").contains("compressed"));
    }

    #[test]
    fn no_damage_is_a_panic() {
        for whole in [VIEWS, LEGACY, CHECKPOINT, MODULE] {
            for length in (0..whole.len()).step_by(7) {
                // What is cut short is always refused; a legacy file in its last values too.
                assert!(read(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
            }
            for place in 0..whole.len() {
                for flip in [0x01, 0x80, 0xff] {
                    let mut damaged = whole.to_vec();
                    damaged[place] ^= flip;
                    // It may be read, where the damage is in a value or in what is not looked at.
                    let _ = read(&damaged);
                }
            }
        }
    }
}
