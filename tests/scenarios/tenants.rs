//! Between tenants: what a namespace can do with a registry whose owner lets it write, read, or nothing at all.
//!
//! Absent: load. The scenarios of `process` and the benchmarks measure what one tenant can cost the others.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::TestNamespace;
use pointsman_env::kinds::{MODEL_REGISTRY, REGISTERED_MODEL};
use pointsman_env::resources::{self, with_spec};
use serde_json::{Value, json};

use crate::fixture::{
    CANARY, Environment, Fixture, PATIENCE, ScenarioResult, condition, env, ready_message,
    scenarios,
};

scenarios!(
    a_namespace_that_may_only_read_a_registry_changes_nothing_in_it,
    only_the_model_that_an_object_created_is_deleted_with_it,
    a_namespace_without_access_to_a_registry_reaches_nothing_of_it,
    a_namespace_that_loses_the_label_of_the_selector_loses_access_within_an_interval,
    a_signed_source_reaches_pods_whole_and_is_shown_without_its_signature,
);

/// A guest's fixture, whose operator watches the namespace of a registry `shared` too.
struct Shared {
    owner: TestNamespace,
    guest: Fixture,
}

impl Shared {
    async fn new(environment: &Arc<Environment>, name: &str) -> Self {
        let (owner, guest) = (format!("{name} owner"), format!("{name} guest"));
        let (guest, owner) = Fixture::beside_another(environment, &guest, &owner).await;
        Self { owner, guest }
    }

    /// Declares the registry with these allowed namespaces.
    async fn allow(&self, allowed: Value) {
        let spec = json!({"mlflow": {"uri": self.guest.registry.url()}, "interval": "1s", "allowedNamespaces": allowed,
            "writeBack": {"deploymentTags": true}});
        let registry = resources::object(&MODEL_REGISTRY, "shared", &spec);
        self.owner.apply_object(&registry).await.unwrap();
    }

    /// Declares the guest's model with these members of its spec.
    async fn declare(&self, more: Value) {
        let mut spec =
            json!({"registryRef": {"name": "shared", "namespace": self.owner.namespace()}});
        resources::merge(&mut spec, more);
        self.guest.declare_model(spec).await;
    }

    async fn watched_models(&self, count: u32) {
        let description = format!("{count} models are polled");
        let holds = |registry: &Value| registry["status"]["watchedModels"] == count;
        self.owner
            .eventually(&description, PATIENCE, &MODEL_REGISTRY, "shared", holds)
            .await;
    }

    /// The requests since a mark that name the guest's model.
    fn requests_for_guest(&self, mark: usize) -> Vec<String> {
        let requests = self.guest.registry.since(mark).into_iter();
        let texts = requests
            .map(|request| format!("{} {}", request.path, request.query.unwrap_or_default()));
        texts
            .filter(|text| text.contains(&self.guest.model))
            .collect()
    }

    async fn delete_model_object(&self) {
        let guest = &self.guest.namespace;
        guest.delete(&REGISTERED_MODEL, "model").await.unwrap();
        self.guest
            .eventually(
                "the object goes",
                &REGISTERED_MODEL,
                "model",
                Value::is_null,
            )
            .await;
    }

    async fn end(self) -> ScenarioResult {
        self.owner.end().await.map_err(|error| error.to_string())?;
        self.guest.end().await
    }
}

