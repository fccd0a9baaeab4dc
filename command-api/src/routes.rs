//! The command routes, a file for each group. A handler reads, hands over and answers; rules live in the domain.

pub(crate) mod commands;
pub(crate) mod parts;
mod schemas;
pub(crate) mod users;
pub(crate) mod verbs;

use rollcall_domain::{UserId, Wish};
use rollcall_edge::{
    Problem,
    problem::{FieldError, code},
    respond::Json,
    token::ConsistencyToken,
};

use crate::{Call, Done, Executor, Target, read::Wished};

/// Bytes of one command's body.
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1024;

/// The user that a path names.
fn user_id(segment: &str) -> Result<UserId, Problem> {
    UserId::parse(segment).map_err(|error| malformed_path("id", &error.to_string()))
}

fn malformed_path(segment: &str, detail: &str) -> Problem {
    Problem::new(code::MALFORMED_PATH, "a segment of the path is not as it must be; see `errors`")
        .with_error(FieldError::parameter(segment, detail))
}

/// Runs a command on the user that a path names.
async fn on_user(
    executor: &Executor,
    call: &Call,
    id: &str,
    body: &[u8],
    wished: Result<Wished<Wish>, Problem>,
) -> Result<Json, Problem> {
    let id = user_id(id)?;
    let Wished { wish, reason } = wished?;
    let idempotency = call.idempotency(executor.log().keys(), body);
    let done = executor.execute(call, &call.if_match, idempotency, Target::Named(id), wish, reason).await?;
    Ok(answer(executor, call, &done))
}

/// `{"id": …, "version": …}` with everything that a client may go on with.
fn answer(executor: &Executor, call: &Call, done: &Done) -> Json {
    let status = http::StatusCode::from_u16(done.status).unwrap_or(http::StatusCode::OK);
    let body = format!("{{\"id\":\"{}\",\"version\":{}}}", done.id, done.version);
    let token = ConsistencyToken::single(executor.log().log_id(), done.partition, done.position);
    let answer =
        Json::bytes(status, body).etag(done.version).token(&token).correlation_id(&call.correlation_id);
    if status == http::StatusCode::CREATED {
        answer.location(format!("/api/v1/users/{}", done.id))
    } else {
        answer
    }
}
