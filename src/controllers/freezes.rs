//! The freeze that is in force for a binding, and the bindings that a change of a namespace's freeze concerns.
//!
//! Absent: what a freeze holds; see `rollout::gates`.

use std::sync::Arc;

use crate::api::ModelRegistry;
use crate::controllers::context::Context;
use crate::controllers::frozen_namespaces::FrozenNamespace;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::store::Change;
use crate::kubernetes::watch::Handler;
use crate::rollout::Freeze;

/// Enqueues the bindings of a namespace whose freeze begins, ends or gets another reason.
pub struct FreezeChanges<'a>(pub &'a Arc<Context>);

impl Handler<FrozenNamespace> for FreezeChanges<'_> {
    fn accepts(&self, namespace: &FrozenNamespace) -> bool {
        namespace.reason().is_some()
    }

    fn changed(&self, namespace: &FrozenNamespace, _: Change) {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let mut bindings = self.0.stores.bindings.all_names();
        bindings.retain(|binding| binding.namespace() == name);
        self.0.queues.bindings.enqueue_all(bindings);
    }

    fn unreadable(&self, _: &ObjectKey) {}
}

/// The freeze in force in a namespace for the versions of a registry: the namespace's own comes first.
pub fn freeze(ctx: &Context, namespace: &str, registry: Option<&ModelRegistry>) -> Option<Freeze> {
    let frozen = ctx.stores.frozen.get(&ObjectKey::new("", namespace));
    let own = frozen.map(|frozen| frozen.reason().cloned().unwrap_or_default());
    Freeze::in_force(namespace, own, registry)
}
