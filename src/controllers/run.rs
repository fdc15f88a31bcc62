//! Starts the operator, and stops it after the reconciles in progress are done.
//!
//! Absent: configuration. It comes as [`OperatorSettings`].

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::future;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::runtime::events::Reporter;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::api::{AliasBinding, names};
use crate::controllers::binding::artifact_checks;
use crate::controllers::binding::check_permits::CheckPermits;
use crate::controllers::binding::object_events::ObjectEvents;
use crate::controllers::binding::refused_writes::RefusedWrites;
use crate::controllers::binding::repeated_writes::RepeatedWrites;
use crate::controllers::context::{Context, LoopProgress, Stores, WorkQueues};
use crate::controllers::http::{Readiness, serve};
use crate::controllers::leadership::{Leadership, start_signal};
use crate::controllers::loops::{self, work_queues};
use crate::controllers::metrics::Metrics;
use crate::controllers::receiver::Receiver;
use crate::controllers::receiver::tls::Certificate;
use crate::controllers::registry::namespace_labels::NamespaceLabels;
use crate::controllers::registry::state::RegistryStates;
use crate::controllers::settings::{OperatorSettings, WebhookSettings};
use crate::controllers::watches;
use crate::controllers::workloads::WorkloadStores;
use crate::http::server;
use crate::kubernetes::event_recorder::EventRecorder;
use crate::kubernetes::lease::{Fence, Leader, LeaderElector};

/// How long the operator waits for its last Events when it stops.
const LAST_EVENTS: Duration = Duration::from_secs(3);

/// The pause before the cluster's identity is requested again.
const IDENTITY_RETRY: Duration = Duration::from_secs(2);

/// Why the operator ended without a request to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The health address cannot be used.
    #[error(
        "health and metrics cannot be served at {address}: {source}; choose another --health-address"
    )]
    Health {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The shard's selector is invalid.
    #[error(
        "--shard {selector} is not a label selector: {cause}; write it as for kubectl --selector, such as pointsman.dev/shard=a"
    )]
    Shard {
        /// The selector.
        selector: String,
        /// The API server's message.
        cause: String,
    },
    /// The cluster has no name, and its identity may not be read.
    #[error(
        "this cluster's identity, the UID of the namespace kube-system, may not be read: {cause}; name the cluster with --cluster-name (clusterName in the chart)"
    )]
    Identity {
        /// The API server's message.
        cause: String,
    },
    /// The webhook address cannot be used.
    #[error("webhooks cannot be received at {address}: {source}; choose another --webhook-address")]
    Webhook {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// Another replica leads, or the Lease could not be renewed in time. The process has to be started again.
    #[error(
        "the Lease was lost: another replica leads, or the API server could not be reached for the duration of the Lease"
    )]
    LeadershipLost,
}

/// Runs the operator until `stop` completes. `fence` is the one of `client`.
///
/// # Errors
/// If an address or the shard's selector cannot be used, or leadership is lost.
pub async fn run(
    client: Client,
    fence: Fence,
    mut settings: OperatorSettings,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    check_shard(&client, &settings).await?;
    if settings.cluster_name.is_empty() {
        settings.cluster_name = cluster_identity(&client).await?;
    }
    let reporter = Reporter {
        controller: names::FIELD_MANAGER.to_owned(),
        instance: settings.instance.clone(),
    };
    let (event_recorder, last_events) = EventRecorder::start(client.clone(), reporter);
    let (queues, receivers) = work_queues();
    let ctx = Arc::new(context(client, settings, event_recorder, queues, fence));
    let (start, started) = start_signal();
    let (stop_loops, stopping) = watch::channel(false);
    let mut tasks = Tasks::default();
    watches::spawn(&mut tasks.watches, &ctx);
    loops::spawn(&mut tasks.loops, &ctx, receivers, &started, &stopping);
    tasks
        .watches
        .spawn(artifact_checks::sweep(Arc::clone(&ctx)));

    let readiness = Readiness::default();
    let elector = elector(&ctx);
    let leader = elector.as_ref().map(LeaderElector::leader);
    let servers = serve_all(&ctx, &readiness, leader).await?;
    let mut leadership = Leadership::start(Arc::clone(&ctx), readiness, start, elector);
    tokio::select! {
        () = stop => tracing::info!("stopping after the reconciles in progress"),
        served = servers => served?,
        // Reconciles in progress could not write any more: the fence is closed.
        () = leadership.lost() => return Err(RunError::LeadershipLost),
    }
    let _ = stop_loops.send(true);
    tasks.finish().await;
    leadership.release().await;
    drop(ctx);
    wait_for_last_events(last_events).await;
    Ok(())
}

/// The tasks of the operator.
#[derive(Default)]
struct Tasks {
    watches: JoinSet<()>,
    loops: JoinSet<()>,
}

impl Tasks {
    /// Waits for the loops, and then ends the watches.
    async fn finish(mut self) {
        while self.loops.join_next().await.is_some() {}
        self.watches.shutdown().await;
    }
}

