//! The fields that one version sets in a workload: a pure function of the binding's spec and the version.
//!
//! Absent: anything that differs between two reconciles of the same version: times, counters.

use serde_json::{Map, Value};

use super::fields::fields_of;
use super::target::Target;
use super::{field_path, fields};
use crate::api::inject::{InjectedValue, from_annotation, to_annotation, usual_variables};
use crate::api::reason::Problem;
use crate::api::{AliasBinding, ModelVersion, Reason, RegisteredModelStatus, VersionRef, names};

/// The version that a workload should hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DesiredVersion {
    /// The version; its artifact URI is known.
    pub version: VersionRef,
}

impl DesiredVersion {
    /// A mirrored version, with the registry's address and workspace of the same mirror; `None` if it has no artifact.
    #[must_use]
    pub fn from_mirror(
        model: &str,
        version: &ModelVersion,
        mirror: &RegisteredModelStatus,
    ) -> Option<Self> {
        version.artifact_uri.as_ref()?;
        Some(Self {
            version: VersionRef {
                tracking_uri: mirror.tracking_uri.clone(),
                workspace: mirror.workspace.clone(),
                ..version.reference(model)
            },
        })
    }

    /// The version's number.
    #[must_use]
    pub fn number(&self) -> &str {
        &self.version.id.version
    }

    /// The URI of the version's files.
    #[must_use]
    pub fn artifact_uri(&self) -> &str {
        self.version.artifact_uri.as_deref().unwrap_or_default()
    }
}

/// A variable with its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value as pods get it.
    pub value: String,
    /// Whether it is left out of containers that set it themselves.
    pub yields: bool,
}

/// The fields that one version sets.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Injection {
    /// The binding's name, for the label.
    pub binding: String,
    /// The version's number, for the annotation.
    pub version: String,
    /// The digest of the version's identity, for the annotation; `None` if the identity is not fully known.
    pub version_id: Option<String>,
    /// The change cause in `kubectl rollout history`; `None` if it is somebody else's.
    pub change_cause: Option<String>,
    /// The containers that get the variables; init containers too.
    pub containers: Vec<String>,
    /// The artifact URI, if its query is known only while the version is written.
    pub withheld_uri: Option<String>,
    /// The variables, in the order in which they are written.
    pub variables: Vec<Variable>,
    /// The list of variables, for the annotation; `None` if they have their usual names.
    pub list: Option<String>,
    /// The list of containers, for the annotation; `None` if managed fields tell them.
    pub container_list: Option<String>,
    /// Whether the binding makes the whole workload from its template.
    pub is_whole: bool,
}

impl Injection {
    /// The fields that a version sets in the chosen containers.
    #[must_use]
    pub fn new(binding: &AliasBinding, desired: &DesiredVersion, containers: Vec<String>) -> Self {
        let follows = binding.spec.follows();
        let (id, number) = (&desired.version.id, desired.number());
        let variables = &binding.spec.inject.variables;
        Self {
            binding: binding.metadata.name.clone().unwrap_or_default(),
            change_cause: Some(format!("{} version {number} ({follows})", id.model)),
            version: number.to_owned(),
            version_id: id.is_complete().then(|| id.digest()),
            containers,
            withheld_uri: withheld_uri(&desired.version),
            variables: variables_of(binding, &desired.version),
            list: variables.as_deref().map(to_annotation),
            container_list: None,
            is_whole: binding.spec.template.is_some(),
        }
    }

    /// The fields that a version sets in a workload: an existing one, or the one that the binding's template makes.
    ///
    /// # Errors
    /// If the pod template has no container that the spec chooses.
    pub fn of(
        binding: &AliasBinding,
        target: Option<&Target>,
        desired: &DesiredVersion,
    ) -> Result<Self, Problem> {
        if let Some(obstacle) = target.and_then(|target| target.obstacle.as_ref()) {
            return Err(Problem::new(Reason::InvalidSpec, obstacle));
        }
        let present = match &binding.spec.template {
            Some(template) => Containers::of_template(&template.spec),
            None => target.map(Containers::of_target).unwrap_or_default(),
        };
        let holder = target.and_then(Target::holder);
        let mut injection = Self::new(binding, desired, present.chosen(binding, holder));
        present.check(&injection.containers)?;
        let is_set_by_template = binding.spec.template.as_ref().is_some_and(|template| {
            let annotations = &template.metadata.annotations;
            annotations.contains_key(names::CHANGE_CAUSE_ANNOTATION)
        });
        if is_set_by_template || target.is_some_and(Target::has_foreign_change_cause) {
            injection.change_cause = None;
        }
        // A list that an undo brought back is overwritten: an annotation of another manager cannot be removed.
        if target.is_some_and(|target| target.variable_list().is_some()) {
            let usual = || to_annotation(&usual_variables());
            injection.list.get_or_insert_with(usual);
        }
        if let Some(target) = target.filter(|target| target.has_plain_lists()) {
            injection.list_exactly(binding, target);
        }
        if let Some(object) = target.and_then(Target::object) {
            injection.change_cause = None;
            injection.check_fields(object)?;
        }
        Ok(injection)
    }

