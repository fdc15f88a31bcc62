//! The objects of a plan: read from the cluster with the person's rights, and from manifests that are not applied.
//!
//! Absent: requests to a registry or a store.

use std::fs;
use std::io::Read;
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet as WholeReplicaSet;
use k8s_openapi::api::core::v1::{Namespace, Pod as WholePod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ListParams, Patch, PatchParams, ValidationDirective};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::prediction::Inputs;
use crate::api::conditions::{READY, find};
use crate::api::reason::Problem;
use crate::api::{AliasBinding, ModelRegistry, Reason, RegisteredModel, names};
use crate::cli::Failure;
use crate::cli::change::MANAGER;
use crate::cli::cluster::Cluster;
use crate::rollout::Freeze;

/// The UID of an object that does not exist yet, in a plan for it.
const NO_UID: &str = "(assigned when it is created)";

/// The objects of a manifest.
#[derive(Clone, Debug, Default)]
pub struct Manifest(Vec<Value>);

impl Manifest {
    /// Reads a file, or the standard input for `-`.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let mut text = String::new();
        if path == Path::new("-") {
            std::io::stdin().read_to_string(&mut text)?;
        } else {
            text = fs::read_to_string(path)
                .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        }
        Self::parse(&text)
    }

    /// The objects of a text with any number of YAML or JSON documents.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|error| format!("the manifest is no YAML: {error}"))?;
        let mut objects = Vec::new();
        for document in documents {
            match document.get("items").and_then(Value::as_array) {
                Some(items) if document["kind"] == "List" => objects.extend(items.iter().cloned()),
                _ => objects.push(document),
            }
        }
        Ok(Self(objects))
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    fn find<'a>(&'a self, kind: &str, name: &str) -> Option<&'a Value> {
        self.0
            .iter()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
    }

    /// The binding of this name; the only one if no name is given.
    pub fn binding(&self, name: Option<&str>) -> Result<&Value, Failure> {
        let all: Vec<&Value> = self.of_kind("AliasBinding").collect();
        let named = |binding: &Value| {
            binding["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let all_names: Vec<String> = all.iter().map(|binding| named(binding)).collect();
        let all_names = all_names.join(", ");
        match (name, all.as_slice()) {
            (_, []) => Err("the manifest holds no AliasBinding".into()),
            (Some(name), _) => match self.find("AliasBinding", name) {
                Some(binding) => Ok(binding),
                None => Err(
                    format!("the manifest holds no AliasBinding {name}, but {all_names}").into(),
                ),
            },
            (None, [binding]) => Ok(binding),
            (None, _) => Err(format!(
                "the manifest holds several AliasBindings: name one of {all_names}"
            )
            .into()),
        }
    }
}

/// The binding as it is when a manifest is applied over the one in the cluster, if there is one.
pub fn applied(
    manifest: AliasBinding,
    existing: Option<AliasBinding>,
    namespace: &str,
    now: Timestamp,
) -> AliasBinding {
    let Some(mut binding) = existing else {
        let mut binding = manifest;
        binding.metadata.namespace = Some(namespace.to_owned());
        binding.metadata.uid = Some(NO_UID.to_owned());
        binding.metadata.generation = Some(1);
        // The oldest of several bindings drives a workload.
        binding.metadata.creation_timestamp = Some(Time(now));
        binding.status = None;
        return binding;
    };
    if binding.spec != manifest.spec {
        let generation = binding.metadata.generation.unwrap_or_default();
        binding.metadata.generation = Some(generation + 1);
    }
    binding.spec = manifest.spec;
    let annotations = manifest.metadata.annotations.unwrap_or_default();
    binding.annotations_mut().extend(annotations);
    let labels = manifest.metadata.labels.unwrap_or_default();
    binding.labels_mut().extend(labels);
    binding
}

/// The binding of a manifest, checked as the API server would check it.
pub async fn binding_of_manifest(
    cluster: &Cluster,
    manifest: &Manifest,
    name: Option<&str>,
    now: Timestamp,
) -> Result<AliasBinding, Failure> {
    let object = manifest.binding(name)?;
    let binding: AliasBinding = serde_json::from_value(object.clone())
        .map_err(|error| format!("the AliasBinding of the manifest is not valid: {error}"))?;
    let api = cluster.api::<AliasBinding>();
    let name = binding.name_any();
    let params = PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply(MANAGER).force().dry_run()
    };
    match api.patch(&name, &params, &Patch::Apply(object)).await {
        Ok(_) => {}
        // Who may only read gets a plan too.
        Err(kube::Error::Api(answer)) if answer.is_forbidden() => {
            eprintln!("not checked by the API server: you may not patch AliasBinding {name}");
            binding
                .validate_cel()
                .map_err(|errors| format!("AliasBinding {name} is not valid: {errors}"))?;
        }
        Err(kube::Error::Api(answer)) => {
            return Err(format!("AliasBinding {name} is refused: {}", answer.message).into());
        }
        Err(error) => {
            return Err(cluster.explain::<AliasBinding>(
                "patch",
                Some(&name),
                Some(&cluster.namespace),
                &error,
            ));
        }
    }
    let existing = api.get_opt(&name).await;
    let existing = existing.map_err(|error| {
        cluster.explain::<AliasBinding>("get", Some(&name), Some(&cluster.namespace), &error)
    })?;
    Ok(applied(binding, existing, &cluster.namespace, now))
}

