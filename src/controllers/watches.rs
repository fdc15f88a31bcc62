//! The watched kinds, and the objects that each change enqueues.
//!
//! Absent: reconciles, and the watch itself; see `kubernetes::watch`.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use kube::Api;
use kube::api::{ApiResource, ListParams};
use kube::runtime::watcher;
use tokio::task::JoinSet;

use crate::api::alias_binding::OtherKind;
use crate::api::{AliasBinding, ModelRegistry, RegisteredModel, names};
use crate::controllers::cached::{binding_of, registry_of};
use crate::controllers::context::{Context, Stores};
use crate::controllers::freezes::FreezeChanges;
use crate::controllers::frozen_namespaces::FrozenNamespace;
use crate::controllers::metrics::Kind;
use crate::controllers::workloads::{Stored, with_kind};
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::store::{Cached, Change, Store};
use crate::kubernetes::watch::{Handler, Shown, Watch};
use crate::targets::{Adapter, AnyObject, Workload};

/// Spawns the watches of all kinds, a set for each watched namespace.
pub fn spawn(tasks: &mut JoinSet<()>, ctx: &Arc<Context>) {
    for (namespace, number) in ctx.settings.scopes().into_iter().zip(0..) {
        let scope = Scope {
            ctx: Arc::clone(ctx),
            namespace: namespace.map(str::to_owned),
            number,
        };
        if ctx.settings.is_sharded() {
            let kept = scope.watch(Objects::OfShard, |all| &all.kept, registry_changed);
            tasks.spawn(kept);
        }
        tasks.spawn(scope.watch(Objects::All, |all| &all.registries, registry_changed));
        if ctx.settings.namespace_freezes {
            tasks.spawn(scope.watch_freezes());
        }
        tasks.spawn(scope.watch(Objects::OfShard, |all| &all.models, model_changed));
        let mut spawn_later = |watch| tasks.spawn(after_models(Arc::clone(ctx), watch));
        spawn_later(scope.watch(Objects::OfShard, |all| &all.bindings, binding_changed));
        for kind in &ctx.settings.targets {
            with_kind!(kind,
                K => spawn_later(scope.watch(
                    Objects::Labelled,
                    |all| K::store(&all.workloads),
                    workload_changed::<K>,
                )),
                _other => continue);
        }
        for (kind, store) in &ctx.stores.workloads.others {
            spawn_later(scope.watch_other(kind.clone(), &store.resource));
        }
        spawn_later(scope.watch(Objects::Labelled, |all| &all.pods, labelled_changed));
        spawn_later(scope.watch(Objects::Labelled, |all| &all.replica_sets, labelled_changed));
        if ctx.settings.reads_jobs() {
            spawn_later(scope.watch(Objects::Labelled, |all| &all.jobs, labelled_changed));
        }
    }
}

/// Which objects of a kind are watched.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Objects {
    All,
    /// Those that the shard's selector selects; all if this process is not a shard.
    OfShard,
    /// Those whose label names a binding; in a shard, one of its own bindings.
    Labelled,
}

type WatchTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts a watch when the models are known: polling a registry takes longer than all lists, and needs only the models.
async fn after_models(ctx: Arc<Context>, watch: WatchTask) {
    let watches = ctx.settings.scopes().len();
    ctx.stores.models.wait_until_synced(watches).await;
    watch.await;
}

/// One watched namespace, or all.
struct Scope {
    ctx: Arc<Context>,
    namespace: Option<String>,
    number: u16,
}

impl Scope {
    fn watch<K>(
        &self,
        objects: Objects,
        store: fn(&Stores) -> &Store<K>,
        changed: fn(&Arc<Context>, &K, Change),
    ) -> WatchTask
    where
        K: Cached + Clone + Debug + Send,
    {
        let resource = ApiResource::erase::<K>(&());
        self.watch_resource(&resource, objects, store, changed)
    }

    /// Watches the labelled objects of a kind that no type stands for.
    fn watch_other(&self, kind: OtherKind, resource: &ApiResource) -> WatchTask {
        let objects = Objects::Labelled;
        self.watch_resource(
            resource,
            objects,
            move |all| all.workloads.other(&kind),
            object_changed,
        )
    }

