//! What makes a plan this plan.

use std::collections::BTreeMap;

use forebay_datasets::catalog::Entry;
use forebay_datasets::manifest::FORMAT;

use super::rows::Rows;

/// A hash of fields, each with its length, so that ("ab", "c") and ("a", "bc") differ.
#[derive(Default)]
pub(crate) struct Digest {
    hasher: blake3::Hasher,
}

impl Digest {
    pub(crate) fn field(&mut self, text: &str) {
        self.field_of(text.as_bytes());
    }

    pub(crate) fn field_of(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }

    pub(crate) fn hex(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}

/// The identity of a plan: format version, (id, size, label) of every sample, split, the settings of every
/// stage and the seeds; never threads, places or times.
pub(crate) fn fingerprint(rows: &Rows, settings: &BTreeMap<String, serde_json::Value>) -> String {
    let mut digest = Digest::default();
    let mut field = |text: &str| digest.field(text);
    field(&format!("forebay plan {FORMAT}"));
    for (key, value) in settings {
        field(key);
        field(&value.to_string());
    }
    for class in rows.catalog.classes() {
        field(class);
    }
    for (entry, split) in rows.catalog.entries().iter().zip(&rows.splits) {
        field(&entry.id);
        field(&format!("{} {} {split}", entry.bytes(), entry.label));
    }
    digest.hex()
}

/// By what the images of a folder are known in another place: (id, size, class) of each.
pub(crate) fn samples_fingerprint(rows: &Rows) -> String {
    let mut digest = Digest::default();
    for entry in rows.catalog.entries() {
        digest.field(&entry.id);
        digest.field(&entry.bytes().to_string());
        digest.field(&rows.catalog.classes()[entry.label as usize]);
    }
    digest.hex()
}

/// The identity of the images of a folder: (id, size, version) of each.
pub(crate) fn images_fingerprint(rows: &Rows) -> String {
    let mut digest = Digest::default();
    for entry in rows.catalog.entries() {
        digest.field(&entry.id);
        digest.field(&entry.bytes().to_string());
    }
    digest.field(&versions_digest(rows.catalog.entries()));
    digest.hex()
}

/// Which bytes these samples had when they were listed, in 32 hexadecimal digits: a digest of (id, version) of each,
/// in their order. Where it is another one than before, some of them were changed, replaced or copied, even in place
/// and at the same size, and what was made of them may no longer be true.
///
/// A copy of a dataset has the fingerprint of its original and another digest of versions. That is why the two are
/// apart: versions must reach no byte of a shard or manifest, and stand only beside a plan, where they decide what a
/// rerun may keep.
pub(crate) fn versions_digest<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    let mut digest = Digest::default();
    for entry in entries {
        digest.field(&entry.id);
        digest.field_of(entry.version.as_bytes());
    }
    digest.hex()[..32].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_datasets::catalog::Locator;
    use forebay_datasets::store::Version;

    #[test]
    fn another_version_or_another_sample_is_another_digest() {
        let entry = |id: &str, tag: &str| {
            Entry::new(id.into(), 0, None, Locator::whole(id.into(), 1), Version::of_etag(tag))
        };
        let digest = |entries: &[Entry]| versions_digest(entries);
        let (a, b) = (entry("a", "1"), entry("b", "1"));
        let whole = digest(&[a.clone(), b.clone()]);
        assert_eq!(whole, digest(&[a.clone(), b.clone()]));
        assert_eq!(whole.len(), 32);
        for other in [
            digest(&[a.clone(), entry("b", "2")]),
            digest(&[entry("a", "2"), b.clone()]),
            digest(std::slice::from_ref(&a)),
            digest(&[b, a]),
            digest(&[]),
        ] {
            assert_ne!(whole, other);
        }
    }
}
