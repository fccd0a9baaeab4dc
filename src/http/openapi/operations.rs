//! The routes of operations, which every role serves. Their handlers stand beside what they tell of; a test holds these
//! descriptions against the running service.
#![expect(dead_code, reason = "only their descriptions are used")]

use std::collections::BTreeMap;

use rollcall_edge::openapi::{problem_responses, tags};
use rollcall_edge::problem::code;
use utoipa::{
    IntoResponses, OpenApi, ToSchema,
    openapi::{RefOr, Response},
};

/// The descriptions of these routes.
pub fn described() -> utoipa::openapi::OpenApi {
    Operations::openapi()
}

#[derive(OpenApi)]
#[openapi(paths(livez, readyz, health, health_detailed, metrics, openapi, docs, problems, problem))]
struct Operations;

/// Whether the process lives
///
/// As long as this answers, restarting the process mends nothing.
#[utoipa::path(get, path = "/livez", tag = tags::OPERATIONS,
    responses((status = 200, description = "It lives", body = Liveness)))]
fn livez() {}

/// Whether the process can serve
///
/// A load balancer sends requests only where this answers 200. NATS may be away, since nothing waits for it.
#[utoipa::path(get, path = "/readyz", tag = tags::OPERATIONS,
    responses((status = 200, description = "It serves", body = Health),
        (status = 503, description = "It does not serve: it is stopping, or something that it needs is away", body = Health)))]
fn readyz() {}

/// How the process is
///
/// The same as `/readyz`, under the name that some tools ask for.
#[utoipa::path(get, path = "/health", tag = tags::OPERATIONS,
    responses((status = 200, description = "It serves", body = Health),
        (status = 503, description = "It does not serve", body = Health)))]
fn health() {}

/// How the process is, in detail
///
/// Each dependency, how far each projection is behind the log, the version and the uptime.
#[utoipa::path(get, path = "/health/detailed", tag = tags::OPERATIONS,
    responses((status = 200, description = "It serves", body = Health),
        (status = 503, description = "It does not serve", body = Health)))]
fn health_detailed() {}

/// Metrics
///
/// In Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = tags::OPERATIONS,
    responses((status = 200, description = "The metrics of this process", body = String, content_type = "text/plain",
        example = json!("# TYPE rollcall_append_queue gauge\nrollcall_append_queue 0\n"))))]
fn metrics() {}

/// This document
///
/// OpenAPI 3.1.
#[utoipa::path(get, path = "/openapi.json", tag = tags::OPERATIONS,
    responses((status = 200, description = "The document", body = Document)))]
fn openapi() {}

/// This document as a page
///
/// Swagger UI; nothing is loaded from elsewhere.
#[utoipa::path(get, path = "/docs", tag = tags::OPERATIONS,
    responses((status = 200, description = "The page", body = String, content_type = "text/html",
        example = json!("<!doctype html>"))))]
fn docs() {}

/// List the types of problems
///
/// A page for browsers, text for others.
#[utoipa::path(get, path = "/problems", tag = tags::OPERATIONS,
    responses((status = 200, description = "All types", headers(("Vary")), content(
        (String = "text/plain", example = json!("not-found (404 Not Found)\n    There is no such resource\n")),
        (String = "text/html", example = json!("<!doctype html>"))))))]
fn problems() {}

/// Explain a type of problems
///
/// Where a problem document's `type` leads: what it means, what to do about it, and an example.
#[utoipa::path(get, path = "/problems/{code}", tag = tags::OPERATIONS, 
    params(("code" = String, Path, description = "`code` of a problem document", example = "email-taken")),
    responses((status = 200, description = "About the type", headers(("Vary")), content(
        (String = "text/plain", example = json!("not-found (404 Not Found)\n\nThere is no such resource\n")),
        (String = "text/html", example = json!("<!doctype html>")))), UnknownProblem))]
fn problem() {}

struct UnknownProblem;

impl IntoResponses for UnknownProblem {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem_responses(&[code::MALFORMED_PATH, code::NOT_FOUND])
    }
}

#[derive(ToSchema)]
#[schema(example = json!({"status": "alive"}))]
struct Liveness {
    status: String,
}

/// How the process is. Details may grow.
#[derive(ToSchema)]
#[schema(example = json!({"status": "ready", "checks": {"postgres": {"status": "up"}, "nats": {"status": "up"}}}))]
struct Health {
    /// `ready`, `degraded` (NATS is away, or the keys of some issuers are), `unavailable` or `stopping`.
    status: String,
    /// By what is checked.
    checks: BTreeMap<String, Check>,
}

/// One dependency.
#[derive(ToSchema)]
struct Check {
    status: Condition,
    /// What is wrong, where something is.
    #[schema(required = false, nullable = false)]
    detail: Option<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum Condition {
    Up,
    Down,
}

/// An OpenAPI document.
#[derive(ToSchema)]
#[schema(example = json!({"openapi": "3.1.0", "info": {"title": "Rollcall", "version": "0.1.0"}, "paths": {}}))]
struct Document {
    openapi: String,
    info: BTreeMap<String, serde_json::Value>,
    paths: BTreeMap<String, serde_json::Value>,
}
