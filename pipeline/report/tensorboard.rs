//! TensorBoard's event files: scalars by step, in the protocol buffers that it reads.
//!
//! A file is a chain of records: the length of the data (u64, little endian), the masked CRC-32C of these eight
//! bytes, the data, and its masked CRC-32C. The data of each is one `Event`; the first says `brain.Event:2`.
//! The numbers of the fields are those of `event.proto` and `summary.proto` of TensorFlow.

use forebay_train::protobuf::Message;

/// One value at one step: its tag, such as `loss/train`, and the value.
pub type Scalar = (&'static str, f64);

/// The first record of a file, which says what version of the format follows.
pub fn opening(wall_seconds: f64) -> Vec<u8> {
    record(wall_seconds, |event| event.bytes(3, "brain.Event:2"))
}

/// A record that says that the run went on from `step`: what an earlier file has of later steps is then not shown.
pub fn resumed(wall_seconds: f64, step: u64) -> Vec<u8> {
    /// `SessionLog.START`.
    const START: u64 = 1;
    record(wall_seconds, |event| {
        event.integer(2, step);
        event.message(7, |log| log.integer(1, START));
    })
}

/// A record of the values at a step.
pub fn scalars(wall_seconds: f64, step: u64, scalars: &[Scalar]) -> Vec<u8> {
    record(wall_seconds, |event| {
        event.integer(2, step);
        event.message(5, |summary| {
            for (tag, value) in scalars {
                summary.message(1, |entry| {
                    entry.bytes(1, tag);
                    entry.float(2, *value as f32);
                });
            }
        });
    })
}

/// An event at a time, with the fields that `fill` adds: its data with the length and the two checksums.
fn record(wall_seconds: f64, fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut event = Message::new();
    event.double(1, wall_seconds);
    fill(&mut event);
    let data = event.into_bytes();
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked(&length).to_le_bytes());
    record.extend(&data);
    record.extend(masked(&data).to_le_bytes());
    record
}

/// The CRC-32C of the data, rotated and shifted: a checksum of data that holds checksums would else be weak.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
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
