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
use crate::controllers::binding::artifact_checks::{self, Book};
use crate::controllers::context::{Context, Queues, Rooms, Shelves};
use crate::controllers::http::{Readiness, serve};
use crate::controllers::metrics::{Kind, Metrics};
use crate::controllers::receiver::Receiver;
use crate::controllers::receiver::server;
use crate::controllers::receiver::tls::Certificate;
use crate::controllers::registry::refresh::Hearing;
use crate::controllers::registry::state::RegistryStates;
use crate::controllers::watches::{self, follow, follow_labelled};
use crate::controllers::{binding, model, registry};
use crate::kubernetes::event_recorder::Announcer;
use crate::kubernetes::failure::Failure;
use crate::kubernetes::key::Name;
use crate::kubernetes::lease::{Candidate, Election, Fence, Leader};
use crate::kubernetes::pruned::Watched;
use crate::kubernetes::store::{Shelf, Shelved};
use crate::kubernetes::work_queue::{Next, Place, Queue, Queued, Room, queue, turn};

/// How long Events that are still to be written may take when the operator ends.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(3);

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
struct AllQueued {
    registries: Queued,
    models: Queued,
    bindings: Queued,
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
    let (announcer, announcing) = Announcer::start(client.clone(), reporter);
    let (queues, names) = all_queues();
    let ctx = Arc::new(context(client, &settings, announcer, queues, fence.clone()));
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
        .map(|election| Candidate::new(ctx.client.clone(), election, fence));
    let leader = candidate
        .as_ref()
        .map(Candidate::leader)
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
    // What was announced is written; whoever still answers a question holds an announcer, and is not waited for long.
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

fn all_queues() -> (Queues, AllQueued) {
    let (registries, registries_queued) = queue();
    let (models, models_queued) = queue();
    let (bindings, bindings_queued) = queue();
    let queued = AllQueued {
        registries: registries_queued,
        models: models_queued,
        bindings: bindings_queued,
    };
    (
        Queues {
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
    announcer: Announcer,
    queues: Queues,
    fence: Fence,
) -> Context {
    Context {
        client,
        namespaces: settings.watch_namespaces.iter().cloned().collect(),
        is_sharded: settings.shard.is_some(),
        shelves: Shelves::default(),
        queues,
        registries: RegistryStates::default(),
        book: Book::default(),
        rooms: Rooms::default(),
        cluster_name: settings.cluster_name.clone(),
        allow_file_artifacts: settings.allow_file_artifacts,
        binding_info_metric: settings.binding_info_metric,
        hearing: Hearing::default(),
        fence,
        hears_webhooks: settings.webhook.is_some(),
        announcer,
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
            certificate.follow().await;
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
    start: Start,
    candidate: Option<Candidate>,
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
struct Start {
    /// That of registries.
    looking: signal::Sender<bool>,
    /// All others.
    acting: signal::Sender<bool>,
}

impl Start {
    fn all(&self) {
        self.looking.send_replace(true);
        self.acting.send_replace(true);
    }
}

/// What the loops wait for.
#[derive(Clone)]
struct Started {
    looking: signal::Receiver<bool>,
    acting: signal::Receiver<bool>,
}

fn starts() -> (Start, Started) {
    let ((looking, is_looking), (acting, is_acting)) =
        (signal::channel(false), signal::channel(false));
    (
        Start { looking, acting },
        Started {
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
        let registries: Api<Watched<ModelRegistry>> = api(ctx, namespace);
        if shard.is_some() {
            let registries = registries.clone();
            tasks.spawn(follow(
                registries,
                sharded(),
                watch,
                own(),
                |ctx| &ctx.shelves.kept,
                watches::registry_changed,
            ));
        }
        tasks.spawn(follow(
            registries,
            all(),
            watch,
            own(),
            |ctx| &ctx.shelves.registries,
            watches::registry_changed,
        ));
        let models = api(ctx, namespace);
        tasks.spawn(follow(
            models,
            sharded(),
            watch,
            own(),
            |ctx| &ctx.shelves.models,
            watches::model_changed,
        ));
        let bindings = api(ctx, namespace);
        tasks.spawn(behind_models(
            own(),
            follow(
                bindings,
                sharded(),
                watch,
                own(),
                |ctx| &ctx.shelves.bindings,
                watches::binding_changed,
            ),
        ));
        let workloads = api(ctx, namespace);
        tasks.spawn(behind_models(
            own(),
            follow_labelled(
                workloads,
                watch,
                own(),
                |ctx| &ctx.shelves.workloads,
                watches::workload_changed,
            ),
        ));
        let pods = api(ctx, namespace);
        tasks.spawn(behind_models(
            own(),
            follow_labelled(
                pods,
                watch,
                own(),
                |ctx| &ctx.shelves.pods,
                watches::attendant_changed,
            ),
        ));
        let sets = api(ctx, namespace);
        tasks.spawn(behind_models(
            own(),
            follow_labelled(
                sets,
                watch,
                own(),
                |ctx| &ctx.shelves.replica_sets,
                watches::attendant_changed,
            ),
        ));
        let jobs = api(ctx, namespace);
        tasks.spawn(behind_models(
            own(),
            follow_labelled(
                jobs,
                watch,
                own(),
                |ctx| &ctx.shelves.jobs,
                watches::attendant_changed,
            ),
        ));
    }
}

/// Follows a kind when the models are known: a registry's answer takes longer than all listings, and needs nothing but those.
async fn behind_models(ctx: Arc<Context>, following: impl Future<Output = ()> + Send) {
    ctx.shelves
        .models
        .wait_until_filled(ctx.scopes().len())
        .await;
    following.await;
}

/// What the loops listen to beside their queues.
#[derive(Clone)]
struct Signals {
    stopping: signal::Receiver<bool>,
    started: Started,
}

fn spawn_loops(tasks: &mut JoinSet<()>, ctx: &Arc<Context>, names: AllQueued, signals: &Signals) {
    let Context { queues, rooms, .. } = ctx.as_ref();
    let Signals {
        stopping,
        started: Started { looking, acting },
    } = signals;
    let way = Way {
        kind: "ModelRegistry",
        shelf: |ctx| &ctx.shelves.registries,
        room: rooms.registries.clone(),
    };
    let (ends, signals) = (
        (queues.registries.clone(), names.registries),
        (looking.clone(), stopping.clone()),
    );
    tasks.spawn(looped(way, ctx, ends, registry::reconcile, signals));
    let way = Way {
        kind: "RegisteredModel",
        shelf: |ctx| &ctx.shelves.models,
        room: rooms.models.clone(),
    };
    let (ends, signals) = (
        (queues.models.clone(), names.models),
        (acting.clone(), stopping.clone()),
    );
    tasks.spawn(looped(way, ctx, ends, model::reconcile, signals));
    let way = Way {
        kind: "AliasBinding",
        shelf: |ctx| &ctx.shelves.bindings,
        room: rooms.bindings.clone(),
    };
    let (ends, signals) = (
        (queues.bindings.clone(), names.bindings),
        (acting.clone(), stopping.clone()),
    );
    tasks.spawn(looped(way, ctx, ends, binding::reconcile, signals));
}

/// What a loop is for, where its objects lie, and how many passes it makes at the same time.
struct Way<K> {
    kind: &'static str,
    shelf: fn(&Context) -> &Shelf<K>,
    room: Room,
}

/// One loop: every name that comes out of the queue is reconciled, if it is still there.
fn looped<K, Pass>(
    Way { kind, shelf, room }: Way<K>,
    ctx: &Arc<Context>,
    ends: (Queue, Queued),
    reconcile: fn(Arc<K>, Arc<Context>, Place) -> Pass,
    (mut started, stopping): (signal::Receiver<bool>, signal::Receiver<bool>),
) -> impl Future<Output = ()> + Send + use<K, Pass>
where
    K: Send + Shelved + Sync + 'static,
    Pass: Future<Output = Result<Next, Failure>> + Send + 'static,
{
    let ctx = Arc::clone(ctx);
    async move {
        let beginning = async {
            let _ = started.wait_for(|started| *started).await;
            shelf(&ctx).all_names()
        };
        let depth = ctx
            .metrics
            .queue_depth
            .get_or_create(&Kind { kind })
            .clone();
        let pass = |name: Name, place: Place| {
            let ctx = Arc::clone(&ctx);
            async move {
                let Some(object) = shelf(&ctx).get(&name) else {
                    return Next::await_change();
                };
                ctx.metrics.passes.get_or_create(&Kind { kind }).inc();
                let outcome = reconcile(Arc::new(object), Arc::clone(&ctx), place).await;
                outcome.unwrap_or_else(|failure| try_again(&name, &failure, &ctx))
            }
        };
        turn(ends, beginning, depth, room, pass, stopping).await;
    }
}

/// How soon a failed pass is tried again: at once where the object only changed meanwhile.
fn try_again(name: &Name, failure: &Failure, ctx: &Context) -> Next {
    if failure.is_conflict() {
        return Next::requeue(Duration::from_millis(50));
    }
    ctx.metrics.failed_passes.inc();
    tracing::warn!(namespace = name.namespace(), name = name.name(), error = %failure, "a pass failed and is tried again");
    Next::requeue(Duration::from_secs(2))
}

/// Waits for every shelf to hold what the cluster holds, and tells `/readyz`; and before that whoever needs only some.
async fn fill_caches(
    ctx: &Context,
    readiness: &Readiness,
    look_early: Option<&signal::Sender<bool>>,
) {
    let (shelves, watches) = (&ctx.shelves, ctx.scopes().len());
    shelves.registries.wait_until_filled(watches).await;
    if ctx.is_sharded {
        shelves.kept.wait_until_filled(watches).await;
    }
    shelves.models.wait_until_filled(watches).await;
    if let Some(look) = look_early {
        look.send_replace(true);
    }
    shelves.bindings.wait_until_filled(watches).await;
    // What is written back needs the bindings.
    ctx.queues
        .registries
        .wake_all(shelves.registries.all_names());
    shelves.workloads.wait_until_filled(watches).await;
    shelves.replica_sets.wait_until_filled(watches).await;
    shelves.pods.wait_until_filled(watches).await;
    shelves.jobs.wait_until_filled(watches).await;
    tracing::info!("the caches are filled");
    readiness.set(true);
}