/// Waits for the last Events to be written. A task that still holds an event recorder is not waited for long.
async fn wait_for_last_events(writer: JoinHandle<()>) {
    let _ = tokio::time::timeout(LAST_EVENTS, writer).await;
}

/// Fails if the shard's selector is invalid, but not if it selects nothing or the API server cannot be reached.
async fn check_shard(client: &Client, settings: &OperatorSettings) -> Result<(), RunError> {
    let Some(selector) = &settings.shard else {
        return Ok(());
    };
    let bindings: Api<AliasBinding> = match settings.watch_namespaces.first() {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let selected = ListParams::default().labels(selector).limit(1);
    match bindings.list(&selected).await {
        Err(kube::Error::Api(status)) if status.code == 400 => Err(RunError::Shard {
            selector: selector.clone(),
            cause: status.message.clone(),
        }),
        _ => Ok(()),
    }
}

/// The UID of the namespace kube-system, which no other cluster has. An API server that does not answer is asked again.
async fn cluster_identity(client: &Client) -> Result<String, RunError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    loop {
        let cause = match namespaces.get_metadata("kube-system").await {
            Ok(found) => match found.metadata.uid {
                Some(uid) => return Ok(uid),
                None => "it has none".to_owned(),
            },
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => {
                status.message.clone()
            }
            Err(error) => {
                tracing::warn!(%error, "the cluster's identity cannot be read; it is requested again");
                tokio::time::sleep(IDENTITY_RETRY).await;
                continue;
            }
        };
        return Err(RunError::Identity { cause });
    }
}

fn context(
    client: Client,
    settings: OperatorSettings,
    event_recorder: EventRecorder,
    queues: WorkQueues,
    fence: Fence,
) -> Context {
    let stores = Stores {
        workloads: WorkloadStores::with(&settings.other_targets),
        ..Stores::default()
    };
    Context {
        client,
        settings,
        stores,
        queues,
        registries: RegistryStates::default(),
        namespace_labels: NamespaceLabels::default(),
        refused_writes: RefusedWrites::default(),
        repeated_writes: RepeatedWrites::default(),
        check_permits: CheckPermits::default(),
        progress: LoopProgress::default(),
        object_events: ObjectEvents::default(),
        fence,
        event_recorder,
        metrics: Metrics::default(),
    }
}

fn elector(ctx: &Context) -> Option<LeaderElector> {
    let election = ctx.settings.election.clone()?;
    let (client, fence) = (ctx.client.clone(), ctx.fence.clone());
    Some(LeaderElector::new(client, election, fence))
}

type Serving<E> = Pin<Box<dyn Future<Output = Result<(), E>> + Send>>;

/// Serves health, metrics and webhooks. `leader` is `None` if there is a single replica, to which nobody forwards webhooks.
async fn serve_all(
    ctx: &Arc<Context>,
    readiness: &Readiness,
    leader: Option<Leader>,
) -> Result<Serving<RunError>, RunError> {
    let has_replicas = leader.is_some();
    let mut for_replicas = Router::new();
    let mut webhooks: Serving<RunError> = Box::pin(future::pending());
    if let Some(settings) = &ctx.settings.webhook {
        let receiver = Receiver::new(
            Arc::clone(ctx),
            readiness.clone(),
            leader.unwrap_or_default(),
        );
        let receiver = receiver.map_err(|error| webhook_error(settings, error))?;
        if has_replicas {
            for_replicas = Arc::clone(&receiver).for_replicas();
        }
        webhooks = serve_webhooks(settings, receiver).await?;
    }
    let address = ctx.settings.health_address;
    let health = serve(address, readiness.clone(), Arc::clone(ctx), for_replicas);
    Ok(Box::pin(async move {
        tokio::select! {
            served = health => served.map_err(|source| RunError::Health { address, source }),
            served = webhooks => served,
        }
    }))
}

async fn serve_webhooks(
    settings: &WebhookSettings,
    receiver: Arc<Receiver>,
) -> Result<Serving<RunError>, RunError> {
    let address = settings.address;
    let listener = server::bind(address).await;
    let listener = listener.map_err(|source| RunError::Webhook { address, source })?;
    let certificate = settings.tls_folder.clone().map(Certificate::of);
    let tls = match &certificate {
        Some(certificate) => {
            let config = certificate.server_config();
            Some(Arc::new(
                config.map_err(|error| webhook_error(settings, error))?,
            ))
        }
        None => None,
    };
    tracing::info!(%address, https = tls.is_some(), "receiving webhooks");
    let serving = server::serve(listener, tls, receiver.for_registries());
    Ok(Box::pin(async move {
        match certificate {
            Some(certificate) => _ = tokio::join!(serving, certificate.watch_files()),
            None => serving.await,
        }
        Ok(())
    }))
}

fn webhook_error(
    settings: &WebhookSettings,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> RunError {
    RunError::Webhook {
        address: settings.address,
        source: std::io::Error::other(error),
    }
}
