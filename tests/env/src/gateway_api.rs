//! The kinds of the Gateway API's standard channel, from its Go module.
//! Absent: a gateway. Routes are checked by the API server alone.

use kube::Client;

use crate::error::{Context, Result};
use crate::operator::define;
use crate::{peer, tools};

/// Defines the kinds, and waits until the API server serves them.
pub async fn install(client: &Client) -> Result<()> {
    let folder = tokio::task::spawn_blocking(tools::gateway_api_definitions).await;
    let folder = folder.context("downloading the Gateway API")??;
    define(client, &peer::definitions(&folder)?).await
}
