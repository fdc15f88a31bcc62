//! The kind HTTPRoute of the Gateway API's standard channel, from its Go module.
//! Absent: a gateway. Routes are checked by the API server alone.

use kube::Client;

use crate::error::{Context, Result};
use crate::manifests::text;
use crate::operator::define;
use crate::{peer, tools};

/// Defines the kind, and waits until the API server serves it. Others need functions that Kubernetes has since 1.31.
pub async fn install(client: &Client) -> Result<()> {
    let folder = tokio::task::spawn_blocking(tools::gateway_api_definitions).await;
    let folder = folder.context("downloading the Gateway API")??;
    let mut definitions = peer::definitions(&folder)?;
    definitions.retain(|definition| text(definition, "/spec/names/kind") == "HTTPRoute");
    define(client, &definitions).await
}
