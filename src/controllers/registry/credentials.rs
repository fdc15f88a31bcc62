//! Credentials of a registry and of its artifact stores, read from the Secrets and the `ConfigMap` that its spec names.
//!
//! Absent: any cache. The callers decide how long a value holds.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, ResourceExt};

use crate::api::{ModelRegistry, Reason, reason::Problem};
use crate::controllers::context::Context;
use crate::registries::mlflow::{Connection, Credentials};

/// The connection that the spec describes, with its credentials.
pub async fn connection(registry: &ModelRegistry, ctx: &Context) -> Result<Connection, Problem> {
    let mut connection = Connection::new(registry.spec.mlflow.uri.clone());
    connection
        .workspace
        .clone_from(&registry.spec.mlflow.workspace);
    connection.credentials = credentials(registry, ctx).await?;
    connection.ca_pem = authority(registry, ctx).await?;
    Ok(connection)
}

async fn credentials(registry: &ModelRegistry, ctx: &Context) -> Result<Credentials, Problem> {
    let Some(auth) = &registry.spec.auth else {
        return Ok(Credentials::None);
    };
    if let Some(basic) = &auth.basic {
        let secret = secret(registry, ctx, &basic.secret_ref.name).await?;
        let username = text_of(&secret, &basic.secret_ref.name, "username")?;
        let password = text_of(&secret, &basic.secret_ref.name, "password")?;
        return Ok(Credentials::Basic { username, password });
    }
    let Some(bearer) = &auth.bearer else {
        return Ok(Credentials::None);
    };
    let secret = secret(registry, ctx, &bearer.secret_ref.name).await?;
    Ok(Credentials::Bearer(text_of(
        &secret,
        &bearer.secret_ref.name,
        &bearer.secret_ref.key,
    )?))
}

/// The settings and credentials of the artifact stores.
pub async fn artifact_settings(
    registry: &ModelRegistry,
    ctx: &Context,
) -> Result<BTreeMap<String, String>, Problem> {
    let Some(artifacts) = &registry.spec.artifacts else {
        return Ok(BTreeMap::new());
    };
    let secret = secret(registry, ctx, &artifacts.secret_ref.name).await?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
    Ok(secret
        .data
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(key, bytes)| Some((key, text(bytes.0)?)))
        .collect())
}

/// A Secret in the registry's namespace.
pub async fn secret(
    registry: &ModelRegistry,
    ctx: &Context,
    name: &str,
) -> Result<Secret, Problem> {
    let namespace = registry.namespace().unwrap_or_default();
    let found = Api::<Secret>::namespaced(ctx.client.clone(), &namespace)
        .get_opt(name)
        .await;
    named("Secret", &namespace, name, found)
}

fn named<K>(
    kind: &str,
    namespace: &str,
    name: &str,
    found: Result<Option<K>, kube::Error>,
) -> Result<K, Problem> {
    let missing = |why: String| Problem::new(Reason::CredentialsNotFound, why);
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

fn text_of(secret: &Secret, name: &str, key: &str) -> Result<String, Problem> {
    let missing = |why: &str| {
        Problem::new(
            Reason::CredentialsNotFound,
            format!("Secret {name} has {why} {key}: add it; it is read again at the next poll"),
        )
    };
    let bytes = secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .ok_or_else(|| missing("no key"))?;
    String::from_utf8(bytes.0.clone()).map_err(|_| missing("no text (UTF-8) under the key"))
}

async fn authority(registry: &ModelRegistry, ctx: &Context) -> Result<Option<String>, Problem> {
    let Some(tls) = &registry.spec.tls else {
        return Ok(None);
    };
    let namespace = registry.namespace().unwrap_or_default();
    let reference = &tls.ca_config_map_ref;
    let found = Api::<ConfigMap>::namespaced(ctx.client.clone(), &namespace)
        .get_opt(&reference.name)
        .await;
    let found = named("ConfigMap", &namespace, &reference.name, found)?;
    let pem = found.data.and_then(|mut data| data.remove(&reference.key));
    let missing = || {
        let message = format!(
            "ConfigMap {} has no key {}: add the authority's certificate (PEM) to it",
            reference.name, reference.key
        );
        Problem::new(Reason::CredentialsNotFound, message)
    };
    pem.map(Some).ok_or_else(missing)
}