/// Everything that the decision about a binding is made from. Objects that the cluster lacks come from the manifest, if there is
/// one.
pub async fn gather(
    cluster: &Cluster,
    binding: AliasBinding,
    manifest: &Manifest,
) -> Result<Inputs, Failure> {
    let model = model(cluster, &binding.spec.model_ref.name, manifest).await?;
    let registry = match &model {
        Some(model) => registry(cluster, model).await,
        None => None,
    };
    let frozen = namespace_freeze(cluster).await;
    let workload = workload(cluster, &binding, manifest).await?;
    let bindings = cluster.all::<AliasBinding>().await?;
    let is_rival = |other: &AliasBinding| {
        other.metadata.name != binding.metadata.name
            && other.target_kind() == binding.target_kind()
            && other.workload_name() == binding.workload_name()
    };
    let labelled =
        ListParams::default().labels(&format!("{}={}", names::BINDING_LABEL, binding.name_any()));
    Ok(Inputs {
        rivals: bindings.into_iter().filter(is_rival).collect(),
        pods: listed::<WholePod, _>(cluster, labelled.clone()).await,
        replica_sets: listed::<WholeReplicaSet, _>(cluster, labelled).await,
        outage: registry.as_ref().and_then(outage),
        freeze: Freeze::in_force(&binding, frozen, registry.as_ref()),
        binding,
        model,
        workload,
    })
}

async fn model(
    cluster: &Cluster,
    name: &str,
    manifest: &Manifest,
) -> Result<Option<RegisteredModel>, Failure> {
    let found = cluster.api::<RegisteredModel>().get_opt(name).await;
    let found = found.map_err(|error| {
        cluster.explain::<RegisteredModel>("get", Some(name), Some(&cluster.namespace), &error)
    })?;
    if found.is_some() {
        return Ok(found);
    }
    let written = manifest.find("RegisteredModel", name).cloned();
    let written = written.map(serde_json::from_value).transpose();
    Ok(written
        .map_err(|error| format!("RegisteredModel {name} of the manifest is not valid: {error}"))?)
}

/// The registry of a model. Who may not read it sees neither its outage nor its freeze.
async fn registry(cluster: &Cluster, model: &RegisteredModel) -> Option<ModelRegistry> {
    let registries: Api<ModelRegistry> =
        Api::namespaced(cluster.client.clone(), &model.registry_namespace());
    let name = &model.spec.registry_ref.name;
    match registries.get_opt(name).await {
        Ok(registry) => registry,
        Err(error) => {
            eprintln!("ModelRegistry {name} is taken for well and not frozen: {error}");
            None
        }
    }
}

/// The outage that the registry's own status tells.
fn outage(registry: &ModelRegistry) -> Option<Problem> {
    let ready = find(&registry.status.as_ref()?.conditions, READY)?;
    let reason = Reason::parse(&ready.reason)?;
    let is_outage = ready.status == "False" && reason.is_registry_outage();
    is_outage.then(|| Problem::new(reason, ready.message.clone()))
}

