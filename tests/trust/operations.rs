//! Every operation that asks for a scope, with a request that is made from its description.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::service::Service;

const METHODS: [&str; 8] = ["delete", "get", "head", "options", "patch", "post", "put", "trace"];
/// Deeper schemas are answered with null.
const DEPTH_MAX: usize = 8;
const SOMEBODY: &str = "01934a1c-7c5e-7b6a-9d2f-3c4b5a697887";

/// A request that is in order but for who sends it.
pub struct Operation {
    pub method: String,
    /// Filled in.
    pub path: String,
    pub template: String,
    pub body: Option<Value>,
    pub scopes: BTreeSet<String>,
}

impl Operation {
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.template)
    }

    pub fn of_user(&self, id: &str) -> String {
        self.path.replace(SOMEBODY, id)
    }
}

/// Everything under `/api/`, and whatever else the document says needs a scope.
pub async fn operations() -> Vec<Operation> {
    let document = Service::shared().ask("GET", "/openapi.json", &[], None).await.expect(200).json();
    let mut operations = Vec::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, description) in item.as_object().unwrap() {
            if !METHODS.contains(&method.as_str()) {
                continue;
            }
            let scopes = scopes(&document, description);
            let name = format!("{method} {template}");
            assert!(!scopes.is_empty() || !template.starts_with("/api/"), "{name} is open to everybody");
            if !scopes.is_empty() {
                operations.push(Operation {
                    method: method.to_uppercase(),
                    path: path(&document, template, item, description),
                    template: template.clone(),
                    body: body(&document, description),
                    scopes,
                });
            }
        }
    }
    assert!(operations.len() > 20);
    operations
}

/// All scopes that an operation's `security` names, or the document's where it has none of its own.
fn scopes(document: &Value, description: &Value) -> BTreeSet<String> {
    let security = description.get("security").unwrap_or(&document["security"]);
    let schemes = security.as_array().into_iter().flatten().filter_map(Value::as_object);
    let names = schemes.flat_map(Map::values).filter_map(Value::as_array).flatten();
    names.map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn path(document: &Value, template: &str, item: &Value, description: &Value) -> String {
    let parameters = [item, description].map(|place| place["parameters"].as_array());
    let mut path = template.to_owned();
    for parameter in parameters.into_iter().flatten().flatten() {
        let parameter = resolve(document, parameter);
        if parameter["in"] == "path" {
            let value = match parameter.get("example") {
                Some(example) => example.clone(),
                None => value_of(document, &parameter["schema"], 0),
            };
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            path = path.replace(&format!("{{{}}}", parameter["name"].as_str().unwrap()), &text);
        }
    }
    // Everybody is somebody, so that a test can put another in its place.
    let path = path
        .split('/')
        .map(|segment| if uuid::Uuid::parse_str(segment).is_ok() { SOMEBODY } else { segment });
    let path = path.collect::<Vec<_>>().join("/");
    assert!(!path.contains('{'), "{path} is not filled in");
    path
}

fn body(document: &Value, description: &Value) -> Option<Value> {
    let body = resolve(document, description.get("requestBody")?);
    let content = &body["content"]["application/json"];
    let example = content.get("example").or_else(|| {
        let named = content.get("examples")?.as_object()?.values().next()?;
        resolve(document, named).get("value")
    });
    Some(example.cloned().unwrap_or_else(|| value_of(document, &content["schema"], 0)))
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            document.pointer(reference.strip_prefix('#').unwrap()).expect("no dangling reference")
        }
        None => value,
    }
}

/// A value that the schema describes, from its example where it has one.
fn value_of(document: &Value, schema: &Value, depth: usize) -> Value {
    let schema = resolve(document, schema);
    if let Some(example) = schema.get("example").or_else(|| schema.get("examples")?.get(0)) {
        return example.clone();
    }
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    if depth == DEPTH_MAX {
        return Value::Null;
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(choices) = schema.get(choice).and_then(Value::as_array) {
            let first = choices.iter().find(|choice| choice["type"] != "null");
            return first.map_or(Value::Null, |first| value_of(document, first, depth + 1));
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").and_then(Value::as_str),
        kind => kind.as_str(),
    };
    match kind {
        Some("string") if schema["format"] == "uuid" => SOMEBODY.into(),
        Some("string") if schema["format"] == "date-time" => "2026-01-01T00:00:00Z".into(),
        Some("string") => "gold".into(),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| 1.into()),
        Some("boolean") => true.into(),
        Some("array") => json!([value_of(document, &schema["items"], depth + 1)]),
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let member =
                |name: &str| (name.to_owned(), value_of(document, &schema["properties"][name], depth + 1));
            Value::Object(required.map(member).collect())
        }
        _ => Value::Null,
    }
}
