//! Tokens of issuers whose keys are made here, at a time that is chosen here.

mod charged;
mod headers;
mod issuers;
mod key_sets;
mod laws;
mod refusals;
mod remembered;
mod rotation;
mod server;
mod signer;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use self::signer::Signer;
use super::{Issuer, Settings, Source, Verifier};
use crate::{principal::Principal, problem::Problem, testing::header_map};

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "rollcall";
const LEEWAY_S: i64 = 30;

/// When all of this happens.
const NOW: i64 = 1_800_000_000;

fn at(unix_s: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_s).unwrap())
}

fn settings(issuers: Vec<Issuer>) -> Settings {
    Settings {
        issuers,
        leeway: Duration::from_secs(LEEWAY_S.cast_unsigned()),
        refresh: Duration::from_secs(300),
    }
}

fn issuer(jwks: Source) -> Issuer {
    Issuer { issuer: ISSUER.to_owned(), audience: AUDIENCE.to_owned(), jwks, tenants: Vec::new() }
}

/// A file of keys; it goes with what is returned.
fn file(jwks: &Value) -> (tempfile::NamedTempFile, Source) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), jwks.to_string()).unwrap();
    let source = Source::File(file.path().to_owned());
    (file, source)
}

/// A verifier of one issuer of these keys, for any tenant.
async fn verifier(signers: &[&Signer]) -> Verifier {
    let (_file, source) = file(&signer::set(signers));
    Verifier::start(settings(vec![issuer(source)])).await.unwrap()
}

/// What a good token says.
fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 600, "nbf": NOW - 600, "iat": NOW - 600,
        "tenant": "acme", "sub": "svc:crm", "scope": "users:read users:write",
    })
}

fn claims_with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

/// A request with this token and nothing else.
async fn ask(verifier: &Verifier, token: &str) -> Result<Principal, Problem> {
    ask_at(verifier, token, NOW).await
}

async fn ask_at(verifier: &Verifier, token: &str, now: i64) -> Result<Principal, Problem> {
    verifier.authenticate(&header_map(&[("authorization", &format!("Bearer {token}"))]), at(now)).await
}

/// Status and detail of a refusal.
fn refused(answer: Result<Principal, Problem>) -> (u16, String) {
    let problem = answer.expect_err("a refusal");
    (problem.status.as_u16(), problem.detail)
}
