//! TensorBoard's event files: scalars by step, in the protocol buffers that it reads, written by hand.
//!
//! A file is a chain of records: the length of the data (u64, little endian), the masked CRC-32C of these eight
//! bytes, the data, and its masked CRC-32C. The data of each is one `Event`; the first says `brain.Event:2`.
//! The numbers of the fields are those of `event.proto` and `summary.proto` of TensorFlow.

/// One value at one step: its tag, such as `loss/train`, and the value.
pub type Scalar = (&'static str, f64);

/// The first record of a file, which says what version of the format follows.
pub fn opening(wall_seconds: f64) -> Vec<u8> {
    let mut event = double(1, wall_seconds);
    event.extend(bytes(3, b"brain.Event:2"));
    record(&event)
}

/// A record that says that the run went on from `step`: what an earlier file has of later steps is then not shown.
pub fn resumed(wall_seconds: f64, step: u64) -> Vec<u8> {
    /// `SessionLog.START`.
    const START: u64 = 1;
    let mut event = double(1, wall_seconds);
    event.extend(integer(2, step));
    event.extend(bytes(7, &integer(1, START)));
    record(&event)
}

/// A record of the values at a step.
pub fn scalars(wall_seconds: f64, step: u64, scalars: &[Scalar]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in scalars {
        let mut entry = bytes(1, tag.as_bytes());
        entry.extend(float(2, *value as f32));
        summary.extend(bytes(1, &entry));
    }
    let mut event = double(1, wall_seconds);
    event.extend(integer(2, step));
    event.extend(bytes(5, &summary));
    record(&event)
}

/// Data with its length and the two checksums.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked(data).to_le_bytes());
    record
}

/// The CRC-32C of the data, rotated and shifted: a checksum of data that holds checksums would else be weak.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
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

/// The key of a field: its number and the form of what follows.
fn key(field: u64, form: u64) -> Vec<u8> {
    varint(field << 3 | form)
}

fn integer(field: u64, value: u64) -> Vec<u8> {
    [key(field, 0), varint(value)].concat()
}

fn double(field: u64, value: f64) -> Vec<u8> {
    [key(field, 1), value.to_le_bytes().to_vec()].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [key(field, 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn float(field: u64, value: f32) -> Vec<u8> {
    [key(field, 5), value.to_le_bytes().to_vec()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_the_one_that_tensorboard_writes() {
        // The event of `EventFileWriter` for `loss` = 0.5 at step 300 and time 2.0, as protoc lays it out.
        let data: Vec<u8> = [
            &[0x09, 0, 0, 0, 0, 0, 0, 0, 0x40][..],
            &[0x10, 0xac, 0x02],
            &[0x2a, 13, 0x0a, 11, 0x0a, 4],
            b"loss",
            &[0x15, 0, 0, 0, 0x3f],
        ]
        .concat();
        let whole = scalars(2.0, 300, &[("loss", 0.5)]);
        assert_eq!(whole[..8], (data.len() as u64).to_le_bytes());
        assert_eq!(whole[12..whole.len() - 4], data);
        // RFC 3720, B.4: the CRC-32C of 32 zeros, then masked.
        assert_eq!(masked(&[0; 32]), 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8));
        assert_eq!(opening(0.0)[12 + 9..][..2], [0x1a, 13]);
    }
}
