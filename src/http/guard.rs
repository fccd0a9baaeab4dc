//! What every request passes first: bounds on how much is at work at once and for how long, to the last byte of the answer.

mod answer;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::HttpBody,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt, future::BoxFuture};
use http::{
    HeaderValue,
    header::{CONNECTION, CONTENT_ENCODING},
};
use rollcall_edge::{
    Problem,
    budget::{BodyBudget, Budget, FREE_BYTES},
    problem::code,
    respond::Irrevocable,
};
use tokio::time::{Instant, Timeout, timeout_at};
use tower::{Layer, Service};

use crate::config::Limits;

const URL_BYTES_MAX: usize = 8 * 1024;
/// What answers whatever is at work: who watches must see.
const ALWAYS: [&str; 5] = ["/livez", "/readyz", "/health", "/health/detailed", "/metrics"];

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
            bodies: Budget::new(limits.bytes_in_flight),
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

    /// Requests that are being worked on, or whose answers are being sent.
    pub fn at_work(&self) -> usize {
        self.0.at_work.load(Ordering::Relaxed)
    }

    /// None where as many are at work as may be.
    fn begin(&self) -> Option<AtWork> {
        let at_work = self.0.at_work.fetch_add(1, Ordering::Relaxed);
        let begun = AtWork(Arc::clone(&self.0));
        (at_work < self.0.requests_max).then_some(begun)
    }
}

/// A request at work, for as long as this lives.
struct AtWork(Arc<Inner>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The layer that keeps requests within the bounds.
impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, service: S) -> Guarded<S> {
        Guarded { guard: self.clone(), service }
    }
}

#[derive(Clone)]
pub struct Guarded<S> {
    guard: Guard,
    service: S,
}

impl<S> Service<Request> for Guarded<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let guard = self.guard.clone();
        if ALWAYS.contains(&request.uri().path()) {
            let answer = self.service.call(request);
            return async move { Ok(guard.told(answer.await.unwrap_or_else(|never| match never {}))) }
                .boxed();
        }
        if request.uri().path_and_query().is_some_and(|path| path.as_str().len() > URL_BYTES_MAX) {
            let detail =
                format!("the path and the query string must not be longer than {URL_BYTES_MAX} bytes");
            return guard.refuse(Problem::new(code::URI_TOO_LONG, detail).into_response());
        }
        let Some(at_work) = guard.begin() else {
            metrics::counter!("rollcall_http_requests_refused_total").increment(1);
            return guard.refuse(overloaded("too many requests are at work; nothing was done"));
        };
        let deadline = Instant::now() + guard.0.request_timeout;
        let room = is_large(&request).then(|| guard.0.bodies.of_request());
        if let Some(room) = &room {
            request.extensions_mut().insert(room.clone());
        }
        let answer = timeout_at(deadline, self.service.call(request));
        bounded(guard, at_work, room, answer).map(Ok).boxed()
    }
}

impl Guard {
    /// The answer, with a word to its client where the process stops.
    fn told(&self, mut response: Response) -> Response {
        if self.stopping() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn refuse(&self, response: Response) -> BoxFuture<'static, Result<Response, Infallible>> {
        std::future::ready(Ok(self.told(response))).boxed()
    }
}

/// Within its time and its room.
async fn bounded(
    guard: Guard,
    at_work: AtWork,
    room: Option<BodyBudget>,
    answer: Timeout<impl Future<Output = Result<Response, Infallible>>>,
) -> Response {
    let Ok(response) = answer.await else {
        let detail = "the request took too long: a command may or may not have happened";
        return guard.told(Problem::unavailable(detail, 1).into_response());
    };
    let response = response.unwrap_or_else(|never| match never {});
    let bytes = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    guard.told(match bytes {
        // The number of requests bounds these; a connection's buffer takes them whole.
        Some(bytes) if bytes <= FREE_BYTES => response,
        _ => large(&guard.0, at_work, room, response, bytes.unwrap_or_default()),
    })
}

/// A large answer: its room is taken, and it must be taken away in time.
fn large(
    inner: &Inner,
    at_work: AtWork,
    room: Option<BodyBudget>,
    response: Response,
    bytes: usize,
) -> Response {
    let room = room.unwrap_or_else(|| inner.bodies.of_request());
    let irrevocable = response.extensions().get::<Irrevocable>().is_some();
    if room.take(bytes).is_err() && !irrevocable {
        return overloaded("there is no room for an answer of this size now; ask for a smaller page");
    }
    let deadline = Instant::now() + inner.request_timeout;
    response.map(|body| answer::within(body, deadline, (at_work, room)))
}

fn overloaded(detail: &str) -> Response {
    Problem::new(code::OVERLOADED, detail).with_retry_after_s(1).into_response()
}

/// Whether the body may become more than every request may have: it is long, of unknown length, or compressed.
fn is_large(request: &Request) -> bool {
    let upper = request.body().size_hint().upper();
    upper.is_none_or(|upper| upper > FREE_BYTES as u64) || request.headers().contains_key(CONTENT_ENCODING)
}
