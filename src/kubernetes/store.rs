//! Objects of one kind as the cluster showed them last, each packed into a few bytes until somebody looks at it.
//!
//! Absent: watching, and what is never read of an object; see `watch` and [`Shelved::slim`].

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Mutex;

use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::kubernetes::compress::{Packed, Packer, Whole};
use crate::kubernetes::key::{Key, Name};
use crate::kubernetes::lock::lock;

/// A kind that is kept on a shelf.
pub trait Shelved: DeserializeOwned + Resource<DynamicType = ()> + Serialize + Sized {
    /// What it is found by beside its name.
    fn keys(&self) -> Vec<Key>;

    /// Drops what is never read. Where that is the resource version too, a change of nothing else is none.
    fn slim(&mut self);
}

/// The objects of one kind, brought by one watch or several.
///
/// They lie packed, for a typed object of this API takes five to ten times the room of its bytes.
pub struct Shelf<K> {
    inner: Mutex<Inner>,
    filled: watch::Sender<HashSet<usize>>,
    kind: PhantomData<fn() -> K>,
}

#[derive(Default)]
struct Inner {
    objects: HashMap<Name, Kept>,
    index: HashMap<Key, Found>,
    packer: Packer,
}

/// The names with one key: mostly one, and for that one no list is made.
enum Found {
    One(Name),
    Many(Vec<Name>),
}

impl Found {
    fn as_slice(&self) -> &[Name] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }

    fn with(self, name: Name) -> Self {
        match self {
            Self::One(first) => Self::Many(vec![first, name]),
            Self::Many(mut names) => {
                names.push(name);
                Self::Many(names)
            }
        }
    }

    fn without(self, name: &Name) -> Option<Self> {
        match self {
            Self::One(only) => (only != *name).then_some(Self::One(only)),
            Self::Many(mut names) => {
                names.retain(|each| each != name);
                (!names.is_empty()).then_some(Self::Many(names))
            }
        }
    }
}

struct Kept {
    packed: Packed,
    keys: Box<[Key]>,
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

/// What putting an object on the shelf came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Put {
    /// It lay there already, or a newer one did, or it differs in nothing that is ever read.
    Known,
    /// It says another thing of itself, and asks for the same.
    Told,
    /// A label, an annotation or a finalizer changed.
    Marked,
    /// It asks for another thing: its spec is another one, or it is being deleted. It is found by the same keys.
    Changed,
    /// It is new, or found by other keys than before.
    Moved,
}

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            filled: watch::Sender::default(),
            kind: PhantomData,
        }
    }
}

impl<K: Shelved> Shelf<K> {
    /// An object by its name.
    pub fn get(&self, name: &Name) -> Option<K> {
        let packed = lock(&self.inner)
            .objects
            .get(name)
            .map(|kept| kept.packed.clone())?;
        packed.unpack()
    }

    /// Whether there is an object of this name.
    pub fn has(&self, name: &Name) -> bool {
        lock(&self.inner).objects.contains_key(name)
    }

    /// The names of the objects with this key. One that merely has the same digest is possible, and as good as never seen.
    pub fn names(&self, key: Key) -> Vec<Name> {
        lock(&self.inner)
            .index
            .get(&key)
            .map(|found| found.as_slice().to_vec())
            .unwrap_or_default()
    }

    /// The objects with this key that are what is looked for.
    pub fn find(&self, key: Key, is_meant: impl Fn(&K) -> bool) -> Vec<K> {
        self.names(key)
            .iter()
            .filter_map(|name| self.get(name))
            .filter(is_meant)
            .collect()
    }

    /// The names of all objects.
    pub fn all_names(&self) -> Vec<Name> {
        lock(&self.inner).objects.keys().cloned().collect()
    }

    /// Every object, one unpacked at a time.
    pub fn all(&self) -> impl Iterator<Item = K> + '_ {
        self.all_names()
            .into_iter()
            .filter_map(|name| self.get(&name))
    }

    /// Puts what a watch showed on the shelf, less what is never read.
    pub fn put(&self, watch: u16, object: &mut K) -> Put {
        self.lay(Some(watch), object)
    }

    /// Puts the answer to a write of our own on the shelf, ahead of the watch; not where the object is gone.
    pub fn put_own(&self, object: &mut K) -> Put {
        self.lay(None, object)
    }

    fn lay(&self, watch: Option<u16>, object: &mut K) -> Put {
        let (name, version) = (Name::of(object), resource_version(object));
        object.slim();
        let keys: Box<[Key]> = object.keys().into();
        let (generation, marks) = (object.meta().generation, marks(object.meta()));
        let mut inner = lock(&self.inner);
        let old = inner.objects.get(&name);
        // A watch shows versions in their order, and an answer to a write may come late: the newer of the two stands.
        let is_late = |old: &Kept| old.version > version && (old.is_own || watch.is_none());
        if old.is_some_and(|old| old.version == version || is_late(old)) {
            return Put::Known;
        }
        let (watch, is_own) = match (watch, old) {
            (Some(watch), _) => (watch, false),
            (None, Some(old)) => (old.watch, true),
            (None, None) => return Put::Known,
        };
        let whole = Whole::of(object);
        let put = match old {
            Some(old) if old.keys != keys => Put::Moved,
            Some(old) if old.generation != generation => Put::Changed,
            Some(old) if old.marks != marks => Put::Marked,
            Some(old) if old.packed.is(&whole) => Put::Known,
            Some(_) => Put::Told,
            None => Put::Moved,
        };
        if put == Put::Moved {
            inner.unindex(&name);
            for key in &keys {
                inner.index(*key, name.clone());
            }
        }
        let packed = inner.packer.pack(&whole);
        inner.objects.insert(
            name,
            Kept {
                packed,
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

    /// Takes an object off the shelf.
    pub fn remove(&self, name: &Name) {
        lock(&self.inner).remove(name);
    }

    /// Takes off what a watch brought and its new listing does not name; answers those objects.
    pub fn retain(&self, watch: u16, listed: &HashSet<Name>) -> Vec<K> {
        let mut inner = lock(&self.inner);
        let is_gone =
            |(name, kept): &(&Name, &Kept)| kept.watch == watch && !listed.contains(*name);
        let gone: Vec<Name> = inner
            .objects
            .iter()
            .filter(is_gone)
            .map(|(name, _)| name.clone())
            .collect();
        gone.iter()
            .filter_map(|name| inner.remove(name))
            .filter_map(|kept| kept.packed.unpack())
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
        // It ends only with the shelf itself.
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

impl Inner {
    fn remove(&mut self, name: &Name) -> Option<Kept> {
        self.unindex(name);
        self.objects.remove(name)
    }

    fn index(&mut self, key: Key, name: Name) {
        let found = match self.index.remove(&key) {
            Some(found) => found.with(name),
            None => Found::One(name),
        };
        self.index.insert(key, found);
    }

    fn unindex(&mut self, name: &Name) {
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
