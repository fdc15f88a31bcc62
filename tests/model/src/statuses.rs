//! The statuses that the operator writes, each once, with every moment brought to one of a few.
//!
//! Absent: any other change to them. A pass is compared with the very status that it was given.

use std::sync::{Arc, RwLock};

use dashmap::DashMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pointsman::api::AliasBindingStatus;
use pointsman::api::alias_binding::{HistoryEntry, Trigger};

use super::objects::{BEGUN, LONG_AVAILABLE, NOW, time};
use super::world::StatusId;

/// All statuses so far. The first one is that of a binding that nobody has looked at.
pub struct Statuses {
    known: RwLock<Vec<Arc<AliasBindingStatus>>>,
    ids: DashMap<String, StatusId>,
    aged: DashMap<StatusId, StatusId>,
}

impl Statuses {
    pub fn new() -> Self {
        let statuses = Self {
            known: RwLock::default(),
            ids: DashMap::new(),
            aged: DashMap::new(),
        };
        statuses.keep(AliasBindingStatus::default());
        statuses
    }

    pub fn len(&self) -> usize {
        self.known.read().unwrap().len()
    }

    pub fn get(&self, id: StatusId) -> Arc<AliasBindingStatus> {
        Arc::clone(&self.known.read().unwrap()[id as usize])
    }

    /// The number of a status, once its moments are brought to the few that there are.
    pub fn keep(&self, mut status: AliasBindingStatus) -> StatusId {
        settle_moments(&mut status);
        let text = serde_json::to_string(&status).unwrap();
        *self.ids.entry(text).or_insert_with(|| {
            let mut known = self.known.write().unwrap();
            known.push(Arc::new(status));
            StatusId::try_from(known.len() - 1).unwrap()
        })
    }

    /// The same status when the time of being watched is over.
    pub fn aged(&self, id: StatusId) -> StatusId {
        if let Some(known) = self.aged.get(&id) {
            return *known;
        }
        let mut status = AliasBindingStatus::clone(&self.get(id));
        let current = status
            .history
            .iter_mut()
            .find(|entry| entry.finished_at.is_none());
        if let Some(available) = current.and_then(|entry| entry.available_at.as_mut()) {
            *available = moment(LONG_AVAILABLE);
        }
        let aged = self.keep(status);
        self.aged.insert(id, aged);
        aged
    }
}

fn moment(text: &str) -> Time {
    Time(time(text))
}

fn settle_moments(status: &mut AliasBindingStatus) {
    let begun = moment(BEGUN);
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
        *each = begun.clone();
    }
    status.history.iter_mut().for_each(settle_entry);
}

fn settle_entry(entry: &mut HistoryEntry) {
    let begun = moment(BEGUN);
    let available = if entry.finished_at.is_some() || entry.live_at.is_some() {
        begun.clone()
    } else {
        moment(NOW)
    };
    if let Some(at) = entry
        .available_at
        .as_mut()
        .filter(|at| **at != moment(LONG_AVAILABLE) || available == begun)
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
        *at = begun.clone();
    }
    // Told to people, and read by nobody else.
    entry.trigger = Trigger::AliasMove.into();
    if entry.finished_at.is_some()
        || entry.outcome != pointsman::api::alias_binding::Outcome::Failed
    {
        entry.message.clear();
    }
}
