//! Watches one kind: keeps its store up to date, and calls a handler for each change.
//!
//! Absent: our own kinds, and the consequences of a change; those are the handler's.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::api::{ApiResource, ObjectMeta};
use kube::core::DynamicResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::kubernetes::backoff::Delays;
use crate::kubernetes::failure::is_missing_kind;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::store::{Cached, Change, Store};

/// How many objects a page of a list holds, if lists come in pages. Memory that a larger page takes is rarely used again.
const PAGE_SIZE: u32 = 100;

/// How soon a kind that is not installed is looked for again.
const MISSING_KIND_RETRY: Duration = Duration::from_secs(5);

/// The delays before a watch that failed is started again.
const RESTART: Delays = Delays {
    first: Duration::from_millis(800),
    longest: Duration::from_secs(3),
};

/// Delays that grow with each failure since the last success. kube's own grow to 30 s, for which nothing would be seen after an
/// outage of the API server.
#[derive(Default)]
struct WatchBackoff {
    failures: u32,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        Some(RESTART.after(self.failures))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// An object that a watch showed, or the reason why it cannot be decoded: one broken object must not stop the watch of its kind.
///
/// kube's `DeserializeGuard` does the same at the price of a tree of values for each object.
#[derive(Clone, Debug)]
pub struct Shown<K>(pub Result<K, UnreadableObject>);

/// An object that cannot be decoded.
#[derive(Clone, Debug)]
pub struct UnreadableObject {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Which field does not fit.
    pub error: String,
}

#[derive(Deserialize)]
struct MetadataOnly {
    metadata: ObjectMeta,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Shown<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let error = match serde_json::from_str(json.get()) {
            Ok(object) => return Ok(Self(Ok(object))),
            Err(error) => error.to_string(),
        };
        let MetadataOnly { metadata } =
            serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        Ok(Self(Err(UnreadableObject { metadata, error })))
    }
}

/// The kind is a value, so that kinds can be watched that no type stands for.
impl<K: Resource> Resource for Shown<K> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        (&kind.kind).into()
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        (&kind.group).into()
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        (&kind.version).into()
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        (&kind.plural).into()
    }

    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(unreadable) => &mut unreadable.metadata,
        }
    }
}

/// The consequences of the objects that a watch shows.
pub trait Handler<K> {
    /// Whether an object is stored. One that is not counts as gone.
    fn accepts(&self, object: &K) -> bool;

    /// An object changed, after the initial list. [`Change::Added`] also stands for one that is gone.
    fn changed(&self, object: &K, change: Change);

    /// An object cannot be decoded. Its last readable version stays in the store.
    fn unreadable(&self, object: &ObjectKey);
}

/// One watch of a kind, which fills a store.
pub struct Watch<'a, K, H> {
    /// Its number among the watches of the same store.
    pub number: u16,
    /// The store.
    pub store: &'a Store<K>,
    /// The consequences.
    pub handler: H,
}

