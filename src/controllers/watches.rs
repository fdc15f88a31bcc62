//! The watches: each keeps a store and wakes the loops that a change concerns, in this order.
//!
//! Absent: reconciliation. A change only says "look".

use std::collections::HashSet;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::api::{AliasBinding, ModelRegistry, RegisteredModel, names};
use crate::controllers::cached::{binding_of, registry_of};
use crate::controllers::context::Context;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::pruned::{OwnKind, Pruned};
use crate::kubernetes::store::{Cached, Change, Store};
use crate::targets::Workload;

/// How many objects a page of a listing holds, where there are pages: more at a time cost memory that is never used again.
const PAGE: u32 = 100;

/// Follows one kind for ever: keeps its store, then tells of each change. What is there at first is none: the loops begin with
/// all of it.
///
/// `watch` is this watch's number, other than that of any other watch of the same store.
pub async fn watch_kind<K>(
    api: Api<Pruned<K>>,
    config: watcher::Config,
    watch: u16,
    ctx: Arc<Context>,
    store: fn(&Context) -> &Store<K>,
    changed: fn(&Arc<Context>, &K, Change),
) where
    K: Clone + Debug + OwnKind + Send + Cached + 'static,
    Pruned<K>: DeserializeOwned,
{
    let following = WatchLoop {
        watch,
        store: store(&ctx),
        is_own: |_: &K| true,
        changed: |object: &K, put| changed(&ctx, object, put),
    };
    following
        .watch_kind(api, config, |Pruned(object)| object)
        .await;
}

/// The same for what carries a binding's label. In a shard only what belongs to the shard's own bindings is kept.
pub async fn watch_labelled<K>(
    api: Api<K>,
    watch: u16,
    ctx: Arc<Context>,
    store: fn(&Context) -> &Store<K>,
    changed: fn(&Arc<Context>, &K, Change),
) where
    K: Clone + Debug + Send + Cached + 'static,
{
    let is_own = |object: &K| {
        !ctx.is_sharded
            || binding_of(object).is_some_and(|binding| ctx.stores.bindings.has(&binding))
    };
    if ctx.is_sharded {
        ctx.stores
            .bindings
            .wait_until_filled(ctx.scopes().len())
            .await;
    }
    let config = watcher::Config::default().labels(names::BINDING_LABEL);
    let following = WatchLoop {
        watch,
        store: store(&ctx),
        is_own,
        changed: |object: &K, put| changed(&ctx, object, put),
    };
    following.watch_kind(api, config, |object| object).await;
}

/// One watch: where what it shows is put, and who is told.
struct WatchLoop<'a, K, IsOwn, Changed> {
    watch: u16,
    store: &'a Store<K>,
    is_own: IsOwn,
    changed: Changed,
}

impl<K, IsOwn, Changed> WatchLoop<'_, K, IsOwn, Changed>
where
    K: Cached,
    IsOwn: Fn(&K) -> bool,
    Changed: Fn(&K, Change),
{
    /// Follows for ever. `object` makes what is kept of what is shown.
    async fn watch_kind<W>(&self, api: Api<W>, config: watcher::Config, object: fn(W) -> K)
    where
        W: Clone + Debug + DeserializeOwned + Resource<DynamicType = ()> + Send + 'static,
    {
        // Streamed out of the API server's cache: pages of our own kinds it reads from etcd again, at three times the cost.
        let streamed = watcher(api.clone(), config.clone().streaming_lists()).default_backoff();
        self.keep(pin!(streamed.map_ok(|event| map(event, object))))
            .await;
        let paged = watcher(api, config.page_size(PAGE)).default_backoff();
        self.keep(pin!(paged.map_ok(|event| map(event, object))))
            .await;
    }

    /// Keeps the store for as long as there are events, or until the API server says that it streams no lists.
    async fn keep(&self, mut events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Unpin) {
        let mut listed = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    listed.insert(ObjectKey::of(&object));
                    self.put(object);
                }
                Ok(Event::InitDone) => self.end_listing(&std::mem::take(&mut listed)),
                Ok(Event::Apply(object)) => self.put(object),
                Ok(Event::Delete(object)) => {
                    self.store.remove(&ObjectKey::of(&object));
                    (self.changed)(&object, Change::Added);
                }
                Err(error) if refuses_to_stream(&error) => {
                    tracing::debug!(kind = %K::kind(&()), %error, "the API server streams no lists; they are read in pages");
                    return;
                }
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), %error, "a watch broke off and is taken up again");
                }
            }
        }
    }

    fn put(&self, mut object: K) {
        if !(self.is_own)(&object) {
            return self.store.remove(&ObjectKey::of(&object));
        }
        let put = self.store.put(self.watch, &mut object);
        if put != Change::None && self.store.was_filled_by(self.watch) {
            (self.changed)(&object, put);
        }
    }

    fn end_listing(&self, listed: &HashSet<ObjectKey>) {
        tracing::debug!(kind = %K::kind(&()), objects = listed.len(), "listed");
        for object in &self.store.retain(self.watch, listed) {
            (self.changed)(object, Change::Added);
        }
        self.store.is_filled_by(self.watch);
    }
}

