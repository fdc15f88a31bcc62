//! Argo Rollouts as targets, with their own controller: steps, pauses, analyses and aborts.
//!
//! Absent: traffic routing, which its controller hides behind the same status; behaviour that does not depend on the kind.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::kinds::{ALIAS_BINDING, POD, ROLLOUT};
use pointsman_env::peer::Peer;
use pointsman_env::python::MlflowVersion;
use pointsman_env::resources::{self, merge};
use pointsman_env::{Objects, OperatorOptions, Selection, Workload};
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, PATIENCE, ScenarioResult, condition, namespace, ready_message,
    ready_reason, scenarios, template_version,
};

scenarios!(
    a_canary_waits_at_its_pause_and_is_live_when_all_steps_are_done,
    a_move_back_in_the_middle_of_a_canary_skips_its_steps,
    a_rollback_within_the_window_of_a_rollout_skips_its_steps,
    a_crashing_canary_is_rolled_back_and_its_steps_are_skipped,
    a_failed_analysis_aborts_a_rollout_and_its_version_is_rolled_back,
    an_analysis_that_cannot_measure_blames_no_version,
    a_persons_abort_of_a_rollout_is_waited_for,
    a_persons_undo_of_a_rollout_is_held,
    a_blue_green_update_waits_for_its_promotion,
    a_version_in_a_rollout_without_replicas_is_proven_when_it_has_pods,
    only_the_injected_elements_of_a_rollouts_lists_are_changed,
    a_rollout_that_takes_its_template_from_elsewhere_is_refused,
    a_rollout_is_not_driven_unless_it_is_switched_on,
    rollouts_are_waited_for_until_their_definition_is_installed,
);

/// The values of the chart with which Rollouts are driven.
fn switched_on() -> Value {
    json!({"targets": {"rollouts": true}})
}

/// A fixture whose operator drives Rollouts, beside their own controller, with a model of three versions and champion on 1.
struct Argo {
    fixture: Fixture,
    controller: Peer,
}

impl Argo {
    async fn start(environment: &Arc<Environment>, name: &str) -> Self {
        let fixture = Fixture::with_values(environment, name, switched_on()).await;
        Self::beside(fixture).await
    }

    /// The same with a fixture that is there already.
    async fn beside(fixture: Fixture) -> Self {
        let controller = Peer::rollouts(&fixture.namespace).await.unwrap();
        fixture.register(3).await;
        fixture.alias("1").await;
        fixture.declare().await;
        Self {
            fixture,
            controller,
        }
    }

    /// Applies the Rollout with these members of its spec, binds it, and waits until version 1 is live.
    async fn serve_version_1(&self, workload: &Workload, spec: Value) {
        let mut manifest = workload.manifest();
        merge(&mut manifest["spec"], spec);
        self.fixture
            .namespace
            .kubectl_apply(manifest)
            .await
            .unwrap();
        let target = json!({"targetRef": workload.target_ref()});
        self.fixture.declare_binding(target).await;
        // The first version of a Rollout that exists is an update, too.
        self.goes_through("1").await;
    }

    /// Promotes the Rollout at each pause until this version is live.
    async fn goes_through(&self, version: &str) {
        let is_there = |binding: &Value| {
            binding["status"]["running"]["version"] == version
                && (condition(binding, "Ready")["status"] == "True" || waits(binding))
        };
        loop {
            let description = format!("version {version} is live, or waits");
            let binding = self
                .fixture
                .eventually(&description, &ALIAS_BINDING, "binding", is_there)
                .await;
            if !waits(&binding) {
                return;
            }
            self.promote().await;
            let has_gone_on = |binding: &Value| !waits(binding);
            self.fixture
                .eventually(
                    "the Rollout goes on",
                    &ALIAS_BINDING,
                    "binding",
                    has_gone_on,
                )
                .await;
        }
    }

    /// As `kubectl argo rollouts promote` does.
    async fn promote(&self) {
        self.set_status("kubectl-argo-rollouts", json!({"pauseConditions": null}))
            .await;
    }

    /// Writes the status as the plugin of kubectl does.
    async fn set_status(&self, manager: &str, members: Value) {
        let patch = json!({"status": members}).to_string();
        let manager = format!("--field-manager={manager}");
        let arguments = [
            "patch",
            "rollout",
            "server",
            "--subresource=status",
            "--type=merge",
        ];
        let arguments = [&arguments[..], &["-p", &patch, &manager]].concat();
        self.fixture.namespace.kubectl(&arguments).await.unwrap();
    }

