//! `spec.promotion` of an `AliasBinding`: when a version may go forward, and the results of its gates.
//!
//! Absent: the meaning of the rules; see `rollout::gates`.

use std::fmt;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Word, schema};

/// The rules by which a wanted version goes forward. A version that was good before, and one that a person pins or has tried
/// again, passes them.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.requireDifferentPerson || self.approval == 'Manual'").message("promotion.requireDifferentPerson is about approvals: set promotion.approval to Manual"))]
pub struct Promotion {
    /// Automatic: a version goes forward without approval. Manual: it waits until approvedVersion names it. Default: Automatic.
    #[serde(default)]
    pub approval: Approval,
    /// The version that is approved: its number, as a string. The annotations pointsman.dev/approval-reason and
    /// pointsman.dev/approval-ticket say why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[1-9][0-9]{0,18}$"))]
    pub approved_version: Option<String>,
    /// True: the user who registered a version in MLflow cannot approve it. Who approves must then be known: see
    /// approvals.recordUser in the chart's values. Default: false.
    #[serde(default)]
    pub require_different_person: bool,
    /// Expressions that must all be true of a version before it is rolled out, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::keyed_by_name::<PromotionGate>", extend("maxItems" = 16))]
    pub gates: Vec<PromotionGate>,
    /// Versions go forward only inside one of these windows. Default: at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::windows::<Window>")]
    pub windows: Vec<Window>,
}

/// Whether a version waits for approval.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Approval {
    /// It does not.
    #[default]
    Automatic,
    /// It waits until a person approves it.
    Manual,
}

/// A time in which versions may go forward, again and again.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// When the window opens, as a CronJob's schedule: minute, hour, day of the month, month and day of the week, such as
    /// "0 9 * * 1-5".
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9*?][0-9*?,/-]* +){3}[0-9A-Za-z*?][0-9A-Za-z*?,/-]* +[0-9A-Za-z*?][0-9A-Za-z*?,/-]*$')").message("a window's schedule has five fields, minute, hour, day of the month, month and day of the week, such as 0 9 * * 1-5"))]
    pub schedule: String,
    /// For how long it is open, as a duration in h, m, s and ms, such as 8h. From 1m to 744h.
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1m') && duration(self) <= duration('744h')").message("a window's duration must lie between 1m and 744h, written in h, m, s and ms without fractions, such as 8h or 1h30m"))]
    pub duration: String,
    /// The time zone of the schedule, by its name in the IANA database, such as Europe/Berlin. Default: UTC.
    #[serde(default = "utc")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z][A-Za-z0-9_+/-]*$')").message("a window's timeZone is a name of the IANA database, such as Europe/Berlin"))]
    pub time_zone: String,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// An expression that must be true of a version before it is rolled out.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PromotionGate {
    /// The gate's name, for messages and status.gates: lower-case letters, digits and -.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// An expression in CEL that is true or false, such as candidate.metrics.rmse <= current.metrics.rmse * 1.02. It reads
    /// candidate (the version that the alias names), current (the version that runs; null before the first one), model,
    /// binding and now. A value that is missing is not true.
    #[schemars(length(min = 1, max = 1024))]
    pub expression: String,
    /// The message for people if the expression is false, such as the next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub message: Option<String>,
}

/// The result of a gate, the last time that it was evaluated for a version that did not run yet.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GateState {
    /// The gate's name.
    pub name: String,
    /// The number of the version that the gate was evaluated for.
    pub version: String,
    /// Passed, Failed or Unknown. Unknown is not passed: the expression reads a value that is missing.
    pub result: Word<GateResult>,
    /// The reason, if the gate did not pass, or passed because there is no current version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The values that the expression reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::atomic::<GateValue>")]
    pub values: Vec<GateValue>,
}

/// A value that a gate's expression reads, of both versions. A value that is missing is absent.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GateValue {
    /// The field, such as metrics.rmse.
    pub field: String,
    /// The candidate's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// The current version's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
}

/// The result of a gate.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum GateResult {
    /// The expression is true.
    Passed,
    /// The expression is false.
    Failed,
    /// The expression reads a value that is missing.
    Unknown,
}

impl fmt::Display for GateResult {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::api::AliasBinding;

    /// What admission says of a window.
    fn refusal(schedule: &str, duration: &str, zone: &str) -> String {
        let window = json!({"schedule": schedule, "duration": duration, "timeZone": zone});
        let spec = json!({"modelRef": {"name": "m"}, "alias": "champion", "targetRef": {"name": "server"},
            "promotion": {"windows": [window]}});
        let binding = AliasBinding::new("taxi", serde_json::from_value(spec).expect("a spec"));
        let refusal = binding.validate_cel().err();
        refusal.map_or_else(String::new, |refusal| format!("{refusal:?}"))
    }

    #[test]
    fn admission_takes_the_schedules_of_cron_jobs_and_says_what_a_window_needs() {
        for schedule in [
            "* * * * *",
            "0 9 * * 1-5",
            "*/15,3 8-18/2 1,15 JAN-mar  mon",
            "0 0 ? * ?",
        ] {
            assert_eq!(
                refusal(schedule, "1h30m", "Europe/Berlin"),
                "",
                "{schedule}"
            );
        }
        for schedule in ["@hourly", "0 9 * *", "0 9 * * 1 2026", "", "a 9 * * 1"] {
            let refusal = refusal(schedule, "1h", "UTC");
            assert!(
                refusal.contains("a window's schedule has five fields"),
                "{schedule}: {refusal}"
            );
        }
        for duration in ["59s", "745h", "1.5h", "day"] {
            let refusal = refusal("0 9 * * *", duration, "UTC");
            assert!(
                refusal.contains("must lie between 1m and 744h"),
                "{duration}: {refusal}"
            );
        }
        for zone in ["", "+01:00", "Europe/Ber lin"] {
            let refusal = refusal("0 9 * * *", "1h", zone);
            assert!(refusal.contains("IANA"), "{zone}: {refusal}");
        }
    }
}
