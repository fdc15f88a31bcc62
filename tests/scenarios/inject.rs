//! The injected fields beside those of other managers: names and order of variables, containers, replicas, the registry's
//! address, and workloads that are somebody else's.
//!
//! Absent: a version's rollout and rollback; see `binding` and `failure`.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::Workload;
use pointsman_env::interceptor::Interceptor;
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, POD, REGISTERED_MODEL};
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, ScenarioResult, env, ready_message, ready_reason, ready_status,
    scenarios, template_version,
};

scenarios!(
    variables_of_the_user_may_refer_to_injected_ones,
    variables_get_the_names_that_the_spec_chooses,
    an_init_container_gets_the_version,
    the_container_of_the_version_stays_the_same_when_a_sidecar_is_put_first,
    a_source_of_variables_that_may_be_hidden_is_told,
    a_change_cause_of_another_manager_stays,
    a_deployment_of_another_controller_is_refused,
    a_template_never_takes_over_a_deployment_that_it_did_not_make,
    a_manager_that_undoes_each_write_is_told_and_not_fought,
    a_manifest_that_loses_its_annotations_gets_the_version_back_and_no_hold,
    replicas_of_a_template_count_at_creation_only,
    another_address_of_the_registry_goes_along_with_the_next_version,
    another_address_of_the_registry_is_written_when_a_person_asks,
    a_requested_address_that_fails_is_taken_back,
    restart_stamps_do_not_retry_a_version_that_is_held_back,
);

const A_WHILE: Duration = Duration::from_secs(4);

/// The names of the variables of a container, in order.
fn names(deployment: &Value, list: &str, container: usize) -> Vec<String> {
    let env = deployment["spec"]["template"]["spec"][list][container]["env"].as_array();
    let names = env.into_iter().flatten().map(|each| each["name"].as_str());
    names.flatten().map(str::to_owned).collect()
}

/// A fixture with a model of these versions, champion on 1.
async fn with_versions(environment: &Arc<Environment>, name: &str, versions: u32) -> Fixture {
    let fixture = Fixture::new(environment, name).await;
    fixture.register(versions).await;
    fixture.alias("1").await;
    fixture.declare().await;
    fixture
}

/// Whether Pointsman owns a variable of the Deployment.
fn owns(deployment: &Value, variable: &str) -> bool {
    let entries = deployment["metadata"]["managedFields"].as_array();
    let mut ours = entries
        .into_iter()
        .flatten()
        .filter(|entry| entry["manager"] == "pointsman");
    let key = format!("k:{{\\\"name\\\":\\\"{variable}\\\"}}");
    ours.any(|entry| entry.to_string().contains(&key))
}

async fn variables_of_the_user_may_refer_to_injected_ones(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_versions(&environment, "references", 2).await;
    let mut deployment = Workload::deployment("server");
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    deployment.environment = vec![
        variable("PORT", "8080"),
        variable("STORAGE_URI", "$(MODEL_URI)"),
        variable("CONFIG", "$(STORAGE_URI)/config"),
    ];
    fixture.deploy(&deployment).await;
    fixture.declare_binding(json!({})).await;
    fixture.runs("1").await;
    let lets_go =
        |deployment: &Value| owns(deployment, "MODEL_URI") && !owns(deployment, "STORAGE_URI");
    let description = "the variable stays its owner's";
    let first = fixture
        .eventually(description, &DEPLOYMENT, "server", lets_go)
        .await;
    let order = names(&first, "containers", 0);
    let position = |name: &str| order.iter().position(|each| each == name).unwrap();
    assert!(position("MODEL_URI") < position("STORAGE_URI"), "{order:?}");
    assert!(position("STORAGE_URI") < position("CONFIG"), "{order:?}");
    assert_eq!(
        env(&first, 0, "STORAGE_URI").as_deref(),
        Some("$(MODEL_URI)")
    );
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.alias("1").await;
    fixture.runs("1").await;
    let back = fixture.deployment().await;
    assert_eq!(back["spec"]["template"], first["spec"]["template"]);
    // A variable that comes later is put behind ours as well, and one that its owner removes goes.
    deployment.environment = vec![variable("LATE", "$(MODEL_NAME)")];
    fixture.deploy(&deployment).await;
    let in_order = |deployment: &Value| {
        let order = names(deployment, "containers", 0);
        order.last().is_some_and(|last| last == "LATE")
            && !order.contains(&"STORAGE_URI".to_owned())
            && !owns(deployment, "LATE")
    };
    let description = "the later variable stands behind ours";
    fixture
        .eventually(description, &DEPLOYMENT, "server", in_order)
        .await;
    fixture.runs("1").await;
    fixture.end().await
}

