//! Starting the operator: stores, watches, loops, health; and stopping it in peace.
//!
//! Absent: configuration. It comes as [`Settings`].

use std::convert::Infallible;
use std::future::Future;
use std::hash::Hash;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use futures::{StreamExt, future};
use kube::runtime::controller::{Action, Config, applier};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store, store, store::Writer};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::context::{Context, Scope};
use super::evidence::Book;
use super::failure::{Failure, try_again};
use super::health::{Readiness, serve};
use super::hearing::Hearing;
use super::labelled;
use super::lease::{Candidate, Election, Fence, Leader};
use super::metrics::Metrics;
use super::receiver::Receiver;
use super::registry_state::RegistryStates;
use super::watch::{self, follow, telling};
use super::written::Written;
use super::{binding, model, registry};
use crate::api::{AliasBinding, ModelRegistry, RegisteredModel, names};
use crate::webhook::{self, Certificate};
use crate::workload::Workload;

/// How many passes of one kind run at the same time.
const CONCURRENCY: u16 = 16;

/// How the operator is to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where health and metrics are served.
    pub health_address: SocketAddr,
    /// Where deliveries of webhooks are listened to, if anywhere.
    pub webhook: Option<WebhookSettings>,
    /// The namespaces to watch; all where empty.
    pub watch_namespaces: Vec<String>,
    /// This process's name in Events.
    pub instance: Option<String>,
    /// This cluster's name in the registry's tags.
    pub cluster_name: String,
    /// Whether `file:` artifacts are looked for in this process's own file system.
    pub allow_file_artifacts: bool,
    /// How to take part in an election; `None` for a process that is alone.
    pub election: Option<Election>,
}

/// How deliveries of webhooks are listened to.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// Where.
    pub address: SocketAddr,
    /// A folder with `tls.crt` and `tls.key`, for https.
    pub tls_folder: Option<PathBuf>,
}

/// Why the operator ended other than by request.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The health address cannot be served.
    #[error("health and metrics cannot be served at {address}: {source}; choose another --health-address")]
    Health {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The webhook address cannot be served.
    #[error("webhooks cannot be listened to at {address}: {source}; choose another --webhook-address")]
    Webhook {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// Another replica leads, or the Lease could not be renewed in time. The process ends, and begins anew as a candidate.
    #[error(
        "the Lease was lost: another replica leads, or the API server could not be reached for the Lease's whole time"
    )]
    LeadershipLost,
}

struct Part {
    scope: Scope,
    writers: Writers,
    queues: Queues,
}

struct Writers {
    registries: Writer<ModelRegistry>,
    models: Writer<RegisteredModel>,
    bindings: Writer<AliasBinding>,
    workloads: Writer<Workload>,
}

struct Queues {
    registries: UnboundedReceiver<ObjectRef<ModelRegistry>>,
    models: UnboundedReceiver<ObjectRef<RegisteredModel>>,
    bindings: UnboundedReceiver<ObjectRef<AliasBinding>>,
}

/// Runs the operator until `stop` comes true. `fence` is the one that `client` asks before each write.
///
/// # Errors
/// Where health and metrics cannot be served at the address of the settings, or leadership is lost.
pub async fn run(
    client: Client,
    fence: Fence,
    settings: Settings,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let metrics = Metrics::default();
    let readiness = Readiness::default();
    let namespaces: Vec<Option<String>> = if settings.watch_namespaces.is_empty() {
        vec![None]
    } else {
        settings.watch_namespaces.iter().cloned().map(Some).collect()
    };
    let mut scopes = Vec::new();
    let mut pipes = Vec::new();
    for part in namespaces.into_iter().map(part) {
        scopes.push(part.scope);
        pipes.push((part.writers, part.queues));
    }
    let ctx = context(client, scopes, &fence, &metrics, &settings);
    let (stop_loops, stopping) = tokio::sync::watch::channel(false);
    let (fill, filled) = tokio::sync::watch::channel(false);
    let mut watches = JoinSet::new();
    let mut loops = JoinSet::new();
    for (index, (writers, queues)) in pipes.into_iter().enumerate() {
        spawn_watches(&mut watches, &ctx, index, writers);
        spawn_loops(&mut loops, &ctx, index, queues, &Signals { stopping: stopping.clone(), filled: filled.clone() });
    }
    let (tell_lost, lost) = tokio::sync::oneshot::channel();
    let (end, ended) = tokio::sync::oneshot::channel();
    let candidate = settings.election.clone().map(|election| Candidate::new(ctx.client.clone(), election, fence));
    let leader = candidate.as_ref().map(Candidate::leader).unwrap_or_default();
    let (listening, for_replicas) = listen(settings.webhook.as_ref(), &ctx, &readiness, leader).await?;
    // Where there are no other replicas, nothing is taken from them.
    let for_replicas = if settings.election.is_some() { for_replicas } else { Router::new() };
    let leading = lead(Arc::clone(&ctx), readiness.clone(), fill, candidate, tell_lost, ended);
    let leading = tokio::spawn(leading);
    let address = settings.health_address;
    let health = serve(address, readiness, metrics, for_replicas);
    tokio::select! {
        () = stop => tracing::info!("stopping: passes under way are brought to their end"),
        served = health => served.map_err(|source| RunError::Health { address, source })?,
        () = listening => {}
        // What is under way cannot be written any more: the fence is closed.
        Ok(()) = lost => return Err(RunError::LeadershipLost),
    }
    let _ = stop_loops.send(true);
    while loops.join_next().await.is_some() {}
    let _ = end.send(());
    let _ = leading.await;
    Ok(())
}

