//! The objects of an application in Git, and what the cluster says of them, whatever tool deploys them.
//!
//! Absent: the tools.

use pointsman_env::Workload;
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, Kind, MODEL_REGISTRY, REGISTERED_MODEL};
use pointsman_env::manifests::readable;
use pointsman_env::resources;
use serde_json::Value;

use crate::fixture::{Fixture, ready_reason, template_version};

/// Kinds and names of the objects in Git.
pub const KINDS: [(&Kind, &str); 4] = [
    (&DEPLOYMENT, "server"),
    (&MODEL_REGISTRY, resources::REGISTRY),
    (&REGISTERED_MODEL, "model"),
    (&ALIAS_BINDING, "binding"),
];

/// The objects in Git, each of which a test may change before it commits them.
#[derive(Clone, Debug)]
pub struct Objects {
    pub deployment: Value,
    pub registry: Value,
    pub model: Value,
    pub binding: Value,
}

impl Objects {
    pub fn of(fixture: &Fixture, workload: &Workload) -> Self {
        Self {
            deployment: workload.manifest(),
            registry: resources::model_registry(&fixture.registry.url()),
            model: resources::registered_model("model", &fixture.model),
            binding: resources::alias_binding("binding", "model", "server"),
        }
    }

    pub fn all(&self) -> [Value; 4] {
        [&self.registry, &self.model, &self.deployment, &self.binding].map(Clone::clone)
    }
}

/// Waits until the binding runs this version for this reason, and is as described otherwise; returns it.
pub async fn binding_serves(
    fixture: &Fixture,
    version: &str,
    reason: &str,
    holds: impl Fn(&Value) -> bool,
) -> Value {
    let description = format!("version {version} runs, and the reason is {reason}");
    let holds = |binding: &Value| {
        binding["status"]["running"]["version"] == version
            && ready_reason(binding) == reason
            && binding["status"]["observedGeneration"] == binding["metadata"]["generation"]
            && holds(binding)
    };
    fixture
        .eventually(&description, &ALIAS_BINDING, "binding", holds)
        .await
}

/// Counts the writes to the Deployment's spec, by anybody, in its generation.
#[derive(Default)]
pub struct Writes(i64);

impl Writes {
    pub async fn from_now(fixture: &Fixture) -> Self {
        Self(generation(&fixture.deployment().await))
    }

    /// The Deployment was written so often since the last call, and holds this version now.
    pub async fn were(&mut self, times: i64, version: &str, fixture: &Fixture) {
        let deployment = fixture.deployment().await;
        let generation = generation(&deployment);
        assert_eq!(
            (generation - self.0, template_version(&deployment)),
            (times, version),
            "a fight costs further writes\n{}",
            readable(&deployment)
        );
        self.0 = generation;
    }
}

fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"]
        .as_i64()
        .unwrap_or_default()
}