async fn variables_get_the_names_that_the_spec_chooses(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_versions(&environment, "names", 2).await;
    let named =
        |name: &str| json!({"inject": {"variables": [{"name": name, "value": "ModelURI"}]}});
    fixture.bind(named("STORAGE_URI")).await;
    let binding = fixture.runs("1").await;
    let first = fixture.deployment().await;
    assert_eq!(names(&first, "containers", 0), ["STORAGE_URI"]);
    let uri = env(&first, 0, "STORAGE_URI").unwrap();
    assert_eq!(binding["status"]["running"]["artifactURI"], uri);
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.alias("1").await;
    fixture.runs("1").await;
    assert_eq!(
        fixture.deployment().await["spec"]["template"],
        first["spec"]["template"]
    );
    fixture.declare_binding(named("MODEL_SOURCE")).await;
    let is_renamed = |deployment: &Value| names(deployment, "containers", 0) == ["MODEL_SOURCE"];
    let description = "the variable is renamed";
    fixture
        .eventually(description, &DEPLOYMENT, "server", is_renamed)
        .await;
    fixture.runs("1").await;
    fixture.declare_binding(json!({})).await;
    let is_usual = |deployment: &Value| {
        let names = names(deployment, "containers", 0);
        names.contains(&"MODEL_URI".to_owned()) && !names.contains(&"MODEL_SOURCE".to_owned())
    };
    let description = "the variables have their usual names";
    fixture
        .eventually(description, &DEPLOYMENT, "server", is_usual)
        .await;
    fixture.runs("1").await;
    fixture.end().await
}

async fn an_init_container_gets_the_version(environment: Arc<Environment>) -> ScenarioResult {
    let fixture = with_versions(&environment, "init container", 2).await;
    let mut manifest = Workload::deployment("server").manifest();
    manifest["spec"]["template"]["spec"]["initContainers"] =
        json!([{"name": "fetch", "image": "registry.example/fetch:1"}]);
    fixture.namespace.kubectl_apply(&manifest).await.unwrap();
    let chosen = json!({"inject": {"containers": ["fetch"]}});
    fixture.declare_binding(chosen).await;
    fixture.runs("1").await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    let now = fixture.deployment().await;
    assert!(names(&now, "initContainers", 0).contains(&"MODEL_URI".to_owned()));
    assert!(names(&now, "containers", 0).is_empty());
    fixture.end().await
}

async fn the_container_of_the_version_stays_the_same_when_a_sidecar_is_put_first(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_versions(&environment, "sidecar first", 2).await;
    fixture.bind(json!({})).await;
    fixture.runs("1").await;
    let mut deployment = Workload::deployment("server");
    deployment.containers = vec!["proxy".to_owned(), "server".to_owned()];
    fixture.deploy(&deployment).await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    let now = fixture.deployment().await;
    let containers = now["spec"]["template"]["spec"]["containers"].as_array();
    let with_version = containers
        .into_iter()
        .flatten()
        .filter(|container| container["env"].to_string().contains("MODEL_VERSION"));
    let names: Vec<_> = with_version.map(|each| each["name"].clone()).collect();
    assert_eq!(names, ["server"]);
    // The pod template's own choice comes first.
    let default = json!({"kubectl.kubernetes.io/default-container": "proxy"});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": default}}}});
    fixture
        .namespace
        .patch(&DEPLOYMENT, "server", &patch)
        .await
        .unwrap();
    let is_moved = |deployment: &Value| {
        let containers = deployment["spec"]["template"]["spec"]["containers"].as_array();
        containers.is_some_and(|all| {
            all.iter().all(|each| {
                let has_version = each["env"].to_string().contains("MODEL_VERSION");
                has_version == (each["name"] == "proxy")
            })
        })
    };
    let description = "the annotated container has the version";
    fixture
        .eventually(description, &DEPLOYMENT, "server", is_moved)
        .await;
    fixture.runs("2").await;
    fixture.end().await
}

