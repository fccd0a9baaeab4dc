//! Bearer tokens: JWTs of configured issuers, verified with the issuers' published keys.
//!
//! Shape: header -> `token` (text to parts) -> the issuer that it claims -> that issuer's key -> signature -> `claims`
//! -> [`Principal`], remembered for a while.
//!
//! *Invariants:* the algorithm comes from the key, the key from the configured issuer, and never from the token; a token is
//! of no use until its type, signature, issuer, audience and times were checked (RFC 8725).

mod claims;
mod keeper;
mod key_set;
mod memory;
mod refusal;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod token;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use http::HeaderMap;
use metrics::Counter;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    claims::Claims,
    keeper::{Keeper, Keys},
    memory::{Entry, Memory},
    refusal::Refusal,
    token::Token,
};
use super::{ACTOR, TENANT};
use crate::{
    header,
    principal::{Principal, Tenant},
    problem::{Problem, code},
};

pub use reqwest::Url;
pub use settings::{Error, Issuer, Settings, Source};
pub use source::Error as JwksError;

/// An issuer at work.
struct Trusted {
    issuer: String,
    audience: String,
    tenants: Vec<Tenant>,
    keeper: Arc<Keeper>,
}

/// Verifies tokens.
pub struct Verifier {
    issuers: Vec<Trusted>,
    leeway_s: i64,
    memory: Memory,
    hits: Counter,
    misses: Counter,
    _stop: DropGuard,
}

impl Verifier {
    /// # Errors
    /// As [`Authenticator::jwt`](super::Authenticator::jwt).
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        describe();
        if settings.issuers.is_empty() {
            return Err(Error::NoIssuer);
        }
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        for (place, issuer) in settings.issuers.iter().enumerate() {
            if settings.issuers[..place].iter().any(|earlier| earlier.issuer == issuer.issuer) {
                return Err(Error::IssuerTwice(issuer.issuer.clone()));
            }
        }
        let mut starting = Vec::new();
        for issuer in settings.issuers {
            let tenants = issuer.check()?;
            let source = issuer.source()?;
            // All at once, so that issuers that are away do not add up.
            let keeping =
                tokio::spawn(Keeper::start(issuer.issuer.clone(), source, settings.refresh, stop.clone()));
            starting.push((issuer.issuer, issuer.audience, tenants, keeping));
        }
        let mut issuers = Vec::new();
        for (issuer, audience, tenants, keeping) in starting {
            let keeper = keeping.await.expect("reading keys does not panic and is not aborted")?;
            issuers.push(Trusted { issuer, audience, tenants, keeper });
        }
        Ok(Self {
            issuers,
            leeway_s: i64::try_from(settings.leeway.as_secs()).unwrap_or(i64::MAX),
            memory: Memory::new(),
            hits: metrics::counter!("rollcall_token_cache_hits_total"),
            misses: metrics::counter!("rollcall_token_cache_misses_total"),
            _stop: guard,
        })
    }

    pub fn keys_ready(&self) -> bool {
        self.issuers_without_keys().len() < self.issuers.len()
    }

    pub fn issuers_without_keys(&self) -> Vec<&str> {
        let missing = self.issuers.iter().filter(|issuer| issuer.keeper.generation() == 0);
        missing.map(|issuer| issuer.issuer.as_str()).collect()
    }

    /// # Errors
    /// 401 without a valid token; 403 where Tenant or Actor names another than the token; 503 while the keys of its issuer
    /// were never read.
    pub async fn authenticate(&self, headers: &HeaderMap, now: SystemTime) -> Result<Principal, Problem> {
        let token = token::bearer(headers)?;
        let now = unix_s(now);
        let principal = if let Some(entry) = self.remembered(token, now) {
            self.hits.increment(1);
            entry.principal.clone()
        } else {
            self.misses.increment(1);
            // Boxed, so that requests whose token is remembered do not carry the room for this.
            Box::pin(self.verify_and_remember(token, now)).await?
        };
        agree(headers, &principal)?;
        Ok(principal)
    }

    fn remembered(&self, token: &str, now: i64) -> Option<Arc<Entry>> {
        let entry = self.memory.get(token, now)?;
        let keys_stand = self.issuers[entry.issuer].keeper.generation() == entry.generation;
        (keys_stand && entry.validity.check(now, self.leeway_s).is_ok()).then_some(entry)
    }

    async fn verify_and_remember(&self, token: &str, now: i64) -> Result<Principal, Refusal> {
        let entry = Arc::new(self.verify(token, now).await?);
        self.memory.put(token, Arc::clone(&entry));
        Ok(entry.principal.clone())
    }

    async fn verify(&self, text: &str, now: i64) -> Result<Entry, Refusal> {
        let token = Token::<Claims>::parse(text)?;
        // Before any look for a key: what can never be verified must not cause a fetch.
        if !matches!(token.header.alg.as_str(), "EdDSA" | "ES256" | "RS256") {
            return Err(Refusal::Algorithm);
        }
        if token.header.crit.0 {
            return Err(Refusal::Critical);
        }
        if !token.header.is_access_token() {
            return Err(Refusal::Type);
        }
        let claimed = token.claims.issuer().ok_or(Refusal::Issuer)?;
        let place = self.issuers.iter().position(|known| known.issuer == claimed).ok_or(Refusal::Issuer)?;
        let issuer = &self.issuers[place];
        let generation = issuer.check_signature(&token).await?;
        token.claims.check_audience(&issuer.audience)?;
        let validity = token.claims.validity()?;
        validity.check(now, self.leeway_s)?;
        let principal = token.claims.principal(&issuer.tenants)?;
        Ok(Entry { principal, validity, issuer: place, generation, verified_at: now })
    }
}

