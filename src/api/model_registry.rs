//! `ModelRegistry`: the address of an MLflow registry, how to connect to it, and the namespaces that may use it.
//!
//! Absent: credentials. The spec names the Secrets that hold them.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::core::{Selector, SelectorExt};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::parse_duration;
use super::schema;

/// An MLflow Model Registry and how to connect to it.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "pointsman.dev",
    version = "v1alpha1",
    kind = "ModelRegistry",
    plural = "modelregistries",
    namespaced,
    shortname = "mreg",
    category = "pointsman",
    status = "ModelRegistryStatus",
    derive = "PartialEq",
    cel,
    doc = "An MLflow Model Registry: its address, how to connect to it, and the namespaces that may use it.",
    printcolumn(name = "URI", type_ = "string", json_path = ".spec.mlflow.uri"),
    printcolumn(name = "Interval", type_ = "string", json_path = ".spec.interval"),
    printcolumn(
        name = "Models",
        type_ = "integer",
        json_path = ".status.watchedModels"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(validation = Rule::new("has(self.mlflow)").message("spec names no registry: set spec.mlflow.uri, such as http://mlflow.mlflow.svc:5000"))]
#[serde(rename_all = "camelCase")]
pub struct ModelRegistrySpec {
    /// The MLflow server. Exactly one kind of registry must be set; this is the only one today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mlflow: Option<MlflowServer>,
    /// The credentials for the MLflow server. Default: none are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!(has(self.basic) && has(self.bearer))").message("auth takes one kind of credentials: set auth.basic or auth.bearer, not both"))]
    #[x_kube(validation = Rule::new("has(self.basic) || has(self.bearer)").message("auth is empty: set auth.basic or auth.bearer, or leave auth out"))]
    pub auth: Option<Auth>,
    /// The certificates for https to the MLflow server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("has(self.caConfigMapRef) || has(self.clientCertificateSecretRef)").message("tls is empty: set tls.caConfigMapRef or tls.clientCertificateSecretRef, or leave tls out"))]
    pub tls: Option<Tls>,
    /// How to check artifacts in stores that are not behind the MLflow server's own proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("has(self.secretRef) || has(self.caConfigMapRef)").message("artifacts is empty: set artifacts.secretRef or artifacts.caConfigMapRef, or leave artifacts out"))]
    pub artifacts: Option<Artifacts>,
    /// The data that Pointsman writes into the registry.
    #[serde(default)]
    pub write_back: WriteBack,
    /// The data of versions that Pointsman copies into the status of RegisteredModels.
    #[serde(default)]
    pub mirror: MirrorSpec,
    /// The time between two polls of the registry, as a duration in h, m, s and ms, such as 30s or 1m30s. From 1s to 24h;
    /// default: 30s.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("interval must lie between 1s and 24h, written in h, m, s and ms without fractions, such as 30s or 1m30s"))]
    pub interval: String,
    /// True: send no request to the registry. The versions that were resolved last stay in force. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// While set, no version goes forward in the workloads that follow this registry; the text is the reason, such as "quarter
    /// end, CHG-4711". Rollbacks, pinned versions and retries that a person asks for are not held. At most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub freeze: Option<String>,
    /// The webhook by which MLflow announces moves, so that they are seen at once. Polling continues in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.mode != 'Managed' || has(self.url)").message("webhook.mode Managed needs webhook.url: the receiver's base address as MLflow reaches it, such as http://pointsman-webhook.pointsman.svc:8443"))]
    #[x_kube(validation = Rule::new("self.mode == 'Disabled' || has(self.secretRef)").message("webhook.mode Managed and External need webhook.secretRef: the Secret that signs deliveries, such as {name: mlflow-webhook}"))]
    pub webhook: Option<WebhookSpec>,
    /// The namespaces whose RegisteredModels may use this registry.
    #[serde(default)]
    #[x_kube(validation = Rule::new("(self.from == 'Selector') == has(self.selector)").message("allowedNamespaces.selector goes with from: Selector, and only with it"))]
    pub allowed_namespaces: AllowedNamespaces,
}

/// The time between two polls if the spec names none, or none that can be read.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);

impl ModelRegistrySpec {
    /// The address of the registry's server. Empty if the spec has no server; admission refuses such a spec.
    #[must_use]
    pub fn address(&self) -> &str {
        match &self.mlflow {
            Some(server) => &server.uri,
            None => "",
        }
    }

