//! The HTTP side of the process: the APIs' routes, their description, health and metrics.

mod docs;
pub mod guard;
pub mod health;
pub mod metrics;
mod openapi;
mod requests;
pub mod server;

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{
    Extensions, HeaderMap, StatusCode, Version,
    header::{CONTENT_TYPE, ETAG},
};
use metrics_exporter_prometheus::PrometheusHandle;
use rollcall_edge::{fallback::with_fallbacks, problem};
use tower::ServiceBuilder;
use tower_http::compression::{CompressionLayer, Predicate, predicate::SizeAbove};
use utoipa_axum::router::OpenApiRouter;

use guard::Guard;
use health::Health;

/// Smaller answers are sent as they are: compressing them costs more than it saves.
const COMPRESSED_BYTES_MIN: u16 = 1_024;

/// All routes of the process.
pub fn router(api: OpenApiRouter, health: Health, guard: Guard, metrics: PrometheusHandle) -> Router {
    // The whole API, whatever part of it this process serves: a client sees it behind one load balancer.
    let description = Bytes::from(openapi::document());
    let (api, _) = api.split_for_parts();
    let exposition = move || {
        let text = metrics.render();
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
    };
    let router = api
        .route(
            "/openapi.json",
            get(move || {
                let text = description.clone();
                async move { ([(CONTENT_TYPE, "application/json")], text) }
            }),
        )
        .route("/metrics", get(exposition))
        .merge(health::routes(health))
        .merge(problem::routes())
        .merge(docs::routes());
    let passed = ServiceBuilder::new()
        .layer(requests::Observe)
        .layer(CompressionLayer::new().compress_when(SizeAbove::new(COMPRESSED_BYTES_MIN).and(has_no_etag)))
        .layer(guard);
    with_fallbacks(router).layer(passed)
}

/// A strong ETag is of these bytes and no others (RFC 9110 8.8.3).
fn has_no_etag(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    !headers.contains_key(ETAG)
}