/// What the loops share.
fn context(client: Client, scopes: Vec<Scope>, fence: &Fence, metrics: &Metrics, settings: &Settings) -> Arc<Context> {
    let reporter = Reporter { controller: names::FIELD_MANAGER.to_owned(), instance: settings.instance.clone() };
    let recorder = Recorder::new(client.clone(), reporter);
    Arc::new(Context {
        client,
        scopes,
        registries: RegistryStates::default(),
        pods: Arc::default(),
        replica_sets: Arc::default(),
        jobs: Arc::default(),
        written: Written::default(),
        book: Book::default(),
        cluster_name: settings.cluster_name.clone(),
        allow_file_artifacts: settings.allow_file_artifacts,
        hearing: Hearing::default(),
        fence: fence.clone(),
        hears_webhooks: settings.webhook.is_some(),
        recorder,
        metrics: metrics.clone(),
    })
}

type Listening = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Opens the webhook port, where there is to be one, on every replica; and what the leader listens to beside its health.
async fn listen(
    settings: Option<&WebhookSettings>,
    ctx: &Arc<Context>,
    readiness: &Readiness,
    leader: Leader,
) -> Result<(Listening, Router), RunError> {
    let Some(WebhookSettings { address, tls_folder }) = settings.cloned() else {
        return Ok((Box::pin(future::pending()), Router::new()));
    };
    let fault = |source| RunError::Webhook { address, source };
    let receiver = Receiver::new(Arc::clone(ctx), readiness.clone(), leader);
    let receiver = receiver.map_err(|error| fault(std::io::Error::other(error)))?;
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    let certificate = tls_folder.map(Certificate::of);
    let tls = certificate.as_ref().map(Certificate::server_config).transpose();
    let tls = tls.map_err(|error| fault(std::io::Error::other(error)))?.map(Arc::new);
    tracing::info!(%address, https = tls.is_some(), "webhooks are listened to");
    let for_replicas = Arc::clone(&receiver).for_replicas();
    let serving = webhook::serve(listener, tls, receiver.for_registries());
    let following = async move {
        if let Some(certificate) = certificate {
            certificate.follow().await;
        }
    };
    let listening = async move {
        tokio::join!(serving, following);
    };
    Ok((Box::pin(listening), for_replicas))
}

/// Waits for the caches, then to lead, then starts the loops by `fill`; keeps leading until that is lost, or the operator ends.
async fn lead(
    ctx: Arc<Context>,
    readiness: Readiness,
    fill: tokio::sync::watch::Sender<bool>,
    candidate: Option<Candidate>,
    tell_lost: tokio::sync::oneshot::Sender<()>,
    mut ended: tokio::sync::oneshot::Receiver<()>,
) {
    tokio::select! {
        () = fill_caches(&ctx, &readiness) => {}
        _ = &mut ended => return,
    }
    let Some(mut candidate) = candidate else {
        let _ = fill.send(true);
        let _ = ended.await;
        return;
    };
    tokio::select! {
        () = candidate.acquire() => {}
        _ = &mut ended => return candidate.release().await,
    }
    ctx.metrics.leader.set(1);
    let _ = fill.send(true);
    tokio::select! {
        () = candidate.keep() => {
            let _ = tell_lost.send(());
        }
        _ = &mut ended => candidate.release().await,
    }
}

fn part(namespace: Option<String>) -> Part {
    let (registries, registry_writer) = store();
    let (models, model_writer) = store();
    let (bindings, binding_writer) = store();
    let (workloads, workload_writer) = store();
    let (wake_registry, registry_queue) = unbounded();
    let (wake_model, model_queue) = unbounded();
    let (wake_binding, binding_queue) = unbounded();
    Part {
        scope: Scope { namespace, registries, models, bindings, workloads, wake_registry, wake_model, wake_binding },
        writers: Writers {
            registries: registry_writer,
            models: model_writer,
            bindings: binding_writer,
            workloads: workload_writer,
        },
        queues: Queues { registries: registry_queue, models: model_queue, bindings: binding_queue },
    }
}

