//! The header `Consistency-Token`, as often as a client likes.

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName};

use super::ConsistencyToken;
use crate::problem::{FieldError, Problem, code};

/// The header of requests and answers.
pub static HEADER: HeaderName = HeaderName::from_static("consistency-token");

/// Each costs a merge; who talks to more than this many services merges before.
const TOKENS_MAX: usize = 100;

/// All tokens of a request as one, by the maximum for each partition; `None` where there is none. Refuses with 400
/// `malformed-token`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens(pub Option<ConsistencyToken>);

impl Tokens {
    /// The header may repeat, and one may hold several apart by commas; empty parts are passed over (RFC 9110 5.6.1).
    ///
    /// # Errors
    /// 400 `malformed-token`, also for tokens of different logs.
    pub fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut merged: Option<ConsistencyToken> = None;
        let mut count = 0;
        for value in headers.get_all(&HEADER) {
            let text = value.to_str().map_err(|_| malformed("must be ASCII text"))?;
            for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                count += 1;
                if count > TOKENS_MAX {
                    return Err(malformed(&format!("must not hold more than {TOKENS_MAX} tokens")));
                }
                let token = ConsistencyToken::parse(part).map_err(|error| malformed(&error.to_string()))?;
                match &mut merged {
                    None => merged = Some(token),
                    Some(all) => all.merge(&token).map_err(|error| malformed(&error.to_string()))?,
                }
            }
        }
        Ok(Self(merged))
    }
}

fn malformed(detail: &str) -> Problem {
    Problem::new(code::MALFORMED_TOKEN, format!("Consistency-Token: {detail}"))
        .with_error(FieldError::parameter("Consistency-Token", detail))
}

impl<S: Sync> FromRequestParts<S> for Tokens {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Self::read(&parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{body_json, body_text, get_with, header_map, send};
    use axum::Router;
    use axum::routing::get;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn token(partition: u16, position: u64) -> String {
        ConsistencyToken::single(Uuid::nil(), partition, position).to_string()
    }

    fn router() -> Router {
        Router::new()
            .route("/", get(async |Tokens(token): Tokens| format!("{:?}", token.map(|t| t.positions))))
    }

    #[tokio::test]
    async fn repeated_and_joined_tokens_are_one() {
        let joined = format!("{}, {} ,", token(2, 9), token(1, 4));
        let request = get_with(&[("consistency-token", &token(1, 5)), ("Consistency-Token", &joined)]);
        assert_eq!(body_text(send(router(), request).await).await, "Some([(1, 5), (2, 9)])");
    }

    #[tokio::test]
    async fn without_a_token_there_is_none() {
        assert_eq!(body_text(send(router(), get_with(&[])).await).await, "None");
        assert_eq!(Tokens::read(&header_map(&[("consistency-token", " , ")])), Ok(Tokens(None)));
    }

    #[tokio::test]
    async fn a_malformed_or_foreign_token_is_a_400() {
        let foreign = ConsistencyToken::single(Uuid::max(), 1, 1).to_string();
        for bad in ["ct1.x", "ct2.AAAA", "\u{e9}", &format!("{},{foreign}", token(1, 1))] {
            let response = send(router(), get_with(&[("consistency-token", bad)])).await;
            assert_eq!(response.status(), 400);
            assert_eq!(body_json(response).await["code"], "malformed-token");
        }
    }

    #[test]
    fn too_many_tokens_are_refused() {
        let many =
            |count| Tokens::read(&header_map(&[("consistency-token", &vec![token(1, 1); count].join(","))]));
        assert!(many(100).is_ok());
        assert!(many(101).unwrap_err().detail.contains("100"));
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80), text in "[ct1., AB_-]{0,60}") {
            for value in [http::HeaderValue::from_bytes(&bytes), http::HeaderValue::from_str(&text)] {
                let Ok(value) = value else { continue };
                let mut headers = HeaderMap::new();
                headers.append(&HEADER, value);
                if let Err(problem) = Tokens::read(&headers) {
                    prop_assert_eq!(problem.code, "malformed-token");
                }
            }
        }
    }
}
