//! Starting the operator: stores, watches, loops, health; and stopping it in peace.
//!
//! Absent: configuration. It comes as [`Settings`].

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::future;
use kube::api::ListParams;
use kube::runtime::events::Reporter;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use tokio::net::TcpListener;
use tokio::sync::watch as signal;
use tokio::task::JoinSet;

use crate::api::{AliasBinding, ModelRegistry, names};
use crate::controllers::binding::artifact_checks::{self, ArtifactChecks};
use crate::controllers::context::{Context, Stores, WorkQueues};
use crate::controllers::http::{Readiness, serve};
use crate::controllers::metrics::{Kind, Metrics};
use crate::controllers::receiver::Receiver;
use crate::controllers::receiver::server;
use crate::controllers::receiver::tls::Certificate;
use crate::controllers::registry::refresh_batcher::RefreshBatcher;
use crate::controllers::registry::state::RegistryStates;
use crate::controllers::watches::{self, watch_kind, watch_labelled};
use crate::controllers::{binding, model, registry};
use crate::kubernetes::event_recorder::EventRecorder;
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lease::{Election, Fence, Leader, LeaderElector};
use crate::kubernetes::pruned::Pruned;
use crate::kubernetes::store::{Cached, Store};
use crate::kubernetes::work_queue::{self, Requeue, WorkQueue, WorkQueueReceiver, work_queue};

/// How long Events that are still to be written may take when the operator ends.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(3);

/// How many objects of one kind are reconciled at the same time.
const CONCURRENT_RECONCILES: usize = 16;

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
    /// Which registered models and bindings are this process's, by their labels; all where it is `None`.
    pub shard: Option<String>,
    /// Whether a metric names each binding.
    pub binding_info_metric: bool,
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
    #[error(
        "health and metrics cannot be served at {address}: {source}; choose another --health-address"
    )]
    Health {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The shard's selector is none.
    #[error(
        "--shard {selector} is no label selector: {cause}; write it as for kubectl --selector, such as pointsman.dev/shard=a"
    )]
    Shard {
        /// The selector.
        selector: String,
        /// The API server's words.
        cause: String,
    },
    /// The webhook address cannot be served.
    #[error(
        "webhooks cannot be listened to at {address}: {source}; choose another --webhook-address"
    )]
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

/// The ends of the queues at which names come out.
struct QueueReceivers {
    registries: WorkQueueReceiver,
    models: WorkQueueReceiver,
    bindings: WorkQueueReceiver,
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
    check_shard(&client, &settings).await?;
    let readiness = Readiness::default();
    let reporter = Reporter {
        controller: names::FIELD_MANAGER.to_owned(),
        instance: settings.instance.clone(),
    };
    let (event_recorder, announcing) = EventRecorder::start(client.clone(), reporter);
    let (queues, names) = all_queues();
    let ctx = Arc::new(context(
        client,
        &settings,
        event_recorder,
        queues,
        fence.clone(),
    ));
    let (stop_loops, stopping) = tokio::sync::watch::channel(false);
    let (start, started) = starts();
    let mut watches = JoinSet::new();
    let mut loops = JoinSet::new();
    spawn_watches(&mut watches, &ctx, settings.shard.as_deref());
    spawn_loops(&mut loops, &ctx, names, &Signals { stopping, started });
    watches.spawn(artifact_checks::sweep(Arc::clone(&ctx)));
    let (tell_lost, lost) = tokio::sync::oneshot::channel();
    let (end, ended) = tokio::sync::oneshot::channel();
    let candidate = settings
        .election
        .clone()
        .map(|election| LeaderElector::new(ctx.client.clone(), election, fence));
    let leader = candidate
        .as_ref()
        .map(LeaderElector::leader)
        .unwrap_or_default();
    let (listening, for_replicas) =
        listen(settings.webhook.as_ref(), &ctx, &readiness, leader).await?;
    // Where there are no other replicas, nothing is taken from them.
    let for_replicas = if settings.election.is_some() {
        for_replicas
    } else {
        Router::new()
    };
    let leading = tokio::spawn(lead(
        Arc::clone(&ctx),
        readiness.clone(),
        start,
        candidate,
        tell_lost,
        ended,
    ));
    let address = settings.health_address;
    let health = serve(address, readiness, Arc::clone(&ctx), for_replicas);
    tokio::select! {
        () = stop => tracing::info!("stopping: passes under way are brought to their end"),
        served = health => served.map_err(|source| RunError::Health { address, source })?,
        () = listening => {}
        // What is under way cannot be written any more: the fence is closed.
        Ok(()) = lost => return Err(RunError::LeadershipLost),
    }
    let _ = stop_loops.send(true);
    while loops.join_next().await.is_some() {}
    watches.shutdown().await;
    let _ = end.send(());
    let _ = leading.await;
    drop(ctx);
    // What was announced is written; whoever still answers a question holds an event_recorder, and is not waited for long.
    let _ = tokio::time::timeout(LAST_WORDS, announcing).await;
    Ok(())
}

