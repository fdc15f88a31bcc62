//! The freeze that is in force for a binding, and the bindings that a change of a namespace's freeze concerns.
//!
//! Absent: what a freeze holds; see `rollout::gates`.

use std::sync::Arc;

use crate::api::{AliasBinding, ModelRegistry};
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

/// The freeze in force for a binding.
pub fn freeze(
    ctx: &Context,
    binding: &AliasBinding,
    registry: Option<&ModelRegistry>,
) -> Option<Freeze> {
    let namespace = binding.metadata.namespace.as_deref().unwrap_or_default();
    let frozen = ctx.stores.frozen.get(&ObjectKey::new("", namespace));
    let why = frozen.map(|frozen| frozen.reason().cloned().unwrap_or_default());
    Freeze::in_force(binding, why, registry)
}
