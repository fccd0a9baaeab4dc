//! Which problems a route may answer, as responses: one for each status, with an example for each type.

use std::collections::{BTreeMap, BTreeSet};

use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::{headers, reference};
use crate::problem::{CODES, Code, FieldError, MEDIA_TYPE, Problem, code, example};

impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .description(Some("A refusal (RFC 9457): `code` tells programs which, GET `type` tells people"))
            .property("type", text("`/problems/` and the code"))
            .property("title", text("What the code means"))
            .property(
                "status",
                ObjectBuilder::new().schema_type(Type::Integer).description(Some("As the response's")),
            )
            .property("detail", text("What is wrong with this request"))
            .property(
                "code",
                text("Stable, for programs").enum_values(Some(CODES.iter().map(|code| code.code))),
            )
            .property("errors", ArrayBuilder::new().items(Ref::from_schema_name("FieldError")))
            .required("type")
            .required("title")
            .required("status")
            .required("detail")
            .required("code")
            .into()
    }
}

impl ToSchema for Problem {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("FieldError".to_owned(), FieldError::schema()));
    }
}

impl PartialSchema for FieldError {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .description(Some("One thing that is wrong, and where"))
            .property("pointer", text("Where in the body: a JSON pointer (RFC 6901)"))
            .property("parameter", text("Which query parameter, header or segment of the path"))
            .property("detail", text("What is wrong there"))
            .required("detail")
            .into()
    }
}

impl ToSchema for FieldError {}

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description))
}

/// The schemas that problem responses point to.
pub fn schemas() -> [(String, RefOr<Schema>); 2] {
    [("Problem".to_owned(), Problem::schema()), ("FieldError".to_owned(), FieldError::schema())]
}

/// An example of each problem type.
pub fn examples() -> impl Iterator<Item = (String, RefOr<Example>)> {
    CODES.iter().map(|code| {
        let value = serde_json::to_value(example(*code)).expect("a problem is JSON");
        let example = ExampleBuilder::new().summary(code.title).value(Some(value)).build();
        (code.code.to_owned(), RefOr::T(example))
    })
}

/// Responses for these problem types, one for each status, whose description and examples list its codes.
#[must_use]
pub fn problem_responses(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    let statuses: BTreeSet<_> = codes.iter().map(|code| code.status).collect();
    let response = |status| {
        let of_status = || codes.iter().filter(move |code| code.status == status);
        let lines: Vec<_> =
            of_status().map(|code| format!("[`{0}`](/problems/{0}): {1}", code.code, code.title)).collect();
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name("Problem")))
            .examples_from_iter(
                of_status().map(|code| (code.code, reference::<Example>("examples", code.code))),
            )
            .build();
        let mut response =
            ResponseBuilder::new().description(lines.join("\n\n")).content(MEDIA_TYPE, content).build();
        headers::add(&mut response, headers_of(status));
        response
    };
    statuses.into_iter().map(|status| (status.as_str().to_owned(), response(status).into())).collect()
}

/// Puts an operation's problem responses where operations that answer the same can share them. A shared response is named
/// after its status and its codes.
pub fn share(operation: &mut Operation, shared: &mut BTreeMap<String, RefOr<Response>>) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(described) = &*response else { continue };
        let Some(RefOr::T(content)) = described.content.get(MEDIA_TYPE) else { continue };
        let codes: Vec<_> = content.examples.keys().map(String::as_str).collect();
        let name = format!("{status}.{}", codes.join("."));
        let pointer = reference("responses", &name);
        shared.insert(name, std::mem::replace(response, pointer));
    }
}

fn headers_of(status: http::StatusCode) -> &'static [&'static str] {
    match status.as_u16() {
        401 | 403 => &[headers::CORRELATION_ID, headers::WWW_AUTHENTICATE],
        // Where other commands were faster.
        409 | 503 => &[headers::CORRELATION_ID, headers::RETRY_AFTER],
        429 => {
            &[headers::CORRELATION_ID, headers::RATE_LIMIT, headers::RATE_LIMIT_POLICY, headers::RETRY_AFTER]
        }
        _ => &[headers::CORRELATION_ID],
    }
}

