use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;
use crate::api::names;
use crate::api::registered_model::MirroredAlias;
use crate::controllers::model::uri_reader::{moved_uris, resolved_versions};
use crate::controllers::registry::state::uri_rechecks::Recheck;
use crate::http::hostile::{HostileServer, Reply};
use crate::registries::memory::MemoryRegistry;
use crate::registries::{Connection, RequestMetrics, Server};

/// A model of a registry in this process, with the state that the controller has of the registry.
struct Fixture {
    memory: MemoryRegistry,
    client: RegistryClient,
    registry: ModelRegistry,
    access: Access,
    state: RegistryState,
    model: RegisteredModel,
}

impl Fixture {
    fn new(spec: &Value) -> Self {
        let memory = MemoryRegistry::default();
        let connection = Connection::new(Server::Memory(memory.clone()));
        let registry = json!({"mlflow": {"uri": "http://mlflow:5000"}});
        let registry = serde_json::from_value(registry).expect("a spec");
        let spec = serde_json::from_value(spec.clone()).expect("a spec");
        Self {
            memory,
            client: RegistryClient::connect(connection, RequestMetrics::default())
                .expect("a client"),
            registry: ModelRegistry::new("mlflow", registry),
            access: Access::Write,
            state: RegistryState::default(),
            model: RegisteredModel::new("taxi", spec),
        }
    }

    async fn reconcile(&self) -> Result<Mirror, Problem> {
        let reconcile = ModelReconcile {
            own: ObjectKey::new("ml", "taxi"),
            model: &self.model,
            registry: &self.registry,
            access: self.access,
            state: &self.state,
            client: self.client.clone(),
            bindings: Vec::new(),
        };
        reconcile.run().await
    }

    /// Reconciles, and keeps the status.
    async fn mirror(&mut self) -> Mirror {
        let Ok(mirror) = self.reconcile().await else {
            panic!("the model is mirrored");
        };
        self.model.status = Some(mirror.status.clone());
        mirror
    }
}

fn spec() -> Value {
    json!({"registryRef": {"name": "mlflow"}})
}

fn champion(version: &str) -> Value {
    let aliases = json!([{"name": "champion", "version": version}]);
    json!({"registryRef": {"name": "mlflow"}, "aliases": aliases})
}

#[tokio::test]
async fn a_declared_alias_is_set_and_mirrored() {
    let mut fixture = Fixture::new(&champion("1"));
    fixture.memory.register("taxi", "s3://models/1");
    let mirror = fixture.mirror().await;
    assert!(mirror.problem.is_none());
    assert_eq!(mirror.status.aliases[0].version, "1");
    let uri = mirror.status.versions[0].artifact_uri.as_deref();
    assert_eq!(uri, Some("s3://models/1"));
}

