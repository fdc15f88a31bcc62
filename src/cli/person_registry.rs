//! The registry as a person reaches it: MLflow's own variables of the person, and the address of a `ModelRegistry`.
//!
//! Absent: the operator's credentials. They are read by nobody else.

use std::fs;

use kube::{Api, Resource, ResourceExt};

use super::Failure;
use super::cluster::Cluster;
use crate::api::public_uri::{has_user, public};
use crate::api::{ModelRegistry, RegisteredModel};
use crate::registries::{
    Connection, Credentials, RegistryClient, RegistryError, RequestMetrics, Server,
};

/// A registry with the person's rights.
pub struct PersonRegistry {
    /// The client.
    pub client: RegistryClient,
    /// Its address, for people.
    pub address: String,
}

impl PersonRegistry {
    /// The registry of a model. Nothing is sent yet.
    pub async fn of(cluster: &Cluster, model: &RegisteredModel) -> Result<Self, Failure> {
        let registries: Api<ModelRegistry> =
            Api::namespaced(cluster.client.clone(), &model.registry_namespace());
        // Who may not read it names the address by variable.
        let registry = registries.get_opt(&model.spec.registry_ref.name).await;
        let registry = registry.ok().flatten();
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let connection = connection(variable, registry.as_ref())?;
        let address = match &connection.server {
            Server::Mlflow { uri, .. } => public(uri).to_owned(),
            #[cfg(test)]
            Server::Memory(_) => String::new(),
        };
        let client = RegistryClient::connect(connection, RequestMetrics::default());
        let client = client.map_err(|error| failure(&error, &address, ""))?;
        Ok(Self { client, address })
    }

    /// The failure of a request that reads, with a remedy on the person's side.
    pub fn explain(&self, error: &RegistryError) -> Failure {
        failure(error, &self.address, "reading takes the permission READ")
    }

    /// The failure of a request that sets an alias.
    pub fn explain_alias(&self, error: &RegistryError) -> Failure {
        failure(
            error,
            &self.address,
            "setting an alias takes the permission EDIT",
        )
    }
}

/// The model of this name in the namespace: an object's name, or else the registered model's.
pub fn find_model<'a>(
    models: &'a [RegisteredModel],
    name: &str,
    namespace: &str,
) -> Result<&'a RegisteredModel, Failure> {
    let by_object = models.iter().find(|model| model.name_any() == name);
    let by_model = || models.iter().find(|model| model.model_name() == name);
    by_object.or_else(by_model).ok_or_else(|| {
        format!(
            "there is no RegisteredModel {name} in namespace {namespace}; list them: kubectl get {} -A",
            RegisteredModel::plural(&())
        )
        .into()
    })
}

fn connection(
    variable: impl Fn(&str) -> Option<String>,
    registry: Option<&ModelRegistry>,
) -> Result<Connection, Failure> {
    let spec = registry.map(|registry| &registry.spec);
    let own = variable("MLFLOW_TRACKING_URI");
    let uri = own.or_else(|| spec.map(|spec| spec.pod_address().to_owned()));
    let Some(uri) = uri else {
        return Err(
            "the ModelRegistry cannot be read: set MLFLOW_TRACKING_URI to the address of MLflow"
                .into(),
        );
    };
    if has_user(&uri) {
        return Err("MLFLOW_TRACKING_URI must hold no password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD".into());
    }
    if !uri.starts_with("http://") && !uri.starts_with("https://") {
        return Err(format!(
            "{} is no MLflow server: set MLFLOW_TRACKING_URI to an address with http or https",
            public(&uri)
        )
        .into());
    }
    let workspace = variable("MLFLOW_WORKSPACE");
    let workspace = workspace.or_else(|| spec.and_then(|spec| spec.workspace().map(str::to_owned)));
    let mut connection = Connection::new(Server::Mlflow { uri, workspace });
    connection.credentials = match (
        variable("MLFLOW_TRACKING_TOKEN"),
        variable("MLFLOW_TRACKING_USERNAME"),
    ) {
        // MLflow's own client prefers the user name too.
        (_, Some(username)) => Credentials::Basic {
            username,
            password: variable("MLFLOW_TRACKING_PASSWORD").unwrap_or_default(),
        },
        (Some(token), None) => Credentials::Bearer(token),
        (None, None) => Credentials::None,
    };
    if let Some(path) = variable("MLFLOW_TRACKING_SERVER_CERT_PATH") {
        let pem = fs::read_to_string(&path);
        let pem = pem.map_err(|error| {
            format!("MLFLOW_TRACKING_SERVER_CERT_PATH {path} cannot be read: {error}")
        })?;
        connection.ca_pem = Some(pem);
    }
    Ok(connection)
}