/// The reason of the namespace's own freeze, if there is one.
async fn namespace_freeze(cluster: &Cluster) -> Option<String> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    match namespaces.get(&cluster.namespace).await {
        Ok(namespace) => namespace
            .annotations()
            .get(names::FREEZE_ANNOTATION)
            .cloned(),
        Err(error) => {
            eprintln!(
                "namespace {} is taken for not frozen: {error}",
                cluster.namespace
            );
            None
        }
    }
}

/// The binding's workload with all its fields.
async fn workload(
    cluster: &Cluster,
    binding: &AliasBinding,
    manifest: &Manifest,
) -> Result<Option<Value>, Failure> {
    let (kind, name) = (binding.target_kind(), binding.workload_name());
    match cluster.workloads(&kind).get_opt(name).await {
        Ok(Some(found)) => Ok(Some(serde_json::to_value(found)?)),
        Ok(None) => Ok(manifest.find(kind.as_str(), name).cloned()),
        Err(error) => Err(format!(
            "{}/{name} cannot be read: {error}; ask for the right to get it in namespace {}",
            kind.resource(),
            cluster.namespace
        )
        .into()),
    }
}

/// Objects that tell how the pods are. Without the right to list them they are taken for well.
async fn listed<K, T>(cluster: &Cluster, parameters: ListParams) -> Vec<T>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    T: DeserializeOwned,
{
    match cluster
        .list::<K, T>(Some(&cluster.namespace), parameters)
        .await
    {
        Ok(listed) => listed.items,
        Err(error) => {
            eprintln!("the pods are taken for well: {error}");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, With};

    const TWO: &str = "\
apiVersion: pointsman.dev/v1alpha1
kind: AliasBinding
metadata: {name: taxi, annotations: {team: ml}}
spec: {modelRef: {name: nyc-taxi}, alias: champion, targetRef: {name: server}, pinnedVersion: '4'}
---
kind: AliasBinding
metadata: {name: other}
---
kind: Deployment
metadata: {name: server}
";

    #[test]
    fn a_binding_of_a_manifest_is_found_by_its_name_or_alone() {
        let manifest = Manifest::parse(TWO).unwrap();
        assert_eq!(
            manifest.binding(Some("taxi")).unwrap()["spec"]["alias"],
            "champion"
        );
        let ambiguous = manifest.binding(None).unwrap_err().to_string();
        assert!(ambiguous.contains("taxi, other"), "{ambiguous}");
        let none = Manifest::parse("kind: Deployment").unwrap();
        assert!(none.binding(None).is_err() && manifest.binding(Some("third")).is_err());
        let list =
            Manifest::parse("{kind: List, items: [{kind: AliasBinding, metadata: {name: a}}]}")
                .unwrap();
        assert_eq!(list.binding(None).unwrap()["metadata"]["name"], "a");
    }

    #[test]
    fn a_manifest_changes_the_spec_and_keeps_the_status_of_the_cluster() {
        let manifest = Manifest::parse(TWO).unwrap();
        let written = || -> AliasBinding {
            let object = manifest.binding(Some("taxi")).unwrap();
            serde_json::from_value(object.clone()).unwrap()
        };
        let existing = testing::binding().with(|binding| binding.metadata.generation = Some(3));
        let changed = applied(written(), Some(existing.clone()), "ml", testing::now());
        assert_eq!(changed.spec.pinned_version.as_deref(), Some("4"));
        assert_eq!(changed.metadata.generation, Some(4));
        assert_eq!(changed.annotations()["team"], "ml");
        assert_eq!(
            (changed.status, changed.metadata.uid),
            (existing.status.clone(), existing.metadata.uid.clone())
        );
        let same = AliasBinding {
            spec: existing.spec.clone(),
            ..written()
        };
        assert_eq!(
            applied(same, Some(existing), "ml", testing::now())
                .metadata
                .generation,
            Some(3)
        );
        let new = applied(written(), None, "ml", testing::now());
        assert_eq!(
            (new.metadata.namespace.as_deref(), new.metadata.generation),
            (Some("ml"), Some(1))
        );
    }
}
