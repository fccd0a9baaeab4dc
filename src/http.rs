//! The HTTP side of the process: the APIs' routes, their description, health and metrics.

pub mod health;
pub mod metrics;
mod openapi;
mod requests;

use std::sync::Arc;

use axum::{Router, http::header::CONTENT_TYPE, middleware, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use rollcall_edge::{fallback::with_fallbacks, problem};
use utoipa_axum::router::OpenApiRouter;

use health::Health;

/// All routes of the process.
pub fn router(api: OpenApiRouter, health: Health, metrics: PrometheusHandle) -> Router {
    let (api, description) = api.split_for_parts();
    let description: Arc<str> = openapi::document(description).into();
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
        .merge(problem::routes());
    with_fallbacks(router).layer(middleware::from_fn(requests::observe))
}
