//! The namespaces with the annotation `pointsman.dev/freeze`, and the freeze that is in force for a binding.
//!
//! Absent: other namespaces. They are not kept.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::api::conditions::shorten;
use crate::api::{ModelRegistry, names};
use crate::controllers::context::Context;
use crate::kubernetes::key::{IndexKey, ObjectKey};
use crate::kubernetes::store::{Cached, Change};
use crate::kubernetes::watch::Handler;
use crate::rollout::{Freeze, FreezePlace};

/// How much of the annotation is kept, in characters.
const LONGEST_REASON: usize = 256;

/// A namespace, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize, Resource, Serialize)]
#[resource(inherit = "Namespace")]
pub struct FrozenNamespace {
    /// Its name and annotations.
    pub metadata: ObjectMeta,
}

impl FrozenNamespace {
    fn reason(&self) -> Option<&String> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get(names::FREEZE_ANNOTATION)
    }
}

impl Cached for FrozenNamespace {
    fn index_keys(&self) -> Vec<IndexKey> {
        Vec::new()
    }

    /// An update that changes only what is dropped here counts as no change.
    fn prune(&mut self) {
        let reason = self.reason().map(|reason| {
            let reason = shorten(reason, LONGEST_REASON);
            (names::FREEZE_ANNOTATION.to_owned(), reason)
        });
        self.metadata = ObjectMeta {
            name: self.metadata.name.take(),
            uid: self.metadata.uid.take(),
            annotations: Some(reason.into_iter().collect()),
            ..ObjectMeta::default()
        };
    }
}

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
    if let Some(frozen) = ctx.stores.frozen.get(&ObjectKey::new("", namespace)) {
        return Some(Freeze {
            place: FreezePlace::Namespace(namespace.to_owned()),
            why: frozen.reason().cloned().unwrap_or_default(),
        });
    }
    let registry = registry?;
    let key = ObjectKey::of(registry);
    Some(Freeze {
        why: registry.spec.freeze.clone()?,
        place: FreezePlace::Registry {
            namespace: key.namespace().to_owned(),
            name: key.name().to_owned(),
        },
    })
}
