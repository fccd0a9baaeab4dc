//! Users as they are now.

use axum::extract::{RawQuery, State};
use http::StatusCode;
use rollcall_edge::{
    Problem, Problems,
    fallback::PathText,
    json::{JsonBody, Kind, Members},
    openapi::{
        BodyQueryProblems, CallerHeaders, ListingProblems, PageParams, TokenHeader, UserPath,
        UserQueryProblems, tags,
    },
    principal::{Caller, ReadUsers},
    problem::code,
    query::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, PageToken, Query},
    respond::Json,
    token::Tokens,
};
use rollcall_projections::{
    Progress, gather,
    profiles::{Filter, GetError, Row, Shown, Sought},
    progress::Serving,
};

use super::{unreadable, user_id};
use crate::{
    QueryApi,
    consistency::{Seen, now},
    schemas,
};

const BODY_BYTES_MAX: usize = 256 * 1024;
const IDS_MAX: usize = 1_000;

/// Get a user
///
/// As it is now, or, with a token, at least as new as what the token saw. The ETag is what If-Match takes.
#[utoipa::path(
    get, path = "/api/v1/users/{id}", tag = tags::USERS, security(("bearer" = ["users:read"])),
    params(UserPath, CallerHeaders, TokenHeader),
    responses((status = 200, description = "The user", body = schemas::User,
        headers(("ETag"), ("Consistency-Token"), ("Cache-Control"))), UserQueryProblems),
)]
pub(crate) async fn get_user(
    State(api): State<QueryApi>,
    caller: Caller<ReadUsers>,
    PathText(id): PathText,
    tokens: Tokens,
    RawQuery(query): RawQuery,
) -> Result<Json, Problem> {
    let id = user_id(&id)?;
    Query::parse(query.as_deref())?.finish()?;
    let tenant = caller.tenant.as_str();
    let (shown, mut seen) = match in_memory(&api, tenant, &id, &tokens)? {
        Some(found) => found,
        None => {
            let (seen, serving) = settle(&api, tenant, &id, tokens).await?;
            (
                api.profiles
                    .show(&serving, tenant, &id)
                    .await
                    .map_err(unread)?
                    .ok_or_else(Problem::not_found)?,
                seen,
            )
        }
    };
    seen.row(shown.partition, shown.position);
    Ok(Json::bytes(StatusCode::OK, shown.body).etag(shown.version).token(seen.token()))
}

/// The user as it was shown a moment ago, where that is as good as a read now.
fn in_memory(
    api: &QueryApi,
    tenant: &str,
    id: &str,
    tokens: &Tokens,
) -> Result<Option<(Shown, Seen)>, Problem> {
    // A token that this log cannot have given is refused by who waits for it.
    if tokens.0.as_ref().is_some_and(|token| token.log_id() != api.log_id) {
        return Ok(None);
    }
    let seen = Seen::of_log(tokens.clone(), api.log_id)?;
    let stream = api.profiles.stream(tenant, id);
    let serving = now(&api.profiles_serving)?;
    let up_to = seen.position(stream.partition(serving.progress.partitions()));
    Ok(api.profiles.shown(&serving, stream, up_to).map(|shown| (shown, seen)))
}

/// Waits until the user can be read as the tokens have seen it.
async fn settle(
    api: &QueryApi,
    tenant: &str,
    id: &String,
    tokens: Tokens,
) -> Result<(Seen, Serving), Problem> {
    let partition = api.profiles.partition(tenant, id);
    let parked = |progress: &Progress| api.profiles.parked(progress, tenant, std::slice::from_ref(id));
    Seen::wait_unparked(tokens, api.log_id, &api.profiles_serving, Some(partition), parked).await
}

fn unread(error: GetError) -> Problem {
    match error {
        GetError::Overloaded => {
            Problem::new(code::OVERLOADED, "too many reads are waiting").with_retry_after_s(1)
        }
        gather::Error::Stopping => Problem::unavailable("the service is stopping", 1),
        gather::Error::Unreachable(_) => Problem::unavailable("the database cannot be read", 1),
        gather::Error::Fetch(error) => unreadable(&*error),
    }
}

/// Get a user's email preferences
///
/// The part of the user that a mailer asks for.
#[utoipa::path(
    get, path = "/api/v1/users/{id}/email-preferences", tag = tags::USERS, security(("bearer" = ["users:read"])),
    params(UserPath, CallerHeaders, TokenHeader),
    responses((status = 200, description = "The preferences, as PUT …/preferences takes them",
        body = schemas::UserEmailPreferences,
        headers(("ETag"), ("Consistency-Token"), ("Cache-Control"))), UserQueryProblems),
)]
pub(crate) async fn get_email_preferences(
    State(api): State<QueryApi>,
    caller: Caller<ReadUsers>,
    PathText(id): PathText,
    tokens: Tokens,
    RawQuery(query): RawQuery,
) -> Result<Json, Problem> {
    let (row, seen) = one(&api, &caller, &id, tokens, query.as_deref()).await?;
    let preferences = &row.profile.user.preferences().email;
    let body = serde_json::json!({ "email": preferences });
    Ok(Json::value(StatusCode::OK, &body).etag(row.version).token(seen.token()))
}

