//! Kustomizations with a Deployment, a registry, a model and a binding in Flux, with `wait: true`: no fights, and each state of
//! the binding is what kstatus and the Kustomization say of it.
//!
//! Absent: a `HelmRelease`; the helm-controller's module cannot be had.

use std::sync::Arc;

use pointsman_env::chart::RenderedChart;
use pointsman_env::gitops::flux::{Flux, KUSTOMIZATION};
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT};
use pointsman_env::python::MlflowVersion;
use pointsman_env::resources::with_spec;
use pointsman_env::{
    ControlPlane, ControlPlaneOptions, Operator, OperatorOptions, TestNamespace, Workload,
    manifests, resources,
};
use serde_json::{Value, json};

use crate::fixture::{
    Fixture, PATIENCE, ScenarioResult, binary, namespace, ready_reason, ready_status,
    template_version,
};
use crate::kustomization::{Delivery, kustomization, source};
use crate::waves::register;
use crate::world::{World, moves, tests};

tests!(
    a_kustomization_of_flux_is_ready_when_the_binding_is_and_nothing_fights,
    a_kustomization_of_flux_tells_failed_blocked_suspended_and_frozen_bindings_apart,
    a_version_waits_until_it_is_approved_in_the_git_of_flux,
    a_persons_undo_is_held_although_flux_takes_over_the_fields_of_kubectl,
    flux_corrects_drift_and_leaves_the_version,
    a_binding_pruned_by_flux_leaves_its_deployment_serving,
    a_kustomization_of_flux_brings_everything_when_the_definitions_are_there,
);

async fn a_kustomization_of_flux_is_ready_when_the_binding_is_and_nothing_fights(
    world: Arc<World>,
) -> ScenarioResult {
    let moves = moves();
    let (last, crashes) = ((moves + 1).to_string(), (moves + 2).to_string());
    let fixture = Fixture::new(&world.environment, "flux moves").await;
    let behavior = format!("{crashes}=crash");
    let mut delivery = Delivery::serving(&world, &fixture, moves + 2, &behavior).await;
    delivery.kubectl_waits().await;
    for version in 2..=moves + 1 {
        let version = version.to_string();
        fixture.alias(&version).await;
        delivery.serves(&version, "Live", "Current").await;
        delivery.was_written(1, &version).await;
    }
    fixture.alias(&crashes).await;
    delivery.serves(&last, "RolledBack", "Failed").await;
    delivery.reads("False", "HealthCheckFailed").await;
    delivery.was_written(2, &last).await;
    fixture.alias(&last).await;
    delivery.serves(&last, "Live", "Current").await;
    delivery.is_ready().await;
    delivery.was_written(0, &last).await;

    delivery.objects.deployment["metadata"]["labels"] = json!({"team": "taxi"});
    delivery.commit().await;
    delivery.serves(&last, "Live", "Current").await;
    delivery.was_written(0, &last).await;
    delivery.objects.binding["spec"]["pinnedVersion"] = json!("1");
    delivery.commit().await;
    delivery.serves("1", "Pinned", "Current").await;
    delivery.was_written(1, "1").await;
    let figures = delivery.was_at_peace().await;
    let (samples, not_synced, wrong) = (figures.samples, figures.not_synced, figures.wrong_health);
    println!(
        "flux: {moves} moves, fights 0, not synced {not_synced:?}, wrong health {wrong:?} in {samples} samples"
    );
    fixture.end().await
}

