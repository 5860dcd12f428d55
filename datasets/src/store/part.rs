//! What an answer says of the bytes in it: which part of an object they are, and how many.
//!
//! `object_store` wants a part to have a total and every answer to have a length; servers need send neither, and some send
//! another part than the one that was asked for.

use object_store::client::{HttpError, HttpErrorKind, HttpResponse};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue};

use super::body::{PAGE_BYTES_MAX, paced, whole};
use super::patience::Patience;
use super::strange::Strange;

/// All bytes of an object, where a server does not say how many they are: no object has so many.
pub(super) const UNKNOWN_BYTES: u64 = u64::MAX;

/// What `Content-Range` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    last: u64,
    total: Option<u64>,
}

impl ContentRange {
    fn parse(text: &str) -> Option<ContentRange> {
        let (bounds, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
        let (first, last) = bounds.split_once('-')?;
        let total = match total.trim() {
            "*" => None,
            total => Some(total.parse().ok()?),
        };
        Some(ContentRange { first: first.trim().parse().ok()?, last: last.trim().parse().ok()?, total })
    }

    /// Whether it is what `first-last` asks for, as far as the object has it; and what is then known of it.
    fn of(self, asked: &str) -> Option<ContentRange> {
        let (first, last) = asked.split_once('-')?;
        let last: u64 = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
        let is_end = match self.total {
            Some(total) => Some(self.last) == total.checked_sub(1),
            // A server that does not say so is at the end where it sends less.
            None => self.last < last,
        };
        let is_there = self.total.is_none_or(|total| self.last < total);
        let is_asked = Ok(self.first) == first.parse() && self.first <= self.last && self.last <= last;
        let total = self.total.or_else(|| is_end.then(|| self.last + 1));
        (is_there && is_asked && (is_end || self.last == last)).then_some(ContentRange { total, ..self })
    }
}

/// An answer that is all of an object or the part of it that was asked for, with its length and a total.
pub(super) fn part(mut response: HttpResponse, asked: Option<&str>) -> Result<HttpResponse, Strange> {
    let Some(asked) = asked.and_then(|range| range.strip_prefix("bytes=")) else { return Ok(response) };
    let sent = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            text(response.headers(), &CONTENT_RANGE).unwrap_or("a part that it does not name")
        }
        _ => "all bytes",
    };
    let Some(part) = ContentRange::parse(sent).and_then(|part| part.of(asked)) else {
        let sent = sent.chars().take(60).collect();
        return Err(Strange::OtherPart { asked: asked.to_string(), sent });
    };
    let ContentRange { first, last, total } = part;
    let range = format!("bytes {first}-{last}/{}", total.unwrap_or(UNKNOWN_BYTES));
    let headers = response.headers_mut();
    headers.insert(CONTENT_RANGE, range.parse().expect("digits"));
    headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from(last - first + 1));
    Ok(response)
}

/// An answer with an object whose length is known: where the server does not say it, the object is read first.
pub(super) async fn measured(
    response: HttpResponse,
    patience: Patience,
) -> Result<Result<HttpResponse, Strange>, HttpError> {
    if response.headers().contains_key(CONTENT_LENGTH) {
        return Ok(Ok(paced(response, patience)));
    }
    let (mut parts, body) = response.into_parts();
    match whole(body, patience, PAGE_BYTES_MAX).await? {
        Some(whole) => {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
            Ok(Ok(HttpResponse::from_parts(parts, whole.into())))
        }
        None => Err(HttpError::new(HttpErrorKind::Unknown, Strange::NoLength)),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_part_is_the_one_that_was_asked_for_or_none() {
        let known = |first, last, total| Some(ContentRange { first, last, total: Some(total) });
        for (asked, sent, expected) in [
            ("0-9", "bytes 0-9/20", known(0, 9, 20)),
            ("0-9", "bytes 0-4/5", known(0, 4, 5)),
            ("5-", "bytes 5-19/20", known(5, 19, 20)),
            ("0-9", "bytes 0-9/*", Some(ContentRange { first: 0, last: 9, total: None })),
            ("0-9", "bytes 0-4/*", known(0, 4, 5)),
            // Less than there is, more than was asked for, from elsewhere, or nothing that can be.
            ("0-9", "bytes 0-4/20", None),
            ("0-9", "bytes 0-19/20", None),
            ("5-9", "bytes 0-4/20", None),
            ("5-9", "bytes 5-9/0", None),
            ("5-9", "bytes 9-5/*", None),
            ("5-9", "bytes */20", None),
            ("5-9", "all bytes", None),
            ("5-9", "bytes 5-9", None),
        ] {
            let part = ContentRange::parse(sent).and_then(|part| part.of(asked));
            assert_eq!(part, expected, "{asked} {sent}");
        }
    }

    #[test]
    fn a_part_has_a_length_and_a_total_in_the_end() {
        let mut response = HttpResponse::new(Bytes::from_static(b"56789").into());
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response.headers_mut().insert(CONTENT_RANGE, "bytes 5-9/*".parse().expect("a value"));
        let response = part(response, Some("bytes=5-9")).expect("the part");
        assert_eq!(text(response.headers(), &CONTENT_LENGTH), Some("5"));
        let total = format!("bytes 5-9/{UNKNOWN_BYTES}");
        assert_eq!(text(response.headers(), &CONTENT_RANGE), Some(&*total));
    }
}