/// Get the terms that a user accepted
///
/// Every version of every policy, with the instant, oldest first.
#[utoipa::path(
    get, path = "/api/v1/users/{id}/terms", tag = tags::USERS, security(("bearer" = ["users:read"])),
    params(UserPath, CallerHeaders, TokenHeader),
    responses((status = 200, description = "What the user accepted", body = schemas::Terms,
        headers(("ETag"), ("Consistency-Token"), ("Cache-Control"))), UserQueryProblems),
)]
pub(crate) async fn get_terms(
    State(api): State<QueryApi>,
    caller: Caller<ReadUsers>,
    PathText(id): PathText,
    tokens: Tokens,
    RawQuery(query): RawQuery,
) -> Result<Json, Problem> {
    let (row, seen) = one(&api, &caller, &id, tokens, query.as_deref()).await?;
    let body = serde_json::json!({ "items": row.profile.accepted_terms, "next_page_token": null });
    Ok(Json::value(StatusCode::OK, &body).etag(row.version).token(seen.token()))
}

async fn one(
    api: &QueryApi,
    caller: &Caller<ReadUsers>,
    id: &str,
    tokens: Tokens,
    query: Option<&str>,
) -> Result<(Row, Seen), Problem> {
    let id = user_id(id)?;
    Query::parse(query)?.finish()?;
    let tenant = caller.tenant.as_str();
    let (mut seen, serving) = settle(api, tenant, &id, tokens).await?;
    let row = api.profiles.get(serving.version, tenant, &id).await.map_err(unread)?;
    let row = row.ok_or_else(Problem::not_found)?;
    seen.row(row.partition, row.position);
    Ok((row, seen))
}

/// List users
///
/// By id, oldest first where ids are the service's own. Traits are filtered with `traits.<name>=<value>`. A page may be
/// shorter than asked for and still have a next one.
#[utoipa::path(
    get, path = "/api/v1/users", tag = tags::USERS, security(("bearer" = ["users:read"])),
    params(schemas::UserFilter, PageParams, CallerHeaders, TokenHeader),
    responses((status = 200, description = "A page", body = schemas::Users,
        headers(("Consistency-Token"), ("Cache-Control"))), ListingProblems),
)]
pub(crate) async fn list_users(
    State(api): State<QueryApi>,
    caller: Caller<ReadUsers>,
    tokens: Tokens,
    RawQuery(query): RawQuery,
) -> Result<Json, Problem> {
    let mut query = Query::parse(query.as_deref())?;
    let mut filter = Filter::default();
    query.parse_one("status", |text| filter.status(text));
    query.parse_one("email", |text| filter.email(text));
    query.parse_one("name", |text| filter.name(text));
    query.parse_one("external_id", |text| filter.external_id(text));
    for (name, value) in query.prefixed("traits.") {
        if let Err(error) = filter.has_trait(&name, Sought::Spelled(&value)) {
            query.refuse(&format!("traits.{name}"), error);
        }
    }
    let page_size = query.page_size();
    let page_token = query.page_token();
    query.finish()?;
    page(&api, &caller, tokens, &filter, page_size, page_token).await
}

/// Query users
///
/// As the listing, with the filter in the body: values about people stay out of URLs and of the logs that keep them.
#[utoipa::path(
    post, path = "/api/v1/users/query", tag = tags::USERS, security(("bearer" = ["users:read"])),
    params(CallerHeaders, TokenHeader),
    request_body = Option<schemas::UserQuery>,
    responses((status = 200, description = "A page", body = schemas::Users,
        headers(("Consistency-Token"), ("Cache-Control"))), BodyQueryProblems),
)]
pub(crate) async fn query_users(
    State(api): State<QueryApi>,
    caller: Caller<ReadUsers>,
    tokens: Tokens,
    RawQuery(query): RawQuery,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    Query::parse(query.as_deref())?.finish()?;
    let mut problems = Problems::default();
    let mut members = Members::read(&body, "")?.named("a query");
    let mut filter = Filter::default();
    members.text(&mut problems, "status", |text| filter.status(text));
    members.text(&mut problems, "email", |text| filter.email(text));
    members.text(&mut problems, "name", |text| filter.name(text));
    members.text(&mut problems, "external_id", |text| filter.external_id(text));
    if let Some(mut traits) = members.object(&mut problems, "traits") {
        let sought: Vec<_> = traits.rest().collect();
        for (name, raw) in sought {
            let Some(kind) = traits.kind(&mut problems, &name, raw) else { continue };
            let done = match &kind {
                Kind::Text(text) => filter.has_trait(&name, Sought::Text(text)),
                Kind::Number(number) => filter.has_trait(&name, Sought::Number(number)),
                Kind::Boolean(boolean) => filter.has_trait(&name, Sought::Boolean(*boolean)),
                Kind::Null | Kind::Array | Kind::Object => {
                    Err(format!("must be a string, a number or a boolean, not {}", kind.name()))
                }
            };
            if let Err(error) = done {
                traits.refuse(&mut problems, &name, error);
            }
        }
    }
    let page_size = members.unsigned(&mut problems, "page_size").unwrap_or(PAGE_SIZE_DEFAULT.into());
    if !(1..=u64::from(PAGE_SIZE_MAX)).contains(&page_size) {
        members.refuse(&mut problems, "page_size", format!("must be a number from 1 to {PAGE_SIZE_MAX}"));
    }
    let page_token = members.text(&mut problems, "page_token", PageToken::decode);
    members.finish(&mut problems);
    problems.into_result()?;
    let page_size = u32::try_from(page_size).unwrap_or(PAGE_SIZE_MAX);
    page(&api, &caller, tokens, &filter, page_size, page_token).await
}

