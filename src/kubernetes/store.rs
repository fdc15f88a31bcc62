//! A cache of the objects of one kind, with indexes. Objects are held as compressed JSON and decoded when they are read.
//!
//! Absent: watching, and the fields that are never read; see `watch` and [`Cached::prune`].

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use crate::kubernetes::compress::{CompressError, Compressed};
use crate::kubernetes::key::{IndexKey, ObjectKey};
use crate::kubernetes::lock::lock;

/// How often the objects are listed again at most, because one cannot be decoded.
const RELIST_INTERVAL: Duration = Duration::from_secs(60);

/// A kind that can be held in a store.
pub trait Cached:
    DeserializeOwned + Resource<DynamicType = ()> + Serialize + Sized + 'static
{
    /// The keys by which an object is found, besides its name.
    fn index_keys(&self) -> Vec<IndexKey>;

    /// Drops the fields that are never read. If the resource version is among them, an update that changes only dropped fields
    /// counts as no change.
    fn prune(&mut self);
}

/// The objects of one kind, filled by one watch or several (one a namespace).
///
/// A typed object takes five to ten times the memory of its JSON, so only the bytes are held.
pub struct Store<K> {
    inner: Mutex<StoreInner>,
    /// How far the watches are.
    synced: watch::Sender<SyncState>,
    /// Notified when the objects have to be listed again.
    relist: Notify,
    kind: PhantomData<fn() -> K>,
}

/// How far the watches of a store are, by their numbers.
#[derive(Default)]
struct SyncState {
    /// Those whose initial list is complete.
    complete: HashSet<u16>,
    /// Those that the API server does not allow.
    forbidden: HashSet<u16>,
}

impl SyncState {
    /// Whether all are complete. One that is forbidden is not waited for if others are allowed: a namespace may have been deleted,
    /// and its role with it.
    fn is_done(&self, watches: usize) -> bool {
        let complete = self.complete.len();
        complete > 0 && complete + self.forbidden.len() >= watches
    }
}

#[derive(Default)]
struct StoreInner {
    objects: HashMap<ObjectKey, StoredObject>,
    index: HashMap<IndexKey, IndexEntry>,
    /// Objects that exist and cannot be decoded.
    unreadable: HashSet<ObjectKey>,
    /// When the objects had to be listed again last.
    relisted: Option<Instant>,
}

/// The objects with one index key. Mostly it is one, which needs no list.
enum IndexEntry {
    One(ObjectKey),
    Many(Vec<ObjectKey>),
}

impl IndexEntry {
    fn as_slice(&self) -> &[ObjectKey] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }

    fn with(self, key: ObjectKey) -> Self {
        match self {
            Self::One(first) => Self::Many(vec![first, key]),
            Self::Many(mut keys) => {
                keys.push(key);
                Self::Many(keys)
            }
        }
    }

    fn without(self, key: &ObjectKey) -> Option<Self> {
        match self {
            Self::One(only) => (only != *key).then_some(Self::One(only)),
            Self::Many(mut keys) => {
                keys.retain(|each| each != key);
                (!keys.is_empty()).then_some(Self::Many(keys))
            }
        }
    }
}

struct StoredObject {
    compressed: Compressed,
    index_keys: Box<[IndexKey]>,
    /// Incremented by the API server when the spec changes or the object is being deleted.
    generation: Option<i64>,
    /// A digest of uid, labels, annotations and finalizers.
    metadata: u64,
    /// The number of the watch that showed it: a new list of one watch says nothing about the objects of others.
    watch: u16,
    resource_version: u64,
    /// Whether it is the response to a write of our own, which the watch may not have shown yet.
    is_own_write: bool,
    /// A digest of the last status that was sent for this resource version and changed nothing; 0 if none was.
    ineffective_status: u64,
}

/// Where a version of an object comes from.
#[derive(Clone, Copy, Eq, PartialEq)]
enum RecordSource {
    /// An event of the watch of this number.
    Watch(u16),
    /// A list of the watch of this number.
    List(u16),
    /// The response to a write of our own.
    OwnWrite,
}

