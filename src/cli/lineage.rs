//! `kubectl pointsman lineage`: from a pod to the version, run, commit and data behind it.
//!
//! Absent: the pod's own word. What it loaded in fact is known to it alone; its template says what it was told to load.

use std::collections::BTreeMap;
use std::process::ExitCode;

use jiff::tz::TimeZone;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;

use super::cluster::{Cluster, ClusterArguments};
use super::fields::FieldList;
use super::found_version::{FoundVersion, find_version};
use super::inspect::{add_code, add_registered, datasets};
use super::output::OutputArguments;
use super::tree::workload;
use super::{CommandResult, Failure};
use crate::api::alias_binding::TargetKind;
use crate::api::registered_model::{CodeLineage, Dataset};
use crate::api::{AliasBinding, ModelVersion, RegisteredModel, VersionRef, names};

/// Show which version a pod or workload runs, and the run, code and data that trained it
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  What a workload runs:
    kubectl pointsman lineage deployment/nyc-taxi -n ml
  What a pod runs, such as one that answered strangely:
    kubectl pointsman lineage pod/nyc-taxi-5f6d8c-x2x9p -n ml")]
pub struct LineageArguments {
    /// A pod or workload: pod/NAME, deployment/NAME, statefulset/NAME, daemonset/NAME, rollout/NAME. A NAME alone is a pod's, or
    /// that of a workload which a binding drives
    object: String,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    output: OutputArguments,
}

/// The labels and annotations of a pod or of a pod template.
#[derive(Debug, Default, PartialEq)]
struct Marks {
    binding: String,
    number: String,
    digest: Option<String>,
}

/// The answer, as JSON and YAML have it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LineageAnswer {
    object: String,
    workload: String,
    binding: String,
    model: String,
    #[serde(flatten)]
    version: ModelVersion,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
}

/// Runs the command.
pub async fn run(arguments: LineageArguments) -> CommandResult {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let (object, marks) = read(&cluster, &arguments.object).await?;
    let binding: AliasBinding = cluster.get(&marks.binding).await?;
    let answer = answer(&cluster, object, &marks, &binding).await?;
    let names = [format!(
        "models:/{}/{}",
        answer.model, answer.version.version
    )];
    let zone = TimeZone::system();
    arguments
        .output
        .print(&answer, names, |_| text(&answer, &zone))?;
    Ok(ExitCode::SUCCESS)
}

