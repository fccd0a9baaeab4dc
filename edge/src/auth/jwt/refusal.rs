//! Why a token is refused, in words for whoever sent it and in a few for the metric. None quotes the token.

use chrono::{DateTime, SecondsFormat};
use http::{HeaderValue, header::WWW_AUTHENTICATE};

use crate::problem::{Problem, code};

/// The keys of an issuer are tried again within this time of the first failure.
const RETRY_AFTER_S: u32 = 2;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the request has no bearer token: send Authorization: Bearer and the token")]
    Missing,
    #[error("the header Authorization {0}")]
    Header(&'static str),
    #[error("the token is not a signed JWT (RFC 7519): {0}")]
    Malformed(&'static str),
    #[error("the token names an algorithm that is not its key's; EdDSA, ES256 and RS256 are taken")]
    Algorithm,
    #[error("the token has a header parameter crit, and extensions are not taken")]
    Critical,
    #[error("the token is of another type (typ) than JWT and at+jwt")]
    Type,
    #[error("the issuer of the token (iss) is not one of those that are configured")]
    Issuer,
    #[error("the audience of the token (aud) does not name this service")]
    Audience,
    #[error("the key that the token names (kid) is not among its issuer's")]
    Key,
    #[error("the token names no key (kid), and its issuer has several")]
    NoKey,
    #[error("the signature of the token is not that of its issuer's key")]
    Signature,
    #[error("the token expired at {}", instant(*.0))]
    Expired(i64),
    #[error("the token is not valid before {}", instant(*.0))]
    Immature(i64),
    #[error("the claim {0} of the token {1}")]
    Claim(&'static str, String),
    #[error("the issuer of the token may not speak for the tenant that it names")]
    Tenant,
    #[error("the keys of the token's issuer are not there yet")]
    KeysAway,
}

impl Refusal {
    /// The label of the metric.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Header(_) | Self::Malformed(_) | Self::Critical => "malformed",
            Self::Algorithm => "algorithm",
            Self::Type => "type",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Key | Self::NoKey => "key",
            Self::Signature => "signature",
            Self::Expired(_) => "expired",
            Self::Immature(_) => "immature",
            Self::Claim(..) => "claim",
            Self::Tenant => "tenant",
            Self::KeysAway => "keys_away",
        }
    }
}

/// Counts the refusal.
impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        metrics::counter!("rollcall_auth_refusals_total", "reason" => refusal.reason()).increment(1);
        match refusal {
            Refusal::KeysAway => Self::unavailable(refusal.to_string(), RETRY_AFTER_S),
            // Without a token there is nothing to call invalid (RFC 6750 3.1), so the challenge is the plain one.
            Refusal::Missing => Self::new(code::UNAUTHORIZED, refusal.to_string()),
            refusal => {
                let detail = refusal.to_string();
                let challenge = format!(
                    r#"Bearer realm="rollcall", error="invalid_token", error_description="{detail}""#
                );
                let challenge = HeaderValue::try_from(challenge).expect("refusals are visible ASCII");
                Self::new(code::UNAUTHORIZED, detail).with_header(WWW_AUTHENTICATE, challenge)
            }
        }
    }
}

fn instant(unix_s: i64) -> String {
    DateTime::from_timestamp(unix_s, 0)
        .map_or_else(|| unix_s.to_string(), |at| at.to_rfc3339_opts(SecondsFormat::Secs, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_fits_into_the_header() {
        // What RFC 6750 3 lets an error_description hold.
        let taken = |b: u8| matches!(b, 0x20 | 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        for refusal in [
            Refusal::Missing,
            Refusal::Header("x"),
            Refusal::Malformed("x"),
            Refusal::Algorithm,
            Refusal::Critical,
            Refusal::Type,
            Refusal::Issuer,
            Refusal::Audience,
            Refusal::Key,
            Refusal::NoKey,
            Refusal::Signature,
            Refusal::Expired(i64::MIN),
            Refusal::Immature(0),
            Refusal::Claim("sub", crate::principal::parse::Error::SubjectIsAddress.to_string()),
            Refusal::Tenant,
            Refusal::KeysAway,
        ] {
            assert!(refusal.to_string().bytes().all(taken), "{refusal}");
            let _ = Problem::from(refusal);
        }
        assert_eq!(Refusal::Expired(86_400).to_string(), "the token expired at 1970-01-02T00:00:00Z");
    }
}
