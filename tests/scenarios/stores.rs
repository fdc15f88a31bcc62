//! Artifact stores as companies run them: behind a private authority, with a policy of `GetObject` alone.
//!
//! Absent: stores that misbehave, and other clouds; see the unit tests and the test target `artifact`.

use std::path::Path;
use std::sync::{Arc, Mutex};

use pointsman_env::OperatorOptions;
use pointsman_env::bucket::{self, BucketOptions, BucketServer};
use pointsman_env::certificates::OwnCertificate;
use pointsman_env::kinds::{ALIAS_BINDING, MODEL_REGISTRY};
use pointsman_env::python::MlflowVersion;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fixture::{Environment, Fixture, ScenarioResult, condition, namespace, scenarios};

scenarios!(a_private_store_is_checked_with_its_authority_and_without_the_right_to_list);

/// A server with a certificate of its own authority, which is returned too.
async fn private_store(folder: &Path) -> (BucketServer, String) {
    let own = OwnCertificate::create().unwrap();
    std::fs::create_dir_all(folder).unwrap();
    let write = |name: &str, pem: &str| {
        let path = folder.join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let server = BucketServer::with(BucketOptions {
        certificate: Some((
            write("tls.crt", &own.certificate),
            write("tls.key", &own.key),
        )),
        readable: Some("models".to_owned()),
    });
    (server.await.unwrap(), own.authority)
}

/// Waits until the binding runs a version, and returns its condition `ArtifactAvailable` with this status.
async fn checked(fixture: &Fixture, version: &str, status: &str) -> Value {
    fixture.runs(version).await;
    let holds = |binding: &Value| condition(binding, "ArtifactAvailable")["status"] == status;
    let description = format!("the files of version {version} are {status}");
    let binding = fixture
        .eventually(&description, &ALIAS_BINDING, "binding", holds)
        .await;
    condition(&binding, "ArtifactAvailable").clone()
}

/// A Secret with the settings of an account, by its name.
async fn credentials(fixture: &Fixture, url: &str, (id, secret): (&str, &str)) {
    let settings =
        json!({"AWS_ACCESS_KEY_ID": id, "AWS_SECRET_ACCESS_KEY": secret, "AWS_ENDPOINT_URL": url});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": id}, "stringData": settings});
    fixture.apply_object(secret).await;
}

/// Has artifacts checked with these settings, and waits until the operator has seen that.
async fn check_with(fixture: &Fixture, artifacts: Value) {
    fixture
        .declare_registry(json!({"artifacts": artifacts}))
        .await;
    let is_seen = |registry: &Value| {
        registry["status"]["observedGeneration"] == registry["metadata"]["generation"]
    };
    fixture
        .eventually("the spec is seen", &MODEL_REGISTRY, "mlflow", is_seen)
        .await;
}

/// A proxy for https, and the hosts that it was asked to connect to.
async fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let hosts = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(tunnel(stream, Arc::clone(&hosts)));
        }
    });
    (url, asked)
}

async fn tunnel(mut stream: TcpStream, hosts: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let host = head.split(' ').nth(1).unwrap_or_default().to_owned();
    assert!(head.starts_with("CONNECT "), "{head}");
    let mut server = TcpStream::connect(&host).await?;
    hosts.lock().unwrap().push(host);
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}

/// A fixture whose operator uses a proxy for https.
async fn behind_proxy(environment: &Arc<Environment>, proxy: String) -> Fixture {
    let namespace = namespace(environment, "private store").await;
    let watched = namespace.namespace().to_owned();
    let version = MlflowVersion::Three;
    let url = environment.mlflow(version).await;
    let set_up = |options: &mut OperatorOptions| {
        options.extra_env.push(("HTTPS_PROXY".to_owned(), proxy));
    };
    Fixture::with(environment, namespace, version, &url, &[&watched], set_up).await
}

/// Puts a file into the bucket.
fn put(server: &BucketServer, path: &str, content: &str) {
    let file = server.data().join("models").join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, content).unwrap();
}

/// Registers four versions: two of one folder, one of a single file, and one whose data are missing.
async fn register(fixture: &Fixture, server: &BucketServer) {
    let flavors = "flavors:\n  python_function:\n    model_path: model.pkl\n";
    put(server, "1/a b+c/MLmodel", flavors);
    put(server, "1/a b+c/model.pkl", "x");
    put(server, "2/model.onnx", "x");
    put(server, "3/MLmodel", flavors);
    let (client, model) = (&fixture.client, &fixture.model);
    client.create_registered_model(model).await.unwrap();
    for source in ["1/a b+c", "1/a b+c/", "2/model.onnx", "3"] {
        let source = format!("s3://models/{source}");
        client.create_model_version(model, &source).await.unwrap();
    }
}

async fn a_private_store_is_checked_with_its_authority_and_without_the_right_to_list(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let (proxy, asked) = proxy().await;
    let fixture = behind_proxy(&environment, proxy).await;
    let plane = &environment.cluster().await.control_plane;
    let (server, authority) = private_store(&plane.folder().join("private-store")).await;
    register(&fixture, &server).await;
    fixture.alias("1").await;
    credentials(&fixture, &server.url(), bucket::READER).await;
    let (reader, owner) = (bucket::READER.0, bucket::ACCOUNT.0);
    check_with(&fixture, json!({"secretRef": {"name": reader}})).await;
    fixture.declare_model(json!({})).await;
    fixture.bind(json!({})).await;
    // Pods may trust the authority, so its certificate holds no rollout.
    let unchecked = checked(&fixture, "1", "Unknown").await;
    let message = unchecked["message"].as_str().unwrap_or_default();
    assert!(message.contains("caConfigMapRef"), "{message}");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "store-ca"}, "data": {"ca.crt": authority}});
    fixture.apply_object(map).await;
    let trusting = |account: &str| json!({"secretRef": {"name": account}, "caConfigMapRef": {"name": "store-ca"}});
    check_with(&fixture, trusting(reader)).await;
    for version in ["2", "3"] {
        fixture.alias(version).await;
        checked(&fixture, version, "True").await;
    }
    // The owner may list, so what is missing is known to be.
    credentials(&fixture, &server.url(), bucket::ACCOUNT).await;
    check_with(&fixture, trusting(owner)).await;
    fixture.alias("4").await;
    let message = fixture.reports("ArtifactUnavailable").await;
    assert!(message.contains("has no model.pkl"), "{message}");
    put(&server, "3/model.pkl", "x");
    checked(&fixture, "4", "True").await;
    // The registry is asked by http, which uses no proxy.
    let host = server.url().replace("https://", "");
    let asked = asked.lock().unwrap().clone();
    assert!(
        !asked.is_empty() && asked.iter().all(|each| *each == host),
        "{asked:?}"
    );
    fixture.end().await
}
