//! The plugin's reading commands, run by the real kubectl as a person runs them.
//!
//! Absent: commands that write, and the exact look of tables; unit tests of `src/cli` have that.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use pointsman_env::kinds::ALIAS_BINDING;
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::How;
use pointsman_env::resources;
use pointsman_env::{ControlPlane, ControlPlaneOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::fixture::{
    self, Environment, Fixture, PATIENCE, ScenarioResult, binary, condition, scenarios,
};

scenarios!(
    kubectl_finds_the_plugin_which_tells_what_runs_in_every_form,
    the_plugin_tells_what_ran_at_a_moment_and_what_happened,
    the_plugin_goes_from_the_registry_to_the_pods_and_from_a_pod_to_the_commit,
    the_plugin_finds_the_code_to_train_any_version_again_through_copies_and_beyond_the_mirror,
    the_plugin_says_in_words_what_needs_a_person_and_watches_changes,
    the_plugin_checks_whether_the_installation_and_its_registries_are_well,
    the_plugin_tells_a_person_without_rights_or_definitions_what_to_do,
    the_plugin_completes_commands_for_kubectl_and_has_manual_pages,
);

/// A line of a table as its words.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

async fn kubectl_finds_the_plugin_which_tells_what_runs_in_every_form(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "plugin status").await;
    fixture.serve_version_1().await;
    let table = fixture.plugin("status").await.unwrap();
    let lines: Vec<&str> = table.lines().collect();
    let headers = [
        "NAME", "MODEL", "ALIAS", "WANTED", "RUNNING", "READY", "REASON", "SINCE",
    ];
    assert_eq!(words(lines[0]), headers, "{table}");
    let mut row = words(lines[1]);
    row.pop();
    let expected = ["binding", "model", "champion", "1", "1", "True", "Live"];
    assert_eq!(row, expected, "{table}");
    assert_eq!(lines.len(), 2, "nothing needs a person: {table}");
    assert!(
        !table.contains('\u{1b}'),
        "colors are for terminals: {table:?}"
    );
    let wide = fixture.plugin("status -o wide").await.unwrap();
    assert!(wide.contains("deployment/server"), "{wide}");
    let name = fixture.plugin("status -o name").await.unwrap();
    assert_eq!(name, "aliasbinding.pointsman.dev/binding\n");
    // A name in this form is one that kubectl and the plugin take.
    fixture
        .namespace
        .kubectl(&["get", name.trim()])
        .await
        .unwrap();
    let list = json_of(&fixture.plugin("status -o json").await.unwrap());
    assert_eq!(list["kind"], "List");
    assert_eq!(
        list["items"][0]["status"]["running"]["version"], "1",
        "{list}"
    );
    let yaml = fixture.plugin("status -o yaml").await.unwrap();
    let again = fixture.namespace.control_plane();
    let again = again.kubectl_with_input(
        &["create", "--dry-run=client", "-o", "name", "-f", "-"],
        &yaml,
    );
    assert_eq!(again.await.unwrap(), name, "{yaml}");
    let all = fixture.plugin("status -A").await.unwrap();
    let namespace = fixture.namespace.namespace();
    let own = all
        .lines()
        .find(|line| words(line).first() == Some(&namespace));
    assert_eq!(own.map(|line| words(line)[1]), Some("binding"), "{all}");
    fixture.end().await
}

async fn the_plugin_tells_what_ran_at_a_moment_and_what_happened(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "plugin history").await;
    fixture.serve_version_1().await;
    let first = fixture.binding().await["status"]["history"][0]["availableAt"].clone();
    // History has whole seconds: version 1 runs for longer than one.
    fixture.polled_twice().await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    let history = fixture.plugin("history binding").await.unwrap();
    let rows: Vec<Vec<&str>> = history.lines().skip(1).map(words).collect();
    let heads: Vec<&[&str]> = rows.iter().map(|row| &row[..4]).collect();
    let expected = [
        ["2", "Live", "Live", "AliasMove"],
        ["1", "Superseded", "Live", "AliasMove"],
    ];
    assert_eq!(heads, expected, "{history}");
    let at = first.as_str().expect("version 1 was available");
    let then = fixture
        .plugin(&format!("history binding --at {at}"))
        .await
        .unwrap();
    assert!(
        then.contains(&format!(": version 1 of {}", fixture.model)),
        "{then}"
    );
    let now = fixture
        .plugin("history aliasbinding/binding --at now -o json")
        .await
        .unwrap();
    let now = json_of(&now);
    assert_eq!(now["history"][0]["version"], "2", "{now}");
    let before = fixture
        .plugin("history binding --at '2020-01-01 03:00'")
        .await
        .unwrap();
    assert!(
        before.contains("not known; the history begins at"),
        "{before}"
    );
    wrong_words_are_explained(&fixture).await;
    let described = fixture.plugin("describe binding").await.unwrap();
    for expected in [
        "Running:",
        "Conditions:",
        "Versions:",
        "History:",
        "Events:",
    ] {
        assert!(described.contains(expected), "{expected}: {described}");
    }
    events_are_told(&fixture).await;
    fixture.end().await
}