async fn a_namespace_that_may_only_read_a_registry_changes_nothing_in_it(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let shared = Shared::new(&environment, "read only").await;
    let guest = &shared.guest;
    guest.register(2).await;
    guest.alias("1").await;
    shared.allow(json!({"from": "All"})).await;
    let mark = guest.registry.mark();
    let change = json!({"creationPolicy": "Create", "description": "mine", "tags": {"owner": "guest"},
        "aliases": [{"name": "champion", "version": "2"}], "deletionPolicy": "Delete"});
    shared.declare(change).await;
    let message = guest.model_reports("RegistryReadOnly").await;
    let remedy = message.split_once("; ").expect("a remedy").1.to_owned();
    // It is observed all the same, and its alias followed.
    guest.bind(json!({})).await;
    guest.runs("1").await;
    guest.alias("2").await;
    guest.runs("2").await;
    let model = guest
        .namespace
        .get(&REGISTERED_MODEL, "model")
        .await
        .unwrap();
    assert_eq!(condition(&model, "Stalled")["status"], "True", "{model}");
    assert!(model["metadata"]["finalizers"].is_null(), "{model}");
    shared.delete_model_object().await;
    let missing = format!("{}-missing", guest.model);
    let absent = resources::registered_model("absent", &missing);
    let named = json!({"creationPolicy": "Create", "registryRef": {"name": "shared", "namespace": shared.owner.namespace()}});
    guest.apply_object(with_spec(absent, named)).await;
    let says = |model: &Value| ready_message(model).contains("may only read it");
    guest
        .eventually("no model is created", &REGISTERED_MODEL, "absent", says)
        .await;
    guest.polled_twice().await;
    let writes = guest.registry.writes_since(mark);
    assert!(writes.is_empty(), "{writes:?}");
    let kept = guest.client.get_model(&guest.model).await.unwrap();
    assert_eq!(
        kept["description"].as_str().unwrap_or_default(),
        "",
        "{kept}"
    );
    assert!(guest.client.get_model(&missing).await.is_err());
    remedy_works(&shared, &remedy).await;
    shared.end().await
}

/// The command of the message makes the object one that only observes.
async fn remedy_works(shared: &Shared, remedy: &str) {
    shared
        .declare(
            json!({"creationPolicy": "Create", "description": "mine", "tags": {"owner": "guest"},
            "aliases": [{"name": "champion", "version": "2"}], "deletionPolicy": "Delete"}),
        )
        .await;
    shared.guest.model_reports("RegistryReadOnly").await;
    let (words, patch) = remedy.split_once(" -p '").expect("a patch");
    let mut arguments: Vec<&str> = words.split(' ').skip(1).collect();
    arguments.extend(["-p", patch.trim_end_matches('\'')]);
    shared.guest.namespace.kubectl(&arguments).await.unwrap();
    shared.guest.model_reports("Mirrored").await;
}

async fn only_the_model_that_an_object_created_is_deleted_with_it(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let shared = Shared::new(&environment, "own model").await;
    let guest = &shared.guest;
    shared
        .allow(json!({"from": "All", "access": "Write"}))
        .await;
    let delete = json!({"creationPolicy": "Create", "deletionPolicy": "Delete"});
    shared.declare(delete.clone()).await;
    let owned = |model: &Value| model["status"]["ownedModelCreatedAt"].is_string();
    guest
        .eventually("it is created", &REGISTERED_MODEL, "model", owned)
        .await;
    shared.delete_model_object().await;
    let gone = guest.client.get_model(&guest.model).await;
    gone.expect_err("it is deleted with the object that created it");

    // One that was there before stays.
    guest.register(1).await;
    shared.declare(delete.clone()).await;
    let message = guest.model_reports("Mirrored").await;
    assert!(message.contains("Delete has no effect"), "{message}");
    shared.delete_model_object().await;
    guest
        .client
        .get_model(&guest.model)
        .await
        .expect("it stays");
    left_behind(guest, "it was not created by this object").await;

    // So does one that others created under the same name.
    guest.client.delete_model(&guest.model).await.unwrap();
    shared.declare(delete).await;
    guest
        .eventually("it is created", &REGISTERED_MODEL, "model", owned)
        .await;
    guest.operator.freeze().unwrap();
    guest.client.delete_model(&guest.model).await.unwrap();
    guest.register(1).await;
    guest
        .namespace
        .delete(&REGISTERED_MODEL, "model")
        .await
        .unwrap();
    guest.operator.thaw().unwrap();
    guest
        .eventually(
            "the object goes",
            &REGISTERED_MODEL,
            "model",
            Value::is_null,
        )
        .await;
    guest
        .client
        .get_model(&guest.model)
        .await
        .expect("it stays");
    shared.end().await
}

