//! Runs a command with MLflow servers of both versions and an S3 server, whose addresses are in the command's environment,
//! together with the paths of the servers for GCS and Azure, which the command starts and stops itself.
//! Absent: the tests; the command runs them.

use std::ffi::OsString;
use std::process::ExitCode;

use pointsman_env::bucket::{self, BucketServer};
use pointsman_env::cache::Cache;
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::python::{self, MlflowVersion};
use pointsman_env::{Error, Result, azurite, tools};

/// Starts MLflow 3, MLflow 2, an MLflow 3 with passwords and an S3 server, runs the command, and stops them.
pub async fn with_mlflow(command: &[String]) -> Result<ExitCode> {
    let three = Mlflow::start(MlflowVersion::Three, MlflowOptions::default()).await?;
    let two = Mlflow::start(MlflowVersion::Two, MlflowOptions::default()).await?;
    let account = Some(("user".to_owned(), "a-long-passw0rd-of-the-test".to_owned()));
    let guarded = MlflowOptions {
        basic_auth: account,
        ..MlflowOptions::default()
    };
    let guarded = Mlflow::start(MlflowVersion::Three, guarded).await?;
    let buckets = BucketServer::start().await?;
    let gcs = tokio::task::block_in_place(|| tools::fake_gcs_server(&Cache::open()?))?;
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| Error::new("running a command", "none was given"))?;
    let status = tokio::process::Command::new(program)
        .args(arguments)
        // MLflow's client sets and removes a variable in a thread of telemetry while requests read all of them (KeyError).
        .env("MLFLOW_DISABLE_TELEMETRY", "true")
        .env("POINTSMAN_TEST_MLFLOW3", three.url())
        .env("POINTSMAN_TEST_MLFLOW2", two.url())
        .env("POINTSMAN_TEST_MLFLOW_AUTH", guarded.url())
        .env("POINTSMAN_TEST_MLFLOW3_ARTIFACTS", three.artifacts())
        .env("POINTSMAN_TEST_S3", buckets.url())
        .env("POINTSMAN_TEST_S3_BUCKETS", buckets.data())
        .env("POINTSMAN_TEST_S3_KEY_ID", bucket::ACCOUNT.0)
        .env("POINTSMAN_TEST_S3_SECRET", bucket::ACCOUNT.1)
        .env("POINTSMAN_TEST_GCS_SERVER", gcs)
        .envs([azure()?])
        .env(
            "POINTSMAN_TEST_PYTHON3",
            python::environment(MlflowVersion::Three).await?,
        )
        .env(
            "POINTSMAN_TEST_PYTHON2",
            python::environment(MlflowVersion::Two).await?,
        )
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| Error::new(format_args!("running {program}"), error))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The path of Azurite, or the reason why it cannot run.
fn azure() -> Result<(&'static str, OsString)> {
    if let Some(why) = azurite::missing() {
        eprintln!("the tests of Azure's store are skipped: {why}");
        return Ok(("POINTSMAN_TEST_AZURITE_MISSING", why.into()));
    }
    let program = tokio::task::block_in_place(|| azurite::program(&Cache::open()?))?;
    Ok(("POINTSMAN_TEST_AZURITE", program.into()))
}