impl<K, H> Watch<'_, K, H>
where
    K: Cached,
    H: Handler<K>,
{
    /// Watches the objects that `config` selects, and never ends.
    pub async fn run(&self, api: Api<Shown<K>>, config: watcher::Config)
    where
        K: Clone + Debug + Send + 'static,
    {
        // A streamed list comes from the API server's cache; pages of a custom resource are read from etcd, at three times the cost.
        let mut is_streamed = true;
        loop {
            let config = if is_streamed {
                config.clone().streaming_lists()
            } else {
                config.clone().page_size(PAGE_SIZE)
            };
            let events = watcher(api.clone(), config).backoff(WatchBackoff::default());
            match self.follow(pin!(events)).await {
                End::ListNotStreamed => is_streamed = false,
                End::KindMissing => tokio::time::sleep(MISSING_KIND_RETRY).await,
                End::Distrusted => {}
            }
        }
    }

    /// Applies events until the API server refuses to stream lists, or does not know the kind. A kind that is missing has no
    /// objects.
    async fn follow(
        &self,
        mut events: impl Stream<Item = Result<Event<Shown<K>>, watcher::Error>> + Unpin,
    ) -> End {
        let mut listed = HashSet::new();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = self.store.wait_for_relist() => return End::Distrusted,
            };
            let Some(event) = event else {
                return End::KindMissing;
            };
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(shown)) => {
                    listed.insert(ObjectKey::of(&shown));
                    self.apply(shown, Store::put_listed);
                }
                Ok(Event::InitDone) => self.finish_list(&std::mem::take(&mut listed)),
                Ok(Event::Apply(shown)) => self.apply(shown, Store::put),
                Ok(Event::Delete(shown)) => self.delete(shown),
                Err(error) if refuses_to_stream(&error) => {
                    tracing::debug!(kind = %K::kind(&()), %error, "the API server does not stream lists; they are read in pages");
                    return End::ListNotStreamed;
                }
                Err(error) if lacks_kind(&error) => {
                    if !self.store.is_synced_by(self.number) {
                        tracing::warn!(kind = %K::kind(&()), "the kind is not installed in this cluster; it is waited for");
                    }
                    self.finish_list(&HashSet::new());
                    return End::KindMissing;
                }
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), %error, "a watch failed and is restarted");
                    if is_forbidden(&error) {
                        self.store.mark_forbidden(self.number);
                    }
                }
            }
        }
    }

    fn apply(&self, shown: Shown<K>, put: fn(&Store<K>, u16, &mut K) -> Change) {
        let key = ObjectKey::of(&shown);
        let mut object = match shown.0 {
            Ok(object) => object,
            Err(UnreadableObject { error, .. }) => {
                tracing::error!(kind = %K::kind(&()), %key, error, "an object cannot be read and is skipped; correct the field that the error names");
                self.store.mark_unreadable(key.clone());
                return self.handler.unreadable(&key);
            }
        };
        if !self.handler.accepts(&object) {
            let is_gone = self.store.remove(&key);
            if is_gone && self.is_announced() {
                self.handler.changed(&object, Change::Added);
            }
            return;
        }
        let change = put(self.store, self.number, &mut object);
        if change != Change::None && self.is_announced() {
            self.handler.changed(&object, change);
        }
    }

    /// Whether the handler is told of changes. All objects of the initial lists are reconciled, but for those of a list that was
    /// forbidden at that time.
    fn is_announced(&self) -> bool {
        !self.store.is_awaited(self.number)
    }

    fn delete(&self, shown: Shown<K>) {
        let key = ObjectKey::of(&shown);
        let last = match shown.0 {
            Ok(object) => Some(object),
            Err(_) => self.store.get(&key),
        };
        self.store.remove(&key);
        if let Some(object) = last {
            self.handler.changed(&object, Change::Added);
        }
    }

    fn finish_list(&self, listed: &HashSet<ObjectKey>) {
        tracing::debug!(kind = %K::kind(&()), objects = listed.len(), "listed");
        for object in &self.store.retain(self.number, listed) {
            self.handler.changed(object, Change::Added);
        }
        self.store.mark_synced(self.number);
    }
}

/// Why events end.
enum End {
    ListNotStreamed,
    KindMissing,
    /// A stored object cannot be decoded.
    Distrusted,
}

/// Whether the kind's definition is not installed.
fn lacks_kind(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(error) | watcher::Error::InitialListFailed(error) => {
            is_missing_kind(error)
        }
        _ => false,
    }
}

/// Whether the operator has no right to list or watch the kind in the namespace.
fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::InitialListFailed(kube::Error::Api(status)) => status.is_forbidden(),
        _ => false,
    }
}

