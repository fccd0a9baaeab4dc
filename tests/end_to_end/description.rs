//! The description of the API.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::rollcall::{Client, Rollcall};

/// Every operation. A change here is a change of the contract.
const OPERATIONS: &str = "
GET /api/v1/audit
POST /api/v1/commands
GET /api/v1/users
POST /api/v1/users
POST /api/v1/users/batch-get
POST /api/v1/users/query
DELETE /api/v1/users/{id}
GET /api/v1/users/{id}
PATCH /api/v1/users/{id}
POST /api/v1/users/{id}/accept-terms
DELETE /api/v1/users/{id}/associations/{kind}/{key}
PUT /api/v1/users/{id}/associations/{kind}/{key}
POST /api/v1/users/{id}/change-email
POST /api/v1/users/{id}/deactivate
GET /api/v1/users/{id}/email-preferences
GET /api/v1/users/{id}/events
GET /api/v1/users/{id}/history
PUT /api/v1/users/{id}/preferences
POST /api/v1/users/{id}/reactivate
GET /api/v1/users/{id}/terms
PATCH /api/v1/users/{id}/traits
POST /api/v1/users/{id}/verify-email
GET /docs
GET /health
GET /health/detailed
GET /livez
GET /metrics
GET /openapi.json
GET /problems
GET /problems/{code}
GET /readyz
";

/// Served, and nobody's to call: the docs page's own files, and the other spelling of its path.
const UNDESCRIBED: [&str; 2] = ["/docs/", "/docs/{file}"];

const METHODS: [&str; 8] = ["delete", "get", "head", "options", "patch", "post", "put", "trace"];

/// An operation as the description has it.
pub struct Operation {
    pub method: String,
    pub path: String,
    pub description: Value,
}

impl Operation {
    pub fn takes_body(&self) -> bool {
        self.method != "GET"
    }

    /// Outside `/api/v1`, open to everybody.
    pub fn is_of_operations(&self) -> bool {
        !self.path.starts_with("/api/")
    }

    pub fn is_command(&self) -> bool {
        self.takes_body() && !self.path.ends_with("/query") && !self.path.ends_with("/batch-get")
    }

    /// The path with a user's id in it, an association's kind and key, or a problem's code.
    pub fn path_of(&self, id: &str) -> String {
        let path = self.path.replace("{id}", id).replace("{kind}", "membership").replace("{key}", "gold");
        path.replace("{code}", "email-taken")
    }
}

pub async fn document(client: &Client) -> Value {
    client.get("/openapi.json").await.expect(200).json()
}

/// Every operation of the API, in order of path and method.
pub async fn operations(client: &Client) -> Vec<Operation> {
    all_operations(client).await.into_iter().filter(|operation| !operation.is_of_operations()).collect()
}

/// As [`operations`], with those that operators ask.
async fn all_operations(client: &Client) -> Vec<Operation> {
    let document = document(client).await;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, description) in item.as_object().unwrap() {
            if METHODS.contains(&method.as_str()) {
                let (method, path) = (method.to_uppercase(), path.clone());
                operations.push(Operation { method, path, description: description.clone() });
            }
        }
    }
    operations.sort_by(|a, b| (&a.path, &a.method).cmp(&(&b.path, &b.method)));
    operations
}

/// All texts of members named `$ref`, wherever they stand.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_description_is_openapi_3_1_and_its_references_resolve() {
    let client = Rollcall::shared().new_tenant();
    let document = document(&client).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    for member in ["title", "version"] {
        assert!(!document["info"][member].as_str().unwrap().is_empty());
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("a reference within the document");
        assert!(document.pointer(pointer).is_some_and(Value::is_object), "{reference} dangles");
    }
}

#[tokio::test]
async fn the_operations_are_these() {
    let client = Rollcall::shared().new_tenant();
    let operations = all_operations(&client).await;
    let lines: Vec<_> =
        operations.iter().map(|operation| format!("{} {}", operation.method, operation.path)).collect();
    assert_eq!(lines.join("\n"), OPERATIONS.trim());
}

#[tokio::test]
async fn the_description_stands_as_it_was_reviewed() {
    let client = Rollcall::shared().new_tenant();
    let document = serde_json::to_string_pretty(&document(&client).await).unwrap();
    insta::assert_snapshot!("openapi", document);
}

