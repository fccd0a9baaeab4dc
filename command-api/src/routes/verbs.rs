//! What is done to a user, a verb each.

use axum::extract::State;
use rollcall_domain::Wish;
use rollcall_edge::{
    Problem,
    fallback::PathText,
    json::JsonBody,
    openapi::{
        CallerHeaders, CommandHeaders, MetadataHeaders, NewEmailProblems, SameEmailProblems,
        UserCommandProblems, UserPath, tags,
    },
    respond::Json,
};

use super::{BODY_BYTES_MAX, on_user, schemas};
use crate::{Call, Executor, read};

/// Deactivate a user
///
/// The user keeps its email and everything else, and refuses commands until it is reactivated.
#[utoipa::path(
    post, path = "/api/v1/users/{id}/deactivate", tag = tags::USERS, security(("bearer" = ["users:write"])),
    params(UserPath, CallerHeaders, MetadataHeaders, CommandHeaders),
    request_body = Option<schemas::Reason>,
    responses((status = 200, description = "Done, or so already", body = schemas::Done,
        headers(("ETag"), ("Consistency-Token"), ("Correlation-Id"), ("Cache-Control"))), UserCommandProblems),
)]
pub(crate) async fn deactivate(
    State(executor): State<Executor>,
    call: Call,
    PathText(id): PathText,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    on_user(
        &executor,
        &call,
        &id,
        &body,
        read::body(&body, "DeactivateUser", |_, _| Some(Wish::DeactivateUser)),
    )
    .await
}

/// Reactivate a user
///
/// The reverse of deactivating.
#[utoipa::path(
    post, path = "/api/v1/users/{id}/reactivate", tag = tags::USERS, security(("bearer" = ["users:write"])),
    params(UserPath, CallerHeaders, MetadataHeaders, CommandHeaders),
    request_body = Option<schemas::Reason>,
    responses((status = 200, description = "Done, or so already", body = schemas::Done,
        headers(("ETag"), ("Consistency-Token"), ("Correlation-Id"), ("Cache-Control"))), UserCommandProblems),
)]
pub(crate) async fn reactivate(
    State(executor): State<Executor>,
    call: Call,
    PathText(id): PathText,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    on_user(
        &executor,
        &call,
        &id,
        &body,
        read::body(&body, "ReactivateUser", |_, _| Some(Wish::ReactivateUser)),
    )
    .await
}

/// Change a user's email
///
/// The new address is unverified; the old one is free for others from now on.
#[utoipa::path(
    post, path = "/api/v1/users/{id}/change-email", tag = tags::USERS, security(("bearer" = ["users:write"])),
    params(UserPath, CallerHeaders, MetadataHeaders, CommandHeaders),
    request_body(content = schemas::Email),
    responses((status = 200, description = "Done, or so already", body = schemas::Done,
        headers(("ETag"), ("Consistency-Token"), ("Correlation-Id"), ("Cache-Control"))), NewEmailProblems),
)]
pub(crate) async fn change_email(
    State(executor): State<Executor>,
    call: Call,
    PathText(id): PathText,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    on_user(&executor, &call, &id, &body, read::body(&body, "ChangeEmail", read::change_email)).await
}

/// Record that a user's email was verified
///
/// Refused where the user's email is another one by now.
#[utoipa::path(
    post, path = "/api/v1/users/{id}/verify-email", tag = tags::USERS, security(("bearer" = ["users:write"])),
    params(UserPath, CallerHeaders, MetadataHeaders, CommandHeaders),
    request_body(content = schemas::Email),
    responses((status = 200, description = "Done, or so already", body = schemas::Done,
        headers(("ETag"), ("Consistency-Token"), ("Correlation-Id"), ("Cache-Control"))), SameEmailProblems),
)]
pub(crate) async fn verify_email(
    State(executor): State<Executor>,
    call: Call,
    PathText(id): PathText,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    on_user(&executor, &call, &id, &body, read::body(&body, "VerifyEmail", read::verify_email)).await
}

/// Record that a user accepted a version of a policy
///
/// Every accepted version is kept.
#[utoipa::path(
    post, path = "/api/v1/users/{id}/accept-terms", tag = tags::USERS, security(("bearer" = ["users:write"])),
    params(UserPath, CallerHeaders, MetadataHeaders, CommandHeaders),
    request_body(content = schemas::AcceptTerms),
    responses((status = 200, description = "Done, or so already", body = schemas::Done,
        headers(("ETag"), ("Consistency-Token"), ("Correlation-Id"), ("Cache-Control"))), UserCommandProblems),
)]
pub(crate) async fn accept_terms(
    State(executor): State<Executor>,
    call: Call,
    PathText(id): PathText,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    on_user(&executor, &call, &id, &body, read::body(&body, "AcceptTerms", read::accept_terms)).await
}
