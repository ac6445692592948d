//! Every JSON body of the API with every kind of error in every field. The cases are generated from the OpenAPI document,
//! so that new fields and routes are covered.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Server};

/// An operation with a JSON body.
struct Operation {
    method: Method,
    path: String,
    schema: Value,
    /// The smallest body that matches the schema.
    body: Value,
}

/// Bodies for schemas without required fields that still reject an empty object.
const BODIES: [(&str, &str); 4] = [
    ("SearchRequest", r#"{"query": "x"}"#),
    ("DeleteDocumentsRequest", r#"{"ids": ["x"]}"#),
    ("ModelRequest", r#"{"model": "no/such"}"#),
    ("PurgeRequest", r#"{"stage": "chunking", "all": true}"#),
];

/// Fields whose schema allows any JSON.
const ANY_JSON_FIELDS: [&str; 1] = ["filter"];

struct Document(Value);

impl Document {
    fn new() -> Self {
        Self(serde_json::to_value(embeddery_server::openapi()).unwrap())
    }

    fn operations(&self) -> Vec<Operation> {
        let mut operations = Vec::new();
        for (path, item) in self.0["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                if schema.is_null() {
                    continue;
                }
                let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
                let given = BODIES.iter().find(|(known, _)| *known == name);
                let body = match given {
                    Some((_, body)) => serde_json::from_str(body).unwrap(),
                    None => self.smallest(schema),
                };
                operations.push(Operation {
                    method: method.to_uppercase().parse().unwrap(),
                    path: path.replace("{name}", "notes"),
                    schema: self.resolve(schema).clone(),
                    body,
                });
            }
        }
        assert!(operations.len() >= 18, "{} operations with a body", operations.len());
        operations
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(pointer) => self.resolve(self.0.pointer(&pointer[1..]).unwrap()),
            None => schema,
        }
    }

    /// The schemas that a value may have, except null.
    fn alternatives<'a>(&'a self, schema: &'a Value) -> Vec<&'a Value> {
        let schema = self.resolve(schema);
        match schema["oneOf"].as_array() {
            Some(some) => some.iter().flat_map(|one| self.alternatives(one)).collect(),
            None if schema["type"] == "null" => Vec::new(),
            None => vec![schema],
        }
    }

    /// The smallest value that matches a schema.
    fn smallest(&self, schema: &Value) -> Value {
        let schema = self.alternatives(schema)[0];
        if !schema["example"].is_null() {
            return schema["example"].clone();
        }
        match type_of(schema) {
            "string" => schema["enum"].get(0).cloned().unwrap_or(json!("x")),
            "integer" | "number" => schema.get("minimum").cloned().unwrap_or(json!(1)),
            "boolean" => json!(true),
            "array" => json!([self.smallest(&schema["items"])]),
            "object" => {
                required(schema).map(|field| (field, self.smallest(property(schema, field)))).collect()
            }
            other => panic!("a field of type {other}"),
        }
    }
}

fn type_of(schema: &Value) -> &str {
    match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap(),
        one => one.as_str().unwrap_or_else(|| panic!("no type: {schema}")),
    }
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap())
}

fn property<'a>(schema: &'a Value, field: &str) -> &'a Value {
    &schema["properties"][field]
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    schema["properties"].as_object().into_iter().flatten().map(|(name, schema)| (name.as_str(), schema))
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A path in a body, such as `documents`, `0`, `text`.
type Path<'a> = Vec<&'a str>;

/// A path as errors write it, such as `documents[0].text`.
fn param_name(path: &[&str]) -> String {
    path.iter().fold(String::new(), |text, part| match part.parse::<usize>() {
        Ok(index) => format!("{text}[{index}]"),
        Err(_) if text.is_empty() => (*part).to_owned(),
        Err(_) => format!("{text}.{part}"),
    })
}

/// The body with another value at a path. Missing objects on the path are created.
fn with(body: &Value, path: &[&str], value: Value) -> Value {
    let mut changed = body.clone();
    let mut at = &mut changed;
    for part in path {
        at = match part.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[*part],
        };
    }
    *at = value;
    changed
}

