//! Cleans text of a server before people see it: one line, cut short, and free of our own secrets.
//!
//! Absent: detection of unknown secrets. Only the secrets that this process holds are redacted.

/// The longest text of a server that is kept, in characters.
const KEPT: usize = 200;

/// The secrets that must not be seen, the longest first.
#[derive(Clone, Default)]
pub(crate) struct Redactor(Vec<String>);

impl Redactor {
    /// A redactor of these secrets.
    pub(crate) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut secrets: Vec<String> = secrets
            .into_iter()
            .filter(|secret| !secret.is_empty())
            .collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// One line without control characters and secrets, cut short. Secrets are removed before the
    /// cut, so that no half of one stays.
    pub(crate) fn clean(&self, text: &str) -> String {
        let line: String = text
            .chars()
            .map(|c| if is_invisible(c) { ' ' } else { c })
            .collect();
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        cut(&self.hide(&line), KEPT)
    }

    fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            text = text.replace(secret.as_str(), "[redacted]");
        }
        text
    }
}

/// Control characters, and those that turn or hide text on a terminal.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// At most `most` characters, with an ellipsis if some were left out.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_occurrence_of_a_secret_is_removed() {
        let redactor = Redactor::new([
            "pass word".to_owned(),
            "pass word and more".to_owned(),
            String::new(),
        ]);
        assert_eq!(
            redactor.clean("no pass word, no pass word and more!"),
            "no [redacted], no [redacted]!"
        );
    }

    #[test]
    fn a_secret_across_the_cut_leaves_no_half() {
        let redactor = Redactor::new(["s3cr3t-t0k3n".to_owned()]);
        let cleaned = redactor.clean(&format!("{}s3cr3t-t0k3n", "x".repeat(KEPT - 4)));
        assert!(!cleaned.contains("s3cr"), "{cleaned}");
        assert_eq!(cleaned.chars().count(), KEPT + 1);
    }

    #[test]
    fn control_characters_become_one_space() {
        assert_eq!(
            Redactor::default().clean("a\u{1b}[31m\r\n\tb\u{202e}c"),
            "a [31m b c"
        );
    }

    #[test]
    fn a_cut_counts_characters_not_bytes() {
        assert_eq!(cut("ééé", 2), "éé…");
        assert_eq!(cut("éé", 2), "éé");
    }
}
