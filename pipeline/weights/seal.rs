//! A checkpoint carries the checksum of itself, so that a flipped byte is noticed before a run goes on from it.
//!
//! The checksum is the BLAKE3 hash of the file with the 64 digits of the checksum as zeros. It stands in the
//! metadata of the safetensors header, so that a file and its checksum cannot be separated.

use forebay_train::{FileDescription, TrainError};

/// The key of the checksum in the metadata, and how it is found in the header: there the metadata is JSON within
/// JSON, so that its quotes are escaped.
pub(crate) const KEY: &str = "blake3";
const MARK: &[u8] = br#"\"blake3\":\""#;

/// What the metadata holds under [`KEY`] when the file is made.
pub(crate) fn blank() -> String {
    "0".repeat(DIGITS)
}

const DIGITS: usize = 64;

/// Where the digits of the checksum stand: in the header, of which the first eight bytes tell the length.
fn place(bytes: &[u8]) -> Option<usize> {
    let length = usize::try_from(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)).ok()?;
    let header = bytes.get(8..length.checked_add(8)?)?;
    let start = 8 + header.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    (start + DIGITS <= 8 + length).then_some(start)
}

/// Writes the checksum into a file whose metadata has a [`blank`] one.
///
/// # Panics
/// When it has none.
pub(crate) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let start = place(&bytes).expect("the metadata has a blank checksum");
    let digits = blake3::hash(&bytes).to_hex();
    bytes[start..start + DIGITS].copy_from_slice(digits.as_bytes());
    bytes
}

/// A file of weights of ours with something else said of it, and a checksum of the new bytes.
///
/// # Errors
/// When the bytes are no file of ours.
pub(crate) fn describe(bytes: &[u8], edit: impl FnOnce(&mut FileDescription)) -> Result<Vec<u8>, TrainError> {
    let none = || TrainError::Weights("the file does not say which network it is of".to_string());
    let mut description = FileDescription::read(bytes)?.ok_or_else(none)?;
    edit(&mut description);
    description.metadata.insert(KEY.to_string(), blank());
    Ok(seal(description.describe(bytes)?))
}

/// True for a file of a run, which has a checksum in it: also where some of its bytes are damaged.
pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    place(bytes).is_some() || matches!(FileDescription::read(bytes), Ok(Some(_)))
}

/// Compares a file with the checksum in it.
///
/// # Errors
/// One sentence of what is wrong with it.
pub(crate) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let Some(start) = place(bytes) else { return Err("it has no whole header with a checksum") };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..start]).update(&[b'0'; DIGITS]).update(&bytes[start + DIGITS..]);
    match hasher.finalize().to_hex().as_bytes() == &bytes[start..start + DIGITS] {
        true => Ok(()),
        false => Err("its bytes are not those that its checksum was made of"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed() {
        let json = format!(r#"{{"__metadata__":{{"forebay":"{{\"a\":1,\"blake3\":\"{}\"}}"}}}}"#, blank());
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.bytes().chain(0..40));
        let sealed = seal(bytes);
        assert_eq!(check(&sealed), Ok(()));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(check(&sealed[..length]).is_err(), "cut after {length}");
        }
    }
}
