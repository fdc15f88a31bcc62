//! The query of an artifact URI, such as a signature, for the pod template: no status keeps it, so it is read when a version
//! is written.
//!
//! Absent: any place where it is kept.

use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet as WholeReplicaSet;
use kube::Api;
use kube::api::ListParams;

use crate::api::conditions::with_remedy;
use crate::api::public_uri::split_query;
use crate::api::reason::Problem;
use crate::api::{Reason, names};
use crate::controllers::context::Context;
use crate::kubernetes::key::ObjectKey;
use crate::targets::{Injection, Target, unescape};

/// The time limit of the registry: a rollback does not wait longer for it.
const LIMIT: Duration = Duration::from_secs(3);
/// The most ReplicaSets that are looked through.
const MOST_SETS: u32 = 100;

/// The version that is written, and for which objects.
pub struct Written<'a> {
    /// The binding.
    pub own: &'a ObjectKey,
    /// The registry of its model.
    pub registry: Option<&'a ObjectKey>,
    /// The model's name in the registry.
    pub model: Option<&'a str>,
    /// The workload as it is before the write.
    pub target: Option<&'a Target>,
    /// The version's fields.
    pub injection: &'a Injection,
}

/// The injection with the whole URI: with the query of the registry's answer, or if there is none, of a pod template that
/// held the version before. Unchanged if the version's URI has no query.
pub async fn completed(ctx: &Context, written: &Written<'_>) -> Result<Injection, Problem> {
    let injection = written.injection;
    let Some(uri) = &injection.withheld_uri else {
        return Ok(injection.clone());
    };
    let found = match of_registry(ctx, written, uri).await {
        Some(query) => Some(query),
        None => match written.target.and_then(|target| of_target(target, uri)) {
            Some(query) => Some(query),
            None => of_replica_sets(ctx, written.own, uri).await,
        },
    };
    match found {
        Some(query) => Ok(injection.with_query(&query)),
        None => Err(missing(written.own, injection, uri)),
    }
}

fn missing(own: &ObjectKey, injection: &Injection, uri: &str) -> Problem {
    let cause = format!(
        "version {} is not written: only the registry has the query of {uri}, and it does not say it now",
        injection.version
    );
    let remedy = format!(
        "it is asked again; see kubectl get mreg,rmodel -n {}",
        own.namespace()
    );
    Problem::new(Reason::ArtifactUnavailable, with_remedy(&cause, &remedy))
}

async fn of_registry(ctx: &Context, written: &Written<'_>, uri: &str) -> Option<String> {
    let (registry, model) = (written.registry?, written.model?);
    let client = ctx.registries.of(registry).connection.client()?;
    let answer = client.artifact_uri(model, &written.injection.version);
    let whole = tokio::time::timeout(LIMIT, answer).await.ok()?.ok()??;
    query_of(&whole, uri)
}

fn of_target(target: &Target, uri: &str) -> Option<String> {
    let containers = target.template.spec.containers.iter();
    let mut values = containers.flat_map(|container| &container.env);
    values.find_map(|variable| query_of(&unescape(variable.value.as_deref()?), uri))
}

async fn of_replica_sets(ctx: &Context, own: &ObjectKey, uri: &str) -> Option<String> {
    let api: Api<WholeReplicaSet> = Api::namespaced(ctx.client.clone(), own.namespace());
    let labels = format!("{}={}", names::BINDING_LABEL, own.name());
    let params = ListParams::default().labels(&labels).limit(MOST_SETS);
    let sets = api.list(&params).await.ok()?;
    sets.items.into_iter().find_map(|set| {
        let pod = set.spec?.template?.spec?;
        let mut values = pod
            .containers
            .into_iter()
            .flat_map(|container| container.env.unwrap_or_default());
        values.find_map(|variable| query_of(&unescape(variable.value.as_deref()?), uri))
    })
}

/// The query of a whole URI, if the rest of it is this one.
fn query_of(whole: &str, uri: &str) -> Option<String> {
    let (base, query) = split_query(whole);
    (base == uri).then_some(query?.to_owned())
}
