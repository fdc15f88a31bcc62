//! Reads the newest Warning Event about a pod or workload whose wait nothing else explains, and caches it.
//!
//! Absent: a watch of Events. A namespace may have thousands of them, and a rollout that goes well needs none.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};

use crate::api::conditions::shorten;
use crate::kubernetes::lock::lock;
use crate::rollout::{Unexplained, Warnings};

/// After what time Events are read again first; each further time is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest time between two reads.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long an object that is not asked for stays in the cache.
const KEPT_FOR: Duration = Duration::from_secs(300);
/// The most Events that are read about one object.
const MOST_EVENTS: u32 = 50;
/// The longest sentence that is kept, in characters.
const LONGEST_SENTENCE: usize = 512;

/// The newest warnings that are known, by the object's UID.
#[derive(Default)]
pub struct ObjectEvents {
    known: Mutex<HashMap<String, LastRead>>,
}

struct LastRead {
    warning: Option<String>,
    read_at: Instant,
    pause: Duration,
}

impl LastRead {
    fn is_due(&self) -> bool {
        self.read_at.elapsed() >= self.pause
    }
}

impl ObjectEvents {
    fn is_due(&self, uid: &str) -> bool {
        lock(&self.known).get(uid).is_none_or(LastRead::is_due)
    }

    fn record(&self, uid: &str, warning: Option<String>) {
        let mut known = lock(&self.known);
        known.retain(|_uid, known| known.read_at.elapsed() < KEPT_FOR);
        let before = known.get(uid);
        let pause = before.map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        let read_at = Instant::now();
        known.insert(
            uid.to_owned(),
            LastRead {
                warning,
                read_at,
                pause,
            },
        );
    }

    fn warning(&self, uid: &str) -> Option<String> {
        lock(&self.known).get(uid)?.warning.clone()
    }

    /// After what time one of these objects is due again.
    fn next_read(&self, uids: &[String]) -> Option<Duration> {
        let known = lock(&self.known);
        let pauses = uids.iter().filter_map(|uid| {
            let known = known.get(uid)?;
            Some(known.pause.saturating_sub(known.read_at.elapsed()))
        });
        pauses.min()
    }
}

/// The warnings about these objects, and after what time they are worth reading again.
pub async fn warnings(
    events: &ObjectEvents,
    client: &Client,
    namespace: &str,
    unexplained: &Unexplained,
) -> (Warnings, Option<Duration>) {
    let mut warnings = Warnings::new();
    for uid in &unexplained.uids {
        if events.is_due(uid) {
            match read(client, namespace, uid).await {
                Ok(found) => events.record(uid, newest_warning(found)),
                // Without Events a rollout is only told less well, so an error is no reason to stop.
                Err(error) => {
                    tracing::debug!(namespace, uid, %error, "cannot read the Events about an object");
                    events.record(uid, events.warning(uid));
                }
            }
        }
        warnings.extend(events.warning(uid).map(|warning| (uid.clone(), warning)));
    }
    (warnings, events.next_read(&unexplained.uids))
}

async fn read(client: &Client, namespace: &str, uid: &str) -> kube::Result<Vec<Event>> {
    let params = ListParams::default()
        .fields(&format!("involvedObject.uid={uid}"))
        .limit(MOST_EVENTS);
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    Ok(api.list(&params).await?.items)
}

/// The newest Event, if it is a warning: one of another type says that the object goes on, but for that of the scheduler.
fn newest_warning(events: Vec<Event>) -> Option<String> {
    let is_warning = |event: &Event| event.type_.as_deref() == Some("Warning");
    let later = events
        .into_iter()
        .filter(|event| event.reason.as_deref() != Some("Scheduled"));
    // Most Events have whole seconds only, and the kubelet warns of a missing pull secret before it pulls all the same.
    let newest = later.max_by_key(|event| {
        let second = seen_at(event).map(Timestamp::as_second);
        (second, !is_warning(event))
    })?;
    is_warning(&newest).then(|| sentence(&newest))
}

fn seen_at(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref();
    let last = series.and_then(|series| series.last_observed_time.as_ref());
    let times = [
        last.map(|time| time.0),
        event.event_time.as_ref().map(|time| time.0),
        event.last_timestamp.as_ref().map(|time| time.0),
    ];
    times.into_iter().flatten().max()
}

fn sentence(event: &Event) -> String {
    let reason = event.reason.as_deref().unwrap_or("Warning");
    let note = event.message.as_deref().unwrap_or_default();
    shorten(&format!("{reason}: {note}"), LONGEST_SENTENCE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(type_: &str, reason: &str, seen_at: &str, note: &str) -> Event {
        let event = json!({"metadata": {}, "involvedObject": {}, "type": type_, "reason": reason, "message": note,
            "lastTimestamp": seen_at});
        serde_json::from_value(event).expect("an Event")
    }

    #[test]
    fn the_newest_warning_counts_until_a_newer_event_says_that_the_object_goes_on() {
        let scheduled = event("Normal", "Scheduled", "2026-11-23T12:00:00Z", "assigned");
        let mount = event(
            "Warning",
            "FailedMount",
            "2026-11-23T12:00:00Z",
            "no secret",
        );
        let again = event(
            "Warning",
            "FailedMount",
            "2026-11-23T12:00:10Z",
            "no secret yet",
        );
        let pulling = event("Normal", "Pulling", "2026-11-23T12:00:10Z", "pulling");
        let told = |events: &[&Event]| newest_warning(events.iter().copied().cloned().collect());
        assert_eq!(told(&[&scheduled]), None);
        assert_eq!(
            told(&[&scheduled, &mount]).as_deref(),
            Some("FailedMount: no secret")
        );
        let newer = told(&[&again, &scheduled, &mount]);
        assert_eq!(newer.as_deref(), Some("FailedMount: no secret yet"));
        assert_eq!(told(&[&again, &pulling, &mount]), None);
    }
}
