//! The operator's own objects in a cluster, as its chart makes them.
//!
//! Absent: an operator that runs outside of the cluster. Nothing there tells of it.

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::ListParams;

use super::Failure;
use super::cluster::Cluster;

/// The label that the chart gives its Deployment.
const SELECTOR: &str = "app.kubernetes.io/name=pointsman";

/// The Deployments of operators in all namespaces.
///
/// # Errors
/// If they may not be listed.
pub async fn operators(cluster: &Cluster) -> Result<Vec<Deployment>, Failure> {
    let labels = ListParams::default().labels(SELECTOR);
    let listed = cluster.list::<Deployment, Deployment>(None, labels).await?;
    Ok(listed.items)
}

/// The namespace and name of an operator.
pub fn place(operator: &Deployment) -> String {
    format!(
        "{}/{}",
        operator.namespace().unwrap_or_default(),
        operator.name_any()
    )
}

/// The image of the operator's container.
pub fn image(operator: &Deployment) -> Option<&str> {
    let pod = operator.spec.as_ref()?.template.spec.as_ref()?;
    pod.containers.first()?.image.as_deref()
}

/// The value of an argument of the operator's, such as --lease-name=pointsman; empty if it has none.
pub fn argument<'a>(operator: &'a Deployment, name: &str) -> Option<&'a str> {
    let pod = operator.spec.as_ref()?.template.spec.as_ref()?;
    let mut arguments = pod.containers.first()?.args.iter().flatten();
    arguments.find_map(|argument| {
        let rest = argument.strip_prefix(name)?;
        if rest.is_empty() {
            Some("")
        } else {
            rest.strip_prefix('=')
        }
    })
}
