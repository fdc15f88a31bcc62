//! The interned statuses that the operator writes, with timestamps normalized to a few values.
//!
//! Absent: other changes of a status. A reconcile is compared with the status that it read.

use std::sync::{Arc, RwLock};

use dashmap::DashMap;
use pointsman::api::AliasBindingStatus;
use pointsman::api::alias_binding::{HistoryEntry, Trigger};
use pointsman::testing::time;

use super::objects::{LONG_AVAILABLE, NOW, STARTED};
use super::state::StatusId;

/// All statuses so far. The first one is the empty status of a new binding.
pub struct Statuses {
    known: RwLock<Vec<Arc<AliasBindingStatus>>>,
    ids: DashMap<String, StatusId>,
    baked: DashMap<StatusId, StatusId>,
}

impl Statuses {
    pub fn new() -> Self {
        let statuses = Self {
            known: RwLock::default(),
            ids: DashMap::new(),
            baked: DashMap::new(),
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
        normalize_timestamps(&mut status);
        let text = serde_json::to_string(&status).unwrap();
        *self.ids.entry(text).or_insert_with(|| {
            let mut known = self.known.write().unwrap();
            known.push(Arc::new(status));
            StatusId::try_from(known.len() - 1).unwrap()
        })
    }

    /// The same status after the bake time.
    pub fn baked(&self, id: StatusId) -> StatusId {
        if let Some(known) = self.baked.get(&id) {
            return *known;
        }
        let mut status = AliasBindingStatus::clone(&self.get(id));
        let current = status
            .history
            .iter_mut()
            .find(|entry| entry.finished_at.is_none());
        if let Some(available) = current.and_then(|entry| entry.available_at.as_mut()) {
            *available = time(LONG_AVAILABLE);
        }
        let baked = self.intern(status);
        self.baked.insert(id, baked);
        baked
    }
}

fn normalize_timestamps(status: &mut AliasBindingStatus) {
    let started = time(STARTED);
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
    let failed = status
        .held_back
        .iter_mut()
        .flat_map(|held_back| &mut held_back.versions);
    let conditions = status
        .conditions
        .iter_mut()
        .map(|condition| &mut condition.last_transition_time);
    for each in all
        .into_iter()
        .flatten()
        .chain(failed.map(|failed| &mut failed.since))
        .chain(conditions)
    {
        *each = started.clone();
    }
    status.history.iter_mut().for_each(normalize_entry);
}

fn normalize_entry(entry: &mut HistoryEntry) {
    let started = time(STARTED);
    let available = if entry.finished_at.is_some() || entry.live_at.is_some() {
        started.clone()
    } else {
        time(NOW)
    };
    if let Some(at) = entry
        .available_at
        .as_mut()
        .filter(|at| **at != time(LONG_AVAILABLE) || available == started)
    {
        *at = available;
    }
    for at in [
        Some(&mut entry.started_at),
        entry.live_at.as_mut(),
        entry.finished_at.as_mut(),
    ]
    .into_iter()
    .flatten()
    {
        *at = started.clone();
    }
    // Only people read these fields.
    entry.trigger = Trigger::AliasMove.into();
    if entry.finished_at.is_some()
        || entry.outcome != pointsman::api::alias_binding::Outcome::Failed
    {
        entry.message.clear();
    }
}
