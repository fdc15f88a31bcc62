//! The namespaces with the annotation `pointsman.dev/freeze`, as they are stored.
//!
//! Absent: other namespaces, and the consequences; see `freezes`.

use k8s_openapi::api::core::v1::Namespace;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::api::conditions::shorten;
use crate::api::names;
use crate::kubernetes::key::IndexKey;
use crate::kubernetes::store::Cached;

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
    /// The reason of the freeze; `None` if the namespace is not frozen.
    pub fn reason(&self) -> Option<&String> {
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