    fn watch_resource<K>(
        &self,
        resource: &ApiResource,
        objects: Objects,
        store: impl for<'a> Fn(&'a Stores) -> &'a Store<K> + Send + Sync + 'static,
        changed: fn(&Arc<Context>, &K, Change),
    ) -> WatchTask
    where
        K: Cached + Clone + Debug + Send,
    {
        let (ctx, number) = (Arc::clone(&self.ctx), self.number);
        let client = ctx.client.clone();
        let api: Api<Shown<K>> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None => Api::all_with(client, resource),
        };
        Box::pin(async move {
            if objects == Objects::Labelled && ctx.settings.is_sharded() {
                let watches = ctx.settings.scopes().len();
                ctx.stores.bindings.wait_until_synced(watches).await;
            }
            let labels = match objects {
                Objects::All => None,
                Objects::OfShard => ctx.settings.shard.as_deref(),
                Objects::Labelled => Some(names::BINDING_LABEL),
            };
            let handler = Changes {
                ctx: &ctx,
                objects,
                changed,
            };
            let watch = Watch {
                number,
                store: store(&ctx.stores),
                handler,
            };
            let config = watcher::Config {
                label_selector: labels.map(str::to_owned),
                ..watcher::Config::default()
            };
            watch.run(api, config).await;
        })
    }

    /// The watch of the scope's own namespace, or of all of them.
    fn watch_freezes(&self) -> WatchTask {
        let (ctx, number) = (Arc::clone(&self.ctx), self.number);
        // RBAC lets a role name the one object that may be listed and watched, if the request names it, too.
        let only = self.namespace.as_ref();
        let config = watcher::Config {
            field_selector: only.map(|name| format!("metadata.name={name}")),
            ..watcher::Config::default()
        };
        Box::pin(async move {
            let watch = Watch {
                number,
                store: &ctx.stores.frozen,
                handler: FreezeChanges(&ctx),
            };
            let resource = ApiResource::erase::<FrozenNamespace>(&());
            let api = Api::all_with(ctx.client.clone(), &resource);
            watch.run(api, config).await;
        })
    }
}

/// The handler of one kind.
struct Changes<'a, K> {
    ctx: &'a Arc<Context>,
    objects: Objects,
    changed: fn(&Arc<Context>, &K, Change),
}

impl<K: Cached> Handler<K> for Changes<'_, K> {
    fn accepts(&self, object: &K) -> bool {
        if self.objects != Objects::Labelled || !self.ctx.settings.is_sharded() {
            return true;
        }
        match binding_of(object) {
            Some(binding) => self.ctx.stores.bindings.has(&binding),
            None => false,
        }
    }

    fn changed(&self, object: &K, change: Change) {
        (self.changed)(self.ctx, object, change);
    }

    fn unreadable(&self, _: &ObjectKey) {
        let count = &self.ctx.metrics.unreadable_objects;
        count.get_or_create(&Kind::of::<K>()).inc();
    }
}

/// A registry: enqueues it, and after a change of its spec the models that reference it. Other models follow its next poll.
/// Nothing that is known of a deleted registry is kept for another one of its name.
fn registry_changed(ctx: &Arc<Context>, registry: &ModelRegistry, change: Change) {
    let key = ObjectKey::of(registry);
    let is_known = |state| ctx.registries.is_current(&key, state);
    let before = ctx.registries.of(&key);
    if ctx.stores.registries.has(&key) {
        ctx.registries.of_object(registry);
    } else {
        ctx.registries.forget(&key);
    }
    if !is_known(&before) {
        ctx.metrics.forget(key.namespace(), key.name());
    }
    if matches!(change, Change::Added | Change::Spec) {
        // The spec says which namespaces may use the registry.
        ctx.registries.of(&key).schedule.invalidate_watched();
        ctx.enqueue_models_of(&key);
        // It also says whether versions may go forward.
        ctx.enqueue_bindings_low_priority(&key);
    }
    ctx.queues.registries.enqueue(key);
}

