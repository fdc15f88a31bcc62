//! Names with their values, one a line, as `kubectl describe` prints them.
//!
//! Absent: nesting of more than one level. A section is a list of its own.

use super::table::printable;

/// Names with their values. A value that is empty is left out.
pub struct FieldList {
    indent: usize,
    fields: Vec<(String, String)>,
}

impl FieldList {
    /// No fields yet, each with so many spaces before it.
    pub fn indented(indent: usize) -> Self {
        Self {
            indent,
            fields: Vec::new(),
        }
    }

    /// Adds a field, unless its value is empty.
    pub fn add(&mut self, name: &str, value: impl AsRef<str>) {
        let value = value.as_ref();
        if !value.is_empty() {
            self.fields.push((format!("{name}:"), printable(value)));
        }
    }

    /// Adds a field, if it has a value.
    pub fn add_some(&mut self, name: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// The lines.
    pub fn render(&self) -> String {
        let width = self
            .fields
            .iter()
            .map(|(name, _)| name.chars().count())
            .max();
        let width = width.unwrap_or_default() + 2;
        let line = |(name, value): &(String, String)| {
            let indent = self.indent;
            format!("{:indent$}{name:<width$}{value}\n", "")
        };
        self.fields.iter().map(line).collect::<Vec<_>>().concat()
    }
}

/// The lines of a text, each with so many spaces before it.
pub fn indented(text: &str, indent: usize) -> String {
    let line = |line: &str| format!("{:indent$}{line}\n", "");
    text.lines().map(line).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_aligned_and_empty_ones_left_out() {
        let mut fields = FieldList::indented(2);
        fields.add("Name", "taxi");
        fields.add("Namespace", "ml");
        fields.add("Pinned", "");
        fields.add_some("Hold", None::<&str>);
        assert_eq!(fields.render(), "  Name:       taxi\n  Namespace:  ml\n");
    }
}