    async fn waits_at_a_pause(&self, version: &str) -> Value {
        let holds =
            |binding: &Value| waits(binding) && binding["status"]["running"]["version"] == version;
        let description = format!("version {version} waits at a pause");
        self.fixture
            .eventually(&description, &ALIAS_BINDING, "binding", holds)
            .await
    }

    async fn rollout(&self) -> Value {
        self.fixture
            .namespace
            .get(&ROLLOUT, "server")
            .await
            .unwrap()
    }

    /// Waits until exactly so many pods of this version are ready, whatever other versions have.
    async fn has_pods(&self, version: &str, count: usize) {
        let serves = |pod: &&Value| {
            pod["metadata"]["annotations"]["pointsman.dev/model-version"] == version
                && condition(pod, "Ready")["status"] == "True"
        };
        let has = |pods: &Objects| pods.values().filter(serves).count() == count;
        let pods = Selection::Labelled("app=server");
        let description = format!("{count} pods serve version {version}");
        self.fixture
            .namespace
            .eventually_all(&description, PATIENCE, &POD, &pods, has)
            .await;
    }

    async fn is_rolled_back(&self) -> Value {
        let rolled_back = |binding: &Value| {
            ready_reason(binding) == "RolledBack" && binding["status"]["running"]["version"] == "1"
        };
        let binding = self
            .fixture
            .eventually(
                "version 2 is rolled back",
                &ALIAS_BINDING,
                "binding",
                rolled_back,
            )
            .await;
        self.has_pods("1", 2).await;
        let is_healthy = |rollout: &Value| rollout["status"]["phase"] == "Healthy";
        self.fixture
            .eventually("the Rollout is well", &ROLLOUT, "server", is_healthy)
            .await;
        binding
    }

    async fn end(mut self) -> ScenarioResult {
        let ended = self.fixture.end().await;
        self.controller.stop().map_err(|error| error.to_string())?;
        ended
    }
}

fn waits(binding: &Value) -> bool {
    ready_message(binding).contains("go on: kubectl argo rollouts promote server")
}

fn server() -> Workload {
    Workload::of_kind(&ROLLOUT, "server")
}

/// One pod of two, then a pause until somebody promotes the Rollout.
fn with_pause() -> Value {
    json!({"strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}})
}

async fn a_canary_waits_at_its_pause_and_is_live_when_all_steps_are_done(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let argo = Argo::start(&environment, "canary").await;
    argo.serve_version_1(&server(), with_pause()).await;
    let first = argo.rollout().await["spec"]["template"].clone();
    argo.fixture.alias("2").await;
    let binding = argo.waits_at_a_pause("2").await;
    argo.has_pods("2", 1).await;
    argo.has_pods("1", 1).await;
    assert_eq!(ready_reason(&binding), "RollingOut");
    assert_eq!(binding["status"]["lastGood"]["version"], "1", "{binding}");
    let waits = |binding: &Value| waits(binding) && binding["status"]["lastGood"]["version"] == "1";
    let (namespace, short) = (&argo.fixture.namespace, Duration::from_secs(4));
    namespace
        .stays("it waits", short, &ALIAS_BINDING, "binding", waits)
        .await;
    argo.promote().await;
    let binding = argo.fixture.runs("2").await;
    assert_eq!(binding["status"]["lastGood"]["version"], "2", "{binding}");
    argo.has_pods("2", 2).await;
    argo.fixture.alias("1").await;
    argo.goes_through("1").await;
    assert_eq!(
        argo.rollout().await["spec"]["template"],
        first,
        "a move back restores the template byte for byte"
    );
    argo.end().await
}

async fn a_move_back_in_the_middle_of_a_canary_skips_its_steps(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let argo = Argo::start(&environment, "canary back").await;
    argo.serve_version_1(&server(), with_pause()).await;
    argo.fixture.alias("2").await;
    argo.waits_at_a_pause("2").await;
    argo.fixture.alias("1").await;
    argo.fixture.runs("1").await;
    argo.has_pods("1", 2).await;
    argo.end().await
}

async fn a_rollback_within_the_window_of_a_rollout_skips_its_steps(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let argo = Argo::start(&environment, "rollback window").await;
    let mut spec = with_pause();
    spec["rollbackWindow"] = json!({"revisions": 3});
    argo.serve_version_1(&server(), spec).await;
    // Argo compares the times at which the ReplicaSets were created, which are whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    argo.fixture.alias("2").await;
    argo.goes_through("2").await;
    argo.fixture.alias("1").await;
    argo.fixture.runs("1").await;
    argo.has_pods("1", 2).await;
    argo.end().await
}

async fn a_crashing_canary_is_rolled_back_and_its_steps_are_skipped(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let argo = Argo::start(&environment, "canary crash").await;
    let server = server().with_behavior("2=crash");
    argo.serve_version_1(&server, with_pause()).await;
    argo.fixture.alias("2").await;
    let binding = argo.is_rolled_back().await;
    let failed = &binding["status"]["heldBack"]["versions"][0];
    assert_eq!(failed["version"], "2", "{binding}");
    assert_eq!(failed["reason"], "CrashLoop", "{binding}");
    argo.end().await
}

/// A canary whose analysis asks MLflow for the model of this name, and expects this condition to hold.
async fn with_analysis(argo: &Argo, url: &str, condition: &str) -> Value {
    let model = &argo.fixture.model;
    let web = json!({
        "url": format!("{url}/api/2.0/mlflow/registered-models/get?name={model}"),
        "jsonPath": "{$.registered_model.name}",
    });
    let metric = json!({"name": "answer", "consecutiveErrorLimit": 0, "successCondition": condition,
        "provider": {"web": web}});
    let template = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate",
        "metadata": {"name": "answer"}, "spec": {"metrics": [metric]}});
    argo.fixture
        .namespace
        .kubectl_apply(template)
        .await
        .unwrap();
    let analysis = json!({"analysis": {"templates": [{"templateName": "answer"}]}});
    json!({"strategy": {"canary": {"steps": [{"setWeight": 50}, analysis]}}})
}

