//! The extractor that a route cannot forget: the principal, once its scope is checked.

use std::marker::PhantomData;
use std::ops::Deref;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;

use super::{Principal, Scope};
use crate::Problem;
use crate::auth::Authenticator;

/// A scope as a type.
pub trait RequiredScope {
    const SCOPE: Scope;
}

pub struct ReadUsers;
pub struct WriteUsers;
pub struct EraseUsers;
pub struct ReadAudit;

impl RequiredScope for ReadUsers {
    const SCOPE: Scope = Scope::UsersRead;
}

impl RequiredScope for WriteUsers {
    const SCOPE: Scope = Scope::UsersWrite;
}

impl RequiredScope for EraseUsers {
    const SCOPE: Scope = Scope::UsersErase;
}

impl RequiredScope for ReadAudit {
    const SCOPE: Scope = Scope::AuditRead;
}

/// A principal that holds the scope `S`: `async fn show(caller: Caller<ReadUsers>)`. Only the extractor makes one.
/// Refuses with 400 for malformed headers, 401, 403, 421 for a host that open mode does not answer to, 429 where the tenant
/// has used up its rate, scope or no scope, or 503 while an issuer's keys are not there.
#[derive(Debug)]
pub struct Caller<S> {
    principal: Principal,
    scope: PhantomData<fn() -> S>,
}

impl<S> Caller<S> {
    #[must_use]
    pub fn into_principal(self) -> Principal {
        self.principal
    }
}

impl<S: RequiredScope> Caller<S> {
    /// The one place that makes a caller.
    fn admit(principal: Principal) -> Result<Self, Problem> {
        principal.require(S::SCOPE)?;
        Ok(Self { principal, scope: PhantomData })
    }
}

impl<S> Deref for Caller<S> {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.principal
    }
}

impl<S, St> FromRequestParts<St> for Caller<S>
where
    S: RequiredScope,
    St: Sync,
    Authenticator: FromRef<St>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &St) -> Result<Self, Problem> {
        let authenticator = Authenticator::from_ref(state);
        let principal = authenticator.authenticate(parts).await?;
        // Before the scope is looked at: a request that is refused for it is work that the tenant has caused.
        authenticator.charge(&principal.tenant)?;
        Self::admit(principal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::{Scopes, Subject, Tenant};
    use crate::testing::{body_json, body_text, get_with, send};
    use axum::Router;
    use axum::response::IntoResponse;
    use axum::routing::get;

    async fn who(caller: Caller<ReadUsers>) -> String {
        format!("{} {} {}", caller.tenant, caller.subject, caller.scopes == Scopes::all())
    }

    fn router() -> Router {
        Router::new().route("/", get(who)).with_state(Authenticator::open())
    }

    #[tokio::test]
    async fn in_open_mode_the_headers_say_who_calls() {
        let response = send(router(), get_with(&[("tenant", "acme"), ("actor", "svc:crm")])).await;
        assert_eq!(body_text(response).await, "acme svc:crm true");
    }

    #[tokio::test]
    async fn without_headers_it_is_nobody_of_the_default_tenant() {
        assert_eq!(body_text(send(router(), get_with(&[])).await).await, "default anonymous true");
    }

    #[tokio::test]
    async fn a_malformed_header_is_named_with_the_form_it_must_have() {
        for (header, value, form) in [
            ("Tenant", "", "a-z"),
            ("Tenant", "Acme", "a-z"),
            ("Actor", "", "A-Z"),
            ("Actor", "ada@example.com", "opaque id"),
        ] {
            let response = send(router(), get_with(&[(header, value)])).await;
            assert_eq!(response.status(), 400);
            let problem = body_json(response).await;
            assert_eq!(problem["code"], "malformed-header");
            assert_eq!(problem["errors"][0]["parameter"], header);
            assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(form), "{problem}");
        }
    }

    #[tokio::test]
    async fn a_header_given_twice_is_refused() {
        for header in ["tenant", "actor", "host"] {
            let response = send(router(), get_with(&[(header, "localhost"), (header, "localhost")])).await;
            assert_eq!(response.status(), 400, "{header}");
        }
    }

    #[test]
    fn a_scope_that_is_not_held_is_refused_by_name() {
        let principal = Principal {
            tenant: Tenant::default(),
            subject: Subject::anonymous(),
            scopes: Scopes::from_iter([Scope::UsersRead]),
        };
        assert!(Caller::<ReadUsers>::admit(principal.clone()).is_ok());
        let refused = [
            (Scope::UsersWrite, Caller::<WriteUsers>::admit(principal.clone()).err()),
            (Scope::UsersErase, Caller::<EraseUsers>::admit(principal.clone()).err()),
            (Scope::AuditRead, Caller::<ReadAudit>::admit(principal).err()),
        ];
        for (scope, problem) in refused {
            let problem = problem.unwrap();
            assert_eq!(problem.status, 403);
            assert!(problem.detail.contains(scope.as_str()));
            let response = problem.into_response();
            let expected = format!(r#"Bearer realm="rollcall", error="insufficient_scope", scope="{scope}""#);
            assert_eq!(response.headers()["www-authenticate"], expected.as_str());
        }
    }
}
