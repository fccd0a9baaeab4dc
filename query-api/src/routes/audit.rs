//! Who changed what, when and why.

use axum::extract::{RawQuery, State};
use chrono::{DateTime, Datelike, Utc};
use http::StatusCode;
use rollcall_edge::{
    Problem,
    fallback::PathText,
    openapi::{CallerHeaders, ListingProblems, PageParams, TokenHeader, UserPath, UserQueryProblems, tags},
    principal::{Caller, ReadAudit, Subject},
    problem::code,
    query::{PageToken, Query},
    respond::Json,
    token::Tokens,
};
use rollcall_projections::audit::{Entry, Filter, Place, StoredEvent};
use serde::Serialize;

use super::{unreadable, user_id};
use crate::{QueryApi, consistency::Seen, schemas};

#[derive(Serialize)]
struct Items<'a, T> {
    items: &'a [T],
    next_page_token: Option<String>,
}

/// Get a user's history
///
/// Newest first: who changed what from what to what, when and why.
#[utoipa::path(
    get, path = "/api/v1/users/{id}/history", tag = tags::AUDIT, security(("bearer" = ["audit:read"])),
    params(UserPath, PageParams, CallerHeaders, TokenHeader),
    responses((status = 200, description = "A page", body = schemas::History,
        headers(("Consistency-Token"), ("Cache-Control"))), UserQueryProblems),
)]
pub(crate) async fn get_history(
    State(api): State<QueryApi>,
    caller: Caller<ReadAudit>,
    PathText(id): PathText,
    tokens: Tokens,
    RawQuery(query): RawQuery,
) -> Result<Json, Problem> {
    let id = user_id(&id)?;
    let (page_size, before) = paging(query.as_deref(), version_key)?;
    let tenant = caller.tenant.as_str();
    let seen = Seen::of_log(tokens, api.log_id)?;
    let page = api.audit.history(tenant, &id, before, page_size).await.map_err(|error| unreadable(&error))?;
    if page.entries.is_empty() && before.is_none() {
        return Err(Problem::not_found());
    }
    let next = page.more.then(|| page.entries.last()).flatten();
    let next = next.map(|entry| PageToken::encode(&entry.version.to_be_bytes()));
    Ok(answer(&page.entries, next, seen))
}

/// List changes across users
///
/// Newest first. `from` is included, `to` is not.
#[utoipa::path(
    get, path = "/api/v1/audit", tag = tags::AUDIT, security(("bearer" = ["audit:read"])),
    params(schemas::AuditParams, PageParams, CallerHeaders, TokenHeader),
    responses((status = 200, description = "A page", body = schemas::History,
        headers(("Consistency-Token"), ("Cache-Control"))), ListingProblems),
)]
pub(crate) async fn list_audit(
    State(api): State<QueryApi>,
    caller: Caller<ReadAudit>,
    tokens: Tokens,
    RawQuery(query): RawQuery,
) -> Result<Json, Problem> {
    let mut query = Query::parse(query.as_deref())?;
    let filter = Filter {
        actor: query
            .parse_one("actor", |text| Subject::parse(text).map(|subject| subject.as_str().to_owned())),
        event_type: query.parse_one("type", rollcall_projections::audit::event_type),
        import_id: query.parse_one("import", import_id),
        from: query.parse_one("from", instant),
        to: query.parse_one("to", instant),
    };
    let page_size = query.page_size() as usize;
    let before = query.page_token();
    query.finish()?;
    let before = before.map(|token| place(token.key()).ok_or_else(bad_page_token)).transpose()?;
    let (seen, version) = Seen::wait(tokens, api.log_id, &api.audit_serving, None).await?;
    let page = api
        .audit
        .list(version, caller.tenant.as_str(), &filter, before, page_size)
        .await
        .map_err(|error| unreadable(&error))?;
    let next = page.more.then(|| page.entries.last()).flatten().map(|entry| place_token(entry.place));
    Ok(answer(&page.entries, next, seen))
}