/// Version 1 runs before there is an analysis: the first update of a Rollout would run it, too.
async fn analyze(argo: &Argo, spec: Value) {
    let patch = json!({"spec": spec});
    let namespace = &argo.fixture.namespace;
    namespace.patch(&ROLLOUT, "server", &patch).await.unwrap();
    let is_observed = |rollout: &Value| {
        let generation = rollout["metadata"]["generation"].to_string();
        rollout["status"]["observedGeneration"] == generation
            && rollout["status"]["phase"] == "Healthy"
    };
    argo.fixture
        .eventually("the steps are known", &ROLLOUT, "server", is_observed)
        .await;
    argo.fixture.alias("2").await;
}

async fn a_failed_analysis_aborts_a_rollout_and_its_version_is_rolled_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let argo = Argo::start(&environment, "analysis failed").await;
    argo.serve_version_1(&server(), json!({"strategy": {"canary": {}}}))
        .await;
    let url = argo.fixture.registry.url();
    let spec = with_analysis(&argo, &url, "result == 'nobody'").await;
    analyze(&argo, spec).await;
    let binding = argo.is_rolled_back().await;
    let failed = &binding["status"]["heldBack"]["versions"][0];
    assert_eq!(failed["version"], "2", "{binding}");
    assert_eq!(failed["reason"], "RolloutAborted", "{binding}");
    let message = failed["message"].as_str().unwrap();
    assert!(message.contains("assessed Failed"), "{message}");
    argo.end().await
}

async fn an_analysis_that_cannot_measure_blames_no_version(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let argo = Argo::start(&environment, "analysis error").await;
    argo.serve_version_1(&server(), json!({"strategy": {"canary": {}}}))
        .await;
    // Nothing listens at port 1.
    let spec = with_analysis(&argo, "http://127.0.0.1:1", "true").await;
    analyze(&argo, spec).await;
    let message = argo.fixture.reports("Blocked").await;
    assert!(message.contains("retry rollout server"), "{message}");
    argo.has_pods("1", 2).await;
    let binding = argo.fixture.binding().await;
    assert_eq!(binding["status"]["heldBack"], Value::Null, "{binding}");
    let url = argo.fixture.registry.url();
    with_analysis(&argo, &url, "true").await;
    argo.set_status("kubectl-argo-rollouts", json!({"abort": false}))
        .await;
    argo.fixture.runs("2").await;
    argo.end().await
}

