//! The body: its media type and its length, before anything looks inside.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::problem::{FieldError, Problem, code};

/// A JSON body of at most `LIMIT` bytes, whole but not yet parsed. Takes `application/json` and every `+json` type; no
/// body and no Content-Type mean `{}`. Refuses with 413, 415, or 400 where the body breaks off.
#[derive(Clone, Debug)]
pub struct JsonBody<const LIMIT: usize>(pub Bytes);

impl<S: Sync, const LIMIT: usize> FromRequest<S> for JsonBody<LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let typed = check_media_type(&parts.headers)?;
        let bytes = read_body(&parts.headers, body, LIMIT).await?;
        match (typed, bytes.is_empty()) {
            (true, _) => Ok(Self(bytes)),
            (false, true) => Ok(Self(Bytes::from_static(b"{}"))),
            (false, false) => Err(unsupported("Content-Type", "is missing")),
        }
    }
}

/// Reads a body of at most `limit` bytes; a Content-Length beyond it is refused before anything is read.
///
/// # Errors
/// 413 `body-too-large`; 400 `malformed-request` where the body breaks off.
pub async fn read_body(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Err(_) => Err(Problem::new(code::MALFORMED_REQUEST, "the body broke off before its end")),
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(code::BODY_TOO_LARGE, format!("the body must not be longer than {limit} bytes"))
}

/// Whether there is a media type, which then is one of JSON.
fn check_media_type(headers: &HeaderMap) -> Result<bool, Problem> {
    if headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(unsupported("Content-Encoding", "must be absent: compressed bodies are not taken"));
    }
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if is_json(value.as_bytes()) => Ok(true),
        (Some(_), None) => Err(unsupported("Content-Type", "is not of JSON")),
        (Some(_), Some(_)) => Err(Problem::malformed_header("Content-Type", "must be given once")),
    }
}

fn is_json(value: &[u8]) -> bool {
    let essence = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let Some(slash) = essence.iter().position(|b| *b == b'/') else { return false };
    let (kind, subtype) = (&essence[..slash], &essence[slash + 1..]);
    let suffixed = subtype.len() > 5 && subtype[subtype.len() - 5..].eq_ignore_ascii_case(b"+json");
    !kind.is_empty() && (suffixed || essence.eq_ignore_ascii_case(b"application/json"))
}

fn unsupported(header: &'static str, detail: &str) -> Problem {
    Problem::new(
        code::UNSUPPORTED_MEDIA_TYPE,
        format!("{header} {detail}; send application/json (for PATCH also application/merge-patch+json)"),
    )
    .with_error(FieldError::parameter(header, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{body_json, body_text, send};
    use axum::Router;
    use axum::routing::post;
    use proptest::prelude::*;

    fn router() -> Router {
        Router::new().route(
            "/",
            post(async |JsonBody(bytes): JsonBody<16>| String::from_utf8(bytes.to_vec()).unwrap()),
        )
    }

    async fn posted(headers: &[(&str, &str)], body: impl Into<Body>) -> (u16, String) {
        let mut request = Request::post("/").body(body.into()).unwrap();
        request.headers_mut().extend(crate::testing::header_map(headers));
        let response = send(router(), request).await;
        match response.status().as_u16() {
            200 => (200, body_text(response).await),
            status => (status, body_json(response).await["code"].as_str().unwrap().to_owned()),
        }
    }

    #[tokio::test]
    async fn every_json_type_is_taken_and_no_other() {
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/merge-patch+json",
            "application/vnd.x+JSON ;a=b",
        ] {
            assert_eq!(posted(&[("content-type", good)], "[1]").await, (200, "[1]".to_owned()), "{good}");
        }
        for bad in
            ["text/plain", "application/jsonx", "+json", "application/+json", "json", "", ";", "text/json5"]
        {
            assert_eq!(posted(&[("content-type", bad)], "[1]").await.0, 415, "{bad}");
        }
        assert_eq!(posted(&[("content-type", "a/b+json"), ("content-encoding", "gzip")], "").await.0, 415);
        let twice = [("content-type", "application/json"), ("content-type", "text/plain")];
        assert_eq!(posted(&twice, "{}").await, (400, "malformed-header".to_owned()));
    }

    #[tokio::test]
    async fn no_body_and_no_type_is_the_empty_object() {
        assert_eq!(posted(&[], "").await, (200, "{}".to_owned()));
        assert_eq!(posted(&[("content-type", "application/json")], "").await, (200, String::new()));
        assert_eq!(posted(&[], "{}").await, (415, "unsupported-media-type".to_owned()));
    }

    #[tokio::test]
    async fn a_body_past_the_limit_is_refused_announced_or_not() {
        const JSON: (&str, &str) = ("content-type", "application/json");
        assert_eq!(posted(&[JSON], "x".repeat(16)).await.0, 200);
        assert_eq!(posted(&[JSON], "x".repeat(17)).await, (413, "body-too-large".to_owned()));
        assert_eq!(posted(&[JSON, ("content-length", "17")], "{}").await, (413, "body-too-large".to_owned()));
    }

    proptest! {
        #[test]
        fn any_media_type_is_answered(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = is_json(&bytes);
        }
    }
}
