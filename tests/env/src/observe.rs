//! Waits for a state of objects through watches: until it is reached, or as long as it lasts.
//! Absent: polling, and assertions.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::Value;

/// Objects by name, as the watch last reported them.
pub type Objects = BTreeMap<String, Value>;

/// A selection of the objects of a kind.
#[derive(Debug, Clone)]
pub enum Selection<'a> {
    /// The one of that name.
    Named(&'a str),
    /// The objects with these labels, in the syntax of `kubectl -l`; all if it is empty.
    Labelled(&'a str),
}

/// Whether the state was reached in time, and the last objects.
pub(crate) struct Observed {
    pub(crate) held: bool,
    pub(crate) seen: Objects,
    pub(crate) trouble: Option<String>,
}

/// Follows the objects until `holds`, or until the time is over.
pub(crate) async fn until(
    api: Api<DynamicObject>,
    which: &Selection<'_>,
    timeout: Duration,
    holds: impl Fn(&Objects) -> bool,
) -> Observed {
    let mut observed = Observed {
        held: false,
        seen: Objects::new(),
        trouble: None,
    };
    let following = follow(api, which, &mut observed, holds);
    // The last objects stay in `observed` after the timeout.
    let _ = tokio::time::timeout(timeout, following).await;
    observed
}

async fn follow(
    api: Api<DynamicObject>,
    which: &Selection<'_>,
    observed: &mut Observed,
    holds: impl Fn(&Objects) -> bool,
) {
    let mut stream = watcher(api, configuration(which)).boxed();
    let mut listed = false;
    let mut listing = Objects::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(object)) => drop(insert(&mut listing, &object)),
            Ok(Event::InitDone) => {
                observed.seen = std::mem::take(&mut listing);
                listed = true;
            }
            Ok(Event::Apply(object)) => drop(insert(&mut observed.seen, &object)),
            Ok(Event::Delete(object)) => drop(observed.seen.remove(&name(&object))),
            // The watcher restarts by itself; the API server may be restarting during the test.
            Err(error) => {
                observed.trouble = Some(error.to_string());
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        if listed && holds(&observed.seen) {
            observed.held = true;
            return;
        }
    }
}

fn configuration(which: &Selection<'_>) -> watcher::Config {
    match which {
        Selection::Named(name) => {
            watcher::Config::default().fields(&format!("metadata.name={name}"))
        }
        Selection::Labelled(labels) => watcher::Config::default().labels(labels),
    }
}

fn insert(seen: &mut Objects, object: &DynamicObject) -> Option<Value> {
    seen.insert(
        name(object),
        serde_json::to_value(object).unwrap_or_default(),
    )
}

fn name(object: &DynamicObject) -> String {
    object.metadata.name.clone().unwrap_or_default()
}
