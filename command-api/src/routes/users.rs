//! Creating, updating and removing users.

use axum::extract::State;
use rollcall_domain::{UserId, Wish};
use rollcall_edge::{
    Problem,
    fallback::PathText,
    json::JsonBody,
    openapi::{
        CallerHeaders, CommandHeaders, ExternalIdProblems, IdempotencyHeader, MetadataHeaders,
        NewUserProblems, UserCommandProblems, UserPath, tags,
    },
    respond::Json,
};
use uuid::Uuid;

use super::{BODY_BYTES_MAX, answer, on_user, schemas};
use crate::{
    Call, Executor, Target,
    read::{self, Wished},
};

/// Create a user
///
/// The email is unique within the tenant, without regard to case. The answer's `Consistency-Token`, sent with a query,
/// makes the query see the new user.
#[utoipa::path(
    post, path = "/api/v1/users", tag = tags::USERS, security(("bearer" = ["users:write"])),
    params(CallerHeaders, MetadataHeaders, IdempotencyHeader),
    request_body(content = schemas::CreateUser),
    responses((status = 201, description = "Created", body = schemas::Done,
        headers(("Location"), ("ETag"), ("Consistency-Token"), ("Correlation-Id"), ("Cache-Control")),
        links(
            ("user" = (operation_id = "get_user", parameters(("id" = "$response.body#/id")),
                description = "The new user, as soon as it is visible: send the token with it.")),
            ("update" = (operation_id = "update_user", parameters(("id" = "$response.body#/id")))),
            ("deactivate" = (operation_id = "deactivate", parameters(("id" = "$response.body#/id")))),
            ("set_traits" = (operation_id = "set_traits", parameters(("id" = "$response.body#/id")))),
            ("history" = (operation_id = "get_history", parameters(("id" = "$response.body#/id"))))
        )), NewUserProblems),
)]
pub(crate) async fn create_user(
    State(executor): State<Executor>,
    call: Call,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    call.unconditional()?;
    let Wished { wish: (user, chosen), reason } = read::body(&body, "CreateUser", read::new_user)?;
    let target = match chosen {
        Some(id) => Target::Named(id),
        None => Target::Fresh(UserId::from(Uuid::now_v7())),
    };
    let wish = Wish::CreateUser(Box::new(user));
    let idempotency = call.idempotency(executor.log().keys(), &body);
    let done = executor.execute(&call, &call.if_match, idempotency, target, wish, reason).await?;
    Ok(answer(&executor, &call, &done))
}

/// Update a user
///
/// A JSON merge patch (RFC 7396): members that are absent stay, null clears, maps merge.
#[utoipa::path(
    patch, path = "/api/v1/users/{id}", tag = tags::USERS, security(("bearer" = ["users:write"])),
    params(UserPath, CallerHeaders, MetadataHeaders, CommandHeaders),
    request_body(content((schemas::UpdateUser = "application/merge-patch+json"), (schemas::UpdateUser = "application/json"))),
    responses((status = 200, description = "Updated, or so already", body = schemas::Done,
        headers(("ETag"), ("Consistency-Token"), ("Correlation-Id"), ("Cache-Control"))), ExternalIdProblems),
)]
pub(crate) async fn update_user(
    State(executor): State<Executor>,
    call: Call,
    PathText(id): PathText,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    let wished = read::body(&body, "UpdateUser", read::update_user);
    on_user(&executor, &call, &id, &body, wished).await
}

/// Deactivate a user
///
/// The same as `POST …/deactivate`, whose body it takes as well. Nothing is removed: the user keeps its email and its
/// history.
#[utoipa::path(
    delete, path = "/api/v1/users/{id}", tag = tags::USERS, security(("bearer" = ["users:write"])),
    params(UserPath, CallerHeaders, MetadataHeaders, CommandHeaders),
    responses((status = 200, description = "Deactivated, or so already", body = schemas::Done,
        headers(("ETag"), ("Consistency-Token"), ("Correlation-Id"), ("Cache-Control"))), UserCommandProblems),
)]
pub(crate) async fn delete_user(
    State(executor): State<Executor>,
    call: Call,
    PathText(id): PathText,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    let wished = read::body(&body, "DeactivateUser", |_, _| Some(Wish::DeactivateUser));
    on_user(&executor, &call, &id, &body, wished).await
}