fn without(body: &Value, path: &[&str]) -> Value {
    let mut changed = body.clone();
    let (field, parents) = path.split_last().unwrap();
    let pointer: String = parents.iter().map(|part| format!("/{part}")).collect();
    changed.pointer_mut(&pointer).unwrap().as_object_mut().unwrap().remove(*field);
    changed
}

struct Check {
    server: Server,
    checked: usize,
}

impl Check {
    async fn new() -> Self {
        Self { server: Server::start().await, checked: 0 }
    }

    async fn send(&mut self, operation: &Operation, body: String) -> Answer {
        self.checked += 1;
        let request = self.server.request(operation.method.clone(), &operation.path);
        Answer::of(request.header("content-type", "application/json").body(body)).await
    }

    /// Asserts that the body matches the schema. The request may fail for another reason.
    async fn assert_matches(&mut self, operation: &Operation, body: String) {
        let what = format!("{} {} {body}", operation.method, operation.path);
        let answer = self.send(operation, body).await;
        if !answer.status.is_success() {
            assert!(!["invalid_request", "invalid_json"].contains(&answer.code()), "{what}: {}", answer.text);
            assert!(answer.status.as_u16() < 500, "{what}: {}", answer.text);
        }
    }

    /// Asserts that the body does not match the schema because of this field.
    async fn assert_mismatch(&mut self, operation: &Operation, body: String, param: Option<&str>) -> Answer {
        let what = format!("{} {} {body}", operation.method, operation.path);
        let status = if operation.path.starts_with("/v1/") { 400 } else { 422 };
        let answer = self.send(operation, body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code(), &answer.json["error"]["param"]),
            (status, "invalid_request", &json!(param)),
            "{what}: {}",
            answer.text
        );
        answer
    }

    /// Asserts that the value of the field is rejected: it does not match the schema, or is out of bounds.
    async fn assert_rejected(&mut self, operation: &Operation, body: &Value, param: &str) {
        let answer = self.send(operation, body.to_string()).await;
        let schema_status = if operation.path.starts_with("/v1/") { 400 } else { 422 };
        let found = (answer.status.as_u16(), answer.code());
        let what = format!("{} {} {body}: {}", operation.method, operation.path, answer.text);
        assert!(found == (schema_status, "invalid_request") || found == (400, "invalid_value"), "{what}");
        assert_eq!(answer.json["error"]["param"], param, "{what}");
    }
}

/// Every object of a body with its path. Absent objects are added.
fn objects<'a>(
    document: &'a Document,
    schema: &'a Value,
    body: &Value,
    path: &Path<'a>,
) -> Vec<(Path<'a>, &'a Value, Value)> {
    let mut found = vec![(path.clone(), schema, body.clone())];
    for (name, property) in properties(schema) {
        for schema in document.alternatives(property) {
            let (inner, index) = match type_of(schema) {
                "array" => (document.resolve(&schema["items"]), Some("0")),
                _ => (schema, None),
            };
            if inner.get("properties").is_none() {
                continue;
            }
            let value = document.smallest(inner);
            let value = if index.is_some() { json!([value]) } else { value };
            let mut field = path.clone();
            field.push(name);
            let body = with(body, &field, value);
            field.extend(index);
            found.extend(objects(document, inner, &body, &field));
        }
    }
    found
}

#[tokio::test]
async fn fields_of_the_wrong_type_are_named() {
    let (document, mut check) = (Document::new(), Check::new().await);
    let wrong = [json!(7), json!("not a known value"), json!(true), json!([]), json!({}), json!([null])];
    for operation in document.operations() {
        check.assert_matches(&operation, operation.body.to_string()).await;
        for (path, schema, body) in objects(&document, &operation.schema, &operation.body, &Vec::new()) {
            for (name, property) in properties(schema).filter(|(name, _)| !ANY_JSON_FIELDS.contains(name)) {
                let mut field = path.clone();
                field.push(name);
                let alternatives = document.alternatives(property);
                for value in &wrong {
                    let kind = json_type(value);
                    let fits = alternatives.iter().any(|schema| match (type_of(schema), kind) {
                        ("array", "array") => true,
                        ("number", "integer") => true,
                        ("string", "string") => schema["enum"].is_null(),
                        (expected, kind) => expected == kind,
                    });
                    let body = with(&body, &field, value.clone());
                    if !fits {
                        let answer = check
                            .assert_mismatch(&operation, body.to_string(), Some(&param_name(&field)))
                            .await;
                        assert!(answer.message().contains("; send "), "{}", answer.text);
                    } else if *value == json!([null]) {
                        // The error names the list or its element.
                        let answer = check.send(&operation, body.to_string()).await;
                        let (code, param) = (answer.code(), answer.json["error"]["param"].as_str().unwrap());
                        assert_eq!(code, "invalid_request", "{body}: {}", answer.text);
                        let (list, element) = (param_name(&field), format!("{}[0]", param_name(&field)));
                        assert!(param == list || param == element, "{body}: {}", answer.text);
                    }
                }
            }
        }
    }
    assert!(check.checked > 300, "{} bodies", check.checked);
}