/// Whether the API server can read the shard's selector; a selector that selects nothing is well, and so is a server that is away.
async fn check_shard(client: &Client, settings: &Settings) -> Result<(), RunError> {
    let Some(selector) = &settings.shard else {
        return Ok(());
    };
    let bindings: Api<AliasBinding> = match settings.watch_namespaces.first() {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    match bindings
        .list(&ListParams::default().labels(selector).limit(1))
        .await
    {
        Err(kube::Error::Api(answer)) if answer.code == 400 => Err(RunError::Shard {
            selector: selector.clone(),
            cause: answer.message.clone(),
        }),
        _ => Ok(()),
    }
}

fn all_queues() -> (WorkQueues, QueueReceivers) {
    let (registries, registries_queued) = work_queue();
    let (models, models_queued) = work_queue();
    let (bindings, bindings_queued) = work_queue();
    let queued = QueueReceivers {
        registries: registries_queued,
        models: models_queued,
        bindings: bindings_queued,
    };
    (
        WorkQueues {
            registries,
            models,
            bindings,
        },
        queued,
    )
}

fn context(
    client: Client,
    settings: &Settings,
    event_recorder: EventRecorder,
    queues: WorkQueues,
    fence: Fence,
) -> Context {
    Context {
        client,
        namespaces: settings.watch_namespaces.iter().cloned().collect(),
        is_sharded: settings.shard.is_some(),
        stores: Stores::default(),
        queues,
        registries: RegistryStates::default(),
        artifact_checks: ArtifactChecks::default(),
        cluster_name: settings.cluster_name.clone(),
        allow_file_artifacts: settings.allow_file_artifacts,
        binding_info_metric: settings.binding_info_metric,
        refresh_batcher: RefreshBatcher::default(),
        fence,
        hears_webhooks: settings.webhook.is_some(),
        event_recorder,
        metrics: Metrics::default(),
    }
}

type Listening = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Opens the webhook port, where there is to be one, on every replica; and what the leader listens to beside its health.
async fn listen(
    settings: Option<&WebhookSettings>,
    ctx: &Arc<Context>,
    readiness: &Readiness,
    leader: Leader,
) -> Result<(Listening, Router), RunError> {
    let Some(WebhookSettings {
        address,
        tls_folder,
    }) = settings.cloned()
    else {
        return Ok((Box::pin(future::pending()), Router::new()));
    };
    let fault = |source| RunError::Webhook { address, source };
    let receiver = Receiver::new(Arc::clone(ctx), readiness.clone(), leader);
    let receiver = receiver.map_err(|error| fault(std::io::Error::other(error)))?;
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    let certificate = tls_folder.map(Certificate::of);
    let tls = certificate
        .as_ref()
        .map(Certificate::server_config)
        .transpose();
    let tls = tls
        .map_err(|error| fault(std::io::Error::other(error)))?
        .map(Arc::new);
    tracing::info!(%address, https = tls.is_some(), "webhooks are listened to");
    let for_replicas = Arc::clone(&receiver).for_replicas();
    let serving = server::serve(listener, tls, receiver.for_registries());
    let following = async move {
        if let Some(certificate) = certificate {
            certificate.watch_files().await;
        }
    };
    let listening = async move {
        tokio::join!(serving, following);
    };
    Ok((Box::pin(listening), for_replicas))
}

/// Waits for the caches, then to lead, then starts the loops; keeps leading until that is lost, or the operator ends.
async fn lead(
    ctx: Arc<Context>,
    readiness: Readiness,
    start: StartSignal,
    candidate: Option<LeaderElector>,
    tell_lost: tokio::sync::oneshot::Sender<()>,
    mut ended: tokio::sync::oneshot::Receiver<()>,
) {
    // Who is alone asks the registry while the cluster still tells of pods: the answer of a large one takes seconds.
    let look_early = candidate.is_none().then_some(&start.looking);
    tokio::select! {
        () = fill_caches(&ctx, &readiness, look_early) => {}
        _ = &mut ended => return,
    }
    let Some(mut candidate) = candidate else {
        ctx.metrics.leader.set(1);
        start.all();
        let _ = ended.await;
        return;
    };
    tokio::select! {
        () = candidate.acquire() => {}
        _ = &mut ended => return candidate.release().await,
    }
    ctx.metrics.leader.set(1);
    start.all();
    tokio::select! {
        () = candidate.keep() => {
            let _ = tell_lost.send(());
        }
        _ = &mut ended => candidate.release().await,
    }
}

/// What starts the loops.
struct StartSignal {
    /// That of registries.
    looking: signal::Sender<bool>,
    /// All others.
    acting: signal::Sender<bool>,
}

impl StartSignal {
    fn all(&self) {
        self.looking.send_replace(true);
        self.acting.send_replace(true);
    }
}

/// What the loops wait for.
#[derive(Clone)]
struct StartedSignal {
    looking: signal::Receiver<bool>,
    acting: signal::Receiver<bool>,
}

fn starts() -> (StartSignal, StartedSignal) {
    let ((looking, is_looking), (acting, is_acting)) =
        (signal::channel(false), signal::channel(false));
    (
        StartSignal { looking, acting },
        StartedSignal {
            looking: is_looking,
            acting: is_acting,
        },
    )
}

fn api<K>(ctx: &Context, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    }
}

