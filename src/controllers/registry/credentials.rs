//! Credentials of a registry and of its artifact stores, read from the Secrets and the `ConfigMap`
//! that its spec names.
//!
//! Absent: any cache. The callers decide for how long a value is used.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt};

use crate::api::model_registry::ConfigMapKeyReference;
use crate::api::{ModelRegistry, Reason, reason::Problem};
use crate::registries::{Connection, Credentials};

/// The connection that the spec describes, with its credentials.
pub async fn connection(registry: &ModelRegistry, client: &Client) -> Result<Connection, Problem> {
    let mut connection = Connection::of(&registry.spec)?;
    connection.credentials = credentials(registry, client).await?;
    let tls = registry.spec.tls.clone().unwrap_or_default();
    connection.ca_pem = authorities(registry, tls.ca_config_map_ref.as_ref(), client).await?;
    if let Some(reference) = &tls.client_certificate_secret_ref {
        let name = &reference.name;
        let secret = secret(registry, client, name).await?;
        let (certificate, key) = (
            secret_text(&secret, name, "tls.crt")?,
            secret_text(&secret, name, "tls.key")?,
        );
        connection.identity_pem = Some(format!("{certificate}\n{key}"));
    }
    let server = registry.spec.mlflow.as_ref();
    if let Some(reference) = server.and_then(|server| server.headers_secret_ref.as_ref()) {
        let secret = secret(registry, client, &reference.name).await?;
        connection.headers = texts(secret);
    }
    connection.tenant = registry.namespace().unwrap_or_default().into();
    Ok(connection)
}

/// The values of a Secret that are text.
fn texts(secret: Secret) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    for (key, bytes) in secret.data.unwrap_or_default() {
        if let Ok(text) = String::from_utf8(bytes.0) {
            texts.insert(key, text);
        }
    }
    texts
}

async fn credentials(registry: &ModelRegistry, client: &Client) -> Result<Credentials, Problem> {
    let Some(auth) = &registry.spec.auth else {
        return Ok(Credentials::None);
    };
    if let Some(basic) = &auth.basic {
        let name = &basic.secret_ref.name;
        let secret = secret(registry, client, name).await?;
        let username = secret_text(&secret, name, "username")?;
        let password = secret_text(&secret, name, "password")?;
        return Ok(Credentials::Basic { username, password });
    }
    let Some(bearer) = &auth.bearer else {
        return Ok(Credentials::None);
    };
    let reference = &bearer.secret_ref;
    let secret = secret(registry, client, &reference.name).await?;
    let token = secret_text(&secret, &reference.name, &reference.key)?;
    Ok(Credentials::Bearer(token))
}

/// The certificates of authorities in a `ConfigMap`, if the spec names one.
async fn authorities(
    registry: &ModelRegistry,
    reference: Option<&ConfigMapKeyReference>,
    client: &Client,
) -> Result<Option<String>, Problem> {
    let Some(reference) = reference else {
        return Ok(None);
    };
    let namespace = registry.namespace().unwrap_or_default();
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let found = config_maps.get_opt(&reference.name).await;
    let mut config_map = present("ConfigMap", &namespace, &reference.name, found)?;
    let data = config_map.data.as_mut();
    if let Some(pem) = data.and_then(|data| data.remove(&reference.key)) {
        return Ok(Some(pem));
    }
    Err(missing(format!(
        "ConfigMap {} has no key {}: add the authority's certificate (PEM) to it",
        reference.name, reference.key
    )))
}

/// The settings and credentials of the artifact stores, and the certificates of the authorities to trust (PEM).
pub async fn artifact_settings(
    registry: &ModelRegistry,
    client: &Client,
) -> Result<(BTreeMap<String, String>, Option<String>), Problem> {
    let Some(artifacts) = &registry.spec.artifacts else {
        return Ok((BTreeMap::new(), None));
    };
    let settings = match &artifacts.secret_ref {
        Some(reference) => texts(secret(registry, client, &reference.name).await?),
        None => BTreeMap::new(),
    };
    let reference = artifacts.ca_config_map_ref.as_ref();
    Ok((settings, authorities(registry, reference, client).await?))
}

/// A Secret in the registry's namespace.
pub async fn secret(
    registry: &ModelRegistry,
    client: &Client,
    name: &str,
) -> Result<Secret, Problem> {
    let namespace = registry.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let found = secrets.get_opt(name).await;
    present("Secret", &namespace, name, found)
}

fn present<K>(
    kind: &str,
    namespace: &str,
    name: &str,
    found: Result<Option<K>, kube::Error>,
) -> Result<K, Problem> {
    match found {
        Ok(Some(object)) => Ok(object),
        Ok(None) => Err(missing(format!(
            "there is no {kind} {name} in namespace {namespace}: create it; it is read again at the next poll"
        ))),
        Err(error) => Err(missing(format!(
            "{kind} {name} in namespace {namespace} cannot be read: {error}"
        ))),
    }
}

fn secret_text(secret: &Secret, name: &str, key: &str) -> Result<String, Problem> {
    let defect = |defect: &str| {
        missing(format!(
            "Secret {name} has {defect} {key}: add it; it is read again at the next poll"
        ))
    };
    let data = secret.data.as_ref();
    let Some(bytes) = data.and_then(|data| data.get(key)) else {
        return Err(defect("no key"));
    };
    match String::from_utf8(bytes.0.clone()) {
        Ok(text) => Ok(text),
        Err(_) => Err(defect("no text (UTF-8) under the key")),
    }
}

fn missing(message: String) -> Problem {
    Problem::new(Reason::CredentialsNotFound, message)
}
