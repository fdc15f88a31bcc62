//! How a command prints: its formats, its colors, and the standard output.
//!
//! Absent: the answers. Each command has its own.

use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::ValueEnum;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::Failure;
use crate::api::GROUP;

/// The forms of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// More columns
    Wide,
    /// Names only
    Name,
}

/// The flags that choose the form of an answer.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArguments {
    /// The form of the answer. Default: a table
    #[arg(
        short,
        long,
        value_enum,
        value_name = "json|yaml|wide|name",
        hide_possible_values = true
    )]
    pub output: Option<Format>,
    /// Without colors, also with NO_COLOR. They are used only on a terminal
    #[arg(long)]
    pub no_color: bool,
}

impl OutputArguments {
    /// Whether colors are used.
    pub fn paint(&self) -> Paint {
        let refuses = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Paint(!self.no_color && !refuses && !is_dumb && io::stdout().is_terminal())
    }

    /// Whether more columns are asked for.
    pub fn is_wide(&self) -> bool {
        self.output == Some(Format::Wide)
    }

    /// Prints an answer in the chosen form: as JSON or YAML, as its names, or as the text that `table` makes.
    pub fn print(
        &self,
        answer: &impl Serialize,
        names: impl IntoIterator<Item = String>,
        table: impl FnOnce(Paint) -> String,
    ) -> Result<(), Failure> {
        let text = match self.output {
            Some(Format::Json) => format!("{}\n", serde_json::to_string_pretty(answer)?),
            Some(Format::Yaml) => serde_saphyr::to_string(answer)?,
            Some(Format::Name) => names.into_iter().map(|name| name + "\n").collect(),
            Some(Format::Wide) | None => table(self.paint()),
        };
        print(&text)
    }
}

/// An object of ours as kubectl prints and takes it, such as aliasbinding.pointsman.dev/nyc-taxi.
pub fn resource_name<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let kind = K::kind(&()).to_lowercase();
    format!("{kind}.{GROUP}/{}", object.name_any())
}

/// Objects as `kubectl get` prints several, without managedFields.
pub fn list_of(mut items: Vec<Value>) -> Value {
    items.iter_mut().for_each(without_managed_fields);
    json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})
}

/// Removes what only the API server needs.
pub fn without_managed_fields(object: &mut Value) {
    if let Some(metadata) = object
        .pointer_mut("/metadata")
        .and_then(Value::as_object_mut)
    {
        metadata.remove("managedFields");
    }
}

/// Writes to the standard output. A reader that has seen enough, such as `head`, is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => Ok(outcome?),
    }
}

/// The meaning of a color.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Tone {
    /// The terminal's own color.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// In progress, or to be looked at.
    Warning,
    /// A person is needed, or it is worse.
    Bad,
    /// Of less importance.
    Faint,
}

/// Whether colors are used.
#[derive(Clone, Copy, Debug)]
pub struct Paint(bool);

impl Paint {
    /// Without colors.
    #[cfg(test)]
    pub const fn never() -> Self {
        Self(false)
    }

    /// With colors.
    #[cfg(test)]
    pub const fn always() -> Self {
        Self(true)
    }

    /// The text in the color of its tone.
    pub fn paint(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Good => 32,
            Tone::Warning => 33,
            Tone::Bad => 31,
            Tone::Faint => 2,
            Tone::Plain => return text.to_owned(),
        };
        if self.0 {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}
