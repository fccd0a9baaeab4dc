//! The text of a token (JWS compact serialisation, RFC 7515 7.1), taken apart. Nothing of it is believed here.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header::AUTHORIZATION};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::IgnoredAny};

use super::refusal::Refusal;

pub const BYTES_MAX: usize = 8 * 1024;

/// The token of `Authorization: Bearer …` (RFC 6750 2.1), the only place where one is looked for.
///
/// # Errors
/// Where there is none, more than one, or one that is too long.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::Missing)?;
    if values.next().is_some() {
        return Err(Refusal::Header("must be given once"));
    }
    let text = value.to_str().map_err(|_| Refusal::Header("must be ASCII text"))?;
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    // Another scheme is no token at all.
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::Missing);
    }
    match rest.trim_matches(' ') {
        "" => Err(Refusal::Header("must have a token after Bearer")),
        token if token.len() > BYTES_MAX => Err(Refusal::Header("must not hold a token of more than 8 KiB")),
        token => Ok(token),
    }
}

/// A token's parts as they came.
pub struct Token<'a, Claims> {
    pub header: Header,
    pub claims: Claims,
    /// What is signed.
    pub message: &'a str,
    /// In base64url.
    pub signature: &'a str,
}

/// The parameters that matter. `jku`, `jwk`, `x5u` and `x5c` are never read: a token does not choose its key.
#[derive(Deserialize)]
pub struct Header {
    pub alg: String,
    pub kid: Option<String>,
    pub typ: Option<String>,
    #[serde(default)]
    pub crit: Present,
}

impl Header {
    /// Whether the token is for presenting to a service: no type, `JWT` (RFC 7519 5.1) or `at+jwt` (RFC 9068 2.1), each a
    /// media type whose `application/` may be left out and whose case is of no matter (RFC 7515 4.1.9). An issuer signs
    /// others with the same keys, to end sessions or to tell of events, which must not open anything (RFC 8725 3.11).
    pub fn is_access_token(&self) -> bool {
        const APPLICATION: &str = "application/";
        let Some(typ) = &self.typ else { return true };
        let name = match typ.split_at_checked(APPLICATION.len()) {
            Some((start, name)) if start.eq_ignore_ascii_case(APPLICATION) => name,
            _ => typ,
        };
        ["JWT", "at+jwt"].iter().any(|taken| name.eq_ignore_ascii_case(taken))
    }
}

/// Whether a member is there, whatever it holds.
#[derive(Default)]
pub struct Present(pub bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

impl<'a, Claims: DeserializeOwned> Token<'a, Claims> {
    /// # Errors
    /// Where the text is not three parts of base64url, the first two of them JSON objects.
    pub fn parse(text: &'a str) -> Result<Self, Refusal> {
        let parts = || {
            let (message, signature) = text.rsplit_once('.')?;
            let (header, payload) = message.split_once('.')?;
            (!payload.contains('.')).then_some((message, header, payload, signature))
        };
        let (message, header, payload, signature) =
            parts().ok_or(Refusal::Malformed("it must be three parts with dots between them"))?;
        Ok(Self {
            header: object(header, "its header cannot be read")?,
            claims: object(payload, "its payload cannot be read")?,
            message,
            signature,
        })
    }
}

fn object<T: DeserializeOwned>(part: &str, problem: &'static str) -> Result<T, Refusal> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed(problem))?;
    // A struct can be read from an array, too.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refusal::Malformed(problem));
    }
    serde_json::from_slice(&json).map_err(|_| Refusal::Malformed(problem))
}
