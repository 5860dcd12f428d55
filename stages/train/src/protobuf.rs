//! Protocol buffers, written by hand: a field is a key, which tells its number and its form, and a value.
//!
//! The numbers of fields are those of the `.proto` files of the programs that read them, so that none is needed to
//! build this one.

/// The fields of a message, in the order in which they are added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message without fields.
    pub fn new() -> Message {
        Message::default()
    }

    /// A message without fields that has room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Message {
        Message { bytes: Vec::with_capacity(bytes) }
    }

    /// The message as it stands in a file.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Adds a whole number, or a word of an enumeration.
    pub fn integer(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.bytes.extend(varint(value));
    }

    /// Adds a number in double precision.
    pub fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.bytes.extend(value.to_le_bytes());
    }

    /// Adds a number in single precision.
    pub fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.bytes.extend(value.to_le_bytes());
    }

    /// Adds bytes, or a text.
    pub fn bytes(&mut self, field: u64, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.key(field, 2);
        self.bytes.extend(varint(value.len() as u64));
        self.bytes.extend(value);
    }

    /// Adds the message whose fields `fill` adds, and returns what it returns. The fields are written where they
    /// belong, so that a large message takes no memory twice.
    pub fn message<T>(&mut self, field: u64, fill: impl FnOnce(&mut Message) -> T) -> T {
        self.key(field, 2);
        let start = self.bytes.len();
        let filled = fill(self);
        let length = varint((self.bytes.len() - start) as u64);
        self.bytes.splice(start..start, length);
        filled
    }

    fn key(&mut self, field: u64, form: u64) {
        self.bytes.extend(varint(field << 3 | form));
    }
}

/// A number in groups of seven bits, the lowest first.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A value of a field, as far as its form tells.
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) enum Field {
        Integer(u64),
        Double(f64),
        Bytes(Vec<u8>),
        Float(f32),
    }

    impl Field {
        pub(crate) fn bytes(&self) -> &[u8] {
            match self {
                Field::Bytes(bytes) => bytes,
                other => panic!("{other:?} is not bytes"),
            }
        }

        pub(crate) fn text(&self) -> &str {
            std::str::from_utf8(self.bytes()).expect("a text")
        }

        pub(crate) fn integer(&self) -> u64 {
            match self {
                Field::Integer(value) => *value,
                other => panic!("{other:?} is not a whole number"),
            }
        }
    }

    /// The fields of a message by their numbers.
    pub(crate) fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
        fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
            let (taken, rest) = bytes.split_at(count);
            *bytes = rest;
            taken
        }
        fn number(bytes: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = take(bytes, 1)[0];
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = number(&mut bytes);
            let field = match key & 7 {
                0 => Field::Integer(number(&mut bytes)),
                1 => Field::Double(f64::from_le_bytes(take(&mut bytes, 8).try_into().expect("eight bytes"))),
                2 => {
                    let length = number(&mut bytes) as usize;
                    Field::Bytes(take(&mut bytes, length).to_vec())
                }
                5 => Field::Float(f32::from_le_bytes(take(&mut bytes, 4).try_into().expect("four bytes"))),
                form => panic!("no field has the form {form}"),
            };
            found.push((key >> 3, field));
        }
        found
    }

    #[test]
    fn fields_are_laid_out_as_protoc_does() {
        let mut message = Message::new();
        message.integer(1, 150);
        message.double(2, -0.5);
        message.bytes(16, "testing");
        message.message(3, |inner| {
            inner.float(5, 1.5);
            inner.message(1, |_| ());
            inner.bytes(2, [7; 300]);
        });
        let bytes = message.into_bytes();
        // The first number is the example of protobuf's own description of the format.
        assert_eq!(bytes[..3], [0x08, 0x96, 0x01]);
        assert_eq!(bytes[12..22], *b"\x82\x01\x07testing");
        assert_eq!(bytes[22..25], [0x1a, 0xb6, 0x02]);
        let found = fields(&bytes);
        assert_eq!(found[1], (2, Field::Double(-0.5)));
        let inner = fields(found[3].1.bytes());
        assert_eq!(inner[0], (5, Field::Float(1.5)));
        assert_eq!((inner[1].1.bytes().len(), inner[2].1.bytes().len()), (0, 300));
    }
}
