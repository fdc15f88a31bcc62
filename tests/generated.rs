//! The generated files are up to date with their source.
//!
//! Absent: regeneration; `make crds` writes the files.

#![allow(clippy::expect_used)]

use std::fs;
use std::path::Path;

use pointsman::api::Reason;
use pointsman::api::reason::Class;
use pointsman_env::gitops::customizations as argocd;

#[test]
fn the_definitions_in_crds_and_the_chart_are_generated_from_src_api() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["crds", "charts/pointsman/files/crds"] {
        let mut expected = Vec::new();
        for definition in pointsman::api::custom_resource_definitions() {
            let file = format!(
                "{}.yaml",
                definition.metadata.name.as_deref().expect("a name")
            );
            let yaml = pointsman::api::to_yaml(&definition).expect("as YAML");
            let path = root.join(folder).join(&file);
            let found = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(
                found == yaml,
                "{folder}/{file} differs from src/api: run `make crds`"
            );
            expected.push(file);
        }
        let entries = fs::read_dir(root.join(folder)).expect("the folder");
        let mut found: Vec<_> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("a name")
            })
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(
            found, expected,
            "{folder} holds other files than the definitions"
        );
    }
}

#[test]
fn the_reference_of_the_api_is_generated_from_the_definitions() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let generated = pointsman::api::reference::markdown().expect("the reference");
    let page = fs::read_to_string(root.join("docs/api.md")).expect("the page");
    assert!(
        page == generated,
        "docs/api.md differs from the definitions: run `make crds`"
    );
}

#[test]
fn the_table_of_the_charts_values_is_generated_from_their_comments() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let generated = pointsman_env::values_table::page().expect("the table");
    let page = fs::read_to_string(root.join("docs/values.md")).expect("the page");
    assert!(
        page == generated,
        "docs/values.md differs from charts/pointsman/values.yaml: run `make crds`"
    );
}

/// Every field needs a description for `kubectl explain`.
#[test]
fn every_field_of_every_kind_is_documented() {
    fn walk(schema: &serde_json::Value, path: &str, bare: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let here = format!("{path}.{name}");
            if property["description"].as_str().is_none_or(str::is_empty) {
                bare.push(here.clone());
            }
            walk(property, &here, bare);
            walk(&property["items"], &here, bare);
        }
    }
    for definition in pointsman::api::custom_resource_definitions() {
        let schema = serde_json::to_value(&definition).expect("as JSON");
        let schema = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut bare = Vec::new();
        walk(&schema["properties"]["spec"], "spec", &mut bare);
        walk(&schema["properties"]["status"], "status", &mut bare);
        assert_eq!(bare, Vec::<String>::new(), "{}", definition.spec.names.kind);
    }
}

#[test]
fn every_reason_is_documented_by_its_description_and_health() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/reasons.md")).expect("the page");
    for reason in Reason::ALL {
        let (kstatus, argocd) = health(*reason);
        let meaning = reason.description().trim();
        let row = format!("| `{reason}` | {meaning} | {kstatus} | {argocd} |\n");
        assert!(page.contains(&row), "docs/reasons.md lacks the row\n{row}");
    }
}

/// The reasons by which people chose that nothing goes forward.
const BY_CHOICE: [Reason; 5] = [
    Reason::Suspended,
    Reason::Held,
    Reason::Frozen,
    Reason::OutsideWindow,
    Reason::AwaitingApproval,
];

/// The health of an object whose condition Ready has this reason, by the reason's class. `tests/gitops` asks Argo CD and kstatus.
fn health(reason: Reason) -> (&'static str, &'static str) {
    let others = [
        Reason::Resolved,
        Reason::GatesPassed,
        Reason::ModelLeftBehind,
    ];
    let is_of_ready = !others.contains(&reason) && !reason.as_str().starts_with("Webhook");
    match reason.class() {
        _ if !is_of_ready => ("–", "–"),
        _ if BY_CHOICE.contains(&reason) => ("Current", "Suspended"),
        Class::Well => ("Current", "Healthy"),
        Class::Progressing | Class::Recovering(_) => ("InProgress", "Progressing"),
        Class::NeedsPerson(_) => ("Failed", "Degraded"),
    }
}

/// The scripts are kept as files, in the layout of Argo CD's own repository; users without them there patch argocd-cm.
#[test]
fn the_fragment_of_argocd_cm_is_generated_from_the_scripts() {
    let fragment = fs::read_to_string(argocd::fragment_file()).expect("the fragment");
    let generated = argocd::fragment().expect("the scripts");
    assert!(
        fragment == generated,
        "integrations/argocd/argocd-cm.yaml differs from the scripts: run `make argocd`"
    );
}

/// One rule for all kinds: the health of an object is decided by its conditions alone.
#[test]
fn the_three_kinds_have_one_health_check() {
    let scripts = argocd::KINDS.map(|kind| {
        fs::read_to_string(argocd::scripts().join(kind).join("health.lua")).expect("the script")
    });
    assert!(scripts.iter().all(|script| *script == scripts[0]));
}
