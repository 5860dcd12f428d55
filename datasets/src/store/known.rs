//! Which version of each object a store was seen to have, so that what is read of one later is of that version.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use object_store::ObjectMeta;

use super::object::{Object, Version};
use super::part::UNKNOWN_BYTES;

/// What was listed or looked at, by a digest of the key. The first that was seen of an object is what a run goes on with: what
/// it made of a listing, such as the places of the members of a tar file, is true of that version only.
#[derive(Debug, Default)]
pub(super) struct KnownObjects(Mutex<HashMap<[u8; 16], KnownObject>>);

/// An object as it was listed or looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownObject {
    pub(super) version: Version,
    pub(super) bytes: u64,
}

/// Which version of an object an answer is of, as far as its headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edition {
    /// The entity tag, as it was written.
    pub(super) tag: Option<String>,
    /// When the object was changed last, in seconds.
    changed: Option<i64>,
    /// All bytes of the object, where the server says how many.
    pub(super) bytes: Option<u64>,
}

impl Edition {
    pub(super) fn of(found: &ObjectMeta) -> Edition {
        // Where a server says nothing, `object_store` says the beginning of time.
        let changed = Some(found.last_modified.timestamp()).filter(|seconds| *seconds != 0);
        let bytes = Some(found.size).filter(|bytes| *bytes != UNKNOWN_BYTES);
        Edition { tag: found.e_tag.clone(), changed, bytes }
    }

    /// The version, by the best that is said of it.
    pub(super) fn version(&self) -> Version {
        match (&self.tag, self.changed) {
            (Some(tag), _) => Version::of_etag(tag),
            (None, Some(seconds)) => Version::of_seconds(seconds),
            (None, None) => Version::UNKNOWN,
        }
    }

    /// The tag that a request can ask for: a weak one matches nothing.
    pub(super) fn strong_tag(&self) -> Option<String> {
        self.tag.clone().filter(|tag| !tag.starts_with("W/"))
    }

    /// Whether both are of one version. A strong tag says so alone; without one, the time of the last change has to agree.
    pub(super) fn is_same(&self, other: &Edition) -> bool {
        self.bytes.zip(other.bytes).is_none_or(|(one, other)| one == other)
            && self.tag == other.tag
            && (self.strong_tag().is_some() || self.changed == other.changed)
    }
}

impl KnownObject {
    /// Whether an answer is of another version than the one that was seen. Where its headers say nothing that was said
    /// before, its size decides; a server that gives the same tag and another size is wrong in some other way.
    pub(super) fn is_changed(&self, now: &Edition) -> bool {
        let by_tag = now.tag.as_deref().map(Version::of_etag);
        let by_time = now.changed.map(Version::of_seconds);
        let said = [by_tag, by_time];
        let is_other_size = now.bytes.is_some_and(|bytes| bytes != self.bytes);
        match said.contains(&Some(self.version)) {
            true => by_tag != Some(self.version) && is_other_size,
            false if self.version == Version::UNKNOWN || said == [None, None] => is_other_size,
            false => true,
        }
    }
}

fn digest(key: &str) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(key.as_bytes()).as_bytes()[..16]);
    digest
}

impl KnownObjects {
    fn all(&self) -> MutexGuard<'_, HashMap<[u8; 16], KnownObject>> {
        self.0.lock().expect("nothing panics while it is held")
    }

    /// Notes which version of an object is there, unless one is known already.
    pub(super) fn note(&self, object: &Object) {
        let Some(key) = object.name.text() else { return };
        let known = KnownObject { version: object.version, bytes: object.bytes };
        self.all().entry(digest(key)).or_insert(known);
    }

    /// Notes another version of an object that nobody listed.
    pub(super) fn replace(&self, key: &str, known: KnownObject) {
        self.all().insert(digest(key), known);
    }

    /// Forgets an object that is written or deleted.
    pub(super) fn forget(&self, key: &str) {
        self.all().remove(&digest(key));
    }

    pub(super) fn get(&self, key: &str) -> Option<KnownObject> {
        self.all().get(&digest(key)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edition(tag: Option<&str>, changed: Option<i64>, bytes: u64) -> Edition {
        Edition { tag: tag.map(str::to_string), changed, bytes: Some(bytes) }
    }

    #[test]
    fn an_answer_is_of_the_version_that_was_listed_or_of_another() {
        let tagged = KnownObject { version: Version::of_etag("a"), bytes: 9 };
        let timed = KnownObject { version: Version::of_seconds(7), bytes: 9 };
        let unknown = KnownObject { version: Version::UNKNOWN, bytes: 9 };
        for (known, now, expected) in [
            (tagged, edition(Some("\"a\""), Some(8), 9), false),
            (tagged, edition(Some("W/\"a\""), None, 9), false),
            (tagged, edition(Some("\"b\""), Some(7), 9), true),
            // Not changed: the server is wrong about one of them.
            (tagged, edition(Some("\"a\""), None, 8), false),
            (tagged, edition(None, None, 9), false),
            (tagged, edition(None, None, 8), true),
            // A listing may give the time alone.
            (timed, edition(Some("\"b\""), Some(7), 9), false),
            (timed, edition(None, Some(7), 9), false),
            (timed, edition(None, Some(7), 8), true),
            (timed, edition(None, Some(8), 9), true),
            (unknown, edition(Some("\"b\""), Some(7), 9), false),
            (unknown, edition(None, None, 8), true),
        ] {
            assert_eq!(known.is_changed(&now), expected, "{known:?} {now:?}");
        }
    }

    #[test]
    fn parts_are_of_one_version_by_a_strong_tag_or_by_all_that_is_said() {
        let strong = edition(Some("\"a\""), Some(1), 9);
        assert!(strong.is_same(&edition(Some("\"a\""), Some(2), 9)));
        assert!(!strong.is_same(&edition(Some("\"a\""), Some(1), 8)));
        assert!(!strong.is_same(&edition(None, Some(1), 9)));
        for tag in [None, Some("W/\"a\"")] {
            let weak = edition(tag, Some(1), 9);
            assert!(weak.is_same(&weak.clone()) && !weak.is_same(&edition(tag, Some(2), 9)), "{tag:?}");
        }
    }

    #[test]
    fn the_first_version_that_was_seen_is_the_one_that_counts() {
        let known = KnownObjects::default();
        let object = |tag| Object { name: "x".into(), bytes: 1, version: Version::of_etag(tag) };
        known.note(&object("a"));
        known.note(&object("b"));
        assert_eq!(known.get("x").map(|known| known.version), Some(Version::of_etag("a")));
        known.forget("x");
        known.note(&object("b"));
        assert_eq!(known.get("x").map(|known| known.version), Some(Version::of_etag("b")));
    }
}
