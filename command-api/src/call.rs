//! Who calls, with which precondition and key: everything of a command but its wish.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use http::{Method, request::Parts};
use rollcall_edge::{
    Problem,
    auth::Authenticator,
    idempotency::IdempotencyKey,
    metadata::RequestMetadata,
    preconditions::IfMatch,
    principal::{Caller, Principal, Scope, WriteUsers},
    query::Query,
};
use rollcall_event_store::{commands::Idempotency, keys::Keys};
use serde::Serialize;

/// A command's envelope, taken from a request whose principal may write users.
#[derive(Clone, Debug)]
pub struct Call {
    pub principal: Principal,
    pub if_match: IfMatch,
    pub correlation_id: String,
    /// What is stored beside every event of the call, as JSON.
    pub metadata: Arc<str>,
    key: Option<IdempotencyKey>,
    method: Method,
    path: String,
}

/// The metadata of an event.
#[derive(Serialize)]
struct Metadata<'a> {
    actor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    causation_id: Option<&'a str>,
    correlation_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
}

impl Call {
    /// For commands on no one user, where a precondition has nothing to say.
    ///
    /// # Errors
    /// 400 where If-Match was sent all the same: it was meant to do something.
    pub fn unconditional(&self) -> Result<(), Problem> {
        if self.if_match == IfMatch::Absent {
            return Ok(());
        }
        Err(Problem::malformed_header(
            "If-Match",
            "must not be there: this command is on no one existing user",
        ))
    }

    /// Whether the caller may correct a deactivated user.
    pub fn may_rectify(&self) -> bool {
        self.principal.scopes.contains(Scope::UsersRectify)
    }

    /// Key and fingerprint of a request with an idempotency key: the same key of the same subject is the same wish
    /// only with the same method, path, precondition and body.
    pub fn idempotency(&self, keys: &Keys, body: &[u8]) -> Option<Idempotency> {
        self.idempotency_of(keys, &[self.key.as_ref()?.as_str().as_bytes()], &self.if_match, body)
    }

    /// As [`idempotency`](Self::idempotency), for one item of a batch: its key is `key#index`.
    pub fn item_idempotency(
        &self,
        keys: &Keys,
        index: usize,
        if_match: &IfMatch,
        item: &[u8],
    ) -> Option<Idempotency> {
        // The index stands apart, so that no other key can spell the same.
        let index = (index as u64).to_be_bytes();
        self.idempotency_of(keys, &[self.key.as_ref()?.as_str().as_bytes(), &index], if_match, item)
    }

    fn idempotency_of(
        &self,
        keys: &Keys,
        key: &[&[u8]],
        if_match: &IfMatch,
        body: &[u8],
    ) -> Option<Idempotency> {
        let Principal { tenant, subject, .. } = &self.principal;
        let if_match = match if_match {
            IfMatch::Absent => String::new(),
            IfMatch::Any => "*".to_owned(),
            IfMatch::Versions(versions) => format!("{versions:?}"),
        };
        let parts = [self.method.as_str().as_bytes(), self.path.as_bytes(), if_match.as_bytes(), body];
        Some(Idempotency {
            key: keys
                .digester(tenant.as_str(), "idempotency_key")
                .digest(&[&[subject.as_str().as_bytes()], key].concat()),
            fingerprint: keys.digester(tenant.as_str(), "idempotency_fingerprint").digest(&parts),
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Call
where
    Authenticator: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::<WriteUsers>::from_request_parts(parts, state).await?;
        // A command takes no parameters; one that is there was meant to do something.
        Query::parse(parts.uri.query())?.finish()?;
        let request = RequestMetadata::read(&parts.headers)?;
        let traceparent = request.traceparent.as_ref().map(ToString::to_string);
        let metadata = Metadata {
            actor: caller.subject.as_str(),
            causation_id: request.causation_id.as_deref(),
            correlation_id: &request.correlation_id,
            traceparent: traceparent.as_deref(),
        };
        let metadata = serde_json::to_string(&metadata).expect("strings are JSON").into();
        Ok(Self {
            principal: caller.into_principal(),
            if_match: IfMatch::read(&parts.headers)?,
            correlation_id: request.correlation_id,
            metadata,
            key: IdempotencyKey::read(&parts.headers)?,
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
        })
    }
}
