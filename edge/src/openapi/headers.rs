//! The headers of answers, described once each. A route names those that it answers with: `headers(("ETag"))`.

use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Response};

use super::reference;

pub const CORRELATION_ID: &str = "Correlation-Id";
pub const RATE_LIMIT: &str = "RateLimit";
pub const RATE_LIMIT_POLICY: &str = "RateLimit-Policy";
pub const RETRY_AFTER: &str = "Retry-After";
pub const WWW_AUTHENTICATE: &str = "WWW-Authenticate";
const REQUEST_ID: &str = "Request-Id";

/// Name, pattern of the value, example, description.
const HEADERS: [(&str, &str, &str, &str); 11] = [
    (
        "Consistency-Token",
        r"^ct1\.[A-Za-z0-9_-]+$",
        "ct1.AZNKHHxeetqdLzxLWml4hwcJ",
        "How far this answer has seen the log. Opaque: send it with a query, and the query sees at least as much.",
    ),
    (
        CORRELATION_ID,
        "^[A-Za-z0-9._-]{1,128}$",
        "order-4711",
        "What the request's events are correlated under: the request's own Correlation-Id, its trace id, or a new id.",
    ),
    ("ETag", "^\"[0-9]+\"$", "\"17\"", "The user's version in quotes; If-Match takes it back."),
    (
        "Location",
        "^/api/v1/users/[0-9a-f-]{36}$",
        "/api/v1/users/01934a1c-7c5e-7b6a-9d2f-3c4b5a697887",
        "Where the new user is.",
    ),
    ("Cache-Control", "^.+$", "no-store", "Answers about users are kept nowhere on the way."),
    (
        RATE_LIMIT,
        "^.+$",
        "\"tenant\";r=0;t=2",
        "What is left of the tenant's share (r), and after how many seconds there is more (t).",
    ),
    (
        RATE_LIMIT_POLICY,
        "^.+$",
        "\"tenant\";q=2000;w=20",
        "The tenant's share: requests (q) in a window of seconds (w).",
    ),
    (
        REQUEST_ID,
        "^[A-Za-z0-9._-]{1,128}$",
        "01934a1c-7c5e-7b6a-9d2f-3c4b5a697887",
        "This request's id, as logs have it.",
    ),
    (RETRY_AFTER, "^[0-9]+$", "1", "After how many seconds asking again may help."),
    ("Vary", "^.+$", "Accept", "Which headers of the request the answer depends on."),
    (
        WWW_AUTHENTICATE,
        "^Bearer( .+)?$",
        "Bearer realm=\"rollcall\"",
        "The scheme to authenticate with (RFC 6750), and what was wrong with the token.",
    ),
];

/// The components.
pub fn all() -> impl Iterator<Item = (String, RefOr<Header>)> {
    HEADERS.into_iter().map(|(name, pattern, example, description)| {
        let schema = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build();
        let header = HeaderBuilder::new()
            .schema(Some(schema))
            .description(Some(description))
            .example(Some(example.into()))
            .build();
        (name.to_owned(), RefOr::T(header))
    })
}

/// Makes pointers of the names that a route gave, and adds the header that every answer has.
pub fn point(operation: &mut Operation) {
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        add(response, &[REQUEST_ID]);
        for (name, header) in &mut response.headers {
            *header = reference("headers", name);
        }
    }
}

/// Names headers of an answer.
pub fn add(response: &mut Response, names: &[&str]) {
    for name in names {
        response.headers.insert((*name).to_owned(), reference("headers", name));
    }
}
