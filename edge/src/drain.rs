//! Refusals reach whoever sends a huge body.
//!
//! A server that answers and closes while bytes still come makes the kernel reset the connection, and the client sees a
//! broken pipe instead of the problem document. So what a refused request still sends is read and dropped, within
//! bounds, before the answer goes out. Bodies that announce themselves as small cost nothing extra.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
};
use bytes::Bytes;
use http::{
    StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body_util::BodyExt;

/// The server reads this much by itself before it closes.
const SMALL_BYTES: u64 = 16 * 1024;
const DROPPED_BYTES_MAX: usize = 64 * 1024 * 1024;
const DROP_WITHIN: Duration = Duration::from_secs(5);

/// What is left of a request's body once the request was answered.
pub struct Rest(Option<Shared>);

impl Rest {
    /// The request as it is to be handled, and a hold on its body where that may be long.
    pub fn of(request: Request) -> (Request, Self) {
        let headers = request.headers();
        let announced =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.unwrap_or_default() <= SMALL_BYTES && !headers.contains_key(TRANSFER_ENCODING) {
            return (request, Self(None));
        }
        let (parts, body) = request.into_parts();
        let shared = Shared(Arc::new(Mutex::new(body)));
        (Request::from_parts(parts, Body::new(shared.clone())), Self(Some(shared)))
    }

    /// On a refusal, reads and drops it.
    pub async fn drop_if_refused(self, status: StatusCode) {
        if let Self(Some(shared)) = self
            && !status.is_success()
        {
            // Whoever sends longer than this gets the reset after all.
            let _ = tokio::time::timeout(DROP_WITHIN, shared.drop_rest()).await;
        }
    }
}

/// A body that the handler reads and this layer can go on with.
#[derive(Clone)]
struct Shared(Arc<Mutex<Body>>);

impl Shared {
    async fn drop_rest(mut self) {
        let mut dropped = 0;
        while let Some(Ok(frame)) = self.frame().await {
            dropped += frame.data_ref().map_or(0, Bytes::len);
            if dropped > DROPPED_BYTES_MAX {
                return;
            }
        }
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(context)
    }
}
