//! What is seen of every request: its ids in log lines and answer, a span, a count, a line where it failed.
//!
//! Under its route, never under its path: paths and queries hold ids and more, and are without number.

use std::{
    convert::Infallible,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::extract::{MatchedPath, Request};
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use rollcall_edge::{
    drain::Rest,
    metadata::{RequestIds, Traceparent},
};
use rollcall_event_store::trace;
use tower::{Layer, Service};
use tracing::{Instrument, Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::metrics;
use crate::telemetry::REQUEST;

static REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
static CORRELATION_ID: HeaderName = HeaderName::from_static("correlation-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What takes longer is logged.
const SLOW: Duration = Duration::from_secs(1);
/// Lines about failed or slow requests in a second at most: an overload must not become a flood of lines.
const LINES_PER_SECOND_MAX: u32 = 20;
/// Where 503 is an answer and no failure.
const PROBES: [&str; 4] = ["/livez", "/readyz", "/health", "/health/detailed"];

/// Layer, the outermost: sees the request whatever becomes of it. Written by hand, and one for all, because a layer made
/// by axum's `from_fn` costs every request half a dozen allocations.
#[derive(Clone)]
pub struct Observe;

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed(inner)
    }
}

#[derive(Clone)]
pub struct Observed<S>(S);

impl<S, B> Service<Request> for Observed<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<B>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let begun = Instant::now();
        let in_flight = metrics::InFlight::enter();
        let matched = request.extensions().get::<MatchedPath>().cloned();
        let method = metrics::method_name(request.method());
        let route = matched.as_ref().map_or("none", MatchedPath::as_str);
        let span = span(route, method, request.headers_mut());
        let ids = RequestIds::settle(request.headers_mut());
        if !span.is_disabled() {
            span.record("request.id", ids.request());
            span.record("correlation.id", ids.correlation());
        }
        let (request, rest) = Rest::of(request);
        let answer = self.0.call(request);
        async move {
            let answered = async {
                let response = answer.await.unwrap_or_else(|never| match never {});
                rest.drop_if_refused(response.status()).await;
                response
            };
            let mut response = REQUEST.scope(ids.clone(), answered.instrument(span.clone())).await;
            let (status, elapsed) = (response.status(), begun.elapsed());
            let route = matched.as_ref().map_or("none", MatchedPath::as_str);
            metrics::count(route, method, status, elapsed);
            let headers = response.headers_mut();
            headers.insert(REQUEST_ID.clone(), ids.request_value().clone());
            if (status.is_client_error() || status.is_server_error())
                && !headers.contains_key(&CORRELATION_ID)
            {
                headers.insert(CORRELATION_ID.clone(), ids.correlation_value().clone());
            }
            span.record("http.status", status.as_u16());
            if status.is_server_error() {
                span.record("otel.status_code", "ERROR");
            }
            REQUEST.sync_scope(ids, || log(route, method, status, elapsed));
            drop(in_flight);
            Ok(response)
        }
        .boxed()
    }
}

/// The request's span, under the caller's where there is one; disabled unless traces are taken. Where it is sampled, the
/// headers name it from now on, and so do the events that the request causes.
fn span(route: &str, method: &'static str, headers: &mut HeaderMap) -> Span {
    let span = tracing::info_span!(
        "http.request",
        otel.kind = "server",
        otel.status_code = Empty,
        http.route = route,
        http.method = method,
        http.status = Empty,
        request.id = Empty,
        correlation.id = Empty,
    );
    if span.is_disabled() {
        return span;
    }
    if let Some(parent) = caller(headers) {
        // Fails only where there is no layer for spans, and then the span is disabled.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent));
    }
    let context = span.context();
    let ours = context.span().span_context().clone();
    if ours.is_sampled()
        && let Ok(text) = HeaderValue::try_from(format!("00-{}-{}-01", ours.trace_id(), ours.span_id()))
    {
        headers.insert(TRACEPARENT.clone(), text);
    }
    span
}

/// The caller's span, as [`RequestMetadata`](rollcall_edge::metadata::RequestMetadata) reads it.
fn caller(headers: &HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all(&TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    trace::parent(Traceparent::parse(value.to_str().ok()?)?.as_str())
}

fn log(route: &str, method: &'static str, status: StatusCode, elapsed: Duration) {
    let failed = status.is_server_error() && !PROBES.contains(&route);
    let (status, duration_ms) = (status.as_u16(), elapsed.as_secs_f64() * 1_000.0);
    if !failed && elapsed < SLOW {
        tracing::debug!(
            http.route = route,
            http.method = method,
            http.status = status,
            duration_ms,
            "answered"
        );
        return;
    }
    let Some(unlogged) = admitted(Instant::now()) else { return };
    if failed {
        tracing::warn!(
            http.route = route,
            http.method = method,
            http.status = status,
            duration_ms,
            unlogged,
            "a request failed"
        );
    } else {
        tracing::info!(
            http.route = route,
            http.method = method,
            http.status = status,
            duration_ms,
            unlogged,
            "a request was slow"
        );
    }
}

/// Lines of the current second.
struct Lines {
    since: Instant,
    lines: u32,
    unlogged: u64,
}

/// Whether there may be a line now, and how many there might have been since the last.
fn admitted(now: Instant) -> Option<u64> {
    static LINES: Mutex<Option<Lines>> = Mutex::new(None);
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = lines.get_or_insert(Lines { since: now, lines: 0, unlogged: 0 });
    if now.duration_since(lines.since) >= Duration::from_secs(1) {
        (lines.since, lines.lines) = (now, 0);
    }
    if lines.lines == LINES_PER_SECOND_MAX {
        lines.unlogged += 1;
        return None;
    }
    lines.lines += 1;
    Some(std::mem::take(&mut lines.unlogged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_failures_is_a_few_lines_that_say_how_many_are_missing() {
        let begun = Instant::now();
        let admitted_now = (0..100).filter(|_| admitted(begun).is_some()).count();
        assert_eq!(admitted_now, 20);
        assert_eq!(admitted(begun + Duration::from_secs(1)), Some(80));
        assert_eq!(admitted(begun + Duration::from_secs(1)), Some(0));
    }
}
