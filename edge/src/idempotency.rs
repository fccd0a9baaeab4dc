//! `Idempotency-Key`: the name of a wish, so that repeating it does it once.

use std::fmt;

use axum::extract::OptionalFromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName};

use crate::{Problem, header};

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const FORM: &str = "must be 1 to 255 visible ASCII characters, plain or as a quoted string (RFC 8941)";
const CHARACTERS_MAX: usize = 255;

/// A key of 1 to 255 visible ASCII characters. `abc` and `"abc"` (the quoted form of the IETF's draft) are one key.
/// Handlers take `Option<IdempotencyKey>`; refuses with 400 `malformed-header`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// # Errors
    /// 400 `malformed-header` where the header is given twice or not of its form.
    pub fn read(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let Some(text) = header::single(headers, &IDEMPOTENCY_KEY, "Idempotency-Key")? else {
            return Ok(None);
        };
        match Self::parse(text) {
            Some(key) => Ok(Some(key)),
            None => Err(Problem::malformed_header("Idempotency-Key", FORM)),
        }
    }

    /// `None` where the text is not of the form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let key = match text.strip_prefix('"') {
            None => text.to_owned(),
            Some(opened) => unquote(opened)?,
        };
        let visible = key.bytes().all(|b| b.is_ascii_graphic());
        (visible && !key.is_empty() && key.len() <= CHARACTERS_MAX).then_some(Self(key))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the rest of a quoted string behind its first quote, up to its last (RFC 8941 3.3.3).
fn unquote(opened: &str) -> Option<String> {
    let mut key = String::with_capacity(opened.len());
    let mut characters = opened.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(key),
            '\\' => key.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            other => key.push(other),
        }
    }
}

/// A client may have put anything into its key, so it is not printed.
impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("IdempotencyKey(…)")
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Problem> {
        Self::read(&parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{body_json, body_text, get_with, send};
    use axum::Router;
    use axum::routing::get;
    use proptest::prelude::*;

    fn parse(text: &str) -> Option<String> {
        IdempotencyKey::parse(text).map(|key| key.0)
    }

    #[tokio::test]
    async fn the_extractor_takes_one_key_or_none() {
        let router = Router::new().route(
            "/",
            get(async |key: Option<IdempotencyKey>| {
                key.map_or_else(|| "none".to_owned(), |key| key.as_str().to_owned())
            }),
        );
        let key = |headers| send(router.clone(), get_with(headers));
        assert_eq!(body_text(key(&[]).await).await, "none");
        assert_eq!(body_text(key(&[("idempotency-key", "\"8e03-97\"")]).await).await, "8e03-97");
        for bad in [&[("idempotency-key", "")][..], &[("idempotency-key", "a"), ("idempotency-key", "a")]] {
            let response = key(bad).await;
            assert_eq!(response.status(), 400);
            assert_eq!(body_json(response).await["errors"][0]["parameter"], "Idempotency-Key");
        }
    }

    #[test]
    fn quoted_and_plain_are_one_key() {
        for (text, key) in
            [("abc", "abc"), ("\"abc\"", "abc"), (r#""a\"\\b""#, r#"a"\b"#), ("a\"b", "a\"b"), ("~", "~")]
        {
            assert_eq!(parse(text).as_deref(), Some(key), "{text}");
        }
        assert!(parse(&"x".repeat(255)).is_some() && parse(&format!("\"{}\"", "x".repeat(255))).is_some());
    }

    #[test]
    fn everything_else_is_no_key() {
        for bad in [
            "",
            "\"",
            "\"\"",
            "a b",
            "\"a b\"",
            "\"a",
            "\"a\"b",
            "\"a\";x=1",
            r#""a\""#,
            r#""a\b""#,
            "ä",
            "a\t",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&"x".repeat(256)), None);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[\"\\\\a ]{0,8}|.*") {
            if let Some(key) = parse(&text) {
                prop_assert!((1..=255).contains(&key.len()));
            }
        }

        #[test]
        fn quoting_changes_no_key(key in "[!-~&&[^\"]]{1,255}") {
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\"));
            prop_assert_eq!(parse(&quoted), parse(&key));
        }
    }
}
