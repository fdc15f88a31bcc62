//! The pages name only things that exist.
//!
//! Absent: commands. The scenarios and the demo run those.

#![allow(clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rules of docs/rules.md, in their order.
const RULES: [&str; 14] = [
    "resolve_once",
    "level_triggered",
    "fail_static",
    "fast_rollback",
    "automatic_rollback",
    "no_loops",
    "people_win",
    "gitops_in_peace",
    "delete_is_harmless",
    "one_decision",
    "least_privilege",
    "suspect_secrets",
    "no_false_blame",
    "proven_by_running",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).expect("a page or source of the repository")
}

/// All Rust files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all functions in src and tests.
fn functions() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    sources(&root().join("tests"), &mut files);
    let mut names = BTreeSet::new();
    for file in files {
        for part in read(file).split("fn ").skip(1) {
            let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            names.insert(part[..end.unwrap_or(part.len())].to_owned());
        }
    }
    names
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_rule_names_tests_that_exist() {
    let functions = functions();
    let page = read("docs/rules.md");
    let sections: Vec<&str> = page.split("\n## ").skip(1).collect();
    let titles: Vec<&str> = sections
        .iter()
        .filter_map(|text| text.lines().next())
        .collect();
    assert_eq!(titles, RULES);
    let mut missing = Vec::new();
    for section in &sections {
        let (title, tests) = section.split_once("\nTests: ").expect("a line of tests");
        let tests: Vec<&str> = quoted(tests).collect();
        assert!(!tests.is_empty(), "no test shows {title}");
        for test in tests {
            let exists = match test.strip_suffix('*') {
                Some(prefix) => functions.iter().any(|name| name.starts_with(prefix)),
                None => functions.contains(test) || root().join(test).exists(),
            };
            if !exists {
                missing.push(test);
            }
        }
    }
    assert!(
        missing.is_empty(),
        "docs/rules.md names tests that do not exist: {missing:#?}"
    );
}

#[test]
fn every_path_in_the_pages_exists() {
    let mut pages = vec![
        PathBuf::from("ARCHITECTURE.md"),
        PathBuf::from("docs/rules.md"),
    ];
    for entry in fs::read_dir(root().join("docs/decisions")).expect("the folder") {
        pages.push(entry.expect("an entry").path());
    }
    for page in pages {
        let text = read(&page);
        let missing: Vec<&str> = quoted(&text)
            .filter(|word| {
                ["src/", "tests/", "docs/", "charts/", "crds/"]
                    .iter()
                    .any(|folder| word.starts_with(folder))
            })
            .filter(|word| !root().join(word).exists())
            .collect();
        assert!(
            missing.is_empty(),
            "{} names files that do not exist: {missing:#?}",
            page.display()
        );
    }
}