async fn a_persons_abort_of_a_rollout_is_waited_for(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let argo = Argo::start(&environment, "person aborts").await;
    argo.serve_version_1(&server(), with_pause()).await;
    argo.fixture.alias("2").await;
    argo.waits_at_a_pause("2").await;
    argo.set_status("kubectl-argo-rollouts", json!({"abort": true}))
        .await;
    let is_told = |binding: &Value| {
        let told = "kubectl-argo-rollouts aborted the Rollout; go on: kubectl argo rollouts retry";
        ready_message(binding).contains(told) && ready_reason(binding) == "RollingOut"
    };
    let fixture = &argo.fixture;
    fixture
        .eventually("the abort is told", &ALIAS_BINDING, "binding", is_told)
        .await;
    argo.has_pods("1", 2).await;
    let stays = |binding: &Value| {
        is_told(binding)
            && binding["status"]["heldBack"].is_null()
            && binding["status"]["running"]["version"] == "2"
    };
    let short = Duration::from_secs(4);
    fixture
        .namespace
        .stays("nobody is blamed", short, &ALIAS_BINDING, "binding", stays)
        .await;
    argo.set_status("kubectl-argo-rollouts", json!({"abort": false}))
        .await;
    argo.goes_through("2").await;
    argo.end().await
}

async fn a_persons_undo_of_a_rollout_is_held(environment: Arc<Environment>) -> ScenarioResult {
    let argo = Argo::start(&environment, "rollout undo").await;
    argo.serve_version_1(&server(), json!({"strategy": {"canary": {}}}))
        .await;
    let first = argo.rollout().await["spec"]["template"].clone();
    argo.fixture.alias("2").await;
    argo.fixture.runs("2").await;
    // As `kubectl argo rollouts undo` does.
    let patch = json!([{"op": "replace", "path": "/spec/template", "value": first}]).to_string();
    let arguments = ["patch", "rollout", "server", "--type=json", "-p", &patch];
    let manager = ["--field-manager=kubectl-argo-rollouts"];
    let namespace = &argo.fixture.namespace;
    namespace
        .kubectl(&[&arguments[..], &manager[..]].concat())
        .await
        .unwrap();
    let message = argo.fixture.reports("Held").await;
    assert!(message.contains("kubectl-argo-rollouts"), "{message}");
    argo.has_pods("1", 2).await;
    let stays = |rollout: &Value| template_version(rollout) == "1";
    let short = Duration::from_secs(4);
    namespace
        .stays(
            "the person's choice stays",
            short,
            &ROLLOUT,
            "server",
            stays,
        )
        .await;
    argo.fixture.alias("3").await;
    argo.fixture.runs("3").await;
    argo.end().await
}

async fn a_blue_green_update_waits_for_its_promotion(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let argo = Argo::start(&environment, "blue green").await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "active"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80}]}});
    argo.fixture.namespace.kubectl_apply(service).await.unwrap();
    let blue_green = json!({"activeService": "active", "autoPromotionEnabled": false});
    argo.serve_version_1(&server(), json!({"strategy": {"blueGreen": blue_green}}))
        .await;
    argo.fixture.alias("2").await;
    let binding = argo.waits_at_a_pause("2").await;
    assert!(
        ready_message(&binding).contains("BlueGreenPause"),
        "{binding}"
    );
    argo.has_pods("2", 2).await;
    argo.has_pods("1", 2).await;
    assert_eq!(binding["status"]["lastGood"]["version"], "1", "{binding}");
    argo.promote().await;
    argo.fixture.runs("2").await;
    argo.end().await
}

async fn a_version_in_a_rollout_without_replicas_is_proven_when_it_has_pods(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let argo = Argo::start(&environment, "rollout of none").await;
    let none = json!({"replicas": 0, "strategy": {"canary": {}}});
    let mut manifest = server().manifest();
    merge(&mut manifest["spec"], none);
    argo.fixture
        .namespace
        .kubectl_apply(manifest)
        .await
        .unwrap();
    argo.fixture
        .declare_binding(json!({"targetRef": server().target_ref()}))
        .await;
    argo.fixture.reports("ScaledToZero").await;
    let binding = argo.fixture.binding().await;
    assert_eq!(binding["status"]["lastGood"], Value::Null, "{binding}");
    let patch = json!({"spec": {"replicas": 2}});
    let namespace = &argo.fixture.namespace;
    namespace.patch(&ROLLOUT, "server", &patch).await.unwrap();
    argo.fixture.reports("Live").await;
    argo.has_pods("1", 2).await;
    argo.end().await
}

