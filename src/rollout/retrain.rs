//! The Job that trains a lost version again: a pure function of the binding and the lost version.
//!
//! Absent: randomness and time. The same lost version gives the same name, so that the Job is created once.

use serde_json::{Value, json};

use crate::api::registered_model::CodeLineage;
use crate::api::rollback::{Lost, Retrain};
use crate::api::version::fnv1a;
use crate::api::{AliasBinding, names};
use crate::targets::escape;

/// A Job to create.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrainJob {
    /// Its name.
    pub name: String,
    /// The version that it trains again.
    pub version: String,
    /// The whole Job.
    pub manifest: Value,
}

/// The Job for a lost version.
#[must_use]
pub fn retrain_job(
    binding: &AliasBinding,
    retrain: &Retrain,
    tracking_uri: Option<&str>,
    lost: &Lost,
) -> RetrainJob {
    let own = binding.metadata.name.as_deref().unwrap_or_default();
    let name = job_name(binding, lost);
    let template = &retrain.job_template;
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": template.metadata,
        "spec": template.spec,
    });
    job["metadata"]["name"] = json!(name);
    job["metadata"]["namespace"] = json!(binding.metadata.namespace);
    job["metadata"]["labels"][names::BINDING_LABEL] = json!(own);
    job["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding", "name": own, "uid": binding.metadata.uid,
        "controller": true, "blockOwnerDeletion": true,
    }]);
    let variables = variables(tracking_uri, lost);
    for list in [
        "/spec/template/spec/containers",
        "/spec/template/spec/initContainers",
    ] {
        for container in job
            .pointer_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            give(container, &variables);
        }
    }
    RetrainJob {
        name,
        version: lost.version.number().to_owned(),
        manifest: job,
    }
}

/// A Job's name becomes a label of its pods, so it holds 63 characters. The digest tells apart what was cut from the binding's
/// name, bindings of the same name one after the other, and versions of the same number.
fn job_name(binding: &AliasBinding, lost: &Lost) -> String {
    let (metadata, id) = (&binding.metadata, &lost.version.id);
    let own = metadata.name.as_deref().unwrap_or_default();
    let short: String = own.chars().take(18).collect();
    // The URI of a version may change; it identifies only versions of which nothing else is known.
    let uri = lost.version.artifact_uri.as_ref();
    let uri = uri.filter(|_uri| !id.is_complete());
    let identity = json!([own, metadata.uid, id.digest(), uri]).to_string();
    format!(
        "{}-retrain-{}-{:016x}",
        short.trim_end_matches(['-', '.']),
        lost.version.number(),
        fnv1a(identity.as_bytes())
    )
}

fn variables(tracking_uri: Option<&str>, lost: &Lost) -> Vec<(&'static str, String)> {
    let nothing = CodeLineage::default();
    let code = lost.lineage.code.as_ref().unwrap_or(&nothing);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut variables = vec![
        ("RETRAIN_MODEL_NAME", lost.version.id.model.clone()),
        ("RETRAIN_MODEL_VERSION", lost.version.number().to_owned()),
        ("RETRAIN_RUN_ID", text(&lost.version.run_id)),
        ("RETRAIN_REPOSITORY", text(&code.repository)),
        ("RETRAIN_COMMIT", text(&code.commit)),
        ("RETRAIN_BRANCH", text(&code.branch)),
        ("RETRAIN_ENTRY_POINT", text(&code.entry_point)),
        (
            "RETRAIN_PARAMETERS",
            json!(lost.lineage.parameters).to_string(),
        ),
        ("RETRAIN_DATASETS", json!(lost.lineage.datasets).to_string()),
    ];
    variables.extend(tracking_uri.map(|uri| (names::MLFLOW_TRACKING_URI, uri.to_owned())));
    variables
}

