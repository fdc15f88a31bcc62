//! The plugin's commands that change something, as a person types them; and `plan`, which says beforehand what happens.
//!
//! Absent: commands that only show something.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use pointsman_env::Workload;
use pointsman_env::interceptor::Request;
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT};
use pointsman_env::python::MlflowVersion;
use pointsman_env::resources::{self, with_spec};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::fixture::{
    Environment, Fixture, ScenarioResult, binary, env, ready_message, ready_reason, scenarios,
};

scenarios!(
    rollback_pins_the_last_good_version_and_unpin_follows_the_alias_again,
    a_version_that_failed_is_tried_again_when_the_plugin_asks,
    a_hold_ends_when_the_plugin_asks,
    promote_plans_first_and_the_version_runs_when_it_has_waited,
    promote_changes_nothing_without_a_terminal_or_for_an_unknown_version,
    a_plan_is_what_the_operator_writes_and_its_exit_code_says_whether_it_does,
    a_manifest_that_is_not_applied_is_planned,
    stages_become_aliases_once_on_mlflow_3,
    stages_become_aliases_once_on_mlflow_2,
);

/// The time limit of a command.
const PATIENCE: Duration = Duration::from_secs(120);

/// The end of a command.
#[derive(Debug)]
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs the plugin in the fixture's namespace, without a terminal.
async fn plugin(fixture: &Fixture, arguments: &[&str]) -> Ended {
    plugin_with(fixture, arguments, "", &[]).await
}

/// The same with something on its standard input, and with variables.
async fn plugin_with(
    fixture: &Fixture,
    arguments: &[&str],
    input: &str,
    variables: &[(&str, &str)],
) -> Ended {
    let plane = fixture.namespace.control_plane();
    let mut command = tokio::process::Command::new(binary());
    command
        .args(arguments)
        .args(["-n", fixture.namespace.namespace()])
        .env_clear()
        .env("KUBECONFIG", plane.admin_kubeconfig())
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // A command that reads nothing may have ended by then.
    let _ = pipe.write_all(input.as_bytes()).await;
    drop(pipe);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output());
    let output = output.await.expect("the command ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Runs a command that must succeed, and returns its standard output.
async fn succeeds(fixture: &Fixture, arguments: &[&str]) -> String {
    let ended = plugin(fixture, arguments).await;
    assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
    ended.stdout
}

async fn rollback_pins_the_last_good_version_and_unpin_follows_the_alias_again(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "plugin rollback").await;
    fixture.serve_version_1().await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    let checked = succeeds(&fixture, &["rollback", "binding", "--dry-run=server"]).await;
    assert!(checked.contains("(server dry run)"), "{checked}");
    assert!(fixture.binding().await["spec"]["pinnedVersion"].is_null());
    let back = [
        "rollback",
        "binding",
        "--reason",
        "slow",
        "--wait",
        "--timeout",
        "90s",
    ];
    let ended = plugin(&fixture, &back).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let words = "aliasbinding.pointsman.dev/binding rolled back to version 1 (pinned)\n";
    assert!(ended.stdout.starts_with(words), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("undo: kubectl pointsman unpin binding"),
        "{ended:?}"
    );
    let pinned = fixture.binding().await;
    assert_eq!(pinned["status"]["running"]["version"], "1", "it has waited");
    assert_eq!(ready_reason(&pinned), "Pinned");
    assert_eq!(
        pinned["metadata"]["annotations"]["pointsman.dev/override-reason"],
        "slow"
    );
    assert_eq!(pinned["status"]["alias"]["version"], "2");
    succeeds(
        &fixture,
        &["unpin", "binding", "--wait", "--timeout", "90s"],
    )
    .await;
    let free = fixture.binding().await;
    assert_eq!(free["status"]["running"]["version"], "2");
    assert!(free["metadata"]["annotations"]["pointsman.dev/override-reason"].is_null());
    let again = succeeds(&fixture, &["unpin", "binding"]).await;
    assert!(again.ends_with("unpinned (no change)\n"), "{again}");
    let unknown = plugin(&fixture, &["rollback", "binding", "--to", "9"]).await;
    assert_eq!(unknown.code, 1, "{unknown:?}");
    fixture.end().await
}