fn map<W, K>(event: Event<W>, object: fn(W) -> K) -> Event<K> {
    match event {
        Event::Apply(shown) => Event::Apply(object(shown)),
        Event::Delete(shown) => Event::Delete(object(shown)),
        Event::Init => Event::Init,
        Event::InitApply(shown) => Event::InitApply(object(shown)),
        Event::InitDone => Event::InitDone,
    }
}

/// Reads what belongs to a binding that came into this shard: the watches passed it by while it was another's.
async fn adopt(ctx: Arc<Context>, binding: ObjectKey) {
    let stores = &ctx.stores;
    adopt_kind(&ctx, &binding, &stores.workloads).await;
    adopt_kind(&ctx, &binding, &stores.replica_sets).await;
    adopt_kind(&ctx, &binding, &stores.pods).await;
    adopt_kind(&ctx, &binding, &stores.jobs).await;
    ctx.queues.bindings.enqueue(binding);
}

async fn adopt_kind<K>(ctx: &Context, binding: &ObjectKey, store: &Store<K>)
where
    K: Clone + Debug + Resource<Scope = NamespaceResourceScope> + Cached,
{
    let watch = ctx
        .namespaces
        .iter()
        .position(|namespace| namespace == binding.namespace())
        .unwrap_or_default();
    let labelled =
        ListParams::default().labels(&format!("{}={}", names::BINDING_LABEL, binding.name()));
    match Api::<K>::namespaced(ctx.client.clone(), binding.namespace())
        .list(&labelled)
        .await
    {
        Ok(found) => {
            for mut object in found {
                store.put(u16::try_from(watch).unwrap_or_default(), &mut object);
            }
        }
        Err(error) => {
            tracing::warn!(kind = %K::kind(&()), %error, "what belongs to a binding that came into this shard cannot be read; it is seen when it changes");
        }
    }
}

/// Whether the API server does not know lists that are streamed (before Kubernetes 1.32), or was told not to send them.
fn refuses_to_stream(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(answer)) if matches!(answer.code, 400 | 422))
}

/// A registry changed: it is looked at again. The models that name it learn of it by that look, and of another spec at once.
pub fn registry_changed(ctx: &Arc<Context>, registry: &ModelRegistry, put: Change) {
    let name = ObjectKey::of(registry);
    if matches!(put, Change::Added | Change::Spec) {
        ctx.enqueue_models_of(&name);
    }
    ctx.queues.registries.enqueue(name);
}

/// A model changed: its own loop, its registry's count, and the bindings that `watch_kind` it.
pub fn model_changed(ctx: &Arc<Context>, model: &RegisteredModel, put: Change) {
    let name = ObjectKey::of(model);
    ctx.enqueue_bindings_of_model(&name);
    if put == Change::Added {
        let registry = registry_of(model);
        ctx.registries.of(&registry).forget_watched();
        ctx.enqueue_registry_delayed(registry);
    }
    ctx.queues.models.enqueue(name);
}