#[tokio::test]
async fn numbers_out_of_bounds_are_named() {
    let (document, mut check) = (Document::new(), Check::new().await);
    let mut bounded = 0;
    for operation in document.operations() {
        for (path, schema, body) in objects(&document, &operation.schema, &operation.body, &Vec::new()) {
            for (name, property) in properties(schema) {
                for schema in document.alternatives(property) {
                    if type_of(schema) != "integer" {
                        continue;
                    }
                    bounded += 1;
                    let mut field = path.clone();
                    field.push(name);
                    let (minimum, maximum) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
                    let minimum = minimum.unwrap_or_else(|| panic!("{name} has no minimum"));
                    let beyond = maximum.map(|maximum| json!(maximum + 1));
                    let values = [json!(minimum - 1), json!(-1), json!(1.5), json!(1e300)];
                    for value in values.into_iter().chain(beyond) {
                        let body = with(&body, &field, value);
                        check.assert_rejected(&operation, &body, &param_name(&field)).await;
                    }
                    for value in [minimum, maximum.unwrap_or(minimum + 1)] {
                        let body = with(&body, &field, json!(value)).to_string();
                        let answer = check.send(&operation, body).await;
                        // The model may reject the number of dimensions, but the bounds allow it.
                        assert!(!answer.text.contains("it must be between"), "{value}: {}", answer.text);
                    }
                }
            }
        }
    }
    assert!(bounded >= 10, "{bounded} numbers");
}