    /// Whether every field can be set.
    fn check_fields(&self, object: &Value) -> Result<(), Problem> {
        let mut object = object.clone();
        for field in &self.variables {
            if let Err(missing) = field_path::set(&mut object, &field.name, &field.value) {
                let message = format!(
                    "inject.fields names {}, but the object has no {missing} for it: add it there, or correct the path",
                    field.name
                );
                return Err(Problem::new(Reason::InvalidSpec, message));
            }
        }
        Ok(())
    }

    /// Lists the variables and containers that are written, because managed fields will not tell them. A variable that a
    /// container sets itself is left out of all.
    fn list_exactly(&mut self, binding: &AliasBinding, target: &Target) {
        let is_users = |name: &str| {
            let mut chosen = self.containers.iter();
            chosen.any(|container| target.is_set_by_others(container, name))
        };
        self.variables
            .retain(|each| !(each.yields && is_users(&each.name)));
        let fields = fields_of(binding);
        let mut listed = binding.spec.inject.variables();
        listed.retain(|each| self.names_variable(&each.name));
        self.list = Some(if fields.is_empty() {
            to_annotation(&listed)
        } else {
            fields::to_annotation(&fields)
        });
        self.container_list = Some(self.containers.join(","));
    }

    /// The same with this query at the end of the artifact URI.
    #[must_use]
    pub fn with_query(&self, query: &str) -> Self {
        let mut whole = self.clone();
        for variable in &mut whole.variables {
            if self.withholds_query_of(&variable.value) {
                variable.value.push_str(query);
            }
        }
        whole
    }

    /// Whether a value is the artifact URI without its query.
    pub(super) fn withholds_query_of(&self, value: &str) -> bool {
        self.withheld_uri.as_deref() == Some(value)
    }

    /// The annotations of the pod template.
    pub(super) fn annotations(&self) -> Vec<(&'static str, &str)> {
        let mut annotations = vec![(names::VERSION_ANNOTATION, self.version.as_str())];
        if let Some(id) = &self.version_id {
            annotations.push((names::VERSION_ID_ANNOTATION, id));
        }
        if let Some(list) = &self.list {
            annotations.push((names::VARIABLES_ANNOTATION, list));
        }
        if let Some(list) = &self.container_list {
            annotations.push((names::CONTAINERS_ANNOTATION, list));
        }
        annotations
    }

    /// The variables of a container that sets some itself.
    pub(super) fn variables(&self, users: impl Fn(&str) -> bool) -> Vec<(&str, &str)> {
        let set = self
            .variables
            .iter()
            .filter(|each| !(each.yields && users(&each.name)));
        set.map(|each| (each.name.as_str(), each.value.as_str()))
            .collect()
    }

    /// Whether a variable of this name is set.
    pub(super) fn names_variable(&self, name: &str) -> bool {
        self.variables.iter().any(|each| each.name == name)
    }

    /// A version with the location of its files and the address of the registry that this writes.
    #[must_use]
    pub fn intended(&self, mut version: VersionRef) -> VersionRef {
        let list = self.list.as_deref();
        let list = list.map_or_else(usual_variables, from_annotation);
        let value = |value: InjectedValue| {
            let variable = list.iter().find(|each| each.value == value)?;
            self.value(&variable.name).map(str::to_owned)
        };
        version.artifact_uri = value(InjectedValue::ModelUri).or(version.artifact_uri);
        version.tracking_uri = value(InjectedValue::TrackingUri).or(version.tracking_uri);
        version
    }

    /// The value of a variable.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let variable = self.variables.iter().find(|each| each.name == name)?;
        Some(&variable.value)
    }
}

