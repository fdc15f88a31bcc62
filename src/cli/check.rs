//! `kubectl pointsman check`: whether Pointsman is installed right, and what the person may do.
//!
//! Absent: repairs. Each line that is not ok names its remedy.

use std::collections::BTreeSet;
use std::process::ExitCode;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde::Serialize;
use serde_json::Value;

use super::cluster::{Cluster, ClusterArguments};
use super::operator::{argument, image, operators, place};
use super::output::{OutputArguments, Tone};
use super::table::{Cell, Table};
use super::units::seconds;
use super::{CommandResult, Failure};
use crate::api::conditions::{READY, STALLED, WEBHOOK_READY, find};
use crate::api::{AliasBinding, GROUP, ModelRegistry, custom_resource_definitions};

/// The command that installs or updates the definitions.
const INSTALL: &str = "pointsman crds | kubectl apply --server-side -f -";
/// The rights of the commands: verb, resource, and the commands that need it.
const RIGHTS: [(&str, &str, &str); 5] = [
    ("list", "aliasbindings", "status"),
    ("watch", "aliasbindings", "status --watch"),
    ("get", "registeredmodels", "inspect, compare"),
    ("get", "modelregistries", "tree"),
    ("patch", "aliasbindings", "changes of bindings"),
];

/// Check whether Pointsman is installed right, what you may do, and whether its registries can be reached
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  The installation, your rights in a namespace, and its registries:
    kubectl pointsman check -n ml
  The lines that are not ok:
    kubectl pointsman check -o json | jq '.[] | select(.result != \"ok\")'

The exit code is 1 if a line failed.")]
pub struct CheckArguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    output: OutputArguments,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    Warning,
    Failed,
}

/// One check.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
struct CheckResult {
    check: String,
    result: Grade,
    message: String,
}

impl CheckResult {
    fn new(check: impl Into<String>, result: Grade, message: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            result,
            message: message.into(),
        }
    }
}

/// Runs the command.
pub async fn run(arguments: CheckArguments) -> CommandResult {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let version = cluster.client.apiserver_version().await;
    let version =
        version.map_err(|error| cluster.explain::<AliasBinding>("get", None, None, &error))?;
    let mut checks = vec![CheckResult::new(
        "cluster",
        Grade::Ok,
        format!("Kubernetes {}", version.git_version),
    )];
    let installed = definitions(&cluster).await;
    let has_kinds = installed.iter().all(|check| check.result != Grade::Failed);
    checks.extend(installed);
    checks.extend(deployments(&cluster).await);
    checks.extend(rights(&cluster).await?);
    if has_kinds {
        checks.extend(registries(&cluster).await);
        checks.push(bindings(&cluster).await);
    }
    let failed = checks.iter().any(|check| check.result == Grade::Failed);
    let names = checks.iter().map(|check| check.check.clone());
    arguments
        .output
        .print(&checks, names, |paint| table(&checks).render(paint))?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn table(checks: &[CheckResult]) -> Table {
    let mut table = Table::new(["RESULT", "CHECK", "MESSAGE"]);
    for check in checks {
        let (word, tone) = match check.result {
            Grade::Ok => ("ok", Tone::Good),
            Grade::Warning => ("warning", Tone::Warning),
            Grade::Failed => ("failed", Tone::Bad),
        };
        table.row([
            Cell::toned(word, tone),
            check.check.as_str().into(),
            check.message.as_str().into(),
        ]);
    }
    table
}

/// Whether each definition exists and is this release's.
async fn definitions(cluster: &Cluster) -> Vec<CheckResult> {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let mut checks = Vec::new();
    for expected in custom_resource_definitions() {
        let name = expected.name_any();
        let check = format!("definition {name}");
        checks.push(match api.get(&name).await {
            Ok(found) => compared(check, &expected, &found),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                CheckResult::new(check, Grade::Failed, format!("it is not installed; install it: {INSTALL}"))
            }
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                let words = "you may not read definitions, so its release is not known; ask an administrator to run this check";
                CheckResult::new(check, Grade::Warning, words)
            }
            Err(error) => CheckResult::new(check, Grade::Failed, error.to_string()),
        });
    }
    checks
}

