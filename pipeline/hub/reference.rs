//! What names a file of the hub.

use crate::flow::Error;

/// `hf:OWNER/NAME[@REVISION][:FILE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `OWNER/NAME`.
    pub repository: String,
    /// A branch, a tag or a commit; `main` where none is given.
    pub revision: String,
    /// The file, where one is given.
    pub file: Option<String>,
}

impl Reference {
    /// Reads a reference; `None` for a text that does not begin with `hf:`.
    ///
    /// # Errors
    /// [`Error::Usage`] when it begins so and goes on in another way.
    pub fn parse(text: &str) -> Option<Result<Reference, Error>> {
        let rest = text.strip_prefix("hf:")?;
        let (rest, file) = match rest.split_once(':') {
            Some((rest, file)) => (rest, Some(file.to_string())),
            None => (rest, None),
        };
        let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let is_name = |name: &str| {
            !name.is_empty()
                && !name.contains("..")
                && !name.contains("--")
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let is_path = |path: &str| {
            let is_part =
                |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '?', '#', '%']);
            path.split('/').all(is_part) && !path.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        let is_repository =
            repository.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name));
        let is_sound = is_repository && is_path(revision) && file.as_deref().is_none_or(is_path);
        Some(match is_sound {
            true => {
                Ok(Reference { repository: repository.to_string(), revision: revision.to_string(), file })
            }
            false => Err(Error::Usage(format!(
                "{text}: expected hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME:FILE, such as \
                 hf:timm/resnet18.a1_in1k"
            ))),
        })
    }

    /// The same of another revision: a commit, once it is known.
    pub(super) fn at(&self, commit: &str) -> Reference {
        Reference { revision: commit.to_string(), ..self.clone() }
    }
}