    /// The address that pods get.
    #[must_use]
    pub fn pod_address(&self) -> &str {
        let server = self.mlflow.as_ref();
        let own = server.and_then(|server| server.pod_uri.as_deref());
        own.unwrap_or_else(|| self.address())
    }

    /// The workspace that pods get.
    #[must_use]
    pub fn workspace(&self) -> Option<&str> {
        self.mlflow.as_ref()?.workspace.as_deref()
    }
}

fn default_interval() -> String {
    "30s".to_owned()
}

/// The address of an MLflow server.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MlflowServer {
    /// The server's base address, such as http://mlflow.mlflow.svc:5000. At most 2048 characters.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/]+')").message("mlflow.uri must begin with http:// or https:// and name a host, such as http://mlflow.mlflow.svc:5000"))]
    #[x_kube(validation = Rule::new("!self.matches('^[a-z]+://[^/]*@')").message("mlflow.uri must hold no user or password: put them into a Secret and name it in spec.auth.basic.secretRef"))]
    #[x_kube(validation = Rule::new("!self.contains('?') && !self.contains('#')").message("mlflow.uri must hold no query (?) and no fragment (#)"))]
    pub uri: String,
    /// The address that pods get as MLFLOW_TRACKING_URI, if they reach the server by another one. Default: uri.
    #[serde(default, rename = "podURI", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/]+')").message("mlflow.podURI must begin with http:// or https:// and name a host, such as https://mlflow.example.com"))]
    #[x_kube(validation = Rule::new("!self.matches('^[a-z]+://[^/]*@')").message("mlflow.podURI must hold no user or password: pods read MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"))]
    #[x_kube(validation = Rule::new("!self.contains('?') && !self.contains('#')").message("mlflow.podURI must hold no query (?) and no fragment (#)"))]
    pub pod_uri: Option<String>,
    /// The workspace that holds the models, if the server has workspaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub workspace: Option<String>,
    /// A Secret in this namespace whose keys are names of headers that every request to the server carries, such as those that
    /// an access proxy before it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_secret_ref: Option<NameReference>,
}

/// The data that Pointsman writes into the registry.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteBack {
    /// True: each version in a binding's history gets the tag pointsman.dev/<cluster>/<namespace>/<binding> with its outcome
    /// and the time, so that MLflow's own UI shows where a version runs and where it failed. Default: false.
    #[serde(default)]
    pub deployment_tags: bool,
}

/// The data of versions that Pointsman copies into the cluster.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MirrorSpec {
    /// False: the hyperparameters of runs are not copied, and retrain Jobs get none. Parameters whose names look like secrets
    /// are never copied. Versions that are mirrored while it is false keep no parameters afterwards. Default: true.
    #[serde(default = "yes")]
    pub parameters: bool,
}

impl Default for MirrorSpec {
    fn default() -> Self {
        Self { parameters: true }
    }
}

fn yes() -> bool {
    true
}

/// How to check artifacts in their stores.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifacts {
    /// A Secret in this namespace whose keys are the environment variables that S3, GCS and Azure clients read, such as
    /// AWS_ACCESS_KEY_ID, GOOGLE_SERVICE_ACCOUNT_KEY or AZURE_STORAGE_CONNECTION_STRING. It is used only to check whether
    /// artifacts can be read. Default: the operator's own identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameReference>,
    /// A ConfigMap in this namespace with the certificates (PEM) of the authorities to trust on https to stores. They replace
    /// the well-known ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<ConfigMapKeyReference>,
}

/// One kind of credentials.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// User name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
    /// A bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<BearerAuth>,
}

/// User name and password from a Secret.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// A Secret in this namespace with the keys `username` and `password`.
    pub secret_ref: NameReference,
}

/// A bearer token from a Secret.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BearerAuth {
    /// A Secret in this namespace and the key that holds the token.
    pub secret_ref: SecretKeyReference,
}

/// An object in the same namespace.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NameReference {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A key of a Secret in the same namespace.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key. Default: token.
    #[serde(default = "default_token_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_token_key() -> String {
    "token".to_owned()
}

/// The certificates for https to the MLflow server.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// A ConfigMap in this namespace with the certificates (PEM) of the authorities to trust. They replace the well-known ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<ConfigMapKeyReference>,
    /// A Secret in this namespace with the keys tls.crt and tls.key (PEM), as cert-manager writes it: the certificate by which
    /// Pointsman identifies itself to the server. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<NameReference>,
}

