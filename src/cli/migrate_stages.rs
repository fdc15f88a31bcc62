//! `kubectl pointsman migrate-stages`: aliases in the place of MLflow's stages.
//!
//! Absent: changes of stages, of aliases that exist, and of bindings. The commands for bindings are printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::ExitCode;

use kube::ResourceExt;
use serde::Serialize;

use super::cluster::{Cluster, ClusterArguments, name_in};
use super::output::{OutputArguments, Paint, Tone};
use super::person_registry::{PersonRegistry, find_model};
use super::table::{Cell, Table};
use super::{CommandResult, Failure};
use crate::api::{AliasBinding, RegisteredModel};
use crate::registries::ModelSnapshot;

/// The stages of MLflow with the aliases that stand for them, unless --map names others.
const USUAL: [(&str, &str); 3] = [
    ("Staging", "staging"),
    ("Production", "production"),
    ("Archived", "archived"),
];

/// Show the aliases that stand for the stages of models, and with --apply set those that are missing
///
/// The newest version in a stage gets the alias staging, production or archived. An alias that exists is never moved, so a second
/// run changes nothing. MLflow is reached with your own variables, as by promote.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  Look at all models of a namespace, and at the bindings that follow a stage:
    kubectl pointsman migrate-stages -n ml
  Set the missing aliases of one model, with champion for Production:
    kubectl pointsman migrate-stages nyc-taxi --map Production=champion --apply")]
pub struct MigrateStagesArguments {
    /// The RegisteredModels, or their names in MLflow. Default: all of the namespace
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    /// Set the missing aliases in MLflow
    #[arg(long)]
    apply: bool,
    /// Another alias for a stage, such as Production=champion; repeat it for several
    #[arg(long = "map", value_name = "STAGE=ALIAS", value_parser = mapping)]
    mappings: Vec<(String, String)>,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    output: OutputArguments,
}

fn mapping(word: &str) -> Result<(String, String), String> {
    let (stage, alias) = word
        .split_once('=')
        .ok_or("write it as Production=champion")?;
    let stage = USUAL
        .iter()
        .find(|(usual, _)| usual.eq_ignore_ascii_case(stage));
    let (stage, _) = stage.ok_or("the stages are Staging, Production and Archived")?;
    let lower = alias.to_lowercase();
    let is_version = lower
        .strip_prefix('v')
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    if alias.is_empty() || lower == "latest" || is_version || !alias.chars().all(is_name) {
        return Err(
            "an alias holds letters, digits, _ and -, and is not latest or v<number>".to_owned(),
        );
    }
    Ok(((*stage).to_owned(), alias.to_owned()))
}

/// The alias of each stage.
#[derive(Clone, Debug)]
struct Aliases(BTreeMap<String, String>);

impl Aliases {
    fn new(mappings: &[(String, String)]) -> Result<Self, Failure> {
        let usual = USUAL.map(|(stage, alias)| (stage.to_owned(), alias.to_owned()));
        let mut aliases = BTreeMap::from(usual);
        aliases.extend(mappings.iter().cloned());
        let different: BTreeSet<&String> = aliases.values().collect();
        if different.len() < aliases.len() {
            return Err("each stage needs an alias of its own: see --map".into());
        }
        Ok(Self(aliases))
    }

    fn of(&self, stage: &str) -> Option<&str> {
        let mut stages = self.0.iter();
        let found = stages.find(|(known, _)| known.eq_ignore_ascii_case(stage));
        found.map(|(_, alias)| alias.as_str())
    }
}

/// What is with the alias of a stage.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
enum State {
    /// It is not set, and --apply sets it.
    Missing,
    /// It was set just now.
    Written,
    /// It names the version already.
    Set,
    /// It names another version, which is kept.
    Kept,
}

/// A stage of a model, and its alias.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
struct StageRow {
    model: String,
    stage: String,
    /// The newest version in the stage.
    version: String,
    alias: String,
    state: State,
    /// The version that the alias names already.
    #[serde(skip_serializing_if = "Option::is_none")]
    names: Option<String>,
}

