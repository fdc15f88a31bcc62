//! Many models, Deployments and bindings created at once → all rolled out; beside a plain client that creates the same objects.
//!
//! The plain client's Deployments contain the variables already, and no operator runs. Both have a fresh control plane of the same
//! kind, the same number of creates in flight, and end with the same objects. A Deployment that exists before its binding is
//! rolled out twice by the operator (without the variables, then with them) and once by the plain client.
//!
//! Absent: artifact requests. The operator cannot check the sources; see `SOURCE`.

use std::time::{Duration, Instant};

use pointsman_env::{Kind, kinds};
use serde_json::{Value, json};

use crate::durations::{Durations, Unit, megabytes, ratio_figure};
use crate::environment::{
    Environment, SOURCE, binding, deployment, model, owning_binding, registry,
};
use crate::object_counter::{ObjectCounter, READY};
use crate::object_set::ObjectSet;
use crate::plain_client::{PlainClient, run_all};
use crate::report::Measurement;

/// The number of models of the goal.
pub const OBJECTS: usize = 10_000;
const PREFIX: &str = "created";
const RATIO_GOAL: f64 = 2.0;
const CONCURRENT_CREATES: usize = 32;
/// Text of a Deployment whose only pod is available.
const AVAILABLE: &str = r#""availableReplicas":1"#;
/// Rollouts on two cores take longer than creates.
const ROLLOUT_FACTOR: u32 = 4;

/// Who creates the Deployments beside the operator.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Deployments {
    /// The client, before or after the binding.
    Existing,
    /// The operator, from the template of the binding.
    FromTemplates,
}

impl Deployments {
    fn description(self) -> &'static str {
        match self {
            Self::Existing => "models, Deployments and bindings",
            Self::FromTemplates => "models and bindings with a template",
        }
    }

    fn binding(self, name: &str) -> Value {
        match self {
            Self::Existing => binding(name),
            Self::FromTemplates => owning_binding(name),
        }
    }
}

pub async fn measure(deployments: Deployments, count: usize) -> Vec<Measurement> {
    let floor = floor(deployments, count).await;
    eprintln!("  plain client: {floor:.2?}");
    let (rolled_out, memory) = with_operator(deployments, count).await;
    let created = format!("{count} {} created at once", deployments.description());
    let (floor, rolled_out) = (Durations::of(vec![floor]), Durations::of(vec![rolled_out]));
    let (ratio, figure) = ratio_figure(&rolled_out, &floor);
    vec![
        Measurement::new(
            format!("{created} → last binding ready"),
            rolled_out.median_figure(Unit::Seconds),
        )
        .documented(),
        Measurement::new(
            format!(
                "floor: a plain client's {created}, with the variables → last Deployment available"
            ),
            floor.median_figure(Unit::Seconds),
        )
        .documented(),
        Measurement::new(
            format!("{created}, as a multiple of the floor"),
            figure.value,
        )
        .with_goal("≤ 2.0", ratio <= RATIO_GOAL),
        Measurement::new(
            format!("resident memory after {created}"),
            megabytes(memory),
        ),
    ]
}

/// A plain client creates everything, with the variables, and no operator runs.
async fn floor(deployments: Deployments, count: usize) -> Duration {
    let environment = Environment::at_scale().await;
    let objects = ObjectSet::new(&environment, PREFIX, count).await;
    let url = environment.mlflow.url();
    create_registry(&objects, &url).await;
    let (namespace, kind) = (&objects.namespace, &kinds::DEPLOYMENT);
    let mut available = ObjectCounter::start(namespace, kind, AVAILABLE).await;
    let task = objects.task("Deployments of a plain client");
    let started = Instant::now();
    let create = create_all(&objects, |name| {
        vec![
            (&kinds::REGISTERED_MODEL, model(name)),
            (&kinds::DEPLOYMENT, deployment_with_variables(name, &url)),
            (&kinds::ALIAS_BINDING, deployments.binding(name)),
        ]
    });
    let timeout = objects.timeout() * ROLLOUT_FACTOR;
    let ((), last) = tokio::join!(create, available.wait_for(count, &task, timeout));
    task.done();
    environment.end().await;
    last - started
}

/// A plain client creates everything but the variables, and the operator does the rest.
async fn with_operator(deployments: Deployments, count: usize) -> (Duration, u64) {
    let environment = Environment::at_scale().await;
    environment.register(PREFIX, count).await;
    let objects = ObjectSet::new(&environment, PREFIX, count).await;
    let mut operator = environment.operator(&objects.namespace, PREFIX, None).await;
    create_registry(&objects, &environment.mlflow.url()).await;
    let (namespace, kind) = (&objects.namespace, &kinds::ALIAS_BINDING);
    let mut ready = ObjectCounter::start(namespace, kind, READY).await;
    let task = objects.task("bindings ready");
    let started = Instant::now();
    let create = create_all(&objects, |name| {
        let mut created = vec![
            (&kinds::REGISTERED_MODEL, model(name)),
            (&kinds::ALIAS_BINDING, deployments.binding(name)),
        ];
        if deployments == Deployments::Existing {
            created.insert(1, (&kinds::DEPLOYMENT, deployment(name)));
        }
        created
    });
    let timeout = objects.timeout() * ROLLOUT_FACTOR;
    let ((), last) = tokio::join!(create, ready.wait_for(count, &task, timeout));
    task.done();
    let memory = operator.resident_bytes().unwrap();
    operator.stop().unwrap();
    environment.end().await;
    (last - started, memory)
}

async fn create_registry(objects: &ObjectSet, url: &str) {
    let registry = registry(url, "30s");
    objects
        .namespace
        .create(&kinds::MODEL_REGISTRY, &registry)
        .await
        .unwrap();
}

/// Creates the objects of all names, those of one name after the other.
async fn create_all(objects: &ObjectSet, of: impl Fn(&str) -> Vec<(&'static Kind, Value)>) {
    let client = PlainClient::new(&objects.namespace);
    let creates = objects.names().map(|name| {
        let (client, created) = (&client, of(&name));
        async move {
            for (kind, object) in created {
                client.create(kind, &object).await;
            }
        }
    });
    run_all(creates, CONCURRENT_CREATES).await;
}

/// The Deployment that the operator leaves behind for version 1.
fn deployment_with_variables(name: &str, registry: &str) -> Value {
    let mut deployment = deployment(name);
    let variables = [
        ("MODEL_NAME", name.to_owned()),
        ("MODEL_VERSION", "1".to_owned()),
        ("MODEL_ALIAS", "champion".to_owned()),
        (
            "MODEL_URI",
            SOURCE.replace("{name}", name).replace("{version}", "1"),
        ),
        ("MLFLOW_MODEL_URI", format!("models:/{name}/1")),
        ("MLFLOW_TRACKING_URI", registry.to_owned()),
    ];
    let template = &mut deployment["spec"]["template"];
    template["spec"]["containers"][0]["env"] = variables
        .into_iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    template["metadata"]["annotations"] = json!({"pointsman.dev/model-version": "1"});
    template["metadata"]["labels"]["pointsman.dev/binding"] = json!(name);
    deployment
}
