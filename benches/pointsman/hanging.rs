//! A version that crashes while the registry and the artifact store accept requests and never respond → Deployment patched back.
//!
//! Absent: a store that refuses. It responds, so it is no slower than one that works.

use std::time::Duration;

use pointsman_env::interceptor::{Fault, Interceptor, matching};
use pointsman_env::progress::Task;
use pointsman_env::{Operator, TestNamespace, Workload, kinds};
use serde_json::json;

use crate::durations::{Durations, Unit};
use crate::environment::{Environment, apply, binding, model, registry, wait_until_runs};
use crate::failures::has_crossed_the_limit;
use crate::observers::{DeploymentObserver, first_in_state};
use crate::report::Measurement;

const GOAL: Duration = Duration::from_secs(5);
/// The good versions; the next one crashes.
const CANDIDATES: usize = 9;
const PREFIX: &str = "hanging";
/// Files behind the MLflow server's own proxy, so that one server is both registry and store.
const SOURCE: &str = "mlflow-artifacts:/bench/{name}/{version}";

/// The servers and the operator that all failures share.
struct HangingFixture {
    namespace: TestNamespace,
    operator: Operator,
    mlflow: Interceptor,
}

impl HangingFixture {
    async fn start(environment: &Environment, models: usize) -> Self {
        let versions = CANDIDATES + 1;
        let database = environment.mlflow.database();
        let registrar = &environment.registrar;
        let seeded = registrar.seed_versions_from(&database, PREFIX, 0..models, versions, SOURCE);
        seeded.await.unwrap();
        for number in 0..models {
            for version in 1..=versions {
                let files = format!("bench/{}/{version}", name_of(number));
                let folder = environment.mlflow.artifacts().join(files);
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join("MLmodel"), "flavors: {}\n").unwrap();
            }
        }
        let mlflow = Interceptor::start(&environment.mlflow.url(), None)
            .await
            .unwrap();
        let namespace = environment.namespace(PREFIX).await;
        let operator = environment.operator(&namespace, PREFIX, None).await;
        apply(&namespace, [registry(&mlflow.url(), "1h")]).await;
        Self {
            namespace,
            operator,
            mlflow,
        }
    }

    async fn move_alias(&self, environment: &Environment, name: &str, version: usize) {
        let version = version.to_string();
        let registrar = &environment.registrar;
        let moved = registrar.set_alias(name, "champion", &version);
        moved.await.unwrap();
        let annotations = json!({"pointsman.dev/requested-at": version});
        let patch = json!({"metadata": {"annotations": annotations}});
        let patched = self.namespace.patch(&kinds::REGISTERED_MODEL, name, &patch);
        patched.await.unwrap();
    }

    /// From the crash that crosses the limit to the Deployment seen patched back, with nine candidates that nobody knows.
    async fn crash(&self, environment: &Environment, number: usize) -> Duration {
        let (name, failing) = (name_of(number), CANDIDATES + 1);
        let plain = Workload {
            replicas: 1,
            ..Workload::deployment(&name)
        };
        let deployment = plain.with_behavior(&format!("{failing}=crash")).manifest();
        apply(&self.namespace, [model(&name), deployment, binding(&name)]).await;
        wait_until_runs(&self.namespace, &name, "1").await;
        for version in 2..=CANDIDATES {
            self.move_alias(environment, &name, version).await;
            wait_until_runs(&self.namespace, &name, &version.to_string()).await;
        }
        let mut observer = DeploymentObserver::new(&self.namespace, &name);
        let is_crashed = has_crossed_the_limit(&failing.to_string(), &name);
        let crashed = first_in_state(&self.namespace, &kinds::POD, is_crashed);
        self.move_alias(environment, &name, failing).await;
        observer.wait_for_version(&failing.to_string()).await;
        let hang = Fault::Slow(Duration::from_secs(3600));
        self.mlflow.inject(matching::everything(), hang, None);
        let crashed = crashed.await.unwrap();
        let patched = observer.wait_for_version(&CANDIDATES.to_string()).await;
        self.mlflow.clear();
        patched.saturating_duration_since(crashed)
    }
}

fn name_of(number: usize) -> String {
    format!("{PREFIX}-{number:05}")
}

/// Failures of so many models, one after the other.
pub async fn measure(environment: &Environment, failures: usize) -> Vec<Measurement> {
    let mut fixture = HangingFixture::start(environment, failures).await;
    let task = Task::start(&format!("{failures} failures"), failures as u64);
    let mut times = Vec::new();
    for number in 0..failures {
        times.push(fixture.crash(environment, number).await);
        task.advance();
    }
    task.done();
    fixture.operator.stop().unwrap();
    fixture.namespace.end().await.unwrap();
    let times = Durations::of(times);
    let name = format!(
        "crash beyond the limit, registry and store hang, {CANDIDATES} candidates → Deployment patched back"
    );
    vec![
        Measurement::new(name, times.max_figure(Unit::Seconds))
            .with_goal("max ≤ 5 s", times.max() <= GOAL)
            .of_runs(times.count()),
    ]
}