/// A binding changed: its own loop; and where it asks for another thing, its model's mirror and its rivals.
pub fn binding_changed(ctx: &Arc<Context>, binding: &AliasBinding, put: Change) {
    let namespace = binding.namespace().unwrap_or_default();
    if put == Change::Added && ctx.is_sharded && binding.metadata.deletion_timestamp.is_none() {
        tokio::spawn(adopt(Arc::clone(ctx), ObjectKey::of(binding)));
    }
    ctx.queues.bindings.enqueue(ObjectKey::of(binding));
    if put != Change::Status {
        ctx.enqueue_model(&namespace, &binding.spec.model_ref.name);
        ctx.enqueue_bindings_of_workload(&namespace, binding.workload_name());
    }
}

/// A labelled Deployment changed: the binding that it names looks, and all that would drive it.
pub fn workload_changed(ctx: &Arc<Context>, workload: &Workload, _: Change) {
    let name = ObjectKey::of(workload);
    if let Some(label) = workload.labels().get(names::BINDING_LABEL) {
        ctx.enqueue_binding(name.namespace(), label);
    }
    ctx.enqueue_bindings_of_workload(name.namespace(), name.name());
}

/// A pod, ReplicaSet or Job changed: the binding that its label names looks.
pub fn attendant_changed<K: Cached>(ctx: &Arc<Context>, attendant: &K, _: Change) {
    if let Some(binding) = binding_of(attendant) {
        ctx.queues.bindings.enqueue(binding);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::controllers::cached::of_binding;
    use crate::targets::Pod;
    use serde_json::json;

    fn pod(name: &str, binding: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {
            "name": name, "namespace": "ml", "resourceVersion": "1", "labels": {"pointsman.dev/binding": binding}}}))
        .expect("a pod")
    }

    /// The store after these events, and the pods whose change was told.
    async fn after(events: Vec<Event<Pod>>) -> (Store<Pod>, Vec<String>) {
        let (store, told) = (Store::default(), Mutex::new(Vec::new()));
        let tell = |pod: &Pod, _| told.lock().expect("nothing panics").push(pod.name_any());
        let following = WatchLoop {
            watch: 0,
            store: &store,
            is_own: |_: &Pod| true,
            changed: tell,
        };
        following
            .keep(futures::stream::iter(events.into_iter().map(Ok)))
            .await;
        (store, told.into_inner().expect("nothing panics"))
    }

    fn names(store: &Store<Pod>, binding: &str) -> Vec<String> {
        let mut names: Vec<_> = store
            .find(of_binding("ml", binding), |_| true)
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_is_labelled_is_found_by_its_binding_and_what_is_deleted_is_not() {
        let (store, _) = after(vec![
            Event::Init,
            Event::InitApply(pod("a", "one")),
            Event::InitApply(pod("b", "two")),
            Event::InitDone,
            Event::Apply(pod("c", "one")),
            Event::Delete(pod("b", "two")),
        ])
        .await;
        assert_eq!(
            (names(&store, "one"), names(&store, "two")),
            (vec!["a".to_owned(), "c".to_owned()], vec![])
        );
    }

    #[tokio::test]
    async fn a_first_listing_tells_of_nothing_and_a_second_one_of_what_is_new_and_what_is_gone_and_not_of_what_stayed()
     {
        let (store, told) = after(vec![
            Event::Init,
            Event::InitApply(pod("a", "one")),
            Event::InitApply(pod("stayed", "one")),
            Event::InitDone,
            Event::Init,
            Event::InitApply(pod("b", "one")),
            Event::InitApply(pod("stayed", "one")),
            Event::InitDone,
        ])
        .await;
        assert_eq!(names(&store, "one"), ["b", "stayed"]);
        assert_eq!(told, ["b", "a"]);
    }
}
