//! Writes names in MLflow's filter language, and groups them into batches that fit a request line.
//!
//! Absent: requests. These are pure functions.

use std::fmt::Write;

/// The names as a list for `IN`. MLflow reads the list as a Python literal, so Python's escapes
/// carry any name whole past the SQL tokenizer, which fails on quotes, comments and line breaks.
pub(super) fn name_in<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(python_literal).collect();
    format!("name IN ({})", names.join(","))
}

/// `name = …`, for servers without `IN`. There the quotes are cut off and nothing is unescaped, so
/// a name that holds both kinds of quotes cannot be written.
pub(super) fn name_equals(name: &str) -> Option<String> {
    let quote = ['\'', '"']
        .into_iter()
        .find(|quote| !name.contains(*quote))?;
    Some(format!("name = {quote}{name}{quote}"))
}

/// A Python string literal of plain ASCII.
fn python_literal(name: &str) -> String {
    let mut literal = String::with_capacity(name.len() + 2);
    literal.push('\'');
    for c in name.chars() {
        match u32::from(c) {
            _ if c.is_ascii_alphanumeric() || " _-.".contains(c) => literal.push(c),
            code @ ..=0xff => _ = write!(literal, "\\x{code:02x}"),
            code @ ..=0xffff => _ = write!(literal, "\\u{code:04x}"),
            code => _ = write!(literal, "\\U{code:08x}"),
        }
    }
    literal.push('\'');
    literal
}

/// Batches of at most `most` names whose lists take at most `bytes` bytes in a URL. A name that is
/// too long by itself makes a batch of one.
pub(super) fn batches<'a>(
    names: impl IntoIterator<Item = &'a str>,
    most: usize,
    bytes: usize,
) -> Vec<Vec<&'a str>> {
    let mut batches: Vec<Vec<&str>> = Vec::new();
    let mut used = 0;
    for name in names {
        let cost = url_cost(name);
        match batches.last_mut() {
            Some(batch) if batch.len() < most && used + cost <= bytes => {
                batch.push(name);
                used += cost;
            }
            _ => {
                batches.push(vec![name]);
                used = cost;
            }
        }
    }
    batches
}

/// How many bytes a name takes in a URL, with its quotes and comma: a character that is
/// percent-encoded takes three.
pub(super) fn url_cost(name: &str) -> usize {
    let encoded = |c: char| {
        if c.is_ascii_alphanumeric() || " _-.".contains(c) {
            1
        } else {
            3
        }
    };
    python_literal(name).chars().map(encoded).sum::<usize>() + 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_not_escaped() {
        assert_eq!(
            name_in(["nyc-taxi", "b_2 c.d"]),
            "name IN ('nyc-taxi','b_2 c.d')"
        );
    }

    #[test]
    fn other_characters_become_python_escapes() {
        assert_eq!(
            name_in(["o'b\"\\%é日😀\n"]),
            r"name IN ('o\x27b\x22\x5c\x25\xe9\u65e5\U0001f600\x0a')"
        );
    }

    #[test]
    fn equals_uses_the_quote_that_the_name_lacks() {
        assert_eq!(name_equals("a"), Some("name = 'a'".to_owned()));
        assert_eq!(name_equals("o'b"), Some("name = \"o'b\"".to_owned()));
        assert_eq!(name_equals("'\""), None);
    }

    #[test]
    fn batches_keep_both_limits() {
        let names: Vec<String> = (0..2500).map(|i| format!("model-{i:024}")).collect();
        let by_count = batches(names.iter().map(String::as_str), 1000, 60_000);
        assert_eq!(
            by_count.iter().map(Vec::len).collect::<Vec<_>>(),
            [1000, 1000, 500]
        );
        let by_bytes = batches(names.iter().map(String::as_str), 1000, 3900);
        assert!(
            by_bytes
                .iter()
                .all(|batch| batch.iter().map(|name| url_cost(name)).sum::<usize>() <= 3900)
        );
        assert_eq!(by_bytes.iter().map(Vec::len).sum::<usize>(), 2500);
    }

    #[test]
    fn a_name_beyond_the_limit_is_a_batch_of_its_own() {
        let long = "é".repeat(255);
        assert_eq!(
            batches(["a", long.as_str(), "b"], 1000, 500),
            [vec!["a"], vec![long.as_str()], vec!["b"]]
        );
    }
}
