//! Pods, ReplicaSets and Jobs by the binding that their label names: what belongs to a binding is found without a search.
//!
//! Absent: objects without that label. They are not watched.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::locked::lock;
use crate::api::names;

/// The binding that an object's label names, by namespace and name.
type Key = (String, String);
type Index<K> = HashMap<Key, HashMap<String, Kept<K>>>;

/// An object, and the number of the watch that brought it: a new listing of one watch says nothing of the others.
struct Kept<K> {
    object: Arc<K>,
    watch: usize,
}

/// Objects of one kind, by binding, brought by one watch or several.
pub struct Labelled<K> {
    index: Mutex<Index<K>>,
    filled: watch::Sender<HashSet<usize>>,
}

impl<K> Default for Labelled<K> {
    fn default() -> Self {
        Self { index: Mutex::default(), filled: watch::Sender::default() }
    }
}

impl<K: Resource> Labelled<K> {
    /// The objects that a binding's name labels.
    pub fn of(&self, namespace: &str, binding: &str) -> Vec<Arc<K>> {
        let index = lock(&self.index);
        let found = index.get(&(namespace.to_owned(), binding.to_owned()));
        found.map(|objects| objects.values().map(|kept| Arc::clone(&kept.object)).collect()).unwrap_or_default()
    }

    /// Waits until every object is there that so many watches list.
    pub async fn wait_until_filled(&self, watches: usize) {
        // It ends only with the index itself.
        let _ = self.filled.subscribe().wait_for(|filled| filled.len() >= watches).await;
    }

    fn keep(&self, watch: usize, object: K) {
        insert(&mut lock(&self.index), watch, object);
    }

    fn remove(&self, object: &K) {
        let mut index = lock(&self.index);
        let Some(key) = key(object) else { return };
        if let Some(objects) = index.get_mut(&key) {
            objects.remove(&object.name_any());
            if objects.is_empty() {
                index.remove(&key);
            }
        }
    }

    fn replace(&self, watch: usize, objects: Vec<K>) {
        let mut index = lock(&self.index);
        for kept in index.values_mut() {
            kept.retain(|_, kept| kept.watch != watch);
        }
        index.retain(|_, kept| !kept.is_empty());
        for object in objects {
            insert(&mut index, watch, object);
        }
        drop(index);
        self.filled.send_modify(|filled| {
            filled.insert(watch);
        });
    }
}

fn insert<K: Resource>(index: &mut Index<K>, watch: usize, object: K) {
    if let Some(key) = key(&object) {
        index.entry(key).or_default().insert(object.name_any(), Kept { object: Arc::new(object), watch });
    }
}

fn key<K: Resource>(object: &K) -> Option<Key> {
    Some((object.namespace()?, object.labels().get(names::BINDING_LABEL)?.clone()))
}

/// Follows one kind for ever: keeps the index, then tells which binding is concerned.
///
/// `watch` is this watch's number, other than that of any other watch of the same index.
pub async fn follow<K>(api: Api<K>, watch: usize, index: Arc<Labelled<K>>, changed: impl Fn(&str, &str))
where
    K: Clone + Debug + DeserializeOwned + Resource<DynamicType = ()> + Send + 'static,
{
    let config = watcher::Config::default().labels(names::BINDING_LABEL);
    let events =
        watcher(api, config).default_backoff().modify(|object: &mut K| object.meta_mut().managed_fields = None);
    keep_index(std::pin::pin!(events), watch, &index, changed).await;
}

async fn keep_index<K>(
    mut events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Unpin,
    watch: usize,
    index: &Labelled<K>,
    changed: impl Fn(&str, &str),
) where
    K: Clone + Resource<DynamicType = ()>,
{
    let mut listed = Vec::new();
    let tell = |object: &K| {
        if let Some((namespace, binding)) = key(object) {
            changed(&namespace, &binding);
        }
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.push(object),
            Ok(Event::InitDone) => {
                let all = std::mem::take(&mut listed);
                index.replace(watch, all.clone());
                all.iter().for_each(tell);
            }
            Ok(Event::Apply(object)) => {
                index.keep(watch, object.clone());
                tell(&object);
            }
            Ok(Event::Delete(object)) => {
                index.remove(&object);
                tell(&object);
            }
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "a watch broke off and is taken up again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Pod;
    use serde_json::json;

    fn pod(name: &str, binding: &str) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "ml", "labels": {"pointsman.dev/binding": binding}}}),
        )
        .expect("a pod")
    }

    async fn after(events: Vec<Event<Pod>>) -> Labelled<Pod> {
        let index = Labelled::default();
        keep_index(futures::stream::iter(events.into_iter().map(Ok)), 0, &index, |_, _| {}).await;
        index
    }

    fn names(index: &Labelled<Pod>, binding: &str) -> Vec<String> {
        let mut names: Vec<_> = index.of("ml", binding).iter().map(|pod| pod.name_any()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_is_labelled_is_found_by_its_binding_and_what_is_deleted_is_not() {
        let index = after(vec![
            Event::Init,
            Event::InitApply(pod("a", "one")),
            Event::InitApply(pod("b", "two")),
            Event::InitDone,
            Event::Apply(pod("c", "one")),
            Event::Delete(pod("b", "two")),
        ])
        .await;
        assert_eq!((names(&index, "one"), names(&index, "two")), (vec!["a".to_owned(), "c".to_owned()], vec![]));
    }

    #[tokio::test]
    async fn what_a_second_listing_does_not_name_is_gone() {
        let index = after(vec![
            Event::Init,
            Event::InitApply(pod("a", "one")),
            Event::InitDone,
            Event::Init,
            Event::InitApply(pod("b", "one")),
            Event::InitDone,
        ])
        .await;
        assert_eq!(names(&index, "one"), ["b"]);
    }
}