async fn a_version_that_failed_is_tried_again_when_the_plugin_asks(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "plugin retry").await;
    fixture.register(2).await;
    fixture.serve_with_behavior("2=crash", json!({})).await;
    fixture.alias("2").await;
    let message = fixture.reports("RolledBack").await;
    // An annotation of the pod template is no change of its spec, so nothing is tried again by itself.
    let mended = Workload::deployment("server").with_behavior("2=ready");
    fixture
        .namespace
        .kubectl_apply(mended.manifest())
        .await
        .unwrap();
    let (_, command) = message.split_once("try again: kubectl pointsman ").unwrap();
    let (command, annotation) = command.split_once(" (or annotation ").unwrap();
    assert_eq!(annotation, "pointsman.dev/retry-requested-at)");
    let mut retry: Vec<&str> = command.split(' ').collect();
    let namespace = retry.split_off(2);
    assert_eq!(namespace, ["-n", fixture.namespace.namespace()]);
    retry.extend(["--wait", "--timeout", "90s"]);
    let ended = succeeds(&fixture, &retry).await;
    assert!(ended.contains("version 2 runs (Live)"), "{ended}");
    let binding = fixture.binding().await;
    assert_eq!(binding["status"]["running"]["version"], "2");
    assert_eq!(binding["status"]["history"][0]["trigger"], "Person");
    fixture.end().await
}

async fn a_hold_ends_when_the_plugin_asks(environment: Arc<Environment>) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "plugin resume").await;
    fixture.serve_version_1().await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    let undo = ["rollout", "undo", "deployment/server"];
    fixture.namespace.kubectl(&undo).await.unwrap();
    fixture.reports("Held").await;
    let ended = succeeds(
        &fixture,
        &["resume", "binding", "--wait", "--timeout", "90s"],
    )
    .await;
    assert!(ended.contains("version 2 runs"), "{ended}");
    assert_eq!(fixture.binding().await["status"]["running"]["version"], "2");
    fixture.end().await
}

/// The aliases of the fixture's model in MLflow.
async fn aliases(fixture: &Fixture) -> Value {
    fixture.client.get_model(&fixture.model).await.unwrap()["aliases"].clone()
}

async fn promote_plans_first_and_the_version_runs_when_it_has_waited(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "plugin promote").await;
    fixture.serve_version_1().await;
    let promote = [
        "promote",
        "model",
        "2",
        "--alias",
        "champion",
        "--yes",
        "--wait",
        "--timeout",
        "90s",
    ];
    let variables = [
        ("MLFLOW_TRACKING_USERNAME", "ada"),
        ("MLFLOW_TRACKING_PASSWORD", "hunter2"),
    ];
    let ended = plugin_with(&fixture, &promote, "", &variables).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(!format!("{ended:?}").contains("hunter2"), "{ended:?}");
    let plan = "version 2 replaces version 1 in deployment/server";
    let set = "champion set to version 2";
    let (planned, was_set) = (ended.stdout.find(plan), ended.stdout.find(set));
    assert!(planned.is_some() && planned < was_set, "{ended:?}");
    let binding = fixture.binding().await;
    assert_eq!(
        binding["status"]["running"]["version"], "2",
        "it has waited"
    );
    assert_eq!(binding["status"]["history"][0]["trigger"], "AliasMove");
    assert_eq!(aliases(&fixture).await, json!({"champion": "2"}));
    // The model goes by its name in MLflow too, and nothing is asked for an alias that is there.
    let again = ["promote", &fixture.model, "2", "--alias", "champion"];
    let again = succeeds(&fixture, &again).await;
    assert!(
        again.contains("(already)") && !again.contains("champion set"),
        "{again}"
    );
    fixture.end().await
}

