//! The HTTP client of buckets: every answer is looked at here, before anyone acts on it.
//!
//! Portals, proxies and caches answer in the place of a store. What is not the store's own answer to what was asked is
//! asked for again, and in the end an error: never an object, never an absence, never an empty listing. Requests and
//! signatures stay with `object_store`.

use std::sync::Arc;

use bytes::Bytes;
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use reqwest::{Method, StatusCode};

use super::between;
use super::body::{PAGE_BYTES_MAX, paced, whole};
use super::listing::{NoListing, Page, root};
use super::part::{measured, part};
use super::resend::{Answer, Resend};
use super::strange::Strange;

/// Which requests go to the store, and not to a service that gives credentials.
#[derive(Clone, Debug)]
pub(super) enum Addressed {
    /// Every one: there are none for credentials.
    All,
    /// Those with this header.
    WithHeader(&'static str),
    /// Those to this host and port.
    ToHost(String),
}

impl Addressed {
    fn is_to_store(&self, request: &HttpRequest) -> bool {
        match self {
            Addressed::All => true,
            Addressed::WithHeader(name) => request.headers().contains_key(*name),
            Addressed::ToHost(host) => {
                request.uri().authority().is_some_and(|to| to.as_str().eq_ignore_ascii_case(host))
            }
        }
    }
}

/// Connects as `object_store` does, and looks at the answers.
#[derive(Debug)]
pub(super) struct Watching {
    inner: ReqwestConnector,
    resend: Resend,
    /// Whose buckets they are, as messages name it.
    cloud: &'static str,
    addressed: Addressed,
}

impl Watching {
    pub(super) fn new(resend: Resend, cloud: &'static str, addressed: Addressed) -> Watching {
        Watching { inner: ReqwestConnector::default(), resend, cloud, addressed }
    }

    /// What speaks to the store, and to nobody to whom an answer sends it: a session token would go along, and what came
    /// from there would be no answer of the store.
    fn client(&self, options: &ClientOptions) -> object_store::Result<reqwest::Client> {
        let is_on = |key| options.get_config_value(&key).is_some_and(|value| value == "true");
        let failed =
            |error: reqwest::Error| object_store::Error::Generic { store: self.cloud, source: error.into() };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.resend.patience.connect)
            .read_timeout(self.resend.patience.silence)
            .https_only(!is_on(ClientConfigKey::AllowHttp))
            .tls_danger_accept_invalid_certs(is_on(ClientConfigKey::AllowInvalidCertificates));
        if let Some(proxy) = options.get_config_value(&ClientConfigKey::ProxyUrl) {
            builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(failed)?);
        }
        if is_on(ClientConfigKey::NoSystemCertificates) {
            builder = builder.tls_certs_only([]);
        }
        builder.build().map_err(failed)
    }
}

impl HttpConnector for Watching {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let credentials = self.inner.connect(options)?;
        let client = HttpClient::new(self.client(options)?);
        let (resend, addressed) = (self.resend.clone(), self.addressed.clone());
        Ok(HttpClient::new(Watched { client, credentials, resend, cloud: self.cloud, addressed }))
    }
}

#[derive(Debug)]
struct Watched {
    /// For requests to the store.
    client: HttpClient,
    /// For those to services that give credentials.
    credentials: HttpClient,
    resend: Resend,
    cloud: &'static str,
    addressed: Addressed,
}

impl HttpService for Watched {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> Answer<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            if !self.addressed.is_to_store(&request) {
                return self.credentials.execute(request).await;
            }
            self.resend.send(request, |request| self.answer(request)).await
        })
    }
}

