//! What names a file of the hub.

use forebay_datasets::escape::escape_text;
use forebay_datasets::store::without_secrets;

use crate::flow::Error;

/// `hf:OWNER/NAME[@REVISION][:FILE]`, of weights; or the repository of a dataset, `hf://datasets/OWNER/NAME[@REVISION]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `OWNER/NAME`.
    pub repository: String,
    /// A branch, a tag or a commit; `main` where none is given.
    pub revision: String,
    /// The file, where one is given.
    pub file: Option<String>,
    /// Whether it is a repository of a dataset, and not of a model.
    pub is_dataset: bool,
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
        let is_sound = is_repository(repository) && is_path(revision) && file.as_deref().is_none_or(is_path);
        Some(match is_sound {
            true => Ok(Reference {
                repository: repository.to_string(),
                revision: revision.to_string(),
                file,
                is_dataset: false,
            }),
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

    /// Reads `datasets/OWNER/NAME[@REVISION][/PATH]`, what follows `hf://` in the spelling of the hub's own file system;
    /// also gives the path, which is empty where there is none.
    ///
    /// # Errors
    /// One line when it is something else.
    pub fn parse_dataset(text: &str) -> Result<(Reference, String), String> {
        // A revision is no host, and what else stands before an @ may be a password.
        let query = text.find(['?', '#']).unwrap_or(text.len());
        let shown = match text.starts_with("datasets/") {
            true => format!("hf://{}", &text[..query]),
            false => without_secrets(&format!("hf://{text}")),
        };
        let refused = || {
            let shown = escape_text(&shown);
            format!(
                "{shown}: expected hf://datasets/OWNER/NAME, hf://datasets/OWNER/NAME@REVISION or one with a path behind it"
            )
        };
        if text.contains('?') {
            let shown = escape_text(&shown);
            return Err(format!(
                "{shown}: a URL with a query (?..) is not read: leave it out, and set HF_TOKEN"
            ));
        }
        let rest = text.trim_end_matches('/').strip_prefix("datasets/").ok_or_else(refused)?;
        let (owner, rest) = rest.split_once('/').ok_or_else(refused)?;
        let end = rest.find(['/', '@']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let (revision, path) = match rest.strip_prefix('@') {
            None => ("main".to_string(), rest),
            Some(rest) => {
                // A branch of the hub's own has parts; a slash in any other one is escaped.
                let parts = if rest.starts_with("refs/") { 3 } else { 1 };
                let end = rest.match_indices('/').nth(parts - 1).map_or(rest.len(), |(at, _)| at);
                let (revision, path) = rest.split_at(end);
                (revision.replace("%2F", "/").replace("%2f", "/"), path)
            }
        };
        let repository = format!("{owner}/{name}");
        let path = path.trim_start_matches('/').to_string();
        match is_repository(&repository) && is_path(&revision) && (path.is_empty() || is_path_of_file(&path))
        {
            true => Ok((Reference { repository, revision, file: None, is_dataset: true }, path)),
            false => Err(refused()),
        }
    }

    /// The path of the repository on the hub.
    pub(super) fn page(&self) -> String {
        format!("{}{}", if self.is_dataset { "datasets/" } else { "" }, self.repository)
    }
}

fn is_repository(repository: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.contains("..")
            && !name.contains("--")
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    repository.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name))
}

/// Whether a path can be a revision or a file of weights.
fn is_path(path: &str) -> bool {
    is_path_of_file(path) && !path.contains(['?', '#', '%']) && !path.contains(char::is_whitespace)
}

/// Whether a path leads to a file below a folder, on any disk.
pub(super) fn is_path_of_file(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !path.contains('\\')
        && !path.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_of_the_hub_is_named_as_its_own_file_system_names_it() {
        for (text, repository, revision, path) in [
            ("datasets/o/n", "o/n", "main", ""),
            ("datasets/o/n/", "o/n", "main", ""),
            ("datasets/o/n/data/train", "o/n", "main", "data/train"),
            ("datasets/o/n@v1.0/data", "o/n", "v1.0", "data"),
            ("datasets/o/n@refs/convert/parquet/default", "o/n", "refs/convert/parquet", "default"),
            ("datasets/o/n@refs%2Fpr%2F1/x y", "o/n", "refs/pr/1", "x y"),
        ] {
            let (reference, found) = Reference::parse_dataset(text).expect(text);
            assert_eq!((&*reference.repository, &*reference.revision, &*found), (repository, revision, path));
            assert!(reference.is_dataset);
        }
        for text in [
            "",
            "o/n",
            "datasets",
            "datasets/n",
            "datasets/o/..",
            "datasets/o/n/../x",
            "datasets/o/n@",
            "datasets/o/n@a b",
            "spaces/o/n",
            "user:geheim@datasets/o/n",
            "user:ge?heim@datasets/o/n",
            "datasets/o/n?token=geheim",
            "datasets/o/n#geheim",
            "datasets/o/n/data?token=geheim",
        ] {
            let said = Reference::parse_dataset(text).expect_err(text);
            assert!(said.starts_with("hf://") && !said.contains("heim"), "{said}");
        }
    }
}