async fn promote_changes_nothing_without_a_terminal_or_for_an_unknown_version(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "plugin no promote").await;
    fixture.serve_version_1().await;
    let refused = ["promote", "model", "2", "--alias", "champion"];
    let refused = plugin_with(&fixture, &refused, "yes\n", &[]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("--yes"), "{refused:?}");
    assert!(
        refused.stdout.contains("version 2 replaces version 1"),
        "{refused:?}"
    );
    let unknown = ["promote", "model", "9", "--alias", "champion", "--yes"];
    let unknown = plugin(&fixture, &unknown).await;
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(
        unknown.stderr.contains("no version 9") && unknown.stderr.contains("the newest is 2"),
        "{unknown:?}"
    );
    let away = [("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")];
    let promote = ["promote", "model", "2", "--alias", "champion", "--yes"];
    let away = plugin_with(&fixture, &promote, "", &away).await;
    assert_eq!(away.code, 1, "{away:?}");
    assert!(away.stderr.contains("set MLFLOW_TRACKING_URI"), "{away:?}");
    assert_eq!(aliases(&fixture).await, json!({"champion": "1"}));
    fixture.end().await
}

async fn a_plan_is_what_the_operator_writes_and_its_exit_code_says_whether_it_does(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "plugin plan").await;
    fixture.serve_version_1().await;
    let settled = plugin(&fixture, &["plan", "binding"]).await;
    assert_eq!(settled.code, 0, "{settled:?}");
    assert!(
        settled.stdout.contains("holds version 1 already"),
        "{settled:?}"
    );
    let planned = plugin(
        &fixture,
        &["plan", "binding", "--version", "2", "-o", "json"],
    )
    .await;
    assert_eq!(planned.code, 2, "{planned:?}");
    let plan: Value = serde_json::from_str(&planned.stdout).unwrap();
    let results = plan["gates"].as_array().unwrap().iter();
    let results: Vec<&Value> = results.map(|gate| &gate["result"]).collect();
    assert!(
        !results.is_empty() && results.iter().all(|result| **result == "Passes"),
        "{plan}"
    );
    let before = fixture.deployment().await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    let after = fixture.deployment().await;
    let mut compared = 0;
    for change in plan["changes"].as_array().unwrap() {
        let field = change["field"].as_str().unwrap();
        let variable = field.strip_prefix("spec.template.spec.containers[server].env[");
        if let Some(variable) = variable.and_then(|rest| rest.strip_suffix(']')) {
            let values = [env(&before, 0, variable), env(&after, 0, variable)];
            let planned = [&change["before"], &change["after"]]
                .map(|value| value.as_str().map(str::to_owned));
            assert_eq!(planned, values, "{field}");
            compared += 1;
        }
    }
    assert!(compared >= 3, "{plan}");
    let unknown = plugin(&fixture, &["plan", "binding", "--version", "9"]).await;
    assert_eq!(unknown.code, 0, "{unknown:?}");
    assert!(unknown.stdout.contains("VersionNotFound"), "{unknown:?}");
    for wrong in [["plan", "nobody"], ["plan", "--nonsense"]] {
        let ended = plugin(&fixture, &wrong).await;
        assert_eq!(ended.code, 1, "{ended:?}");
    }
    fixture.end().await
}

async fn a_manifest_that_is_not_applied_is_planned(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "plugin plan of a file").await;
    fixture.serve_version_1().await;
    let planned = async |name: &str, more: Value| {
        let manifest = with_spec(resources::alias_binding(name, "model", "server"), more);
        let file = ["plan", "-f", "-"];
        plugin_with(&fixture, &file, &manifest.to_string(), &[]).await
    };
    let same = planned("binding", json!({})).await;
    assert_eq!(same.code, 0, "{same:?}");
    let pinned = planned("binding", json!({"pinnedVersion": "2"})).await;
    assert_eq!(pinned.code, 2, "{pinned:?}");
    let env = "spec.template.spec.containers[server].env[MODEL_VERSION]";
    let diff = format!("- {env}: 1\n+ {env}: 2\n");
    assert!(pinned.stdout.contains(&diff), "{pinned:?}");
    let second = planned("second", json!({})).await;
    assert_eq!(second.code, 0, "{second:?}");
    assert!(second.stdout.contains("TargetClaimed"), "{second:?}");
    for wrong in [
        json!({"stage": "Production"}),
        json!({"pinedVersion": "2"}),
        json!({"targetRef": {"name": "other"}}),
    ] {
        let ended = planned("binding", wrong).await;
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stderr.contains("is refused"), "{ended:?}");
    }
    let unchanged = fixture.binding().await;
    assert!(unchanged["spec"]["pinnedVersion"].is_null());
    let nobody = fixture.namespace.find(&ALIAS_BINDING, "second").await;
    assert_eq!(nobody.unwrap(), None, "a plan creates nothing");
    fixture.end().await
}

