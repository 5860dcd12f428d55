//! One page of a bucket's listing, read strictly, and the HTTP client that looks at what a server answers.
//!
//! `object_store` takes an answer that is no listing for an empty page, and one key that it cannot name ends its
//! whole listing. Its requests, signatures and retries are kept; the page is read here, as it passes by.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use serde::Deserialize;

use super::object::Version;
use crate::escape::one_line;

/// A page as the server wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of the server.
    pub objects: Vec<PageObject>,
    /// What the next page is asked with; `None` on the last one.
    pub next: Option<String>,
}

/// An object of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageObject {
    /// The whole key in its bucket.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// Which bytes they are.
    pub version: Version,
}

/// Why an answer to a listing is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer to a listing is none: {0}")]
pub struct NoListing(String);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListBucketResult {
    #[serde(default)]
    contents: Vec<Contents>,
    is_truncated: Option<bool>,
    next_continuation_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Contents {
    key: String,
    size: u64,
    last_modified: Option<String>,
    #[serde(rename = "ETag")]
    etag: Option<String>,
}

impl Page {
    /// Reads a `ListBucketResult`, and nothing else.
    ///
    /// # Errors
    /// [`NoListing`], one line of what it is instead.
    pub fn parse(xml: &[u8]) -> Result<Page, NoListing> {
        Page::read(xml).map_err(|what| NoListing(one_line(&what).into_owned()))
    }

    fn read(xml: &[u8]) -> Result<Page, String> {
        let text = std::str::from_utf8(xml).map_err(|_| "it is not text".to_string())?;
        match root(text) {
            Some("ListBucketResult") => {}
            Some(other) => {
                let other: String = other.chars().take(40).collect();
                let code = super::between(text, "<Code>", "</Code>").filter(|_| other == "Error");
                let code = code.map(|code| format!(" ({})", code.chars().take(40).collect::<String>()));
                return Err(format!("it is <{other}>{}", code.unwrap_or_default()));
            }
            None => return Err("it is no XML".to_string()),
        }
        let list: ListBucketResult =
            quick_xml::de::from_str(text).map_err(|error| format!("it is damaged: {error}"))?;
        let next = list.next_continuation_token.filter(|token| !token.is_empty());
        let next = match (list.is_truncated, next) {
            (Some(true), None) => {
                return Err("it breaks off without saying how to go on".to_string());
            }
            (Some(false), _) => None,
            (_, next) => next,
        };
        let object = |contents: Contents| PageObject {
            key: contents.key,
            bytes: contents.size,
            version: match (contents.etag, contents.last_modified) {
                (Some(tag), _) if !tag.is_empty() => Version::of_etag(&tag),
                (_, Some(time)) => Version::of_time(&time),
                (_, None) => Version::UNKNOWN,
            },
        };
        Ok(Page { objects: list.contents.into_iter().map(object).collect(), next })
    }
}

/// The name of the outermost element.
fn root(mut text: &str) -> Option<&str> {
    text = text.trim_start_matches('\u{feff}');
    loop {
        text = text.trim_start().strip_prefix('<')?;
        let skipped = match text {
            _ if text.starts_with('?') => text.find("?>")? + 2,
            _ if text.starts_with("!--") => text.find("-->")? + 3,
            _ if text.starts_with('!') => text.find('>')? + 1,
            _ => return text.split(|c: char| c.is_whitespace() || c == '>' || c == '/').next(),
        };
        text = &text[skipped..];
    }
}

/// Connects as `object_store` does, and looks at the answers.
#[derive(Debug, Default)]
pub(super) struct Watching {
    inner: ReqwestConnector,
}

impl HttpConnector for Watching {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Watched(self.inner.connect(options)?)))
    }
}

#[derive(Debug)]
struct Watched(HttpClient);

type Answer<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Watched {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> Answer<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let is_listing = request.method().as_str() == "GET"
                && request
                    .uri()
                    .query()
                    .is_some_and(|query| query.split('&').any(|part| part == "list-type=2"));
            let response = self.0.execute(request).await?;
            match response.status().as_u16() {
                200 if is_listing => listing(response).await,
                400 => retryable(response).await,
                _ => Ok(response),
            }
        })
    }
}

/// Hands on the page beside an empty listing. An answer that is no listing is like a connection that broke, so
/// that it is asked for again.
async fn listing(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (mut parts, body) = response.into_parts();
    let body = whole(body).await?;
    let page = Page::parse(&body).map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
    parts.extensions.insert(Arc::new(page));
    Ok(HttpResponse::from_parts(parts, Bytes::from_static(b"<ListBucketResult></ListBucketResult>").into()))
}