/// The difference between an object and its predecessor in the store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// The same version, an older one, or one that differs only in fields that are never read.
    None,
    /// Only its status.
    Status,
    /// A label, an annotation or a finalizer.
    Metadata,
    /// Its spec, or it is being deleted. Its index keys are the same.
    Spec,
    /// It is new or gone, or its index keys changed.
    Added,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            synced: watch::Sender::default(),
            relist: Notify::new(),
            kind: PhantomData,
        }
    }
}

impl<K: Cached> Store<K> {
    /// An object by its name. One that cannot be decoded is reported in the log, and is read again from the API server.
    pub fn get(&self, key: &ObjectKey) -> Option<K> {
        match self.try_get(key) {
            Ok(object) => object,
            Err(error) => {
                tracing::error!(kind = %K::kind(&()), %key, %error, "a cached object cannot be decoded; its kind is listed again");
                None
            }
        }
    }

    /// An object by its name.
    ///
    /// # Errors
    /// If it is there and cannot be decoded.
    pub fn try_get(&self, key: &ObjectKey) -> Result<Option<K>, CompressError> {
        let stored = lock(&self.inner)
            .objects
            .get(key)
            .map(|stored| stored.compressed.clone());
        match stored.map(|compressed| compressed.decompress()) {
            Some(Ok(object)) => Ok(Some(object)),
            Some(Err(error)) => {
                self.distrust(key);
                Err(error)
            }
            None => Ok(None),
        }
    }

    /// Has an object read again from the API server, which is there but cannot be decoded.
    fn distrust(&self, key: &ObjectKey) {
        let mut inner = lock(&self.inner);
        if let Some(stored) = inner.objects.get_mut(key) {
            // Any version that a list shows is newer.
            stored.resource_version = 0;
            stored.is_own_write = false;
        }
        inner.unreadable.insert(key.clone());
        let is_due = inner
            .relisted
            .is_none_or(|last| last.elapsed() >= RELIST_INTERVAL);
        if is_due {
            inner.relisted = Some(Instant::now());
            self.relist.notify_waiters();
        }
    }

    /// Whether there is an object of this name.
    pub fn has(&self, key: &ObjectKey) -> bool {
        lock(&self.inner).objects.contains_key(key)
    }

    /// Whether there is an object of this name that could not be decoded when it was shown last.
    pub fn is_unreadable(&self, key: &ObjectKey) -> bool {
        lock(&self.inner).unreadable.contains(key)
    }

    /// The names of the objects with this index key. Keys are digests, so an object that is not meant may be among them.
    pub fn names(&self, key: IndexKey) -> Vec<ObjectKey> {
        match lock(&self.inner).index.get(&key) {
            Some(entry) => entry.as_slice().to_vec(),
            None => Vec::new(),
        }
    }

    /// The objects with this index key for which `is_meant` is true.
    pub fn find(&self, key: IndexKey, is_meant: impl Fn(&K) -> bool) -> Vec<K> {
        let mut found = Vec::new();
        for name in self.names(key) {
            match self.get(&name) {
                Some(object) if is_meant(&object) => found.push(object),
                _ => {}
            }
        }
        found
    }

    /// The names of all objects.
    pub fn all_names(&self) -> Vec<ObjectKey> {
        lock(&self.inner).objects.keys().cloned().collect()
    }

    /// How many objects a namespace has.
    pub fn count_in(&self, namespace: &str) -> usize {
        let inner = lock(&self.inner);
        let names = inner.objects.keys();
        names.filter(|key| key.namespace() == namespace).count()
    }

