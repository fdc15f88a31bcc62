//! Changes of objects that people ask for: one patch each, told in kubectl's words, and waited for on request.
//!
//! Absent: the operator's fields. A command writes what a person would write into the spec or an annotation.

use std::fmt::Debug;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::cluster::{Cluster, ClusterArguments, name_in};
use super::output::{print, resource_name};
use super::table::printable;
use super::{CommandResult, Failure};
use crate::api::conditions::{READY, STALLED, find};
use crate::api::{AliasBinding, AliasBindingStatus, Reason};

/// The field manager of changes that a person makes with the plugin.
pub const MANAGER: &str = "kubectl-pointsman";
/// How long a wait says nothing.
const QUIET: Duration = Duration::from_secs(2);

/// The flags of commands that change something.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Change")]
pub struct ChangeArguments {
    #[command(flatten)]
    dry_run: DryRunArguments,
    #[command(flatten)]
    wait: WaitArguments,
}

/// The flag of a change that can be tried.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct DryRunArguments {
    /// server: the API server checks the change, and nothing is written
    #[arg(
        long = "dry-run",
        value_enum,
        value_name = "none|server",
        default_value = "none",
        hide_possible_values = true
    )]
    pub mode: DryRun,
}

/// The flags of commands that can wait for the operator.
#[derive(Clone, Debug, clap::Args)]
pub struct WaitArguments {
    /// Wait until the operator has acted on it, and the wanted version runs
    #[arg(long)]
    pub wait: bool,
    /// How long to wait, such as 90s or 1h
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub timeout: Duration,
}

/// The binding that a command changes, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct BindingArguments {
    /// The binding
    #[arg(index = 1)]
    binding: String,
    #[command(flatten)]
    change: ChangeArguments,
    #[command(flatten)]
    cluster: ClusterArguments,
}

impl BindingArguments {
    /// The binding's name.
    pub fn name(&self) -> &str {
        name_in(&self.binding)
    }

    /// The binding's cluster.
    pub async fn connect(&self) -> Result<Cluster, Failure> {
        Cluster::connect(&self.cluster).await
    }

    /// Changes the binding, and waits for a goal if that is asked for.
    pub async fn change(
        &self,
        cluster: &Cluster,
        patch: &Value,
        done: &str,
        goal: Goal,
    ) -> CommandResult {
        self.change
            .binding(cluster, self.name(), patch, done, goal)
            .await
    }
}

impl ChangeArguments {
    /// Whether the change is only checked.
    pub fn dry_run(&self) -> DryRun {
        self.dry_run.mode
    }

    /// Changes a binding, and waits for a goal if that is asked for. A dry run changes nothing that could be waited for.
    pub async fn binding(
        &self,
        cluster: &Cluster,
        name: &str,
        patch: &Value,
        done: &str,
        goal: Goal,
    ) -> CommandResult {
        let changed: AliasBinding = change(cluster, name, patch, done, self.dry_run()).await?;
        if self.wait.wait && self.dry_run() == DryRun::None {
            let goal = Goal {
                generation: changed.metadata.generation,
                ..goal
            };
            wait(cluster, &changed.name_any(), &goal, self.wait.timeout).await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether a change is only checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum DryRun {
    /// It is written
    None,
    /// The API server checks it
    Server,
}

fn duration(word: &str) -> Result<Duration, String> {
    match word.parse::<kube::core::Duration>() {
        Ok(parsed) if !parsed.is_negative() => Ok(parsed.into()),
        _ => Err("write a duration, such as 90s or 1h30m".to_owned()),
    }
}

/// The number of a version, as manifests write it.
pub fn version_number(word: &str) -> Result<String, String> {
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && !word.starts_with('0') && (1..=19).contains(&word.len()) {
        Ok(word.to_owned())
    } else {
        Err("write the number of a version, such as 4".to_owned())
    }
}

/// A value of a request's annotation that no request had before.
pub fn request_value() -> String {
    Timestamp::now().to_string()
}

/// An annotation with this value; without it if there is none.
pub fn annotation(name: &str, value: Option<&str>) -> Value {
    json!({"metadata": {"annotations": {name: value}}})
}

/// Patches an object, and says what was done. `done` follows the object's name, as in `pinned to 4`.
pub async fn change<K>(
    cluster: &Cluster,
    name: &str,
    patch: &Value,
    done: &str,
    dry_run: DryRun,
) -> Result<K, Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let before: K = cluster.get(name).await?;
    let api = cluster.api::<K>();
    let patch = Patch::Merge(patch);
    let changed = api.patch(name, &parameters(dry_run), &patch).await;
    let changed: K = changed.map_err(|error| {
        cluster.explain::<K>("patch", Some(name), Some(&cluster.namespace), &error)
    })?;
    let is_changed = before.resource_version() != changed.resource_version();
    tell(&resource_name(&changed), done, dry_run, is_changed)?;
    Ok(changed)
}

/// The parameters of a person's patch.
pub fn parameters(dry_run: DryRun) -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        dry_run: dry_run == DryRun::Server,
        ..PatchParams::default()
    }
}

