//! Cleans text of a server before people see it: one line, cut short, and free of our own secrets.
//!
//! Absent: detection of unknown secrets. Only the secrets that this process holds are redacted, and the users and queries of
//! URIs.

use crate::api::public_uri::without_secrets;

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
        cut(&without_secrets(&self.hide(&line)), KEPT)
    }

    fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            text = text.replace(secret.as_str(), "[redacted]");
        }
        text
    }
}

/// Words that a name ends with if its value is a credential, and those that it holds anywhere.
const SECRET_ENDS: [&str; 8] = [
    "key", "keys", "token", "tokens", "pwd", "pass", "sas", "sig",
];
const SECRET_PARTS: [&str; 5] = ["secret", "passw", "passphrase", "credential", "signature"];

/// Whether a parameter or tag looks like a credential. A number or a truth value is none, such as in `max_tokens`.
pub(crate) fn is_secret(name: &str, value: &str) -> bool {
    let is_plain = value.parse::<f64>().is_ok() || matches!(value, "" | "True" | "False" | "None");
    if is_plain && value.len() <= 12 {
        return false;
    }
    let lower = name.to_lowercase();
    SECRET_PARTS.iter().any(|part| lower.contains(part))
        || words(name).any(|word| SECRET_ENDS.iter().any(|end| word.ends_with(end)))
}

/// The words of a name such as `aws_access_key`, `apiKey` or `HF-TOKEN`, in lower case.
fn words(name: &str) -> impl Iterator<Item = String> {
    let mut spaced = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (after_lower && c.is_uppercase()) {
            spaced.push(' ');
        }
        after_lower = c.is_lowercase() || c.is_numeric();
        if c.is_alphanumeric() {
            spaced.extend(c.to_lowercase());
        }
    }
    let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
    words.into_iter()
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
    fn a_uri_that_a_server_repeats_loses_its_user_and_its_query() {
        assert_eq!(
            Redactor::default().clean("no file at 'https://t0k3n@host/m?sig=hunter2'"),
            "no file at 'https://host/m'"
        );
    }

    #[test]
    fn names_of_credentials_are_recognized_and_hyperparameters_are_not() {
        for name in [
            "key",
            "api_key",
            "apiKey",
            "APIKEY",
            "aws_secret_access_key",
            "HF-TOKEN",
            "accessToken",
            "db.password",
            "DB_PASSWD",
            "passwordHash",
            "client_secret",
            "azure credentials",
            "request signature",
            "url_sig",
            "authtoken",
            "keys",
        ] {
            assert!(is_secret(name, "abc123"), "{name}");
        }
        for (name, value) in [
            ("alpha", "0.1"),
            ("max_tokens", "512"),
            ("num_keys", "4"),
            ("key_dim", "64"),
            ("tokenizer", "bert"),
            ("pad_token", "0"),
            ("use_key", "True"),
            ("keypoints", "all"),
            ("monitor", "loss"),
            ("signals", "a,b"),
        ] {
            assert!(!is_secret(name, value), "{name}");
        }
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