async fn a_manifest_that_loses_its_annotations_gets_the_version_back_and_no_hold(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_versions(&environment, "annotations removed", 1).await;
    let mut manifest = Workload::deployment("server").manifest();
    manifest["spec"]["template"]["metadata"]["annotations"] = json!({"team": "ml"});
    fixture.namespace.kubectl_apply(&manifest).await.unwrap();
    fixture.declare_binding(json!({})).await;
    fixture.runs("1").await;
    // Without its last annotation, `kubectl apply` removes all of them, Pointsman's too.
    fixture.deploy(&Workload::deployment("server")).await;
    let is_restored = |deployment: &Value| {
        let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
        annotations["team"].is_null() && annotations["pointsman.dev/model-version"] == "1"
    };
    let description = "the version is in the annotations again";
    fixture
        .eventually(description, &DEPLOYMENT, "server", is_restored)
        .await;
    let binding = fixture.runs("1").await;
    assert!(binding["status"]["hold"].is_null(), "{binding}");
    fixture.end().await
}

async fn a_source_of_variables_that_may_be_hidden_is_told(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_versions(&environment, "env from", 1).await;
    let mut manifest = Workload::deployment("server").manifest();
    manifest["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
        json!([{"configMapRef": {"name": "settings", "optional": true}}]);
    fixture.namespace.kubectl_apply(&manifest).await.unwrap();
    fixture.declare_binding(json!({})).await;
    let message = ready_message(&fixture.runs("1").await);
    assert!(
        message.contains("container server has envFrom: a MODEL_NAME from there is hidden"),
        "{message}"
    );
    let renamed = json!({"inject": {"variables": [{"name": "VERSION", "value": "ModelVersion"}]}});
    fixture.declare_binding(renamed).await;
    let is_quiet = |binding: &Value| {
        ready_status(binding) == "True" && ready_message(binding) == "version 1 runs"
    };
    fixture
        .eventually("nothing is hidden", &ALIAS_BINDING, "binding", is_quiet)
        .await;
    fixture.end().await
}

async fn a_change_cause_of_another_manager_stays(environment: Arc<Environment>) -> ScenarioResult {
    let fixture = with_versions(&environment, "change cause", 2).await;
    let deployment = Workload::deployment("server");
    let mut manifest = deployment.manifest();
    let cause = json!({"kubernetes.io/change-cause": "release 7"});
    manifest["metadata"]["annotations"] = cause.clone();
    fixture.namespace.kubectl_apply(&manifest).await.unwrap();
    fixture.declare_binding(json!({})).await;
    fixture.runs("1").await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    let stays = |deployment: &Value| {
        deployment["metadata"]["annotations"]["kubernetes.io/change-cause"] == "release 7"
    };
    fixture
        .namespace
        .stays("the cause stays", A_WHILE, &DEPLOYMENT, "server", stays)
        .await;
    fixture.end().await
}

async fn a_deployment_of_another_controller_is_refused(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_versions(&environment, "controller", 1).await;
    let kubectl = async |arguments: &[&str]| fixture.namespace.kubectl(arguments).await.unwrap();
    kubectl(&["create", "configmap", "operator-object"]).await;
    let uid = kubectl(&[
        "get",
        "configmap",
        "operator-object",
        "-o",
        "jsonpath={.metadata.uid}",
    ])
    .await;
    let mut manifest = Workload::deployment("server").manifest();
    manifest["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap",
        "name": "operator-object", "uid": uid, "controller": true}]);
    fixture.namespace.kubectl_apply(&manifest).await.unwrap();
    let before = fixture.workload().await;
    fixture.declare_binding(json!({})).await;
    let message = fixture.reports("TargetClaimed").await;
    assert!(
        message.contains("deployment/server belongs to ConfigMap operator-object"),
        "{message}"
    );
    assert_eq!(fixture.workload().await, before);
    fixture.end().await
}

