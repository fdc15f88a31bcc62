//! The interned statuses that the operator writes, with timestamps normalized to a few values.
//!
//! Absent: other changes of a status. A reconcile is compared with the status that it read.

use std::sync::{Arc, LazyLock, RwLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pointsman::api::AliasBindingStatus;
use pointsman::api::alias_binding::{HistoryEntry, Outcome, Trigger};
use pointsman::testing::time;

use super::objects::{AFTER_BACKOFF, LONG_AVAILABLE, NOW, STARTED};
use super::reconciler::Map;
use super::state::StatusId;

/// All statuses so far. The first one is the empty status of a new binding.
pub struct Statuses {
    known: RwLock<Vec<Arc<AliasBindingStatus>>>,
    ids: Map<String, StatusId>,
    later: Map<StatusId, StatusId>,
    after_backoff: Map<StatusId, StatusId>,
}

impl Statuses {
    pub fn new() -> Self {
        let statuses = Self {
            known: RwLock::default(),
            ids: Map::default(),
            later: Map::default(),
            after_backoff: Map::default(),
        };
        statuses.intern(AliasBindingStatus::default());
        statuses
    }

    pub fn len(&self) -> usize {
        self.known.read().unwrap().len()
    }

    pub fn get(&self, id: StatusId) -> Arc<AliasBindingStatus> {
        Arc::clone(&self.known.read().unwrap()[id as usize])
    }

    /// The number of a status after its timestamps are normalized.
    pub fn intern(&self, mut status: AliasBindingStatus) -> StatusId {
        normalize(&mut status);
        let text = serde_json::to_string(&status).unwrap();
        *self.ids.entry(text).or_insert_with(|| {
            let mut known = self.known.write().unwrap();
            known.push(Arc::new(status));
            StatusId::try_from(known.len() - 1).unwrap()
        })
    }

    /// The same status after the bake time and the progress deadline.
    pub fn later(&self, id: StatusId) -> StatusId {
        let later = |status: &mut AliasBindingStatus| {
            let entries = &mut status.history;
            let Some(current) = entries.iter_mut().find(|each| each.finished_at.is_none()) else {
                return;
            };
            current.started_at.clone_from(&TIMES.started);
            if let Some(available) = &mut current.available_at {
                available.clone_from(&TIMES.long_available);
            }
        };
        self.changed(&self.later, id, later)
    }

    /// The same status when a postponed version may be tried again.
    pub fn after_backoff(&self, id: StatusId) -> StatusId {
        let over = |status: &mut AliasBindingStatus| {
            if let Some(postponed) = &mut status.postponed {
                postponed.retry_at.clone_from(&TIMES.started);
            }
        };
        self.changed(&self.after_backoff, id, over)
    }

    fn changed(
        &self,
        known: &Map<StatusId, StatusId>,
        id: StatusId,
        change: impl FnOnce(&mut AliasBindingStatus),
    ) -> StatusId {
        if let Some(known) = known.get(&id) {
            return *known;
        }
        let mut status = AliasBindingStatus::clone(&self.get(id));
        change(&mut status);
        let changed = self.intern(status);
        known.insert(id, changed);
        changed
    }
}

/// The times of a normalized status.
struct Times {
    started: Time,
    long_available: Time,
    now: Time,
    after_backoff: Time,
}

static TIMES: LazyLock<Times> = LazyLock::new(|| Times {
    started: time(STARTED),
    long_available: time(LONG_AVAILABLE),
    now: time(NOW),
    after_backoff: time(AFTER_BACKOFF),
});

fn normalize(status: &mut AliasBindingStatus) {
    let started = &TIMES.started;
    let all = [
        status.alias.as_mut().map(|alias| &mut alias.since),
        status
            .running
            .as_mut()
            .and_then(|running| running.since.as_mut()),
        status
            .last_good
            .as_mut()
            .and_then(|good| good.since.as_mut()),
        status.hold.as_mut().map(|hold| &mut hold.since),
        status.lost.as_mut().map(|lost| &mut lost.since),
        status
            .last_handled_retry
            .as_mut()
            .map(|retry| &mut retry.at),
    ];
    let conditions = status
        .conditions
        .iter_mut()
        .map(|condition| &mut condition.last_transition_time);
    for each in all.into_iter().flatten().chain(conditions) {
        each.clone_from(started);
    }
    if let Some(held_back) = &mut status.held_back {
        for failed in &mut held_back.versions {
            failed.since.clone_from(started);
        }
        if let Some(shared) = &mut held_back.shared_fault {
            shared.since.clone_from(started);
            if let Some(at) = &mut shared.retried_at {
                at.clone_from(started);
            }
        }
    }
    if let Some(postponed) = &mut status.postponed {
        // More attempts only make the backoff longer.
        postponed.attempts = postponed.attempts.min(2);
        let is_over = postponed.retry_at.0 <= TIMES.now.0;
        postponed.retry_at.clone_from(if is_over {
            started
        } else {
            &TIMES.after_backoff
        });
    }
    status.history.iter_mut().for_each(normalize_entry);
}

/// Of an entry that is not settled, what is long ago stays told from what is not.
fn normalize_entry(entry: &mut HistoryEntry) {
    let started = &TIMES.started;
    let is_settled = entry.finished_at.is_some() || entry.live_at.is_some();
    if let Some(at) = &mut entry.available_at {
        if is_settled {
            at.clone_from(started);
        } else if at.0 > TIMES.long_available.0 {
            at.clone_from(&TIMES.now);
        } else {
            at.clone_from(&TIMES.long_available);
        }
    }
    if is_settled || entry.started_at.0 <= TIMES.long_available.0 {
        entry.started_at.clone_from(started);
    } else {
        entry.started_at.clone_from(&TIMES.now);
    }
    for at in entry.live_at.iter_mut().chain(&mut entry.finished_at) {
        at.clone_from(started);
    }
    // The decision reads no other trigger, and people alone read the other messages.
    if entry.finished_at.is_some() || entry.trigger != Trigger::Failure {
        entry.trigger = Trigger::AliasMove.into();
    }
    let repeats_its_message = matches!(
        entry.outcome.known(),
        Some(Outcome::Failed | Outcome::Blocked | Outcome::ScaledToZero)
    );
    if entry.finished_at.is_some() || !repeats_its_message {
        entry.message.clear();
    }
}
