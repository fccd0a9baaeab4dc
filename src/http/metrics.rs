//! Prometheus metrics of the process.

use std::{
    cell::RefCell,
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use metrics::{Counter, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use rollcall_edge::drain::drain_refused;

const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
const APPENDS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 384.0, 512.0];

/// Starts counting.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_appends".to_owned()), &APPENDS)?
        .install_recorder()
        .context("metrics could not be started")?;
    describe();
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("rollcall_http_requests_total", "Requests by route, method and status");
    describe_histogram!("rollcall_http_request_seconds", "Time from a request's head to its answer's");
    describe_histogram!("rollcall_append_batch_appends", "Appends that one statement stored or judged");
    describe_histogram!("rollcall_append_batch_seconds", "Time of one append statement");
    describe_gauge!("rollcall_append_queue", "Appends that wait for a writer");
    describe_counter!("rollcall_projection_events_total", "Events that a projection applied");
    describe_counter!("rollcall_projection_failures_total", "Batches that failed and are tried again");
    describe_counter!(
        "rollcall_projection_stops_total",
        "Partitions that stopped at an event: someone must look"
    );
    describe_gauge!("rollcall_projection_lag_events", "Events that a projection has yet to apply");
    describe_counter!("rollcall_published_events_total", "Events that NATS acknowledged");
    describe_counter!(
        "rollcall_publisher_failures_total",
        "Attempts to publish that failed and are repeated"
    );
}

/// Counts a request under its route, never under its path: paths hold ids, and are without number.
pub async fn count_requests(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = method_name(request.method());
    let begun = Instant::now();
    // One layer for both: each costs every request an allocation or two.
    let response = drain_refused(request, next).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let elapsed = begun.elapsed();
    HANDLES.with_borrow_mut(|handles| {
        let (requests, seconds) = handles.of(route, method, response.status().as_u16());
        requests.increment(1);
        seconds.record(elapsed.as_secs_f64());
    });
    response
}

thread_local! {
    /// Looking a metric up by its labels costs more than counting, so each thread remembers what it found.
    static HANDLES: RefCell<Handles> = RefCell::default();
}

/// Metrics by route, method and status. Routes, known methods and statuses are few.
#[derive(Default)]
struct Handles(HashMap<String, OfRoute>);

/// By method and status.
type OfRoute = HashMap<(&'static str, u16), (Counter, Histogram)>;

impl Handles {
    fn of(&mut self, route: &str, method: &'static str, status: u16) -> &(Counter, Histogram) {
        if !self.0.contains_key(route) {
            self.0.insert(route.to_owned(), HashMap::new());
        }
        let of_route = self.0.get_mut(route).expect("inserted above");
        of_route.entry((method, status)).or_insert_with(|| {
            let requests = metrics::counter!(
                "rollcall_http_requests_total",
                "route" => route.to_owned(), "method" => method, "status" => status.to_string()
            );
            (requests, metrics::histogram!("rollcall_http_request_seconds", "route" => route.to_owned()))
        })
    }
}

/// Clients may invent methods; labels may not.
fn method_name(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
