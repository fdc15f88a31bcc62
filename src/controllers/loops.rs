//! The reconcile loop of each kind.
//!
//! Absent: the reconciles.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::controllers::context::{Context, RECONCILE_DEADLINE, Stores, WorkQueues};
use crate::controllers::leadership::Started;
use crate::controllers::metrics::Kind;
use crate::controllers::{binding, model, registry};
use crate::kubernetes::backoff::{Delays, Failures};
use crate::kubernetes::compress::CompressError;
use crate::kubernetes::failure::{ReconcileError, is_conflict};
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::progress::Progress;
use crate::kubernetes::store::{Cached, Store};
use crate::kubernetes::work_queue::{
    self, Limits, QueueReports, Requeue, WorkQueue, WorkQueueReceiver, work_queue,
};

/// How many objects are reconciled at the same time. Those of registries and models wait for servers that may be slow.
const REGISTRIES: Limits = Limits {
    all: 64,
    of_namespace: 8,
};
const MODELS: Limits = Limits {
    all: 64,
    of_namespace: 16,
};
const BINDINGS: Limits = Limits {
    all: 32,
    of_namespace: 16,
};
/// The delays before an object is reconciled again that changed while it was reconciled.
const CONFLICT: Delays = Delays {
    first: Duration::from_millis(50),
    longest: Duration::from_secs(5),
};
/// The delays while the API server does not answer, or has an error of its own. It is needed again as soon as it is back.
const OUTAGE: Delays = Delays {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(5),
};
/// The delays while the API server refuses a request, such as the write of a status.
const REFUSED: Delays = Delays {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(600),
};

/// The receiving ends of the work queues.
pub struct QueueReceivers {
    registries: WorkQueueReceiver,
    models: WorkQueueReceiver,
    bindings: WorkQueueReceiver,
}

/// Makes the work queues.
pub fn work_queues() -> (WorkQueues, QueueReceivers) {
    let (registries, registries_receiver) = work_queue();
    let (models, models_receiver) = work_queue();
    let (bindings, bindings_receiver) = work_queue();
    let queues = WorkQueues {
        registries,
        models,
        bindings,
    };
    let receivers = QueueReceivers {
        registries: registries_receiver,
        models: models_receiver,
        bindings: bindings_receiver,
    };
    (queues, receivers)
}

/// Spawns the loops. They start when `started` says so, and end when `stopping` becomes true.
pub fn spawn(
    tasks: &mut JoinSet<()>,
    ctx: &Arc<Context>,
    receivers: QueueReceivers,
    started: &Started,
    stopping: &watch::Receiver<bool>,
) {
    let registries = ReconcileLoop {
        store: |stores| &stores.registries,
        queue: (ctx.queues.registries.clone(), receivers.registries),
        limits: REGISTRIES,
        progress: ctx.progress.registries.clone(),
        started: started.polling.clone(),
        reconcile: registry::reconcile,
    };
    tasks.spawn(registries.run(Arc::clone(ctx), stopping.clone()));
    let models = ReconcileLoop {
        store: |stores| &stores.models,
        queue: (ctx.queues.models.clone(), receivers.models),
        limits: MODELS,
        progress: ctx.progress.models.clone(),
        started: started.acting.clone(),
        reconcile: model::reconcile,
    };
    tasks.spawn(models.run(Arc::clone(ctx), stopping.clone()));
    let bindings = ReconcileLoop {
        store: |stores| &stores.bindings,
        queue: (ctx.queues.bindings.clone(), receivers.bindings),
        limits: BINDINGS,
        progress: ctx.progress.bindings.clone(),
        started: started.acting.clone(),
        reconcile: binding::reconcile,
    };
    tasks.spawn(bindings.run(Arc::clone(ctx), stopping.clone()));
}

/// The loop of one kind: reconciles each object that leaves the queue, if it still exists.
struct ReconcileLoop<K, Reconcile> {
    store: fn(&Stores) -> &Store<K>,
    queue: (WorkQueue, WorkQueueReceiver),
    limits: Limits,
    progress: Progress,
    started: watch::Receiver<bool>,
    reconcile: Reconcile,
}

impl<K, Running, Reconcile> ReconcileLoop<K, Reconcile>
where
    K: Cached + Send + Sync + 'static,
    Running: Future<Output = Result<Requeue, ReconcileError>> + Send + 'static,
    Reconcile: Fn(Arc<K>, Arc<Context>) -> Running + Copy + Send + 'static,
{
    async fn run(mut self, ctx: Arc<Context>, stopping: watch::Receiver<bool>) {
        let (store, reconcile) = (self.store, self.reconcile);
        let initial = async {
            let _ = self.started.wait_for(|started| *started).await;
            store(&ctx.stores).all_names()
        };
        let depth = ctx
            .metrics
            .queue_depth
            .get_or_create_owned(&Kind::of::<K>());
        let failures = Arc::new(Failures::default());
        let run_one = |key: ObjectKey| {
            let (ctx, failures) = (Arc::clone(&ctx), Arc::clone(&failures));
            async move {
                let object = match store(&ctx.stores).try_get(&key) {
                    Ok(Some(object)) => Arc::new(object),
                    Ok(None) => {
                        failures.forget(&key);
                        return Requeue::await_change();
                    }
                    Err(error) => return report_undecodable::<K>(&ctx, &key, &error),
                };
                let reconciles = &ctx.metrics.reconciles;
                reconciles.get_or_create(&Kind::of::<K>()).inc();
                let running = reconcile(object, Arc::clone(&ctx));
                match tokio::time::timeout(RECONCILE_DEADLINE, running).await {
                    Ok(Ok(requeue)) => {
                        failures.forget(&key);
                        requeue
                    }
                    Ok(Err(error)) => retry(&ctx, &key, &error, failures.count(&key)),
                    Err(_) => report_overdue(&ctx, &key, failures.count(&key)),
                }
            }
        };
        let reports = QueueReports {
            depth,
            limited: |namespace: &str| {
                ctx.metrics.count_limited(namespace, Kind::of::<K>().kind);
            },
            progress: self.progress,
        };
        work_queue::run(self.queue, initial, self.limits, reports, run_one, stopping).await;
    }
}

fn report_undecodable<K: Cached>(ctx: &Context, key: &ObjectKey, error: &CompressError) -> Requeue {
    ctx.metrics.reconcile_errors.inc();
    tracing::error!(kind = %K::kind(&()), %key, %error, "a cached object cannot be decoded; it is reconciled when it was read again");
    Requeue::await_change()
}

fn report_overdue(ctx: &Context, key: &ObjectKey, failures: u32) -> Requeue {
    ctx.metrics.reconcile_errors.inc();
    let seconds = RECONCILE_DEADLINE.as_secs();
    tracing::warn!(
        namespace = key.namespace(),
        name = key.name(),
        seconds,
        "a reconcile took too long and is retried"
    );
    Requeue::after(OUTAGE.after(failures))
}

fn retry(ctx: &Context, key: &ObjectKey, error: &ReconcileError, failures: u32) -> Requeue {
    let delays = match error.client_error() {
        conflict if is_conflict(conflict) => return Requeue::after(CONFLICT.after(failures)),
        kube::Error::Api(answer) if answer.code < 500 && answer.code != 429 => REFUSED,
        _ => OUTAGE,
    };
    ctx.metrics.reconcile_errors.inc();
    tracing::warn!(namespace = key.namespace(), name = key.name(), %error, "a reconcile failed and is retried");
    Requeue::after(delays.after(failures))
}
