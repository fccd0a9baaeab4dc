//! Answers made of bytes that are JSON already.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::preconditions::etag;
use crate::token::{self, ConsistencyToken};

static CORRELATION_ID: HeaderName = HeaderName::from_static("correlation-id");

/// On the extensions of an answer that tells what was done and cannot be undone: it must be sent, be there room or not.
#[derive(Clone, Copy, Debug)]
pub struct Irrevocable;

/// A JSON answer; headers are added in place.
///
/// ```
/// use rollcall_edge::respond::Json;
///
/// Json::bytes(http::StatusCode::CREATED, r#"{"version":1}"#).etag(1).location("/api/v1/users/x".to_owned());
/// ```
#[derive(Debug)]
#[must_use]
pub struct Json {
    response: Response,
}

impl Json {
    /// `bytes` must be one JSON text.
    pub fn bytes(status: StatusCode, bytes: impl Into<Bytes>) -> Self {
        let mut response = Response::new(Body::from(bytes.into()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        // One allocation for all that an answer of ours has, with Content-Length and Date.
        headers.reserve(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Answers are a caller's own and change with every command.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Self { response }
    }

    /// # Panics
    /// Where `value` has a map whose keys are no strings, or its `Serialize` fails.
    pub fn value(status: StatusCode, value: &impl Serialize) -> Self {
        let mut bytes = Vec::with_capacity(512);
        serde_json::to_writer(&mut bytes, value).expect("an answer's type serialises into memory");
        Self::bytes(status, bytes)
    }

    /// Marks it as [`Irrevocable`].
    pub fn irrevocable(mut self) -> Self {
        self.response.extensions_mut().insert(Irrevocable);
        self
    }

    pub fn etag(self, version: u64) -> Self {
        self.header(ETAG, etag(version))
    }

    pub fn token(self, token: &ConsistencyToken) -> Self {
        let value = HeaderValue::try_from(token.to_string()).expect("a token is visible ASCII");
        self.header(token::HEADER.clone(), value)
    }

    /// `path` must be a URI reference, percent-encoded where it must be; anything else is left out.
    pub fn location(self, path: String) -> Self {
        match HeaderValue::try_from(path) {
            Ok(value) => self.header(LOCATION, value),
            Err(_) => self,
        }
    }

    /// Text of a request's metadata, which is of the form of a header; anything else is left out.
    pub fn correlation_id(self, id: &str) -> Self {
        match HeaderValue::from_str(id) {
            Ok(value) => self.header(CORRELATION_ID.clone(), value),
            Err(_) => self,
        }
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.response.headers_mut().insert(name, value);
        self
    }
}

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        self.response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{body_json, body_text};
    use uuid::Uuid;

    #[tokio::test]
    async fn an_answer_bears_what_it_was_given() {
        let token = ConsistencyToken::single(Uuid::nil(), 7, 9);
        let response = Json::bytes(StatusCode::CREATED, &br#"{"id":"x","version":1}"#[..])
            .etag(1)
            .token(&token)
            .location("/api/v1/users/x".to_owned())
            .correlation_id("c-1")
            .into_response();
        assert_eq!(response.status(), 201);
        for (name, value) in [
            ("content-type", "application/json"),
            ("etag", "\"1\""),
            ("consistency-token", token.to_string().as_str()),
            ("location", "/api/v1/users/x"),
            ("correlation-id", "c-1"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(response.headers()[name], value);
        }
        assert_eq!(body_text(response).await, r#"{"id":"x","version":1}"#);
    }

    #[tokio::test]
    async fn a_value_is_serialised() {
        let response = Json::value(StatusCode::OK, &[1, 2]).into_response();
        assert_eq!(body_json(response).await, serde_json::json!([1, 2]));
    }

    #[test]
    fn text_that_is_no_header_is_left_out() {
        let response =
            Json::bytes(StatusCode::OK, "{}").location("/\n".to_owned()).correlation_id("\n").into_response();
        assert!(
            !response.headers().contains_key("location")
                && !response.headers().contains_key("correlation-id")
        );
    }
}