/// Get a user's events
///
/// As they are stored, oldest first, with personal values opened for a caller who may see them.
#[utoipa::path(
    get, path = "/api/v1/users/{id}/events", tag = tags::AUDIT, security(("bearer" = ["audit:read"])),
    params(UserPath, PageParams, CallerHeaders, TokenHeader),
    responses((status = 200, description = "A page", body = schemas::Events,
        headers(("Consistency-Token"), ("Cache-Control"))), UserQueryProblems),
)]
pub(crate) async fn get_events(
    State(api): State<QueryApi>,
    caller: Caller<ReadAudit>,
    PathText(id): PathText,
    tokens: Tokens,
    RawQuery(query): RawQuery,
) -> Result<Json, Problem> {
    let id = user_id(&id)?;
    let (page_size, after) = paging(query.as_deref(), version_key)?;
    let tenant = caller.tenant.as_str();
    let mut seen = Seen::of_log(tokens, api.log_id)?;
    let mut events = api
        .audit
        .events(tenant, &id, after.unwrap_or_default(), page_size + 1)
        .await
        .map_err(|error| unreadable(&error))?;
    if events.is_empty() && after.is_none() {
        return Err(Problem::not_found());
    }
    let more = events.len() > page_size;
    events.truncate(page_size);
    for StoredEvent { partition, position, .. } in &events {
        seen.row(*partition, *position);
    }
    let next = more.then(|| events.last()).flatten();
    let next = next.map(|event| PageToken::encode(&event.sequence.to_be_bytes()));
    let body = Items { items: &events, next_page_token: next };
    Ok(Json::value(StatusCode::OK, &body).token(seen.token()))
}

fn answer(entries: &[Entry], next_page_token: Option<String>, mut seen: Seen) -> Json {
    for entry in entries {
        seen.row(entry.place.partition, entry.place.position);
    }
    Json::value(StatusCode::OK, &Items { items: entries, next_page_token }).token(seen.token())
}

/// Page size and the key of the page token of a listing without other parameters.
fn paging<T>(
    query: Option<&str>,
    key: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<(usize, Option<T>), Problem> {
    let mut query = Query::parse(query)?;
    let page_size = query.page_size() as usize;
    let token = query.page_token();
    query.finish()?;
    let key = token.map(|token| key(token.key()).ok_or_else(bad_page_token)).transpose()?;
    Ok((page_size, key))
}

fn bad_page_token() -> Problem {
    Problem::new(code::MALFORMED_QUERY, "page_token is not a token that this listing gave")
}

fn version_key(key: &[u8]) -> Option<u64> {
    // A version is stored as a signed number.
    key.try_into().ok().map(u64::from_be_bytes).filter(|version| i64::try_from(*version).is_ok())
}

fn place_token(place: Place) -> String {
    let mut key = place.recorded_at.timestamp_micros().to_be_bytes().to_vec();
    key.extend_from_slice(&place.partition.to_be_bytes());
    key.extend_from_slice(&place.position.to_be_bytes());
    PageToken::encode(&key)
}

fn place(key: &[u8]) -> Option<Place> {
    let key: &[u8; 18] = key.try_into().ok()?;
    let (at, rest) = key.split_first_chunk::<8>()?;
    let (partition, rest) = rest.split_first_chunk::<2>()?;
    Some(Place {
        recorded_at: DateTime::from_timestamp_micros(i64::from_be_bytes(*at)).filter(recordable)?,
        partition: u16::from_be_bytes(*partition),
        position: version_key(rest)?,
    })
}

/// RFC 3339 ends with the year 9999, and PostgreSQL's range ends later on both sides.
fn recordable(at: &DateTime<Utc>) -> bool {
    (0..=9999).contains(&at.year())
}

fn import_id(text: &str) -> Result<String, &'static str> {
    let taken = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > 128 || !text.bytes().all(taken) {
        return Err("must be 1 to 128 of the characters A-Z, a-z, 0-9, '.', '_' and '-'");
    }
    Ok(text.to_owned())
}

fn instant(text: &str) -> Result<DateTime<Utc>, &'static str> {
    DateTime::parse_from_rfc3339(text).map(|at| at.to_utc()).map_err(
        |_| "must be an instant (RFC 3339), for example 2026-05-03T10:00:00Z (a plus is written %2B)",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_key_is_a_place_or_refused(key in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = version_key(&key);
            if let Some(place) = place(&key) {
                let token = PageToken::decode(&place_token(place)).unwrap();
                prop_assert_eq!(token.key(), key);
            }
        }

        #[test]
        fn any_place_comes_back(micros in 0i64..200_000_000_000_000_000, partition: u16, position in 0u64..1 << 63) {
            let recorded_at = DateTime::from_timestamp_micros(micros).unwrap();
            let there = Place { recorded_at, partition, position };
            let token = PageToken::decode(&place_token(there)).unwrap();
            prop_assert_eq!(place(token.key()), Some(there));
        }

        #[test]
        fn any_text_is_an_instant_or_refused(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{0,12}[Zz+-]?[0-9:]{0,6}|.{0,30}") {
            let _ = instant(&text);
            if let Ok(id) = import_id(&text) {
                prop_assert_eq!(id, text);
            }
        }
    }
}