    /// All objects, decoded one at a time.
    pub fn all(&self) -> impl Iterator<Item = K> + '_ {
        self.all_names()
            .into_iter()
            .filter_map(|name| self.get(&name))
    }

    /// Stores an object that a watch showed, and prunes it.
    pub fn put(&self, watch: u16, object: &mut K) -> Change {
        self.store(RecordSource::Watch(watch), object)
    }

    /// Stores an object that the new list of a watch shows, and prunes it. A list is the truth also if it is older: etcd may have
    /// been restored from a backup.
    pub fn put_listed(&self, watch: u16, object: &mut K) -> Change {
        self.store(RecordSource::List(watch), object)
    }

    /// Stores the response to a write of our own before the watch shows it, unless the object is gone. Prunes it in any case.
    pub fn put_own(&self, object: &mut K) -> Change {
        self.store(RecordSource::OwnWrite, object)
    }

    fn store(&self, source: RecordSource, object: &mut K) -> Change {
        let (key, resource_version) = (ObjectKey::of(object), resource_version(object));
        object.prune();
        let mut inner = lock(&self.inner);
        inner.unreadable.remove(&key);
        let old = inner.objects.get(&key);
        let watch = match (source, old) {
            (RecordSource::Watch(watch) | RecordSource::List(watch), _) => watch,
            (RecordSource::OwnWrite, Some(old)) => old.watch,
            (RecordSource::OwnWrite, None) => return Change::None,
        };
        if old.is_some_and(|old| old.supersedes(resource_version, source)) {
            return Change::None;
        }
        let new = StoredObject {
            compressed: Compressed::of(object),
            index_keys: object.index_keys().into(),
            generation: object.meta().generation,
            metadata: metadata_digest(object.meta()),
            watch,
            resource_version,
            is_own_write: source == RecordSource::OwnWrite,
            ineffective_status: 0,
        };
        let change = new.change_from(old);
        if change == Change::Added {
            inner.unindex(&key);
            for index_key in &new.index_keys {
                inner.index(*index_key, key.clone());
            }
        }
        inner.objects.insert(key, new);
        change
    }

    /// Removes an object; false if there was none.
    pub fn remove(&self, key: &ObjectKey) -> bool {
        let mut inner = lock(&self.inner);
        inner.unreadable.remove(key);
        inner.remove(key).is_some()
    }

    /// Notes that an object exists and cannot be decoded. Its last readable version stays.
    pub fn mark_unreadable(&self, key: ObjectKey) {
        lock(&self.inner).unreadable.insert(key);
    }

    /// Removes the objects that a watch showed and its new list does not name, and returns those objects.
    pub fn retain(&self, watch: u16, listed: &HashSet<ObjectKey>) -> Vec<K> {
        let mut inner = lock(&self.inner);
        let mut gone = Vec::new();
        for (key, stored) in &inner.objects {
            if stored.watch == watch && !listed.contains(key) {
                gone.push(key.clone());
            }
        }
        let mut removed = Vec::new();
        for key in &gone {
            if let Some(stored) = inner.remove(key)
                && let Ok(object) = stored.compressed.decompress()
            {
                removed.push(object);
            }
        }
        removed
    }

    /// Notes that the initial list of a watch is complete.
    pub fn mark_synced(&self, watch: u16) {
        self.synced.send_modify(|synced| {
            synced.forbidden.remove(&watch);
            synced.complete.insert(watch);
        });
    }

    /// Notes that the API server does not allow a watch whose initial list is not complete. True if that is news.
    pub fn mark_forbidden(&self, watch: u16) -> bool {
        let mark = |synced: &mut SyncState| {
            !synced.complete.contains(&watch) && synced.forbidden.insert(watch)
        };
        self.synced.send_if_modified(mark)
    }

    /// Whether the initial lists of so many watches are complete.
    #[cfg(test)]
    pub fn is_synced(&self, watches: usize) -> bool {
        self.synced.borrow().complete.len() >= watches
    }

    /// The same, but for watches that are forbidden.
    pub fn is_synced_as_allowed(&self, watches: usize) -> bool {
        self.synced.borrow().is_done(watches)
    }

    /// Whether the initial list of this watch is complete.
    pub fn is_synced_by(&self, watch: u16) -> bool {
        self.synced.borrow().complete.contains(&watch)
    }

    /// Whether the initial list of this watch is neither complete nor forbidden.
    pub fn is_awaited(&self, watch: u16) -> bool {
        let synced = self.synced.borrow();
        !synced.complete.contains(&watch) && !synced.forbidden.contains(&watch)
    }

    /// Waits until the initial lists of so many watches are complete, but for those that are forbidden.
    pub async fn wait_until_synced(&self, watches: usize) {
        // It fails only if the store is dropped.
        let _ = self
            .synced
            .subscribe()
            .wait_for(|synced| synced.is_done(watches))
            .await;
    }

    /// Waits until the objects have to be listed again.
    pub async fn wait_for_relist(&self) {
        self.relist.notified().await;
    }

    /// Notes that sending the status of this object changed nothing on the server.
    pub fn mark_status_ineffective(&self, object: &K) {
        let digest = object_digest(object);
        if let Some(stored) = lock(&self.inner).objects.get_mut(&ObjectKey::of(object))
            && stored.resource_version == resource_version(object)
        {
            stored.ineffective_status = digest;
        }
    }

    /// Whether the same status was sent for the same resource version before, and changed nothing.
    pub fn is_status_ineffective(&self, object: &K) -> bool {
        let digest = object_digest(object);
        lock(&self.inner)
            .objects
            .get(&ObjectKey::of(object))
            .is_some_and(|stored| stored.ineffective_status == digest)
    }

    /// Replaces the bytes of an object by those of a text.
    #[cfg(test)]
    pub fn damage(&self, key: &ObjectKey) {
        if let Some(stored) = lock(&self.inner).objects.get_mut(key) {
            stored.compressed = Compressed::of(&"damaged".to_owned());
        }
    }

    /// How many objects there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        lock(&self.inner).objects.len()
    }
}

