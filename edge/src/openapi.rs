//! What the OpenAPI documents of both APIs share: the schema of problems, headers, paging, tags.

mod params;

use std::collections::{BTreeMap, BTreeSet};

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

pub use params::{
    CallerHeaders, CommandHeaders, IdempotencyHeader, MetadataHeaders, PageParams, TokenHeader,
};

use crate::problem::{CODES, Code, FieldError, MEDIA_TYPE, Problem, code};

/// The groups of the documentation.
pub mod tags {
    pub const USERS: &str = "users";
    pub const COMMANDS: &str = "commands";
    pub const AUDIT: &str = "audit";
    pub const OPERATIONS: &str = "operations";
}

impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        let text =
            |description: &str| ObjectBuilder::new().schema_type(Type::String).description(Some(description));
        ObjectBuilder::new()
            .description(Some("A refusal (RFC 9457); `code` tells programs which, GET `type` tells people"))
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
        let text =
            |description: &str| ObjectBuilder::new().schema_type(Type::String).description(Some(description));
        ObjectBuilder::new()
            .property("pointer", text("Where in the body: a JSON pointer (RFC 6901)"))
            .property("parameter", text("Which query parameter, header or segment of the path"))
            .property("detail", text("What is wrong there"))
            .required("detail")
            .into()
    }
}

impl ToSchema for FieldError {}

/// Adds the schemas that [`problem_responses`] points to; a document without them has dangling references.
pub fn add_schemas(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    for (name, schema) in [(Problem::name(), Problem::schema()), (FieldError::name(), FieldError::schema())] {
        components.schemas.insert(name.into_owned(), schema);
    }
}

/// Responses for these problem types, one for each status, whose description lists its codes.
#[must_use]
pub fn problem_responses(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    let statuses: BTreeSet<_> = codes.iter().map(|code| code.status).collect();
    let describe = |status| {
        let lines = codes
            .iter()
            .filter(|code| code.status == status)
            .map(|code| format!("`{}`: {}", code.code, code.title));
        lines.collect::<Vec<_>>().join("\n\n")
    };
    let response = |status| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        ResponseBuilder::new().description(describe(status)).content(MEDIA_TYPE, content).build()
    };
    statuses.into_iter().map(|status| (status.as_str().to_owned(), response(status).into())).collect()
}

/// What every route under `/api/v1` may answer: `responses(…, CommonProblems)`.
pub struct CommonProblems;

impl IntoResponses for CommonProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem_responses(&COMMON)
    }
}

/// What a query may answer besides.
pub struct QueryProblems;

impl IntoResponses for QueryProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem_responses(&[&COMMON[..], &QUERY].concat())
    }
}

/// What a query with a body may answer besides.
pub struct BodyQueryProblems;

impl IntoResponses for BodyQueryProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem_responses(&[&COMMON[..], &QUERY, &BODY].concat())
    }
}

/// What a command with a body may answer besides.
pub struct CommandProblems;

impl IntoResponses for CommandProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem_responses(&[&COMMON[..], &COMMAND, &BODY].concat())
    }
}

const COMMON: [Code; 11] = [
    code::MALFORMED_REQUEST,
    code::MALFORMED_HEADER,
    code::MALFORMED_PATH,
    code::MALFORMED_QUERY,
    code::UNAUTHORIZED,
    code::FORBIDDEN,
    code::MISDIRECTED_HOST,
    code::TOO_MANY_REQUESTS,
    code::INTERNAL,
    code::OVERLOADED,
    code::UNAVAILABLE,
];

const QUERY: [Code; 5] =
    [code::MALFORMED_TOKEN, code::NOT_FOUND, code::GONE, code::PROJECTION_BEHIND, code::PROJECTION_PARKED];

const BODY: [Code; 5] = [
    code::MALFORMED_JSON,
    code::DUPLICATE_MEMBER,
    code::BODY_TOO_LARGE,
    code::UNSUPPORTED_MEDIA_TYPE,
    code::INVALID_MEMBERS,
];

const COMMAND: [Code; 7] = [
    code::NOT_FOUND,
    code::CONFLICT,
    code::USER_DEACTIVATED,
    code::GONE,
    code::PRECONDITION_FAILED,
    code::IDEMPOTENCY_KEY_REUSED,
    code::LOG_RESTORED,
];

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
        assert_eq!(Problem::name(), "Problem");
        let mut schemas = Vec::new();
        Problem::schemas(&mut schemas);
        assert_eq!(schemas[0].0, FieldError::name());
    }

    #[test]
    fn each_status_lists_its_codes() {
        let responses = problem_responses(&[code::CONFLICT, code::NOT_FOUND, code::EMAIL_TAKEN]);
        assert_eq!(responses.keys().collect::<Vec<_>>(), ["404", "409"]);
        let conflict = serde_json::to_value(&responses["409"]).unwrap();
        assert_eq!(
            conflict["content"][MEDIA_TYPE]["schema"],
            json!({"$ref": "#/components/schemas/Problem"})
        );
        let description = conflict["description"].as_str().unwrap();
        assert!(description.contains("`conflict`") && description.contains("`email-taken`"));
        assert!(CommandProblems::responses().contains_key("412"));
        assert!(QueryProblems::responses().contains_key("503"));
        assert!(CommonProblems::responses().contains_key("421"));
    }

    #[utoipa::path(get, path = "/sample", tag = tags::USERS, params(CallerHeaders, PageParams),
        responses((status = 200, description = "fine"), QueryProblems))]
    #[expect(dead_code, reason = "only its description is read")]
    fn sample() {}

    #[derive(utoipa::OpenApi)]
    #[openapi(paths(sample))]
    struct Sample;

    #[test]
    fn a_route_that_names_the_parts_is_described_without_dangling_references() {
        let mut document = <Sample as utoipa::OpenApi>::openapi();
        add_schemas(&mut document);
        let json = serde_json::to_value(document).unwrap();
        let operation = &json["paths"]["/sample"]["get"];
        assert_eq!(operation["parameters"].as_array().unwrap().len(), 4);
        assert_eq!(
            operation["responses"]["503"]["content"][MEDIA_TYPE]["schema"]["$ref"],
            "#/components/schemas/Problem"
        );
        assert!(operation["responses"]["200"].is_object());
        assert!(json["components"]["schemas"]["Problem"].is_object());
        assert_eq!(
            json["components"]["schemas"]["Problem"]["properties"]["errors"]["items"]["$ref"],
            "#/components/schemas/FieldError"
        );
        assert!(json["components"]["schemas"]["FieldError"].is_object());
    }
}