/// A registered model: enqueues it, the bindings that follow it and, if it is new or gone, its registry.
fn model_changed(ctx: &Arc<Context>, model: &RegisteredModel, change: Change) {
    let key = ObjectKey::of(model);
    ctx.enqueue_bindings_of_model(&key);
    if change == Change::Added {
        let registry = registry_of(model);
        ctx.registries.of(&registry).schedule.invalidate_watched();
        ctx.enqueue_registry_delayed(registry);
    }
    ctx.queues.models.enqueue(key);
}

/// A binding: enqueues it and, unless only its status changed, its model and the other bindings of the same workload.
fn binding_changed(ctx: &Arc<Context>, binding: &AliasBinding, change: Change) {
    let key = ObjectKey::of(binding);
    let is_deleted = binding.metadata.deletion_timestamp.is_some();
    if change == Change::Added && ctx.settings.is_sharded() && !is_deleted {
        tokio::spawn(adopt(Arc::clone(ctx), key.clone()));
    }
    if change != Change::Status {
        let model = ObjectKey::new(key.namespace(), &binding.spec.model_ref.name);
        ctx.queues.models.enqueue(model);
        ctx.enqueue_bindings_of_workload(key.namespace(), binding.workload_name());
    }
    ctx.queues.bindings.enqueue(key);
}

/// A workload: enqueues the binding that its label names, and all that want to drive it.
fn workload_changed<K: Adapter>(ctx: &Arc<Context>, workload: &Workload<K>, change: Change) {
    let key = ObjectKey::of(workload);
    labelled_changed(ctx, workload, change);
    ctx.enqueue_bindings_of_workload(key.namespace(), key.name());
}

/// The same of an object of another kind.
fn object_changed(ctx: &Arc<Context>, object: &AnyObject, change: Change) {
    let key = ObjectKey::of(object);
    labelled_changed(ctx, object, change);
    ctx.enqueue_bindings_of_workload(key.namespace(), key.name());
}

/// Any labelled object: enqueues the binding that its label names.
fn labelled_changed<K: Cached>(ctx: &Arc<Context>, object: &K, _: Change) {
    if let Some(binding) = binding_of(object) {
        ctx.queues.bindings.enqueue(binding);
    }
}

/// Reads the objects of a binding that came into this shard. The watches skipped them while it belonged to another shard.
async fn adopt(ctx: Arc<Context>, binding: ObjectKey) {
    let stores = &ctx.stores;
    for kind in &ctx.settings.targets {
        with_kind!(kind,
            K => adopt_kind(&ctx, &binding, K::store(&stores.workloads)).await,
            _other => {});
    }
    for store in stores.workloads.others.values() {
        adopt_resource(&ctx, &binding, &store.resource, &store.objects).await;
    }
    adopt_kind(&ctx, &binding, &stores.replica_sets).await;
    adopt_kind(&ctx, &binding, &stores.pods).await;
    if ctx.settings.reads_jobs() {
        adopt_kind(&ctx, &binding, &stores.jobs).await;
    }
    ctx.queues.bindings.enqueue(binding);
}

async fn adopt_kind<K>(ctx: &Context, binding: &ObjectKey, store: &Store<K>)
where
    K: Cached + Clone + Debug,
{
    adopt_resource(ctx, binding, &ApiResource::erase::<K>(&()), store).await;
}

async fn adopt_resource<K>(
    ctx: &Context,
    binding: &ObjectKey,
    resource: &ApiResource,
    store: &Store<K>,
) where
    K: Cached + Clone + Debug,
{
    let scopes = ctx.settings.scopes();
    let own_scope = Some(binding.namespace());
    let watch = scopes.iter().position(|scope| *scope == own_scope);
    let watch = watch.unwrap_or_default();
    let watch = u16::try_from(watch).unwrap_or_default();
    let labels = format!("{}={}", names::BINDING_LABEL, binding.name());
    let client = ctx.client.clone();
    let api = Api::<Shown<K>>::namespaced_with(client, binding.namespace(), resource);
    match api.list(&ListParams::default().labels(&labels)).await {
        Ok(found) => {
            let objects = found.into_iter().filter_map(|shown| shown.0.ok());
            for mut object in objects {
                store.put(watch, &mut object);
            }
        }
        Err(error) => {
            tracing::warn!(kind = resource.kind, %binding, %error, "the objects of a binding that came into this shard cannot be read; they are seen when they change");
        }
    }
}
