//! GitOps tools as their users run them, Argo CD and Flux, and a Git server on loopback.
//! Absent: assertions, and the applications that a test commits.

pub mod argocd;
pub mod customizations;
pub mod flux;
pub mod git;
pub mod health_checks;

use std::path::Path;

use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::error::{Context, Result};
use crate::manifests;
use crate::prerequisites::find_on_path;

const MANAGER: &str = "pointsman-env";

/// Why Argo CD or Flux cannot run on this machine, if it cannot.
pub fn missing() -> Option<String> {
    ["git", "redis-server"]
        .into_iter()
        .find(|program| find_on_path(program).is_none())
        .map(|program| format!("{program} (Debian: apt-get install {program})"))
}

/// Makes the namespace of a tool and a service account with every right in it, and returns a token of that account.
async fn account(control_plane: &ControlPlane, namespace: &str, name: &str) -> Result<String> {
    let group = "rbac.authorization.k8s.io";
    let objects = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}),
        json!({
            "apiVersion": format!("{group}/v1"),
            "kind": "ClusterRoleBinding",
            "metadata": {"name": format!("{namespace}-{name}")},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }),
    ];
    apply_all(control_plane, namespace, &objects).await?;
    control_plane.service_account_token(namespace, name).await
}

async fn apply_all(control_plane: &ControlPlane, namespace: &str, objects: &[Value]) -> Result<()> {
    for object in objects {
        manifests::apply(&control_plane.admin_client(), namespace, MANAGER, object).await?;
    }
    Ok(())
}

/// A copy of a program that its Go module carries as a file without permission to run.
fn copy_program(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let what = format!("copying {}", from.display());
    let content = std::fs::read(from).context(&what)?;
    std::fs::write(to, content).context(&what)?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).context(what)
}