async fn a_template_never_takes_over_a_deployment_that_it_did_not_make(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_versions(&environment, "take over", 1).await;
    fixture.deploy(&Workload::deployment("binding")).await;
    let target = json!({"targetRef": {"name": "binding"}});
    fixture.declare_binding(target).await;
    fixture.runs("1").await;
    fixture
        .namespace
        .delete(&ALIAS_BINDING, "binding")
        .await
        .unwrap();
    let before = fixture.namespace.get(&DEPLOYMENT, "binding").await.unwrap();
    let pod = json!({"containers": [{"name": "server", "image": "registry.example/other:1"}]});
    let template = json!({"spec": {"template": {"spec": pod}}});
    fixture
        .declare_binding(json!({"targetRef": null, "template": template}))
        .await;
    let message = fixture.reports("TargetClaimed").await;
    assert!(
        message.contains("deployment/binding exists, and this binding did not make it"),
        "{message}"
    );
    let now = fixture.namespace.get(&DEPLOYMENT, "binding").await.unwrap();
    assert_eq!(now["spec"], before["spec"]);
    fixture.end().await
}

async fn a_manager_that_undoes_each_write_is_told_and_not_fought(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_versions(&environment, "fight", 1).await;
    fixture.bind(json!({})).await;
    fixture.runs("1").await;
    let undo =
        json!([{"op": "remove", "path": "/spec/template/spec/containers/0/env"}]).to_string();
    let undo = ["patch", "deployment", "server", "--type=json", "-p", &undo];
    let undoing = async {
        loop {
            // Fails as long as there is nothing to undo.
            let _ = fixture.namespace.kubectl(&undo).await;
        }
    };
    let told = async {
        let message = fixture.reports("FieldConflict").await;
        let mark = fixture.api.mark();
        tokio::time::sleep(Duration::from_secs(8)).await;
        let writes = fixture.api.since(mark).into_iter().filter(|request| {
            request.method == "PATCH" && request.path.contains("/deployments/server")
        });
        (message, writes.count())
    };
    let (message, writes) = tokio::select! {
        told = told => told,
        () = undoing => unreachable!("it undoes for ever"),
    };
    assert!(
        message.contains("undoes each write to deployment/server"),
        "{message}"
    );
    assert!(writes <= 3, "{writes} writes in 8 seconds");
    fixture.runs("1").await;
    fixture.end().await
}

async fn replicas_of_a_template_count_at_creation_only(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_versions(&environment, "replicas", 3).await;
    let pod = json!({"containers": [{"name": "server", "image": "registry.example/server:1"}]});
    let template = |replicas: u32| {
        let template = json!({"spec": {"replicas": replicas, "template": {"spec": pod}}});
        json!({"targetRef": null, "template": template})
    };
    let replicas = async || {
        let deployment = fixture.namespace.get(&DEPLOYMENT, "binding").await.unwrap();
        deployment["spec"]["replicas"].as_u64()
    };
    fixture.declare_binding(template(2)).await;
    fixture.runs("1").await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    assert_eq!(replicas().await, Some(2), "nobody scaled it");
    let scale = ["scale", "deployment/binding", "--replicas=6"];
    fixture.namespace.kubectl(&scale).await.unwrap();
    fixture.alias("3").await;
    fixture.runs("3").await;
    assert_eq!(replicas().await, Some(6));
    fixture.declare_binding(template(1)).await;
    let stays = |deployment: &Value| deployment["spec"]["replicas"] == 6;
    fixture
        .namespace
        .stays("the scale stays", A_WHILE, &DEPLOYMENT, "binding", stays)
        .await;
    fixture.end().await
}

