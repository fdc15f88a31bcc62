//! The fields of an Argo Rollout that no other kind has, decoded straight into these few.
//!
//! Absent: their meaning; see `argo_rollout`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// `spec.strategy`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Strategy {
    /// The pods of the new template replace others step by step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

impl Strategy {
    /// Whether nothing of it is read.
    pub fn is_empty(&self) -> bool {
        self.canary.is_none()
    }
}

/// `spec.strategy.canary`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Canary {
    /// The steps, each with one member that names it.
    pub steps: Vec<BTreeMap<String, Value>>,
    /// How many pods may be unavailable; 25% if it is not set.
    pub max_unavailable: Option<IntOrString>,
}

/// `spec.workloadRef`: the workload whose pod template is used.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct TemplateReference {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Why the controller waits.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct PauseCondition {
    /// `CanaryPauseStep`, `BlueGreenPause`, `InconclusiveAnalysisRun` or `InconclusiveExperiment`.
    pub reason: String,
}

/// The analyses of `status.canary` or `status.blueGreen`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(clippy::struct_field_names)] // the names of the API
pub struct Analyses {
    /// The one of the present step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_step_analysis_run_status: Option<Analysis>,
    /// The one that runs beside the steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_background_analysis_run_status: Option<Analysis>,
    /// The one before the new pods are active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_promotion_analysis_run_status: Option<Analysis>,
    /// The one after the new pods are active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_promotion_analysis_run_status: Option<Analysis>,
}

/// An `AnalysisRun`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Analysis {
    /// `Pending`, `Running`, `Successful`, `Failed`, `Error` or `Inconclusive`.
    pub status: String,
}

impl Analyses {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether one of them has this status.
    pub fn any_is(&self, status: &str) -> bool {
        let all = [
            &self.current_step_analysis_run_status,
            &self.current_background_analysis_run_status,
            &self.pre_promotion_analysis_run_status,
            &self.post_promotion_analysis_run_status,
        ];
        all.into_iter().flatten().any(|each| each.status == status)
    }

    /// Whether one that holds up the promotion runs.
    pub fn hold_up(&self) -> bool {
        let promotion = [
            &self.pre_promotion_analysis_run_status,
            &self.post_promotion_analysis_run_status,
        ];
        let mut promotion = promotion.into_iter().flatten();
        promotion.any(|each| matches!(each.status.as_str(), "" | "Pending" | "Running"))
    }
}

/// An observed generation: a number, or the text of one (Rollouts).
pub fn generation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let found = Option::<IntOrString>::deserialize(deserializer)?;
    Ok(match found {
        None => None,
        Some(IntOrString::Int(number)) => Some(i64::from(number)),
        Some(IntOrString::String(text)) => text.parse().ok(),
    })
}
