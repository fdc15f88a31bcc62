//! Objects of one kind as the cluster showed them last, each compressed into a few bytes until somebody looks at it.
//!
//! Absent: watching, and what is never read of an object; see `watch` and [`Cached::prune`].

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Mutex;

use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::kubernetes::compress::{Compressed, Compressor, Encoded};
use crate::kubernetes::key::{IndexKey, ObjectKey};
use crate::kubernetes::lock::lock;

/// A kind that is kept on a store.
pub trait Cached: DeserializeOwned + Resource<DynamicType = ()> + Serialize + Sized {
    /// What it is found by beside its name.
    fn keys(&self) -> Vec<IndexKey>;

    /// Drops what is never read. Where that is the resource version too, a change of nothing else is none.
    fn prune(&mut self);
}

/// The objects of one kind, brought by one watch or several.
///
/// They lie compressed, for a typed object of this API takes five to ten times the room of its bytes.
pub struct Store<K> {
    inner: Mutex<StoreInner>,
    filled: watch::Sender<HashSet<usize>>,
    kind: PhantomData<fn() -> K>,
}

#[derive(Default)]
struct StoreInner {
    objects: HashMap<ObjectKey, StoredObject>,
    index: HashMap<IndexKey, IndexEntry>,
    compressor: Compressor,
}

/// The names with one key: mostly one, and for that one no list is made.
enum IndexEntry {
    One(ObjectKey),
    Many(Vec<ObjectKey>),
}

impl IndexEntry {
    fn as_slice(&self) -> &[ObjectKey] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }

    fn with(self, name: ObjectKey) -> Self {
        match self {
            Self::One(first) => Self::Many(vec![first, name]),
            Self::Many(mut names) => {
                names.push(name);
                Self::Many(names)
            }
        }
    }

    fn without(self, name: &ObjectKey) -> Option<Self> {
        match self {
            Self::One(only) => (only != *name).then_some(Self::One(only)),
            Self::Many(mut names) => {
                names.retain(|each| each != name);
                (!names.is_empty()).then_some(Self::Many(names))
            }
        }
    }
}

struct StoredObject {
    compressed: Compressed,
    keys: Box<[IndexKey]>,
    /// Counted by the API server: another spec, or being deleted, is another generation.
    generation: Option<i64>,
    /// A digest of its labels, annotations and finalizers.
    marks: u64,
    /// The number of the watch that brought it: a new listing of one watch says nothing of the others.
    watch: u16,
    /// The resource version.
    version: u64,
    /// Whether it is an answer to a write of our own, which the watch may not have shown yet.
    is_own: bool,
}

/// What putting an object on the store came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// It lay there already, or a newer one did, or it differs in nothing that is ever read.
    None,
    /// It says another thing of itself, and asks for the same.
    Status,
    /// A label, an annotation or a finalizer changed.
    Metadata,
    /// It asks for another thing: its spec is another one, or it is being deleted. It is found by the same keys.
    Spec,
    /// It is new, or found by other keys than before.
    Added,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            filled: watch::Sender::default(),
            kind: PhantomData,
        }
    }
}

impl<K: Cached> Store<K> {
    /// An object by its name.
    pub fn get(&self, name: &ObjectKey) -> Option<K> {
        let compressed = lock(&self.inner)
            .objects
            .get(name)
            .map(|kept| kept.compressed.clone())?;
        compressed.decompress()
    }

    /// Whether there is an object of this name.
    pub fn has(&self, name: &ObjectKey) -> bool {
        lock(&self.inner).objects.contains_key(name)
    }

    /// The names of the objects with this key. One that merely has the same digest is possible, and as good as never seen.
    pub fn names(&self, key: IndexKey) -> Vec<ObjectKey> {
        lock(&self.inner)
            .index
            .get(&key)
            .map(|found| found.as_slice().to_vec())
            .unwrap_or_default()
    }

    /// The objects with this key that are what is looked for.
    pub fn find(&self, key: IndexKey, is_meant: impl Fn(&K) -> bool) -> Vec<K> {
        self.names(key)
            .iter()
            .filter_map(|name| self.get(name))
            .filter(is_meant)
            .collect()
    }

    /// The names of all objects.
    pub fn all_names(&self) -> Vec<ObjectKey> {
        lock(&self.inner).objects.keys().cloned().collect()
    }

