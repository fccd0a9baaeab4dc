//! What the OpenAPI documents of both APIs share: headers, paging, problems, scopes, tags.
//!
//! Shape: routes name the parts (`params(CallerHeaders)`, `responses(…, UserCommandProblems)`, headers by name) ->
//! [`complete`] adds the components that they point to, and says in words what `security` says in names.

mod headers;
mod params;
mod problems;

use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::{Tag, TagBuilder};
use utoipa::openapi::{OpenApi, Ref, RefOr};

pub use params::{
    CallerHeaders, CommandHeaders, IdempotencyHeader, MetadataHeaders, PageParams, TokenHeader, UserPath,
};
pub use problems::{
    BatchProblems, BodyQueryProblems, ExternalIdProblems, ListingProblems, NewEmailProblems, NewUserProblems,
    SameEmailProblems, UserCommandProblems, UserQueryProblems, problem_responses,
};

use crate::principal::Scope;

/// The groups of the documentation.
pub mod tags {
    pub const USERS: &str = "users";
    pub const COMMANDS: &str = "commands";
    pub const AUDIT: &str = "audit";
    pub const OPERATIONS: &str = "operations";
}

/// The name of the security scheme: `security(("bearer" = ["users:read"]))`.
pub const BEARER: &str = "bearer";

const BEARER_DESCRIPTION: &str = "\
With `auth.mode = jwt` every route but those of operations asks for a bearer token (RFC 6750): a JWT that is signed \
with EdDSA, ES256 or RS256 by a configured issuer, with the claims `iss`, `aud`, `exp`, `sub`, `tenant` and `scope` \
(names apart by spaces). Each route names the scope that it needs.

With `auth.mode = open`, which only listens on loopback, nothing is asked for: the headers `Tenant` and `Actor` say \
who calls, every scope is granted, and a token is passed over.";

/// Adds what routes only name: the components behind references, the scheme, the tags, and the sentence about scopes.
pub fn complete(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    components.schemas.extend(problems::schemas());
    components.examples.extend(problems::examples());
    components.headers.extend(headers::all());
    let bearer = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(BEARER_DESCRIPTION))
        .build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    document.tags = Some(described_tags());
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        headers::point(operation);
        say_scopes(operation);
    }
    drop_unused(document);
}

/// A role serves some of the routes, whose answers need some of the components.
fn drop_unused(document: &mut OpenApi) {
    let paths = serde_json::to_string(&document.paths).expect("a description is JSON");
    let used = |kind: &str, name: &str| paths.contains(&format!("\"#/components/{kind}/{name}\""));
    let components = document.components.get_or_insert_default();
    components.examples.retain(|name, _| used("examples", name));
    components.headers.retain(|name, _| used("headers", name));
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
    [get, put, post, delete, options, head, patch, trace].into_iter().flatten()
}

/// An operation that names no scope is open to everybody: `security` says so with an empty list, which is not the same
/// as none.
fn say_scopes(operation: &mut Operation) {
    let needed: Vec<String> = scopes(operation.security.as_deref().unwrap_or_default())
        .map(|scope| format!("Needs the scope `{scope}`."))
        .collect();
    let sentence = match needed.as_slice() {
        [] => {
            operation.security = Some(Vec::new());
            "Asks for no token.".to_owned()
        }
        sentences => sentences.join(" "),
    };
    let description = operation.description.take().map_or_else(String::new, |text| format!("{text}\n\n"));
    operation.description = Some(format!("{description}{sentence}"));
}

/// The scopes that requirements name; a name that is no scope of ours is passed over.
fn scopes(requirements: &[SecurityRequirement]) -> impl Iterator<Item = Scope> {
    let named = serde_json::to_value(requirements).expect("requirements are maps of lists of text");
    Scope::ALL.into_iter().filter(move |scope| {
        let lists = named.as_array().into_iter().flatten().map(|requirement| &requirement[BEARER]);
        lists.filter_map(serde_json::Value::as_array).flatten().any(|name| name == scope.as_str())
    })
}

fn described_tags() -> Vec<Tag> {
    let tag = |name, description| TagBuilder::new().name(name).description(Some(description)).build();
    vec![
        tag(
            tags::USERS,
            "One user at a time: what is done to it, and what it is now. A command answers with the user's version \
             and a `Consistency-Token`; a query that sends the token back sees what the command did.",
        ),
        tag(tags::COMMANDS, "Many commands in one request, with an outcome for each."),
        tag(tags::AUDIT, "Who changed what, when and why."),
        tag(tags::OPERATIONS, "For operators and for programs that read this document."),
    ]
}

/// A pointer to a component.
fn reference<T>(kind: &str, name: &str) -> RefOr<T> {
    RefOr::Ref(Ref::new(format!("#/components/{kind}/{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Lists
    #[utoipa::path(get, path = "/sample", tag = tags::USERS, security(("bearer" = ["users:read"])),
        params(CallerHeaders, PageParams),
        responses((status = 200, description = "fine", headers(("ETag"), ("Consistency-Token"))), ListingProblems))]
    #[expect(dead_code, reason = "only its description is read")]
    fn sample() {}

    /// Lives
    #[utoipa::path(get, path = "/livez", tag = tags::OPERATIONS, responses((status = 200, description = "fine")))]
    #[expect(dead_code, reason = "only its description is read")]
    fn livez() {}

    #[derive(utoipa::OpenApi)]
    #[openapi(paths(sample, livez))]
    struct Sample;

    fn completed() -> Value {
        let mut document = <Sample as utoipa::OpenApi>::openapi();
        complete(&mut document);
        serde_json::to_value(document).unwrap()
    }

    #[test]
    fn what_a_route_names_is_there() {
        let document = completed();
        let responses = &document["paths"]["/sample"]["get"]["responses"];
        let headers = &responses["200"]["headers"];
        assert_eq!(headers["ETag"], json!({"$ref": "#/components/headers/ETag"}));
        for name in headers.as_object().unwrap().keys() {
            assert!(document["components"]["headers"][name]["description"].is_string(), "{name}");
        }
        let problem = &responses["503"]["content"]["application/problem+json"];
        assert_eq!(problem["schema"]["$ref"], "#/components/schemas/Problem");
        for (code, example) in problem["examples"].as_object().unwrap() {
            assert_eq!(*example, json!({"$ref": format!("#/components/examples/{code}")}));
            assert_eq!(document["components"]["examples"][code]["value"]["code"], json!(code));
        }
        assert!(document["components"]["schemas"]["FieldError"].is_object());
    }

    #[test]
    fn the_scope_is_told_in_words_and_its_absence_too() {
        let document = completed();
        let of = |path: &str| document["paths"][path]["get"].clone();
        assert_eq!(of("/sample")["description"], "Needs the scope `users:read`.");
        assert_eq!(of("/sample")["security"], json!([{"bearer": ["users:read"]}]));
        assert_eq!(of("/livez")["description"], "Asks for no token.");
        assert_eq!(of("/livez")["security"], json!([]));
    }

    #[test]
    fn every_tag_is_described() {
        let document = completed();
        let described: Vec<_> =
            document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
        assert_eq!(described, [tags::USERS, tags::COMMANDS, tags::AUDIT, tags::OPERATIONS]);
    }
}
