//! HTTP to commands.
//!
//! Shape: request -> [`Call`] (who, with which key and precondition) + [`read`] (body to wish, all problems at once) ->
//! [`Executor`] (load, decide, append; again on a conflict) -> answer with version and consistency token.
//!
//! *Invariant:* what a handler passes on was parsed; what was acknowledged is stored.

mod call;
mod codec;
mod executor;
mod read;
mod routes;

use axum::extract::FromRef;
use rollcall_edge::auth::Authenticator;
use rollcall_event_store::Log;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use call::Call;
pub use codec::UserCodec;
pub use executor::{Done, Executor, Target};

/// What the routes share.
#[derive(Clone)]
pub struct CommandApi {
    executor: Executor,
    authenticator: Authenticator,
}

impl FromRef<CommandApi> for Authenticator {
    fn from_ref(api: &CommandApi) -> Self {
        api.authenticator.clone()
    }
}

impl FromRef<CommandApi> for Executor {
    fn from_ref(api: &CommandApi) -> Self {
        api.executor.clone()
    }
}

/// The command routes with their descriptions.
pub fn router(log: Log, authenticator: Authenticator) -> OpenApiRouter {
    routes().with_state(CommandApi { executor: Executor::new(log), authenticator })
}

/// The description alone, for a process that serves other routes.
pub fn description() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<CommandApi> {
    OpenApiRouter::new()
        .routes(routes!(routes::users::create_user))
        .routes(routes!(routes::users::update_user, routes::users::delete_user))
        .routes(routes!(routes::verbs::deactivate))
        .routes(routes!(routes::verbs::reactivate))
        .routes(routes!(routes::verbs::change_email))
        .routes(routes!(routes::verbs::verify_email))
        .routes(routes!(routes::verbs::accept_terms))
        .routes(routes!(routes::parts::change_preferences))
        .routes(routes!(routes::parts::set_traits))
        .routes(routes!(routes::parts::add_association, routes::parts::remove_association))
        .routes(routes!(routes::commands::run_commands))
}
