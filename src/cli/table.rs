//! The one table printer, with kubectl's look: upper-case headers, three spaces between columns, no borders.
//!
//! Absent: the terminal. Whether colors are used is a parameter.

use super::output::{Paint, Tone};

/// The spaces between two columns.
const GAP: usize = 3;

/// A cell of a table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell in this tone.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: printable(&text.into()),
            tone,
        }
    }

    /// A cell that may have nothing to say.
    pub fn optional(text: Option<&str>) -> Self {
        text.map_or_else(|| "<none>".into(), Self::from)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

/// A table.
pub struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(headers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            headers: headers.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The widths of the columns.
    pub fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.headers.iter().map(String::len).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        widths
    }

    /// The table with its headers.
    pub fn render(&self, paint: Paint) -> String {
        let widths = self.widths();
        let headers = self
            .headers
            .iter()
            .map(|header| Cell::from(header.as_str()));
        let mut text = line(&headers.collect::<Vec<_>>(), &widths, paint);
        for row in &self.rows {
            text.push_str(&line(row, &widths, paint));
        }
        text
    }
}

/// A row in columns of these widths; a longer cell moves the others to the right. Nothing follows the last cell.
pub fn line(cells: &[Cell], widths: &[usize], paint: Paint) -> String {
    let mut text = String::new();
    for (index, cell) in cells.iter().enumerate() {
        text.push_str(&paint.paint(&cell.text, cell.tone));
        if index + 1 < cells.len() {
            let width = widths.get(index).copied().unwrap_or_default();
            let missing = width.saturating_sub(cell.text.chars().count());
            text.push_str(&" ".repeat(missing + GAP));
        }
    }
    text.push('\n');
    text
}

/// The text on one line without control characters: a registry's words must not move a terminal's cursor.
pub fn printable(text: &str) -> String {
    let word = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "READY", "REASON"]);
        let bad = |text| Cell::toned(text, Tone::Bad);
        table.row(["nyc-taxi".into(), "True".into(), "Live".into()]);
        table.row(["é".into(), bad("False"), "Rolled\u{1b}[31mBack\n".into()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_nothing_follows_the_last() {
        let expected = "\
NAME       READY   REASON
nyc-taxi   True    Live
é          False   Rolled [31mBack \n";
        assert_eq!(table().render(Paint::never()), expected);
    }

    #[test]
    fn colors_do_not_move_columns() {
        let colored = table().render(Paint::always());
        assert!(colored.contains("é          \u{1b}[31mFalse\u{1b}[0m   Rolled"));
    }
}