/// Says in kubectl's words what was done with an object.
pub fn tell(object: &str, done: &str, dry_run: DryRun, is_changed: bool) -> Result<(), Failure> {
    let remark = match (dry_run, is_changed) {
        (DryRun::Server, _) => " (server dry run)",
        (DryRun::None, false) => " (no change)",
        (DryRun::None, true) => "",
    };
    print(&format!("{object} {done}{remark}\n"))
}

/// A request by annotation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AnnotationRequest {
    /// To try failed versions again.
    Retry,
    /// To end a hold.
    Resume,
    /// To write the registry's present address and the present location of the files.
    Reapply,
}

impl AnnotationRequest {
    fn is_handled(self, value: &str, status: &AliasBindingStatus) -> bool {
        let handled = match self {
            Self::Retry => status
                .last_handled_retry
                .as_ref()
                .map(|handled| &handled.value),
            Self::Resume => status.last_handled_resume.as_ref(),
            Self::Reapply => status
                .last_handled_apply
                .as_ref()
                .map(|handled| &handled.value),
        };
        handled.is_some_and(|handled| handled == value)
    }
}

/// The state that a wait ends with.
#[derive(Clone, Debug, Default)]
pub struct Goal {
    /// The spec that the operator must have seen.
    pub generation: Option<i64>,
    /// The request that it must have handled, with its value.
    pub request: Option<(AnnotationRequest, String)>,
    /// The version that must be wanted, and run.
    pub version: Option<String>,
}

impl Goal {
    /// The wanted version of this binding's spec runs, whatever it is.
    pub fn of(binding: &AliasBinding) -> Self {
        Self {
            generation: binding.metadata.generation,
            ..Self::default()
        }
    }
}

/// How far a binding is.
#[derive(Clone, Debug, Eq, PartialEq)]
enum GoalState {
    Done(String),
    Failed(String),
    Waiting(String),
}

fn progress(binding: &AliasBinding, goal: &Goal) -> GoalState {
    let waiting = |state: &str| GoalState::Waiting(state.to_owned());
    let Some(status) = &binding.status else {
        return waiting("the operator has not seen it yet");
    };
    if status.observed_generation < goal.generation {
        return waiting("the operator has not seen the change yet");
    }
    if let Some((request, value)) = &goal.request
        && !request.is_handled(value, status)
    {
        return waiting("the operator has not acted on the request yet");
    }
    let wanted = status.wanted.as_deref();
    if let Some(version) = &goal.version
        && wanted != Some(version)
    {
        return waiting("the operator has not seen the move yet");
    }
    let Some(ready) = find(&status.conditions, READY) else {
        return waiting("the operator has not seen it yet");
    };
    let state = format!("{}: {}", ready.reason, ready.message);
    if find(&status.conditions, STALLED).is_some_and(|stalled| stalled.status == "True") {
        return GoalState::Failed(state);
    }
    let running = status
        .running
        .as_ref()
        .map(|running| running.version.number());
    let is_at_goal = goal.version.is_none() || running == goal.version.as_deref();
    let is_stopped = matches!(
        Reason::parse(&ready.reason),
        Some(Reason::Held | Reason::Suspended)
    );
    match (ready.status.as_str(), is_at_goal) {
        ("True", true) => GoalState::Done(format!(
            "version {} runs ({})",
            running.unwrap_or("?"),
            ready.reason
        )),
        ("True", false) if is_stopped => GoalState::Failed(state),
        _ => GoalState::Waiting(state),
    }
}