async fn a_kustomization_of_flux_tells_failed_blocked_suspended_and_frozen_bindings_apart(
    world: Arc<World>,
) -> ScenarioResult {
    let fixture = Fixture::new(&world.environment, "flux states").await;
    let behavior = "2=crash,3=image-pull";
    let mut delivery = Delivery::serving(&world, &fixture, 5, behavior).await;

    fixture.alias("2").await;
    delivery.serves("1", "RolledBack", "Failed").await;
    let message = delivery.reads("False", "HealthCheckFailed").await;
    assert!(message.contains("AliasBinding"), "{message}");
    let expressions = json!({"healthCheckExprs": expressions_of_the_page(), "timeout": "5s"});
    delivery.kustomize(expressions).await;
    delivery.is_ready().await;
    delivery.serves("1", "RolledBack", "Failed").await;
    delivery.was_written(2, "1").await;

    fixture.alias("3").await;
    delivery.serves("3", "Blocked", "InProgress").await;
    let message = delivery.reads("False", "HealthCheckFailed").await;
    assert!(message.contains("timeout waiting for"), "{message}");
    fixture.alias("4").await;
    delivery.serves("4", "Live", "Current").await;
    delivery.is_ready().await;

    delivery.objects.binding["spec"]["suspend"] = json!(true);
    delivery.objects.registry["spec"]["suspend"] = json!(true);
    delivery.commit().await;
    delivery.serves("4", "Suspended", "Current").await;
    delivery.kubectl_waits().await;
    delivery.objects.binding["spec"]["suspend"] = json!(false);
    delivery.objects.registry["spec"]["suspend"] = json!(false);
    delivery.objects.registry["spec"]["freeze"] = json!("quarter end");
    delivery.commit().await;
    fixture.alias("5").await;
    delivery.serves("4", "Frozen", "Current").await;
    delivery.is_ready().await;
    delivery.kubectl_waits().await;
    let spec = delivery.objects.registry["spec"].as_object_mut().unwrap();
    spec.remove("freeze");
    delivery.commit().await;
    delivery.serves("5", "Live", "Current").await;
    fixture.end().await
}

async fn a_version_waits_until_it_is_approved_in_the_git_of_flux(
    world: Arc<World>,
) -> ScenarioResult {
    let fixture = Fixture::new(&world.environment, "flux approval").await;
    let mut delivery = Delivery::serving(&world, &fixture, 2, "").await;
    delivery.objects.binding["spec"]["promotion"] = json!({"approval": "Manual"});
    delivery.commit().await;
    delivery.serves("1", "Live", "Current").await;
    fixture.alias("2").await;
    delivery.serves("1", "AwaitingApproval", "Current").await;
    delivery.is_ready().await;
    delivery.objects.binding["spec"]["promotion"]["approvedVersion"] = json!("2");
    delivery.commit().await;
    delivery.serves("2", "Live", "Current").await;
    delivery.was_written(1, "2").await;
    let binding = fixture.binding().await;
    let approval = &binding["status"]["history"][0]["approval"];
    assert_eq!(approval["approvedBy"], "kustomize-controller", "{binding}");
    assert_eq!(approval["knownBy"], "FieldManager", "{binding}");
    fixture.end().await
}

/// Flux makes the fields its own that a command of kubectl wrote, and removes those that are not in Git.
async fn a_persons_undo_is_held_although_flux_takes_over_the_fields_of_kubectl(
    world: Arc<World>,
) -> ScenarioResult {
    let fixture = Fixture::new(&world.environment, "flux undo").await;
    let mut delivery = Delivery::serving(&world, &fixture, 3, "").await;
    fixture.alias("2").await;
    delivery.serves("2", "Live", "Current").await;
    delivery.was_written(1, "2").await;

    undo(&fixture).await;
    delivery.serves("1", "Held", "Current").await;
    delivery.is_ready().await;
    delivery.is_ready().await;
    delivery.serves("1", "Held", "Current").await;
    delivery.was_written(1, "1").await;
    let deployment = fixture.deployment().await;
    assert!(!is_written_by_kubectl(&deployment));
    assert_eq!(restored_by(&deployment), "kubectl");

    let resume = [
        "annotate",
        "abind/binding",
        "pointsman.dev/resume-requested-at=1",
    ];
    fixture.namespace.kubectl(&resume).await.unwrap();
    delivery.serves("2", "Live", "Current").await;
    delivery.was_written(1, "2").await;
    delivery.is_ready().await;
    assert!(fixture.binding().await["metadata"]["annotations"].is_null());
    delivery.serves("2", "Live", "Current").await;

    undo(&fixture).await;
    delivery.serves("1", "Held", "Current").await;
    delivery.is_ready().await;
    fixture.alias("3").await;
    delivery.serves("3", "Live", "Current").await;
    delivery.is_ready().await;
    delivery.was_written(2, "3").await;
    assert_eq!(restored_by(&fixture.deployment().await), "");
    fixture.end().await
}

