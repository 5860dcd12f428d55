//! Where initial weights are from, as a model that was trained from them keeps it.

use serde::{Deserialize, Serialize};

/// The key of a checkpoint's metadata under which it stands.
pub const KEY: &str = "weights";

/// A weights file by what it is: its name and digest, never the folder of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The name of the file, without its folder.
    pub file: String,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// `OWNER/NAME` on the Hugging Face hub, where it is from there.
    pub repository: Option<String>,
    /// The commit of that repository.
    pub commit: Option<String>,
    /// What the registry of known weights calls it.
    pub known_as: Option<String>,
    /// The licence by its SPDX name in lower case, where it is known; that of the weights before, where these were
    /// trained from others.
    pub licence: Option<String>,
}
