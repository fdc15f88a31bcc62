//! `kubectl pointsman status`: all bindings, one line each, and in words what needs a person.
//!
//! Absent: workloads and registries. The status of a binding says what is known of them.

use std::collections::BTreeMap;
use std::pin::pin;
use std::process::ExitCode;

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, ResourceExt};
use serde_json::Value;

use super::cluster::{Cluster, ClusterArguments};
use super::output::{Format, OutputArguments, Tone, list_of, print, resource_name};
use super::table::{Cell, Table, line, printable};
use super::units::since;
use super::{CommandResult, Failure};
use crate::api::conditions::{READY, STALLED, find};
use crate::api::{AliasBinding, AliasBindingStatus, Reason};

/// Show all bindings: the version that is wanted, the one that runs, and what needs a person
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  The bindings of a namespace:
    kubectl pointsman status -n ml
  Those of all namespaces, and each change of them:
    kubectl pointsman status -A --watch
  The names of the bindings that are not ready:
    kubectl pointsman status -o json | jq -r '.items[] | select(any(.status.conditions[]; .type == \"Ready\" and .status != \"True\")) | .metadata.name'")]
pub struct StatusArguments {
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Keep running, and print a line for each change
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    output: OutputArguments,
}

/// Runs the command.
pub async fn run(arguments: StatusArguments) -> CommandResult {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let namespace = (!arguments.all_namespaces).then_some(cluster.namespace.as_str());
    if arguments.watch {
        return follow(&cluster, namespace, &arguments.output).await;
    }
    let everything = ListParams::default();
    if let Some(Format::Json | Format::Yaml) = arguments.output.output {
        let listed = cluster
            .list::<AliasBinding, Value>(namespace, everything)
            .await?;
        let list = list_of(listed.items);
        arguments.output.print(&list, [], |_| String::new())?;
        return Ok(ExitCode::SUCCESS);
    }
    let listed = cluster
        .list::<AliasBinding, AliasBinding>(namespace, everything)
        .await?;
    if listed.unreadable > 0 {
        eprintln!(
            "{} bindings cannot be read: another release wrote them; use its kubectl-pointsman",
            listed.unreadable
        );
    }
    if listed.items.is_empty() {
        eprintln!("{}", nothing(namespace));
        return Ok(ExitCode::SUCCESS);
    }
    let view = TableView {
        with_namespace: namespace.is_none(),
        is_wide: arguments.output.is_wide(),
        now: Timestamp::now(),
    };
    let names = listed.items.iter().map(resource_name);
    arguments.output.print(&(), names, |paint| {
        let mut text = view.table(&listed.items).render(paint);
        text.push_str(&view.needs_person(&listed.items));
        text
    })?;
    Ok(ExitCode::SUCCESS)
}

fn nothing(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!(
            "No AliasBindings found in the namespace {namespace}; see all: kubectl pointsman status -A"
        ),
        None => "No AliasBindings found.".to_owned(),
    }
}

/// How bindings are shown.
struct TableView {
    with_namespace: bool,
    is_wide: bool,
    now: Timestamp,
}

impl TableView {
    fn headers(&self) -> Vec<&'static str> {
        let mut headers = Vec::new();
        if self.with_namespace {
            headers.push("NAMESPACE");
        }
        headers.extend([
            "NAME", "MODEL", "ALIAS", "WANTED", "RUNNING", "READY", "REASON", "SINCE",
        ]);
        if self.is_wide {
            headers.extend(["TARGET", "HELD-BACK", "AGE", "MESSAGE"]);
        }
        headers
    }

    fn table(&self, bindings: &[AliasBinding]) -> Table {
        let mut table = Table::new(self.headers());
        for binding in bindings {
            table.row(self.row(binding));
        }
        table
    }

    fn row(&self, binding: &AliasBinding) -> Vec<Cell> {
        let none = AliasBindingStatus::default();
        let status = binding.status.as_ref().unwrap_or(&none);
        let ready = find(&status.conditions, READY);
        let running = status.running.as_ref();
        let tone = tone(status);
        let mut cells = Vec::new();
        if self.with_namespace {
            cells.push(binding.namespace().unwrap_or_default().into());
        }
        cells.extend([
            binding.name_any().into(),
            binding.spec.model_ref.name.as_str().into(),
            binding.spec.follows().into(),
            Cell::optional(status.wanted.as_deref()),
            Cell::optional(running.map(|running| running.version.number())),
            Cell::toned(ready.map_or("Unknown", |ready| &ready.status), tone),
            Cell::toned(ready.map_or("Pending", |ready| &ready.reason), tone),
            since(ready.map(|ready| &ready.last_transition_time), self.now).into(),
        ]);
        if self.is_wide {
            let held_back = status.held_back.iter().flat_map(|held| &held.versions);
            let numbers: Vec<&str> = held_back.map(|failed| failed.version.number()).collect();
            let numbers = (!numbers.is_empty()).then(|| numbers.join(","));
            cells.extend([
                binding.workload_reference().into(),
                Cell::optional(numbers.as_deref()),
                since(binding.creation_timestamp().as_ref(), self.now).into(),
                ready.map_or("", |ready| &ready.message).into(),
            ]);
        }
        cells
    }

    /// The bindings that need a person, each with its cause and remedy. The wide table has these in a column.
    fn needs_person(&self, bindings: &[AliasBinding]) -> String {
        let mut lines = Vec::new();
        for binding in bindings {
            if let Some(need) = binding.status.as_ref().and_then(need) {
                let name = if self.with_namespace {
                    format!(
                        "{}/{}",
                        binding.namespace().unwrap_or_default(),
                        binding.name_any()
                    )
                } else {
                    binding.name_any()
                };
                lines.push(format!("  {name}: {}\n", printable(need)));
            }
        }
        let verb = if lines.len() == 1 { "needs" } else { "need" };
        match lines.len() {
            0 => String::new(),
            _ if self.is_wide => String::new(),
            count => format!(
                "\n{count} of {} {verb} a person:\n{}",
                bindings.len(),
                lines.concat()
            ),
        }
    }
}

