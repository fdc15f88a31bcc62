//! The chart, rendered by the real helm.
//! Absent: changes to the rendered objects; tests run under exactly these rights, arguments and variables.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::process::Command;

use crate::error::{Context, Error, Result};
use crate::manifests::{self, text};
use crate::tools::Tools;

/// The rendered objects of the chart.
#[derive(Debug, Clone)]
pub struct RenderedChart {
    /// All objects, in helm's order.
    pub objects: Vec<Value>,
}

/// The chart's folder.
#[must_use]
pub fn chart_folder() -> PathBuf {
    crate::crate_folder().join("../../charts/pointsman")
}

impl RenderedChart {
    /// Runs `helm template` with these values, without hooks: `helm install` runs none.
    pub async fn render(
        tools: &Tools,
        release: &str,
        namespace: &str,
        values: &Value,
    ) -> Result<Self> {
        Self::render_from(&chart_folder(), tools, release, namespace, values).await
    }

    /// The same with the chart in this folder.
    pub async fn render_from(
        chart: &Path,
        tools: &Tools,
        release: &str,
        namespace: &str,
        values: &Value,
    ) -> Result<Self> {
        let arguments = [release, "--no-hooks", "--namespace", namespace];
        Self::template(chart, tools, &arguments, values).await
    }

    /// The hooks that `helm uninstall` runs.
    pub async fn uninstall_hooks(
        tools: &Tools,
        release: &str,
        namespace: &str,
        values: &Value,
    ) -> Result<Self> {
        let arguments = [release, "--namespace", namespace];
        let mut chart = Self::template(&chart_folder(), tools, &arguments, values).await?;
        let is_hook =
            |object: &Value| object["metadata"]["annotations"]["helm.sh/hook"] == "post-delete";
        chart.objects.retain(is_hook);
        Ok(chart)
    }

    /// The same with further flags of helm, such as the version of the cluster.
    pub async fn render_with(tools: &Tools, flags: &[&str], values: &Value) -> Result<Self> {
        let arguments = [&["release"], flags].concat();
        Self::template(&chart_folder(), tools, &arguments, values).await
    }

    async fn template(
        chart: &Path,
        tools: &Tools,
        arguments: &[&str],
        values: &Value,
    ) -> Result<Self> {
        let arguments = [&["template"], arguments].concat();
        let rendered = helm(chart, tools, &arguments, values).await?;
        Ok(Self {
            objects: manifests::parse(&rendered)?,
        })
    }

    /// Runs `helm lint --strict` with these values.
    pub async fn lint(tools: &Tools, values: &Value) -> Result<()> {
        let arguments = ["lint", "--strict"];
        helm(&chart_folder(), tools, &arguments, values)
            .await
            .map(|_| ())
    }

    /// The objects of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects
            .iter()
            .filter(move |object| text(object, "/kind") == kind)
    }

    /// The only object of a kind.
    pub fn the_only<'a>(&'a self, kind: &'a str) -> Result<&'a Value> {
        let mut found = self.of_kind(kind);
        match (found.next(), found.next()) {
            (Some(object), None) => Ok(object),
            (first, _) => Err(Error::new(
                format_args!("looking for the {kind} in the rendered chart"),
                if first.is_some() {
                    "there are several"
                } else {
                    "there is none"
                },
            )),
        }
    }
}

/// Runs helm on a chart with these values, and returns its output.
async fn helm(chart: &Path, tools: &Tools, arguments: &[&str], values: &Value) -> Result<String> {
    let doing = format!("helm {}", arguments.join(" "));
    let folder = crate::process::RunFolder::create("helm")?;
    let values_file = folder.path().join("values.yaml");
    std::fs::write(&values_file, values.to_string()).context("writing the values for helm")?;
    let output = Command::new(&tools.helm)
        .args(arguments)
        .arg(chart)
        .arg("--values")
        .arg(&values_file)
        .env("HELM_CACHE_HOME", folder.path().join("cache"))
        .env("HELM_CONFIG_HOME", folder.path().join("config"))
        .env("HELM_DATA_HOME", folder.path().join("data"))
        .output()
        .await
        .context(&doing)?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if !output.status.success() {
        return Err(Error::new(doing, format_args!("{stderr}{stdout}")));
    }
    Ok(stdout.into_owned())
}
