//! Requests that reach no handler, as problem documents too.

use axum::Router;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::{FieldError, Problem, code};

/// Answers unknown paths with 404 and unknown methods with 405. To be called after the last route was added: axum gives
/// the fallback for methods to the routes that are there. axum adds the Allow header.
pub fn with_fallbacks<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed)
}

pub async fn not_found() -> Problem {
    Problem::not_found()
}

pub async fn method_not_allowed() -> Problem {
    Problem::new(code::METHOD_NOT_ALLOWED, "the header Allow lists what this resource takes")
}

/// axum's `Path` with a problem for a rejection: `PathText(id)` for one text, `PathText<Uuid>`,
/// `PathText<(Uuid, String)>` for others. Refuses with 400 `malformed-path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathText<T = String>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathText<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(failed)) => Err(malformed(failed.into_kind())),
            Err(other) => Err(Problem::internal(&other)),
        }
    }
}

/// Names the segment where axum does. What types say of themselves may quote the value, so it is not passed on.
fn malformed(kind: ErrorKind) -> Problem {
    let (segment, detail) = match kind {
        ErrorKind::InvalidUtf8InPathParam { key } => (key, "is not UTF-8 once percent-decoded".to_owned()),
        ErrorKind::ParseErrorAtKey { key, expected_type, .. } => {
            (key, format!("must be of the form of {expected_type}"))
        }
        ErrorKind::ParseErrorAtIndex { index, expected_type, .. } => {
            (index.to_string(), format!("must be of the form of {expected_type}"))
        }
        ErrorKind::ParseError { expected_type, .. } => {
            (String::new(), format!("must be of the form of {expected_type}"))
        }
        ErrorKind::DeserializeError { key, .. } => {
            (key, "is not of the form that its place asks for".to_owned())
        }
        ErrorKind::Message(_) => (String::new(), "is not of the form that its place asks for".to_owned()),
        // The route and its handler do not fit; a test of the route meets this.
        kind => return Problem::internal(&Misfit(kind.to_string())),
    };
    Problem::new(code::MALFORMED_PATH, "a segment of the path is not as it must be; see `errors`")
        .with_error(FieldError::parameter(segment, detail))
}

#[derive(Debug, thiserror::Error)]
#[error("a route's path and its handler do not fit: {0}")]
struct Misfit(String);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{body_json, body_text, get as get_request, send};
    use axum::body::Body;
    use axum::routing::{get, put};
    use http::Request;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn router() -> Router {
        with_fallbacks(
            Router::new()
                .route("/text/{name}", get(async |PathText(name): PathText| name))
                .route(
                    "/users/{id}",
                    get(async |PathText(id): PathText<Uuid>| id.to_string()).delete(async || ""),
                )
                .route(
                    "/users/{id}/{kind}/{key}",
                    put(async |PathText(path): PathText<(Uuid, String, String)>| format!("{path:?}")),
                )
                .route("/misfit/{a}/{b}", get(async |PathText(only): PathText<(String,)>| only.0)),
        )
    }

    #[tokio::test]
    async fn an_unknown_path_is_a_404_problem() {
        let response = send(router(), get_request("/nowhere")).await;
        assert_eq!(response.status(), 404);
        assert_eq!(body_json(response).await["code"], "not-found");
    }

    #[tokio::test]
    async fn an_unknown_method_is_a_405_problem_with_allow() {
        let request = Request::post("/users/1").body(Body::empty()).unwrap();
        let response = send(router(), request).await;
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()["allow"], "GET,HEAD,DELETE");
        assert_eq!(body_json(response).await["code"], "method-not-allowed");
    }

    #[tokio::test]
    async fn segments_are_decoded() {
        assert_eq!(body_text(send(router(), get_request("/text/a%2Fb%20%C3%A4")).await).await, "a/b ä");
    }

    #[tokio::test]
    async fn a_malformed_segment_is_named_and_not_quoted() {
        for (method, uri, segment) in [
            ("GET", "/users/secret", "id"),
            ("GET", "/text/%ff", "name"),
            ("PUT", "/users/secret/a/b", "id"),
            ("PUT", "/users/0193c0de-0000-7000-8000-000000000001/secret/%C3", "key"),
        ] {
            let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
            let response = send(router(), request).await;
            assert_eq!(response.status(), 400, "{uri}");
            let problem = body_json(response).await;
            assert_eq!(problem["code"], "malformed-path");
            assert_eq!(problem["errors"][0]["parameter"], segment, "{uri}");
            assert!(!problem.to_string().contains("secret"));
        }
    }

    #[tokio::test]
    async fn a_route_that_does_not_fit_its_handler_is_a_500() {
        assert_eq!(send(router(), get_request("/misfit/a/b")).await.status(), 500);
    }

    proptest! {
        #[test]
        fn any_path_is_answered(path in "/(text|users)/[a-f0-9%-]{0,40}") {
            if let Ok(request) = Request::get(&path).body(Body::empty()) {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let status = runtime.block_on(send(router(), request)).status().as_u16();
                prop_assert!([200, 400, 404].contains(&status), "{} {}", path, status);
            }
        }
    }
}