/// The message of a binding that waits for a person.
fn need(status: &AliasBindingStatus) -> Option<&str> {
    let stalled = find(&status.conditions, STALLED).filter(|stalled| stalled.status == "True");
    let ready = find(&status.conditions, READY);
    let waits = ready.filter(|ready| ready.reason == Reason::AwaitingApproval.as_str());
    stalled.or(waits).map(|found| found.message.as_str())
}

fn tone(status: &AliasBindingStatus) -> Tone {
    let is_true =
        |type_| find(&status.conditions, type_).is_some_and(|found| found.status == "True");
    if is_true(READY) {
        Tone::Good
    } else if is_true(STALLED) {
        Tone::Bad
    } else {
        Tone::Warning
    }
}

/// Prints all bindings, then each that changes.
async fn follow(
    cluster: &Cluster,
    namespace: Option<&str>,
    output: &OutputArguments,
) -> CommandResult {
    let api: Api<AliasBinding> = match namespace {
        Some(namespace) => Api::namespaced(cluster.client.clone(), namespace),
        None => Api::all(cluster.client.clone()),
    };
    let mut events = pin!(watch(api, watcher::Config::default()).default_backoff());
    let mut changes = WatchTable {
        output,
        with_namespace: namespace.is_none(),
        listed: Vec::new(),
        widths: Vec::new(),
        printed: BTreeMap::new(),
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => changes.listed.clear(),
            Ok(Event::InitApply(binding)) => changes.listed.push(binding),
            Ok(Event::InitDone) => changes.apply_listed()?,
            Ok(Event::Apply(binding)) => changes.apply(&binding)?,
            Ok(Event::Delete(binding)) => changes.apply(&deleted(binding))?,
            Err(error) if changes.widths.is_empty() => {
                return Err(match client_error(&error) {
                    Some(error) => cluster.explain::<AliasBinding>("watch", None, namespace, error),
                    None => error.to_string().into(),
                });
            }
            Err(error) => eprintln!("the watch failed and is repeated: {error}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn client_error(error: &watcher::Error) -> Option<&kube::Error> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Some(error),
        _ => None,
    }
}

/// The binding as its last line shows it.
fn deleted(mut binding: AliasBinding) -> AliasBinding {
    let status = binding.status.get_or_insert_default();
    for condition in &mut status.conditions {
        if condition.type_ == READY {
            "False".clone_into(&mut condition.status);
            "Deleted".clone_into(&mut condition.reason);
            condition.message.clear();
        }
    }
    binding
}

/// The lines of a watch: one that would say the same as the last about its binding is left out.
struct WatchTable<'a> {
    output: &'a OutputArguments,
    with_namespace: bool,
    listed: Vec<AliasBinding>,
    /// The columns' widths, of the first table. Empty before it.
    widths: Vec<usize>,
    printed: BTreeMap<(Option<String>, String), Vec<Cell>>,
}

impl WatchTable<'_> {
    fn view(&self, now: Timestamp) -> TableView {
        TableView {
            with_namespace: self.with_namespace,
            is_wide: self.output.is_wide(),
            now,
        }
    }

    fn apply_listed(&mut self) -> Result<(), Failure> {
        let listed = std::mem::take(&mut self.listed);
        if self.widths.is_empty() {
            self.widths = self.view(Timestamp::now()).table(&listed).widths();
            if matches!(self.output.output, None | Some(Format::Wide)) {
                let headers = self.view(Timestamp::now()).headers();
                let cells: Vec<Cell> = headers.into_iter().map(Cell::from).collect();
                print(&line(&cells, &self.widths, self.output.paint()))?;
            }
        }
        for binding in &listed {
            self.apply(binding)?;
        }
        Ok(())
    }

    fn apply(&mut self, binding: &AliasBinding) -> Result<(), Failure> {
        // Without the time that has passed, which changes by itself.
        let timeless = self.view(Timestamp::UNIX_EPOCH).row(binding);
        let key = (binding.namespace(), binding.name_any());
        if self.printed.get(&key) == Some(&timeless) {
            return Ok(());
        }
        self.printed.insert(key, timeless);
        let row = self.view(Timestamp::now()).row(binding);
        let text = |paint| line(&row, &self.widths, paint);
        self.output.print(binding, [resource_name(binding)], text)
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
