//! The table of the chart's values, generated from the comments in values.yaml.
//! Absent: the meaning of a value; a comment above its key says it.

use std::fmt::Write as _;

use serde_json::Value;

use crate::chart::chart_folder;
use crate::error::{Context, Error, Result};

const HEAD: &str = "# Values of the chart

Generated from [values.yaml](../charts/pointsman/values.yaml) by `make crds`. The chart's schema refuses other names and types.
[Operating Pointsman](operations.md) explains when to use them.

| value | default | meaning |
| --- | --- | --- |
";

/// A key of values.yaml with the comment above it.
struct Key {
    path: Vec<String>,
    comment: String,
}

/// The page, in Markdown.
pub fn page() -> Result<String> {
    let file = chart_folder().join("values.yaml");
    let doing = format!("reading {}", file.display());
    let text = std::fs::read_to_string(&file).context(&doing)?;
    let values: Value = serde_saphyr::from_str(&text).context(&doing)?;
    let keys = keys(&text);
    let mut page = HEAD.to_owned();
    for key in keys.iter().filter(|key| !key.comment.is_empty()) {
        if !is_group(key, &keys) {
            let default = values.pointer(&format!("/{}", key.path.join("/")));
            let default = default.unwrap_or(&Value::Null);
            let path = key.path.join(".");
            let _ = writeln!(page, "| `{path}` | `{default}` | {} |", key.comment);
        }
    }
    match keys.iter().find(|key| !is_documented(key, &keys)) {
        Some(key) => Err(Error::new(
            doing,
            format_args!("no comment describes {}", key.path.join(".")),
        )),
        None => Ok(page),
    }
}

/// Whether keys below this one have comments of their own.
fn is_group(key: &Key, keys: &[Key]) -> bool {
    let is_below =
        |other: &Key| other.path.len() > key.path.len() && other.path.starts_with(&key.path);
    keys.iter()
        .any(|other| is_below(other) && !other.comment.is_empty())
}

/// Whether a comment describes the key, a key above it, or all keys below it.
fn is_documented(key: &Key, keys: &[Key]) -> bool {
    let describes = |other: &Key| {
        !other.comment.is_empty() && !is_group(other, keys) && key.path.starts_with(&other.path)
    };
    is_group(key, keys) || keys.iter().any(describes)
}

/// All keys of maps, in their order. Lists and values over several lines hold no keys.
fn keys(text: &str) -> Vec<Key> {
    let mut keys = Vec::new();
    let (mut above, mut comment): (Vec<(usize, String)>, String) = (Vec::new(), String::new());
    for line in text.lines() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if let Some(words) = content.strip_prefix('#') {
            let separator = if comment.is_empty() { "" } else { " " };
            let _ = write!(comment, "{separator}{}", words.trim());
        } else if let Some((name, _)) = content.split_once(':') {
            above.retain(|(outer, _)| *outer < indent);
            above.push((indent, name.to_owned()));
            keys.push(Key {
                path: above.iter().map(|(_, name)| name.clone()).collect(),
                comment: std::mem::take(&mut comment),
            });
        } else {
            comment.clear();
        }
    }
    keys
}
