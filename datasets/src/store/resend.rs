//! Sending a request again: which answers call for it, and how long is waited in between.
//!
//! A request has a turn while it is on its way and until its answer is read, and none while it waits to be sent again, so that
//! a server that throttles has fewer requests to answer at once.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Timer;
use hyper_util::rt::TokioTimer;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::between;
use super::body::{PAGE_BYTES_MAX, whole};
use super::limit::{RequestLimit, Turn};
use super::listing::seconds;
use super::patience::Patience;
use super::strange::Strange;

/// What becomes of a request.
pub(super) type Answer<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

/// So often a request may be throttled while others are on their way beside it: the limit of requests is then found, which is
/// no fault of this one.
const SPARED_MAX: u32 = 20;

/// Sends requests to one server, each as often as it takes.
#[derive(Clone, Debug)]
pub(super) struct Resend {
    pub(super) patience: Patience,
    pub(super) limit: RequestLimit,
}

/// Why a request is sent again.
enum Refused {
    /// The connection broke, or what came is no answer of the store.
    Broken(HttpError),
    /// The server fails, or is asked too much.
    Failing(HttpResponse),
}

/// What a request came to in the end, after all tries: nobody sends it again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Spent(#[source] HttpError);

impl Resend {
    /// Sends a request by `once`, and again where it is throttled, where the server fails, and where a connection breaks: the
    /// latter only where the request changes nothing, or never arrived. Whether another one may be sent again after its
    /// answer was lost knows whoever made it.
    pub(super) async fn send<'a>(
        &self,
        request: HttpRequest,
        once: impl Fn(HttpRequest) -> Answer<'a> + Send + Sync,
    ) -> Result<HttpResponse, HttpError> {
        let changes_nothing = request.method().is_safe();
        // Waiting for a turn is no waiting for the server.
        let mut began = Instant::now();
        let (mut in_vain, mut spared) = (0, 0);
        loop {
            let asked = Instant::now();
            let turn = self.limit.turn().await;
            began += asked.elapsed();
            let begun = self.limit.begin();
            let mut counts = true;
            let mut named = None;
            let refused = match once(request.clone()).await {
                Ok(response) => {
                    let status = response.status();
                    let is_throttled = is_throttling(status);
                    let was_alone = self.limit.answered(begun, is_throttled);
                    if !calls_for_another(status) {
                        return Ok(held(response, turn, changes_nothing));
                    }
                    counts = !is_throttled || was_alone || spared == SPARED_MAX;
                    named = retry_after(response.headers());
                    Refused::Failing(response)
                }
                Err(error) if may_be_sent_again(error.kind(), changes_nothing) => Refused::Broken(error),
                Err(error) => return Err(error),
            };
            drop(turn);
            *(if counts { &mut in_vain } else { &mut spared }) += 1;
            if !self.patience.allows(in_vain, began) {
                return Err(match refused {
                    Refused::Broken(error) => HttpError::new(HttpErrorKind::Unknown, Spent(error)),
                    Refused::Failing(response) => self.refusal(response).await,
                });
            }
            let wait = spread(self.patience.wait_after(in_vain.max(1)));
            let wait = named.map_or(wait, |named| named.clamp(wait, self.patience.total.max(wait)));
            TokioTimer::new().sleep(wait).await;
        }
    }

    /// The answer of a server that fails, in the end.
    async fn refusal(&self, response: HttpResponse) -> HttpError {
        let (status, body) = (response.status(), response.into_body());
        let said = whole(body, self.patience, PAGE_BYTES_MAX).await.ok().flatten().unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let code = between(&said, "<Code>", "</Code>").unwrap_or_default().chars().take(60).collect();
        HttpError::new(HttpErrorKind::Unknown, Strange::Failing { status, code })
    }
}

/// Whether a server says that it is asked too much: S3's `SlowDown` and Azure's `ServerBusy` come with 503, which proxies
/// mean in the same way.
fn is_throttling(status: StatusCode) -> bool {
    [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&status)
}

fn calls_for_another(status: StatusCode) -> bool {
    status.is_server_error() || is_throttling(status) || status == StatusCode::REQUEST_TIMEOUT
}

fn may_be_sent_again(kind: HttpErrorKind, changes_nothing: bool) -> bool {
    match kind {
        HttpErrorKind::Connect | HttpErrorKind::Request => true,
        HttpErrorKind::Timeout | HttpErrorKind::Interrupted => changes_nothing,
        _ => false,
    }
}

/// How long a server asks to be left alone: seconds, or until a time.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let said = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
    match said.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Duration::from_secs(seconds(said)?.try_into().ok()?).checked_sub(now()?),
    }
}

/// A wait, longer or shorter by up to a quarter, so that requests that were refused together do not come back together.
fn spread(wait: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1024;
    wait.mul_f64(0.75 + random as f64 / 2048.0)
}

/// An answer that has its turn until its body is read.
fn held(response: HttpResponse, turn: Turn, has_body: bool) -> HttpResponse {
    if !has_body {
        return response;
    }
    let (parts, inner) = response.into_parts();
    HttpResponse::from_parts(parts, HttpResponseBody::new(Held { inner, turn: Some(turn) }))
}

/// A body with the turn of its request, which goes with its end.
struct Held {
    inner: HttpResponseBody,
    turn: Option<Turn>,
}

impl Body for Held {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        // Whoever goes on where a body broke off still has the rest of it, and wants a turn.
        if let Poll::Ready(None | Some(Err(_))) = &frame {
            self.turn = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_how_long_it_wants_to_be_left_alone() {
        let said = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().expect("a value"));
            retry_after(&headers)
        };
        assert_eq!(said("7"), Some(Duration::from_secs(7)));
        assert!(said("Thu, 31 Dec 2099 08:07:06 GMT").is_some_and(|wait| wait > Duration::from_secs(3600)));
        for none in ["soon", "-1", "Thu, 01 Jan 1970 00:00:00 GMT"] {
            assert_eq!(said(none), None, "{none}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn a_wait_is_spread_by_a_quarter() {
        let waits: Vec<Duration> = (0..100).map(|_| spread(Duration::from_secs(100))).collect();
        assert!(waits.iter().all(|wait| (75..=125).contains(&wait.as_secs())), "{waits:?}");
        assert!(waits.iter().max() > waits.iter().min());
    }

    #[test]
    fn only_what_changes_nothing_or_never_arrived_is_sent_again_after_a_broken_connection() {
        for (kind, of_a_get, of_a_put) in [
            (HttpErrorKind::Connect, true, true),
            (HttpErrorKind::Request, true, true),
            (HttpErrorKind::Timeout, true, false),
            (HttpErrorKind::Interrupted, true, false),
            (HttpErrorKind::Unknown, false, false),
        ] {
            assert_eq!((may_be_sent_again(kind, true), may_be_sent_again(kind, false)), (of_a_get, of_a_put));
        }
    }
}