fn api<K>(ctx: &Context, index: usize) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match &ctx.scopes[index].namespace {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    }
}

fn spawn_watches(tasks: &mut JoinSet<()>, ctx: &Arc<Context>, index: usize, writers: Writers) {
    let all = watcher::Config::default;
    let labelled = watcher::Config::default().labels(names::BINDING_LABEL);
    tasks.spawn(follow(
        api(ctx, index),
        all(),
        writers.registries,
        watch::without_managed_fields,
        telling(ctx, watch::registry_changed),
    ));
    tasks.spawn(follow(
        api(ctx, index),
        all(),
        writers.models,
        watch::without_managed_fields,
        telling(ctx, watch::model_changed),
    ));
    tasks.spawn(follow(
        api(ctx, index),
        all(),
        writers.bindings,
        watch::without_managed_fields,
        telling(ctx, watch::binding_changed),
    ));
    let tell = telling(ctx, watch::workload_changed);
    tasks.spawn(follow(api(ctx, index), labelled, writers.workloads, watch::digest_workload, tell));
    tasks.spawn(labelled::follow(api(ctx, index), index, Arc::clone(&ctx.pods), watch::attendant_changed(ctx)));
    tasks.spawn(labelled::follow(api(ctx, index), index, Arc::clone(&ctx.replica_sets), watch::attendant_changed(ctx)));
    tasks.spawn(labelled::follow(api(ctx, index), index, Arc::clone(&ctx.jobs), watch::attendant_changed(ctx)));
}

/// What the loops listen to beside their queues.
#[derive(Clone)]
struct Signals {
    stopping: tokio::sync::watch::Receiver<bool>,
    filled: tokio::sync::watch::Receiver<bool>,
}

fn spawn_loops(tasks: &mut JoinSet<()>, ctx: &Arc<Context>, index: usize, queues: Queues, signals: &Signals) {
    let scope = &ctx.scopes[index];
    tasks.spawn(turn(ctx, scope.registries.clone(), queues.registries, registry::reconcile, signals));
    tasks.spawn(turn(ctx, scope.models.clone(), queues.models, model::reconcile, signals));
    tasks.spawn(turn(ctx, scope.bindings.clone(), queues.bindings, binding::reconcile, signals));
}

/// One loop: every name that comes out of the queue is reconciled, each object by one pass at a time.
fn turn<K, Pass, Reconcile>(
    ctx: &Arc<Context>,
    store: Store<K>,
    queue: UnboundedReceiver<ObjectRef<K>>,
    reconcile: Reconcile,
    signals: &Signals,
) -> impl Future<Output = ()> + Send + use<K, Pass, Reconcile>
where
    K: Clone + Resource<DynamicType = ()> + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone,
    Pass: Future<Output = Result<Action, Failure>> + Send + 'static,
    Reconcile: Fn(Arc<K>, Arc<Context>) -> Pass + Send + 'static,
{
    let ctx = Arc::clone(ctx);
    let Signals { mut stopping, mut filled } = signals.clone();
    async move {
        tokio::select! {
            _ = filled.wait_for(|filled| *filled) => {}
            // Asked to stop before there was anything to do.
            _ = stopping.wait_for(|stop| *stop) => return,
        }
        let queue =
            queue.map(Ok::<_, Infallible>).take_until(async move { stopping.wait_for(|stop| *stop).await.map(drop) });
        let config = Config::default().concurrency(CONCURRENCY);
        let pass = move |object, ctx| Box::pin(reconcile(object, ctx));
        let passes = applier(pass, try_again, ctx, store, queue, config);
        // A name whose object is gone is an error to kube, and the normal end of an object here.
        passes.for_each(|_| future::ready(())).await;
    }
}

/// Waits for every store to hold what the cluster holds, and tells `/readyz`.
///
/// Only this task waits for the stores: of several that wait for the same one, kube wakes only the last.
async fn fill_caches(ctx: &Context, readiness: &Readiness) {
    for scope in &ctx.scopes {
        // A writer that is gone means that the operator is stopping.
        let _ = scope.registries.wait_until_ready().await;
        let _ = scope.models.wait_until_ready().await;
        let _ = scope.bindings.wait_until_ready().await;
        let _ = scope.workloads.wait_until_ready().await;
    }
    ctx.replica_sets.wait_until_filled(ctx.scopes.len()).await;
    ctx.pods.wait_until_filled(ctx.scopes.len()).await;
    ctx.jobs.wait_until_filled(ctx.scopes.len()).await;
    tracing::info!("the caches are filled");
    readiness.set(true);
}
