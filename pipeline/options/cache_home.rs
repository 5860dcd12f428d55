//! Where this program may keep what it can make again: the user's cache folder, if there is one that can be used.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The folder of this program below the user's cache folder; `None` where there is none that can be used. Nothing is
/// made or written.
pub(crate) fn cache_home() -> Option<PathBuf> {
    usable(std::env::var_os("XDG_CACHE_HOME"), std::env::home_dir())
}

/// `$XDG_CACHE_HOME` where it can be used, else `.cache` below the home folder. The specification of XDG has relative
/// paths ignored: they would put a cache into whatever folder a program is started in.
fn usable(chosen: Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let home = home.filter(|home| home.is_absolute());
    let candidates = [chosen.map(PathBuf::from), home.map(|home| home.join(".cache"))];
    let candidates = candidates.into_iter().flatten().filter(|folder| folder.is_absolute());
    candidates.map(|folder| folder.join("forebay")).find(|folder| can_be_folder(folder))
}

/// Whether a folder is there or can be made, as far as that can be told without making it.
fn can_be_folder(folder: &Path) -> bool {
    let there = folder.ancestors().find_map(|folder| folder.metadata().ok());
    there.is_some_and(|there| there.is_dir() && !there.permissions().readonly())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_home_that_cannot_be_used_gives_way_to_the_usual_place() {
        let home = tempfile::tempdir().expect("a folder");
        let usual = Some(home.path().join(".cache/forebay"));
        let with = |chosen: Option<&str>| usable(chosen.map(OsString::from), Some(home.path().to_path_buf()));
        for chosen in [None, Some(""), Some("/dev/null"), Some("cache"), Some("./x")] {
            assert_eq!(with(chosen), usual, "{chosen:?}");
        }
        let own = home.path().join("own");
        assert_eq!(with(own.to_str()), Some(own.join("forebay")));
        assert!(!own.exists());
    }

    #[test]
    fn without_a_place_there_is_no_cache() {
        assert_eq!(usable(Some("x".into()), None), None);
        assert_eq!(usable(Some("/dev/null/x".into()), Some("/dev/null".into())), None);
        assert_eq!(usable(None, Some("relative".into())), None);
        assert_eq!(usable(None, Some("".into())), None);
    }
}
