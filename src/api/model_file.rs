//! The file MLmodel that MLflow writes beside a model: the file or folder of the model's data, and the size of all files.
//!
//! Absent: reading it from a store. It is a stranger's text, and may be cut off.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The name of the file.
pub const MODEL_FILE: &str = "MLmodel";
/// The most bytes that are read of it. The flavors come early in it.
pub const LONGEST_MODEL_FILE: usize = 64 << 10;
/// The keys under which flavors name the model's data.
const DATA_KEYS: [&str; 8] = [
    "model_path",
    "pickled_model",
    "python_model",
    "model_data",
    "model_binary",
    "saved_model_dir",
    "data",
    "state_dict",
];
/// The flavor that most models have.
const COMMON_FLAVOR: &str = "python_function";

#[derive(Deserialize)]
struct FlavorSection {
    flavors: BTreeMap<String, BTreeMap<String, Value>>,
}

/// The path of a file or folder with the model's data, relative to the folder of MLmodel; `None` if it names none.
#[must_use]
pub fn named_data(file: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(file).ok()?;
    let start = match text.find("\nflavors:") {
        Some(before) => before + 1,
        None if text.starts_with("flavors:") => 0,
        None => return None,
    };
    // Other sections, such as signatures, may be long, and are cut off first.
    let mut section = String::new();
    for line in text[start..].lines() {
        if !section.is_empty() && !line.starts_with(' ') {
            break;
        }
        section.push_str(line);
        section.push('\n');
    }
    let FlavorSection { mut flavors } = serde_saphyr::from_str(&section).ok()?;
    let common = flavors.remove(COMMON_FLAVOR);
    let mut all = common.into_iter().chain(flavors.into_values());
    all.find_map(|flavor| {
        let mut named = DATA_KEYS
            .iter()
            .filter_map(|key| flavor.get(*key)?.as_str());
        named.find(|path| is_relative(path)).map(str::to_owned)
    })
}

/// Whether a path has the name of a file, and not that of a folder, at its end.
#[must_use]
pub fn is_file_name(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.trim_start_matches('.').contains('.')
}

/// Whether a path stays below the folder.
fn is_relative(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 255
        && !path.contains('\\')
        && !path.chars().any(char::is_control)
        && !path.split('/').any(|part| matches!(part, "" | "." | ".."))
}

/// The value of `model_size_bytes`.
#[must_use]
pub fn model_size(file: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(file).ok()?;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix("model_size_bytes:"))?;
    value.trim().parse().ok().filter(|size| *size >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_that_a_flavor_names_is_found() {
        for (file, data) in [
            (
                "artifact_path: m\nflavors:\n  python_function:\n    env: {conda: conda.yaml}\n    model_path: model.pkl\n  sklearn:\n    pickled_model: other.pkl\nmodel_size_bytes: 7\n",
                Some("model.pkl"),
            ),
            (
                "flavors:\n  pytorch:\n    model_data: data\n  python_function:\n    loader_module: a\nsignature: [cut",
                Some("data"),
            ),
            (
                "flavors:\n  sklearn:\n    pickled_model: a/b.pkl\n",
                Some("a/b.pkl"),
            ),
            ("flavors:\n  sklearn:\n    pickled_model: ../b.pkl\n", None),
            (
                "flavors:\n  sklearn:\n    pickled_model: /etc/passwd\n",
                None,
            ),
            ("flavors: {}\n", None),
            ("flavors:\n  a: [cut", None),
            ("MLmodel", None),
            ("", None),
        ] {
            assert_eq!(named_data(file.as_bytes()).as_deref(), data, "{file}");
        }
        assert!(is_file_name("a/model.pkl") && !is_file_name("a.b/data") && !is_file_name(".data"));
    }
}

#[cfg(test)]
mod fuzz_tests {
    use super::*;
    use crate::testing::fuzz::Fuzz;

    #[test]
    fn no_model_file_breaks_the_reading_of_it() {
        let fuzz = Fuzz {
            name: "mlmodel-files",
            words: &[
                "model_size_bytes: 12",
                "flavors:",
                "data:",
                "model.pkl",
                "&a",
                "*a",
                "<<:",
                "!!binary",
            ],
            generate: None,
            accepted_of: 10,
        };
        fuzz.run(|file| {
            let (size, data) = (model_size(file), named_data(file));
            assert!(size.is_none_or(|size| size >= 0));
            assert!(data.as_ref().is_none_or(|path| is_relative(path)));
            size.is_some() || data.is_some()
        });
    }
}
