//! How a request becomes a principal.
//!
//! Shape: request -> [`Authenticator`] ([`jwt`] or open) -> [`Principal`], charged to its tenant's rate.
//!
//! *Invariant:* in jwt mode nothing but a verified token says who calls; headers may only agree with it.

mod host;
pub mod jwt;
mod open;

use std::{sync::Arc, time::SystemTime};

use http::{HeaderName, request::Parts};

use crate::{
    principal::{Principal, Tenant},
    problem::Problem,
    rate::RateLimiter,
};

static TENANT: HeaderName = HeaderName::from_static("tenant");
static ACTOR: HeaderName = HeaderName::from_static("actor");

/// Makes principals and charges them; the state of a router holds one (`FromRef`). Cheap to clone; all clones share keys,
/// remembered tokens and buckets.
#[derive(Clone)]
pub struct Authenticator {
    mode: Mode,
    rate: Option<Arc<RateLimiter>>,
}

#[derive(Clone)]
enum Mode {
    Open,
    Jwt(Arc<jwt::Verifier>),
}

impl Authenticator {
    /// Everybody who reaches the port may do everything, as whoever they say they are: listen on loopback only.
    #[must_use]
    pub fn open() -> Self {
        Self { mode: Mode::Open, rate: None }
    }

    /// Callers are known by bearer tokens. Reads every issuer's keys first, each within five seconds, and keeps them fresh
    /// in the background until the last clone is dropped. Counts with the recorder that is installed at this time.
    ///
    /// # Errors
    /// Where a setting is bad or a file of keys cannot be used. A URL that cannot be fetched is no error: see
    /// [`issuers_without_keys`](Self::issuers_without_keys).
    pub async fn jwt(settings: jwt::Settings) -> Result<Self, jwt::Error> {
        Ok(Self { mode: Mode::Jwt(Arc::new(jwt::Verifier::start(settings).await?)), rate: None })
    }

    /// Charges every request to its tenant's bucket.
    #[must_use]
    pub fn with_rate(mut self, rate: RateLimiter) -> Self {
        self.rate = Some(Arc::new(rate));
        self
    }

    /// Whether anybody can be authenticated: the keys of one issuer at least were read. Those of the others are not waited
    /// for, or one customer's issuer that is away would keep everybody's service down.
    #[must_use]
    pub fn keys_ready(&self) -> bool {
        match &self.mode {
            Mode::Open => true,
            Mode::Jwt(verifier) => verifier.keys_ready(),
        }
    }

    /// The issuers whose keys were never read; their tokens are answered with 503 until they are.
    #[must_use]
    pub fn issuers_without_keys(&self) -> Vec<&str> {
        match &self.mode {
            Mode::Open => Vec::new(),
            Mode::Jwt(verifier) => verifier.issuers_without_keys(),
        }
    }

    /// # Errors
    /// In open mode 400 for malformed headers, 421 for a host that is not a loopback name, 403 for a page of another
    /// origin. In jwt mode 401 without a valid token, 403 where a header names somebody else than the token, 503 while the
    /// issuer's keys are not there yet.
    pub async fn authenticate(&self, parts: &Parts) -> Result<Principal, Problem> {
        match &self.mode {
            Mode::Open => open::authenticate(parts),
            Mode::Jwt(verifier) => verifier.authenticate(&parts.headers, SystemTime::now()).await,
        }
    }

    /// Charges one request, before anything is done for it.
    ///
    /// # Errors
    /// 429 `too-many-requests`.
    pub fn charge(&self, tenant: &Tenant) -> Result<(), Problem> {
        match &self.rate {
            None => Ok(()),
            Some(rate) => rate.charge(tenant),
        }
    }

    /// Charges what a request of `items` costs beyond the one that it was charged when it came, before anything runs. A
    /// batch never costs more than a whole bucket.
    ///
    /// # Errors
    /// 429 `too-many-requests`.
    pub fn charge_batch(&self, tenant: &Tenant, items: usize) -> Result<(), Problem> {
        match &self.rate {
            None => Ok(()),
            Some(rate) => rate.charge_batch(tenant, items),
        }
    }
}
