//! One tensor as it lies in a weights file: its shape, and where and how its values are written. Values are copied when
//! a network takes them and not before, so that a file costs no memory for what nothing has a use for.

use safetensors::Dtype;

/// How one value is written; little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredKind {
    F16,
    Bf16,
    F32,
    F64,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
}

impl StoredKind {
    /// The element of a safetensors file; `None` for those that no network here is stored in, such as 8-bit floats.
    pub(super) fn of_safetensors(dtype: Dtype) -> Option<StoredKind> {
        Some(match dtype {
            Dtype::F16 => StoredKind::F16,
            Dtype::BF16 => StoredKind::Bf16,
            Dtype::F32 => StoredKind::F32,
            Dtype::F64 => StoredKind::F64,
            Dtype::U8 | Dtype::BOOL => StoredKind::U8,
            Dtype::I8 => StoredKind::I8,
            Dtype::U16 => StoredKind::U16,
            Dtype::I16 => StoredKind::I16,
            Dtype::U32 => StoredKind::U32,
            Dtype::I32 => StoredKind::I32,
            Dtype::U64 => StoredKind::U64,
            Dtype::I64 => StoredKind::I64,
            _ => return None,
        })
    }

    /// Bytes of one value.
    pub(crate) fn bytes(self) -> usize {
        match self {
            StoredKind::U8 | StoredKind::I8 => 1,
            StoredKind::F16 | StoredKind::Bf16 | StoredKind::U16 | StoredKind::I16 => 2,
            StoredKind::F32 | StoredKind::U32 | StoredKind::I32 => 4,
            StoredKind::F64 | StoredKind::U64 | StoredKind::I64 => 8,
        }
    }

    /// The value at the start of `bytes`, which hold one.
    fn value(self, bytes: &[u8]) -> f32 {
        fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
            *bytes.first_chunk().expect("a stored tensor lies within its bytes")
        }
        match self {
            StoredKind::F16 => half(u16::from_le_bytes(first(bytes))),
            StoredKind::Bf16 => f32::from_bits(u32::from(u16::from_le_bytes(first(bytes))) << 16),
            StoredKind::F32 => f32::from_le_bytes(first(bytes)),
            StoredKind::F64 => f64::from_le_bytes(first(bytes)) as f32,
            StoredKind::U8 => f32::from(bytes[0]),
            StoredKind::I8 => f32::from(bytes[0] as i8),
            StoredKind::U16 => f32::from(u16::from_le_bytes(first(bytes))),
            StoredKind::I16 => f32::from(i16::from_le_bytes(first(bytes))),
            StoredKind::U32 => u32::from_le_bytes(first(bytes)) as f32,
            StoredKind::I32 => i32::from_le_bytes(first(bytes)) as f32,
            StoredKind::U64 => u64::from_le_bytes(first(bytes)) as f32,
            StoredKind::I64 => i64::from_le_bytes(first(bytes)) as f32,
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

/// A strided view of values in a file. All of it lies within the bytes that it refers to.
#[derive(Clone, Debug)]
pub(crate) struct StoredTensor<'a> {
    bytes: &'a [u8],
    element: StoredKind,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

impl<'a> StoredTensor<'a> {
    /// The view of `bytes` from value `offset` on, with a stride in values for each axis; `None` where it reaches over
    /// the end.
    pub(super) fn view(
        bytes: &'a [u8],
        element: StoredKind,
        offset: usize,
        shape: &[usize],
        stride: &[usize],
    ) -> Option<StoredTensor<'a>> {
        if !shape.contains(&0) {
            let last = shape.iter().zip(stride).try_fold(offset, |last, (side, stride)| {
                last.checked_add((side - 1).checked_mul(*stride)?)
            })?;
            if last >= bytes.len() / element.bytes() {
                return None;
            }
        }
        Some(StoredTensor { bytes, element, offset, shape: shape.to_vec(), stride: stride.to_vec() })
    }

    /// All values of `bytes`, in the order of their indices; `None` where they are fewer than the shape has.
    pub(super) fn whole(bytes: &'a [u8], element: StoredKind, shape: &[usize]) -> Option<StoredTensor<'a>> {
        let mut stride = vec![1usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            stride[axis - 1] = stride[axis].checked_mul(shape[axis])?;
        }
        StoredTensor::view(bytes, element, 0, shape, &stride)
    }

    /// Sides, from the first axis on.
    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether the values can be others than whole numbers, as weights are.
    pub(super) fn is_of_fractions(&self) -> bool {
        matches!(self.element, StoredKind::F16 | StoredKind::Bf16 | StoredKind::F32 | StoredKind::F64)
    }

    /// The values in the order of their indices.
    pub(super) fn values(&self) -> Vec<f32> {
        let StoredTensor { bytes, element, offset, ref shape, ref stride } = *self;
        if shape.contains(&0) {
            return Vec::new();
        }
        let width = element.bytes();
        let count = shape.iter().product();
        let mut step = 1;
        let is_contiguous = shape.iter().zip(stride).rev().all(|(side, stride)| {
            let fits = *side == 1 || *stride == step;
            step *= side;
            fits
        });
        if is_contiguous {
            let values = bytes[offset * width..].chunks_exact(width).take(count);
            return match element {
                StoredKind::F32 => values.map(|value| StoredKind::F32.value(value)).collect(),
                _ => values.map(|value| element.value(value)).collect(),
            };
        }
        let mut values = Vec::with_capacity(count);
        let mut index = vec![0; shape.len()];
        let mut place = offset;
        for _ in 0..count {
            values.push(element.value(&bytes[place * width..]));
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                // The place is within the bytes again after the axis is rewound; an axis of one may have any stride.
                place = place.wrapping_add(stride[axis]);
                if index[axis] < shape[axis] {
                    break;
                }
                place = place.wrapping_sub(stride[axis].wrapping_mul(shape[axis]));
                index[axis] = 0;
            }
        }
        values
    }
}

/// What a file holds under one name.
#[derive(Clone, Debug)]
pub(crate) enum Stored<'a> {
    /// A tensor whose values can be read.
    Tensor(StoredTensor<'a>),
    /// Something else, in words: `a sparse tensor`.
    Unreadable(&'static str),
}

impl Stored<'_> {
    /// The shape; without sides where it is no tensor that can be read.
    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Stored::Tensor(tensor) => tensor.shape(),
            Stored::Unreadable(_) => &[],
        }
    }
}
