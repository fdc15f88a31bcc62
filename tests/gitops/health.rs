//! The health of objects by docs/reasons.md, written down once more, to compare the tools with.
//!
//! Absent: the scripts in integrations/argocd; Argo CD runs those.

use std::collections::BTreeSet;

use pointsman_env::Kind;
use pointsman_env::kinds::DEPLOYMENT;
use serde_json::Value;

use crate::fixture::condition;

/// From the best to the worst, as Argo CD orders them: an application is as its worst object.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Health {
    Healthy,
    Suspended,
    Progressing,
    Missing,
    Degraded,
    Unknown,
}

impl Health {
    pub fn parse(word: &str) -> Self {
        match word {
            "Healthy" => Self::Healthy,
            "Suspended" => Self::Suspended,
            "Progressing" => Self::Progressing,
            "Missing" => Self::Missing,
            "Degraded" => Self::Degraded,
            _ => Self::Unknown,
        }
    }

    /// The health that an object must have.
    pub fn of(kind: &Kind, object: &Value) -> Self {
        if *kind == DEPLOYMENT {
            of_deployment(object)
        } else {
            of_ours(object)
        }
    }

    /// What an application may read if each of its objects is in one of its states.
    pub fn worst_of_each(objects: &[BTreeSet<Self>]) -> BTreeSet<Self> {
        let mut worst = BTreeSet::from([Self::Healthy]);
        for states in objects.iter().filter(|states| !states.is_empty()) {
            worst = worst
                .iter()
                .flat_map(|worst| states.iter().map(move |state| *worst.max(state)))
                .collect();
        }
        worst
    }
}

fn of_ours(object: &Value) -> Health {
    let ready = condition(object, "Ready");
    if ready["observedGeneration"] != object["metadata"]["generation"] {
        return Health::Progressing;
    }
    match ready["reason"].as_str() {
        Some("Suspended" | "Held" | "Frozen" | "OutsideWindow" | "AwaitingApproval") => {
            Health::Suspended
        }
        _ if ready["status"] == "True" => Health::Healthy,
        _ if condition(object, "Stalled")["status"] == "True" => Health::Degraded,
        _ => Health::Progressing,
    }
}

/// As Argo CD's built-in check has it.
fn of_deployment(object: &Value) -> Health {
    let (spec, status) = (&object["spec"], &object["status"]);
    let count = |name: &str| status[name].as_u64().unwrap_or_default();
    let wanted = spec["replicas"].as_u64().unwrap_or(1);
    if spec["paused"] == true {
        return Health::Suspended;
    }
    if status["observedGeneration"] != object["metadata"]["generation"] {
        return Health::Progressing;
    }
    if condition(object, "Progressing")["reason"] == "ProgressDeadlineExceeded" {
        return Health::Degraded;
    }
    let updated = count("updatedReplicas");
    let is_complete =
        updated >= wanted && count("replicas") <= updated && count("availableReplicas") >= updated;
    if is_complete {
        Health::Healthy
    } else {
        Health::Progressing
    }
}