fn withheld_uri(version: &VersionRef) -> Option<String> {
    let uri = version.artifact_uri.as_ref()?;
    version.query_withheld.then(|| uri.clone())
}

fn variables_of(binding: &AliasBinding, version: &VersionRef) -> Vec<Variable> {
    let fields = fields_of(binding);
    if !fields.is_empty() {
        let value_of = |value| value_of(value, binding, version);
        let fields = fields.into_iter().filter_map(|field| {
            Some(Variable {
                value: fields::filled_in(&field.value, value_of)?,
                name: field.path,
                yields: false,
            })
        });
        return fields.collect();
    }
    let inject = &binding.spec.inject;
    let is_usual = inject.variables.is_none();
    let variable = |name: String, value: InjectedValue| {
        Some(Variable {
            name,
            value: value_of(value, binding, version)?,
            yields: is_usual && value.is_of_registry(),
        })
    };
    let variables = inject.variables();
    variables
        .into_iter()
        .filter_map(|each| variable(each.name, each.value))
        .collect()
}

/// A value of a version; `None` if the registry does not say it.
fn value_of(value: InjectedValue, binding: &AliasBinding, version: &VersionRef) -> Option<String> {
    let (model, number) = (&version.id.model, version.number());
    Some(match value {
        InjectedValue::ModelName => model.clone(),
        InjectedValue::ModelVersion => number.to_owned(),
        InjectedValue::ModelAlias => binding.spec.follows().to_owned(),
        InjectedValue::ModelUri => version.artifact_uri.clone().unwrap_or_default(),
        InjectedValue::RunId => version.run_id.clone().unwrap_or_default(),
        InjectedValue::MlflowModelUri => format!("models:/{model}/{number}"),
        InjectedValue::TrackingUri => version.tracking_uri.clone()?,
        InjectedValue::Workspace => version.workspace.clone()?,
    })
}

/// The containers by which the health of the version in a workload is assessed.
#[must_use]
pub fn examined_containers(binding: &AliasBinding, target: &Target) -> Vec<String> {
    Containers::of_target(target).examined(binding, target.holder())
}

/// The names of a pod template's containers.
#[derive(Default)]
struct Containers<'a> {
    regular: Vec<&'a str>,
    init: Vec<&'a str>,
    /// The one that the pod template's annotation names.
    default: Option<&'a str>,
}

impl<'a> Containers<'a> {
    fn of_target(target: &'a Target) -> Self {
        let template = &target.template;
        let annotations = &template.metadata.annotations;
        let default = annotations.get(names::DEFAULT_CONTAINER_ANNOTATION);
        let spec = &template.spec;
        let (containers, init) = (spec.containers.iter(), spec.init_containers.iter());
        Self {
            regular: containers.map(|each| each.name.as_str()).collect(),
            init: init.map(|each| each.name.as_str()).collect(),
            default: default.map(String::as_str),
        }
    }

