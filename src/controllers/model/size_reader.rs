//! Reads the sizes of new versions, in one task for each registry, after the versions are
//! published. Each takes a request to the artifact store, so no reconcile waits for it.
//!
//! Absent: writing the status. The reconcile that the task enqueues does it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::api::RegisteredModel;
use crate::artifacts::is_known_store;
use crate::controllers::cached::registry_of;
use crate::controllers::context::Context;
use crate::controllers::registry::access::may_use;
use crate::controllers::registry::state::RegistryState;
use crate::controllers::registry::state::version_sizes::UnreadSize;
use crate::kubernetes::key::ObjectKey;
use crate::registries::RegistryClient;

/// How long the task waits before it reads: by then the rollouts of new versions have begun.
const DELAY: Duration = Duration::from_secs(5);
/// Of how many models sizes are read concurrently.
const CONCURRENCY: usize = 4;
/// How long the task pauses, as a multiple of its last reads: most of the registry's time is for others.
const PAUSE: u32 = 2;

/// Starts the task that reads sizes, if there are sizes to be read and no task is running.
pub fn read_sizes_later(ctx: &Arc<Context>, registry: &ObjectKey) {
    let state = ctx.registries.of(registry);
    if !state.sizes.begin(Instant::now()) {
        return;
    }
    let (ctx, registry) = (Arc::clone(ctx), registry.clone());
    tokio::spawn(async move {
        tokio::time::sleep(DELAY).await;
        let Some(client) = client_for_reads(&ctx, &registry, &state) else {
            return state.sizes.stop();
        };
        loop {
            let unread = state.sizes.take_unread(CONCURRENCY, Instant::now());
            if unread.is_empty() {
                return;
            }
            let models = unread.iter();
            let reads = models.map(|(model, sizes)| read(&ctx, &state, &client, model, sizes));
            let started = Instant::now();
            join_all(reads).await;
            tokio::time::sleep(started.elapsed() * PAUSE).await;
        }
    });
}

/// The client, unless the registry was deleted, is suspended, or has a problem. The next poll
/// starts the task again.
pub fn client_for_reads(
    ctx: &Context,
    registry: &ObjectKey,
    state: &RegistryState,
) -> Option<RegistryClient> {
    let object = ctx.stores.registries.get(registry)?;
    if object.spec.suspend {
        return None;
    }
    state.connection.healthy_client()
}

/// The model, unless it was deleted or its namespace may not use its registry any more.
pub fn model_for_reads(ctx: &Context, model: &ObjectKey) -> Option<RegisteredModel> {
    let object = ctx.stores.models.get(model)?;
    may_use(ctx, &registry_of(&object), model.namespace()).then_some(object)
}

/// Reads the sizes of one model's versions, and enqueues the model behind all that changed.
async fn read(
    ctx: &Context,
    state: &RegistryState,
    client: &RegistryClient,
    model: &ObjectKey,
    unread: &[UnreadSize],
) {
    let Some(object) = model_for_reads(ctx, model) else {
        return;
    };
    for size in unread {
        let UnreadSize { version, uri } = size;
        match client.version_size(object.model_name(), version, uri).await {
            Ok(Some(bytes)) => {
                state.artifacts.record_readable(uri);
                state.sizes.record_read(model, uri, bytes);
            }
            Ok(None) if !is_known_store(uri) => state.sizes.give_up(model, uri),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(model = model.name(), version, %error, "the size of a version cannot be read");
            }
        }
    }
    if !state.sizes.read(model).is_empty() {
        ctx.queues.models.enqueue_low_priority(vec![model.clone()]);
    }
}