    /// Every object, one unpacked at a time.
    pub fn all(&self) -> impl Iterator<Item = K> + '_ {
        self.all_names()
            .into_iter()
            .filter_map(|name| self.get(&name))
    }

    /// Puts what a watch showed on the store, less what is never read.
    pub fn put(&self, watch: u16, object: &mut K) -> Change {
        self.lay(Some(watch), object)
    }

    /// Puts the answer to a write of our own on the store, ahead of the watch; not where the object is gone.
    pub fn put_own(&self, object: &mut K) -> Change {
        self.lay(None, object)
    }

    fn lay(&self, watch: Option<u16>, object: &mut K) -> Change {
        let (name, version) = (ObjectKey::of(object), resource_version(object));
        object.prune();
        let keys: Box<[IndexKey]> = object.keys().into();
        let (generation, marks) = (object.meta().generation, marks(object.meta()));
        let mut inner = lock(&self.inner);
        let old = inner.objects.get(&name);
        // A watch shows versions in their order, and an answer to a write may come late: the newer of the two stands.
        let is_late = |old: &StoredObject| old.version > version && (old.is_own || watch.is_none());
        if old.is_some_and(|old| old.version == version || is_late(old)) {
            return Change::None;
        }
        let (watch, is_own) = match (watch, old) {
            (Some(watch), _) => (watch, false),
            (None, Some(old)) => (old.watch, true),
            (None, None) => return Change::None,
        };
        let whole = Encoded::of(object);
        let put = match old {
            Some(old) if old.keys != keys => Change::Added,
            Some(old) if old.generation != generation => Change::Spec,
            Some(old) if old.marks != marks => Change::Metadata,
            Some(old) if old.compressed.is(&whole) => Change::None,
            Some(_) => Change::Status,
            None => Change::Added,
        };
        if put == Change::Added {
            inner.unindex(&name);
            for key in &keys {
                inner.index(*key, name.clone());
            }
        }
        let compressed = inner.compressor.compress(&whole);
        inner.objects.insert(
            name,
            StoredObject {
                compressed,
                keys,
                generation,
                marks,
                watch,
                version,
                is_own,
            },
        );
        put
    }

    /// Takes an object off the store.
    pub fn remove(&self, name: &ObjectKey) {
        lock(&self.inner).remove(name);
    }

    /// Takes off what a watch brought and its new listing does not name; answers those objects.
    pub fn retain(&self, watch: u16, listed: &HashSet<ObjectKey>) -> Vec<K> {
        let mut inner = lock(&self.inner);
        let is_gone = |(name, kept): &(&ObjectKey, &StoredObject)| {
            kept.watch == watch && !listed.contains(*name)
        };
        let gone: Vec<ObjectKey> = inner
            .objects
            .iter()
            .filter(is_gone)
            .map(|(name, _)| name.clone())
            .collect();
        gone.iter()
            .filter_map(|name| inner.remove(name))
            .filter_map(|kept| kept.compressed.decompress())
            .collect()
    }

    /// Notes that all is there that a watch lists.
    pub fn is_filled_by(&self, watch: u16) {
        self.filled.send_modify(|filled| {
            filled.insert(usize::from(watch));
        });
    }

    /// Whether all is there that so many watches list.
    pub fn is_filled(&self, watches: usize) -> bool {
        self.filled.borrow().len() >= watches
    }

    /// Whether all is there that this watch lists.
    pub fn was_filled_by(&self, watch: u16) -> bool {
        self.filled.borrow().contains(&usize::from(watch))
    }

    /// Waits until all is there that so many watches list.
    pub async fn wait_until_filled(&self, watches: usize) {
        // It ends only with the store itself.
        let _ = self
            .filled
            .subscribe()
            .wait_for(|filled| filled.len() >= watches)
            .await;
    }

    /// How many objects there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        lock(&self.inner).objects.len()
    }
}

impl StoreInner {
    fn remove(&mut self, name: &ObjectKey) -> Option<StoredObject> {
        self.unindex(name);
        self.objects.remove(name)
    }

    fn index(&mut self, key: IndexKey, name: ObjectKey) {
        let found = match self.index.remove(&key) {
            Some(found) => found.with(name),
            None => IndexEntry::One(name),
        };
        self.index.insert(key, found);
    }

    fn unindex(&mut self, name: &ObjectKey) {
        let Some(kept) = self.objects.get(name) else {
            return;
        };
        for key in &kept.keys {
            if let Some(found) = self.index.remove(key).and_then(|found| found.without(name)) {
                self.index.insert(*key, found);
            }
        }
    }
}

/// A digest of what people and other programs write on an object beside its spec.
fn marks(metadata: &ObjectMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    (
        &metadata.uid,
        &metadata.labels,
        &metadata.annotations,
        &metadata.finalizers,
    )
        .hash(&mut hasher);
    hasher.finish()
}

/// The resource version as a number, which the API server's are; a digest of it where it is none.
fn resource_version<K: Resource>(object: &K) -> u64 {
    let version = object.resource_version().unwrap_or_default();
    version
        .parse()
        .unwrap_or_else(|_| crate::targets::fnv1a(version.as_bytes()))
}