    /// Reads the spec of a binding's template.
    fn of_template(spec: &'a Map<String, Value>) -> Self {
        let Some(template) = spec.get("template") else {
            return Self::default();
        };
        let names = |list: &str| -> Vec<&'a str> {
            let containers = template["spec"][list].as_array().into_iter().flatten();
            let names = containers.map(|container| container["name"].as_str());
            names.flatten().collect()
        };
        let default = &template["metadata"]["annotations"][names::DEFAULT_CONTAINER_ANNOTATION];
        Self {
            regular: names("containers"),
            init: names("initContainers"),
            default: default.as_str(),
        }
    }

    /// The containers that `spec.inject` chooses: the named ones, else the default one, else the one that holds the version,
    /// else the first.
    fn chosen(&self, binding: &AliasBinding, holder: Option<&'a str>) -> Vec<String> {
        if let Some(names) = &binding.spec.inject.containers {
            return names.clone();
        }
        let first = self.regular.first().copied();
        let mut preferred = [self.default, holder, first].into_iter().flatten();
        let chosen = preferred.find(|name| self.regular.contains(name));
        chosen.into_iter().map(str::to_owned).collect()
    }

    /// The containers whose health is the version's: the chosen ones; if these are init containers only, also the container that
    /// uses their files.
    fn examined(&self, binding: &AliasBinding, holder: Option<&'a str>) -> Vec<String> {
        let mut examined = self.chosen(binding, holder);
        if !examined
            .iter()
            .any(|name| self.regular.contains(&name.as_str()))
        {
            let first = self.regular.first().copied();
            let user = self
                .default
                .filter(|name| self.regular.contains(name))
                .or(first);
            examined.extend(user.map(str::to_owned));
        }
        examined
    }

    fn check(&self, chosen: &[String]) -> Result<(), Problem> {
        let present: Vec<&str> = self.regular.iter().chain(&self.init).copied().collect();
        let is_missing = |name: &&String| !present.contains(&name.as_str());
        let missing: Vec<String> = chosen.iter().filter(is_missing).cloned().collect();
        if missing.is_empty() && !chosen.is_empty() {
            return Ok(());
        }
        let or = |names: String, none: &str| {
            if names.is_empty() {
                none.to_owned()
            } else {
                names
            }
        };
        let (chosen, present) = (
            or(missing.join(", "), "no container"),
            or(present.join(", "), "none"),
        );
        let message = format!(
            "spec.inject.containers names {chosen}, but the pod template has {present}: correct one of the two"
        );
        Err(Problem::new(Reason::InvalidSpec, message))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;
    use crate::targets::Workload;

    fn binding(inject: &Value) -> AliasBinding {
        serde_json::from_value(json!({
            "apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding", "metadata": {"name": "taxi"},
            "spec": {"modelRef": {"name": "m"}, "alias": "champion", "targetRef": {"name": "server"}, "inject": inject}}))
        .expect("a binding")
    }

    fn target(annotations: &Value, containers: &Value) -> Target {
        let workload: Workload<Deployment> =
            serde_json::from_value(json!({"metadata": {}, "spec": {"template": {
            "metadata": {"annotations": annotations},
            "spec": {"containers": containers, "initContainers": [{"name": "fetch"}]}}}}))
            .expect("a workload");
        Target::from(workload)
    }

    fn chosen(inject: &Value, target: &Target) -> Result<Vec<String>, String> {
        let desired = DesiredVersion::default();
        let injection = Injection::of(&binding(inject), Some(target), &desired);
        injection
            .map(|injection| injection.containers)
            .map_err(|problem| problem.message)
    }

    #[test]
    fn the_default_container_is_annotated_or_has_the_version_or_is_the_first() {
        let holding = json!({"name": "server", "env": [{"name": "MODEL_VERSION", "value": "4"}]});
        let containers = json!([{"name": "proxy"}, holding, {"name": "app"}]);
        let version = json!({"pointsman.dev/model-version": "4"});
        let annotated = json!({"kubectl.kubernetes.io/default-container": "app", "pointsman.dev/model-version": "4"});
        let unknown = json!({"kubectl.kubernetes.io/default-container": "gone"});
        for (annotations, name) in [
            (annotated, "app"),
            (version, "server"),
            (json!({}), "proxy"),
            (unknown, "proxy"),
        ] {
            let target = target(&annotations, &containers);
            assert_eq!(chosen(&json!({}), &target), Ok(vec![name.to_owned()]));
        }
    }

    #[test]
    fn an_init_container_is_chosen_by_its_name_only() {
        let target = target(&json!({}), &json!([{"name": "server"}]));
        let named = chosen(&json!({"containers": ["fetch", "server"]}), &target);
        assert_eq!(named, Ok(vec!["fetch".to_owned(), "server".to_owned()]));
        let misspelt = chosen(&json!({"containers": ["fetsch"]}), &target);
        let message = misspelt.expect_err("there is no such container");
        assert!(
            message.contains("the pod template has server, fetch"),
            "{message}"
        );
    }

    #[test]
    fn variables_have_the_names_of_the_spec_and_their_list_is_annotated() {
        let inject = json!({"variables": [{"name": "STORAGE_URI", "value": "ModelURI"}, {"name": "SPACE", "value": "Workspace"}]});
        let desired = DesiredVersion {
            version: VersionRef {
                artifact_uri: Some("s3://m/4".into()),
                ..VersionRef::default()
            },
        };
        let injection = Injection::new(&binding(&inject), &desired, Vec::new());
        assert_eq!(
            injection.variables(|_| false),
            [("STORAGE_URI", "s3://m/4")]
        );
        assert_eq!(
            injection.list.as_deref(),
            Some("STORAGE_URI=ModelURI,SPACE=Workspace")
        );
    }
}