async fn wrong_words_are_explained(fixture: &Fixture) {
    let error = fixture
        .plugin("history binding --at someday")
        .await
        .unwrap_err();
    assert!(error.contains("yesterday 03:00"), "{error}");
    let error = fixture.plugin("history other").await.unwrap_err();
    assert!(
        error.contains("there is no AliasBinding other in the namespace"),
        "{error}"
    );
}

async fn events_are_told(fixture: &Fixture) {
    // The Event is written after the status.
    let told = async {
        loop {
            let events = fixture.plugin("events binding").await.unwrap();
            if events.contains("aliasbinding/binding") && events.contains("deployment/server") {
                return fixture.plugin("events").await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let own = tokio::time::timeout(PATIENCE, told)
        .await
        .expect("Events about both");
    assert!(own.contains("aliasbinding/binding"), "{own}");
    assert!(
        !own.contains("deployment/server"),
        "only Pointsman's: {own}"
    );
}

async fn the_plugin_goes_from_the_registry_to_the_pods_and_from_a_pod_to_the_commit(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "plugin lineage").await;
    let trained = fixture.train(How::RegisterModel, 0.1).await;
    record_code(&environment, &trained.run_id).await;
    let server = pointsman_env::Workload::deployment("server").manifest();
    fixture.serve(server, json!({})).await;
    let tree = fixture.plugin("tree binding").await.unwrap();
    let mut below = tree.as_str();
    for object in [
        "ModelRegistry/mlflow",
        "RegisteredModel/model",
        "Version/1",
        "AliasBinding/binding",
        "Deployment/server",
        "ReplicaSet/server-",
        "Pod/server-",
    ] {
        let found = below
            .find(object)
            .unwrap_or_else(|| panic!("{object} is not in its place:\n{tree}"));
        below = &below[found..];
    }
    let deployment = tree.lines().find(|line| line.contains("Deployment/server"));
    let deployment = deployment.expect("its line");
    assert!(
        deployment.contains("True"),
        "all replicas are available:\n{tree}"
    );
    let names = fixture.plugin("tree binding -o name").await.unwrap();
    let pod = names
        .lines()
        .find(|line| line.starts_with("Pod/"))
        .expect("a pod");
    for object in [pod, "deployment/server", "server"] {
        let lineage = fixture.plugin(&format!("lineage {object}")).await.unwrap();
        for expected in [
            format!("Version:       1 of {}", fixture.model),
            format!("Run:           {}", trained.run_id),
            "commit 0123456789abcdef".to_owned(),
            "git clone https://git.example/taxi.git".to_owned(),
        ] {
            assert!(lineage.contains(&expected), "{expected}:\n{lineage}");
        }
    }
    let error = fixture.plugin("lineage pod/other").await.unwrap_err();
    assert!(error.contains("there is no Pod other"), "{error}");
    fixture.end().await
}

/// Records code with a run, as MLflow does for a training within a git checkout.
async fn record_code(environment: &Environment, run_id: &str) {
    let url = environment.mlflow(MlflowVersion::Three).await;
    for (key, value) in [
        ("mlflow.source.git.repoURL", "https://git.example/taxi.git"),
        ("mlflow.source.git.commit", "0123456789abcdef"),
    ] {
        let body = json!({"run_id": run_id, "key": key, "value": value});
        let request = reqwest::Client::new()
            .post(format!("{url}/api/2.0/mlflow/runs/set-tag"))
            .json(&body);
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }
}

async fn the_plugin_finds_the_code_to_train_any_version_again_through_copies_and_beyond_the_mirror(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "plugin inspect").await;
    let trained = fixture.train(How::RegisterModel, 0.1).await;
    record_code(&environment, &trained.run_id).await;
    let url = environment.mlflow(MlflowVersion::Three).await;
    let production = copies(&fixture).await;
    fixture.declare().await;
    fixture
        .apply_object(resources::registered_model("production", &production))
        .await;
    fixture.model_reports("Mirrored").await;
    let error = fixture.plugin("inspect model 1").await.unwrap_err();
    assert!(error.contains("set MLFLOW_TRACKING_URI"), "{error}");
    let variables = format!("MLFLOW_TRACKING_URI={url}");
    let own = fixture
        .plugin_with(&variables, "inspect model 1")
        .await
        .unwrap();
    for expected in [
        "commit 0123456789abcdef",
        &format!("Run:           {}", trained.run_id),
        "MLflow, with your own variables",
        "Parameters:",
    ] {
        assert!(own.contains(expected), "{expected}:\n{own}");
    }
    let listed = fixture.plugin("inspect model").await.unwrap();
    assert_eq!(
        words(listed.lines().nth(1).unwrap_or_default())[0],
        "26",
        "{listed}"
    );
    let copied = mirrored_code(&fixture).await;
    assert!(copied.contains("commit 0123456789abcdef"), "{copied}");
    let compared = fixture
        .plugin_with(&variables, "compare model 1 26")
        .await
        .unwrap();
    let commit = compared
        .lines()
        .find(|line| words(line).first() == Some(&"commit"));
    let commit = commit.unwrap_or_else(|| panic!("no commit: {compared}"));
    assert_eq!(
        words(commit)[1..],
        ["0123456789abcdef", "<none>"],
        "{compared}"
    );
    fixture.end().await
}

/// Registers a copy of a copy of version 1, neither of which names a run, and more versions than are mirrored. Returns the
/// model of the copy.
async fn copies(fixture: &Fixture) -> String {
    let [staging, production] =
        ["staging", "production"].map(|name| format!("{}-{name}", fixture.model));
    for (model, of) in [(&staging, &fixture.model), (&production, &staging)] {
        fixture.client.create_registered_model(model).await.unwrap();
        let source = format!("models:/{of}/1");
        fixture
            .client
            .create_model_version(model, &source)
            .await
            .unwrap();
    }
    // The newest 24 versions are mirrored: the first one is not.
    for number in 2..=26 {
        let source = format!("s3://models/inspect/{number}");
        fixture
            .client
            .create_model_version(&fixture.model, &source)
            .await
            .unwrap();
    }
    production
}

/// What the plugin tells of version 1 of the copy, when the mirror has it.
async fn mirrored_code(fixture: &Fixture) -> String {
    let kind = &pointsman_env::kinds::REGISTERED_MODEL;
    let has_version = |model: &Value| model["status"]["versions"][0]["version"] == "1";
    fixture
        .eventually("the copy is mirrored", kind, "production", has_version)
        .await;
    fixture.plugin("inspect production 1").await.unwrap()
}

async fn the_plugin_says_in_words_what_needs_a_person_and_watches_changes(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "plugin watch").await;
    fixture.serve_version_1().await;
    let control_plane = fixture.namespace.control_plane();
    let mut watch = tokio::process::Command::new(binary())
        .args([
            "status",
            "--watch",
            "-n",
            fixture.namespace.namespace(),
            "--kubeconfig",
        ])
        .arg(control_plane.admin_kubeconfig())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().expect("its output")).lines();
    let mut seen = Vec::new();
    let follow = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let is_first = line.contains("Live") && words(&line)[4] == "1";
            seen.push(line.clone());
            if is_first && seen.len() == 2 {
                fixture
                    .client
                    .delete_alias(&fixture.model, "champion")
                    .await
                    .unwrap();
            }
            if line.contains("AliasNotFound") {
                return;
            }
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, follow).await;
    assert!(outcome.is_ok(), "the deleted alias is not seen: {seen:#?}");
    let stalled = |binding: &Value| condition(binding, "Stalled")["status"] == "True";
    fixture
        .eventually("a person is needed", &ALIAS_BINDING, "binding", stalled)
        .await;
    let status = fixture.plugin("status").await.unwrap();
    assert!(
        status.contains("\n1 of 1 needs a person:\n  binding: "),
        "{status}"
    );
    fixture.end().await
}