async fn page(
    api: &QueryApi,
    caller: &Caller<ReadUsers>,
    tokens: Tokens,
    filter: &Filter,
    page_size: u32,
    page_token: Option<PageToken>,
) -> Result<Json, Problem> {
    let after = match &page_token {
        Some(token) => {
            let key = std::str::from_utf8(token.key()).map_err(|_| bad_page_token())?;
            Some(user_id(key).map_err(|_| bad_page_token())?)
        }
        None => None,
    };
    let (mut seen, version) = Seen::wait(tokens, api.log_id, &api.profiles_serving, None).await?;
    let tenant = caller.tenant.as_str();
    let page = api
        .profiles
        .list(version, tenant, filter, after.as_deref(), page_size as usize)
        .await
        .map_err(|error| unreadable(&error))?;
    let next = page.next_after.map(|after| PageToken::encode(after.as_bytes()));
    Ok(items(tenant, &page.rows, &mut seen, &format!("\"next_page_token\":{}", json_text(next.as_deref()))))
}

fn bad_page_token() -> Problem {
    Problem::new(code::MALFORMED_QUERY, "page_token is not a token that this listing gave")
}

fn json_text(text: Option<&str>) -> String {
    serde_json::to_string(&text).expect("text is JSON")
}

/// `{"items": [users…], rest}`
fn items(tenant: &str, rows: &[Row], seen: &mut Seen, rest: &str) -> Json {
    let users: Vec<String> = rows
        .iter()
        .map(|row| {
            seen.row(row.partition, row.position);
            row.to_json(tenant)
        })
        .collect();
    let body = format!("{{\"items\":[{}],{rest}}}", users.join(","));
    Json::bytes(StatusCode::OK, body).token(seen.token())
}

/// Get many users by id
///
/// In the order of the ids; those that are not there are named in `missing`. Each is at least as new as what the token saw;
/// they need not be of one instant.
#[utoipa::path(
    post, path = "/api/v1/users/batch-get", tag = tags::USERS, security(("bearer" = ["users:read"])),
    params(CallerHeaders, TokenHeader),
    request_body(content = schemas::BatchGet),
    responses((status = 200, description = "The users", body = schemas::UsersById,
        headers(("Consistency-Token"), ("Cache-Control"))), BodyQueryProblems),
)]
pub(crate) async fn batch_get_users(
    State(api): State<QueryApi>,
    caller: Caller<ReadUsers>,
    tokens: Tokens,
    RawQuery(query): RawQuery,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    Query::parse(query.as_deref())?.finish()?;
    let mut problems = Problems::default();
    let mut members = Members::read(&body, "")?.named("a batch-get");
    let mut ids: Vec<String> = Vec::new();
    if members.required(&mut problems, "ids").is_some() {
        for (index, raw) in members.array(&mut problems, "ids", IDS_MAX).into_iter().flatten().enumerate() {
            let id = match Kind::of(raw)? {
                Kind::Text(text) => user_id(&text).ok(),
                _ => None,
            };
            match id {
                Some(id) => ids.push(id),
                None => problems.push(format!("/ids/{index}"), "must be a UUID of 36 characters"),
            }
        }
    }
    members.finish(&mut problems);
    problems.into_result()?;
    let tenant = caller.tenant.as_str();
    let parked = |progress: &Progress| api.profiles.parked(progress, tenant, &ids);
    let serving = &api.profiles_serving;
    let (mut seen, serving) = Seen::wait_unparked(tokens, api.log_id, serving, None, parked).await?;
    let rows =
        api.profiles.get_many(serving.version, tenant, &ids).await.map_err(|error| unreadable(&error))?;
    let found: std::collections::HashSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let missing: Vec<&String> = ids.iter().filter(|id| !found.contains(id.as_str())).collect();
    let missing = serde_json::to_string(&missing).expect("text is JSON");
    Ok(items(tenant, &rows, &mut seen, &format!("\"missing\":{missing}")))
}