impl StoredObject {
    /// Whether this object is newer than another version of it, or the same. A watch shows versions in their order, but the
    /// response to a write may arrive after it.
    fn supersedes(&self, version: u64, source: RecordSource) -> bool {
        let is_out_of_order = match source {
            RecordSource::Watch(_) => self.is_own_write,
            RecordSource::OwnWrite => true,
            RecordSource::List(_) => false,
        };
        self.resource_version == version || (is_out_of_order && self.resource_version > version)
    }

    fn change_from(&self, old: Option<&Self>) -> Change {
        match old {
            None => Change::Added,
            Some(old) if old.index_keys != self.index_keys => Change::Added,
            Some(old) if old.generation != self.generation => Change::Spec,
            Some(old) if old.metadata != self.metadata => Change::Metadata,
            Some(old) if old.compressed == self.compressed => Change::None,
            Some(_) => Change::Status,
        }
    }
}

impl StoreInner {
    fn remove(&mut self, key: &ObjectKey) -> Option<StoredObject> {
        self.unindex(key);
        self.objects.remove(key)
    }

    fn index(&mut self, index_key: IndexKey, key: ObjectKey) {
        let entry = match self.index.remove(&index_key) {
            Some(entry) => entry.with(key),
            None => IndexEntry::One(key),
        };
        self.index.insert(index_key, entry);
    }

    fn unindex(&mut self, key: &ObjectKey) {
        let Some(stored) = self.objects.get(key) else {
            return;
        };
        for index_key in &stored.index_keys {
            let Some(entry) = self.index.remove(index_key) else {
                continue;
            };
            if let Some(entry) = entry.without(key) {
                self.index.insert(*index_key, entry);
            }
        }
    }
}

fn metadata_digest(metadata: &ObjectMeta) -> u64 {
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

fn object_digest<K: Serialize>(object: &K) -> u64 {
    let mut hasher = DefaultHasher::new();
    // An object that cannot be serialized was never sent.
    serde_json::to_vec(object)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

/// The resource version as a number, which it is for every kind that an API server of its own does not serve; otherwise a digest.
fn resource_version<K: Resource>(object: &K) -> u64 {
    let version = object.resource_version().unwrap_or_default();
    if let Ok(number) = version.parse() {
        return number;
    }
    let mut hasher = DefaultHasher::new();
    version.hash(&mut hasher);
    hasher.finish()
}