fn restored_by(deployment: &Value) -> &str {
    let label = &deployment["metadata"]["labels"]["pointsman.dev/restored-by"];
    label.as_str().unwrap_or_default()
}

async fn undo(fixture: &Fixture) {
    let undo = ["rollout", "undo", "deployment/server"];
    fixture.namespace.kubectl(&undo).await.unwrap();
}

fn is_written_by_kubectl(object: &Value) -> bool {
    let managers = object["metadata"]["managedFields"].as_array();
    let mut managers = managers.into_iter().flatten();
    managers.any(|entry| manifests::text(entry, "/manager").starts_with("kubectl"))
}

async fn flux_corrects_drift_and_leaves_the_version(world: Arc<World>) -> ScenarioResult {
    let fixture = Fixture::new(&world.environment, "flux drift").await;
    let mut delivery = Delivery::serving(&world, &fixture, 2, "").await;
    fixture.alias("2").await;
    delivery.serves("2", "Live", "Current").await;
    delivery.was_written(1, "2").await;

    let image = [
        "set",
        "image",
        "deployment/server",
        "server=registry.example/other:1",
    ];
    fixture.namespace.kubectl(&image).await.unwrap();
    let suspend = [
        "patch",
        "abind/binding",
        "--type=merge",
        "-p",
        r#"{"spec":{"suspend":true}}"#,
    ];
    fixture.namespace.kubectl(&suspend).await.unwrap();
    delivery.is_ready().await;
    let deployment = fixture.deployment().await;
    let image = "/spec/template/spec/containers/0/image";
    assert_eq!(
        manifests::text(&deployment, image),
        "registry.example/server:1"
    );
    delivery.serves("2", "Live", "Current").await;
    delivery.was_written(2, "2").await;

    let before = deployment["metadata"]["uid"].clone();
    delivery.kustomize(json!({"force": true})).await;
    for labels in [
        "/spec/selector/matchLabels/app",
        "/spec/template/metadata/labels/app",
    ] {
        *delivery.objects.deployment.pointer_mut(labels).unwrap() = json!("other");
    }
    delivery.commit().await;
    delivery.serves("2", "Live", "Current").await;
    delivery.is_ready().await;
    let recreated = fixture.deployment().await;
    assert_ne!(recreated["metadata"]["uid"], before, "it is another object");
    assert_eq!(template_version(&recreated), "2");
    assert_eq!(
        recreated["metadata"]["generation"], 2,
        "created, and given its version"
    );
    fixture.end().await
}

async fn a_binding_pruned_by_flux_leaves_its_deployment_serving(
    world: Arc<World>,
) -> ScenarioResult {
    let fixture = Fixture::new(&world.environment, "flux prune").await;
    let mut delivery = Delivery::serving(&world, &fixture, 2, "").await;
    fixture.alias("2").await;
    delivery.serves("2", "Live", "Current").await;
    delivery.was_written(1, "2").await;

    let [others @ .., _binding] = delivery.objects.all();
    delivery.commit_only(&others).await;
    let is_gone = |binding: &Value| binding.is_null();
    fixture
        .eventually("Flux pruned it", &ALIAS_BINDING, "binding", is_gone)
        .await;
    delivery.is_ready().await;
    delivery.was_written(0, "2").await;
    let serves = |deployment: &Value| {
        let status = &deployment["status"];
        status["availableReplicas"] == 2 && status["updatedReplicas"] == 2
    };
    fixture
        .eventually("it serves", &DEPLOYMENT, "server", serves)
        .await;

    delivery.commit().await;
    delivery.serves("2", "Live", "Current").await;
    delivery.was_written(0, "2").await;
    fixture.end().await
}