/// Waits until a binding has reached its goal, and says so. After two seconds each new state is told.
pub async fn wait(
    cluster: &Cluster,
    name: &str,
    goal: &Goal,
    limit: Duration,
) -> Result<(), Failure> {
    let started = Instant::now();
    let deadline = started + limit;
    let mut changes = pin!(watch_object(cluster.api::<AliasBinding>(), name).default_backoff());
    let (mut state, mut told) = ("the binding has not been read yet".to_owned(), None);
    loop {
        if started.elapsed() >= QUIET && told.as_ref() != Some(&state) {
            eprintln!("{name}: {}", printable(&state));
            told = Some(state.clone());
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(format!(
                "{name} is not there after {} s: {}; look: kubectl pointsman status -n {}",
                limit.as_secs(),
                printable(&state),
                cluster.namespace
            )
            .into());
        }
        let until = if told.is_none() {
            deadline.min(started + QUIET)
        } else {
            deadline
        };
        let Ok(next) = timeout_at(until, changes.next()).await else {
            continue;
        };
        match next {
            Some(Ok(Some(binding))) => match progress(&binding, goal) {
                GoalState::Done(end) => {
                    return print(&format!("{}: {end}\n", resource_name(&binding)));
                }
                GoalState::Failed(end) => return Err(format!("{name}: {end}").into()),
                GoalState::Waiting(now) => state = now,
            },
            Some(Ok(None)) => return Err(format!("{name} was deleted").into()),
            Some(Err(error)) => state = format!("it cannot be watched: {error}"),
            None => return Err(format!("{name} cannot be watched any more").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::alias_binding::{HandledRequest, VersionState};
    use crate::api::conditions::{ConditionUpdate, not_ready, transition};
    use crate::api::reason::Problem;
    use crate::testing::{self, With, time, version};

    fn binding(conditions: &[ConditionUpdate], wanted: &str, running: &str) -> AliasBinding {
        testing::binding().with(|binding| {
            binding.status = Some(AliasBindingStatus {
                observed_generation: Some(2),
                wanted: Some(wanted.to_owned()),
                running: Some(VersionState {
                    version: version(running),
                    since: None,
                }),
                conditions: transition(&[], conditions, Some(2), testing::now()),
                ..AliasBindingStatus::default()
            });
        })
    }

    fn ready(reason: Reason) -> Vec<ConditionUpdate> {
        vec![ConditionUpdate::yes(READY, reason, "well")]
    }

    fn problem(reason: Reason) -> Vec<ConditionUpdate> {
        not_ready(&Problem::new(reason, "ill"))
    }

    fn goal(generation: i64, version: Option<&str>) -> Goal {
        Goal {
            generation: Some(generation),
            version: version.map(str::to_owned),
            request: None,
        }
    }

    #[test]
    fn a_wait_ends_when_the_version_runs_and_not_before_the_operator_saw_the_change() {
        let live = binding(&ready(Reason::Live), "4", "4");
        let done = GoalState::Done("version 4 runs (Live)".to_owned());
        assert_eq!(progress(&live, &goal(2, Some("4"))), done);
        assert_eq!(progress(&live, &goal(2, None)), done);
        for unseen in [goal(3, Some("4")), goal(2, Some("5"))] {
            assert!(matches!(progress(&live, &unseen), GoalState::Waiting(_)));
        }
        let rolling = binding(&problem(Reason::RollingOut), "4", "4");
        let waiting = GoalState::Waiting("RollingOut: ill".to_owned());
        assert_eq!(progress(&rolling, &goal(2, Some("4"))), waiting);
        assert!(matches!(
            progress(&testing::binding(), &goal(2, None)),
            GoalState::Waiting(_)
        ));
    }

    #[test]
    fn a_wait_fails_when_a_person_is_needed_for_the_version_that_it_waits_for() {
        let rolled_back = binding(&problem(Reason::RolledBack), "5", "4");
        let failed = GoalState::Failed("RolledBack: ill".to_owned());
        assert_eq!(progress(&rolled_back, &goal(2, Some("5"))), failed);
        let of_before = progress(&rolled_back, &goal(2, Some("6")));
        assert!(matches!(of_before, GoalState::Waiting(_)), "{of_before:?}");
        let held = binding(&ready(Reason::Held), "5", "4");
        assert!(matches!(
            progress(&held, &goal(2, Some("5"))),
            GoalState::Failed(_)
        ));
    }

    #[test]
    fn a_request_is_waited_for_until_it_was_handled() {
        let asked = Goal {
            request: Some((AnnotationRequest::Retry, "now".to_owned())),
            ..goal(2, None)
        };
        let live = binding(&ready(Reason::Live), "4", "4");
        assert!(matches!(progress(&live, &asked), GoalState::Waiting(_)));
        let handled = live.with(|binding| {
            if let Some(status) = &mut binding.status {
                status.last_handled_retry = Some(HandledRequest {
                    value: "now".to_owned(),
                    at: time(testing::NOW),
                });
            }
        });
        assert!(matches!(progress(&handled, &asked), GoalState::Done(_)));
    }

    #[test]
    fn versions_and_durations_are_checked_before_anything_is_sent() {
        assert_eq!(version_number("4"), Ok("4".to_owned()));
        for word in ["", "0", "04", "v4", "-1", "12345678901234567890"] {
            assert!(version_number(word).is_err(), "{word}");
        }
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(duration("soon").is_err());
    }
}
