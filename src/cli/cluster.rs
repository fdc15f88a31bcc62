//! The cluster of a kubeconfig, read with the person's own rights.
//!
//! Absent: discovery. The paths of all kinds are known, so a command sends the requests that it needs and no other.

use std::path::PathBuf;
use std::process::ExitCode;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::explain::{self, Attempt};
use super::{CommandResult, Failure};
use crate::api::alias_binding::TargetKind;
use crate::kubernetes::client::fenced_client;
use crate::kubernetes::lease::Fence;

/// The number of objects in one response, as kubectl asks for them.
const PAGE: u32 = 500;

/// The flags of kubectl that choose a cluster and a namespace.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArguments {
    /// The namespace. Default: that of the kubeconfig's context
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// The context of the kubeconfig. Default: the current one
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// The kubeconfig. Default: $KUBECONFIG, or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// A cluster, and the namespace that a command works in.
pub struct Cluster {
    /// The client, with the person's credentials.
    pub client: Client,
    /// The namespace of -n or of the context.
    pub namespace: String,
    address: String,
}

/// The objects of a list.
pub struct Listed<T> {
    /// Those that can be read.
    pub items: Vec<T>,
    /// The number of those that cannot, because another release wrote them.
    pub unreadable: usize,
}

/// A page of a list, whose objects are parsed one by one: one that cannot be read does not block the others.
#[derive(Deserialize)]
struct ListPage {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Box<RawValue>>,
}

/// Runs a command that uses the network.
pub fn block_on(command: impl Future<Output = CommandResult>) -> Result<ExitCode, Failure> {
    // kube and reqwest share one TLS provider. Installing it fails only if it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(command)
}

impl Cluster {
    /// Reads the kubeconfig as kubectl does. Nothing is sent yet.
    pub async fn connect(arguments: &ClusterArguments) -> Result<Self, Failure> {
        let config = configuration(arguments).await?;
        let namespace = arguments.namespace.clone();
        let address = config.cluster_url.to_string();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = fenced_client(config, Fence::open()).map_err(|error| {
            format!("the credentials of the kubeconfig cannot be used: {error}")
        })?;
        Ok(Self {
            client,
            namespace,
            address,
        })
    }

    /// The objects of a kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// One object of the namespace, which must exist.
    pub async fn get<K>(&self, name: &str) -> Result<K, Failure>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let found = self.api::<K>().get(name).await;
        found.map_err(|error| self.explain::<K>("get", Some(name), Some(&self.namespace), &error))
    }

    /// One object of the namespace; `None` if there is none of this name.
    pub async fn find<K>(&self, name: &str) -> Result<Option<K>, Failure>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        match self.api::<K>().get(name).await {
            Ok(found) => Ok(Some(found)),
            Err(kube::Error::Api(status)) if explain::is_missing_object(&status) => Ok(None),
            Err(error) => Err(self.explain::<K>("get", Some(name), Some(&self.namespace), &error)),
        }
    }

    /// The objects of a kind in the namespace, without those that cannot be read.
    pub async fn all<K>(&self) -> Result<Vec<K>, Failure>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let namespace = Some(self.namespace.as_str());
        let listed = self.list::<K, K>(namespace, ListParams::default()).await?;
        Ok(listed.items)
    }

    /// The workloads of a kind in the namespace, with all their fields.
    pub fn workloads(&self, kind: &TargetKind) -> Api<DynamicObject> {
        let version = kind.api_version();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let plural = format!("{}s", kind.as_str().to_lowercase());
        let kind = GroupVersionKind::gvk(group, version, kind.as_str());
        let resource = ApiResource::from_gvk_with_plural(&kind, &plural);
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// The objects of the kind `K`, each parsed as `T`: `Value` to print it as it is. All namespaces if `namespace` is `None`.
    pub async fn list<K, T>(
        &self,
        namespace: Option<&str>,
        parameters: ListParams,
    ) -> Result<Listed<T>, Failure>
    where
        K: Resource<DynamicType = ()>,
        T: DeserializeOwned,
    {
        let requests = kube::core::Request::new(K::url_path(&(), namespace));
        let mut parameters = parameters.limit(PAGE);
        let mut listed = Listed {
            items: Vec::new(),
            unreadable: 0,
        };
        loop {
            let request = requests.list(&parameters)?;
            let text = self.client.request_text(request).await;
            let text = text.map_err(|error| self.explain::<K>("list", None, namespace, &error))?;
            let page: ListPage = serde_json::from_str(&text)
                .map_err(|error| format!("the cluster's response is no list: {error}"))?;
            for item in page.items {
                match serde_json::from_str(item.get()) {
                    Ok(item) => listed.items.push(item),
                    Err(_) => listed.unreadable += 1,
                }
            }
            match page.metadata.continue_ {
                Some(token) if !token.is_empty() => parameters.continue_token = Some(token),
                _ => return Ok(listed),
            }
        }
    }

    /// The failure of a request for objects of a kind: state, cause and remedy.
    pub fn explain<K: Resource<DynamicType = ()>>(
        &self,
        verb: &'static str,
        name: Option<&str>,
        namespace: Option<&str>,
        error: &kube::Error,
    ) -> Failure {
        let attempt = Attempt::new::<K>(verb, name, namespace);
        explain::failure(&attempt, &self.address, error)
    }
}

async fn configuration(arguments: &ClusterArguments) -> Result<Config, Failure> {
    let options = KubeConfigOptions {
        context: arguments.context.clone(),
        ..KubeConfigOptions::default()
    };
    let remedy = "set KUBECONFIG or --kubeconfig, and --context: kubectl config get-contexts";
    if let Some(path) = &arguments.kubeconfig {
        let file = Kubeconfig::read_from(path)
            .map_err(|error| format!("{} cannot be used: {error}; {remedy}", path.display()))?;
        let config = Config::from_custom_kubeconfig(file, &options).await;
        return Ok(config
            .map_err(|error| format!("{} cannot be used: {error}; {remedy}", path.display()))?);
    }
    let config = match Config::from_kubeconfig(&options).await {
        // A pod has no kubeconfig, and a service account instead.
        Err(error) if arguments.context.is_none() => Config::incluster().map_err(|_| error),
        outcome => outcome,
    };
    Ok(config.map_err(|error| format!("there is no cluster: {error}; {remedy}"))?)
}

/// The name in a word such as nyc-taxi, abind/nyc-taxi or aliasbinding.pointsman.dev/nyc-taxi, as `-o name` prints it.
pub fn name_in(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_named_with_or_without_its_kind() {
        for word in ["taxi", "abind/taxi", "aliasbinding.pointsman.dev/taxi"] {
            assert_eq!(name_in(word), "taxi");
        }
    }
}