/// Compares the fields of a definition with those of this release.
fn compared(
    check: String,
    expected: &CustomResourceDefinition,
    found: &CustomResourceDefinition,
) -> CheckResult {
    let (own, others) = (fields(expected), fields(found));
    let missing: Vec<&String> = own.difference(&others).collect();
    if let Some(field) = missing.first() {
        let words = format!("it is of an older release: it has no {field}; update it: {INSTALL}");
        return CheckResult::new(check, Grade::Failed, words);
    }
    let more: Vec<&String> = others.difference(&own).collect();
    match more.first() {
        Some(field) => {
            let words = format!(
                "it is of another release: it has {field}; use that release of kubectl-pointsman"
            );
            CheckResult::new(check, Grade::Warning, words)
        }
        None => CheckResult::new(check, Grade::Ok, "installed, of this release"),
    }
}

/// The paths of all fields in the schema of the version that is served, such as spec.rollback.bakeSeconds.
fn fields(definition: &CustomResourceDefinition) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let served = definition
        .spec
        .versions
        .iter()
        .find(|version| version.served);
    let schema = served.and_then(|version| version.schema.as_ref());
    if let Some(root) = schema.and_then(|schema| schema.open_api_v3_schema.as_ref()) {
        let root = serde_json::to_value(root).unwrap_or_default();
        collect(&root, "", &mut found);
    }
    found
}

fn collect(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        collect(property, &path, found);
        found.insert(path);
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            collect(&schema[below], path, found);
        }
    }
}

/// Whether the operators run, and hold their Leases.
async fn deployments(cluster: &Cluster) -> Vec<CheckResult> {
    let operators = match operators(cluster).await {
        Ok(operators) => operators,
        Err(failure) => {
            return vec![CheckResult::new(
                "operator",
                Grade::Warning,
                failure.to_string(),
            )];
        }
    };
    if operators.is_empty() {
        let words = "no Deployment has the label app.kubernetes.io/name=pointsman; install the chart, unless the operator runs \
                     outside of the cluster";
        return vec![CheckResult::new("operator", Grade::Warning, words)];
    }
    let mut checks = Vec::new();
    for operator in &operators {
        checks.push(deployment(operator));
        if argument(operator, "--leader-election").is_some() {
            checks.push(lease(cluster, operator).await);
        }
    }
    checks
}

fn deployment(operator: &Deployment) -> CheckResult {
    let check = format!("operator {}", place(operator));
    let desired = operator
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let status = operator.status.as_ref();
    let available = status
        .and_then(|status| status.available_replicas)
        .unwrap_or_default();
    let words = format!(
        "{available}/{desired} available, {}",
        image(operator).unwrap_or_default()
    );
    if desired > 0 && available >= desired {
        return CheckResult::new(check, Grade::Ok, words);
    }
    let grade = if available > 0 {
        Grade::Warning
    } else {
        Grade::Failed
    };
    let (namespace, name) = (
        operator.namespace().unwrap_or_default(),
        operator.name_any(),
    );
    let remedy = format!("see why: kubectl describe deployment {name} -n {namespace}");
    CheckResult::new(check, grade, format!("{words}; {remedy}"))
}

async fn lease(cluster: &Cluster, operator: &Deployment) -> CheckResult {
    let namespace = operator.namespace().unwrap_or_default();
    let name = argument(operator, "--lease-name").unwrap_or("pointsman");
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), &namespace);
    let check = format!("lease {namespace}/{name}");
    match api.get(name).await {
        Ok(lease) => held(check, &lease, Timestamp::now()),
        Err(error) => {
            let failure = cluster.explain::<Lease>("get", Some(name), Some(&namespace), &error);
            CheckResult::new(check, Grade::Warning, failure.to_string())
        }
    }
}

/// Whether a replica holds the Lease. The clocks of the cluster and of this machine may differ, so an hour is allowed.
fn held(check: String, lease: &Lease, now: Timestamp) -> CheckResult {
    const ALLOWED: i64 = 3600;
    let spec = lease.spec.as_ref();
    let holder = spec
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    let renewed = spec.and_then(|spec| spec.renew_time.as_ref());
    let age = renewed.map(|time| now.as_second() - time.0.as_second());
    match age {
        _ if holder.is_empty() => CheckResult::new(
            check,
            Grade::Failed,
            "no replica holds it, so nothing is reconciled; see the operator's log",
        ),
        Some(age) if age > ALLOWED => {
            let words = format!(
                "{holder} renewed it {} ago; see the operator's log",
                seconds(age)
            );
            CheckResult::new(check, Grade::Failed, words)
        }
        _ => CheckResult::new(check, Grade::Ok, format!("held by {holder}")),
    }
}

