//! HTTP over the read models.
//!
//! Shape: request -> wait until the projection has passed the consistency token -> a query -> answer with a token.
//!
//! *Invariant:* a query with a token never sees the past of what the token saw; a query takes no locks and never
//! triggers projection.

mod consistency;
mod routes;
mod schemas;

use axum::extract::FromRef;
use rollcall_edge::auth::Authenticator;
use rollcall_projections::{audit, profiles, progress::Serving};
use tokio::sync::watch;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// What the routes share.
#[derive(Clone)]
pub struct QueryApi {
    pub log_id: Uuid,
    pub profiles: profiles::Queries,
    pub profiles_serving: watch::Receiver<Option<Serving>>,
    pub audit: audit::Queries,
    pub audit_serving: watch::Receiver<Option<Serving>>,
    pub authenticator: Authenticator,
}

impl FromRef<QueryApi> for Authenticator {
    fn from_ref(api: &QueryApi) -> Self {
        api.authenticator.clone()
    }
}

/// The query routes with their descriptions.
pub fn router(api: QueryApi) -> OpenApiRouter {
    routes().with_state(api)
}

/// The description alone, for a process that serves other routes.
pub fn description() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<QueryApi> {
    OpenApiRouter::new()
        .routes(routes!(routes::users::list_users))
        .routes(routes!(routes::users::query_users))
        .routes(routes!(routes::users::batch_get_users))
        .routes(routes!(routes::users::get_user))
        .routes(routes!(routes::users::get_email_preferences))
        .routes(routes!(routes::users::get_terms))
        .routes(routes!(routes::audit::get_history))
        .routes(routes!(routes::audit::get_events))
        .routes(routes!(routes::audit::list_audit))
}
