//! What every request passes first: bounds on how much is at work at once and for how long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderValue, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};
use rollcall_edge::{Problem, budget::Budget, problem::code};

use crate::config::Limits;

const URL_BYTES_MAX: usize = 8 * 1024;
/// Bodies that announce themselves as smaller take no room; see [`Budget`].
const SMALL_BYTES: u64 = 16 * 1024;

/// The bounds of a process. Cheap to clone.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    requests_max: usize,
    request_timeout: Duration,
    at_work: AtomicUsize,
    bodies: Budget,
    stopping: AtomicBool,
}

impl Guard {
    pub fn new(limits: &Limits) -> Self {
        Self(Arc::new(Inner {
            requests_max: limits.requests,
            request_timeout: limits.request_timeout,
            at_work: AtomicUsize::new(0),
            bodies: Budget::new(limits.body_bytes_in_flight),
            stopping: AtomicBool::new(false),
        }))
    }

    /// From now on the process is not ready, and each answer asks its client to go elsewhere for the next request.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    pub fn stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// Requests that are being worked on.
    pub fn at_work(&self) -> usize {
        self.0.at_work.load(Ordering::Relaxed)
    }

    /// None where as many are at work as may be.
    fn begin(&self) -> Option<AtWork<'_>> {
        let at_work = self.0.at_work.fetch_add(1, Ordering::Relaxed);
        let begun = AtWork(&self.0);
        (at_work < self.0.requests_max).then_some(begun)
    }
}

/// A request at work, for as long as this lives.
struct AtWork<'a>(&'a Inner);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Middleware: keeps requests within the bounds. Health and metrics answer whatever is at work.
pub async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let http1 = request.version() <= Version::HTTP_11;
    let mut response =
        if request.uri().path_and_query().is_some_and(|path| path.as_str().len() > URL_BYTES_MAX) {
            let detail =
                format!("the path and the query string must not be longer than {URL_BYTES_MAX} bytes");
            Problem::new(code::URI_TOO_LONG, detail).into_response()
        } else if !request.uri().path().starts_with("/api/") {
            next.run(request).await
        } else if let Some(_at_work) = guard.begin() {
            let room = is_large(request.headers()).then(|| guard.0.bodies.of_request());
            if let Some(room) = &room {
                request.extensions_mut().insert(room.clone());
            }
            let answer = tokio::time::timeout(guard.0.request_timeout, next.run(request)).await;
            // What the body took is free again once there is an answer.
            drop(room);
            answer.unwrap_or_else(|_| {
                tracing::warn!("a request took too long and was given up");
                Problem::unavailable("the request took too long: it may or may not have happened", 1)
                    .into_response()
            })
        } else {
            metrics::counter!("rollcall_http_requests_refused_total").increment(1);
            Problem::new(code::OVERLOADED, "too many requests are at work; nothing was done")
                .with_retry_after_s(1)
                .into_response()
        };
    if http1 && guard.stopping() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn is_large(headers: &HeaderMap) -> bool {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    announced.unwrap_or_default() > SMALL_BYTES
        || headers.contains_key(TRANSFER_ENCODING)
        || headers.contains_key(http::header::CONTENT_ENCODING)
}
