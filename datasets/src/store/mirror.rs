//! A place whose files somebody else brings to this machine, whole, and keeps there: a dataset of a hub.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;

use super::object::Object;
use super::{StoreError, StoreOptions};

/// What [`Mirror`]s do: each future gives a [`StoreError`] whose line is whole.
pub type Mirrored<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A place that is only read, and whose files come to this machine before they are.
pub trait Mirror: Send + Sync {
    /// Every file there, by its name relative to the place and sorted by it. Called again, it may answer from memory.
    ///
    /// # Errors
    /// [`StoreError::Correct`] for a place that is not there or may not be read; [`StoreError::Stop`] when it cannot be told.
    fn list(&self) -> Mirrored<'_, Arc<[Object]>>;

    /// Brings a file of the listing here, where it is not yet, and says where it lies.
    ///
    /// # Errors
    /// [`StoreError::Stop`] when it cannot be had, [`StoreError::Damaged`] when it is not what was announced.
    fn bring<'a>(&'a self, name: &'a str) -> Mirrored<'a, PathBuf>;
}

/// Opens what follows `hf://`. Nobody is asked yet.
pub type MirrorOpener = fn(&str, &StoreOptions) -> Result<Arc<dyn Mirror>, StoreError>;

static HUB: OnceLock<MirrorOpener> = OnceLock::new();

/// From now on, [`Store::open`](super::Store::open) opens `hf://` URLs with this. The first call counts.
pub fn open_hub_with(opener: MirrorOpener) {
    let _ = HUB.set(opener);
}

/// What `hf://` URLs are opened with, where the program has said so.
pub(super) fn hub() -> Option<MirrorOpener> {
    HUB.get().copied()
}

/// The folder and the name of a file that was brought here.
pub(super) fn folder_and_name(path: &Path) -> Option<(Arc<Path>, &std::ffi::OsStr)> {
    Some((path.parent()?.into(), path.file_name()?))
}
