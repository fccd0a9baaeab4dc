//! `/docs`: the description as a page, by Swagger UI. Everything it loads is embedded.

use std::{borrow::Cow, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::{
        HeaderName, HeaderValue,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{Redirect, Response},
    routing::get,
};
use bytes::Bytes;
use rollcall_edge::Problem;
use utoipa_swagger_ui::Config;

const PAGE: &str = include_str!("docs/index.html");
const START: &str = include_str!("docs/start.js");

/// What the page is made of.
const VENDORED: [&str; 3] = ["swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"];

/// Only what comes from here, and requests only to here. React sets styles on elements as it draws; icons are data.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page's links are relative to `/docs`, whatever a proxy puts before it; `/docs/` leads there.
pub fn routes() -> Router {
    Router::new()
        .route("/docs", get(async || answer("text/html; charset=utf-8", PAGE)))
        .route("/docs/", get(async || Redirect::permanent("../docs")))
        .route("/docs/{file}", get(async |Path(file): Path<String>| asset(&file)))
}

fn asset(file: &str) -> Result<Response, Problem> {
    if file == "start.js" {
        return Ok(answer("text/javascript; charset=utf-8", START));
    }
    let name = VENDORED.into_iter().find(|name| *name == file).ok_or_else(Problem::not_found)?;
    let vendored = utoipa_swagger_ui::serve(name, Arc::new(Config::default()));
    let vendored = vendored.ok().flatten().ok_or_else(Problem::not_found)?;
    let bytes = match vendored.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    Ok(answer(&vendored.content_type, bytes))
}

fn answer(content_type: &str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let headers: [(HeaderName, HeaderValue); 5] = [
        (CONTENT_TYPE, HeaderValue::from_str(content_type).expect("a media type is visible ASCII")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600")),
    ];
    response.headers_mut().extend(headers);
    response
}
