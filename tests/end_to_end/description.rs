//! The description of the API.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::rollcall::{Client, Rollcall};

/// Every operation under `/api/v1`. A change here is a change of the contract.
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
";

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

    pub fn is_command(&self) -> bool {
        self.takes_body() && !self.path.ends_with("/query") && !self.path.ends_with("/batch-get")
    }

    /// The path with a user's id in it, and an association's kind and key.
    pub fn path_of(&self, id: &str) -> String {
        self.path.replace("{id}", id).replace("{kind}", "membership").replace("{key}", "gold")
    }
}

pub async fn document(client: &Client) -> Value {
    client.get("/openapi.json").await.expect(200).json()
}

/// Every operation of the description, in order of path and method.
pub async fn operations(client: &Client) -> Vec<Operation> {
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
    let operations = operations(&client).await;
    let lines: Vec<_> =
        operations.iter().map(|operation| format!("{} {}", operation.method, operation.path)).collect();
    assert_eq!(lines.join("\n"), OPERATIONS.trim());
}

#[tokio::test]
async fn every_operation_has_an_id_a_tag_a_scope_and_its_answers() {
    let client = Rollcall::shared().new_tenant();
    let document = document(&client).await;
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    let mut operation_ids = BTreeSet::new();
    for Operation { method, path, description } in operations(&client).await {
        let name = format!("{method} {path}");
        let id = description["operationId"].as_str().unwrap();
        assert!(operation_ids.insert(id.to_owned()), "{id} stands twice");
        assert!(!description["summary"].as_str().unwrap().is_empty(), "{name}");
        assert!(description["tags"].as_array().is_some_and(|tags| !tags.is_empty()), "{name}");
        let security = description["security"].as_array().unwrap();
        let (scheme, scopes) = security[0].as_object().unwrap().iter().next().unwrap();
        assert!(schemes.contains_key(scheme), "{name}");
        let scope = scopes[0].as_str().unwrap();
        assert!(["users:read", "users:write", "audit:read"].contains(&scope), "{name}: {scope}");

        let responses = description["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{name}");
        for status in ["400", "503"] {
            let problem = &responses[status]["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(problem, "#/components/schemas/Problem", "{name}");
        }
        let parameters = description["parameters"].as_array().unwrap();
        let in_path: BTreeSet<_> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let in_template: BTreeSet<_> =
            path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(in_path, in_template, "{name}");
    }
}
