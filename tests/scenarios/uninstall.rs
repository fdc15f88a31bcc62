//! The operator is gone before its objects: the hook of `helm uninstall` lets them go.
//!
//! Absent: Helm and pods. `tests/node` uninstalls a release whose hook runs in a pod.

use std::sync::Arc;

use pointsman_env::kinds::REGISTERED_MODEL;
use pointsman_env::resources::{self, with_spec};
use serde_json::{Value, json};

use crate::fixture::{Environment, Fixture, ScenarioResult, ready_reason, scenarios};

scenarios!(nothing_hangs_when_the_operator_is_gone_before_its_objects);

async fn nothing_hangs_when_the_operator_is_gone_before_its_objects(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "uninstalled").await;
    fixture.declare_registry(json!({})).await;
    // A model that goes with its object, which therefore has a finalizer.
    let model = resources::registered_model("model", &format!("{}-owned", fixture.model));
    let owned = json!({"creationPolicy": "Create", "deletionPolicy": "Delete"});
    fixture.apply_object(with_spec(model, owned)).await;
    let is_held = |model: &Value| {
        model["metadata"]["finalizers"].is_array() && ready_reason(model) == "Mirrored"
    };
    fixture
        .eventually("it has a finalizer", &REGISTERED_MODEL, "model", is_held)
        .await;
    fixture.operator.stop().unwrap();
    let own = &fixture.namespace;
    own.delete(&REGISTERED_MODEL, "model").await.unwrap();
    let model = own.get(&REGISTERED_MODEL, "model").await.unwrap();
    let deleted = &model["metadata"]["deletionTimestamp"];
    assert!(deleted.is_string(), "it hangs: {model}");
    let released = fixture.run_uninstall_hook(&environment).await;
    let line = format!("RegisteredModel/model -n {}", own.namespace());
    assert!(released.contains(&line), "{released}");
    let gone = own.find(&REGISTERED_MODEL, "model").await.unwrap();
    assert_eq!(gone, None, "the object stays");
    let again = fixture.run_uninstall_hook(&environment).await;
    assert_eq!(again, "", "nothing is left to release");
    fixture.operator.start_again().await.unwrap();
    fixture.end().await
}
