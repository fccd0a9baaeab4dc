//! `GET /problems/{code}`: what the `type` of a problem document leads to.

use std::fmt::Write;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::{CODES, Problem};
use crate::fallback::PathText;

/// The text about a problem type; `None` for a code that is not in the registry.
#[must_use]
pub fn explain(code: &str) -> Option<String> {
    let code = CODES.iter().find(|known| known.code == code)?;
    Some(format!("{} ({})\n\n{}\n\n{}\n", code.code, code.status, code.title, code.explanation))
}

/// `/problems` and `/problems/{code}`, in plain text, for everybody.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/problems", get(list)).route("/problems/{code}", get(one))
}

async fn list() -> Response {
    let mut text = String::with_capacity(8 * 1024);
    for code in CODES {
        writeln!(text, "{} ({})\n    {}\n    {}\n", code.code, code.status, code.title, code.explanation)
            .expect("a string takes any text");
    }
    plain(text)
}

async fn one(PathText(code): PathText) -> Result<Response, Problem> {
    explain(&code).map(plain).ok_or_else(Problem::not_found)
}

fn plain(text: String) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{body_text, get as get_request, send};

    #[tokio::test]
    async fn every_type_is_explained_at_its_uri() {
        for code in CODES {
            let response = send(routes(), get_request(&format!("/problems/{}", code.code))).await;
            assert_eq!(response.status(), 200);
            assert!(body_text(response).await.contains(code.explanation));
        }
        let list = body_text(send(routes(), get_request("/problems")).await).await;
        assert!(CODES.iter().all(|code| list.contains(code.title)));
    }

    #[tokio::test]
    async fn an_unknown_type_is_not_found() {
        assert_eq!(explain("no-such"), None);
        assert_eq!(send(routes(), get_request("/problems/no-such")).await.status(), 404);
    }
}
