//! `kubectl pointsman events`: what Pointsman did, and what happened to the workload of a binding.
//!
//! Absent: Events that the cluster has forgotten, which it does after an hour by default. `history` has more.

use std::process::ExitCode;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use kube::api::ListParams;

use super::CommandResult;
use super::Failure;
use super::cluster::{Cluster, ClusterArguments, name_in};
use super::output::{Format, OutputArguments, Tone, list_of};
use super::table::{Cell, Table};
use super::units::seconds;
use crate::api::{AliasBinding, names};

/// Show the Events of Pointsman, or those about one binding and its workload
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  What Pointsman did in a namespace, newest last:
    kubectl pointsman events -n ml
  What happened to a binding and to its workload:
    kubectl pointsman events nyc-taxi -n ml")]
pub struct EventsArguments {
    /// The AliasBinding's name. Default: all objects of Pointsman
    binding: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "binding"])]
    all_namespaces: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    output: OutputArguments,
}

/// Runs the command.
pub async fn run(arguments: EventsArguments) -> CommandResult {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let namespace = (!arguments.all_namespaces).then_some(cluster.namespace.as_str());
    let events = if let Some(binding) = &arguments.binding {
        let binding: AliasBinding = cluster.get(name_in(binding)).await?;
        about(&cluster, &binding).await?
    } else {
        let reporter = format!("reportingComponent={}", names::FIELD_MANAGER);
        sorted(list(&cluster, namespace, &reporter).await?)
    };
    if events.is_empty() && matches!(arguments.output.output, None | Some(Format::Wide)) {
        eprintln!(
            "No Events found: the cluster keeps them for an hour by default; see kubectl pointsman history"
        );
        return Ok(ExitCode::SUCCESS);
    }
    let names = events
        .iter()
        .map(|event| format!("event/{}", event.name_any()));
    let items = events
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?;
    let (with_namespace, now) = (namespace.is_none(), Timestamp::now());
    arguments.output.print(&list_of(items), names, |paint| {
        table(&events, with_namespace, now).render(paint)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The Events about a binding and its workload, the newest last.
pub async fn about(cluster: &Cluster, binding: &AliasBinding) -> Result<Vec<Event>, Failure> {
    let namespace = Some(cluster.namespace.as_str());
    let kind = binding.target_kind();
    let mut events = Vec::new();
    for (kind, name) in [
        ("AliasBinding", binding.name_any()),
        (kind.as_str(), binding.workload_name().to_owned()),
    ] {
        let fields = format!("involvedObject.kind={kind},involvedObject.name={name}");
        events.extend(list(cluster, namespace, &fields).await?);
    }
    Ok(sorted(events))
}

async fn list(
    cluster: &Cluster,
    namespace: Option<&str>,
    fields: &str,
) -> Result<Vec<Event>, Failure> {
    let parameters = ListParams::default().fields(fields);
    let listed = cluster.list::<Event, Event>(namespace, parameters).await?;
    Ok(listed.items)
}

fn sorted(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by_key(last_seen);
    events
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref();
    let of_series = series
        .and_then(|series| series.last_observed_time.as_ref())
        .map(|time| time.0);
    let times = [
        of_series,
        event.last_timestamp.as_ref().map(|time| time.0),
        event.event_time.as_ref().map(|time| time.0),
    ];
    let created = event
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0);
    times.into_iter().flatten().max().or(created)
}

/// A table of Events.
pub fn table(events: &[Event], with_namespace: bool, now: Timestamp) -> Table {
    let mut headers = vec!["LAST-SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
    if with_namespace {
        headers.insert(0, "NAMESPACE");
    }
    let mut table = Table::new(headers);
    for event in events {
        let about = &event.involved_object;
        let kind = about.kind.as_deref().unwrap_or_default().to_lowercase();
        let object = format!("{kind}/{}", about.name.as_deref().unwrap_or_default());
        let type_ = event.type_.as_deref().unwrap_or_default();
        let tone = if type_ == "Warning" {
            Tone::Warning
        } else {
            Tone::Plain
        };
        let mut row = vec![
            seen(event, now).into(),
            Cell::toned(type_, tone),
            Cell::toned(event.reason.as_deref().unwrap_or_default(), tone),
            object.into(),
            event.message.as_deref().unwrap_or_default().into(),
        ];
        if with_namespace {
            row.insert(0, about.namespace.as_deref().unwrap_or_default().into());
        }
        table.row(row);
    }
    table
}

/// How long ago an Event was seen last, and how often it was seen.
fn seen(event: &Event, now: Timestamp) -> String {
    let ago = last_seen(event).map(|at| seconds(now.as_second() - at.as_second()));
    let ago = ago.unwrap_or_else(|| "<unknown>".to_owned());
    let series = event.series.as_ref().and_then(|series| series.count);
    match series.or(event.count) {
        Some(count) if count > 1 => format!("{ago} (x{count})"),
        _ => ago,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::output::Paint;
    use super::*;

    fn event(more: Value) -> Event {
        let mut event = json!({
            "metadata": {"name": "taxi.1", "namespace": "ml"},
            "involvedObject": {"kind": "AliasBinding", "name": "taxi", "namespace": "ml"},
            "type": "Normal", "reason": "Live", "message": "version 5 runs"});
        for (key, value) in more.as_object().unwrap() {
            event[key] = value.clone();
        }
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn events_are_listed_with_the_newest_last() {
        let series = json!({"count": 3, "lastObservedTime": "2026-11-25T11:59:00.000000Z"});
        let repeated = event(
            json!({"eventTime": "2026-11-25T11:00:00.000000Z", "series": series, "type": "Warning",
            "reason": "Blocked", "message": "no\nroom"}),
        );
        let older = event(json!({"lastTimestamp": "2026-11-25T11:30:00Z"}));
        let events = sorted(vec![repeated, older]);
        let now = "2026-11-25T12:00:00Z".parse().unwrap();
        let expected = "\
NAMESPACE   LAST-SEEN   TYPE      REASON    OBJECT              MESSAGE
ml          30m         Normal    Live      aliasbinding/taxi   version 5 runs
ml          60s (x3)    Warning   Blocked   aliasbinding/taxi   no room
";
        assert_eq!(table(&events, true, now).render(Paint::never()), expected);
    }
}
