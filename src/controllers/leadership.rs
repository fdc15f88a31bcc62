//! When the controllers start: after the stores are synced and, if there are several replicas, after this one became the leader.
//!
//! Absent: the election itself; see `kubernetes::lease`.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::controllers::context::Context;
use crate::controllers::http::Readiness;
use crate::kubernetes::lease::LeaderElector;

/// Starts the controllers.
pub struct StartSignal {
    polling: watch::Sender<bool>,
    acting: watch::Sender<bool>,
}

/// Received by the controllers when they may start.
#[derive(Clone)]
pub struct Started {
    /// For the controller of registries, which polls them.
    pub polling: watch::Receiver<bool>,
    /// For all others.
    pub acting: watch::Receiver<bool>,
}

/// Both ends of the start signal.
pub fn start_signal() -> (StartSignal, Started) {
    let (polling, polling_started) = watch::channel(false);
    let (acting, acting_started) = watch::channel(false);
    let started = Started {
        polling: polling_started,
        acting: acting_started,
    };
    (StartSignal { polling, acting }, started)
}

impl StartSignal {
    fn send(&self) {
        self.polling.send_replace(true);
        self.acting.send_replace(true);
    }
}

/// The task that waits for leadership and keeps it.
pub struct Leadership {
    task: JoinHandle<()>,
    lost: oneshot::Receiver<()>,
    end: oneshot::Sender<()>,
}

impl Leadership {
    /// Starts the task. Without an elector this replica is the only one.
    pub fn start(
        ctx: Arc<Context>,
        readiness: Readiness,
        start: StartSignal,
        elector: Option<LeaderElector>,
    ) -> Self {
        let (report_lost, lost) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            if lead(&ctx, &readiness, &start, elector, ended).await {
                let _ = report_lost.send(());
            }
        });
        Self { task, lost, end }
    }

    /// Waits until leadership is lost, which it never is if this is the only replica.
    pub async fn lost(&mut self) {
        if (&mut self.lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Releases leadership.
    pub async fn release(self) {
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}

/// Leads until `ended`; true if leadership was lost before.
async fn lead(
    ctx: &Context,
    readiness: &Readiness,
    start: &StartSignal,
    elector: Option<LeaderElector>,
    mut ended: oneshot::Receiver<()>,
) -> bool {
    tokio::select! {
        () = wait_for_stores(ctx, start, elector.is_none()) => {}
        _ = &mut ended => return false,
    }
    tracing::info!("the caches are synced");
    readiness.set(true);
    let Some(mut elector) = elector else {
        ctx.metrics.leader.set(1);
        start.send();
        let _ = ended.await;
        return false;
    };
    tokio::select! {
        () = elector.acquire() => {}
        _ = &mut ended => {
            elector.release().await;
            return false;
        }
    }
    ctx.metrics.leader.set(1);
    start.send();
    tokio::select! {
        () = elector.keep() => true,
        _ = &mut ended => {
            elector.release().await;
            false
        }
    }
}

/// Waits until every store is synced. A single replica starts to poll registries earlier, as soon as the models are known: the
/// response of a large registry takes seconds.
async fn wait_for_stores(ctx: &Context, start: &StartSignal, is_single: bool) {
    let (stores, watches) = (&ctx.stores, ctx.settings.scopes().len());
    stores.registries.wait_until_synced(watches).await;
    if ctx.settings.is_sharded() {
        stores.kept.wait_until_synced(watches).await;
    }
    stores.models.wait_until_synced(watches).await;
    if is_single {
        start.polling.send_replace(true);
    }
    stores.bindings.wait_until_synced(watches).await;
    // A registry's write-back needs the bindings.
    let registries = stores.registries.all_names();
    ctx.queues.registries.enqueue_all(registries);
    let targets = &ctx.settings.targets;
    stores.workloads.wait_until_synced(targets, watches).await;
    stores.replica_sets.wait_until_synced(watches).await;
    stores.pods.wait_until_synced(watches).await;
    if ctx.settings.reads_jobs() {
        stores.jobs.wait_until_synced(watches).await;
    }
    if ctx.settings.namespace_freezes {
        // A freeze that is not known yet must not be taken for none.
        stores.frozen.wait_until_synced(watches).await;
    }
}
