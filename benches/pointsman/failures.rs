//! A version whose pods crash more often than allowed → Deployment patched back.
//!
//! Absent: real crashes, and the kubelet's back-off between them; tests/node has them.

use pointsman_env::progress::Task;
use pointsman_env::{Operator, TestNamespace, Workload, kinds};
use serde_json::{Value, json};
use std::time::Duration;

use crate::durations::{Durations, Unit};
use crate::environment::{
    Environment, TIMEOUT, apply, binding, has_condition, model, registry, wait_until_runs,
};
use crate::observers::{DeploymentObserver, first_in_state};
use crate::report::Measurement;

const GOAL: Duration = Duration::from_secs(2);
/// The default of `spec.rollback.maxRestarts`.
const MAX_RESTARTS: i64 = 3;

struct FailureFixture {
    namespace: TestNamespace,
    operator: Operator,
    deployment: DeploymentObserver,
    name: String,
}

impl FailureFixture {
    /// One bound model that runs version 1, and whose version 2 crashes.
    async fn start(environment: &Environment) -> Self {
        environment.register("failing", 1).await;
        let namespace = environment.namespace("failing").await;
        let operator = environment.operator(&namespace, "failing", None).await;
        let name = "failing-00000".to_owned();
        let plain = Workload {
            replicas: 1,
            ..Workload::deployment(&name)
        };
        let objects = [
            registry(&environment.mlflow.url(), "1h"),
            model(&name),
            plain.with_behavior("2=crash").manifest(),
            binding(&name),
        ];
        apply(&namespace, objects).await;
        wait_until_runs(&namespace, &name, "1").await;
        let deployment = DeploymentObserver::new(&namespace, &name);
        Self {
            namespace,
            operator,
            deployment,
            name,
        }
    }

    async fn move_alias(&self, environment: &Environment, version: &str, request: &str) {
        environment
            .registrar
            .set_alias(&self.name, "champion", version)
            .await
            .unwrap();
        let annotations = json!({"pointsman.dev/requested-at": request});
        let patch = json!({"metadata": {"annotations": annotations}});
        self.namespace
            .patch(&kinds::REGISTERED_MODEL, &self.name, &patch)
            .await
            .unwrap();
    }

    /// From the crash that crosses the limit to the Deployment seen patched back.
    async fn crash(&mut self, environment: &Environment, number: usize) -> Duration {
        let is_crashed = has_crossed_the_limit("2", &self.name);
        let crashed = first_in_state(&self.namespace, &kinds::POD, is_crashed);
        self.move_alias(environment, "2", &format!("{number}-forward"))
            .await;
        self.deployment.wait_for_version("2").await;
        let crashed = crashed.await.unwrap();
        let patched = self.deployment.wait_for_version("1").await;
        self.wait_until_rolled_back().await;
        patched.saturating_duration_since(crashed)
    }

    async fn wait_until_rolled_back(&self) {
        let is_rolled_back = |binding: &Value| {
            has_condition(binding, |condition| {
                condition["type"] == "Stalled" && condition["reason"] == "RolledBack"
            })
        };
        self.namespace
            .eventually(
                "it is rolled back",
                TIMEOUT,
                &kinds::ALIAS_BINDING,
                &self.name,
                is_rolled_back,
            )
            .await;
    }
}

/// Failures with their rollbacks; after each the alias is moved back to the running version.
pub async fn measure(environment: &Environment, failures: usize) -> Vec<Measurement> {
    let mut fixture = FailureFixture::start(environment).await;
    let task = Task::start(&format!("{failures} failures"), failures as u64);
    let mut times = Vec::new();
    for number in 0..failures {
        times.push(fixture.crash(environment, number).await);
        fixture
            .move_alias(environment, "1", &format!("{number}-back"))
            .await;
        wait_until_runs(&fixture.namespace, &fixture.name, "1").await;
        task.advance();
    }
    task.done();
    fixture.operator.stop().unwrap();
    fixture.namespace.end().await.unwrap();
    let times = Durations::of(times);
    let name = "crash beyond the limit → Deployment patched back";
    vec![
        Measurement::new(name, times.max_figure(Unit::Milliseconds))
            .with_goal("max ≤ 2 s", times.max() <= GOAL)
            .of_runs(times.count()),
    ]
}

/// Whether a pod of this version of a Deployment has restarted as often as is allowed.
pub fn has_crossed_the_limit(version: &str, deployment: &str) -> impl Fn(&Value) -> bool + use<> {
    let (version, deployment) = (version.to_owned(), deployment.to_owned());
    move |pod| {
        let metadata = &pod["metadata"];
        let is_observed = metadata["annotations"]["pointsman.dev/model-version"]
            == version.as_str()
            && metadata["labels"]["app"] == deployment.as_str()
            && metadata["deletionTimestamp"].is_null();
        let has_restarted =
            |container: &Value| container["restartCount"].as_i64() >= Some(MAX_RESTARTS);
        let containers = pod["status"]["containerStatuses"].as_array();
        is_observed && containers.is_some_and(|containers| containers.iter().any(has_restarted))
    }
}