fn spawn_watches(tasks: &mut JoinSet<()>, ctx: &Arc<Context>, shard: Option<&str>) {
    let all = watcher::Config::default;
    let sharded = || shard.map_or_else(all, |selector| all().labels(selector));
    for (namespace, watch) in ctx.scopes().into_iter().zip(0..) {
        let own = || Arc::clone(ctx);
        let registries: Api<Pruned<ModelRegistry>> = api(ctx, namespace);
        if shard.is_some() {
            let registries = registries.clone();
            tasks.spawn(watch_kind(
                registries,
                sharded(),
                watch,
                own(),
                |ctx| &ctx.stores.kept,
                watches::registry_changed,
            ));
        }
        tasks.spawn(watch_kind(
            registries,
            all(),
            watch,
            own(),
            |ctx| &ctx.stores.registries,
            watches::registry_changed,
        ));
        let models = api(ctx, namespace);
        tasks.spawn(watch_kind(
            models,
            sharded(),
            watch,
            own(),
            |ctx| &ctx.stores.models,
            watches::model_changed,
        ));
        let bindings = api(ctx, namespace);
        tasks.spawn(behind_models(
            own(),
            watch_kind(
                bindings,
                sharded(),
                watch,
                own(),
                |ctx| &ctx.stores.bindings,
                watches::binding_changed,
            ),
        ));
        let workloads = api(ctx, namespace);
        tasks.spawn(behind_models(
            own(),
            watch_labelled(
                workloads,
                watch,
                own(),
                |ctx| &ctx.stores.workloads,
                watches::workload_changed,
            ),
        ));
        let pods = api(ctx, namespace);
        tasks.spawn(behind_models(
            own(),
            watch_labelled(
                pods,
                watch,
                own(),
                |ctx| &ctx.stores.pods,
                watches::attendant_changed,
            ),
        ));
        let sets = api(ctx, namespace);
        tasks.spawn(behind_models(
            own(),
            watch_labelled(
                sets,
                watch,
                own(),
                |ctx| &ctx.stores.replica_sets,
                watches::attendant_changed,
            ),
        ));
        let jobs = api(ctx, namespace);
        tasks.spawn(behind_models(
            own(),
            watch_labelled(
                jobs,
                watch,
                own(),
                |ctx| &ctx.stores.jobs,
                watches::attendant_changed,
            ),
        ));
    }
}

/// Follows a kind when the models are known: a registry's answer takes longer than all listings, and needs nothing but those.
async fn behind_models(ctx: Arc<Context>, following: impl Future<Output = ()> + Send) {
    ctx.stores
        .models
        .wait_until_filled(ctx.scopes().len())
        .await;
    following.await;
}

/// What the loops listen to beside their queues.
#[derive(Clone)]
struct Signals {
    stopping: signal::Receiver<bool>,
    started: StartedSignal,
}