/// A key of a `ConfigMap` in the same namespace.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyReference {
    /// The ConfigMap's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key. Default: ca.crt.
    #[serde(default = "default_ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_ca_key() -> String {
    "ca.crt".to_owned()
}

/// The webhook of a registry.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSpec {
    /// Managed: Pointsman registers the webhook in MLflow and repairs it. External: you register it, and deliveries are
    /// accepted. Disabled: no delivery is accepted. Default: Disabled.
    #[serde(default)]
    pub mode: WebhookMode,
    /// Required with Managed: the receiver's base address as MLflow reaches it, such as
    /// http://pointsman-webhook.pointsman.svc:8443. The path /webhooks/<namespace>/<name> is appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/]+')").message("webhook.url must begin with http:// or https:// and name a host, such as http://pointsman-webhook.pointsman.svc:8443"))]
    #[x_kube(validation = Rule::new("!self.matches('^[a-z]+://[^/]*@')").message("webhook.url must hold no user or password: deliveries are signed with the Secret in webhook.secretRef"))]
    #[x_kube(validation = Rule::new("!self.contains('?') && !self.contains('#')").message("webhook.url must hold no query (?) and no fragment (#)"))]
    pub url: Option<String>,
    /// A Secret in this namespace and the key that holds the secret that signs deliveries. Required with Managed and External.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<WebhookSecretReference>,
}

/// The way in which a webhook is registered.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum WebhookMode {
    /// Pointsman registers it in MLflow and repairs it.
    Managed,
    /// A person registers it; deliveries are accepted.
    External,
    /// Nothing is registered, and no delivery is accepted.
    #[default]
    Disabled,
}

/// A key of a Secret in the same namespace.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSecretReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key. Default: secret.
    #[serde(default = "default_secret_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_secret_key() -> String {
    "secret".to_owned()
}

/// The namespaces that may use a registry, as in Gateway API's allowedRoutes.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedNamespaces {
    /// Same: this namespace only. All: every namespace. Selector: namespaces whose labels match selector. Default: Same.
    #[serde(default)]
    pub from: AllowedFrom,
    /// The labels of the namespaces. Required with from: Selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub selector: Option<LabelSelector>,
    /// What the allowed namespaces may do. Read: observe models. Write: also create models, declare their aliases, tags and
    /// descriptions, delete models that they created, and have deployment tags written. This namespace always has Write.
    /// Default: Read.
    #[serde(default)]
    pub access: Access,
}

/// What a namespace may do with a registry.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum Access {
    /// Observe models.
    #[default]
    Read,
    /// Also change them.
    Write,
}

/// The set of namespaces that may use a registry.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum AllowedFrom {
    /// This namespace only.
    #[default]
    Same,
    /// Every namespace.
    All,
    /// Namespaces whose labels match.
    Selector,
}

/// The observed state of a registry.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))] // one writer: managedFields hold one entry for the status
#[serde(rename_all = "camelCase")]
pub struct ModelRegistryStatus {
    /// The generation of the spec that this status was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The number of registered models that are polled in this registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched_models: Option<i32>,
    /// MLflow's version, as the server reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// The webhook that is registered in MLflow with spec.webhook.mode Managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<RegisteredWebhook>,
    /// The conditions Ready, Reconciling and Stalled, WebhookReady if spec.webhook enables webhooks, TagsWritten if a tag
    /// of spec.writeBack cannot be written, and those of other controllers.
    #[serde(default)]
    #[schemars(schema_with = "schema::keyed_by_type::<Condition>")]
    pub conditions: Vec<Condition>,
}

/// A webhook that is registered in MLflow.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisteredWebhook {
    /// The webhook's id in MLflow.
    pub id: String,
    /// The address that MLflow delivers to.
    pub url: String,
    /// The MLflow server that the webhook is registered in: the value of spec.mlflow.uri at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

impl ModelRegistry {
    /// The time between two polls, at least one second; 30 seconds if the text is no duration, which admission refuses.
    #[must_use]
    pub fn interval(&self) -> Duration {
        parse_duration(&self.spec.interval)
            .unwrap_or(DEFAULT_INTERVAL)
            .max(Duration::from_secs(1))
    }

