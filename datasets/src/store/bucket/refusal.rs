//! What the refusals of a bucket mean, one plain line each.

use object_store::client::{HttpError, HttpErrorKind};

use super::super::strange::Strange;
use super::super::{StoreError, between, cause, innermost, one_line};
use super::Bucket;
use super::cloud::redacted;

impl Bucket {
    /// One plain line for what `object_store` reports; `line` puts a reason behind what was attempted. Its own
    /// text can hold addresses, whole XML bodies and key ids, so that the line is written anew and the original
    /// is not kept as a source.
    pub(in super::super) fn explain(
        &self,
        verb: &str,
        error: &object_store::Error,
        line: &impl Fn(&str) -> String,
    ) -> StoreError {
        let line = |reason: String| redacted(&line(&one_line(&reason)), &self.secrets);
        let stop = |reason: String| StoreError::Stop(line(reason));
        let endpoint = &self.endpoint;
        const CHANGED: &str = "it was changed while it was read: run again";
        if let Some(error) = cause::<Strange>(error) {
            match error {
                Strange::Changed => return stop(CHANGED.to_string()),
                Strange::Failing { .. } | Strange::Plain(_) => return stop(error.to_string()),
                _ => {}
            }
            return stop(format!("{error}: check {endpoint} and what stands before it"));
        }
        if let Some(http) = broken(error) {
            let what = match http.kind() {
                HttpErrorKind::Connect => "cannot connect to the server",
                HttpErrorKind::Timeout => "the server does not answer",
                _ => "the connection broke",
            };
            return stop(format!("{what} ({}): check {endpoint} and the network", innermost(http)));
        }
        let text = error.to_string();
        let code = code(&text);
        let said = if code.is_empty() { String::new() } else { format!(" ({code})") };
        let (cloud, codes, name) = (self.cloud, &self.cloud.codes, &self.bucket);
        let is = |codes: &[&str]| codes.contains(&code);
        let is_missing = matches!(error, object_store::Error::NotFound { .. });
        let is_unknown = matches!(error, object_store::Error::Unauthenticated { .. });
        let is_denied = matches!(error, object_store::Error::PermissionDenied { .. });
        let is_changed = matches!(error, object_store::Error::Precondition { .. })
            || between(&text, "status code: ", " ") == Some("412");
        match () {
            () if is(codes.no_bucket) => stop(format!("there is no {} called {name}", cloud.bucket)),
            () if is(codes.bad_credentials) => {
                stop(format!("the server refused the credentials{said}: check {}", cloud.keys))
            }
            () if is(codes.old_credentials) => {
                stop(format!("the server refused the credentials{said}: {}", cloud.renew))
            }
            () if is(&["RequestTimeTooSkewed", "RequestExpired"]) => {
                stop("the clock of this machine is off by more than the server allows".to_string())
            }
            () if is(codes.other_region) || text.contains("without LOCATION") => {
                stop(format!("{} {name} is in another region{said}: {}", cloud.bucket, cloud.move_to_region))
            }
            () if verb == "read" && is_changed => stop(CHANGED.to_string()),
            () if is_missing && verb == "read" && is(codes.no_object) => {
                StoreError::LeaveOut(line("no such object".to_string()))
            }
            () if is_denied && verb == "read" && is(codes.denied) => {
                let why = if self.is_anonymous { "access denied: it is not public" } else { "access denied" };
                StoreError::LeaveOut(line(why.to_string()))
            }
            () if is_missing && verb != "read" => {
                stop(format!("not found: check that {} {name} exists", cloud.bucket))
            }
            () if self.is_anonymous && (is_unknown || is_denied) && !code.is_empty() => {
                stop(format!("access denied{said}: this {} is not public: set {}", cloud.bucket, cloud.keys))
            }
            () if is_unknown && !code.is_empty() => {
                stop(format!("the server refused the credentials{said}: check {}", cloud.keys))
            }
            () if (is_denied || is_unknown) && verb != "read" => {
                stop(format!("access denied{said}: the credentials may not do this here"))
            }
            () if (is_denied || is_missing) && code.is_empty() => {
                let status = between(&text, "status code: ", ":").unwrap_or("a refusal").trim();
                stop(format!(
                    "the server answered {status} without a reason of {}: check {endpoint} and what stands before it",
                    cloud.name
                ))
            }
            () => {
                let status = between(&text, "status code: ", ":");
                stop(match (status, code) {
                    (Some(status), _) => format!("the server answered {status}{said}"),
                    (None, "") => innermost(error),
                    (None, code) => format!("the server answered {code}"),
                })
            }
        }
    }
}

/// How a connection broke: the innermost error of the client, around which stands what became of it.
fn broken(error: &object_store::Error) -> Option<&HttpError> {
    let mut found = cause::<HttpError>(error)?;
    while let Some(inner) = std::error::Error::source(found).and_then(|source| cause::<HttpError>(source)) {
        found = inner;
    }
    Some(found)
}

/// Whether nobody answers, or nobody but a server that has too much to do: another request would fare no better. What fails
/// otherwise may be a server's way of refusing HEAD.
pub(super) fn is_silent(error: &object_store::Error) -> bool {
    match cause::<Strange>(error) {
        Some(Strange::Failing { status, .. }) => ![500, 501].contains(&status.as_u16()),
        Some(_) => false,
        None => broken(error)
            .is_some_and(|http| [HttpErrorKind::Connect, HttpErrorKind::Timeout].contains(&http.kind())),
    }
}

/// The code that a cloud gave with a refusal; empty where there is none.
pub(super) fn code(text: &str) -> &str {
    between(text, "<Code>", "</Code>").unwrap_or_default()
}