/// The object's full name, and its marks.
async fn read(cluster: &Cluster, word: &str) -> Result<(String, Marks), Failure> {
    let (kind, name) = match word.rsplit_once('/') {
        Some((kind, name)) => (Some(subject(kind)?), name),
        None => (None, word),
    };
    match kind {
        Some(Subject::Pod) => {
            let pod: Pod = cluster.get(name).await?;
            of_pod(name, &pod)
        }
        Some(Subject::Workload(kind)) => of_workload(cluster, kind, name).await,
        None => {
            if let Some(pod) = cluster.find::<Pod>(name).await? {
                return of_pod(name, &pod);
            }
            let bindings = cluster.all::<AliasBinding>().await?;
            let mut bindings = bindings.iter();
            match bindings.find(|binding| binding.workload_name() == name) {
                Some(binding) => of_binding(cluster, binding).await,
                None => Err(format!(
                    "there is no pod {name} in the namespace {}, and no binding drives a workload of this name; list both: \
                     kubectl get pods,aliasbindings -n {}",
                    cluster.namespace, cluster.namespace
                )
                .into()),
            }
        }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Subject {
    Pod,
    Workload(TargetKind),
}

fn subject(kind: &str) -> Result<Subject, Failure> {
    let kind = kind.split('.').next().unwrap_or_default().to_lowercase();
    Ok(match kind.as_str() {
        "po" | "pod" | "pods" => Subject::Pod,
        "deploy" | "deployment" | "deployments" => Subject::Workload(TargetKind::Deployment),
        "sts" | "statefulset" | "statefulsets" => Subject::Workload(TargetKind::StatefulSet),
        "ds" | "daemonset" | "daemonsets" => Subject::Workload(TargetKind::DaemonSet),
        "cj" | "cronjob" | "cronjobs" => Subject::Workload(TargetKind::CronJob),
        "ro" | "rollout" | "rollouts" => Subject::Workload(TargetKind::Rollout),
        _ => {
            return Err(format!(
                "{kind} is no kind that runs a model: write pod/NAME, deployment/NAME, statefulset/NAME, daemonset/NAME or \
                 rollout/NAME"
            )
            .into());
        }
    })
}

fn of_pod(name: &str, pod: &Pod) -> Result<(String, Marks), Failure> {
    let object = format!("Pod/{name}");
    let marks = marks(pod.labels(), pod.annotations()).ok_or_else(|| unmarked(&object))?;
    Ok((object, marks))
}

/// The workload of a binding. One without a pod template has no marks, so the binding's status counts.
async fn of_binding(cluster: &Cluster, binding: &AliasBinding) -> Result<(String, Marks), Failure> {
    let (kind, name) = (binding.target_kind(), binding.workload_name());
    if !matches!(kind, TargetKind::Other(_)) {
        return of_workload(cluster, kind, name).await;
    }
    let object = format!("{kind}/{name}");
    let running = binding
        .status
        .as_ref()
        .and_then(|status| status.running.as_ref());
    let running = running.ok_or_else(|| unmarked(&object))?;
    let marks = Marks {
        binding: binding.name_any(),
        number: running.version.number().to_owned(),
        digest: running
            .version
            .id
            .is_complete()
            .then(|| running.version.id.digest()),
    };
    Ok((object, marks))
}

async fn of_workload(
    cluster: &Cluster,
    kind: TargetKind,
    name: &str,
) -> Result<(String, Marks), Failure> {
    let object = format!("{kind}/{name}");
    let workload = workload(cluster, &kind, name).await?;
    let path = match kind {
        TargetKind::CronJob => "/spec/jobTemplate/spec/template/metadata",
        _ => "/spec/template/metadata",
    };
    let metadata = workload.pointer(path).unwrap_or(&Value::Null);
    let map = |field: &str| -> BTreeMap<String, String> {
        serde_json::from_value(metadata[field].clone()).unwrap_or_default()
    };
    let marks = marks(&map("labels"), &map("annotations")).ok_or_else(|| unmarked(&object))?;
    Ok((object, marks))
}

fn marks(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Option<Marks> {
    Some(Marks {
        binding: labels.get(names::BINDING_LABEL)?.clone(),
        number: annotations.get(names::VERSION_ANNOTATION)?.clone(),
        digest: annotations.get(names::VERSION_ID_ANNOTATION).cloned(),
    })
}

fn unmarked(object: &str) -> Failure {
    format!(
        "{object} runs no version of a binding: it has no label {}; list the pods that have: kubectl get pods -A -l {}",
        names::BINDING_LABEL,
        names::BINDING_LABEL
    )
    .into()
}

async fn answer(
    cluster: &Cluster,
    object: String,
    marks: &Marks,
    binding: &AliasBinding,
) -> Result<LineageAnswer, Failure> {
    let model = cluster
        .find::<RegisteredModel>(&binding.spec.model_ref.name)
        .await?;
    let recorded = recorded(binding, marks);
    let known = recorded
        .as_ref()
        .map(|(version, _)| version.id.model.clone());
    let name = known.filter(|name| !name.is_empty());
    let name = name.or_else(|| model.as_ref().map(|model| model.model_name().to_owned()));
    let name = name.unwrap_or_else(|| binding.spec.model_ref.name.clone());
    let found = match &model {
        Some(model) => find_version(cluster, model, &marks.number)
            .await
            .map_err(|failure| failure.to_string()),
        None => Err(format!(
            "the RegisteredModel {} does not exist",
            binding.spec.model_ref.name
        )),
    };
    let (version, note) = choose(&name, marks, recorded, found);
    Ok(LineageAnswer {
        object,
        workload: format!("{}/{}", binding.target_kind(), binding.workload_name()),
        binding: binding.name_any(),
        model: name,
        version,
        note,
    })
}

/// What the binding's status recorded of the version, with the code of its history entry.
fn recorded(binding: &AliasBinding, marks: &Marks) -> Option<(VersionRef, Option<CodeLineage>)> {
    let status = binding.status.as_ref()?;
    let is_it = |version: &VersionRef| match &marks.digest {
        Some(digest) => version.id.digest() == *digest,
        None => version.number() == marks.number,
    };
    let entry = status.history.iter().find(|entry| is_it(&entry.version));
    let version = status.known_versions().find(|version| is_it(version))?;
    Some((version.clone(), entry.and_then(|entry| entry.code.clone())))
}

/// The registry's version if it is the very one that runs; else what the binding recorded.
fn choose(
    model: &str,
    marks: &Marks,
    recorded: Option<(VersionRef, Option<CodeLineage>)>,
    found: Result<FoundVersion, String>,
) -> (ModelVersion, String) {
    let note = match found {
        Ok(found) => {
            let own = found.version.reference(model).id.digest();
            let is_it = marks.digest.as_ref().is_none_or(|digest| *digest == own);
            if is_it {
                return (found.version, found.note);
            }
            format!(
                "the registry's version {} is another one: the model was deleted and registered again; this is what the \
                 binding recorded",
                marks.number
            )
        }
        Err(failure) => failure,
    };
    let mut version = ModelVersion {
        version: marks.number.clone(),
        ..ModelVersion::default()
    };
    if let Some((known, code)) = recorded {
        version.artifact_uri = known.artifact_uri;
        version.run_id = known.run_id;
        version.created_at = known.id.created_at;
        version.source = known.id.source;
        version.code = code;
    }
    (version, note)
}

fn text(answer: &LineageAnswer, zone: &TimeZone) -> String {
    let version = &answer.version;
    let mut fields = FieldList::indented(0);
    fields.add("Object", &answer.object);
    fields.add(
        "Workload",
        format!("{}, by AliasBinding {}", answer.workload, answer.binding),
    );
    fields.add(
        "Version",
        format!("{} of {}", version.version, answer.model),
    );
    add_registered(&mut fields, version, zone);
    fields.add_some("Files", version.artifact_uri.as_ref());
    fields.add_some("Run", version.run_id.as_ref());
    add_code(&mut fields, version.code.as_ref());
    fields.add("Data", data(&version.datasets));
    let parameters = version
        .parameters
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    fields.add("Parameters", parameters.collect::<Vec<_>>().join(", "));
    fields.add("Note", &answer.note);
    fields.render()
}

fn data(sets: &[Dataset]) -> String {
    if sets.is_empty() {
        return "MLflow recorded none: log it with mlflow.log_input".to_owned();
    }
    datasets(sets)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::found_version::VersionOrigin;
    use super::*;

    fn version(created: &str) -> ModelVersion {
        serde_json::from_value(json!({"version": "5", "createdAt": created, "source": "runs:/abc/model", "runID": "abc",
            "createdBy": "kamal", "parameters": {"alpha": "0.5"}, "artifactURI": "s3://models/5",
            "code": {"repository": "https://git.example/taxi", "commit": "0123"},
            "datasets": [{"name": "fares", "context": "training"}]}))
        .unwrap()
    }

    fn found(created: &str) -> FoundVersion {
        FoundVersion {
            version: version(created),
            origin: VersionOrigin::Mirror,
            note: String::new(),
        }
    }

    fn marks_of(version: &ModelVersion) -> Marks {
        Marks {
            binding: "taxi".to_owned(),
            number: "5".to_owned(),
            digest: Some(version.reference("nyc-taxi").id.digest()),
        }
    }

    #[test]
    fn objects_are_named_as_kubectl_names_them() {
        for (word, expected) in [
            ("po", Subject::Pod),
            ("Deployment", Subject::Workload(TargetKind::Deployment)),
            ("deployment.apps", Subject::Workload(TargetKind::Deployment)),
            ("sts", Subject::Workload(TargetKind::StatefulSet)),
            (
                "rollouts.argoproj.io",
                Subject::Workload(TargetKind::Rollout),
            ),
        ] {
            assert_eq!(subject(word).unwrap(), expected);
        }
        assert!(
            subject("service")
                .unwrap_err()
                .to_string()
                .contains("write pod/NAME")
        );
    }

    #[test]
    fn a_pod_leads_to_run_code_and_data() {
        let same = "2026-11-24T12:00:00Z";
        let (version, note) = choose("nyc-taxi", &marks_of(&version(same)), None, Ok(found(same)));
        let answer = LineageAnswer {
            object: "Pod/server-1".to_owned(),
            workload: "Deployment/server".to_owned(),
            binding: "taxi".to_owned(),
            model: "nyc-taxi".to_owned(),
            version,
            note,
        };
        let expected = "\
Object:        Pod/server-1
Workload:      Deployment/server, by AliasBinding taxi
Version:       5 of nyc-taxi
Registered:    2026-11-24 12:00:00 +00:00 by kamal
Files:         s3://models/5
Run:           abc
Code:          https://git.example/taxi, commit 0123
Retrain from:  git clone https://git.example/taxi retrain && git -C retrain checkout 0123
Data:          fares (training)
Parameters:    alpha=0.5
";
        assert_eq!(text(&answer, &TimeZone::UTC), expected);
    }

    #[test]
    fn the_same_number_of_a_model_made_again_is_not_taken_for_the_one_that_runs() {
        let runs = version("2026-11-01T12:00:00Z");
        let binding: AliasBinding = serde_json::from_value(json!({
            "metadata": {"name": "taxi"},
            "spec": {"modelRef": {"name": "taxi"}, "alias": "champion", "targetRef": {"name": "server"}},
            "status": {"history": [{"model": "nyc-taxi", "version": "5", "createdAt": "2026-11-01T12:00:00Z",
                "source": "runs:/abc/model", "outcome": "Live", "reason": "Live", "trigger": "AliasMove",
                "startedAt": "2026-11-02T12:00:00Z", "code": {"commit": "old"}}]}}))
        .unwrap();
        let marks = marks_of(&runs);
        let (version, note) = choose(
            "nyc-taxi",
            &marks,
            recorded(&binding, &marks),
            Ok(found("2026-11-24T12:00:00Z")),
        );
        assert_eq!(version.code.unwrap().commit.as_deref(), Some("old"));
        assert!(note.contains("deleted and registered again"), "{note}");
    }

    #[test]
    fn a_pod_without_marks_says_how_to_find_those_that_have_them() {
        let pod = Pod::default();
        let error = of_pod("x", &pod).unwrap_err().to_string();
        assert!(
            error.ends_with("kubectl get pods -A -l pointsman.dev/binding"),
            "{error}"
        );
    }
}