async fn only_the_injected_elements_of_a_rollouts_lists_are_changed(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let argo = Argo::start(&environment, "rollout lists").await;
    let env = json!([{"name": "PORT", "value": "80"}, {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "MLFLOW_TRACKING_URI", "value": "http://mine"}]);
    let mut server = server().manifest();
    // The controller of Rollouts adds empty resources where there are none.
    let containers = json!([
        {"name": "server", "image": "registry.example/server:1", "env": env, "command": ["serve"], "resources": {}},
        {"name": "proxy", "image": "registry.example/proxy:1", "env": [{"name": "MODEL_URI", "value": "its"}], "resources": {}}]);
    server["spec"]["template"]["spec"]["containers"] = containers.clone();
    server["spec"]["strategy"] = json!({"canary": {}});
    argo.fixture.namespace.kubectl_apply(server).await.unwrap();
    argo.fixture
        .declare_binding(json!({"targetRef": self::server().target_ref()}))
        .await;
    argo.fixture.runs("1").await;
    argo.fixture.alias("2").await;
    argo.fixture.runs("2").await;
    let rollout = argo.rollout().await;
    let mut found = rollout["spec"]["template"]["spec"]["containers"].clone();
    let all = found[0]["env"].as_array().unwrap().clone();
    let value = |name: &str| all.iter().find(|each| each["name"] == name).unwrap()["value"].clone();
    assert_eq!(value("MODEL_VERSION"), "2");
    assert!(
        value("MODEL_URI").as_str().unwrap().ends_with("/2"),
        "{rollout}"
    );
    found[0]["env"] = json!(all[all.len() - 3..]);
    assert_eq!(
        found, containers,
        "the user's own elements stay as they are"
    );
    argo.end().await
}

async fn a_rollout_that_takes_its_template_from_elsewhere_is_refused(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let argo = Argo::start(&environment, "workload ref").await;
    let mut deployment = Workload::deployment("shared").manifest();
    deployment["spec"]["replicas"] = json!(0);
    argo.fixture
        .namespace
        .kubectl_apply(deployment)
        .await
        .unwrap();
    let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "shared"});
    let spec = json!({"replicas": 2, "workloadRef": reference, "strategy": {"canary": {}}});
    let rollout = resources::object(&ROLLOUT, "server", &spec);
    argo.fixture.namespace.kubectl_apply(rollout).await.unwrap();
    argo.fixture
        .declare_binding(json!({"targetRef": server().target_ref()}))
        .await;
    let message = argo.fixture.reports("InvalidSpec").await;
    assert!(
        message.contains("Deployment shared (spec.workloadRef)"),
        "{message}"
    );
    argo.end().await
}

async fn a_rollout_is_not_driven_unless_it_is_switched_on(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "rollouts off").await;
    fixture.register(1).await;
    fixture.alias("1").await;
    fixture.declare().await;
    fixture
        .declare_binding(json!({"targetRef": server().target_ref()}))
        .await;
    let message = fixture.reports("InvalidSpec").await;
    assert!(message.contains("targets.rollouts=true"), "{message}");
    fixture.end().await
}

async fn rollouts_are_waited_for_until_their_definition_is_installed(
    environment: Arc<Environment>,
) -> ScenarioResult {
    // In a cluster of its own: the other scenarios have the definition in theirs.
    let fresh = Arc::new(Environment::default());
    let url = environment.mlflow(MlflowVersion::Three).await;
    let namespace = namespace(&fresh, "late rollouts").await;
    let watched = namespace.namespace().to_owned();
    let version = MlflowVersion::Three;
    let set_up = |options: &mut OperatorOptions| merge(&mut options.values, switched_on());
    let fixture = Fixture::with(&fresh, namespace, version, &url, &[&watched], set_up).await;
    let target = json!({"targetRef": server().target_ref()});
    fixture.declare_binding(target).await;
    let message = fixture.reports("KindNotInstalled").await;
    assert!(
        message.contains("argoproj.io/v1alpha1 Rollout"),
        "{message}"
    );
    let mut argo = Argo::beside(fixture).await;
    argo.fixture.reports("TargetNotFound").await;
    let steps = json!({"strategy": {"canary": {}}});
    argo.serve_version_1(&server(), steps).await;
    let still_runs = argo.fixture.operator.is_running();
    assert!(still_runs, "the operator needs no restart");
    argo.end().await
}
