//! The kinds of storages that PyTorch knows, by the names of their classes.

use super::super::stored::StoredKind;

/// How the values of a storage are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StorageElement {
    /// Numbers that are read.
    Plain(StoredKind),
    /// Numbers that are not, in words, and the bytes of one.
    Other(&'static str, usize),
}

impl StorageElement {
    /// The element of a storage of this class. Of a class that is not known only the bytes are.
    pub(super) fn of(class: &str) -> StorageElement {
        use StorageElement::{Other, Plain};
        match class {
            "HalfStorage" => Plain(StoredKind::F16),
            "BFloat16Storage" => Plain(StoredKind::Bf16),
            "FloatStorage" => Plain(StoredKind::F32),
            "DoubleStorage" => Plain(StoredKind::F64),
            "ByteStorage" | "BoolStorage" => Plain(StoredKind::U8),
            "CharStorage" => Plain(StoredKind::I8),
            "ShortStorage" => Plain(StoredKind::I16),
            "IntStorage" => Plain(StoredKind::I32),
            "LongStorage" => Plain(StoredKind::I64),
            "ComplexFloatStorage" => Other("a tensor of complex numbers", 8),
            "ComplexDoubleStorage" => Other("a tensor of complex numbers", 16),
            "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => {
                Other("a quantised tensor", 1)
            }
            "QInt32Storage" => Other("a quantised tensor", 4),
            _ => Other("a tensor of an element type that is not known", 1),
        }
    }

    /// Bytes of one value.
    pub(super) fn bytes(self) -> usize {
        match self {
            StorageElement::Plain(element) => element.bytes(),
            StorageElement::Other(_, bytes) => bytes,
        }
    }
}