/// An Event says that the registered model stays, and why.
async fn left_behind(guest: &Fixture, why: &str) {
    let found = async {
        loop {
            let events = guest.namespace.events_about("model").await.unwrap();
            let is_it = |(reason, note): &(String, String)| {
                reason == "ModelLeftBehind" && note.contains(why)
            };
            if events.iter().any(is_it) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.unwrap_or_else(|_| panic!("no Event says {why}"));
}

async fn a_namespace_without_access_to_a_registry_reaches_nothing_of_it(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let shared = Shared::new(&environment, "no access").await;
    let guest = &shared.guest;
    guest.register(2).await;
    guest.alias("1").await;
    shared.allow(json!({"from": "All"})).await;
    shared.declare(json!({})).await;
    guest.bind(json!({})).await;
    guest.runs("1").await;
    shared.watched_models(1).await;
    // The owner withdraws the access: that acts at once.
    shared.allow(json!({"from": "Same"})).await;
    guest.model_reports("RegistryNotAllowed").await;
    shared.watched_models(0).await;
    let mark = guest.registry.mark();
    guest.alias("2").await;
    guest.polled_twice().await;
    assert_eq!(shared.requests_for_guest(mark), Vec::<String>::new());
    let binding = guest.binding().await;
    assert_eq!(binding["status"]["running"]["version"], "1", "{binding}");
    let tags = guest.client.version_tags(&guest.model, "1").await.unwrap();
    assert!(!tags.to_string().contains("pointsman.dev/"), "{tags}");
    shared.allow(json!({"from": "All"})).await;
    guest.runs("2").await;
    shared.end().await
}

async fn a_namespace_that_loses_the_label_of_the_selector_loses_access_within_an_interval(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let shared = Shared::new(&environment, "selector").await;
    let guest = &shared.guest;
    guest.register(1).await;
    let label = async |value: &str| {
        let name = guest.namespace.namespace();
        let value = format!("team={value}");
        let arguments = ["label", "--overwrite", "namespace", name, &value];
        guest.namespace.kubectl(&arguments).await.unwrap();
    };
    let selector = json!({"from": "Selector", "selector": {"matchLabels": {"team": "fares"}}});
    shared.allow(selector).await;
    shared.declare(json!({})).await;
    guest.model_reports("RegistryNotAllowed").await;
    shared.watched_models(0).await;
    label("fares").await;
    guest.model_reports("Mirrored").await;
    shared.watched_models(1).await;
    label("other").await;
    guest.model_reports("RegistryNotAllowed").await;
    shared.watched_models(0).await;
    shared.end().await
}

async fn a_signed_source_reaches_pods_whole_and_is_shown_without_its_signature(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "signed sources").await;
    // MLflow itself refuses sources with the scheme https.
    let sources = [
        "wasbs://models@acct.blob.core.windows.net/m?sv=2026&sig=hunter2-1".to_owned(),
        "wasbs://models@acct.blob.core.windows.net/n?sig=hunter2-2".to_owned(),
        "s3://hunter2-3:key@models/m".to_owned(),
    ];
    let (model, client) = (&fixture.model, &fixture.client);
    client.create_registered_model(model).await.unwrap();
    for source in &sources {
        client.create_model_version(model, source).await.unwrap();
    }
    fixture.alias("1").await;
    fixture
        .declare_registry(json!({"writeBack": {"deploymentTags": true}}))
        .await;
    fixture.declare_model(json!({})).await;
    fixture.bind(json!({})).await;
    fixture.runs("1").await;
    let first = fixture.deployment().await;
    assert_eq!(env(&first, 0, "MODEL_URI").as_ref(), Some(&sources[0]));
    fixture.alias("2").await;
    fixture.runs("2").await;
    let second = fixture.deployment().await;
    assert_eq!(env(&second, 0, "MODEL_URI").as_ref(), Some(&sources[1]));
    fixture.alias("3").await;
    let message = fixture.reports("ArtifactUnavailable").await;
    assert!(message.contains("user, password or token"), "{message}");
    // Without the registry the pod template of before has the query.
    fixture.registry.refuse().await;
    fixture.declare_binding(json!({"pinnedVersion": "1"})).await;
    fixture.runs("1").await;
    let back = fixture.deployment().await;
    assert_eq!(back["spec"]["template"], first["spec"]["template"]);
    let binding = fixture.binding().await;
    let running = &binding["status"]["running"]["artifactURI"];
    assert_eq!(running, "wasbs://models@acct.blob.core.windows.net/m");
    fixture.registry.accept_again().await.unwrap();
    fixture.polled_twice().await;
    no_tag_shows(&fixture, CANARY).await;
    fixture.end().await
}

/// No tag of these versions holds this text.
async fn no_tag_shows(fixture: &Fixture, secret: &str) {
    for version in ["1", "2", "3"] {
        let tags = fixture.client.version_tags(&fixture.model, version);
        let tags = tags.await.unwrap().to_string();
        assert!(!tags.contains(secret), "{tags}");
    }
}