/// What the person may do in the namespace.
async fn rights(cluster: &Cluster) -> Result<Vec<CheckResult>, Failure> {
    let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let mut checks = Vec::new();
    for (verb, resource, commands) in RIGHTS {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(GROUP.to_owned()),
                    resource: Some(resource.to_owned()),
                    verb: Some(verb.to_owned()),
                    namespace: Some(cluster.namespace.clone()),
                    ..ResourceAttributes::default()
                }),
                non_resource_attributes: None,
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| {
            cluster.explain::<SelfSubjectAccessReview>("create", None, None, &error)
        })?;
        let is_allowed = answer.status.is_some_and(|status| status.allowed);
        checks.push(right(
            verb,
            resource,
            commands,
            &cluster.namespace,
            is_allowed,
        ));
    }
    Ok(checks)
}

fn right(
    verb: &str,
    resource: &str,
    commands: &str,
    namespace: &str,
    is_allowed: bool,
) -> CheckResult {
    let check = format!("right to {verb} {resource}");
    if is_allowed {
        return CheckResult::new(check, Grade::Ok, format!("in the namespace {namespace}"));
    }
    let role = if verb == "patch" { "edit" } else { "view" };
    let words = format!(
        "not in the namespace {namespace}, for {commands}; ask for the ClusterRole {role} there, or choose another with -n"
    );
    CheckResult::new(check, Grade::Warning, words)
}

/// The registries of the namespace, as the operator's status has them.
async fn registries(cluster: &Cluster) -> Vec<CheckResult> {
    let namespace = Some(cluster.namespace.as_str());
    let everything = ListParams::default();
    let listed = cluster
        .list::<ModelRegistry, ModelRegistry>(namespace, everything)
        .await;
    let listed = match listed {
        Ok(listed) => listed.items,
        Err(failure) => {
            return vec![CheckResult::new(
                "registries",
                Grade::Warning,
                failure.to_string(),
            )];
        }
    };
    let mut checks = Vec::new();
    for registry in listed {
        let name = registry.name_any();
        let status = registry.status.clone().unwrap_or_default();
        let ready = find(&status.conditions, READY);
        checks.push(graded(
            format!("registry {name}"),
            ready,
            status.server_version.as_deref(),
        ));
        if let Some(webhook) = find(&status.conditions, WEBHOOK_READY) {
            let mut check = graded(format!("webhook of {name}"), Some(webhook), None);
            if check.result == Grade::Failed {
                // Polling goes on without it.
                check.result = Grade::Warning;
            }
            checks.push(check);
        }
    }
    checks
}

/// A condition as a check. One that is missing was never reconciled.
fn graded(check: String, condition: Option<&Condition>, version: Option<&str>) -> CheckResult {
    let Some(condition) = condition else {
        let words = "no operator has reconciled it yet; see whether one watches this namespace: kubectl get deployments -A -l \
                     app.kubernetes.io/name=pointsman";
        return CheckResult::new(check, Grade::Warning, words);
    };
    let words = format!("{}: {}", condition.reason, condition.message);
    match condition.status.as_str() {
        "True" => {
            let version = version.map_or_else(String::new, |version| format!(", MLflow {version}"));
            CheckResult::new(check, Grade::Ok, format!("{}{version}", condition.reason))
        }
        "False" => CheckResult::new(check, Grade::Failed, words),
        _ => CheckResult::new(check, Grade::Warning, words),
    }
}

/// How many bindings need a person; `status` says why.
async fn bindings(cluster: &Cluster) -> CheckResult {
    let namespace = Some(cluster.namespace.as_str());
    let everything = ListParams::default();
    match cluster
        .list::<AliasBinding, AliasBinding>(namespace, everything)
        .await
    {
        Ok(listed) => counted(&listed.items, &cluster.namespace),
        Err(failure) => CheckResult::new("bindings", Grade::Warning, failure.to_string()),
    }
}

fn counted(bindings: &[AliasBinding], namespace: &str) -> CheckResult {
    let is_stalled = |binding: &&AliasBinding| {
        let status = binding.status.as_ref();
        let stalled = status.and_then(|status| find(&status.conditions, STALLED));
        stalled.is_some_and(|stalled| stalled.status == "True")
    };
    let (all, stalled) = (bindings.len(), bindings.iter().filter(is_stalled).count());
    if stalled == 0 {
        return CheckResult::new(
            "bindings",
            Grade::Ok,
            format!("{all} in the namespace {namespace}, none needs a person"),
        );
    }
    let words =
        format!("{stalled} of {all} need a person: kubectl pointsman status -n {namespace}");
    CheckResult::new("bindings", Grade::Warning, words)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
