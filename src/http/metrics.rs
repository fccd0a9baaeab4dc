//! Prometheus metrics of the process. No label names a tenant, a user or a path: labels stay few, and name nobody.

mod describe;

use std::{cell::RefCell, collections::HashMap, time::Duration};

use anyhow::Context;
use http::StatusCode;
use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use rollcall_event_store::Log;
use rollcall_projections::progress::Registry;

const SECONDS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
const APPENDS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 384.0, 512.0];
const KEYS: [f64; 6] = [1.0, 4.0, 16.0, 64.0, 128.0, 256.0];
const EVENTS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1_000.0, 2_000.0, 4_000.0];

/// Starts counting for a process of a role: `up`, `command-api`, ….
pub fn install(role: &'static str) -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_appends".to_owned()), &APPENDS)?
        .set_buckets_for_metric(Matcher::Suffix("_keys".to_owned()), &KEYS)?
        .set_buckets_for_metric(Matcher::Suffix("_events".to_owned()), &EVENTS)?
        .install_recorder()
        .context("metrics could not be started")?;
    describe::all();
    Collector::default().describe();
    metrics::counter!("rollcall_trace_spans_lost_total").increment(0);
    metrics::gauge!("rollcall_build_info", "version" => env!("CARGO_PKG_VERSION"), "role" => role).set(1.0);
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// Sets the gauges that are read from time to time: of the process, of the log's handle, and how far each reader of the
/// log is behind. To be called every second; says so by `rollcall_postgres_up` where the database does not answer.
pub async fn measure(log: &Log, registry: &Registry) {
    Collector::default().collect();
    log.measure();
    let heads = log.heads();
    let mut readers = Vec::new();
    for (version, progress, serving) in registry.versions() {
        let positions: Vec<u64> = (0..log.partitions()).map(|of| progress.position(of)).collect();
        let behind = (0..).zip(&positions).map(|(of, &applied)| heads.position(of).saturating_sub(applied));
        let events = behind.sum::<u64>() as f64;
        if serving {
            metrics::gauge!("rollcall_projection_lag_events", "projection" => version.projection).set(events);
            readers.push((version, positions));
        } else {
            let number = version.number.to_string();
            metrics::gauge!(
                "rollcall_projection_behind_events", "projection" => version.projection, "version" => number
            )
            .set(events);
        }
    }
    let (readers, positions): (Vec<_>, Vec<_>) = readers.into_iter().unzip();
    let seconds = log.lag_seconds(&positions).await;
    metrics::gauge!("rollcall_postgres_up").set(if seconds.is_ok() { 1.0 } else { 0.0 });
    for (version, seconds) in readers.iter().zip(seconds.unwrap_or_default()) {
        metrics::gauge!("rollcall_projection_lag_seconds", "projection" => version.projection).set(seconds);
    }
}

/// Counts a request under its route, its method's name and its status.
pub fn count(route: &str, method: &'static str, status: StatusCode, elapsed: Duration) {
    HANDLES.with_borrow_mut(|handles| {
        let (requests, seconds) = handles.of(route, method, status.as_u16());
        requests.increment(1);
        seconds.record(elapsed.as_secs_f64());
    });
}

/// A request that is being answered, until it is dropped.
pub struct InFlight;

impl InFlight {
    pub fn enter() -> Self {
        IN_FLIGHT.with(|gauge| gauge.increment(1.0));
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // A thread that ends has nobody left to tell.
        let _ = IN_FLIGHT.try_with(|gauge| gauge.decrement(1.0));
    }
}

thread_local! {
    /// Looking a metric up by its labels costs more than counting, so each thread remembers what it found.
    static HANDLES: RefCell<Handles> = RefCell::default();
    static IN_FLIGHT: Gauge = metrics::gauge!("rollcall_http_requests_in_flight");
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
pub fn method_name(method: &http::Method) -> &'static str {
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
