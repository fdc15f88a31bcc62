//! The reference of all kinds as Markdown, from their definitions: docs/api.md.
//!
//! Absent: words of its own about a field. They are the descriptions in the definitions.

use std::fmt::Write;

use serde_json::Value;

use super::custom_resource_definitions;

const HEAD: &str = "\
# API

Each field of each kind, with its rules. `make crds` writes this page from the definitions, and a test compares it with them. The same in a
cluster: `kubectl explain aliasbinding.spec`. A name with `[]` is a list, and `<key>` stands for any key of a map.
";

/// The page.
///
/// # Errors
/// If a definition cannot be written as JSON, which would be a fault of its schema.
pub fn markdown() -> Result<String, serde_json::Error> {
    let mut page = HEAD.to_owned();
    for definition in custom_resource_definitions() {
        kind(&mut page, &serde_json::to_value(definition)?);
    }
    Ok(page)
}

/// The section of a kind.
fn kind(page: &mut String, definition: &Value) {
    let names = &definition["spec"]["names"];
    let name = text(&names["kind"]);
    let version = &definition["spec"]["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let group = text(&definition["spec"]["group"]);
    let columns = items(&version["additionalPrinterColumns"])
        .map(|column| text(&column["name"]).to_owned())
        .collect::<Vec<_>>();
    let _ = write!(
        page,
        "\n## {name}\n\n{}\n\n`apiVersion: {group}/{}` · short name `{}` · columns of `kubectl get -o wide`: {}\n",
        cell(text(&schema["description"])),
        text(&version["name"]),
        text(&names["shortNames"][0]),
        columns.join(", "),
    );
    for part in ["spec", "status"] {
        let _ = write!(
            page,
            "\n### {name} {part}\n\n| field | type | default | description |\n|---|---|---|---|\n"
        );
        fields(page, part, &schema["properties"][part]);
    }
    let mut rules = String::new();
    collect_rules(&mut rules, "", schema);
    if !rules.is_empty() {
        let _ = write!(
            page,
            "\n### {name} rules\n\nThe API server refuses an object that breaks one of these, with the message.\n\n\
             | field | rule | message |\n|---|---|---|\n{rules}"
        );
    }
}

/// The rows of an object's fields, each before those of its own fields.
fn fields(page: &mut String, path: &str, schema: &Value) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let required = items(&schema["required"]).any(|each| each == name.as_str());
        let default = match &field["default"] {
            _ if required => "required".to_owned(),
            Value::Null => String::new(),
            value => code(&value.to_string()),
        };
        let path = format!("{path}.{name}");
        let _ = writeln!(
            page,
            "| `{path}` | {} | {default} | {} |",
            type_of(field),
            cell(text(&field["description"]))
        );
        each_inner(&path, field, |path, inner| fields(page, path, inner));
    }
}

/// The rows of the CEL rules of a schema and of all below it.
fn collect_rules(rows: &mut String, path: &str, schema: &Value) {
    for rule in items(&schema["x-kubernetes-validations"]) {
        let field = if path.is_empty() { "metadata" } else { path };
        let _ = writeln!(
            rows,
            "| `{field}` | {} | {} |",
            code(text(&rule["rule"])),
            cell(text(&rule["message"]))
        );
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        collect_rules(rows, &path, field);
        each_inner_item(&path, field, |path, inner| collect_rules(rows, path, inner));
    }
}

/// Calls it with a field's own schema, and with those of its elements.
fn each_inner(path: &str, field: &Value, mut then: impl FnMut(&str, &Value)) {
    then(path, field);
    each_inner_item(path, field, then);
}

/// Calls it with the schemas of a field's elements: those of a list or a map.
fn each_inner_item(path: &str, field: &Value, mut then: impl FnMut(&str, &Value)) {
    for (member, suffix) in [("items", "[]"), ("additionalProperties", ".<key>")] {
        if field[member].is_object() {
            then(&format!("{path}{suffix}"), &field[member]);
        }
    }
}

/// The type with its bounds, as `string, 1 to 63 characters`.
fn type_of(field: &Value) -> String {
    let mut words = match text(&field["type"]) {
        "array" => format!("list of {}", type_of(&field["items"])),
        "object" if field["additionalProperties"].is_object() => {
            format!("map of {}", type_of(&field["additionalProperties"]))
        }
        "object" if field["x-kubernetes-preserve-unknown-fields"] == true => {
            "object with any fields".to_owned()
        }
        "string" if field["format"] == "date-time" => "time".to_owned(),
        plain => plain.to_owned(),
    };
    let choices: Vec<String> = items(&field["enum"])
        .map(|choice| code(text(choice)))
        .collect();
    if !choices.is_empty() {
        words = choices.join(" or ");
    }
    for (least, most, unit) in [
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " elements"),
        ("minProperties", "maxProperties", " entries"),
        ("minimum", "maximum", ""),
    ] {
        let bound = match (number(&field[least]), number(&field[most])) {
            (Some(least), Some(most)) => format!(", {least} to {most}{unit}"),
            (Some(least), None) => format!(", at least {least}{unit}"),
            (None, Some(most)) => format!(", at most {most}{unit}"),
            (None, None) => continue,
        };
        words.push_str(&bound);
    }
    if let Some(pattern) = field["pattern"].as_str() {
        let _ = write!(words, ", {}", code(pattern));
    }
    words
}

/// Bounds are whole numbers, which a schema writes as `63` or `63.0`.
fn number(value: &Value) -> Option<String> {
    value.as_f64().map(|number| number.to_string())
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A text in a cell of a table: one line, and nothing in it is Markdown or HTML.
fn cell(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace('|', "\\|")
        .replace('<', "&lt;")
        .replace('*', "\\*")
}

/// Code in a cell of a table, where a bar ends the cell even in code.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_shown_with_its_type_bounds_default_and_place() {
        let schema = json!({"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 63, "description": "The\nname."},
            "policy": {"type": "string", "enum": ["Delete", "Orphan"], "default": "Delete", "description": "a | b"},
            "list": {"type": "array", "maxItems": 2.0, "items": {"type": "object", "properties": {
                "key": {"type": "integer", "minimum": 1.0, "description": "<key>"}}}}}});
        let mut rows = String::new();
        fields(&mut rows, "spec", &schema);
        let expected = [
            "| `spec.list` | list of object, at most 2 elements |  |  |",
            "| `spec.list[].key` | integer, at least 1 |  | &lt;key> |",
            "| `spec.name` | string, 1 to 63 characters | required | The name. |",
            "| `spec.policy` | `Delete` or `Orphan` | `\"Delete\"` | a \\| b |",
        ];
        assert_eq!(rows.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_rule_is_shown_with_its_field() {
        let schema = json!({"x-kubernetes-validations": [{"rule": "size(self.metadata.name) <= 63", "message": "long"}],
            "properties": {"spec": {"properties": {"aliases": {"items": {
                "x-kubernetes-validations": [{"rule": "a || b", "message": "c"}]}}}}}});
        let mut rows = String::new();
        collect_rules(&mut rows, "", &schema);
        assert_eq!(
            rows.lines().collect::<Vec<_>>(),
            [
                "| `metadata` | `size(self.metadata.name) <= 63` | long |",
                "| `spec.aliases[]` | `a \\|\\| b` | c |"
            ]
        );
    }
}