/// S3 says 400 `RequestTimeout` where it did not get the whole request in time: what others say with 408, which
/// is tried again.
async fn retryable(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (mut parts, body) = response.into_parts();
    let body = whole(body).await?;
    let said = String::from_utf8_lossy(&body);
    if super::between(&said, "<Code>", "</Code>") == Some("RequestTimeout") {
        parts.status = reqwest::StatusCode::REQUEST_TIMEOUT;
    }
    Ok(HttpResponse::from_parts(parts, body.into()))
}

async fn whole(body: object_store::client::HttpResponseBody) -> Result<Bytes, HttpError> {
    let mut whole = BytesMut::new();
    let mut chunks = body.bytes_stream();
    while let Some(chunk) = chunks.try_next().await? {
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn a_page_keeps_every_key_however_odd() {
        let page = Page::parse(
            b"<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3/\"><IsTruncated>true</IsTruncated>\
              <NextContinuationToken>n&amp;1</NextContinuationToken>\
              <Contents><Key>a//x.png</Key><Size>7</Size><ETag>&quot;t&quot;</ETag></Contents>\
              <Contents><Key>./z &lt;1&gt;.png</Key><Size>0</Size><LastModified>now</LastModified></Contents>\
              </ListBucketResult>",
        )
        .expect("a page");
        assert_eq!(page.next.as_deref(), Some("n&1"));
        let object = |key: &str, bytes, version| PageObject { key: key.to_string(), bytes, version };
        let expected =
            [object("a//x.png", 7, Version::of_etag("t")), object("./z <1>.png", 0, Version::of_time("now"))];
        assert_eq!(page.objects, expected);
        let last = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
        assert_eq!(Page::parse(last.as_bytes()), Ok(Page { objects: vec![], next: None }));
    }

    #[test]
    fn what_is_no_listing_is_no_empty_page() {
        let refused = |text: &str| Page::parse(text.as_bytes()).expect_err(text).0;
        assert_eq!(refused("<!DOCTYPE html>\n<html><body>Log in</body></html>"), "it is <html>");
        assert_eq!(refused("<Error><Code>SlowDown</Code></Error>"), "it is <Error> (SlowDown)");
        assert_eq!(refused(""), "it is no XML");
        assert_eq!(refused("{\"a\": 1}"), "it is no XML");
        let cut = "<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Contents>";
        assert!(refused(cut).starts_with("it is damaged"), "{}", refused(cut));
        let lost = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
        assert_eq!(refused(lost), "it breaks off without saying how to go on");
    }

    /// A server that answers the same to every request.
    #[derive(Debug)]
    struct Always(u16, &'static str);

    impl HttpService for Always {
        fn call<'a, 'b>(&'a self, _: HttpRequest) -> Answer<'b>
        where
            'a: 'b,
            Self: 'b,
        {
            let mut response = HttpResponse::new(Bytes::from_static(self.1.as_bytes()).into());
            *response.status_mut() = reqwest::StatusCode::from_u16(self.0).expect("a status");
            Box::pin(async move { Ok(response) })
        }
    }

    fn ask(server: Always, uri: &str) -> Result<HttpResponse, HttpError> {
        let mut request = HttpRequest::new(Bytes::new().into());
        *request.uri_mut() = uri.parse().expect("an address");
        block_on(Watched(HttpClient::new(server)).call(request))
    }

    #[test]
    fn a_listing_answered_with_a_web_page_is_asked_for_again() {
        let error = ask(Always(200, "<html></html>"), "http://s/b?list-type=2").expect_err("no listing");
        // The kind that `object_store` retries where a request only reads.
        assert_eq!(error.kind(), HttpErrorKind::Interrupted);
        let object = ask(Always(200, "<html></html>"), "http://s/b/list-type=2").expect("an object");
        assert_eq!(object.status().as_u16(), 200);
        let list = "<ListBucketResult><Contents><Key>a//b</Key><Size>1</Size></Contents></ListBucketResult>";
        let page = ask(Always(200, list), "http://s/b?list-type=2&prefix=a").expect("a page");
        let page = page.extensions().get::<Arc<Page>>().expect("the page beside the answer");
        assert_eq!(page.objects[0].key, "a//b");
    }

    #[test]
    fn a_request_that_timed_out_at_the_server_is_tried_again() {
        let status = |body| ask(Always(400, body), "http://s/b/x").expect("an answer").status().as_u16();
        assert_eq!(status("<Error><Code>RequestTimeout</Code></Error>"), 408);
        assert_eq!(status("<Error><Code>InvalidArgument</Code></Error>"), 400);
    }
}