async fn stages_become_aliases_once_on_mlflow_3(environment: Arc<Environment>) -> ScenarioResult {
    stages_become_aliases_once(&environment, "stages three", MlflowVersion::Three).await
}

async fn stages_become_aliases_once_on_mlflow_2(environment: Arc<Environment>) -> ScenarioResult {
    stages_become_aliases_once(&environment, "stages two", MlflowVersion::Two).await
}

async fn stages_become_aliases_once(
    environment: &Arc<Environment>,
    name: &str,
    version: MlflowVersion,
) -> ScenarioResult {
    let fixture = Fixture::on(environment, name, version).await;
    fixture.register(3).await;
    for (number, stage) in [("1", "Archived"), ("2", "Production"), ("3", "Staging")] {
        let staged = fixture
            .client
            .transition_stage(&fixture.model, number, stage);
        staged.await.unwrap();
    }
    fixture.declare().await;
    fixture
        .bind(json!({"alias": null, "stage": "Production"}))
        .await;
    fixture.runs("2").await;
    let migrate = ["migrate-stages", "--map", "Production=champion"];
    let shown = succeeds(&fixture, &migrate).await;
    assert!(shown.contains("3 missing: nothing was written"), "{shown}");
    assert_eq!(aliases(&fixture).await, json!({}));
    let apply = [&migrate[..], &["--apply"]].concat();
    succeeds(&fixture, &apply).await;
    let all = json!({"archived": "1", "champion": "2", "staging": "3"});
    assert_eq!(aliases(&fixture).await, all);
    let mark = fixture.registry.mark();
    let second = succeeds(&fixture, &apply).await;
    let is_write = |request: &Request| request.method != "GET";
    let writes = fixture.registry.since(mark);
    assert!(
        !writes.iter().any(is_write),
        "a second run writes nothing: {writes:?}"
    );
    assert!(
        !second.contains("missing") && !second.contains("set now"),
        "{second}"
    );
    follow_the_alias(&fixture, &second).await;
    fixture.runs("2").await;
    fixture.alias("3").await;
    let moved = fixture.runs("3").await;
    assert_eq!(ready_message(&moved), "version 3 runs");
    let kept = succeeds(&fixture, &apply).await;
    assert!(
        kept.contains("kept at version 3"),
        "an alias is never moved: {kept}"
    );
    assert_eq!(aliases(&fixture).await["champion"], "3");
    fixture.end().await
}

/// Runs the printed command for the binding, and waits until the alias is followed.
async fn follow_the_alias(fixture: &Fixture, printed: &str) {
    let command = printed
        .lines()
        .find_map(|line| line.trim().strip_prefix("kubectl patch "));
    let command = format!("kubectl patch {}", command.unwrap());
    fixture
        .namespace
        .control_plane()
        .shell(&command)
        .await
        .unwrap();
    let follows = |binding: &Value| binding["status"]["follows"] == "champion";
    fixture
        .eventually("the alias is followed", &ALIAS_BINDING, "binding", follows)
        .await;
    let has_alias = |server: &Value| env(server, 0, "MODEL_ALIAS").as_deref() == Some("champion");
    fixture
        .eventually("pods know the alias", &DEPLOYMENT, "server", has_alias)
        .await;
}