async fn the_plugin_checks_whether_the_installation_and_its_registries_are_well(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "plugin check").await;
    fixture.serve_version_1().await;
    // Another scenario's operator may be on its way down in the same cluster.
    let checked = fixture.plugin("check -o json || true").await.unwrap();
    let checks = json_of(&checked);
    let result = |name: &str| {
        let all = checks.as_array().expect("a list");
        let found = all.iter().find(|check| check["check"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {checked}"))["result"].clone()
    };
    for name in [
        "cluster",
        "definition aliasbindings.pointsman.dev",
        "definition modelregistries.pointsman.dev",
        "definition registeredmodels.pointsman.dev",
        "right to patch aliasbindings",
        "registry mlflow",
        "bindings",
    ] {
        assert_eq!(result(name), "ok", "{name}: {checked}");
    }
    fixture
        .declare_registry(json!({"mlflow": {"uri": "http://127.0.0.1:1"}}))
        .await;
    fixture.registry_reports("RegistryUnreachable").await;
    let exit = "check > /dev/null || echo exit code $?";
    assert_eq!(fixture.plugin(exit).await.unwrap(), "exit code 1\n");
    let table = fixture.plugin("check || true").await.unwrap();
    let line = table.lines().find(|line| line.contains("registry mlflow"));
    let line = line.expect("a line for the registry");
    assert!(
        line.starts_with("failed") && line.contains("RegistryUnreachable"),
        "{table}"
    );
    fixture.end().await
}

async fn the_plugin_tells_a_person_without_rights_or_definitions_what_to_do(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let namespace = fixture::namespace(&environment, "plugin rights").await;
    let control_plane = namespace.control_plane();
    let name = namespace.namespace();
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "guest"}});
    namespace.apply_object(&account).await.unwrap();
    let token = control_plane
        .service_account_token(name, "guest")
        .await
        .unwrap();
    let file = format!("{name}.kubeconfig");
    let kubeconfig = control_plane
        .kubeconfig_with_token(&file, control_plane.apiserver_url(), &token)
        .unwrap();
    let status = |flags: &str| {
        let program = binary().display().to_string();
        format!(
            "{program} status -n {name} --kubeconfig {} {flags}",
            kubeconfig.display()
        )
    };
    let error = control_plane
        .shell(&status(""))
        .await
        .unwrap_err()
        .to_string();
    let expected = format!(
        "you may not list aliasbindings.pointsman.dev in the namespace {name}; ask for a role"
    );
    assert!(error.contains(&expected), "{error}");
    let error = control_plane
        .shell(&status("--context other"))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("kubectl config get-contexts"), "{error}");
    // A cluster in which nothing is installed.
    let tools = &environment.cluster().await.tools;
    let bare = ControlPlane::start(tools, ControlPlaneOptions::api_only())
        .await
        .unwrap();
    let line = format!("{} status", binary().display());
    let error = bare.shell(&line).await.unwrap_err().to_string();
    assert!(
        error.contains("the cluster has no kind AliasBinding"),
        "{error}"
    );
    assert!(
        error.contains("pointsman crds | kubectl apply --server-side -f -"),
        "{error}"
    );
    bare.stop();
    namespace.end().await.map_err(|error| error.to_string())
}

async fn the_plugin_completes_commands_for_kubectl_and_has_manual_pages(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let control_plane = &environment.cluster().await.control_plane;
    let folder = control_plane.folder().join("completion");
    fixture::link_plugin(&folder);
    let path = folder.display();
    let script = format!(
        "export PATH={path}:$PATH; cd {path}
         kubectl pointsman completion kubectl > kubectl_complete-pointsman
         chmod +x kubectl_complete-pointsman
         kubectl pointsman completion bash | bash -n
         mkdir pages && kubectl pointsman man --output pages
         kubectl __complete pointsman st"
    );
    let completed = control_plane.shell(&script).await.unwrap();
    assert!(
        completed.contains("status\tShow all bindings"),
        "{completed}"
    );
    let page = std::fs::read_to_string(folder.join("pages/pointsman-status.1")).unwrap();
    assert!(
        page.starts_with('.') && page.contains("Show all bindings"),
        "{page}"
    );
    Ok(())
}