/// Variables that the container sets itself win.
fn give(container: &mut Value, variables: &[(&'static str, String)]) {
    let Some(container) = container.as_object_mut() else {
        return;
    };
    let env = container.entry("env").or_insert_with(|| json!([]));
    let Some(env) = env.as_array_mut() else {
        return;
    };
    for (name, value) in variables {
        if !env.iter().any(|each| each["name"] == *name) {
            env.push(json!({"name": name, "value": escape(value)}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding() -> AliasBinding {
        serde_json::from_value(json!({
            "apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding",
            "metadata": {"name": "taxi", "namespace": "ml", "uid": "u"},
            "spec": {"modelRef": {"name": "m"}, "alias": "champion", "targetRef": {"name": "server"},
                "retrain": {"jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [
                    {"name": "train", "image": "a", "env": [{"name": "MLFLOW_TRACKING_URI", "value": "mine"}]}]}}}}}}}))
        .expect("a binding")
    }

    fn lost(uri: &str) -> Lost {
        serde_json::from_value(json!({"model": "nyc-taxi", "version": "3", "artifactURI": uri, "since": "2026-11-23T12:00:00Z",
            "lineage": {"code": {"repository": "https://git.example/taxi", "commit": "abc"}, "parameters": {"alpha": "$$(HOME) $1"}}}))
        .expect("a loss")
    }

    fn job(uri: &str) -> RetrainJob {
        let binding = binding();
        let retrain = binding.spec.retrain.clone().expect("retrain");
        retrain_job(&binding, &retrain, Some("http://mlflow"), &lost(uri))
    }

    fn env(job: &RetrainJob, name: &str) -> String {
        let env = job.manifest["spec"]["template"]["spec"]["containers"][0]["env"]
            .as_array()
            .expect("env");
        let found = env
            .iter()
            .find(|each| each["name"] == name)
            .expect("the variable");
        found["value"].as_str().expect("a value").to_owned()
    }

    #[test]
    fn the_same_lost_version_gives_the_same_job_and_another_one_another() {
        assert_eq!(job("s3://m/3"), job("s3://m/3"));
        assert_ne!(job("s3://m/3").name, job("s3://other/3").name);
        assert!(job("s3://m/3").name.starts_with("taxi-retrain-3-"));
    }

    #[test]
    fn two_bindings_never_share_a_jobs_name_and_it_fits_into_a_label() {
        let job_of = |name: &str, uid: &str| {
            let mut binding = binding();
            binding.metadata.name = Some(name.to_owned());
            binding.metadata.uid = Some(uid.to_owned());
            let mut lost = lost("s3://m/3");
            lost.version.id.version = "1234567890123456789".to_owned();
            job_name(&binding, &lost)
        };
        let long = "a-binding-with-a-name-that-is-longer-than-a-job-can-hold";
        let names = [
            job_of(&format!("{long}-a"), "1"),
            job_of(&format!("{long}-b"), "2"),
            job_of(&format!("{long}-b"), "3"),
        ];
        assert!(names[0] != names[1] && names[1] != names[2], "{names:?}");
        assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
    }

    #[test]
    fn the_job_gets_the_recorded_facts_and_keeps_its_own_variables() {
        let job = job("s3://m/3");
        assert_eq!(env(&job, "RETRAIN_MODEL_NAME"), "nyc-taxi");
        assert_eq!(env(&job, "RETRAIN_COMMIT"), "abc");
        assert_eq!(env(&job, "RETRAIN_BRANCH"), "");
        assert_eq!(env(&job, "MLFLOW_TRACKING_URI"), "mine");
        assert_eq!(
            env(&job, "RETRAIN_PARAMETERS"),
            r#"{"alpha":"$$$$(HOME) $$1"}"#,
            "the kubelet makes it what MLflow recorded"
        );
    }

    #[test]
    fn the_binding_owns_the_job() {
        let job = job("s3://m/3");
        assert_eq!(job.manifest["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(
            job.manifest["metadata"]["labels"]["pointsman.dev/binding"],
            "taxi"
        );
    }
}
