//! Parts of a user that have a path of their own: preferences, traits, associations.

use axum::extract::State;
use rollcall_domain::{Association, AssociationKey, AssociationKind, Wish};
use rollcall_edge::{
    Problem,
    fallback::PathText,
    json::JsonBody,
    openapi::{CallerHeaders, CommandHeaders, MetadataHeaders, UserCommandProblems, UserPath, tags},
    respond::Json,
};

use super::{
    BODY_BYTES_MAX, malformed_path, on_user,
    schemas::{self, AssociationPath},
};
use crate::{Call, Executor, read};

/// Replace a user's preferences
///
/// Categories that the body does not name are gone afterwards.
#[utoipa::path(
    put, path = "/api/v1/users/{id}/preferences", tag = tags::USERS, security(("bearer" = ["users:write"])),
    params(UserPath, CallerHeaders, MetadataHeaders, CommandHeaders),
    request_body = schemas::Preferences,
    responses((status = 200, description = "Replaced, or so already", body = schemas::Done,
        headers(("ETag"), ("Consistency-Token"), ("Correlation-Id"), ("Cache-Control"))), UserCommandProblems),
)]
pub(crate) async fn change_preferences(
    State(executor): State<Executor>,
    call: Call,
    PathText(id): PathText,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    on_user(&executor, &call, &id, &body, read::body(&body, "ChangePreferences", read::change_preferences))
        .await
}

/// Merge a user's traits
///
/// The body's members are traits; null removes one. The member `reason` is not a trait: it says why.
#[utoipa::path(
    patch, path = "/api/v1/users/{id}/traits", tag = tags::USERS, security(("bearer" = ["users:write"])),
    params(UserPath, CallerHeaders, MetadataHeaders, CommandHeaders),
    request_body(content((Option<schemas::TraitPatch> = "application/merge-patch+json"), (Option<schemas::TraitPatch> = "application/json"))),
    responses((status = 200, description = "Merged, or so already", body = schemas::Done,
        headers(("ETag"), ("Consistency-Token"), ("Correlation-Id"), ("Cache-Control"))), UserCommandProblems),
)]
pub(crate) async fn set_traits(
    State(executor): State<Executor>,
    call: Call,
    PathText(id): PathText,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    on_user(&executor, &call, &id, &body, read::body(&body, "SetTraits", read::set_traits)).await
}

/// Add an association
///
/// What a user belongs to: a kind, such as `membership`, and a key within it, such as `gold`.
#[utoipa::path(
    put, path = "/api/v1/users/{id}/associations/{kind}/{key}", tag = tags::USERS,
    security(("bearer" = ["users:write"])),
    params(UserPath, AssociationPath,
        CallerHeaders, MetadataHeaders, CommandHeaders),
    request_body = Option<schemas::Reason>,
    responses((status = 200, description = "Added, or so already", body = schemas::Done,
        headers(("ETag"), ("Consistency-Token"), ("Correlation-Id"), ("Cache-Control"))), UserCommandProblems),
)]
pub(crate) async fn add_association(
    State(executor): State<Executor>,
    call: Call,
    PathText((id, kind, key)): PathText<(String, String, String)>,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    let association = association(&kind, &key)?;
    let wished = read::body(&body, "AddAssociation", |_, _| Some(Wish::AddAssociation(association)));
    on_user(&executor, &call, &id, &body, wished).await
}

/// Remove an association
///
/// One that the user does not have is gone already.
#[utoipa::path(
    delete, path = "/api/v1/users/{id}/associations/{kind}/{key}", tag = tags::USERS,
    security(("bearer" = ["users:write"])),
    params(UserPath, AssociationPath,
        CallerHeaders, MetadataHeaders, CommandHeaders),
    responses((status = 200, description = "Removed, or so already", body = schemas::Done,
        headers(("ETag"), ("Consistency-Token"), ("Correlation-Id"), ("Cache-Control"))), UserCommandProblems),
)]
pub(crate) async fn remove_association(
    State(executor): State<Executor>,
    call: Call,
    PathText((id, kind, key)): PathText<(String, String, String)>,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    let association = association(&kind, &key)?;
    let wished = read::body(&body, "RemoveAssociation", |_, _| Some(Wish::RemoveAssociation(association)));
    on_user(&executor, &call, &id, &body, wished).await
}

fn association(kind: &str, key: &str) -> Result<Association, Problem> {
    Ok(Association {
        kind: AssociationKind::parse(kind).map_err(|error| malformed_path("kind", &error.to_string()))?,
        key: AssociationKey::parse(key).map_err(|error| malformed_path("key", &error.to_string()))?,
    })
}