/// Waits until the mirror names an address for pods.
async fn mirrors_address(fixture: &Fixture, address: &str) {
    let holds = |model: &Value| model["status"]["trackingURI"] == address;
    let description = format!("the mirror names {address}");
    fixture
        .eventually(&description, &REGISTERED_MODEL, "model", holds)
        .await;
}

async fn declare_address(fixture: &Fixture, mlflow: Value) {
    fixture.declare_registry(json!({"mlflow": mlflow})).await;
}

fn address(deployment: &Value) -> Option<String> {
    env(deployment, 0, "MLFLOW_TRACKING_URI")
}

async fn another_address_of_the_registry_goes_along_with_the_next_version(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "address").await;
    fixture.serve_version_1().await;
    let before = fixture.workload().await;
    let stays = |deployment: &Value| deployment["spec"]["template"] == before["template"];
    // The first address is nobody's: the mirror keeps the one that answered.
    declare_address(&fixture, json!({"uri": "http://127.0.0.1:9"})).await;
    fixture.registry_reports("RegistryUnreachable").await;
    mirrors_address(&fixture, &fixture.registry.url()).await;
    let other = Interceptor::start(fixture.registry.url(), None)
        .await
        .unwrap();
    declare_address(&fixture, json!({"uri": other.url()})).await;
    mirrors_address(&fixture, &other.url()).await;
    let for_pods = "https://mlflow.example";
    declare_address(&fixture, json!({"uri": other.url(), "podURI": for_pods})).await;
    mirrors_address(&fixture, for_pods).await;
    fixture
        .namespace
        .stays("the template stays", A_WHILE, &DEPLOYMENT, "server", stays)
        .await;
    let message = ready_message(&fixture.runs("1").await);
    assert!(
        message.contains("the registry's address has changed since"),
        "{message}"
    );
    fixture.alias("2").await;
    fixture.runs("2").await;
    let now = fixture.deployment().await;
    assert_eq!(address(&now).as_deref(), Some(for_pods));
    assert_eq!(ready_message(&fixture.binding().await), "version 2 runs");
    fixture.end().await
}

async fn another_address_of_the_registry_is_written_when_a_person_asks(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "apply").await;
    fixture.serve_version_1().await;
    let for_pods = "https://mlflow.example";
    let spec = json!({"uri": fixture.registry.url(), "podURI": for_pods});
    declare_address(&fixture, spec).await;
    let is_noted = |binding: &Value| {
        ready_status(binding) == "True" && ready_message(binding).contains("write it now: ")
    };
    let noted = fixture
        .eventually("the change is told", &ALIAS_BINDING, "binding", is_noted)
        .await;
    let message = ready_message(&noted);
    let (_, command) = message.split_once("write it now: ").unwrap();
    let (command, _annotation) = command.split_once(" (or annotation ").unwrap();
    fixture.shell(command).await.unwrap();
    let is_written = |deployment: &Value| address(deployment).as_deref() == Some(for_pods);
    fixture
        .eventually("it is written", &DEPLOYMENT, "server", is_written)
        .await;
    let is_live = |binding: &Value| ready_message(binding) == "version 1 runs";
    let live = fixture
        .eventually("it is live", &ALIAS_BINDING, "binding", is_live)
        .await;
    let history = &live["status"]["history"];
    assert_eq!(history[0]["trackingURI"], for_pods, "{history}");
    assert_eq!(history[0]["trigger"], "Person", "{history}");
    assert_eq!(history[1]["version"], "1", "{history}");
    assert!(live["status"]["lastHandledApply"]["value"].is_string());
    fixture.end().await
}

