//! `kubectl pointsman promote`: plans, asks, and points an alias of MLflow at a version.
//!
//! Absent: a write into a workload. The operator sees the alias move and decides.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use jiff::Timestamp;
use kube::ResourceExt;

use super::change::{
    DryRun, Goal, WaitArguments, annotation, change, request_value, version_number, wait,
};
use super::cluster::{Cluster, ClusterArguments};
use super::found_version::find_model;
use super::output::{OutputArguments, print};
use super::person_registry::PersonRegistry;
use super::plan;
use super::plan::prediction::{point_at, predict};
use super::{CommandResult, Failure};
use crate::api::{AliasBinding, ModelVersion, RegisteredModel, names};

/// Point an alias in MLflow at a version, after a plan for each binding that follows it
///
/// MLflow is reached with your own variables: MLFLOW_TRACKING_URI (default: the address of the ModelRegistry),
/// MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN, MLFLOW_WORKSPACE, MLFLOW_TRACKING_SERVER_CERT_PATH.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  Look at the plans, then answer the question:
    kubectl pointsman promote nyc-taxi 5 --alias champion
  In a pipeline, and until version 5 runs:
    kubectl pointsman promote nyc-taxi 5 --alias champion --yes --wait --timeout 15m")]
pub struct PromoteArguments {
    /// The RegisteredModel, or its name in MLflow
    model: String,
    /// The version's number
    #[arg(value_parser = version_number)]
    version: String,
    /// The alias
    #[arg(long, value_name = "ALIAS")]
    alias: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    wait: WaitArguments,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Without colors, also with NO_COLOR. They are used only on a terminal
    #[arg(long)]
    no_color: bool,
}

/// A move of an alias.
struct Move {
    /// The object that mirrors the model.
    object: String,
    /// The model's name in the registry.
    model: String,
    alias: String,
    version: String,
    /// The version that the alias names now.
    before: Option<String>,
}

/// Runs the command.
pub async fn run(arguments: PromoteArguments) -> CommandResult {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let model = find_model(&cluster, &arguments.model).await?;
    let registry = PersonRegistry::of(&cluster, &model).await?;
    let (planned, details) = look_up(&registry, &model, &arguments).await?;
    refuse_declared(&model, &planned, &cluster.namespace)?;
    let bindings = followers(&cluster, &planned).await?;
    let output = OutputArguments {
        output: None,
        no_color: arguments.no_color,
    };
    let nothing = plan::Manifest::default();
    for binding in &bindings {
        let mut inputs = plan::gather(&cluster, binding.clone(), &nothing).await?;
        let now = Timestamp::now();
        if let Some(model) = &mut inputs.model {
            point_at(model, binding, &planned.version, Some(&details), now);
        }
        let prediction = predict(&inputs, now)?;
        print(&format!("{}\n", plan::text(&prediction, output.paint())))?;
    }
    print(&planned.summary(&registry.address, &cluster.namespace, bindings.len()))?;
    if planned.before.as_ref() != Some(&planned.version) {
        confirm(arguments.yes, &planned)?;
        let set = registry
            .client
            .set_alias(&planned.model, &planned.alias, &planned.version);
        set.await.map_err(|error| registry.explain_alias(&error))?;
        print(&format!(
            "{} set to version {}\n",
            planned.alias, planned.version
        ))?;
        refresh(&cluster, &planned.object).await;
    }
    finish(&cluster, &arguments.wait, &planned, &bindings).await
}

/// The version as MLflow has it, and the version that the alias names now.
async fn look_up(
    registry: &PersonRegistry,
    model: &RegisteredModel,
    arguments: &PromoteArguments,
) -> Result<(Move, ModelVersion), Failure> {
    let name = model.model_name();
    let snapshot = registry.client.model(name).await;
    let snapshot = snapshot.map_err(|error| registry.explain(&error))?;
    let Some(snapshot) = snapshot else {
        return Err(format!(
            "MLflow at {} has no registered model {name}; check MLFLOW_TRACKING_URI",
            registry.address
        )
        .into());
    };
    let version = registry.client.version(name, &arguments.version).await;
    let version = version.map_err(|error| registry.explain(&error))?;
    let Some(version) = version else {
        return Err(format!(
            "MLflow at {} has no version {} of {name}; the newest is {}",
            registry.address,
            arguments.version,
            snapshot.latest_version.as_deref().unwrap_or("none")
        )
        .into());
    };
    let planned = Move {
        object: model.name_any(),
        model: name.to_owned(),
        alias: arguments.alias.clone(),
        version: arguments.version.clone(),
        before: snapshot.aliases.get(&arguments.alias).cloned(),
    };
    Ok((planned, version))
}

