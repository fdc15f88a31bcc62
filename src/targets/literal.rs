//! Values of environment variables as they stand in a pod template.
//!
//! Absent: the names of variables.

use std::borrow::Cow;

/// The value as it is written into a container's `env`: the kubelet expands `$(NAME)` in it and turns `$$` into `$`, so
/// every `$` is doubled.
#[must_use]
pub fn escape(value: &str) -> Cow<'_, str> {
    if value.contains('$') {
        Cow::Owned(value.replace('$', "$$"))
    } else {
        Cow::Borrowed(value)
    }
}

/// The value that a pod gets from a written one, but for references: `$(NAME)` is kept as it is.
#[must_use]
pub fn unescape(written: &str) -> Cow<'_, str> {
    if written.contains("$$") {
        Cow::Owned(written.replace("$$", "$"))
    } else {
        Cow::Borrowed(written)
    }
}

/// Whether a pod gets exactly this value from the written one. A single `$` before anything but a parenthesis is no
/// reference, so that a value that an earlier release wrote is not written again for it.
#[must_use]
pub fn gives(written: &str, value: &str) -> bool {
    unescape(written) == value && !written.replace("$$", "").contains("$(")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_injected_value_is_read_back_as_it_was() {
        for value in [
            "",
            "s3://bucket/model",
            "a$b",
            "$(DB_PASSWORD)",
            "$$(DB_PASSWORD)",
            "$$$",
            "é$(é)$",
            "100%$",
        ] {
            let written = escape(value);
            assert_eq!(unescape(&written), value);
            assert!(gives(&written, value), "{value}");
            assert_eq!(expanded(&written), value, "the kubelet expands nothing");
        }
    }

    #[test]
    fn a_value_without_a_dollar_is_written_as_it_is() {
        assert_eq!(escape("models:/taxi/4"), "models:/taxi/4");
    }

    #[test]
    fn a_value_of_an_earlier_release_is_written_again_only_if_pods_get_another_one() {
        assert!(gives("s3://bucket/a$b", "s3://bucket/a$b"));
        assert!(!gives("$(DB_PASSWORD)", "$(DB_PASSWORD)"));
        assert!(!gives("$$$(DB_PASSWORD)", "$$(DB_PASSWORD)"));
        assert!(!gives("a$$b", "a$$b"), "pods get a$b");
    }

    /// What the kubelet makes of a written value if every variable has the value `secret`, as in
    /// `k8s.io/kubernetes/third_party/forked/golang/expansion`.
    fn expanded(written: &str) -> String {
        let (mut rest, mut value) = (written, String::new());
        while let Some((before, after)) = rest.split_once('$') {
            value.push_str(before);
            rest = after;
            if let Some(after) = after.strip_prefix('$') {
                value.push('$');
                rest = after;
            } else if let Some((_, after)) = after
                .strip_prefix('(')
                .and_then(|name| name.split_once(')'))
            {
                value.push_str("secret");
                rest = after;
            } else {
                value.push('$');
            }
        }
        value.push_str(rest);
        value
    }
}
