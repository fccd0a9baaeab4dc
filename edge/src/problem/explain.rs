//! `GET /problems/{code}`: what the `type` of a problem document leads to, as a page for browsers and as text for others.

mod page;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue};

use super::{CODES, Code, FieldError, Problem};
use crate::fallback::PathText;

/// `/problems` and `/problems/{code}`, for everybody.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/problems", get(list)).route("/problems/{code}", get(one))
}

async fn list(headers: HeaderMap) -> Response {
    if wants_html(&headers) { html(page::list()) } else { plain(page::list_text()) }
}

async fn one(PathText(code): PathText, headers: HeaderMap) -> Result<Response, Problem> {
    let code = CODES.iter().find(|known| known.code == code).ok_or_else(Problem::not_found)?;
    Ok(if wants_html(&headers) { html(page::one(code)) } else { plain(page::one_text(code)) })
}

/// A problem of this type as a client may meet it.
#[must_use]
pub fn example(code: Code) -> Problem {
    let (detail, error) = match code.code {
        "malformed-header" => (
            "the header Actor must be an opaque id",
            Some(FieldError::parameter("Actor", "must be an opaque id")),
        ),
        "malformed-path" => (
            "a segment of the path is not as it must be; see `errors`",
            Some(FieldError::parameter("id", "must be a UUID of 36 characters")),
        ),
        "malformed-query" => (
            "one query parameter is not as it must be; see `errors`",
            Some(FieldError::parameter("stats", "is not a parameter here; did you mean `status`?")),
        ),
        "malformed-json" => ("the body is not JSON: expected `,` or `}` at line 1 column 27", None),
        "duplicate-member" => {
            ("a member stands twice; see `errors`", Some(FieldError::pointer("/email", "is there twice")))
        }
        "malformed-token" => (
            "Consistency-Token: is cut short",
            Some(FieldError::parameter("Consistency-Token", "is cut short")),
        ),
        "invalid-members" => (
            "one member is not as it must be; see `errors`",
            Some(FieldError::pointer("/email", "must be an email address, for example ada@example.com")),
        ),
        "email-taken" => (
            "another user of this tenant has this email",
            Some(FieldError::pointer("/email", "is another user's")),
        ),
        "external-id-taken" => (
            "another user of this tenant has one of these external ids",
            Some(FieldError::pointer("/external_ids", "one of them is another user's")),
        ),
        "precondition-failed" => ("the user is at version 18, which If-Match does not name", None),
        "unsupported-media-type" => (
            "Content-Type is not of JSON; send application/json (for PATCH also application/merge-patch+json)",
            Some(FieldError::parameter("Content-Type", "is not of JSON")),
        ),
        "body-too-large" => ("the body must not be longer than 262144 bytes", None),
        // The title says it all.
        _ => (code.title, None),
    };
    Problem::new(code, detail).with_errors(error.into_iter().collect())
}

/// Browsers name text/html; programs that take anything get text.
fn wants_html(headers: &HeaderMap) -> bool {
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    ranges.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let html = parts.next().is_some_and(|range| range.eq_ignore_ascii_case("text/html"));
        html && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

fn plain(text: String) -> Response {
    answer(text, HeaderValue::from_static("text/plain; charset=utf-8"))
}

fn html(text: String) -> Response {
    let mut response = answer(text, HeaderValue::from_static("text/html; charset=utf-8"));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
    response
}

fn answer(text: String, content_type: HeaderValue) -> Response {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{body_text, get as get_request, header_map, send};

    async fn page(uri: &str, accept: &str) -> (Response, String) {
        let mut request = get_request(uri);
        request.headers_mut().extend(header_map(&[("accept", accept)]));
        let (parts, body) = send(routes(), request).await.into_parts();
        let text = body_text(Response::new(body)).await;
        (Response::from_parts(parts, Body::empty()), text)
    }

    #[tokio::test]
    async fn every_type_is_explained_at_its_uri() {
        for code in CODES {
            for accept in ["*/*", "text/html,application/xhtml+xml;q=0.9"] {
                let (response, text) = page(&format!("/problems/{}", code.code), accept).await;
                assert_eq!(response.status(), 200);
                assert!(text.contains(&page::escaped(code.title)) || text.contains(code.title), "{text}");
                assert!(text.contains("application/problem+json"), "{text}");
            }
        }
        for accept in ["*/*", "text/html"] {
            let (_, list) = page("/problems", accept).await;
            assert!(CODES.iter().all(|code| list.contains(code.code)));
        }
    }

    #[tokio::test]
    async fn browsers_get_a_page_that_loads_nothing_and_others_text() {
        let (response, text) = page("/problems/email-taken", "text/html").await;
        assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(
            response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'")
        );
        assert!(!text.contains("://") && !text.contains("<script"), "{text}");
        for accept in ["", "*/*", "application/json", "text/html;q=0, */*"] {
            let (response, text) = page("/problems/email-taken", accept).await;
            assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; charset=utf-8", "{accept}");
            assert_eq!(response.headers()[VARY], "Accept");
            assert!(!text.contains('<'), "{text}");
        }
    }

    #[tokio::test]
    async fn an_unknown_type_is_not_found() {
        assert_eq!(send(routes(), get_request("/problems/no-such")).await.status(), 404);
    }

    #[test]
    fn an_example_is_of_its_type() {
        for code in CODES {
            let example = example(*code);
            assert_eq!((example.code, example.status), (code.code, code.status));
            assert!(!example.detail.is_empty());
        }
    }
}