impl Watched {
    /// One request; an answer that is not the store's is as a connection that broke.
    fn answer(&self, request: HttpRequest) -> Answer<'_> {
        let strange = |strange| HttpError::new(HttpErrorKind::Interrupted, strange);
        Box::pin(async move { self.once(request).await?.map_err(strange) })
    }

    /// One request, and whether the answer is the store's.
    async fn once(&self, request: HttpRequest) -> Result<Result<HttpResponse, Strange>, HttpError> {
        let reads = request.method() == Method::GET;
        let query = request.uri().query().unwrap_or_default();
        let lists = reads && query.split('&').any(|part| ["list-type=2", "comp=list"].contains(&part));
        let asked = request.headers().get("range").and_then(|range| range.to_str().ok()).map(str::to_string);
        let is_head = request.method() == Method::HEAD;
        let puts = request.method() == Method::PUT;
        let uploads = request.method() == Method::POST && query.starts_with("upload");
        let begins = query.starts_with("uploads");
        let deletes = request.method() == Method::DELETE;
        let response = self.client.execute(request).await?;
        let status = response.status();
        match status {
            StatusCode::OK if lists => self.listing(response).await,
            StatusCode::OK | StatusCode::PARTIAL_CONTENT if reads || is_head || puts => {
                match response.headers().get("etag") {
                    Some(tag) if !tag.is_empty() => match part(response, asked.as_deref()) {
                        Ok(response) if reads => measured(response, self.resend.patience).await,
                        part => Ok(part),
                    },
                    _ => Ok(Err(self.other("it has no ETag"))),
                }
            }
            StatusCode::OK if uploads => self.upload(begins, response).await,
            StatusCode::OK if deletes => self.nothing(response).await,
            StatusCode::BAD_REQUEST => {
                let (mut response, code) = self.refusal(response).await?;
                // S3 says so where it did not get the whole request in time: what others say with 408, which is tried again.
                if code.as_deref() == Some("RequestTimeout") {
                    *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
                }
                Ok(Ok(response))
            }
            // The answer to HEAD has no body, so that only asking for the object tells who refused.
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND if !is_head => {
                let (response, code) = self.refusal(response).await?;
                Ok(match code {
                    Some(_) => Ok(response),
                    None => Err(Strange::NoReason { status, cloud: self.cloud }),
                })
            }
            _ if !status.is_success() => Ok(Ok(self.refusal(response).await?.0)),
            _ => Ok(Ok(self.paced(response))),
        }
    }

    /// Hands on the page beside an empty listing.
    async fn listing(&self, response: HttpResponse) -> Result<Result<HttpResponse, Strange>, HttpError> {
        let (mut parts, body) = response.into_parts();
        let body = self.whole(body).await?;
        let page = match Page::parse(&body) {
            Ok(page) => page,
            Err(error) => {
                let said = String::from_utf8_lossy(&body);
                let code = between(&said, "<Code>", "</Code>");
                if code
                    .is_some_and(|code| ["InternalError", "ServiceUnavailable", "SlowDown"].contains(&code))
                {
                    parts.status = StatusCode::SERVICE_UNAVAILABLE;
                    return Ok(Ok(HttpResponse::from_parts(parts, body.into())));
                }
                return Ok(Err(error.into()));
            }
        };
        let empty = Bytes::from_static(page.form.empty());
        parts.extensions.insert(Arc::new(page));
        Ok(Ok(HttpResponse::from_parts(parts, empty.into())))
    }

    /// The answer to the begin or the end of an object in parts.
    async fn upload(
        &self,
        begins: bool,
        response: HttpResponse,
    ) -> Result<Result<HttpResponse, Strange>, HttpError> {
        let (parts, body) = response.into_parts();
        let body = self.whole(body).await?;
        let said = String::from_utf8_lossy(&body);
        let root = root(&said);
        // S3 may begin to answer before the end of an upload is known; what to do about an error then, `object_store` knows.
        let is_late = !begins && root == Some("Error") && between(&said, "<Code>", "</Code>").is_some();
        let is_ours = is_late || root.is_some_and(|root| root.ends_with("MultipartUploadResult"));
        Ok(match is_ours {
            true => Ok(HttpResponse::from_parts(parts, body.into())),
            false => Err(self.other("it names no upload")),
        })
    }

    /// The answer to a delete, to which S3 has nothing to say.
    async fn nothing(&self, response: HttpResponse) -> Result<Result<HttpResponse, Strange>, HttpError> {
        let (parts, body) = response.into_parts();
        let body = self.whole(body).await?;
        Ok(match body.is_empty() {
            true => Ok(HttpResponse::from_parts(parts, body.into())),
            false => Err(self.other("a delete has no body")),
        })
    }

    /// A refusal, and the code that S3 gave with it.
    async fn refusal(&self, response: HttpResponse) -> Result<(HttpResponse, Option<String>), HttpError> {
        let (parts, body) = response.into_parts();
        let body = self.whole(body).await?;
        let code = between(&String::from_utf8_lossy(&body), "<Code>", "</Code>").map(str::to_string);
        Ok((HttpResponse::from_parts(parts, body.into()), code.filter(|code| !code.is_empty())))
    }

    fn other(&self, what: &'static str) -> Strange {
        Strange::Other { cloud: self.cloud, what }
    }

    fn paced(&self, response: HttpResponse) -> HttpResponse {
        paced(response, self.resend.patience)
    }

    async fn whole(&self, body: HttpResponseBody) -> Result<Bytes, HttpError> {
        let too_large = || {
            let reason = NoListing(format!("it is larger than {} MB", PAGE_BYTES_MAX >> 20));
            HttpError::new(HttpErrorKind::Unknown, Strange::from(reason))
        };
        whole(body, self.resend.patience, PAGE_BYTES_MAX).await?.ok_or_else(too_large)
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::super::limit::RequestLimit;
    use super::*;

    /// An answer: status, headers, body.
    type Said = (u16, &'static [(&'static str, &'static str)], &'static str);

    /// A server that answers the same to every request.
    #[derive(Debug)]
    struct Always(Said);

    impl HttpService for Always {
        fn call<'a, 'b>(&'a self, _: HttpRequest) -> Answer<'b>
        where
            'a: 'b,
            Self: 'b,
        {
            let (status, headers, body) = self.0;
            let mut response = HttpResponse::new(Bytes::from_static(body.as_bytes()).into());
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            for (name, value) in headers {
                response.headers_mut().insert(*name, value.parse().expect("a value"));
            }
            Box::pin(async move { Ok(response) })
        }
    }

    fn watched(client: HttpClient, addressed: Addressed) -> Watched {
        let resend =
            Resend { patience: super::super::patience::Patience::usual(), limit: RequestLimit::new(8) };
        Watched { credentials: client.clone(), client, resend, cloud: "S3", addressed }
    }

    /// Asks a server that answers so; `range` as the header has it.
    fn ask(answer: Said, method: Method, uri: &str, range: Option<&str>) -> Result<HttpResponse, String> {
        let mut request = HttpRequest::new(Bytes::new().into());
        *request.uri_mut() = uri.parse().expect("an address");
        *request.method_mut() = method;
        if let Some(range) = range {
            request.headers_mut().insert("range", range.parse().expect("a range"));
        }
        let client = HttpClient::new(Always(answer));
        let watched = watched(client, Addressed::All);
        block_on(watched.answer(request)).map_err(|error| {
            // The kind that `object_store` sends again where that is harmless.
            assert_eq!(error.kind(), HttpErrorKind::Interrupted);
            super::super::cause::<Strange>(&error).expect("a strange answer").to_string()
        })
    }

    const PORTAL: Said = (200, &[], "<html>Log in</html>");
    const OBJECT: Said = (200, &[("etag", "\"t\"")], "bytes");
    const LIST: Said =
        (200, &[], "<ListBucketResult><Contents><Key>a//b</Key><Size>1</Size></Contents></ListBucketResult>");

    #[test]
    fn what_something_else_answers_is_no_object_and_no_absence() {
        let get = |answer: Said| ask(answer, Method::GET, "http://s/b/x", None);
        assert_eq!(get(OBJECT).expect("the object").status(), 200);
        assert!(get(PORTAL).expect_err("no object").contains("no ETag"));
        for (status, missing) in [
            (403, (403, &[][..], "<Error><Code>AccessDenied</Code></Error>")),
            (404, (404, &[][..], "<Error><Code>NoSuchKey</Code></Error>")),
        ] {
            let error = get((status, &[], "blocked by a proxy")).expect_err("a refusal");
            assert!(error.contains("without a reason of S3"), "{error}");
            assert_eq!(get(missing).expect("the store's answer").status(), status);
            // The answer to HEAD has no body.
            let head = ask((status, &[], ""), Method::HEAD, "http://s/b/x", None);
            assert_eq!(head.expect("an answer").status(), status);
        }
        // Requests for credentials bear no signature, and their answers are no objects.
        let mut request = HttpRequest::new(Bytes::new().into());
        *request.uri_mut() = "http://169.254.169.254/latest".parse().expect("an address");
        let client = HttpClient::new(Always(PORTAL));
        let watched = watched(client, Addressed::WithHeader("x-amz-content-sha256"));
        assert_eq!(block_on(watched.call(request)).expect("an answer").status(), 200);
    }

    #[test]
    fn a_web_page_is_no_listing() {
        let list = |answer: Said| ask(answer, Method::GET, "http://s/b?list-type=2&prefix=a", None);
        let page = list(LIST).expect("a page");
        let page = page.extensions().get::<Arc<Page>>().expect("the page beside the answer");
        assert_eq!(page.objects[0].key, "a//b");
        assert!(list(PORTAL).expect_err("no listing").contains("it is <html>"));
        // What S3 calls retryable goes on to who retries.
        let slow: Said = (200, &[], "<Error><Code>SlowDown</Code></Error>");
        assert_eq!(list(slow).expect("an answer").status(), 503);
    }

    #[test]
    fn another_part_than_the_one_asked_for_is_none() {
        let part = |answer: Said| ask(answer, Method::GET, "http://s/b/x", Some("bytes=5-9"));
        let right: Said = (206, &[("etag", "t"), ("content-range", "bytes 5-9/20")], "56789");
        let other: Said = (206, &[("etag", "t"), ("content-range", "bytes 0-4/20")], "01234");
        assert_eq!(part(right).expect("the part").status(), 206);
        assert!(part(other).expect_err("another").contains("bytes 0-4/20 where bytes 5-9"));
        assert!(part(OBJECT).expect_err("the whole").contains("all bytes where bytes 5-9"));
    }

    #[test]
    fn a_request_that_timed_out_at_the_server_is_tried_again() {
        let status = |body| {
            let answer = ask((400, &[], body), Method::GET, "http://s/b/x", None);
            answer.expect("an answer").status().as_u16()
        };
        assert_eq!(status("<Error><Code>RequestTimeout</Code></Error>"), 408);
        assert_eq!(status("<Error><Code>InvalidArgument</Code></Error>"), 400);
    }
}