/// Flux runs on the shared control plane, and deploys to one that has nothing.
async fn a_kustomization_of_flux_brings_everything_when_the_definitions_are_there(
    world: Arc<World>,
) -> ScenarioResult {
    const NAME: &str = "flux-dependency";
    let tools = &world.environment.cluster().await.tools;
    let flux = world.flux().await;
    let control = namespace(&world.environment, NAME).await;
    for log in flux.logs() {
        control.report_log(log);
    }
    let fresh = ControlPlane::start(tools, ControlPlaneOptions::default()).await;
    let fresh = Arc::new(fresh.unwrap());
    let url = world.environment.mlflow(MlflowVersion::Three).await;
    register(NAME, &url).await;
    let remote = TestNamespace::start(&fresh, NAME).await.unwrap();
    let options = OperatorOptions::watching(binary(), NAME, &[remote.namespace()]);
    let mut operator = Operator::start_unready(&fresh, tools, &options)
        .await
        .unwrap();
    remote.report_log(std::path::Path::new(&operator.log_file()));

    let secret = Flux::remote(NAME, &fresh).await.unwrap();
    control.apply_object(&secret).await.unwrap();
    // The other control plane ends with the test, and its objects with it.
    let there = json!({
        "kubeConfig": {"secretRef": {"name": NAME}}, "deletionPolicy": "Orphan",
    });
    let application = [
        resources::model_registry(&url),
        resources::registered_model("model", NAME),
        Workload::deployment("server").manifest(),
        resources::alias_binding("binding", "model", "server"),
    ];
    let values = json!({"crds": {"enabled": true}});
    let chart = RenderedChart::render(tools, NAME, "default", &values).await;
    let chart = chart.unwrap();
    let definitions: Vec<Value> = chart.of_kind("CustomResourceDefinition").cloned().collect();

    let mut behind = there.clone();
    behind["dependsOn"] = json!([{"name": "definitions"}]);
    behind["healthCheckExprs"] = expressions_of_the_page();
    let delivery = Remote {
        world: &world,
        control: &control,
        namespace: &remote,
    };
    delivery.add("app", &application, behind).await;
    let waits = |kustomization: &Value| ready_reason(kustomization) == "DependencyNotReady";
    control
        .eventually("it waits", PATIENCE, &KUSTOMIZATION, "app", waits)
        .await;
    delivery.add("definitions", &definitions, there).await;
    let is_ready = |kustomization: &Value| ready_status(kustomization) == "True";
    control
        .eventually("it is ready", PATIENCE, &KUSTOMIZATION, "app", is_ready)
        .await;
    let binding = remote.get(&ALIAS_BINDING, "binding").await.unwrap();
    assert_eq!(binding["status"]["running"]["version"], "1");
    assert_eq!(ready_status(&binding), "True");
    operator.await_ready().await.unwrap();
    operator.stop().unwrap();
    control.end().await.map_err(|error| error.to_string())
}

/// A namespace of another control plane, with Flux's objects in a namespace of Flux's own.
struct Remote<'a> {
    world: &'a World,
    control: &'a TestNamespace,
    namespace: &'a TestNamespace,
}

impl Remote<'_> {
    /// Commits objects into a repository of their own, and adds a Kustomization for it with these members of the spec.
    async fn add(&self, name: &str, objects: &[Value], members: Value) {
        let repository = format!("{}-{name}", self.control.namespace());
        let repository = self.world.repository(&repository).await;
        repository.commit(objects, name).await.unwrap();
        let kustomization = with_spec(kustomization(name, self.namespace), members);
        for object in [source(name, &repository), kustomization] {
            self.control.apply_object(&object).await.unwrap();
        }
    }
}

/// The expressions that docs/flux.md gives.
fn expressions_of_the_page() -> Value {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/flux.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut blocks = page
        .split("```yaml\n")
        .filter_map(|text| text.split_once("```"));
    let (block, _) = blocks
        .find(|(block, _)| block.contains("healthCheckExprs"))
        .unwrap();
    let objects = manifests::parse(block).unwrap();
    objects[0]["spec"]["healthCheckExprs"].clone()
}
