//! The command that builds the test environment, and starts it for manual use.
//! Absent: the parts themselves; the library has them.

#![allow(clippy::doc_markdown)] // MLflow is the name of a product, not of code.

mod demo;
mod with_mlflow;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use pointsman_env::cache::Cache;
use pointsman_env::gitops::customizations;
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::operator::install_definitions;
use pointsman_env::prerequisites::{self, Prerequisite};
use pointsman_env::progress::Task;
use pointsman_env::python::{self, MlflowVersion};
use pointsman_env::values_table;
use pointsman_env::{ControlPlane, ControlPlaneOptions, Error, Result, Tools};

/// Builds and starts the environment of Pointsman's tests: a real Kubernetes control plane and a real MLflow, on loopback only.
///
/// Everything is built from source by the Go and Python that are installed, once, into the folder named by
/// `POINTSMAN_CACHE` (else `~/.cache/pointsman`). Programs in `KUBEBUILDER_ASSETS` or on `PATH` are used if their versions fit.
/// `POINTSMAN_KUBERNETES_VERSION` (1.30 or 1.36) chooses the version of the control plane; only programs of that minor are used then.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Examples:\n  pointsman-env setup\n  pointsman-env up\n  pointsman-env tool helm -- lint charts/pointsman"
)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Build and install all missing programs.
    Setup,
    /// Start a control plane and MLflow, print how to use them, and stop them at Ctrl-C.
    Up {
        /// The major version of MLflow.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=3))]
        mlflow: u8,
        /// Start the control plane without MLflow.
        #[arg(long)]
        without_mlflow: bool,
    },
    /// Train and register a model, move its alias 1 → 2 → 3 → 1, and print the changes of the Deployment.
    Demo {
        /// The context of an existing cluster, instead of a control plane of its own.
        #[arg(long)]
        context: Option<String>,
    },
    /// Run a command with MLflow 3 and 2, whose addresses are in POINTSMAN_TEST_MLFLOW3 and POINTSMAN_TEST_MLFLOW2.
    WithMlflow {
        /// The command, after --.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Print the table of the chart's values, which is generated from its values.yaml.
    ValuesTable,
    /// Print the fragment of argocd-cm that is generated from the scripts in integrations/argocd.
    ArgocdCm,
    /// Run one of the programs: cargo-deny, kubectl, helm, kwok, etcd, kube-apiserver, kube-controller-manager, kube-scheduler.
    Tool {
        /// The name of the program.
        name: String,
        /// Its arguments, after --.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    pointsman_env::supervise_if_asked();
    let done = match Arguments::parse().command {
        Subcommands::Setup => within_runtime(setup()),
        Subcommands::Up {
            mlflow,
            without_mlflow,
        } => within_runtime(up((!without_mlflow).then(|| version(mlflow)))),
        Subcommands::Demo { context } => within_runtime(demo::demo(context)),
        Subcommands::ValuesTable => values_table::page().map(|text| print!("{text}")),
        Subcommands::ArgocdCm => customizations::fragment().map(|text| print!("{text}")),
        Subcommands::WithMlflow { command } => return with_mlflow_servers(&command),
        Subcommands::Tool { name, arguments } => return tool(&name, &arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

fn within_runtime(future: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Error::new("starting the runtime", error))?;
    runtime.block_on(future)
}

fn version(major: u8) -> MlflowVersion {
    if major == 2 {
        MlflowVersion::Two
    } else {
        MlflowVersion::Three
    }
}

async fn setup() -> Result<()> {
    let cache = Cache::open()?;
    let prerequisites: &[Prerequisite] = if Tools::must_build(&cache)? {
        &[
            Prerequisite::Go,
            Prerequisite::Python,
            Prerequisite::Compiler,
        ]
    } else {
        &[Prerequisite::Python, Prerequisite::Compiler]
    };
    prerequisites::check(prerequisites)?;
    // One after the other: each alone uses all cores.
    tokio::task::block_in_place(|| Tools::locate(&cache))?;
    for version in [MlflowVersion::Three, MlflowVersion::Two] {
        python::environment(version).await?;
    }
    tokio::task::block_in_place(python::cargo_deny)?;
    eprintln!(
        "the test environment is complete in {}",
        cache.root().display()
    );
    Ok(())
}

async fn up(mlflow: Option<MlflowVersion>) -> Result<()> {
    let tools = tokio::task::block_in_place(|| Tools::locate(&Cache::open()?))?;
    let starting = Task::start("starting the control plane", 0);
    let control_plane = ControlPlane::start(&tools, ControlPlaneOptions::default()).await?;
    install_definitions(&control_plane, &tools).await?;
    starting.done();
    let server = match mlflow {
        Some(version) => Some(start_mlflow(version).await?),
        None => None,
    };
    println!("\nThe control plane runs, with Pointsman's kinds installed. In another terminal:\n");
    println!(
        "  export KUBECONFIG={}",
        control_plane.admin_kubeconfig().display()
    );
    println!("  {} get nodes", tools.kubectl.display());
    if let Some(server) = &server {
        println!("  export MLFLOW_TRACKING_URI={}", server.url());
    }
    println!(
        "  cargo run -- run --health-address 127.0.0.1:8080\n\nCtrl-C stops it and removes its data."
    );
    tokio::signal::ctrl_c()
        .await
        .map_err(|error| Error::new("waiting for Ctrl-C", error))
}

async fn start_mlflow(version: MlflowVersion) -> Result<Mlflow> {
    python::environment(version).await?;
    let starting = Task::start("starting MLflow", 0);
    let server = Mlflow::start(version, MlflowOptions::default()).await?;
    starting.done();
    Ok(server)
}

fn with_mlflow_servers(command: &[String]) -> ExitCode {
    let mut code = ExitCode::FAILURE;
    let done = within_runtime(async {
        code = with_mlflow::with_mlflow(command).await?;
        Ok(())
    });
    done.map_or_else(|error| fail(&error), |()| code)
}

fn tool(name: &str, arguments: &[String]) -> ExitCode {
    match path_of(name).and_then(|path| run(&path, arguments)) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

fn path_of(name: &str) -> Result<PathBuf> {
    if name == "cargo-deny" {
        return python::cargo_deny();
    }
    let tools = Tools::locate(&Cache::open()?)?;
    match name {
        "kubectl" => Ok(tools.kubectl),
        "helm" => Ok(tools.helm),
        "kwok" => Ok(tools.kwok),
        "etcd" => Ok(tools.etcd),
        "kube-apiserver" => Ok(tools.kube_apiserver),
        "kube-controller-manager" => Ok(tools.kube_controller_manager),
        "kube-scheduler" => Ok(tools.kube_scheduler),
        _ => Err(
            Error::new(format_args!("looking for {name}"), "there is no such tool")
                .remedy("see pointsman-env tool --help"),
        ),
    }
}

fn run(path: &PathBuf, arguments: &[String]) -> Result<ExitCode> {
    let status = Command::new(path).args(arguments).status();
    let status =
        status.map_err(|error| Error::new(format_args!("starting {}", path.display()), error))?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}
