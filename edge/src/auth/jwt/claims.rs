//! What a token says, once its signature was verified.

use serde::Deserialize;
use serde_json::Value;

use super::refusal::Refusal;
use crate::principal::{Principal, Scopes, Subject, Tenant};

/// The last second of the year 9999. What is beyond was counted in milliseconds.
const LAST_S: f64 = 253_402_300_799.0;

/// The claims that matter, of any form as yet; a claim that stands twice is refused.
#[derive(Debug, Deserialize)]
pub struct Claims {
    iss: Option<Value>,
    aud: Option<Value>,
    exp: Option<Value>,
    nbf: Option<Value>,
    tenant: Option<Value>,
    sub: Option<Value>,
    scope: Option<Value>,
}

/// When a token counts, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    not_before: Option<i64>,
    expires_at: i64,
}

impl Validity {
    /// `leeway_s` is for clocks that differ, on both ends.
    ///
    /// # Errors
    /// Where the time is over or has not come.
    pub fn check(&self, now: i64, leeway_s: i64) -> Result<(), Refusal> {
        // "On or after which" it must not be accepted (RFC 7519 4.1.4).
        if now >= self.expires_at.saturating_add(leeway_s) {
            return Err(Refusal::Expired(self.expires_at));
        }
        match self.not_before {
            Some(not_before) if now.saturating_add(leeway_s) < not_before => {
                Err(Refusal::Immature(not_before))
            }
            _ => Ok(()),
        }
    }
}

impl Claims {
    /// Who says that it made the token; believed only once that issuer's key has verified it.
    pub fn issuer(&self) -> Option<&str> {
        self.iss.as_ref()?.as_str()
    }

    /// # Errors
    /// Where `aud`, a text or an array of texts, does not hold `audience`.
    pub fn check_audience(&self, audience: &str) -> Result<(), Refusal> {
        let named = match &self.aud {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(several)) => several.iter().any(|one| one == audience),
            _ => false,
        };
        if named { Ok(()) } else { Err(Refusal::Audience) }
    }

    /// # Errors
    /// Where `exp` is missing, or `exp` or `nbf` is no time.
    pub fn validity(&self) -> Result<Validity, Refusal> {
        let expires_at = seconds("exp", self.exp.as_ref())?.ok_or_else(|| missing("exp"))?.floor();
        let not_before = seconds("nbf", self.nbf.as_ref())?.map(f64::ceil);
        Ok(Validity { not_before: not_before.map(|at| at as i64), expires_at: expires_at as i64 })
    }

    /// The tenant may be left out where the issuer speaks for one only; where it speaks for none by name, any will do.
    ///
    /// # Errors
    /// Where a claim is missing or not of its form, or the issuer may not speak for the tenant.
    pub fn principal(&self, tenants: &[Tenant]) -> Result<Principal, Refusal> {
        let tenant = match (text("tenant", self.tenant.as_ref())?, tenants) {
            (None, [only]) => only.clone(),
            (None, _) => return Err(missing("tenant")),
            (Some(tenant), _) => {
                Tenant::parse(tenant).map_err(|error| Refusal::Claim("tenant", error.to_string()))?
            }
        };
        if !tenants.is_empty() && !tenants.contains(&tenant) {
            return Err(Refusal::Tenant);
        }
        let subject = text("sub", self.sub.as_ref())?.ok_or_else(|| missing("sub"))?;
        let subject = Subject::parse(subject).map_err(|error| Refusal::Claim("sub", error.to_string()))?;
        let scopes = text("scope", self.scope.as_ref())?.map(Scopes::parse_claim).unwrap_or_default();
        Ok(Principal { tenant, subject, scopes })
    }
}

fn missing(name: &'static str) -> Refusal {
    Refusal::Claim(name, "is missing".to_owned())
}

fn text<'a>(name: &'static str, claim: Option<&'a Value>) -> Result<Option<&'a str>, Refusal> {
    match claim {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::Claim(name, "must be a text".to_owned())),
    }
}

/// A NumericDate, which may have a fraction (RFC 7519 2).
fn seconds(name: &'static str, claim: Option<&Value>) -> Result<Option<f64>, Refusal> {
    let Some(claim) = claim else { return Ok(None) };
    match claim.as_f64() {
        Some(seconds) if (0.0..=LAST_S).contains(&seconds) => Ok(Some(seconds)),
        _ => Err(Refusal::Claim(name, "must be a number of seconds since 1970".to_owned())),
    }
}