#[tokio::test]
async fn unknown_fields_are_named_with_the_nearest_known_one() {
    let (document, mut check) = (Document::new(), Check::new().await);
    for operation in document.operations() {
        for (path, schema, body) in objects(&document, &operation.schema, &operation.body, &Vec::new()) {
            assert_eq!(schema["additionalProperties"], false, "{}: {schema}", operation.path);
            let names: Vec<&str> = properties(schema).map(|(name, _)| name).collect();
            for name in &names {
                let misspelt = format!("{name}s");
                if names.contains(&misspelt.as_str()) {
                    continue;
                }
                let mut field = path.clone();
                field.push(&misspelt);
                let param = param_name(&field);
                let answer = check
                    .assert_mismatch(&operation, with(&body, &field, json!(1)).to_string(), Some(&param))
                    .await;
                assert!(answer.message().contains(&format!("did you mean '{name}'?")), "{}", answer.text);
            }
            let mut field = path.clone();
            field.push("`x`, expected one of `y`");
            let answer = check
                .assert_mismatch(
                    &operation,
                    with(&body, &field, json!(1)).to_string(),
                    Some(&param_name(&field)),
                )
                .await;
            assert!(answer.message().contains("known are "), "{}", answer.text);
            assert!(names.iter().all(|name| answer.message().contains(name)), "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn required_fields_are_neither_absent_nor_null() {
    let (document, mut check) = (Document::new(), Check::new().await);
    let mut missing = 0;
    for operation in document.operations() {
        for (path, schema, body) in objects(&document, &operation.schema, &operation.body, &Vec::new()) {
            for name in required(schema) {
                missing += 1;
                let mut field = path.clone();
                field.push(name);
                for body in [without(&body, &field), with(&body, &field, Value::Null)] {
                    let answer =
                        check.assert_mismatch(&operation, body.to_string(), Some(&param_name(&field))).await;
                    let expected = format!("{name} is missing; send ");
                    assert!(answer.message().contains(&expected), "{expected}: {}", answer.text);
                }
            }
            let given = |name: &str| path.is_empty() && operation.body.get(name).is_some();
            let optional: Vec<&str> = properties(schema)
                .map(|(name, _)| name)
                .filter(|name| !given(name) && !required(schema).any(|required| required == *name))
                .collect();
            for name in optional {
                let mut field = path.clone();
                field.push(name);
                check.assert_matches(&operation, with(&body, &field, Value::Null).to_string()).await;
            }
        }
    }
    assert!(missing >= 20, "{missing} required fields");
}

/// An object as JSON text in which one key occurs twice.
fn twice(body: &Value, name: &str, first: &Value, last: &Value) -> String {
    let mut members: Vec<String> = vec![format!("{:?}: {first}", name)];
    let others = body.as_object().unwrap().iter().filter(|(other, _)| *other != name);
    members.extend(others.map(|(name, value)| format!("{name:?}: {value}")));
    members.push(format!("{name:?}: {last}"));
    format!("{{{}}}", members.join(", "))
}

#[tokio::test]
async fn the_last_of_duplicate_keys_counts() {
    let (document, mut check) = (Document::new(), Check::new().await);
    for operation in document.operations() {
        for (name, value) in operation.body.as_object().unwrap() {
            let wrong = json!({"wrong": 1});
            check.assert_matches(&operation, twice(&operation.body, name, value, value)).await;
            check.assert_matches(&operation, twice(&operation.body, name, &wrong, value)).await;
            check.assert_mismatch(&operation, twice(&operation.body, name, value, &wrong), Some(name)).await;
        }
    }
}

/// The values in every order, because the document does not have the order of the struct's fields.
fn permutations(values: Vec<Value>) -> Vec<Vec<Value>> {
    if values.is_empty() {
        return vec![values];
    }
    let rest = |first: usize| {
        let mut rest = values.clone();
        let first = rest.remove(first);
        permutations(rest).into_iter().map(move |rest| [vec![first.clone()], rest].concat())
    };
    (0..values.len()).flat_map(rest).collect()
}

#[tokio::test]
async fn objects_are_neither_lists_nor_wrapped() {
    let (document, mut check) = (Document::new(), Check::new().await);
    for operation in document.operations() {
        let values = |object: &Value| {
            let values: Vec<Value> = object.as_object().unwrap().values().cloned().collect();
            json!(values)
        };
        for body in [json!([]), values(&operation.body), json!("x"), json!(1), json!(true), json!(null)] {
            let answer = check.assert_mismatch(&operation, body.to_string(), None).await;
            assert!(answer.message().contains("send a JSON object"), "{}", answer.text);
        }
        check.assert_mismatch(&operation, json!({"zzz": operation.body}).to_string(), Some("zzz")).await;
        // serde would accept a list of the fields' values in the order of the struct.
        for (path, schema, body) in objects(&document, &operation.schema, &operation.body, &Vec::new()) {
            if path.is_empty() {
                continue;
            }
            let all = properties(schema).map(|(_, property)| document.smallest(property)).collect();
            for all in permutations(all) {
                let body = with(&body, &path, json!(all));
                check.assert_mismatch(&operation, body.to_string(), Some(&param_name(&path))).await;
            }
        }
        // serde would accept the object `{"value": null}` for the value of an enum.
        for (name, property) in properties(&operation.schema) {
            for schema in document.alternatives(property) {
                if let Some(value) = schema["enum"].get(0).and_then(Value::as_str) {
                    let body = with(&operation.body, &[name], json!({value: null}));
                    check.assert_mismatch(&operation, body.to_string(), Some(name)).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn broken_json_is_named_before_any_field() {
    let (document, mut check) = (Document::new(), Check::new().await);
    for operation in document.operations() {
        for body in [
            r#"{"zzz": 1, nonsense}"#.to_owned(),
            r#"{"zzz": "\ud800"}"#.to_owned(),
            format!("{} {{}}", operation.body),
            format!(r#"{{"zzz": {}1{}}}"#, "[".repeat(1000), "]".repeat(1000)),
            "{\"zzz\": 1e999}".to_owned(),
        ] {
            let answer = check.send(&operation, body).await;
            assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_json"), "{}", answer.text);
            assert!(answer.message().starts_with("the body is not JSON: "), "{}", answer.text);
        }
    }
}
