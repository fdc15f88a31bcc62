//! The client of the floors: the requests that the work needs at least, without decoding any response.
//!
//! Absent: retries. A request that fails ends the measurement.

use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use kube::client::Body;
use pointsman_env::{Kind, TestNamespace, kinds};
use serde_json::{Value, json};

/// As many reconciles as the operator runs at the same time (`CONCURRENT_RECONCILES` in src/controllers/loops.rs).
pub const CONCURRENCY: usize = 16;
/// Annotation of a pod template: a new value rolls out new pods.
const MARKER: &str = "bench.pointsman.dev/marker";
/// As much of a file as the operator reads to see whether it is readable.
const FIRST_BYTES: &str = "bytes=0-15";

pub struct PlainClient {
    kubernetes: kube::Client,
    registry: reqwest::Client,
    namespace: String,
}

impl PlainClient {
    pub fn new(namespace: &TestNamespace) -> Self {
        Self {
            kubernetes: namespace.client(),
            registry: reqwest::Client::builder().no_proxy().build().unwrap(),
            namespace: namespace.namespace().to_owned(),
        }
    }

    /// Creates an object of a kind.
    pub async fn create(&self, kind: &Kind, object: &Value) {
        let path = self.path(kind);
        let request = http::Request::post(format!("{path}?fieldManager=bench"))
            .header("content-type", "application/json");
        self.send(request, object).await;
    }

    /// Rolls out a Deployment with one server-side apply of a marker.
    pub async fn roll_out(&self, name: &str, marker: &str) {
        let path = self.path(&kinds::DEPLOYMENT);
        let template = json!({"metadata": {"annotations": {MARKER: marker}}});
        let rollout = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"template": template},
        });
        let request = http::Request::patch(format!("{path}/{name}?fieldManager=bench&force=true"))
            .header("content-type", "application/apply-patch+yaml");
        self.send(request, &rollout).await;
    }

    /// Reads the first bytes of a file behind MLflow's artifact proxy.
    pub async fn read_artifact(&self, url: &str) {
        let request = self.registry.get(url).header("range", FIRST_BYTES);
        let response = request.send().await.unwrap().error_for_status().unwrap();
        response.bytes().await.unwrap();
    }

    fn path(&self, kind: &Kind) -> String {
        let group = if kind.group.is_empty() {
            "api".to_owned()
        } else {
            format!("apis/{}", kind.group)
        };
        let (version, namespace, plural) = (kind.version, &self.namespace, kind.plural);
        format!("/{group}/{version}/namespaces/{namespace}/{plural}")
    }

    async fn send(&self, request: http::request::Builder, object: &Value) {
        let request = request
            .body(Body::from(object.to_string().into_bytes()))
            .unwrap();
        let response = self.kubernetes.send(request).await.unwrap();
        let (status, body) = (response.status(), response.into_body());
        let body = body.collect().await.unwrap().to_bytes();
        assert!(
            status.is_success(),
            "a plain request failed with {status}: {}",
            String::from_utf8_lossy(&body)
        );
    }
}

/// Text of a Deployment that was rolled out with this marker.
pub fn has_marker(marker: &str) -> String {
    format!(r#"{MARKER}":"{marker}""#)
}

/// Runs these requests, so many at the same time.
pub async fn run_all<F: Future<Output = ()>>(
    requests: impl Iterator<Item = F>,
    concurrency: usize,
) {
    stream::iter(requests)
        .buffer_unordered(concurrency)
        .for_each(|()| std::future::ready(()))
        .await;
}
