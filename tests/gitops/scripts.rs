//! The scripts in integrations/argocd in Argo CD's own interpreter, and kstatus, against docs/reasons.md.
//!
//! Absent: a cluster. The statuses in testdata were taken from one.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use pointsman::api::conditions::{ConditionUpdate, READY, not_ready, transition};
use pointsman::api::reason::{Class, Problem};
use pointsman::api::{AliasBinding, Reason};
use pointsman_env::gitops::customizations::{KINDS, scripts};
use pointsman_env::gitops::health_checks::{Expected, check_health, kstatus, test_scripts};
use pointsman_env::kinds::{ALIAS_BINDING, Kind, MODEL_REGISTRY, REGISTERED_MODEL};
use pointsman_env::manifests;
use pointsman_env::resources::object;
use serde_json::{Value, json};

use crate::fixture::ScenarioResult;
use crate::health::Health;
use crate::world::{World, tests};

tests!(
    the_health_checks_and_actions_have_the_expected_results_in_argocd,
    every_reason_has_the_health_of_the_table_in_argocd_and_kstatus,
    statuses_from_a_cluster_mean_the_same_to_argocd_and_kstatus,
);

const GENERATION: i64 = 3;

async fn the_health_checks_and_actions_have_the_expected_results_in_argocd(
    _: Arc<World>,
) -> ScenarioResult {
    let output = test_scripts().await.map_err(|error| error.to_string())?;
    let passed = output.matches("passed ").count();
    assert_eq!(passed, cases(), "each case ran:\n{output}");
    Ok(())
}

/// How many cases the files of expected results list.
fn cases() -> usize {
    let mut count = 0;
    for kind in KINDS {
        let folder = scripts().join(kind);
        let health = yaml(&folder.join("health_test.yaml"));
        let actions = yaml(&folder.join("actions/action_test.yaml"));
        for list in [
            &health["tests"],
            &actions["discoveryTests"],
            &actions["actionTests"],
        ] {
            count += list.as_array().map_or(0, Vec::len);
        }
    }
    count
}

fn yaml(path: &std::path::Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    manifests::parse(&text).unwrap().remove(0)
}

/// The results of kstatus and Argo CD by reason, from docs/reasons.md, without the reasons that Ready never has.
fn table() -> BTreeMap<String, (String, String)> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reasons.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| {
        let (reason, cells) = line.strip_prefix("| `")?.split_once('`')?;
        let mut cells = cells
            .trim_end_matches(" |")
            .rsplit(" | ")
            .map(str::to_owned);
        let (argocd, kstatus) = (cells.next()?, cells.next()?);
        (argocd != "–").then(|| (reason.to_owned(), (kstatus, argocd)))
    });
    rows.collect()
}

/// A binding whose conditions the operator's own functions make from the reason.
fn binding_with(reason: Reason) -> Value {
    let message = reason.description().trim();
    let conditions = match reason.class() {
        Class::Well => vec![ConditionUpdate::yes(READY, reason, message)],
        _ => not_ready(&Problem::new(reason, message)),
    };
    let conditions = transition(&[], &conditions, Some(GENERATION), Timestamp::UNIX_EPOCH);
    let mut binding = object(&ALIAS_BINDING, "binding", &json!({}));
    binding["metadata"]["generation"] = json!(GENERATION);
    binding["status"] = json!({"observedGeneration": GENERATION, "conditions": conditions});
    binding
}

async fn every_reason_has_the_health_of_the_table_in_argocd_and_kstatus(
    _: Arc<World>,
) -> ScenarioResult {
    let table = table();
    assert!(table.len() > 30, "the table is read: {table:?}");
    let reasons: Vec<Reason> = table
        .keys()
        .filter_map(|word| Reason::parse(word))
        .collect();
    assert_eq!(reasons.len(), table.len());
    let objects: Vec<Value> = reasons.iter().map(|reason| binding_with(*reason)).collect();
    let wanted: Vec<&String> = table.values().map(|(kstatus, _)| kstatus).collect();
    let found = kstatus(&objects).await.unwrap();
    assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "{reasons:?}");
    let expected: Vec<Expected> = reasons
        .iter()
        .zip(&objects)
        .map(|(reason, object)| Expected {
            name: reason.as_str().to_owned(),
            object: object.clone(),
            status: table[reason.as_str()].1.clone(),
            message: crate::fixture::ready_message(object),
        })
        .collect();
    let output = check_health("AliasBinding", &expected)
        .await
        .map_err(|error| error.to_string())?;
    assert_eq!(
        output.matches("passed ").count(),
        expected.len(),
        "{output}"
    );
    Ok(())
}

async fn statuses_from_a_cluster_mean_the_same_to_argocd_and_kstatus(
    _: Arc<World>,
) -> ScenarioResult {
    for kind in [&ALIAS_BINDING, &REGISTERED_MODEL, &MODEL_REGISTRY] {
        let cases = of_testdata(kind);
        let objects: Vec<Value> = cases.iter().map(|(object, _)| object.clone()).collect();
        let results = kstatus(&objects).await.unwrap();
        for ((object, argocd), result) in cases.iter().zip(results) {
            let health = Health::parse(argocd);
            let readable = manifests::readable(object);
            assert_eq!(Health::of(kind, object), health, "{readable}");
            let wanted = match health {
                Health::Healthy | Health::Suspended => "Current",
                Health::Degraded => "Failed",
                _ => "InProgress",
            };
            assert_eq!(result, wanted, "{readable}");
        }
    }
    Ok(())
}

/// The objects of a kind's `health_test.yaml` with the health that Argo CD finds.
fn of_testdata(kind: &Kind) -> Vec<(Value, String)> {
    let folder = scripts().join(kind.kind);
    let tests = yaml(&folder.join("health_test.yaml"));
    let tests = tests["tests"].as_array().cloned().unwrap_or_default();
    let case = |test: &Value| {
        let object = yaml(&folder.join(manifests::text(test, "/inputPath")));
        is_a_binding_of_this_release(kind, &object);
        (
            object,
            manifests::text(test, "/healthStatus/status").to_owned(),
        )
    };
    tests.iter().map(case).collect()
}

/// The reduced statuses are still those of the operator's own types.
fn is_a_binding_of_this_release(kind: &Kind, object: &Value) {
    if *kind == ALIAS_BINDING {
        serde_json::from_value::<AliasBinding>(object.clone()).unwrap();
    }
}
