//! Every refusal as a problem document (RFC 9457), of a type from one registry.
//!
//! Shape: [`code`] (what there is) -> [`Problem`] (one refusal) -> `application/problem+json`;
//! [`Problems`] collects what is wrong with a request's members, so that a client reads all of it at once.

pub mod code;
mod explain;
mod problems;

use std::{error::Error, fmt};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

pub use code::{CODES, Code};
pub use explain::{example, routes};
pub use problems::Problems;

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A refusal. `status`, `code` and `title` come from one row of [`CODES`]; `detail` is about this request and must
/// hold no personal value, since clients log it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub title: &'static str,
    pub detail: String,
    /// What is wrong, place by place; empty where the whole request is meant.
    pub errors: Vec<FieldError>,
    pub retry_after_s: Option<u32>,
    /// The methods of a 405, where the router does not add them itself.
    pub allow: Option<&'static str>,
    /// What else the answer's head says; boxed, because few problems have any.
    headers: Option<Box<HeaderMap>>,
}

/// One thing that is wrong with a request: a body's member by JSON pointer (RFC 6901), a query parameter or a header
/// by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    pub detail: String,
}

impl FieldError {
    #[must_use]
    pub fn pointer(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), parameter: None, detail: detail.into() }
    }

    #[must_use]
    pub fn parameter(parameter: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: None, parameter: Some(parameter.into()), detail: detail.into() }
    }
}

impl Problem {
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            status: code.status,
            code: code.code,
            title: code.title,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_s: None,
            allow: None,
            headers: None,
        }
    }

    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    #[must_use]
    pub fn with_error(mut self, error: FieldError) -> Self {
        self.errors.push(error);
        self
    }

    #[must_use]
    pub fn with_retry_after_s(mut self, retry_after_s: u32) -> Self {
        self.retry_after_s = Some(retry_after_s);
        self
    }

    #[must_use]
    pub fn with_allow(mut self, allow: &'static str) -> Self {
        self.allow = Some(allow);
        self
    }

    /// Adds a header, or takes the place of one of that name.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.get_or_insert_default().insert(name, value);
        self
    }

    /// A header that is empty, given twice or not of its form; `form` completes "`name` …".
    #[must_use]
    pub fn malformed_header(name: &'static str, form: &str) -> Self {
        Self::new(code::MALFORMED_HEADER, format!("the header {name} {form}"))
            .with_error(FieldError::parameter(name, form))
    }

    /// The text of the detail says nothing of what is there: another tenant's ids must look like none.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(code::NOT_FOUND, "there is nothing here that this caller may see")
    }

    /// Logs `error` with its causes, once, and tells the client none of it.
    #[must_use]
    pub fn internal(error: &(dyn Error + 'static)) -> Self {
        // The causes in the text: JSON lines leave out those that a field has by itself.
        tracing::error!(error = %Chain(error), "a request failed on an internal error");
        Self::new(code::INTERNAL, "the request failed here; it may be tried again")
    }

    /// A 503 that says when to come back.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>, retry_after_s: u32) -> Self {
        Self::new(code::UNAVAILABLE, detail).with_retry_after_s(retry_after_s)
    }

    /// The document as bytes, for callers that write their own response.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        serde_json::to_writer(&mut bytes, self).expect("strings and numbers always serialise into memory");
        bytes
    }
}

/// An error with its causes, in one line.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(source) = cause {
            write!(f, ": {source}")?;
            cause = source.source();
        }
        Ok(())
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("/problems/{}", self.code))?;
        map.serialize_entry("title", self.title)?;
        map.serialize_entry("status", &self.status.as_u16())?;
        map.serialize_entry("detail", &self.detail)?;
        map.serialize_entry("code", self.code)?;
        if !self.errors.is_empty() {
            map.serialize_entry("errors", &self.errors)?;
        }
        map.end()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_bytes()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(methods) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        // RFC 9110 15.5.2: a 401 must name a scheme.
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="rollcall""#));
        }
        if let Some(more) = self.headers {
            headers.extend(*more);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::body_json;
    use serde_json::json;

    #[test]
    fn an_internal_error_is_told_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("the log could not be read")]
        struct Unread(#[source] std::io::Error);

        let error = Unread(std::io::Error::other("no route to host"));
        assert_eq!(Chain(&error).to_string(), "the log could not be read: no route to host");
    }

    #[tokio::test]
    async fn a_problem_is_answered_as_rfc_9457_says() {
        let response = Problem::new(code::INVALID_MEMBERS, "two members are wrong")
            .with_error(FieldError::pointer("/email", "is required"))
            .with_error(FieldError::parameter("status", "is unknown"))
            .with_retry_after_s(2)
            .into_response();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(
            body_json(response).await,
            json!({
                "type": "/problems/invalid-members",
                "title": "The members of the body are not as they must be",
                "status": 422,
                "detail": "two members are wrong",
                "code": "invalid-members",
                "errors": [
                    {"pointer": "/email", "detail": "is required"},
                    {"parameter": "status", "detail": "is unknown"},
                ],
            })
        );
    }

    #[tokio::test]
    async fn no_errors_means_no_member_errors() {
        let body = body_json(Problem::not_found().into_response()).await;
        assert_eq!(body.get("errors"), None);
        assert_eq!(body["status"], 404);
    }

    #[test]
    fn a_401_names_a_scheme_and_a_405_its_methods() {
        let response = Problem::new(code::UNAUTHORIZED, "no token").into_response();
        assert_eq!(response.headers()[WWW_AUTHENTICATE], r#"Bearer realm="rollcall""#);
        let challenge = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
        let refused = Problem::new(code::UNAUTHORIZED, "expired").with_header(WWW_AUTHENTICATE, challenge);
        let challenges =
            refused.into_response().headers().get_all(WWW_AUTHENTICATE).iter().cloned().collect::<Vec<_>>();
        assert_eq!(challenges, [r#"Bearer error="invalid_token""#]);
        let response = Problem::new(code::METHOD_NOT_ALLOWED, "no").with_allow("GET, HEAD").into_response();
        assert_eq!(response.headers()[ALLOW], "GET, HEAD");
    }
}
