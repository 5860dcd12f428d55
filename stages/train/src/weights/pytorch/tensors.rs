//! The values of tensors: how they are written, and how a view of them is read.

/// How the values of a storage are written; little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StorageElement {
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

impl StorageElement {
    pub(super) fn of(class: &str) -> Option<StorageElement> {
        Some(match class {
            "HalfStorage" => StorageElement::F16,
            "BFloat16Storage" => StorageElement::Bf16,
            "FloatStorage" => StorageElement::F32,
            "DoubleStorage" => StorageElement::F64,
            "ByteStorage" | "BoolStorage" => StorageElement::U8,
            "CharStorage" => StorageElement::I8,
            "ShortStorage" => StorageElement::I16,
            "IntStorage" => StorageElement::I32,
            "LongStorage" => StorageElement::I64,
            _ => return None,
        })
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            StorageElement::U8 | StorageElement::I8 => 1,
            StorageElement::F16 | StorageElement::Bf16 | StorageElement::I16 => 2,
            StorageElement::F32 | StorageElement::I32 => 4,
            StorageElement::F64 | StorageElement::I64 => 8,
        }
    }

    /// The value at the start of `bytes`, which hold one.
    fn value(self, bytes: &[u8]) -> f32 {
        fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
            *bytes.first_chunk().expect("the caller checked the length of the storage")
        }
        match self {
            StorageElement::F16 => half(u16::from_le_bytes(first(bytes))),
            StorageElement::Bf16 => f32::from_bits(u32::from(u16::from_le_bytes(first(bytes))) << 16),
            StorageElement::F32 => f32::from_le_bytes(first(bytes)),
            StorageElement::F64 => f64::from_le_bytes(first(bytes)) as f32,
            StorageElement::U8 => f32::from(bytes[0]),
            StorageElement::I8 => f32::from(bytes[0] as i8),
            StorageElement::I16 => f32::from(i16::from_le_bytes(first(bytes))),
            StorageElement::I32 => i32::from_le_bytes(first(bytes)) as f32,
            StorageElement::I64 => i64::from_le_bytes(first(bytes)) as f32,
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

/// The values of a strided view, in the order of its indices; `None` where it reaches over the end.
pub(super) fn gather(
    bytes: &[u8],
    element: StorageElement,
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