impl Trusted {
    /// The generation of the keys that the token was verified with.
    async fn check_signature(&self, token: &Token<'_, Claims>) -> Result<u64, Refusal> {
        let mut keys = self.keeper.keys().ok_or(Refusal::KeysAway)?;
        if let Some(kid) = &token.header.kid
            && keys.set.find(kid).is_none()
        {
            keys = self.keeper.refetched().await.ok_or(Refusal::KeysAway)?;
        }
        let Keys { set, generation } = keys;
        let key = match &token.header.kid {
            Some(kid) => set.find(kid).ok_or(Refusal::Key)?,
            None => set.only().ok_or(Refusal::NoKey)?,
        };
        if token.header.alg != key.algorithm_name() {
            return Err(Refusal::Algorithm);
        }
        if !key.verifies(token.message.as_bytes(), token.signature) {
            return Err(Refusal::Signature);
        }
        Ok(generation)
    }
}

/// A header that names somebody may say no other than the token: whoever sent both would be surprised by either.
fn agree(headers: &HeaderMap, principal: &Principal) -> Result<(), Problem> {
    let named = [
        (&TENANT, "Tenant", "tenant", principal.tenant.as_str()),
        (&ACTOR, "Actor", "subject", principal.subject.as_str()),
    ];
    for (key, name, what, of_token) in named {
        if header::single(headers, key, name)?.is_some_and(|text| text != of_token) {
            let detail = format!("the header {name} names another {what} than the token: leave it out");
            return Err(Problem::new(code::FORBIDDEN, detail));
        }
    }
    Ok(())
}

fn unix_s(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

fn describe() {
    use metrics::describe_counter;
    describe_counter!("rollcall_token_cache_hits_total", "Bearer tokens that were verified lately");
    describe_counter!("rollcall_token_cache_misses_total", "Bearer tokens that had to be verified");
    describe_counter!("rollcall_auth_refusals_total", "Requests without a valid bearer token, by reason");
    describe_counter!("rollcall_jwks_refreshes_total", "Attempts to read the keys of an issuer, by outcome");
}