    /// The access of a namespace with these labels; `None` if it has none. The labels count with `from: Selector`.
    #[must_use]
    pub fn access(
        &self,
        namespace: &str,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Option<Access> {
        if self.metadata.namespace.as_deref() == Some(namespace) {
            return Some(Access::Write);
        }
        let allowed = &self.spec.allowed_namespaces;
        let is_allowed = match allowed.from {
            AllowedFrom::Same => false,
            AllowedFrom::All => true,
            AllowedFrom::Selector => {
                let selector = allowed.selector.clone().map(Selector::try_from);
                match (selector, labels) {
                    (Some(Ok(selector)), Some(labels)) => selector.matches(labels),
                    _ => false,
                }
            }
        };
        is_allowed.then_some(allowed.access)
    }

    /// The way in which this registry's webhook is registered.
    #[must_use]
    pub fn webhook_mode(&self) -> WebhookMode {
        self.spec
            .webhook
            .as_ref()
            .map(|webhook| webhook.mode)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn registry(interval: &str) -> ModelRegistry {
        with(json!({"interval": interval}))
    }

    fn with(more: Value) -> ModelRegistry {
        let mut spec = json!({"mlflow": {"uri": "http://mlflow:5000"}});
        for (key, value) in more.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        serde_json::from_value(json!({
            "apiVersion": "pointsman.dev/v1alpha1", "kind": "ModelRegistry", "metadata": {"name": "mlflow"}, "spec": spec}))
        .expect("a registry")
    }

    #[test]
    fn every_interval_that_admission_accepts_is_parsed_as_kubernetes_does() {
        for (text, seconds) in [
            ("30s", 30.0),
            ("30s1m", 90.0),
            ("1m30s", 90.0),
            ("1500ms", 1.5),
            ("1h30m", 5400.0),
            ("24h", 86400.0),
            ("1s1s1s1s", 4.0),
        ] {
            assert!(registry(text).validate_cel().is_ok(), "{text} was refused");
            assert_eq!(
                registry(text).interval(),
                Duration::from_secs_f64(seconds),
                "{text}"
            );
        }
    }

    #[test]
    fn an_interval_that_is_no_duration_or_out_of_range_is_refused() {
        for text in [
            "",
            "0",
            "30",
            "s",
            "1d",
            "1.5m",
            "-30s",
            "+30s",
            "30s ",
            "1us",
            "500ms",
            "25h",
            "100000s",
            "1s1s1s1s1s",
            "99999h99999h",
            "thirty seconds",
        ] {
            assert!(
                registry(text).validate_cel().is_err(),
                "{text} was accepted"
            );
        }
    }

    #[test]
    fn an_interval_that_cannot_be_read_means_thirty_seconds() {
        for text in [
            "",
            "soon",
            "-5s",
            "99999999999999999999999h",
            "1e400h",
            "nans",
        ] {
            assert_eq!(
                registry(text).interval(),
                Duration::from_secs(30),
                "{text:?}"
            );
        }
        assert_eq!(registry("1ms").interval(), Duration::from_secs(1));
    }

    #[test]
    fn only_the_registrys_own_namespace_may_write_unless_the_owner_says_so() {
        let labels = BTreeMap::from([("team".to_owned(), "fares".to_owned())]);
        let access = |allowed: Value, namespace: &str, labels| {
            let mut registry = with(json!({"allowedNamespaces": allowed}));
            registry.metadata.namespace = Some("ml".to_owned());
            registry.access(namespace, labels)
        };
        let selector = |team: &str, access: &str| json!({"from": "Selector", "access": access, "selector": {"matchLabels": {"team": team}}});
        for (allowed, own, guest) in [
            (json!({}), Some(Access::Write), None),
            (json!({"access": "Write"}), Some(Access::Write), None),
            (
                json!({"from": "All"}),
                Some(Access::Write),
                Some(Access::Read),
            ),
            (
                json!({"from": "All", "access": "Write"}),
                Some(Access::Write),
                Some(Access::Write),
            ),
            (
                selector("fares", "Write"),
                Some(Access::Write),
                Some(Access::Write),
            ),
            (selector("other", "Write"), Some(Access::Write), None),
        ] {
            assert_eq!(access(allowed.clone(), "ml", Some(&labels)), own);
            assert_eq!(
                access(allowed.clone(), "guest", Some(&labels)),
                guest,
                "{allowed}"
            );
        }
        let unread = access(selector("fares", "Read"), "guest", None);
        assert_eq!(unread, None, "labels that are not known match nothing");
    }

    #[test]
    fn a_spec_with_a_field_of_another_release_is_still_read() {
        let later = with(
            json!({"later": "quarter end", "mlflow": {"uri": "http://mlflow:5000", "podURI": "x"}}),
        );
        assert_eq!(later.interval(), DEFAULT_INTERVAL);
    }
}
