//! `kubectl pointsman describe`: a readable account of one binding.
//!
//! Absent: fields that only machines read. `kubectl get -o yaml` has all.

use std::process::ExitCode;

use jiff::Zoned;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use super::CommandResult;
use super::cluster::{Cluster, ClusterArguments, name_in};
use super::events;
use super::fields::{FieldList, indented};
use super::history;
use super::inspect::{add_code, datasets, versions_table};
use super::moment::local;
use super::output::{OutputArguments, Paint, Tone, resource_name};
use super::table::{Cell, Table};
use super::units::since;
use crate::api::conditions::{READY, find};
use crate::api::promotion::{GateResult, GateState, GateValue};
use crate::api::rollback::Lost;
use crate::api::{AliasBinding, AliasBindingStatus, RegisteredModel, names};
use crate::rollout::manual_approval;

/// Describe a binding: its state and conditions, the versions of its model, its history and its Events
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  All about one binding:
    kubectl pointsman describe nyc-taxi -n ml")]
pub struct DescribeArguments {
    /// The AliasBinding's name
    binding: String,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    output: OutputArguments,
}

/// Runs the command.
pub async fn run(arguments: DescribeArguments) -> CommandResult {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let binding: AliasBinding = cluster.get(name_in(&arguments.binding)).await?;
    let model = cluster
        .find::<RegisteredModel>(&binding.spec.model_ref.name)
        .await?;
    let events = events::about(&cluster, &binding).await;
    let now = Zoned::now();
    let names = [resource_name(&binding)];
    arguments.output.print(&binding, names, |paint| {
        let mut text = state(&binding, &now);
        text.push_str(&sections(&binding, model.as_ref(), &now, paint));
        text + &match events {
            Ok(events) => events_section(&events, &now, paint),
            Err(failure) => section("Events", &failure.to_string()),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A moment and how long ago it was.
fn moment(at: Option<&Time>, now: &Zoned) -> String {
    at.map_or_else(String::new, |at| {
        let ago = since(Some(at), now.timestamp());
        format!("{} ({ago} ago)", local(at.0, now.time_zone()))
    })
}

/// The wanted and the running version of a binding, and the reasons, from its spec and status.
fn state(binding: &AliasBinding, now: &Zoned) -> String {
    let none = AliasBindingStatus::default();
    let (spec, status) = (&binding.spec, binding.status.as_ref().unwrap_or(&none));
    let mut fields = FieldList::indented(0);
    fields.add("Name", binding.name_any());
    fields.add("Namespace", binding.namespace().unwrap_or_default());
    let followed = if spec.alias.is_some() {
        "alias"
    } else {
        "stage"
    };
    fields.add(
        "Follows",
        format!(
            "{followed} {} of RegisteredModel {}",
            spec.follows(),
            spec.model_ref.name
        ),
    );
    fields.add("Target", binding.workload_reference());
    fields.add_some("Pinned", spec.pinned_version.as_ref());
    fields.add(
        "Suspended",
        if spec.suspend {
            "yes: only the status is written"
        } else {
            ""
        },
    );
    fields.add("Approval", approval(binding));
    add_versions(&mut fields, status, now);
    add_trouble(&mut fields, status, now);
    if let Some(ready) = find(&status.conditions, READY) {
        fields.add("Ready", format!("{} ({})", ready.status, ready.reason));
        fields.add("Message", &ready.message);
    }
    fields.render()
}

/// What must be approved, and what is.
fn approval(binding: &AliasBinding) -> String {
    let Some(rules) = manual_approval(binding) else {
        return String::new();
    };
    let by = if rules.require_different_person {
        "Manual, by another person than the registrar"
    } else {
        "Manual"
    };
    let Some(version) = &rules.approved_version else {
        return format!("{by}; no version is approved");
    };
    let why = [
        names::APPROVAL_REASON_ANNOTATION,
        names::APPROVAL_TICKET_ANNOTATION,
    ];
    let why = why.into_iter();
    let why: Vec<String> = why
        .filter_map(|annotation| binding.annotation_text(annotation))
        .collect();
    let why = if why.is_empty() {
        String::new()
    } else {
        format!(" ({})", why.join(", "))
    };
    format!("{by}; version {version} is approved{why}")
}

/// The versions that are wanted, run and were good.
fn add_versions(fields: &mut FieldList, status: &AliasBindingStatus, now: &Zoned) {
    let seen = status
        .alias
        .as_ref()
        .map(|alias| moment(Some(&alias.since), now));
    fields.add_some(
        "Wanted",
        status
            .wanted
            .as_ref()
            .map(|wanted| since_when(wanted, seen.as_deref())),
    );
    let running = status.running.as_ref();
    fields.add_some(
        "Running",
        running.map(|running| {
            since_when(
                running.version.number(),
                Some(&moment(running.since.as_ref(), now)),
            )
        }),
    );
    fields.add_some(
        "Last good",
        status.last_good.as_ref().map(|good| good.version.number()),
    );
}

fn since_when(version: &str, moment: Option<&str>) -> String {
    match moment {
        Some(moment) if !moment.is_empty() => format!("{version}, since {moment}"),
        _ => version.to_owned(),
    }
}

/// The versions that failed or wait, and a person's change of the workload.
fn add_trouble(fields: &mut FieldList, status: &AliasBindingStatus, now: &Zoned) {
    let held_back = status.held_back.as_ref();
    for failed in held_back.iter().flat_map(|held| &held.versions) {
        let when = moment(Some(&failed.since), now);
        let words = format!(
            "{}: {}, since {when}: {}",
            failed.version.number(),
            failed.reason,
            failed.message
        );
        fields.add("Held back", words);
    }
    let shared = held_back.and_then(|held| held.shared_fault.as_ref());
    fields.add_some("Shared fault", shared.map(|fault| &fault.message));
    if let Some(postponed) = &status.postponed {
        let when = local(postponed.retry_at.0, now.time_zone());
        fields.add(
            "Postponed",
            format!(
                "{} until {when}: {}",
                postponed.version.number(),
                postponed.message
            ),
        );
    }
    if let Some(hold) = &status.hold {
        let when = moment(Some(&hold.since), now);
        fields.add(
            "Hold",
            format!("{} changed the workload, since {when}", hold.manager),
        );
    }
    if let Some(lost) = &status.lost {
        add_lost(fields, lost);
    }
    if let Some(retrain) = &status.retrain {
        let words = format!(
            "job/{} for version {}: {} {}",
            retrain.job, retrain.version, retrain.outcome, retrain.message
        );
        fields.add("Retrain", words.trim_end());
    }
}

fn add_lost(fields: &mut FieldList, lost: &Lost) {
    fields.add(
        "Lost",
        format!(
            "version {} can no longer be rolled back to",
            lost.version.number()
        ),
    );
    add_code(fields, lost.lineage.code.as_ref());
    fields.add("Data", datasets(&lost.lineage.datasets));
}

/// The conditions, the model's versions and the history.
fn sections(
    binding: &AliasBinding,
    model: Option<&RegisteredModel>,
    now: &Zoned,
    paint: Paint,
) -> String {
    let none = AliasBindingStatus::default();
    let status = binding.status.as_ref().unwrap_or(&none);
    let mut text = section(
        "Conditions",
        &conditions(&status.conditions, now).render(paint),
    );
    if !status.gates.is_empty() {
        text.push_str(&section("Gates", &gates(&status.gates).render(paint)));
    }
    if let Some(model) = model.and_then(|model| model.status.as_ref()) {
        let table = versions_table(model, false, now.timestamp());
        text.push_str(&section("Versions", &table.render(paint)));
    }
    if !status.history.is_empty() {
        let entries: Vec<_> = status.history.iter().collect();
        let table = history::table(&entries, false, now.timestamp(), now.time_zone());
        text.push_str(&section("History", &table.render(paint)));
    }
    text
}

fn events_section(events: &[Event], now: &Zoned, paint: Paint) -> String {
    if events.is_empty() {
        return "Events:  <none>\n".to_owned();
    }
    section(
        "Events",
        &events::table(events, false, now.timestamp()).render(paint),
    )
}

fn section(title: &str, table: &str) -> String {
    format!("{title}:\n{}", indented(table, 2))
}

/// The results of the gates of the spec, with the values of both versions.
fn gates(gates: &[GateState]) -> Table {
    let mut table = Table::new([
        "GATE",
        "VERSION",
        "RESULT",
        "FIELD",
        "CANDIDATE",
        "CURRENT",
        "MESSAGE",
    ]);
    for gate in gates {
        let tone = match gate.result.known() {
            Some(GateResult::Passed) => Tone::Good,
            Some(GateResult::Failed) => Tone::Bad,
            _ => Tone::Warning,
        };
        let mut head: [Cell; 3] = [
            gate.name.as_str().into(),
            gate.version.as_str().into(),
            Cell::toned(gate.result.to_string(), tone),
        ];
        let mut message = gate.message.as_str();
        let none = [GateValue::default()];
        let values = if gate.values.is_empty() {
            &none[..]
        } else {
            &gate.values
        };
        for value in values {
            let [name, version, result] = std::mem::take(&mut head);
            table.row([
                name,
                version,
                result,
                value.field.as_str().into(),
                Cell::optional(value.candidate.as_deref()),
                Cell::optional(value.current.as_deref()),
                std::mem::take(&mut message).into(),
            ]);
        }
    }
    table
}

fn conditions(conditions: &[Condition], now: &Zoned) -> Table {
    let mut table = Table::new(["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    for each in conditions {
        let tone = match each.status.as_str() {
            "False" => Tone::Warning,
            _ => Tone::Plain,
        };
        table.row([
            each.type_.as_str().into(),
            Cell::toned(&*each.status, tone),
            each.reason.as_str().into(),
            since(Some(&each.last_transition_time), now.timestamp()).into(),
            each.message.as_str().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use serde_json::json;

    use super::*;

    fn now() -> Zoned {
        "2026-11-25T12:00:00Z"
            .parse::<jiff::Timestamp>()
            .unwrap()
            .to_zoned(TimeZone::UTC)
    }

    fn binding() -> AliasBinding {
        let message = "version 5 runs: version 6 failed (CrashLoop)";
        let failed = json!({"version": "6", "reason": "CrashLoop", "message": "container server crashes",
            "since": "2026-11-25T11:00:00Z"});
        serde_json::from_value(json!({
            "metadata": {"name": "taxi", "namespace": "ml",
                "annotations": {"pointsman.dev/approval-reason": "better", "pointsman.dev/approval-ticket": "CHG-7"}},
            "spec": {"modelRef": {"name": "nyc-taxi"}, "alias": "champion", "targetRef": {"name": "server"},
                "pinnedVersion": "6", "promotion": {"approval": "Manual", "approvedVersion": "6"}},
            "status": {
                "wanted": "6", "alias": {"version": "6", "since": "2026-11-25T10:00:00Z"},
                "running": {"version": "5", "since": "2026-11-25T11:00:00Z"}, "lastGood": {"version": "5"},
                "heldBack": {"wanted": {"version": "6"}, "specDigest": "v1:", "versions": [failed]},
                "hold": {"wanted": {"version": "6"}, "manager": "kubectl", "since": "2026-11-25T11:30:00Z"},
                "gates": [
                    {"name": "no-worse", "version": "6", "result": "Failed", "message": "it is false", "values": [
                        {"field": "metrics.rmse", "candidate": "0.3", "current": "0.1"}, {"field": "metrics.mae", "candidate": "0.2"}]},
                    {"name": "office-hours", "version": "6", "result": "Passed"}],
                "conditions": [{"type": "Ready", "status": "False", "reason": "RolledBack", "message": message,
                    "lastTransitionTime": "2026-11-25T11:00:00Z"}]}}))
        .unwrap()
    }

    #[test]
    fn a_binding_is_described_with_what_is_wanted_runs_and_failed() {
        let expected = "\
Name:       taxi
Namespace:  ml
Follows:    alias champion of RegisteredModel nyc-taxi
Target:     deployment/server
Pinned:     6
Approval:   Manual; version 6 is approved (better, CHG-7)
Wanted:     6, since 2026-11-25 10:00:00 (120m ago)
Running:    5, since 2026-11-25 11:00:00 (60m ago)
Last good:  5
Held back:  6: CrashLoop, since 2026-11-25 11:00:00 (60m ago): container server crashes
Hold:       kubectl changed the workload, since 2026-11-25 11:30:00 (30m ago)
Ready:      False (RolledBack)
Message:    version 5 runs: version 6 failed (CrashLoop)
";
        assert_eq!(state(&binding(), &now()), expected);
        let sections = sections(&binding(), None, &now(), Paint::never());
        let lines: Vec<&str> = sections.lines().map(str::trim_end).collect();
        let expected = "\
Conditions:
  TYPE    STATUS   REASON       SINCE   MESSAGE
  Ready   False    RolledBack   60m     version 5 runs: version 6 failed (CrashLoop)
Gates:
  GATE           VERSION   RESULT   FIELD          CANDIDATE   CURRENT   MESSAGE
  no-worse       6         Failed   metrics.rmse   0.3         0.1       it is false
                                    metrics.mae    0.2         <none>
  office-hours   6         Passed                  <none>      <none>
";
        assert_eq!(lines, expected.lines().collect::<Vec<_>>());
        assert_eq!(
            events_section(&[], &now(), Paint::never()),
            "Events:  <none>\n"
        );
    }
}
