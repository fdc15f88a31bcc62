//! `kubectl pointsman retry`, `resume`, `reapply` and `refresh`: requests to the operator by annotation.
//!
//! Absent: their effect. The operator acts on a new value of the annotation.

use std::process::ExitCode;

use super::change::{
    AnnotationRequest, BindingArguments, ChangeArguments, Goal, annotation, change, request_value,
};
use super::cluster::{Cluster, ClusterArguments};
use super::{CommandResult, Failure};
use crate::api::{ModelRegistry, RegisteredModel, names};

/// Try the versions that failed again
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  kubectl pointsman retry nyc-taxi --wait")]
pub struct RetryArguments {
    /// Why, for the history if a freeze or a window is overridden: the annotation pointsman.dev/override-reason
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    binding: BindingArguments,
}

/// End the hold that a person's change of the workload began, such as kubectl rollout undo
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  kubectl pointsman resume nyc-taxi --wait")]
pub struct ResumeArguments {
    #[command(flatten)]
    binding: BindingArguments,
}

/// Write the registry's present address and the present location of the files into the workload
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  kubectl pointsman reapply nyc-taxi --wait")]
pub struct ReapplyArguments {
    #[command(flatten)]
    binding: BindingArguments,
}

/// Poll the registry now instead of at the next interval
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  The model of a binding:
    kubectl pointsman refresh nyc-taxi
  A model, with the locations of all its versions, or all models of a registry:
    kubectl pointsman refresh rmodel/nyc-taxi
    kubectl pointsman refresh mreg/mlflow")]
pub struct RefreshArguments {
    /// The object: a binding's name, rmodel/NAME or mreg/NAME
    object: String,
    #[command(flatten)]
    change: ChangeArguments,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs `retry`.
pub async fn retry(arguments: RetryArguments) -> CommandResult {
    let reason = arguments.reason.as_deref();
    send(
        &arguments.binding,
        AnnotationRequest::Retry,
        "asked to retry",
        reason,
    )
    .await
}

/// Runs `resume`.
pub async fn resume(arguments: ResumeArguments) -> CommandResult {
    send(
        &arguments.binding,
        AnnotationRequest::Resume,
        "resumed",
        None,
    )
    .await
}

/// Runs `reapply`.
pub async fn reapply(arguments: ReapplyArguments) -> CommandResult {
    let done = "asked to reapply";
    send(&arguments.binding, AnnotationRequest::Reapply, done, None).await
}

async fn send(
    binding: &BindingArguments,
    request: AnnotationRequest,
    done: &str,
    reason: Option<&str>,
) -> CommandResult {
    let cluster = binding.connect().await?;
    let value = request_value();
    let name = match request {
        AnnotationRequest::Retry => names::RETRY_ANNOTATION,
        AnnotationRequest::Resume => names::RESUME_ANNOTATION,
        AnnotationRequest::Reapply => names::APPLY_ANNOTATION,
    };
    let mut patch = annotation(name, Some(&value));
    if let Some(reason) = reason {
        patch["metadata"]["annotations"][names::OVERRIDE_REASON_ANNOTATION] = reason.into();
    }
    let goal = Goal {
        request: Some((request, value)),
        ..Goal::default()
    };
    binding.change(&cluster, &patch, done, goal).await
}

/// The kinds that can be refreshed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Refreshed {
    Binding,
    Model,
    Registry,
}

impl Refreshed {
    /// The kind and the name in a word such as rmodel/nyc-taxi; a binding if no kind is named.
    fn parse(word: &str) -> Result<(Self, &str), Failure> {
        let Some((kind, name)) = word.split_once('/') else {
            return Ok((Self::Binding, word));
        };
        let kind = kind.split('.').next().unwrap_or_default().to_lowercase();
        let kind =
            match kind.as_str() {
                "abind" | "aliasbinding" | "aliasbindings" => Self::Binding,
                "rmodel" | "registeredmodel" | "registeredmodels" => Self::Model,
                "mreg" | "modelregistry" | "modelregistries" => Self::Registry,
                _ => return Err(format!(
                    "{kind} cannot be refreshed: write abind/{name}, rmodel/{name} or mreg/{name}"
                )
                .into()),
            };
        Ok((kind, name))
    }
}

/// Runs `refresh`.
pub async fn refresh(arguments: RefreshArguments) -> CommandResult {
    let (kind, name) = Refreshed::parse(&arguments.object)?;
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let patch = annotation(names::REQUESTED_AT_ANNOTATION, Some(&request_value()));
    let (done, dry_run) = ("refreshed", arguments.change.dry_run());
    match kind {
        Refreshed::Binding => {
            let (change, goal) = (&arguments.change, Goal::default());
            return change.binding(&cluster, name, &patch, done, goal).await;
        }
        Refreshed::Model => {
            change::<RegisteredModel>(&cluster, name, &patch, done, dry_run).await?;
        }
        Refreshed::Registry => {
            change::<ModelRegistry>(&cluster, name, &patch, done, dry_run).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_to_refresh_is_named_with_or_without_its_kind() {
        for (word, expected) in [
            ("taxi", Refreshed::Binding),
            ("abind/taxi", Refreshed::Binding),
            ("rmodel/taxi", Refreshed::Model),
            ("modelregistry.pointsman.dev/taxi", Refreshed::Registry),
        ] {
            assert_eq!(
                Refreshed::parse(word).unwrap(),
                (expected, "taxi"),
                "{word}"
            );
        }
        let refused = Refreshed::parse("pod/taxi").unwrap_err().to_string();
        assert!(refused.contains("rmodel/taxi"), "{refused}");
    }
}
