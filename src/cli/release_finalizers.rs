//! `pointsman release-finalizers`: takes the operator's finalizers away, so that objects can be deleted when it is gone.
//!
//! Absent: what the finalizers are for. Registered models and webhooks stay in MLflow.

use std::fmt::Debug;
use std::process::ExitCode;

use kube::api::{ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{CommandResult, Failure};
use crate::api::{ModelRegistry, RegisteredModel, names};
use crate::kubernetes::client::fenced_client;
use crate::kubernetes::failure::is_conflict;
use crate::kubernetes::lease::Fence;

/// How often an object is read again that changed meanwhile.
const ATTEMPTS: usize = 5;
/// The finalizers of the operator.
const FINALIZERS: [&str; 2] = [names::WEBHOOK_FINALIZER, names::MODEL_FINALIZER];

/// Take Pointsman's finalizers from all objects, so that they can be deleted after the operator is gone
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Example, after the operator is gone; `helm uninstall` runs it by itself:
  pointsman release-finalizers --watch-namespace ml
Webhooks, and models whose objects have deletionPolicy: Delete, stay in MLflow: each is printed."
)]
pub struct ReleaseFinalizersArguments {
    /// A namespace; repeat it for several. All namespaces if it is left out
    #[arg(long = "watch-namespace", value_name = "NAMESPACE")]
    namespaces: Vec<String>,
}

/// Runs the command.
pub async fn run(arguments: ReleaseFinalizersArguments) -> CommandResult {
    let config = Config::infer().await;
    let config = config.map_err(|error| format!("there is no cluster: {error}; set KUBECONFIG"))?;
    let client = fenced_client(config, Fence::open())?;
    if arguments.namespaces.is_empty() {
        release::<ModelRegistry>(&client, None).await?;
        release::<RegisteredModel>(&client, None).await?;
    }
    for namespace in &arguments.namespaces {
        release::<ModelRegistry>(&client, Some(namespace)).await?;
        release::<RegisteredModel>(&client, Some(namespace)).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Releases all objects of a kind. A kind that is not installed has none.
async fn release<K>(client: &Client, namespace: Option<&str>) -> Result<(), Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let listed: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let objects = match listed.list_metadata(&ListParams::default()).await {
        Ok(objects) => objects,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        // A namespace that is gone has taken the rights in it along.
        Err(kube::Error::Api(status)) if namespace.is_some() && status.is_forbidden() => {
            eprintln!("skipped: {}", status.message);
            return Ok(());
        }
        Err(error) => {
            return Err(format!("{} cannot be listed: {error}", K::plural(&())).into());
        }
    };
    for object in objects.items {
        if has_own(object.finalizers()) {
            let namespace = object.namespace().unwrap_or_default();
            let api = Api::namespaced(client.clone(), &namespace);
            release_object::<K>(&api, &object.name_any()).await?;
            println!("{}/{} -n {namespace}", K::kind(&()), object.name_any());
        }
    }
    Ok(())
}

async fn release_object<K>(api: &Api<K>, name: &str) -> Result<(), Failure>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let Some(object) = api.get_metadata_opt(name).await? else {
            return Ok(());
        };
        let finalizers = others(object.finalizers());
        let version = object.resource_version();
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": version}});
        let patched = api
            .patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match patched {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            Err(error) if is_conflict(&error) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match last {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn has_own(finalizers: &[String]) -> bool {
    finalizers
        .iter()
        .any(|name| FINALIZERS.contains(&name.as_str()))
}

/// The finalizers that are not the operator's.
fn others(finalizers: &[String]) -> Vec<&String> {
    let is_others = |name: &&String| !FINALIZERS.contains(&name.as_str());
    finalizers.iter().filter(is_others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finalizers_of_others_stay() {
        let mixed = [names::MODEL_FINALIZER, "example.com/backup"].map(str::to_owned);
        assert!(has_own(&mixed));
        assert_eq!(others(&mixed), ["example.com/backup"]);
        assert!(!has_own(&mixed[1..]));
    }
}
