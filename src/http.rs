//! The HTTP side of the process: the APIs' routes, their description, health and metrics.

mod docs;
pub mod guard;
pub mod health;
pub mod metrics;
mod openapi;
mod requests;
pub mod server;

use std::sync::Arc;

use axum::{Router, http::header::CONTENT_TYPE, middleware, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use rollcall_edge::{fallback::with_fallbacks, problem};
use tower::ServiceBuilder;
use tower_http::compression::{CompressionLayer, predicate::SizeAbove};
use utoipa_axum::router::OpenApiRouter;

use guard::Guard;
use health::Health;

/// Smaller answers are sent as they are: compressing them costs more than it saves.
const COMPRESSED_BYTES_MIN: u16 = 1_024;

/// All routes of the process.
pub fn router(api: OpenApiRouter, health: Health, guard: Guard, metrics: PrometheusHandle) -> Router {
    // The whole API, whatever part of it this process serves: a client sees it behind one load balancer.
    let description: Arc<str> = openapi::document().into();
    let (api, _) = api.split_for_parts();
    let exposition = move || {
        let text = metrics.render();
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
    };
    let router = api
        .route(
            "/openapi.json",
            get(move || {
                let text = description.to_string();
                async move { ([(CONTENT_TYPE, "application/json")], text) }
            }),
        )
        .route("/metrics", get(exposition))
        .merge(health::routes(health))
        .merge(problem::routes())
        .merge(docs::routes());
    let passed = ServiceBuilder::new()
        .layer(middleware::from_fn(requests::observe))
        .layer(middleware::from_fn_with_state(guard, guard::guard))
        .layer(CompressionLayer::new().compress_when(SizeAbove::new(COMPRESSED_BYTES_MIN)));
    with_fallbacks(router).layer(passed)
}
