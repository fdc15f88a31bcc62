//! A tree of objects, and its lines.
//!
//! Absent: the objects. `tree` reads them.

use serde::Serialize;

use super::output::Tone;
use super::table::{Cell, Table};

/// An object of the tree.
#[derive(Clone, Debug, Serialize)]
pub struct TreeNode {
    /// Its kind and name, such as Pod/server-1.
    pub object: String,
    /// Whether it is well; absent if that cannot be said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub well: Option<bool>,
    /// Its health in words.
    pub health: String,
    /// The objects below it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<TreeNode>,
}

impl TreeNode {
    /// An object without others below it.
    pub fn new(object: String, well: Option<bool>, health: impl Into<String>) -> Self {
        Self {
            object,
            well,
            health: health.into(),
            children: Vec::new(),
        }
    }
}

/// A line of the tree.
pub struct TreeLine {
    branch: String,
    /// The object's kind and name.
    pub object: String,
    well: Option<bool>,
    health: String,
}

/// Adds the lines of a node and of all below it.
pub fn flatten(node: &TreeNode, branch: &str, below: &str, lines: &mut Vec<TreeLine>) {
    lines.push(TreeLine {
        branch: branch.to_owned(),
        object: node.object.clone(),
        well: node.well,
        health: node.health.clone(),
    });
    for (index, child) in node.children.iter().enumerate() {
        let (corner, rest) = if index + 1 == node.children.len() {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        flatten(
            child,
            &format!("{below}{corner}"),
            &format!("{below}{rest}"),
            lines,
        );
    }
}

/// The tree as a table.
pub fn table(lines: &[TreeLine]) -> Table {
    let mut table = Table::new(["OBJECT", "READY", "HEALTH"]);
    for line in lines {
        let (ready, tone) = match line.well {
            Some(true) => ("True", Tone::Good),
            Some(false) => ("False", Tone::Bad),
            None => ("", Tone::Faint),
        };
        table.row([
            format!("{}{}", line.branch, line.object).into(),
            Cell::toned(ready, tone),
            line.health.as_str().into(),
        ]);
    }
    table
}
