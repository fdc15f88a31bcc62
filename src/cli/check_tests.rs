use serde_json::json;

use super::super::output::Paint;
use super::*;

fn definition() -> CustomResourceDefinition {
    let mut all = custom_resource_definitions().into_iter();
    all.find(|each| each.name_any() == "aliasbindings.pointsman.dev")
        .unwrap()
}

/// The definition without a field, or with one more.
fn changed(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(definition()).unwrap();
    let path =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/rollback/properties";
    change(value.pointer_mut(path).unwrap().as_object_mut().unwrap());
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_definition_is_compared_field_by_field() {
    let compared = |found: &CustomResourceDefinition| {
        let checked = compared(String::new(), &definition(), found);
        (checked.result, checked.message)
    };
    let same = compared(&definition());
    assert_eq!(same, (Grade::Ok, "installed, of this release".to_owned()));
    let (grade, message) = compared(&changed(|fields| {
        fields.remove("bakeSeconds");
    }));
    assert_eq!(grade, Grade::Failed);
    assert!(
        message.contains("it has no spec.rollback.bakeSeconds; update it: pointsman crds"),
        "{message}"
    );
    let (grade, message) = compared(&changed(|fields| {
        fields.insert("later".to_owned(), json!({"type": "string"}));
    }));
    assert_eq!(grade, Grade::Warning);
    assert!(message.contains("it has spec.rollback.later"), "{message}");
}

fn operator(available: i32) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "pointsman", "namespace": "ops"},
        "spec": {"replicas": 2, "selector": {}, "template": {"spec": {"containers": [{"name": "pointsman",
            "image": "registry.example/pointsman:1", "args": ["run", "--leader-election", "--lease-name=points"]}]}}},
        "status": {"availableReplicas": available}}))
    .unwrap()
}

#[test]
fn an_operator_is_ok_only_with_all_replicas() {
    for (available, grade) in [(2, Grade::Ok), (1, Grade::Warning), (0, Grade::Failed)] {
        let checked = deployment(&operator(available));
        assert_eq!(checked.result, grade, "{available}");
        let has_remedy = checked
            .message
            .ends_with("kubectl describe deployment pointsman -n ops");
        assert_eq!(has_remedy, grade != Grade::Ok);
    }
    assert_eq!(argument(&operator(2), "--lease-name"), Some("points"));
    assert_eq!(argument(&operator(2), "--leader-election"), Some(""));
    assert_eq!(argument(&operator(2), "--lease"), None);
}

#[test]
fn a_lease_is_held_if_a_replica_renews_it() {
    let lease = |holder: &str, renewed: &str| -> Lease {
        serde_json::from_value(json!({"spec": {"holderIdentity": holder, "renewTime": renewed}}))
            .unwrap()
    };
    let now = "2026-11-25T12:00:00Z".parse().unwrap();
    for (holder, renewed, grade) in [
        ("pointsman-1", "2026-11-25T11:59:55.000000Z", Grade::Ok),
        ("pointsman-1", "2026-11-25T10:00:00.000000Z", Grade::Failed),
        ("", "2026-11-25T11:59:55.000000Z", Grade::Failed),
    ] {
        assert_eq!(
            held(String::new(), &lease(holder, renewed), now).result,
            grade,
            "{holder} {renewed}"
        );
    }
}

#[test]
fn each_condition_of_a_registry_is_a_line_with_its_remedy() {
    let condition = |status: &str| -> Condition {
        serde_json::from_value(json!({"type": "Ready", "status": status, "reason": "RegistryUnreachable",
            "message": "no response; check the server", "lastTransitionTime": "2026-11-25T12:00:00Z"}))
        .unwrap()
    };
    let grade = |condition: Option<&Condition>| {
        graded("registry mlflow".to_owned(), condition, Some("3.17.2"))
    };
    let checks = [
        grade(Some(&condition("True"))),
        grade(Some(&condition("False"))),
        grade(None),
        right("patch", "aliasbindings", "changes of bindings", "ml", false),
    ];
    let expected = "\
RESULT    CHECK                          MESSAGE
ok        registry mlflow                RegistryUnreachable, MLflow 3.17.2
failed    registry mlflow                RegistryUnreachable: no response; check the server
warning   registry mlflow                no operator has reconciled it yet; see whether one watches this namespace: kubectl get deployments -A -l app.kubernetes.io/name=pointsman
warning   right to patch aliasbindings   not in the namespace ml, for changes of bindings; ask for the ClusterRole edit there, or choose another with -n
";
    assert_eq!(table(&checks).render(Paint::never()), expected);
}
