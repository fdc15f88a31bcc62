//! The layers of `src`: which folder may import which, and that no files import each other in a circle.
//!
//! Absent: imports of tests, and of other crates. The clock is kept out of pure folders by clippy; see `src/lib.rs`.

#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The folders that a folder of `src` may import from.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("api", &[]),
    ("targets", &["api"]),
    ("rollout", &["targets", "api"]),
    ("http", &["api"]),
    ("registries", &["http", "api"]),
    ("artifacts", &["http", "api"]),
    ("kubernetes", &[]),
    (
        "controllers",
        &[
            "kubernetes",
            "registries",
            "artifacts",
            "targets",
            "rollout",
            "http",
            "api",
        ],
    ),
    (
        "cli",
        &[
            "controllers",
            "kubernetes",
            "registries",
            "targets",
            "rollout",
            "api",
        ],
    ),
    // Only tests import it.
    ("testing", &["targets", "rollout", "api"]),
];

/// A module as the parts of its path, such as `["rollout", "decide"]`.
type Module = Vec<String>;

#[test]
fn folders_import_only_from_the_layers_below_them() {
    let mut wrong = Vec::new();
    for (module, imports) in import_graph() {
        let Some(folder) = module.first() else {
            continue;
        };
        let allowed = ALLOWED.iter().find(|(name, _)| name == folder);
        let (_, allowed) = allowed.expect("every folder of src has its line in ALLOWED");
        for import in imports {
            let is_allowed = import[0] == *folder || allowed.contains(&import[0].as_str());
            if !is_allowed {
                wrong.push(format!(
                    "{} imports {}",
                    module.join("::"),
                    import.join("::")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut graph = import_graph();
    // Files that import nothing, or that nothing imports, are in no circle. What is left when there are no more of them is.
    loop {
        let before = graph.len();
        let imported: BTreeSet<Module> = graph.values().flatten().cloned().collect();
        graph.retain(|module, imports| !imports.is_empty() && imported.contains(module));
        let left: BTreeSet<Module> = graph.keys().cloned().collect();
        for imports in graph.values_mut() {
            imports.retain(|import| left.contains(import));
        }
        if graph.len() == before {
            break;
        }
    }
    let circle: Vec<String> = graph.keys().map(|module| module.join("::")).collect();
    assert!(circle.is_empty(), "in circles: {}", circle.join(", "));
}

/// The modules of `src` that each module imports, outside its tests.
fn import_graph() -> BTreeMap<Module, BTreeSet<Module>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect_files(&src, &mut files);
    let mut sources = BTreeMap::new();
    for file in files {
        let module = module_of(file.strip_prefix(&src).expect("a file below src"));
        let source = fs::read_to_string(&file).expect("a readable file");
        sources.insert(module, without_tests_and_comments(&source));
    }
    let modules: BTreeSet<Module> = sources.keys().cloned().collect();
    let mut graph = BTreeMap::new();
    for (module, source) in &sources {
        let mut imports = BTreeSet::new();
        for path in paths(source) {
            if let Some(import) = resolve(&path, module, &modules) {
                imports.insert(import);
            }
        }
        graph.insert(module.clone(), imports);
    }
    graph
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let is_test = path.to_string_lossy().ends_with("_tests.rs");
        if path.is_dir() {
            collect_files(&path, files);
        } else if path.extension() == Some("rs".as_ref()) && !is_test {
            files.push(path);
        }
    }
}

fn module_of(file: &Path) -> Module {
    let mut parts: Module = file
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if matches!(
        parts.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        parts.pop();
    }
    parts
}

/// The code before the test module, which is last in each file.
fn without_tests_and_comments(source: &str) -> String {
    let mut code = source;
    for tests in ["#[cfg(test)]\nmod ", "#[cfg(test)]\npub mod "] {
        code = code.split(tests).next().unwrap_or(code);
    }
    code.lines()
        .map(|line| line.split("//").next().unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// All paths that begin with `crate` or `super`, in `use` items and elsewhere, with their braces expanded.
fn paths(source: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in source.match_indices(start) {
            if is_path_start(source, at) {
                expand(&source[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

fn is_path_start(source: &str, at: usize) -> bool {
    match source[..at].chars().next_back() {
        Some(before) => !(before.is_alphanumeric() || before == '_' || before == ':'),
        None => true,
    }
}

/// Adds the paths of `a::{b, c::d}` to `found`, and returns the rest of the text.
fn expand<'a>(mut text: &'a str, path: &mut Module, found: &mut Vec<Module>) -> &'a str {
    let depth = path.len();
    loop {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        let (word, rest) = text.split_at(end.unwrap_or(text.len()));
        if !word.is_empty() {
            path.push(word.to_owned());
        }
        if let Some(rest) = rest.strip_prefix("::{") {
            text = expand_group(rest, path, found);
            break;
        }
        text = rest;
        match rest.strip_prefix("::") {
            Some(rest) => text = rest,
            None => break found.push(path.clone()),
        }
        if text.starts_with(|c: char| !(c.is_alphanumeric() || c == '_')) {
            found.push(path.clone());
            break;
        }
    }
    path.truncate(depth);
    text
}

/// Expands the items up to the closing brace.
fn expand_group<'a>(mut text: &'a str, path: &mut Module, found: &mut Vec<Module>) -> &'a str {
    loop {
        text = expand(text.trim_start(), path, found).trim_start();
        // A rename with `as` ends at the comma.
        let end = text.find([',', '}']).unwrap_or(text.len());
        let (_, rest) = text.split_at(end);
        match rest.strip_prefix(',') {
            Some(more) => text = more.trim_start(),
            None => return rest.strip_prefix('}').unwrap_or(rest),
        }
        if let Some(rest) = text.strip_prefix('}') {
            return rest;
        }
    }
}

/// The module that a path names or is in; `None` for the module itself and for the whole crate.
fn resolve(path: &[String], own: &Module, modules: &BTreeSet<Module>) -> Option<Module> {
    let mut full = if path.first().is_some_and(|first| first == "crate") {
        Vec::new()
    } else {
        own.clone()
    };
    for part in path {
        match part.as_str() {
            "crate" => {}
            "super" => _ = full.pop(),
            part => full.push(part.to_owned()),
        }
    }
    while !full.is_empty() && !modules.contains(&full) {
        full.pop();
    }
    (!full.is_empty() && full != *own).then_some(full)
}

#[test]
fn paths_are_found_within_nested_braces() {
    let source = "use crate::api::{AliasBinding, reason::{Problem, Reason as R}};\nlet x = crate::targets::build(super::y);";
    let joined: Vec<String> = paths(source).iter().map(|path| path.join("::")).collect();
    assert_eq!(
        joined,
        [
            "crate::api::AliasBinding",
            "crate::api::reason::Problem",
            "crate::api::reason::Reason",
            "crate::targets::build",
            "super::y"
        ]
    );
}
