//! The pages name only things that exist, and each of their commands is one that a test runs.
//!
//! Absent: running the commands; `tests/scenarios/docs.rs` does.

#![allow(clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pointsman::api::Reason;
use pointsman_env::pages::{self, Page};

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
fn every_threat_names_tests_that_exist() {
    let functions = functions();
    let page = read("docs/security.md");
    let (_, section) = page.split_once("\n## Threats\n").expect("a section");
    let section = section.split("\n## ").next().expect("its text");
    let rows: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let shown_by = row.trim_end_matches(" |").rsplit(" | ").next();
        let tests: Vec<&str> = quoted(shown_by.unwrap_or_default()).collect();
        assert!(!tests.is_empty(), "no test shows that this is held: {row}");
        let missing: Vec<_> = tests
            .iter()
            .filter(|test| !functions.contains(**test))
            .collect();
        assert!(missing.is_empty(), "there are no tests {missing:?}: {row}");
    }
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

/// The words with which a command begins: a block of them must be run, so it must be marked as one.
const COMMANDS: [&str; 18] = [
    "$",
    "argocd",
    "cargo",
    "curl",
    "docker",
    "export",
    "flux",
    "git",
    "helm",
    "kind",
    "kubectl",
    "kustomize",
    "make",
    "mlflow",
    "pip",
    "pointsman",
    "python",
    "python3",
];

/// How many blocks of commands may say that no test runs them.
const MOST_EXCUSES: usize = 5;

#[test]
fn every_block_of_commands_is_run_or_says_why_not() {
    let mut excuses = Vec::new();
    let mut hidden = Vec::new();
    for page in pages::pages().expect("the pages") {
        for block in page.blocks() {
            let place = format!("{}:{}", page.path.display(), block.line);
            let first = block.text.split_whitespace().next().unwrap_or_default();
            if block.language.is_empty() {
                hidden.push(format!(
                    "{place} has no language: sh, console, yaml, python or text"
                ));
            } else if !block.is_commands() && COMMANDS.contains(&first) {
                hidden.push(format!(
                    "{place} is commands, and not marked as sh or console"
                ));
            }
            if block.is_commands()
                && let Some(reason) = block.excuse
            {
                excuses.push(format!("{place}: {reason}"));
            }
        }
    }
    assert_eq!(hidden, Vec::<String>::new());
    assert!(
        excuses.len() <= MOST_EXCUSES,
        "too many blocks that no test runs: {excuses:#?}"
    );
}

