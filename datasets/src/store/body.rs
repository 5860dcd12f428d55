//! Bodies of answers: read whole up to a limit, or given up when they only drip.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpErrorKind, HttpResponse, HttpResponseBody};

use super::patience::{Pace, Patience, TooSlow};

/// A refusal, or a page of a listing, is not larger; nor is an object whose length nobody says.
pub(super) const PAGE_BYTES_MAX: usize = 16 << 20;

/// An answer whose body ends with an error when it only drips.
pub(super) fn paced(response: HttpResponse, patience: Patience) -> HttpResponse {
    let (parts, inner) = response.into_parts();
    let body = Paced { inner, pace: Pace::new(patience), patience };
    HttpResponse::from_parts(parts, HttpResponseBody::new(body))
}

/// A body of at most so many bytes; `None` where it has more.
pub(super) async fn whole(
    body: HttpResponseBody,
    patience: Patience,
    bytes_max: usize,
) -> Result<Option<Bytes>, HttpError> {
    let paced = Paced { inner: body, pace: Pace::new(patience), patience };
    let mut chunks = HttpResponseBody::new(paced).bytes_stream();
    let mut whole = BytesMut::new();
    while let Some(chunk) = chunks.try_next().await? {
        whole.extend_from_slice(&chunk);
        if whole.len() > bytes_max {
            return Ok(None);
        }
    }
    Ok(Some(whole.freeze()))
}

/// A body that ends with an error when it only drips.
struct Paced {
    inner: HttpResponseBody,
    pace: Pace,
    patience: Patience,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            if self.pace.is_too_slow(bytes) {
                let error = HttpError::new(HttpErrorKind::Timeout, TooSlow::from(self.patience));
                return Poll::Ready(Some(Err(error)));
            }
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