async fn a_requested_address_that_fails_is_taken_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "taken back").await;
    fixture.serve_version_1().await;
    let old = address(&fixture.deployment().await).unwrap();
    fixture
        .declare_binding(json!({"rollback": {"bakeSeconds": 600}}))
        .await;
    let spec = json!({"uri": fixture.registry.url(), "podURI": "https://wrong.example"});
    declare_address(&fixture, spec).await;
    mirrors_address(&fixture, "https://wrong.example").await;
    let ask = [
        "annotate",
        "abind",
        "binding",
        "pointsman.dev/apply-requested-at=1",
    ];
    fixture.namespace.kubectl(&ask).await.unwrap();
    fixture.reports("Baking").await;
    let pods = fixture.namespace.list(&POD, "").await.unwrap();
    for pod in pods
        .iter()
        .filter(|pod| pod.to_string().contains("wrong.example"))
    {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let crash = ["annotate", "pod", name, "kwok.test/behavior=*=crash"];
        fixture.namespace.kubectl(&crash).await.unwrap();
    }
    let is_back = |deployment: &Value| address(deployment) == Some(old.clone());
    fixture
        .eventually("it is taken back", &DEPLOYMENT, "server", is_back)
        .await;
    let is_live = |binding: &Value| {
        ready_reason(binding) == "Live"
            && ready_message(binding).contains("the registry's new address failed: ")
    };
    let live = fixture
        .eventually("the old address serves", &ALIAS_BINDING, "binding", is_live)
        .await;
    assert_eq!(
        live["status"]["heldBack"],
        Value::Null,
        "the version did nothing"
    );
    assert_eq!(live["status"]["history"][1]["outcome"], "RolledBack");
    let stays = |deployment: &Value| address(deployment) == Some(old.clone());
    fixture
        .namespace
        .stays("it stays", A_WHILE, &DEPLOYMENT, "server", stays)
        .await;
    fixture.end().await
}

async fn restart_stamps_do_not_retry_a_version_that_is_held_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_versions(&environment, "stamps", 2).await;
    let deployment = Workload::deployment("server").with_behavior("2=crash");
    fixture.deploy(&deployment).await;
    fixture.declare_binding(json!({})).await;
    fixture.runs("1").await;
    fixture.alias("2").await;
    fixture.reports("RolledBack").await;
    let digest = fixture.binding().await["status"]["heldBack"]["specDigest"].clone();
    let annotated =
        |name: &str| json!({"metadata": {"annotations": {name: "2026-11-23T12:00:00Z"}}});
    let container = |env: Value| json!({"spec": {"containers": [{"name": "server", "env": env}]}});
    let stamps = [
        annotated("reloader.stakater.com/last-reloaded-from"),
        annotated("vso.secrets.hashicorp.com/restartedAt"),
        annotated("cattle.io/timestamp"),
        annotated("checksum/config"),
        annotated("kubectl.kubernetes.io/restartedAt"),
        json!({"metadata": {"labels": {"helm.sh/chart": "taxi-2"}}}),
        container(json!([{"name": "STAKATER_SETTINGS_CONFIGMAP", "value": "5f2b"}])),
    ];
    for stamp in stamps {
        let patch = json!({"spec": {"template": stamp}}).to_string();
        let patch = [
            "patch",
            "deployment",
            "server",
            "--type=strategic",
            "-p",
            &patch,
        ];
        fixture.namespace.kubectl(&patch).await.unwrap();
    }
    let stays = |deployment: &Value| template_version(deployment) == "1";
    fixture
        .namespace
        .stays("version 1 stays", A_WHILE, &DEPLOYMENT, "server", stays)
        .await;
    let binding = fixture.binding().await;
    assert_eq!(binding["status"]["heldBack"]["specDigest"], digest);
    assert_eq!(binding["status"]["heldBack"]["versions"][0]["version"], "2");
    fixture.end().await
}