/// A binding that follows a stage, and the command that has it follow the alias.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
struct BindingChange {
    binding: String,
    stage: String,
    alias: String,
    command: String,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Migration {
    stages: Vec<StageRow>,
    bindings: Vec<BindingChange>,
}

/// Runs the command.
pub async fn run(arguments: MigrateStagesArguments) -> CommandResult {
    let aliases = Aliases::new(&arguments.mappings)?;
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let models = cluster.all::<RegisteredModel>().await?;
    let models = chosen(models, &arguments.models, &cluster.namespace)?;
    let bindings = cluster.all::<AliasBinding>().await?;
    let mut stages = Vec::new();
    for models in by_registry(&models).values() {
        stages.extend(of_registry(&cluster, models, &aliases, arguments.apply).await?);
    }
    let objects: BTreeSet<String> = models.iter().map(ResourceExt::name_any).collect();
    let bindings = bindings
        .iter()
        .filter(|binding| objects.contains(&binding.spec.model_ref.name));
    let migration = Migration {
        stages,
        bindings: bindings
            .filter_map(|binding| binding_change(binding, &aliases))
            .collect(),
    };
    let names = migration.bindings.iter();
    let names = names.map(|change| format!("aliasbinding.pointsman.dev/{}", change.binding));
    arguments
        .output
        .print(&migration, names, |paint| migration.text(paint))?;
    Ok(ExitCode::SUCCESS)
}

/// The models of these names; all if no name is given.
fn chosen(
    models: Vec<RegisteredModel>,
    names: &[String],
    namespace: &str,
) -> Result<Vec<RegisteredModel>, Failure> {
    if names.is_empty() {
        return Ok(models);
    }
    let find = |name: &String| find_model(&models, name_in(name), namespace).cloned();
    names.iter().map(find).collect()
}

/// The models by their registries.
fn by_registry(models: &[RegisteredModel]) -> BTreeMap<(String, String), Vec<&RegisteredModel>> {
    let mut grouped: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for model in models {
        let registry = (
            model.registry_namespace(),
            model.spec.registry_ref.name.clone(),
        );
        grouped.entry(registry).or_default().push(model);
    }
    grouped
}

/// The stages of the models of one registry, whose missing aliases are set if that is asked for.
async fn of_registry(
    cluster: &Cluster,
    models: &[&RegisteredModel],
    aliases: &Aliases,
    applies: bool,
) -> Result<Vec<StageRow>, Failure> {
    let Some(first) = models.first() else {
        return Ok(Vec::new());
    };
    let registry = PersonRegistry::of(cluster, first).await?;
    let names: BTreeSet<String> = models
        .iter()
        .map(|model| model.model_name().to_owned())
        .collect();
    let snapshots = registry.client.snapshots(&names).await;
    let snapshots = snapshots.map_err(|error| registry.explain(&error))?;
    let mut all = Vec::new();
    for name in &names {
        let Some(snapshot) = snapshots.get(name) else {
            eprintln!(
                "MLflow at {} shows no registered model {name}",
                registry.address
            );
            continue;
        };
        for mut row in rows(snapshot, aliases) {
            if applies && row.state == State::Missing {
                let set = registry.client.set_alias(name, &row.alias, &row.version);
                set.await.map_err(|error| registry.explain_alias(&error))?;
                row.state = State::Written;
            }
            all.push(row);
        }
    }
    Ok(all)
}

/// The stages of a model that hold a version, each with the state of its alias.
fn rows(snapshot: &ModelSnapshot, aliases: &Aliases) -> Vec<StageRow> {
    let row = |(stage, version): (&String, &String)| {
        let alias = aliases.of(stage)?;
        let present = snapshot.aliases.get(alias);
        let state = match present {
            None => State::Missing,
            Some(present) if present == version => State::Set,
            Some(_) => State::Kept,
        };
        Some(StageRow {
            model: snapshot.name.clone(),
            stage: stage.clone(),
            version: version.clone(),
            alias: alias.to_owned(),
            names: present.filter(|_| state == State::Kept).cloned(),
            state,
        })
    };
    snapshot.stages.iter().filter_map(row).collect()
}

fn binding_change(binding: &AliasBinding, aliases: &Aliases) -> Option<BindingChange> {
    let stage = binding.spec.stage.as_ref()?;
    let alias = aliases.of(stage)?;
    let (name, namespace) = (binding.name_any(), binding.namespace().unwrap_or_default());
    Some(BindingChange {
        command: format!(
            "kubectl patch abind {name} -n {namespace} --type merge -p '{{\"spec\":{{\"stage\":null,\"alias\":\"{alias}\"}}}}'"
        ),
        binding: name,
        stage: stage.clone(),
        alias: alias.to_owned(),
    })
}

impl Migration {
    fn text(&self, paint: Paint) -> String {
        let mut text = if self.stages.is_empty() {
            "No version of these models is in a stage.\n".to_owned()
        } else {
            self.table().render(paint)
        };
        let missing = self
            .stages
            .iter()
            .filter(|row| row.state == State::Missing)
            .count();
        if missing > 0 {
            _ = writeln!(
                text,
                "
{missing} missing: nothing was written; repeat it with --apply to set them"
            );
        }
        if !self.bindings.is_empty() {
            text.push_str("\nThese bindings follow a stage. Their pods are replaced once, because MODEL_ALIAS changes:\n");
            for change in &self.bindings {
                _ = writeln!(text, "  {}", change.command);
            }
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new(["MODEL", "STAGE", "VERSION", "ALIAS", "STATE"]);
        for row in &self.stages {
            let (words, tone) = match (row.state, &row.names) {
                (State::Missing, _) => ("missing".to_owned(), Tone::Warning),
                (State::Written, _) => ("set now".to_owned(), Tone::Good),
                (State::Kept, Some(names)) => (format!("kept at version {names}"), Tone::Warning),
                (State::Set | State::Kept, _) => ("set".to_owned(), Tone::Plain),
            };
            table.row([
                row.model.as_str().into(),
                row.stage.as_str().into(),
                row.version.as_str().into(),
                row.alias.as_str().into(),
                Cell::toned(words, tone),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, With};

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn states(aliases: &[(&str, &str)], mappings: &[(String, String)]) -> Vec<(String, State)> {
        let snapshot = ModelSnapshot {
            name: "nyc-taxi".to_owned(),
            stages: map(&[("Staging", "6"), ("Production", "5"), ("Archived", "3")]),
            aliases: map(aliases),
            ..ModelSnapshot::default()
        };
        let rows = rows(&snapshot, &Aliases::new(mappings).unwrap());
        rows.into_iter().map(|row| (row.alias, row.state)).collect()
    }

    #[test]
    fn each_stage_has_an_alias_and_one_that_exists_is_never_moved() {
        let expected = [
            ("archived", State::Missing),
            ("production", State::Kept),
            ("staging", State::Set),
        ];
        let found = states(&[("production", "4"), ("staging", "6")], &[]);
        assert_eq!(
            found,
            expected.map(|(alias, state)| (alias.to_owned(), state))
        );
    }

    #[test]
    fn a_second_run_has_nothing_to_write() {
        let set = [("archived", "3"), ("production", "5"), ("staging", "6")];
        assert!(
            states(&set, &[])
                .iter()
                .all(|(_, state)| *state == State::Set)
        );
    }

    #[test]
    fn another_alias_may_stand_for_a_stage() {
        let champion = mapping("production=champion").unwrap();
        assert_eq!(champion, ("Production".to_owned(), "champion".to_owned()));
        assert!(
            states(&[], std::slice::from_ref(&champion))
                .contains(&("champion".to_owned(), State::Missing))
        );
        for wrong in [
            "Production",
            "Blue=a",
            "Staging=",
            "Staging=latest",
            "Staging=v3",
            "Staging=a.b",
        ] {
            assert!(mapping(wrong).is_err(), "{wrong}");
        }
        let twice = [("Staging".to_owned(), "production".to_owned())];
        assert!(Aliases::new(&twice).is_err(), "two stages share an alias");
    }

    #[test]
    fn a_binding_of_a_stage_gets_a_command_that_works_when_copied() {
        let staged = testing::binding().with(|binding| {
            binding.spec.alias = None;
            binding.spec.stage = Some("production".to_owned());
        });
        let aliases = Aliases::new(&[]).unwrap();
        let change = binding_change(&staged, &aliases).unwrap();
        assert_eq!(
            change.command,
            r#"kubectl patch abind taxi -n ml --type merge -p '{"spec":{"stage":null,"alias":"production"}}'"#
        );
        assert_eq!(binding_change(&testing::binding(), &aliases), None);
    }
}