/// `right` says which permission the request takes.
fn failure(error: &RegistryError, address: &str, right: &str) -> Failure {
    match error {
        RegistryError::Unreachable { cause, .. } => format!(
            "MLflow at {address} does not respond: {cause}; set MLFLOW_TRACKING_URI to an address that this machine reaches"
        ),
        RegistryError::Unauthenticated { sent, .. } => format!(
            "MLflow at {address} does not accept {sent}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        ),
        RegistryError::Forbidden { .. } => format!(
            "MLflow at {address} does not let you: {right} on the model; ask its owner"
        ),
        other => format!("MLflow at {address}: {other}"),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn registry() -> ModelRegistry {
        let spec = json!({"mlflow": {"uri": "http://mlflow.mlflow.svc:5000", "podURI": "https://mlflow.corp", "workspace": "ml"}});
        serde_json::from_value(json!({"apiVersion": "pointsman.dev/v1alpha1", "kind": "ModelRegistry", "metadata": {"name": "mlflow"}, "spec": spec})).unwrap()
    }

    fn with(
        variables: &[(&str, &str)],
        registry: Option<&ModelRegistry>,
    ) -> Result<Connection, Failure> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        connection(variable, registry)
    }

    fn server(connection: &Connection) -> (&str, Option<&str>) {
        match &connection.server {
            Server::Mlflow { uri, workspace } => (uri, workspace.as_deref()),
            Server::Memory(_) => ("", None),
        }
    }

    #[test]
    fn the_address_is_the_persons_or_the_one_that_pods_get() {
        let of_pods = with(&[], Some(&registry())).unwrap();
        assert_eq!(server(&of_pods), ("https://mlflow.corp", Some("ml")));
        let own = [
            ("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000"),
            ("MLFLOW_WORKSPACE", "mine"),
        ];
        let own = with(&own, Some(&registry())).unwrap();
        assert_eq!(server(&own), ("http://127.0.0.1:5000", Some("mine")));
        let nothing = with(&[], None).unwrap_err().to_string();
        assert!(nothing.contains("set MLFLOW_TRACKING_URI"), "{nothing}");
    }

    #[test]
    fn credentials_are_those_of_mlflows_own_client_and_never_shown() {
        let uri = ("MLFLOW_TRACKING_URI", "http://mlflow");
        let basic = [
            uri,
            ("MLFLOW_TRACKING_USERNAME", "ada"),
            ("MLFLOW_TRACKING_PASSWORD", "hunter2"),
            ("MLFLOW_TRACKING_TOKEN", "t"),
        ];
        let expected = Credentials::Basic {
            username: "ada".into(),
            password: "hunter2".into(),
        };
        assert!(with(&basic, None).unwrap().credentials == expected);
        let bearer = with(&[uri, ("MLFLOW_TRACKING_TOKEN", "t")], None).unwrap();
        assert!(bearer.credentials == Credentials::Bearer("t".into()));
        for wrong in ["http://ada:hunter2@mlflow", "sqlite:///hunter2.db?hunter2"] {
            let refused = with(&[("MLFLOW_TRACKING_URI", wrong)], None)
                .unwrap_err()
                .to_string();
            assert!(
                refused.contains("MLFLOW_TRACKING_U")
                    && !refused.contains("?hunter2")
                    && !refused.contains("ada"),
                "{refused}"
            );
        }
    }
}