macro_rules! problem_sets {
    ($($(#[$doc:meta])* $name:ident: $($part:ident)+;)+) => {
        $(
            $(#[$doc])*
            pub struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    problem_responses(&[$(&$part[..]),+].concat())
                }
            }
        )+
    };
}

problem_sets! {
    /// What a listing may answer besides a page.
    ListingProblems: COMMON TOKEN;
    /// What a query with a body may answer besides.
    BodyQueryProblems: COMMON TOKEN BODY;
    /// What a query about one user may answer besides.
    UserQueryProblems: COMMON TOKEN PATH USER;
    /// What a command on one user may answer besides.
    UserCommandProblems: COMMON BODY PATH USER COMMAND ON_USER;
    /// What a command that may claim an external id may answer besides.
    ExternalIdProblems: COMMON BODY PATH USER COMMAND ON_USER EXTERNAL_ID;
    /// What a command that claims an email may answer besides.
    NewEmailProblems: COMMON BODY PATH USER COMMAND ON_USER EMAIL;
    /// What a command about the email that a user should have may answer besides.
    SameEmailProblems: COMMON BODY PATH USER COMMAND ON_USER SAME_EMAIL;
    /// What the creation of a user may answer besides.
    NewUserProblems: COMMON BODY COMMAND NEW EMAIL EXTERNAL_ID;
    /// What a batch may answer for itself; its commands have outcomes of their own.
    BatchProblems: COMMON BODY;
}

/// Of every route under `/api/v1`.
const COMMON: [Code; 10] = [
    code::MALFORMED_HEADER,
    code::MALFORMED_QUERY,
    code::UNAUTHORIZED,
    code::FORBIDDEN,
    code::URI_TOO_LONG,
    code::MISDIRECTED_HOST,
    code::TOO_MANY_REQUESTS,
    code::INTERNAL,
    code::OVERLOADED,
    code::UNAVAILABLE,
];

const TOKEN: [Code; 3] = [code::MALFORMED_TOKEN, code::PROJECTION_BEHIND, code::PROJECTION_PARKED];

const PATH: [Code; 1] = [code::MALFORMED_PATH];

const USER: [Code; 2] = [code::NOT_FOUND, code::GONE];

const BODY: [Code; 7] = [
    code::MALFORMED_REQUEST,
    code::MALFORMED_JSON,
    code::DUPLICATE_MEMBER,
    code::REQUEST_TIMEOUT,
    code::BODY_TOO_LARGE,
    code::UNSUPPORTED_MEDIA_TYPE,
    code::INVALID_MEMBERS,
];

const COMMAND: [Code; 3] = [code::CONFLICT, code::IDEMPOTENCY_KEY_REUSED, code::LOG_RESTORED];

const ON_USER: [Code; 2] = [code::USER_DEACTIVATED, code::PRECONDITION_FAILED];

const NEW: [Code; 2] = [code::ALREADY_EXISTS, code::GONE];

const EMAIL: [Code; 1] = [code::EMAIL_TAKEN];

const SAME_EMAIL: [Code; 1] = [code::EMAIL_DIFFERS];

const EXTERNAL_ID: [Code; 1] = [code::EXTERNAL_ID_TAKEN];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_schema_of_a_problem_is_what_is_sent() {
        let schema = serde_json::to_value(Problem::schema()).unwrap();
        let sent =
            serde_json::to_value(Problem::not_found().with_error(FieldError::pointer("/a", "x"))).unwrap();
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&schema["properties"]), names(&sent));
        let without_errors = serde_json::to_value(Problem::not_found()).unwrap();
        let required: BTreeSet<_> = schema["required"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect();
        assert_eq!(required, names(&without_errors));
        assert_eq!(schema["properties"]["code"]["enum"].as_array().unwrap().len(), CODES.len());
        assert_eq!([Problem::name(), FieldError::name()], schemas().map(|(name, _)| name));
    }

    #[test]
    fn each_status_lists_its_codes_and_headers() {
        let codes = [code::CONFLICT, code::NOT_FOUND, code::EMAIL_TAKEN, code::TOO_MANY_REQUESTS];
        let responses = serde_json::to_value(problem_responses(&codes)).unwrap();
        assert_eq!(responses.as_object().unwrap().keys().collect::<Vec<_>>(), ["404", "409", "429"]);
        let conflict = &responses["409"];
        assert_eq!(
            conflict["content"][MEDIA_TYPE],
            json!({
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {
                    "conflict": {"$ref": "#/components/examples/conflict"},
                    "email-taken": {"$ref": "#/components/examples/email-taken"},
                },
            })
        );
        let description = conflict["description"].as_str().unwrap();
        for code in ["conflict", "email-taken"] {
            assert!(description.contains(&format!("[`{code}`](/problems/{code})")), "{description}");
        }
        for header in ["RateLimit", "RateLimit-Policy", "Retry-After"] {
            assert!(responses["429"]["headers"][header].is_object(), "{header}");
        }
    }
}