fn spawn_loops(
    tasks: &mut JoinSet<()>,
    ctx: &Arc<Context>,
    names: QueueReceivers,
    signals: &Signals,
) {
    let queues = &ctx.queues;
    let Signals {
        stopping,
        started: StartedSignal { looking, acting },
    } = signals;
    let way = Controller {
        kind: "ModelRegistry",
        store: |ctx| &ctx.stores.registries,
    };
    let (ends, signals) = (
        (queues.registries.clone(), names.registries),
        (looking.clone(), stopping.clone()),
    );
    tasks.spawn(looped(way, ctx, ends, registry::reconcile, signals));
    let way = Controller {
        kind: "RegisteredModel",
        store: |ctx| &ctx.stores.models,
    };
    let (ends, signals) = (
        (queues.models.clone(), names.models),
        (acting.clone(), stopping.clone()),
    );
    tasks.spawn(looped(way, ctx, ends, model::reconcile, signals));
    let way = Controller {
        kind: "AliasBinding",
        store: |ctx| &ctx.stores.bindings,
    };
    let (ends, signals) = (
        (queues.bindings.clone(), names.bindings),
        (acting.clone(), stopping.clone()),
    );
    tasks.spawn(looped(way, ctx, ends, binding::reconcile, signals));
}

/// The kind that a loop reconciles, and the store of its objects.
struct Controller<K> {
    kind: &'static str,
    store: fn(&Context) -> &Store<K>,
}

/// One loop: every name that comes out of the queue is reconciled, if it is still there.
fn looped<K, Pass>(
    Controller { kind, store }: Controller<K>,
    ctx: &Arc<Context>,
    ends: (WorkQueue, WorkQueueReceiver),
    reconcile: fn(Arc<K>, Arc<Context>) -> Pass,
    (mut started, stopping): (signal::Receiver<bool>, signal::Receiver<bool>),
) -> impl Future<Output = ()> + Send + use<K, Pass>
where
    K: Send + Cached + Sync + 'static,
    Pass: Future<Output = Result<Requeue, ReconcileError>> + Send + 'static,
{
    let ctx = Arc::clone(ctx);
    async move {
        let beginning = async {
            let _ = started.wait_for(|started| *started).await;
            store(&ctx).all_names()
        };
        let depth = ctx
            .metrics
            .queue_depth
            .get_or_create(&Kind { kind })
            .clone();
        let pass = |name: ObjectKey| {
            let ctx = Arc::clone(&ctx);
            async move {
                let Some(object) = store(&ctx).get(&name) else {
                    return Requeue::await_change();
                };
                ctx.metrics.passes.get_or_create(&Kind { kind }).inc();
                let outcome = reconcile(Arc::new(object), Arc::clone(&ctx)).await;
                outcome.unwrap_or_else(|failure| try_again(&name, &failure, &ctx))
            }
        };
        work_queue::run(
            ends,
            beginning,
            CONCURRENT_RECONCILES,
            depth,
            pass,
            stopping,
        )
        .await;
    }
}

/// How soon a failed pass is tried again: at once where the object only changed meanwhile.
fn try_again(name: &ObjectKey, failure: &ReconcileError, ctx: &Context) -> Requeue {
    if failure.is_conflict() {
        return Requeue::after(Duration::from_millis(50));
    }
    ctx.metrics.reconcile_errors.inc();
    tracing::warn!(namespace = name.namespace(), name = name.name(), error = %failure, "a pass failed and is tried again");
    Requeue::after(Duration::from_secs(2))
}

/// Waits for every store to hold what the cluster holds, and tells `/readyz`; and before that whoever needs only some.
async fn fill_caches(
    ctx: &Context,
    readiness: &Readiness,
    look_early: Option<&signal::Sender<bool>>,
) {
    let (stores, watches) = (&ctx.stores, ctx.scopes().len());
    stores.registries.wait_until_filled(watches).await;
    if ctx.is_sharded {
        stores.kept.wait_until_filled(watches).await;
    }
    stores.models.wait_until_filled(watches).await;
    if let Some(look) = look_early {
        look.send_replace(true);
    }
    stores.bindings.wait_until_filled(watches).await;
    // What is written back needs the bindings.
    ctx.queues
        .registries
        .enqueue_all(stores.registries.all_names());
    stores.workloads.wait_until_filled(watches).await;
    stores.replica_sets.wait_until_filled(watches).await;
    stores.pods.wait_until_filled(watches).await;
    stores.jobs.wait_until_filled(watches).await;
    tracing::info!("the caches are filled");
    readiness.set(true);
}