#[tokio::test]
async fn every_operation_has_an_id_a_tag_a_scope_and_its_answers() {
    let client = Rollcall::shared().new_tenant();
    let document = document(&client).await;
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    let tags: BTreeSet<_> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut operation_ids = BTreeSet::new();
    for operation in all_operations(&client).await {
        let Operation { method, path, description } = &operation;
        let name = format!("{method} {path}");
        let id = description["operationId"].as_str().unwrap();
        assert!(operation_ids.insert(id.to_owned()), "{id} stands twice");
        assert!(!description["summary"].as_str().unwrap().is_empty(), "{name}");
        assert!(tags.contains(description["tags"][0].as_str().unwrap()), "{name}");
        let security = description["security"].as_array().unwrap();
        let said = description["description"].as_str().unwrap();
        assert_eq!(security.is_empty(), operation.is_of_operations(), "{name}");
        if let Some(requirement) = security.first() {
            let (scheme, scopes) = requirement.as_object().unwrap().iter().next().unwrap();
            assert!(schemes.contains_key(scheme), "{name}");
            let scope = scopes[0].as_str().unwrap();
            assert!(["users:read", "users:write", "audit:read"].contains(&scope), "{name}: {scope}");
            assert!(said.contains(&format!("`{scope}`")), "{name}: {said}");
        }
        let responses = description["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{name}");
        let problems: &[&str] = match operation.is_of_operations() {
            true => &[],
            false => &["400", "401", "403", "421", "429", "500", "503"],
        };
        for status in problems {
            let problem = &resolved(&document, &responses[*status])["content"]["application/problem+json"];
            assert_eq!(problem["schema"]["$ref"], "#/components/schemas/Problem", "{name}");
            assert!(!problem["examples"].as_object().unwrap().is_empty(), "{name}");
        }
        let in_path: BTreeSet<_> = description["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let in_template: BTreeSet<_> =
            path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(in_path, in_template, "{name}");
    }
}

/// What a reference leads to, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

#[tokio::test]
async fn every_body_has_an_example_and_every_header_and_parameter_says_what_it_is() {
    let client = Rollcall::shared().new_tenant();
    let document = document(&client).await;
    let has_example = |content: &Value| {
        let schema = resolved(&document, &content["schema"]);
        let holders = [&content["example"], &content["examples"], &schema["example"], &schema["examples"]];
        holders.into_iter().any(|example| !example.is_null())
    };
    for Operation { method, path, description } in all_operations(&client).await {
        let name = format!("{method} {path}");
        for content in
            description["requestBody"]["content"].as_object().into_iter().flat_map(|all| all.values())
        {
            assert!(has_example(content), "{name} takes a body without an example");
        }
        for (status, response) in description["responses"].as_object().unwrap() {
            let response = resolved(&document, response);
            assert!(!response["description"].as_str().unwrap().is_empty(), "{name} {status}");
            for content in response["content"].as_object().unwrap().values() {
                assert!(has_example(content), "{name} {status} has no example");
            }
            for (header, described) in response["headers"].as_object().unwrap() {
                let described = resolved(&document, described);
                assert!(described["description"].is_string(), "{name} {status}: {header}");
            }
        }
        for parameter in description["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{name}: {parameter}");
        }
    }
}

#[tokio::test]
async fn every_operation_of_the_description_is_served() {
    let client = Rollcall::shared().new_tenant();
    for (index, operation) in all_operations(&client).await.iter().enumerate() {
        let created = client.create(&format!("{index}@example.com")).await.expect(201);
        let body = operation.takes_body().then(|| serde_json::json!({}));
        let headers = [("Consistency-Token", created.token())];
        let path = operation.path_of(&created.id());
        let answer = client.call(&operation.method, &path, &headers, body.as_ref()).await;
        let name = format!("{} {}", operation.method, operation.path);
        assert!(![404, 405].contains(&answer.status), "{name}: {answer:?}");
        let described = operation.description["responses"].get(answer.status.to_string());
        assert!(described.is_some(), "{name} is not described to answer so: {answer:?}");
    }
}

/// The files of Rust below a folder, but tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|name| name == "tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Routes with a description of their own are in the document because of it; those that are added by hand may be forgotten.
#[tokio::test]
async fn every_route_that_is_served_is_described() {
    let client = Rollcall::shared().new_tenant();
    let document = document(&client).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "edge/src", "command-api/src", "query-api/src"] {
        sources(&root.join(folder), &mut files);
    }
    let mut routes = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let served = text.split("#[cfg(test)]").next().unwrap();
        for call in served.split(".route(").skip(1) {
            let path = call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            routes.extend(path.map(str::to_owned));
        }
    }
    assert!(routes.len() >= 10, "{routes:?}");
    for route in routes.iter().filter(|route| !UNDESCRIBED.contains(&route.as_str())) {
        assert!(document["paths"][route].is_object(), "{route} is served and not described");
    }
}

#[tokio::test]
async fn the_docs_page_loads_nothing_from_elsewhere() {
    let client = Rollcall::shared().new_tenant();
    let page = client.get("/docs").await.expect(200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let mut loaded = 0;
    for attribute in ["href=\"", "src=\""] {
        for reference in page.text.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(!reference.contains("//") && !reference.starts_with('/'), "{reference}");
            let part = client.get(&format!("/{reference}")).await.expect(200);
            assert_eq!(part.header("x-content-type-options").is_some(), reference != "openapi.json");
            loaded += 1;
        }
    }
    assert!(loaded >= 4, "{}", page.text);
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(!policy.contains("http") && !policy.contains('*') && !policy.contains("unsafe-eval"), "{policy}");
    assert_eq!(client.get("/docs/").await.expect(200).text, page.text);
    assert_eq!(client.get("/docs/index.html").await.expect(404).code(), "not-found");
}

#[tokio::test]
async fn every_problem_type_has_a_page() {
    let client = Rollcall::shared().new_tenant();
    let document = document(&client).await;
    let codes =
        document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array().unwrap();
    assert!(codes.len() > 25);
    for code in codes {
        let path = format!("/problems/{}", code.as_str().unwrap());
        assert!(client.get(&path).await.expect(200).text.contains("application/problem+json"), "{path}");
        let page = client.call("GET", &path, &[("Accept", "text/html")], None).await.expect(200);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
    }
}