#[tokio::test]
async fn an_alias_of_a_missing_version_is_a_problem_beside_the_mirror() {
    let mut fixture = Fixture::new(&champion("7"));
    fixture.memory.register("taxi", "s3://models/1");
    let mirror = fixture.mirror().await;
    let problem = mirror.problem.expect("a problem");
    assert_eq!(problem.reason, Reason::VersionNotFound);
    assert_eq!(mirror.status.latest_version.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_model_that_is_observed_is_not_created() {
    let mut spec = spec();
    spec["creationPolicy"] = json!("Observe");
    let outcome = Fixture::new(&spec).reconcile().await;
    let reason = outcome.err().map(|problem| problem.reason);
    assert_eq!(reason, Some(Reason::ModelNotFound));
}

#[tokio::test]
async fn a_namespace_that_may_only_read_mirrors_and_changes_nothing() {
    let mut fixture = Fixture::new(&champion("2"));
    fixture.access = Access::Read;
    fixture.memory.register("taxi", "s3://models/1");
    fixture.memory.register("taxi", "s3://models/2");
    let mirror = fixture.mirror().await;
    let problem = mirror.problem.expect("a problem");
    assert_eq!(problem.reason, Reason::RegistryReadOnly);
    let remedy = r#"kubectl patch rmodel taxi -n ml --type merge -p '{"spec":{"creationPolicy":"Observe","aliases":null}}'"#;
    assert!(problem.message.ends_with(remedy), "{}", problem.message);
    assert!(problem.message.chars().count() <= 200);
    assert!(mirror.status.aliases.is_empty(), "the alias was not set");
    assert_eq!(mirror.status.latest_version.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_namespace_that_may_only_read_creates_no_model() {
    let mut fixture = Fixture::new(&spec());
    fixture.access = Access::Read;
    let problem = fixture.reconcile().await.err().expect("a problem");
    assert_eq!(problem.reason, Reason::ModelNotFound);
    assert!(problem.message.contains("namespace ml may only read it"));
}

#[tokio::test]
async fn a_cached_snapshot_is_used_until_it_lacks_a_mirrored_alias() {
    let mut fixture = Fixture::new(&spec());
    fixture.memory.register("taxi", "s3://models/1");
    fixture.mirror().await;
    fixture.memory.register("taxi", "s3://models/2");
    let cached = fixture.mirror().await;
    assert_eq!(cached.status.latest_version.as_deref(), Some("1"));
    let alias = MirroredAlias {
        name: "champion".to_owned(),
        version: "1".to_owned(),
        since: Time(Timestamp::UNIX_EPOCH),
    };
    let status = fixture.model.status.as_mut().expect("a status");
    status.aliases.push(alias);
    let requested = fixture.mirror().await;
    assert_eq!(requested.status.latest_version.as_deref(), Some("2"));
    assert!(
        requested.status.aliases.is_empty(),
        "it is gone for certain"
    );
}

#[tokio::test]
async fn the_size_of_a_new_version_is_set_when_it_was_read() {
    let mut fixture = Fixture::new(&spec());
    fixture.memory.register("taxi", "s3://models/1");
    let published = fixture.mirror().await;
    assert_eq!(published.status.versions[0].size_bytes, None);
    assert!(
        fixture.state.sizes.begin(Instant::now()),
        "it is to be read"
    );
    let taxi = ObjectKey::new("ml", "taxi");
    fixture.state.sizes.record_read(&taxi, "s3://models/1", 58);
    let sized = fixture.mirror().await;
    assert_eq!(sized.status.versions[0].size_bytes, Some(58));
    fixture.mirror().await;
    assert!(
        fixture.state.sizes.read(&taxi).is_empty(),
        "it is published"
    );
}

#[tokio::test]
async fn a_moved_artifact_is_followed_and_a_request_for_it_is_left_for_after_the_move() {
    let mut fixture = Fixture::new(&champion("1"));
    fixture.memory.register("taxi", "s3://old/1");
    fixture.memory.register("taxi", "s3://old/2");
    fixture.mirror().await;
    let uris = |mirror: &Mirror| -> Vec<String> {
        let versions = mirror.status.versions.iter();
        versions
            .map(|version| version.artifact_uri.clone().unwrap_or_default())
            .collect()
    };
    fixture.memory.move_files("taxi", 1, "s3://new/1");
    let versions = resolved_versions(&fixture.model, &fixture.client);
    let moved = moved_uris(&fixture.client, "taxi", &versions).await;
    assert_eq!(moved.len(), 1, "version 2 is where it was");
    assert_eq!(uris(&fixture.mirror().await), ["s3://old/2", "s3://old/1"]);
    let taxi = ObjectKey::new("ml", "taxi");
    fixture.state.rechecks.record_moved(&taxi, moved);
    for _ in 0..2 {
        assert_eq!(uris(&fixture.mirror().await), ["s3://old/2", "s3://new/1"]);
    }
    assert!(fixture.state.rechecks.moved(&taxi).is_empty());
    let request = (names::REQUESTED_AT_ANNOTATION, "now");
    let annotations = [(request.0.to_owned(), request.1.to_owned())];
    fixture.model.metadata.annotations = Some(annotations.into());
    fixture.mirror().await;
    assert_eq!(fixture.state.rechecks.take(), Some((taxi, Recheck::All)));
}

#[tokio::test]
async fn all_versions_that_bindings_follow_are_mirrored_and_their_details_as_far_as_they_fit() {
    let mut fixture = Fixture::new(&spec());
    let aliases = (1..=40).map(|number: usize| {
        let version = number.to_string();
        json!({"name": format!("tenant-{number}"), "version": version})
    });
    let mut many = spec();
    many["aliases"] = aliases.collect();
    for number in 1..=40 {
        fixture
            .memory
            .register("taxi", &format!("s3://models/{number}"));
    }
    fixture.model.spec = serde_json::from_value(many).expect("a spec");
    let mirror = fixture.mirror().await;
    assert_eq!(mirror.status.versions.len(), 40);
    let status = fixture.model.status.as_mut().expect("a status");
    for version in &mut status.versions {
        let text = ("text".to_owned(), "x".repeat(50_000));
        version.parameters.extend([text]);
    }
    let mirror = fixture.mirror().await;
    assert_eq!(mirror.status.versions.len(), 40);
    assert!(mirror.problem.is_none());
    let size = serde_json::to_vec(&mirror.status).expect("JSON").len();
    assert!((1_000_000..1_250_000).contains(&size), "{size}");
    let again = fixture.mirror().await;
    assert_eq!(
        again.status.versions, mirror.status.versions,
        "it is stable"
    );
}

#[tokio::test]
async fn parameters_are_mirrored_unless_the_registrys_owner_says_no() {
    let mut fixture = Fixture::new(&spec());
    fixture.memory.register("taxi", "s3://models/1");
    fixture.mirror().await;
    let status = fixture.model.status.as_mut().expect("a status");
    let alpha = ("alpha".to_owned(), "0.1".to_owned());
    status.versions[0].parameters = [alpha].into();
    let kept = fixture.mirror().await;
    assert_eq!(kept.status.versions[0].parameters.len(), 1);
    fixture.registry.spec.mirror.parameters = false;
    let without = fixture.mirror().await;
    assert!(without.status.versions[0].parameters.is_empty());
}

/// A fixture whose registry is a scripted MLflow server; `reply` gets the head of each request.
async fn scripted(
    spec: &Value,
    reply: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static,
) -> (Fixture, HostileServer) {
    let server = HostileServer::start(move |_, head| {
        let model = json!({"name": "taxi", "aliases": [{"alias": "beta", "version": "1"}]});
        let found = json!({"registered_model": model}).to_string();
        reply(head).unwrap_or_else(|| match head {
            head if head.contains("registered-models/get?") => Reply::json("200 OK", &found),
            head if head.contains("model-versions/get?") => {
                Reply::json("404 Gone", r#"{"error_code": "RESOURCE_DOES_NOT_EXIST"}"#)
            }
            _ => Reply::json("200 OK", "{}"),
        })
    });
    let server = server.await.expect("a server");
    _ = rustls::crypto::ring::default_provider().install_default();
    let mut fixture = Fixture::new(spec);
    let connection = Connection::mlflow(server.uri.clone());
    fixture.client =
        RegistryClient::connect(connection, RequestMetrics::default()).expect("a client");
    (fixture, server)
}

fn refusal(status: &str, message: &str) -> Reply {
    let body = json!({"error_code": "INVALID_PARAMETER_VALUE", "message": message});
    Reply::json(status, &body.to_string())
}

#[tokio::test]
async fn a_refused_tag_or_description_is_told_and_aliases_are_set_all_the_same() {
    let mut spec = champion("1");
    spec["tags"] = json!({"creator": "kamal", "problem": "x"});
    spec["description"] = json!("fares");
    let (mut fixture, server) = scripted(&spec, |head| {
        let is_refused = head.contains("set-tag") || head.starts_with("PATCH");
        is_refused.then(|| refusal("400 Bad Request", "too long"))
    })
    .await;
    let mirror = fixture.mirror().await;
    let problem = mirror.problem.expect("a problem");
    assert_eq!(problem.reason, Reason::RegistryRefused);
    let message = &problem.message;
    assert!(
        message.starts_with("the description cannot be set"),
        "{message}"
    );
    let heads = server.heads();
    let posts = |path: &str| {
        let wanted = format!("POST /api/2.0/mlflow/registered-models/{path} ");
        heads
            .iter()
            .filter(|head| head.starts_with(&wanted))
            .count()
    };
    assert_eq!((posts("set-tag"), posts("alias")), (2, 1), "{heads:?}");
    assert_eq!(mirror.status.aliases[0].name, "beta");
}

#[tokio::test]
async fn a_missing_permission_is_named_and_is_no_outage() {
    for (spec, what) in [
        (champion("1"), "alias champion"),
        (
            json!({"registryRef": {"name": "mlflow"}, "tags": {"a": "b"}}),
            "tag a",
        ),
    ] {
        let (mut fixture, _server) = scripted(&spec, |head| {
            let denied = Reply::typed("403 Forbidden", "text/plain", "Permission denied");
            head.starts_with("POST").then_some(denied)
        })
        .await;
        let mirror = fixture.mirror().await;
        let problem = mirror.problem.expect("a problem");
        assert_eq!(problem.reason, Reason::RegistryRefused);
        let message = &problem.message;
        assert!(message.contains(&format!("set {what}")), "{message}");
        assert!(
            message.contains("grant that user the permission EDIT"),
            "{message}"
        );
        assert_eq!(mirror.status.aliases[0].name, "beta");
    }
}

#[tokio::test]
async fn a_model_that_may_not_be_read_before_it_exists_is_created() {
    let is_created = Arc::new(AtomicBool::new(false));
    let created = Arc::clone(&is_created);
    let (mut fixture, _server) = scripted(&spec(), move |head| {
        if head.contains("/create ") {
            created.store(true, Ordering::Relaxed);
            let model = json!({"registered_model": {"name": "taxi", "creation_timestamp": 7000}});
            return Some(Reply::json("200 OK", &model.to_string()));
        }
        let denied = Reply::typed("403 Forbidden", "text/plain", "Permission denied");
        (!created.load(Ordering::Relaxed)).then_some(denied)
    })
    .await;
    let mirror = fixture.mirror().await;
    assert!(is_created.load(Ordering::Relaxed));
    assert!(mirror.status.owned_model_created_at.is_some());
}

#[tokio::test]
async fn a_model_that_exists_and_may_not_be_read_is_refused() {
    let (fixture, _server) = scripted(&spec(), |head| {
        Some(if head.contains("/create ") {
            let body = r#"{"error_code": "RESOURCE_ALREADY_EXISTS"}"#;
            Reply::json("400 Bad Request", body)
        } else {
            Reply::typed("403 Forbidden", "text/plain", "Permission denied")
        })
    })
    .await;
    let problem = fixture.reconcile().await.err().expect("a problem");
    assert_eq!(problem.reason, Reason::RegistryRefused);
    assert!(problem.message.contains("403"), "{}", problem.message);
}