/// Whether the API server does not know streamed lists (before Kubernetes 1.32), or has them switched off.
fn refuses_to_stream(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
            matches!(status.code, 400 | 422)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures::FutureExt;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::key::IndexKey;

    impl Cached for ConfigMap {
        fn index_keys(&self) -> Vec<IndexKey> {
            let binding = self.labels().get("binding").cloned();
            vec![IndexKey::new("binding", "ml", &binding.unwrap_or_default())]
        }

        fn prune(&mut self) {
            self.metadata.managed_fields = None;
        }
    }

    /// The names of changed and of unreadable objects.
    #[derive(Default)]
    struct Recorder {
        changed: RefCell<Vec<String>>,
        unreadable: RefCell<Vec<String>>,
    }

    impl Handler<ConfigMap> for &Recorder {
        fn accepts(&self, _: &ConfigMap) -> bool {
            true
        }

        fn changed(&self, object: &ConfigMap, _: Change) {
            self.changed.borrow_mut().push(object.name_any());
        }

        fn unreadable(&self, object: &ObjectKey) {
            self.unreadable.borrow_mut().push(object.name().to_owned());
        }
    }

    #[test]
    fn a_watch_is_started_again_within_seconds_however_often_it_failed() {
        let mut backoff = WatchBackoff::default();
        let delays: Vec<_> = backoff.by_ref().take(50).collect();
        assert!(delays[0] <= RESTART.first && delays.iter().all(|delay| *delay <= RESTART.longest));
        backoff.reset();
        assert!(backoff.next().is_some_and(|delay| delay <= RESTART.first));
    }

    fn json(name: &str, binding: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "ml", "resourceVersion": "1", "labels": {"binding": binding}}})
    }

    fn object(name: &str, binding: &str) -> Shown<ConfigMap> {
        serde_json::from_value(json(name, binding)).expect("an object")
    }

    fn unreadable(name: &str) -> Shown<ConfigMap> {
        let mut broken = json(name, "one");
        broken["data"] = json!("a word");
        serde_json::from_value(broken).expect("its metadata can be read")
    }

    async fn after(recorder: &Recorder, events: Vec<Event<Shown<ConfigMap>>>) -> Store<ConfigMap> {
        let store = Store::default();
        let watch = Watch {
            number: 0,
            store: &store,
            handler: recorder,
        };
        watch
            .follow(futures::stream::iter(events.into_iter().map(Ok)))
            .await;
        store
    }

    fn names(store: &Store<ConfigMap>, binding: &str) -> Vec<String> {
        let found = store.find(IndexKey::new("binding", "ml", binding), |_| true);
        let mut names: Vec<_> = found.iter().map(ResourceExt::name_any).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn objects_are_found_by_their_index_key_until_they_are_deleted() {
        let store = after(
            &Recorder::default(),
            vec![
                Event::Init,
                Event::InitApply(object("a", "one")),
                Event::InitApply(object("b", "two")),
                Event::InitDone,
                Event::Apply(object("c", "one")),
                Event::Delete(object("b", "two")),
            ],
        )
        .await;
        assert_eq!(names(&store, "one"), ["a", "c"]);
        assert!(names(&store, "two").is_empty());
    }

    #[tokio::test]
    async fn only_a_second_list_reports_changes_and_only_of_new_and_gone_objects() {
        let recorder = Recorder::default();
        let store = after(
            &recorder,
            vec![
                Event::Init,
                Event::InitApply(object("a", "one")),
                Event::InitApply(object("unchanged", "one")),
                Event::InitDone,
                Event::Init,
                Event::InitApply(object("b", "one")),
                Event::InitApply(object("unchanged", "one")),
                Event::InitDone,
            ],
        )
        .await;
        assert_eq!(names(&store, "one"), ["b", "unchanged"]);
        assert_eq!(*recorder.changed.borrow(), ["b", "a"]);
    }

    /// Accepts the objects of one binding only.
    struct OfOne<'a>(&'a Recorder);

    impl Handler<ConfigMap> for OfOne<'_> {
        fn accepts(&self, object: &ConfigMap) -> bool {
            object
                .labels()
                .get("binding")
                .is_some_and(|binding| binding == "one")
        }

        fn changed(&self, object: &ConfigMap, change: Change) {
            self.0.changed(object, change);
        }

        fn unreadable(&self, _: &ObjectKey) {}
    }

    #[tokio::test]
    async fn an_object_that_is_accepted_no_longer_is_gone_and_one_that_never_was_is_no_change() {
        let recorder = Recorder::default();
        let store = Store::default();
        let watch = Watch {
            number: 0,
            store: &store,
            handler: OfOne(&recorder),
        };
        let events = vec![
            Event::Init,
            Event::InitApply(object("a", "one")),
            Event::InitApply(object("b", "two")),
            Event::InitDone,
            Event::Apply(object("a", "two")),
            Event::Apply(object("b", "three")),
        ];
        watch
            .follow(futures::stream::iter(events.into_iter().map(Ok)))
            .await;
        assert_eq!(*recorder.changed.borrow(), ["a"]);
        assert!(names(&store, "one").is_empty());
    }

    #[tokio::test]
    async fn an_unreadable_object_is_reported_and_neither_blocks_nor_removes_others() {
        let recorder = Recorder::default();
        let store = after(
            &recorder,
            vec![
                Event::Init,
                Event::InitApply(unreadable("a")),
                Event::InitApply(object("b", "one")),
                Event::InitDone,
            ],
        )
        .await;
        assert_eq!(names(&store, "one"), ["b"]);
        assert_eq!(*recorder.unreadable.borrow(), ["a"]);
        assert!(store.is_unreadable(&ObjectKey::new("ml", "a")));
        assert!(store.is_synced(1));
    }

    #[tokio::test]
    async fn an_object_that_becomes_unreadable_keeps_its_last_readable_version() {
        let recorder = Recorder::default();
        let events = || {
            vec![
                Event::Init,
                Event::InitApply(object("a", "one")),
                Event::InitDone,
                Event::Apply(unreadable("a")),
                Event::Init,
                Event::InitApply(unreadable("a")),
                Event::InitDone,
            ]
        };
        let store = after(&recorder, events()).await;
        assert_eq!(names(&store, "one"), ["a"]);
        let mut deleted = events();
        deleted.push(Event::Delete(unreadable("a")));
        let store = after(&recorder, deleted).await;
        assert!(names(&store, "one").is_empty());
        assert!(!store.is_unreadable(&ObjectKey::new("ml", "a")));
        assert_eq!(*recorder.changed.borrow(), ["a"], "its deletion");
    }

    #[test]
    fn objects_are_decoded_within_lists_and_events() {
        let mut broken = json("b", "one");
        broken["data"] = json!("a word");
        let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "1"},
            "items": [json("a", "one"), broken]});
        let list: ObjectList<Shown<ConfigMap>> = serde_json::from_str(&list.to_string()).unwrap();
        assert!(list.items[0].0.is_ok() && list.items[1].0.is_err());
        let event = format!(r#"{{"type": "ADDED", "object": {broken}}}"#);
        let event: WatchEvent<Shown<ConfigMap>> = serde_json::from_str(&event).unwrap();
        let WatchEvent::Added(Shown(Err(unreadable))) = event else {
            panic!("{event:?}");
        };
        assert_eq!(unreadable.metadata.name.as_deref(), Some("b"));
        assert!(unreadable.error.contains("a word"), "{}", unreadable.error);
    }

    #[tokio::test]
    async fn an_object_that_cannot_be_decoded_from_the_store_is_listed_again() {
        let recorder = Recorder::default();
        let listed = || {
            let events = [
                Ok(Event::Init),
                Ok(Event::InitApply(object("a", "one"))),
                Ok(Event::InitDone),
            ];
            futures::stream::iter(events).chain(futures::stream::pending())
        };
        let (store, key) = (Store::default(), ObjectKey::new("ml", "a"));
        let watch = Watch {
            number: 0,
            store: &store,
            handler: &recorder,
        };
        let damage = async {
            while !store.is_synced(1) {
                tokio::task::yield_now().await;
            }
            store.damage(&key);
            assert!(store.get(&key).is_none());
            assert!(store.is_unreadable(&key), "it is there, and cannot be read");
        };
        let (end, ()) = tokio::join!(watch.follow(listed()), damage);
        assert!(matches!(end, End::Distrusted));
        let finite = listed().take(3);
        watch.follow(finite).await;
        assert!(store.get(&key).is_some() && !store.is_unreadable(&key));
        assert_eq!(*recorder.changed.borrow(), ["a"], "it is reconciled again");
    }

    #[tokio::test]
    async fn what_is_listed_is_announced_if_the_list_was_forbidden_before() {
        for is_forbidden in [false, true] {
            let (store, recorder) = (Store::default(), Recorder::default());
            let watch = Watch {
                number: 0,
                store: &store,
                handler: &recorder,
            };
            if is_forbidden {
                store.mark_forbidden(0);
            }
            let listed = [
                Ok(Event::Init),
                Ok(Event::InitApply(object("a", "one"))),
                Ok(Event::InitDone),
            ];
            watch.follow(futures::stream::iter(listed)).await;
            assert_eq!(recorder.changed.borrow().len(), usize::from(is_forbidden));
        }
    }

    #[tokio::test]
    async fn a_namespace_that_is_forbidden_is_not_waited_for_beside_others() {
        let store = Store::<ConfigMap>::default();
        let waits = |watches| store.wait_until_synced(watches).now_or_never().is_none();
        assert!(store.mark_forbidden(1) && !store.mark_forbidden(1));
        assert!(waits(1), "a single one is");
        assert!(waits(2));
        store.mark_synced(0);
        assert!(!waits(2) && !store.is_synced(2));
        store.mark_synced(1);
        assert!(store.is_synced(2), "its role is back");
    }
}
