//! Between tenants: work of one namespace that takes long delays no other namespace.
//!
//! Absent: memory (`hostile`), rights (`tenants`), and figures (`make bench`).

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use pointsman_env::TestNamespace;
use pointsman_env::Workload;
use pointsman_env::hostile::{HostileRegistry, Response};
use pointsman_env::kinds::{ALIAS_BINDING, MODEL_REGISTRY, REGISTERED_MODEL};
use pointsman_env::resources::{self, with_spec};
use serde_json::{Value, json};

use crate::fixture::{Environment, Fixture, ScenarioResult, ready_message, scenarios};
use crate::process::wait_for_metric;

scenarios!(slow_registries_and_a_dead_bucket_of_one_tenant_delay_no_move_of_another);

/// Slow registries of the hostile tenant: more than are reconciled at the same time in all.
const REGISTRIES: usize = 80;
/// Its bindings whose files are in a bucket that does not answer.
const BINDINGS: usize = 60;
/// Far less than one response of a slow registry takes for each that could be before it in a line.
const SOON: Duration = Duration::from_secs(20);

/// Declares slow registries, and a model of each.
async fn declare_slow_registries(tenant: &TestNamespace) -> Vec<HostileRegistry> {
    let mut registries = Vec::new();
    for number in 0..REGISTRIES {
        let registry = HostileRegistry::start(Response::SlowPages).await.unwrap();
        let name = format!("slow-{number}");
        let spec = json!({"mlflow": {"uri": registry.url()}, "interval": "1s"});
        let object = resources::object(&MODEL_REGISTRY, &name, &spec);
        tenant.apply_object(&object).await.unwrap();
        let spec = json!({"registryRef": {"name": name}, "modelName": "absent"});
        let object = resources::object(&REGISTERED_MODEL, &name, &spec);
        tenant.apply_object(&object).await.unwrap();
        registries.push(registry);
    }
    registries
}

/// Declares bindings of one model, each with an alias of its own, whose files are in a bucket that does not answer.
async fn bind_to_a_dead_bucket(fixture: &Fixture, tenant: &TestNamespace, bucket: &str) {
    let model = tenant.namespace();
    fixture
        .register_as(model, u32::try_from(BINDINGS).unwrap())
        .await;
    let aliases = (1..=BINDINGS).map(|number| async move {
        let (alias, version) = (format!("a{number}"), number.to_string());
        fixture.client.set_alias(model, &alias, &version).await
    });
    for aliased in join_all(aliases).await {
        aliased.unwrap();
    }
    let keys = json!({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": bucket, "AWS_ALLOW_HTTP": "true"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store"}, "stringData": keys});
    tenant.kubectl_apply(secret).await.unwrap();
    let registry = with_spec(
        resources::model_registry(&fixture.registry.url()),
        json!({"artifacts": {"secretRef": {"name": "store"}}}),
    );
    tenant.apply_object(&registry).await.unwrap();
    let object = resources::registered_model("model", model);
    tenant.apply_object(&object).await.unwrap();
    for number in 1..=BINDINGS {
        let name = format!("server-{number}");
        let server = Workload::deployment(&name).manifest();
        tenant.kubectl_apply(server).await.unwrap();
        let binding = resources::alias_binding(&format!("b{number}"), "model", &name);
        let binding = with_spec(binding, json!({"alias": format!("a{number}")}));
        tenant.apply_object(&binding).await.unwrap();
    }
}

async fn slow_registries_and_a_dead_bucket_of_one_tenant_delay_no_move_of_another(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let (own, hostile) = ("quick tenant", "slow tenant");
    let (fixture, hostile) = Fixture::beside_another(&environment, own, hostile).await;
    fixture.serve_version_1().await;
    let bucket = HostileRegistry::start(Response::SlowPages).await.unwrap();
    bind_to_a_dead_bucket(&fixture, &hostile, &bucket.url()).await;
    let registries = declare_slow_registries(&hostile).await;
    let waits = |binding: &Value| {
        ready_message(binding).contains("waits for other artifact checks of namespace")
    };
    let last = format!("b{BINDINGS}");
    hostile
        .eventually("a limit is told", SOON * 3, &ALIAS_BINDING, &last, waits)
        .await;
    for version in ["2", "1", "2"] {
        fixture.moves_within(SOON, version).await;
    }
    fixture.runs("2").await;
    let asked = registries.iter().filter(|registry| registry.requests() > 0);
    assert!(
        asked.count() > 1,
        "the slow registries are polled meanwhile"
    );
    for limit in ["ModelRegistry", "ArtifactChecks", "Polls"] {
        let namespace = hostile.namespace();
        let labels = format!("{{namespace=\"{namespace}\",limit=\"{limit}\"}}");
        wait_for_metric(
            &fixture,
            &format!("pointsman_namespace_limited_total{labels}"),
        )
        .await;
    }
    hostile.end().await.map_err(|error| error.to_string())?;
    fixture.end().await
}