#[test]
fn every_link_and_anchor_resolves() {
    let mut all = pages::pages().expect("the pages");
    for path in ["ARCHITECTURE.md", "CHANGELOG.md"] {
        all.push(Page::read(Path::new(path)).expect("a page"));
    }
    let mut broken = Vec::new();
    for page in &all {
        for link in page.links() {
            if !resolves(page, &link) {
                broken.push(format!("{}: {link}", page.path.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

fn resolves(page: &Page, link: &str) -> bool {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = page.path.parent().expect("a folder");
    let target = if file.is_empty() {
        page.path.clone()
    } else {
        folder.join(file)
    };
    if !root().join(&target).exists() {
        return false;
    }
    let has_anchor = |page: &Page| page.anchors().iter().any(|each| each == anchor);
    anchor.is_empty() || Page::read(&target).is_ok_and(|page| has_anchor(&page))
}

#[test]
fn every_page_is_in_the_index() {
    let index = Page::read(Path::new("docs/README.md")).expect("the index");
    let links = index.links();
    let missing: Vec<_> = pages::files("docs", "md")
        .expect("the pages")
        .into_iter()
        .filter_map(|path| Some(path.strip_prefix("docs").ok()?.to_owned()))
        .filter(|path| {
            path.parent() != Some(Path::new("decisions")) && path != Path::new("README.md")
        })
        .filter(|path| !links.iter().any(|link| Path::new(link) == path))
        .collect();
    assert_eq!(missing, Vec::<PathBuf>::new());
}

/// A word of the column REASON can be looked up: it is a heading, with its meaning below it.
#[test]
fn every_reason_has_a_section_that_begins_with_its_meaning() {
    let page = Page::read(Path::new("docs/troubleshooting.md")).expect("the page");
    let headings = page.headings();
    let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(headings[1..], reasons, "in the order of src/api/reason.rs");
    for reason in Reason::ALL {
        let section = page.section(reason.as_str()).expect("a section");
        let (meaning, advice) = section.split_once("\n\n").unwrap_or((section, ""));
        assert_eq!(meaning, reason.description().trim(), "{reason}");
        assert!(!advice.trim().is_empty(), "{reason} has no advice");
    }
}

/// The repository that is on the list of the retrain example.
const LISTED: &str = "https://git.example/ml/nyc-taxi.git";

/// A folder with the repository `repository`, which git takes for the listed one, and a `python` that says what it would run.
struct RetrainFolder(PathBuf);

impl Drop for RetrainFolder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

impl RetrainFolder {
    /// Makes the folder; returns a commit of main and one of another branch too.
    fn make() -> (Self, String, String) {
        let name = format!("pointsman-retrain-{}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(folder.0.join("repository")).expect("a folder");
        let made = "printf '#!/bin/sh\necho ran $1' > ../python && chmod +x ../python
            git init -q -b main && touch train.py evil.py && git add . && git commit -qm a && git rev-parse HEAD
            git checkout -q -b fork && git commit -q --allow-empty -m b && git rev-parse HEAD && git checkout -q main";
        let output = folder.run("repository", made, &[]);
        let (good, fork) = output.split_once('\n').expect("two commits");
        let (good, fork) = (good.to_owned(), fork.to_owned());
        (folder, good, fork)
    }

    /// Runs a script, and returns its output.
    fn run(&self, place: &str, script: &str, variables: &[(&str, &str)]) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        let repository = self.0.join("repository");
        let instead_of = format!("url.file://{}.insteadOf", repository.display());
        let output = std::process::Command::new("sh")
            .args(["-ec", script])
            .current_dir(self.0.join(place))
            .env_clear()
            .env("PATH", format!("{}:{path}", self.0.display()))
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", instead_of)
            .env("GIT_CONFIG_VALUE_0", LISTED)
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "a")))
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "a@b")))
            .envs(variables.iter().copied())
            .output()
            .expect("a shell");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        format!("{}{}", text(&output.stdout), text(&output.stderr))
    }
}

/// The script of the retrain example, run by a real shell and git: whoever logs a run chooses what it is asked to run.
#[test]
fn the_retrain_example_runs_nothing_that_is_not_on_its_list() {
    let example: serde_json::Value =
        serde_saphyr::from_str(&read("examples/retrain/binding.yaml")).expect("YAML");
    let container = "/spec/retrain/jobTemplate/spec/template/spec/containers/0/command/2";
    let script = example
        .pointer(container)
        .and_then(|script| script.as_str());
    let script = script.expect("a script");
    let (folder, good, fork) = RetrainFolder::make();
    let (good, fork) = (good.as_str(), fork.as_str());
    let evil = "https://git.example/evil/x.git";
    let rows = [
        (LISTED, good, "train.py", "ran train.py"),
        (evil, good, "train.py", "refused: repository"),
        (
            "--upload-pack=touch evil",
            good,
            "train.py",
            "refused: repository",
        ),
        (
            LISTED,
            fork,
            "train.py",
            "refused: a commit outside of main",
        ),
        (LISTED, "main", "train.py", "refused: commit"),
        (LISTED, "", "train.py", "refused: commit"),
        (LISTED, good, "evil.py", "refused: entry point"),
        (LISTED, good, "-c 'import os'", "refused: entry point"),
    ];
    for (number, (repository, commit, entry_point, outcome)) in rows.into_iter().enumerate() {
        let place = number.to_string();
        fs::create_dir(folder.0.join(&place)).expect("a folder");
        let asked = [
            ("RETRAIN_REPOSITORY", repository),
            ("RETRAIN_COMMIT", commit),
            ("RETRAIN_ENTRY_POINT", entry_point),
        ];
        let output = folder.run(&place, script, &asked);
        assert!(output.starts_with(outcome), "{asked:?}: {output}");
    }
}

#[test]
fn every_direct_dependency_has_its_reason() {
    let manifest = read("Cargo.toml");
    let record = read("docs/decisions/0009-dependencies.md");
    let mut missing = Vec::new();
    let mut is_package = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_package = matches!(line, "[dependencies]" | "[dev-dependencies]");
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        let is_named = record
            .split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c))
            .any(|word| word == name);
        let is_ours = name.starts_with("pointsman");
        if is_package && !name.is_empty() && !name.starts_with(['#', '[']) && !is_ours && !is_named
        {
            missing.push(name.to_owned());
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}
