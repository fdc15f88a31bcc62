//! Cleans what a server said before people see it: one line, cut short, and free of our own secrets.
//!
//! Absent: guesses at what else may be secret. Only secrets that we hold can be known.

/// How many characters of a server's words are kept.
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

    /// One line without control characters and secrets, cut short. Secrets go before the cut, lest half of one stays.
    pub(crate) fn clean(&self, words: &str) -> String {
        let line: String = words
            .chars()
            .map(|c| if is_unseen(c) { ' ' } else { c })
            .collect();
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        cut(&self.hide(&line), KEPT)
    }

    fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret.as_str(), "[redacted]")
        })
    }
}

/// Control characters, and those that turn or hide text on a terminal.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// At most so many characters, with a sign where some were left out.
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
    fn secrets_go_wherever_they_stand() {
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
    fn secret_across_the_cut_leaves_no_half() {
        let redactor = Redactor::new(["s3cr3t-t0k3n".to_owned()]);
        let said = redactor.clean(&format!("{}s3cr3t-t0k3n", "x".repeat(KEPT - 4)));
        assert!(!said.contains("s3cr"), "{said}");
        assert_eq!(said.chars().count(), KEPT + 1);
    }

    #[test]
    fn control_characters_become_one_space() {
        assert_eq!(
            Redactor::default().clean("a\u{1b}[31m\r\n\tb\u{202e}c"),
            "a [31m b c"
        );
    }

    #[test]
    fn cut_counts_characters_not_bytes() {
        assert_eq!(cut("ééé", 2), "éé…");
        assert_eq!(cut("éé", 2), "éé");
    }
}
