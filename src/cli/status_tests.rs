use serde_json::json;

use super::super::output::Paint;
use super::*;

fn now() -> Timestamp {
    "2026-11-25T12:00:00Z".parse().unwrap()
}

fn view() -> TableView {
    TableView {
        with_namespace: false,
        is_wide: false,
        now: now(),
    }
}

fn binding(name: &str, status: Value) -> AliasBinding {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "ml", "creationTimestamp": "2026-11-20T12:00:00Z"},
        "spec": {"modelRef": {"name": "taxi"}, "alias": "champion", "targetRef": {"name": "server"}},
        "status": status}))
    .unwrap()
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-11-25T11:00:00Z"})
}

fn live() -> AliasBinding {
    binding(
        "taxi",
        json!({"wanted": "5", "running": {"version": "5", "since": "2026-11-22T12:00:00Z"},
            "conditions": [condition("Ready", "True", "Live", "version 5 runs")]}),
    )
}

fn rolled_back() -> AliasBinding {
    let message = "version 5 runs: version 6 failed (CrashLoop)";
    let version_6 = json!({"version": "6"});
    let failed = json!({"version": "6", "reason": "CrashLoop", "message": "…", "since": "2026-11-25T11:00:00Z"});
    binding(
        "fares",
        json!({"wanted": "6", "running": {"version": "5", "since": "2026-11-25T11:00:00Z"},
            "heldBack": {"wanted": version_6, "specDigest": "v1:", "versions": [failed]},
            "conditions": [
                condition("Ready", "False", "RolledBack", message),
                condition("Stalled", "True", "RolledBack", message)]}),
    )
}

#[test]
fn each_binding_is_one_line() {
    let pending = binding("new", json!({}));
    let text = view()
        .table(&[live(), rolled_back(), pending])
        .render(Paint::never());
    let expected = "\
NAME    MODEL   ALIAS      WANTED   RUNNING   READY     REASON       SINCE
taxi    taxi    champion   5        5         True      Live         60m
fares   taxi    champion   6        5         False     RolledBack   60m
new     taxi    champion   <none>   <none>    Unknown   Pending      <unknown>
";
    assert_eq!(text, expected);
}

#[test]
fn the_wide_table_has_target_and_message_and_all_namespaces_have_a_column() {
    let view = TableView {
        with_namespace: true,
        is_wide: true,
        ..view()
    };
    let text = view.table(&[rolled_back()]).render(Paint::never());
    let expected = "\
NAMESPACE   NAME    MODEL   ALIAS      WANTED   RUNNING   READY   REASON       SINCE   TARGET              HELD-BACK   AGE   MESSAGE
ml          fares   taxi    champion   6        5         False   RolledBack   60m     deployment/server   6           5d    version 5 runs: version 6 failed (CrashLoop)
";
    assert_eq!(text, expected);
    assert_eq!(
        view.needs_person(&[rolled_back()]),
        "",
        "the message is in its column"
    );
}

#[test]
fn the_bindings_that_need_a_person_are_told_with_the_cause() {
    assert_eq!(view().needs_person(&[live()]), "");
    let expected = "
1 of 2 needs a person:
  fares: version 5 runs: version 6 failed (CrashLoop)
";
    assert_eq!(view().needs_person(&[live(), rolled_back()]), expected);
    let message = "version 6 waits: it is not approved";
    let waiting = condition("Ready", "True", "AwaitingApproval", message);
    let waiting = binding("taxi", json!({"conditions": [waiting]}));
    let text = view().needs_person(&[waiting]);
    assert!(text.ends_with(&format!("  taxi: {message}\n")), "{text}");
}

#[test]
fn a_deleted_binding_says_so_in_its_last_line() {
    let text = view().table(&[deleted(live())]).render(Paint::never());
    assert!(text.contains("False   Deleted"), "{text}");
}