/// An alias that an object declares would be moved back.
fn refuse_declared(
    model: &RegisteredModel,
    planned: &Move,
    namespace: &str,
) -> Result<(), Failure> {
    let mut declared = model.spec.aliases.iter();
    match declared.find(|declared| declared.name == planned.alias) {
        Some(declared) if declared.version != planned.version => Err(format!(
            "RegisteredModel {} declares {} at version {} in spec.aliases and would move it back: change it there: kubectl edit rmodel {} -n {namespace}",
            planned.object, planned.alias, declared.version, planned.object
        )
        .into()),
        _ => Ok(()),
    }
}

/// The bindings of the namespace that follow the alias.
async fn followers(cluster: &Cluster, planned: &Move) -> Result<Vec<AliasBinding>, Failure> {
    let mut bindings = cluster.all::<AliasBinding>().await?;
    bindings.retain(|binding| {
        binding.spec.model_ref.name == planned.object
            && binding.spec.alias.as_ref() == Some(&planned.alias)
    });
    Ok(bindings)
}

impl Move {
    fn summary(&self, address: &str, namespace: &str, followers: usize) -> String {
        let before = match &self.before {
            Some(before) if *before == self.version => "already".to_owned(),
            Some(before) => format!("now version {before}"),
            None => "not set yet".to_owned(),
        };
        let followers = match followers {
            0 => format!("no AliasBinding follows it in namespace {namespace}"),
            1 => format!("1 AliasBinding follows it in namespace {namespace}"),
            count => format!("{count} AliasBindings follow it in namespace {namespace}"),
        };
        format!(
            "{} of {} → version {} ({before}) in MLflow at {address}; {followers}\n",
            self.alias, self.model, self.version
        )
    }
}

/// Asks, on a terminal.
fn confirm(is_agreed: bool, planned: &Move) -> Result<(), Failure> {
    if is_agreed {
        return Ok(());
    }
    let mut input = std::io::stdin().lock();
    if !input.is_terminal() {
        return Err(
            "nothing was changed: there is no terminal to ask on; repeat it with --yes".into(),
        );
    }
    eprint!(
        "Set {} to version {}? [y/N] ",
        planned.alias, planned.version
    );
    std::io::stderr().flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err("nothing was changed".into())
    }
}

/// Has the operator look now. Without the right to it the next poll shows the move.
async fn refresh(cluster: &Cluster, model: &str) {
    let patch = annotation(names::REQUESTED_AT_ANNOTATION, Some(&request_value()));
    let refreshed = change::<RegisteredModel>(cluster, model, &patch, "refreshed", DryRun::None);
    if let Err(error) = refreshed.await {
        eprintln!("the operator sees it at its next poll: {error}");
    }
}

async fn finish(
    cluster: &Cluster,
    arguments: &WaitArguments,
    planned: &Move,
    bindings: &[AliasBinding],
) -> CommandResult {
    if !arguments.wait {
        eprintln!(
            "watch: kubectl pointsman status -n {} --watch",
            cluster.namespace
        );
        return Ok(ExitCode::SUCCESS);
    }
    for binding in bindings {
        let goal = Goal {
            // A pin decides whatever the alias says.
            version: binding
                .spec
                .pinned_version
                .is_none()
                .then(|| planned.version.clone()),
            ..Goal::of(binding)
        };
        wait(cluster, &binding.name_any(), &goal, arguments.timeout).await?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::registered_model::DeclaredAlias;
    use crate::testing::{self, With};

    fn planned(before: Option<&str>) -> Move {
        Move {
            object: "taxi".to_owned(),
            model: "nyc-taxi".to_owned(),
            alias: "champion".to_owned(),
            version: "5".to_owned(),
            before: before.map(str::to_owned),
        }
    }

    #[test]
    fn the_question_names_both_versions_and_the_server() {
        let sentence = planned(Some("4")).summary("http://mlflow", "ml", 1);
        assert_eq!(
            sentence,
            "champion of nyc-taxi → version 5 (now version 4) in MLflow at http://mlflow; 1 AliasBinding follows it in namespace ml\n"
        );
        assert!(
            planned(None)
                .summary("http://mlflow", "ml", 0)
                .contains("(not set yet)")
        );
        assert!(
            planned(Some("5"))
                .summary("http://mlflow", "ml", 2)
                .contains("(already)")
        );
    }

    #[test]
    fn an_alias_that_an_object_declares_is_changed_there() {
        let model = |version: &str| {
            let declared = DeclaredAlias {
                name: "champion".to_owned(),
                version: version.to_owned(),
            };
            testing::model(Some("4"), []).with(|model| model.spec.aliases = vec![declared])
        };
        let refused = refuse_declared(&model("4"), &planned(Some("4")), "ml")
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("kubectl edit rmodel taxi -n ml"),
            "{refused}"
        );
        assert!(refuse_declared(&model("5"), &planned(Some("4")), "ml").is_ok());
    }
}
