//! `spec.inject` of an `AliasBinding`: the containers that get a version, and the names of its variables.
//!
//! Absent: values. They are a function of the version; see `targets`.

use std::fmt;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// The containers that a version is injected into, and its variables.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inject {
    /// The containers that get the version's variables; init containers may be named too. Default: the container that the pod
    /// template's annotation kubectl.kubernetes.io/default-container names, else the one that has them already, else the
    /// first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::container_names")]
    pub containers: Option<Vec<String>>,
    /// The variables to set, each with a name of your choice. They come before the container's own variables that refer to
    /// them as $(NAME). Default: MODEL_NAME, MODEL_VERSION, MODEL_ALIAS, MODEL_URI, MODEL_RUN_ID, MLFLOW_MODEL_URI, and
    /// MLFLOW_TRACKING_URI and MLFLOW_WORKSPACE unless the container sets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::variables::<InjectedVariable>")]
    pub variables: Option<Vec<InjectedVariable>>,
    /// The fields to set in a kind without pods of its own (spec.targetRef). Default for KServe: the field of the model's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::fields::<InjectedField>")]
    pub fields: Option<Vec<InjectedField>>,
}

/// A field of an object, and the value that it gets.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InjectedField {
    /// The path of the field below spec, such as spec.model.uri; an element of a list is chosen by one of its members:
    /// spec.containers[name=server].image. Maps on the way are made if they are missing, elements of lists are not.
    #[schemars(
        regex(pattern = r"^spec(\.[A-Za-z0-9_-]+|\[[A-Za-z0-9_.-]+=[A-Za-z0-9._/-]+\])+$"),
        length(max = 256)
    )]
    #[x_kube(validation = Rule::new("!self.endsWith(']')").message("a path ends with the member to set, such as spec.containers[name=server].image"))]
    pub path: String,
    /// The value, with references to the version: $(ModelName), $(ModelVersion), $(ModelAlias), $(ModelURI), $(RunID),
    /// $(MLflowModelURI), $(TrackingURI) and $(Workspace).
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^([^$]|[$][(](ModelName|ModelVersion|ModelAlias|ModelURI|RunID|MLflowModelURI|TrackingURI|Workspace)[)])*$')").message("a value refers to $(ModelName), $(ModelVersion), $(ModelAlias), $(ModelURI), $(RunID), $(MLflowModelURI), $(TrackingURI) or $(Workspace), and holds no other $"))]
    pub value: String,
}

/// A variable with the value that it gets.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InjectedVariable {
    /// The variable's name, such as STORAGE_URI.
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_.-]*$"), length(max = 128))]
    pub name: String,
    /// The value that it gets.
    pub value: InjectedValue,
}

/// What a variable tells.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum InjectedValue {
    /// The registered model's name.
    ModelName,
    /// The version's number.
    ModelVersion,
    /// The alias or stage that the binding follows.
    ModelAlias,
    /// The URI of the version's files.
    #[serde(rename = "ModelURI")]
    ModelUri,
    /// The run that logged the model.
    #[serde(rename = "RunID")]
    RunId,
    /// `models:/name/version`, for MLflow's own loaders.
    #[serde(rename = "MLflowModelURI")]
    MlflowModelUri,
    /// The registry's address for pods.
    #[serde(rename = "TrackingURI")]
    TrackingUri,
    /// The registry's workspace; not set if it has none.
    Workspace,
}

impl InjectedValue {
    /// All values, in the order in which their variables are written by default.
    pub const ALL: [Self; 8] = [
        Self::ModelName,
        Self::ModelVersion,
        Self::ModelAlias,
        Self::ModelUri,
        Self::RunId,
        Self::MlflowModelUri,
        Self::TrackingUri,
        Self::Workspace,
    ];

    /// The value as a spec names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ModelName => "ModelName",
            Self::ModelVersion => "ModelVersion",
            Self::ModelAlias => "ModelAlias",
            Self::ModelUri => "ModelURI",
            Self::RunId => "RunID",
            Self::MlflowModelUri => "MLflowModelURI",
            Self::TrackingUri => "TrackingURI",
            Self::Workspace => "Workspace",
        }
    }

    /// The value of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.as_str() == name)
    }

    /// The name of its variable if `spec.inject.variables` is not set. A template without a list of its variables has these
    /// names: another release that changes them has to write the list.
    #[must_use]
    pub const fn usual_name(self) -> &'static str {
        match self {
            Self::ModelName => "MODEL_NAME",
            Self::ModelVersion => "MODEL_VERSION",
            Self::ModelAlias => "MODEL_ALIAS",
            Self::ModelUri => "MODEL_URI",
            Self::RunId => "MODEL_RUN_ID",
            Self::MlflowModelUri => "MLFLOW_MODEL_URI",
            Self::TrackingUri => "MLFLOW_TRACKING_URI",
            Self::Workspace => "MLFLOW_WORKSPACE",
        }
    }

    /// Whether the registry says it, and not the version: a container may set such a variable itself.
    #[must_use]
    pub const fn is_of_registry(self) -> bool {
        matches!(self, Self::TrackingUri | Self::Workspace)
    }
}

impl fmt::Display for InjectedValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Inject {
    /// The variables to set: those of the spec, else the usual ones.
    #[must_use]
    pub fn variables(&self) -> Vec<InjectedVariable> {
        self.variables.clone().unwrap_or_else(usual_variables)
    }
}

/// The variables that are set if the spec names none.
#[must_use]
pub fn usual_variables() -> Vec<InjectedVariable> {
    let usual = |value: InjectedValue| InjectedVariable {
        name: value.usual_name().to_owned(),
        value,
    };
    InjectedValue::ALL.into_iter().map(usual).collect()
}

/// A list of variables as an annotation: `STORAGE_URI=ModelURI,VERSION=ModelVersion`.
#[must_use]
pub fn to_annotation(variables: &[InjectedVariable]) -> String {
    let pairs = variables
        .iter()
        .map(|each| format!("{}={}", each.name, each.value));
    pairs.collect::<Vec<_>>().join(",")
}

/// The list of variables in an annotation; values of another release are passed over.
#[must_use]
pub fn from_annotation(text: &str) -> Vec<InjectedVariable> {
    let pair = |pair: &str| {
        let (name, value) = pair.rsplit_once('=')?;
        Some(InjectedVariable {
            name: name.to_owned(),
            value: InjectedValue::parse(value)?,
        })
    };
    text.split(',').filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_variables_is_read_back_from_its_annotation() {
        let variables = usual_variables();
        assert_eq!(from_annotation(&to_annotation(&variables)), variables);
    }

    #[test]
    fn a_value_is_written_in_specs_as_in_annotations() {
        for value in InjectedValue::ALL {
            let written = serde_json::to_value(value).expect("a word");
            assert_eq!(written, value.as_str());
        }
    }
}
