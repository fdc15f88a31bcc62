//! Calls of MLflow's own Python client, as users make them, by one long-lived Python process per MLflow version.
//! Absent: REST calls without the client, and state: every call names its server.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, oneshot};

use crate::error::{Context, Error, Result};
use crate::process::{Child, Program, RunFolder};
use crate::python::{self, MlflowVersion};

/// The time limit of one command; filling a server with thousands of models takes longest.
const COMMAND_LIMIT: Duration = Duration::from_secs(600);

static THREE: OnceCell<Registrar> = OnceCell::const_new();
static TWO: OnceCell<Registrar> = OnceCell::const_new();

/// The error of a call of MLflow's client.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// MLflow refused, with this message.
    #[error(
        "MLflow's client refused {operation}: {message}; see that the test asks for something MLflow allows"
    )]
    Refused {
        /// The call.
        operation: String,
        /// MLflow's text.
        message: String,
        /// MLflow's error code, such as `RESOURCE_DOES_NOT_EXIST`, if it gave one.
        code: Option<String>,
    },
    /// The Python process has ended, does not respond, or its response cannot be parsed.
    #[error(
        "the Python process that runs MLflow's client failed at {operation}: {cause}; its log: {log}"
    )]
    Broken {
        /// The call.
        operation: String,
        /// The cause.
        cause: String,
        /// The file of its output.
        log: String,
    },
}

/// The two ways to register the model of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `mlflow.register_model("runs:/<run>/model", name)`.
    RegisterModel,
    /// `client.create_registered_model(…)`, then `client.create_model_version(name, source="runs:/<run>/model", …)`.
    CreateModelVersion,
}

/// A version that was trained and registered.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct TrainedVersion {
    /// Its number.
    pub version: String,
    /// The run that trained it.
    pub run_id: String,
    /// The source in the registry.
    pub source: String,
}

/// The Python process; it ends with this process.
#[derive(Clone, Debug)]
pub struct Registrar {
    commands: mpsc::Sender<Command>,
    log: String,
}

#[derive(Debug)]
struct Command {
    line: String,
    answer: oneshot::Sender<Result<Answer, String>>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    id: Option<u64>,
    #[serde(default)]
    result: Value,
    error: Option<String>,
    code: Option<String>,
}

/// The handles that a thread needs to use the Python process; kept together so that they end together.
struct Process {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    next_id: u64,
    child: Child,
    _folder: RunFolder,
}

/// The registrar for one server, with optional credentials and workspace.
#[derive(Clone, Debug)]
pub struct Client {
    registrar: Registrar,
    target: BTreeMap<&'static str, String>,
}

impl Registrar {
    /// The process for this version, shared by all tests of this process and started at the first call.
    ///
    /// # Errors
    /// When MLflow cannot be installed or imported.
    pub async fn shared(version: MlflowVersion) -> Result<Self> {
        let cell = match version {
            MlflowVersion::Three => &THREE,
            MlflowVersion::Two => &TWO,
        };
        cell.get_or_try_init(|| Self::start(version)).await.cloned()
    }

    /// A client of the server at this URL, which may be an interceptor's.
    #[must_use]
    pub fn at(&self, url: &str) -> Client {
        Client {
            registrar: self.clone(),
            target: BTreeMap::from([("tracking_uri", url.to_owned())]),
        }
    }

    async fn start(version: MlflowVersion) -> Result<Self> {
        let python = python::environment(version).await?;
        let starting = tokio::task::spawn_blocking(move || Process::start(&python));
        let (process, log) = starting.await.context("starting MLflow's client")??;
        let (commands, queue) = mpsc::channel();
        // A thread, and not a task: the process outlives the runtimes of the tests that share it.
        std::thread::spawn(move || process.serve(&queue));
        Ok(Self { commands, log })
    }
}

impl Process {
    fn start(python: &Path) -> Result<(Self, String)> {
        let folder = RunFolder::create("registrar")?;
        let script = folder.path().join("registrar.py");
        std::fs::write(&script, include_str!("../python/registrar.py"))
            .context("writing the registrar's script")?;
        let mut child = program(python, &script).start(folder.path())?;
        let log = child.log().display().to_string();
        let (input, output) = child
            .pipes()
            .expect("the program is started to be spoken to");
        let mut process = Self {
            input,
            output: BufReader::new(output),
            next_id: 1,
            child,
            _folder: folder,
        };
        let first = process.read_line().map_err(|cause| {
            Error::new(
                "importing MLflow",
                format!("{cause}\n{}", process.child.tail(20)),
            )
            .remedy("remove the mlflow folders of the cache, so that they are built anew")
        })?;
        let ready: Value =
            serde_json::from_str(&first).context("reading the registrar's first line")?;
        assert!(
            ready.get("ready").is_some(),
            "the registrar begins with its version, not with {first}"
        );
        Ok((process, log))
    }

    fn serve(mut self, queue: &mpsc::Receiver<Command>) {
        for command in queue {
            let answer = self.ask(&command.line);
            // The caller may have given up; the response must be read nevertheless.
            let _given_up = command.answer.send(answer);
        }
    }

    fn ask(&mut self, line: &str) -> Result<Answer, String> {
        let id = self.next_id;
        self.next_id += 1;
        // Every line is an object without its id.
        let numbered = format!("{{\"id\": {id}, {}\n", line.trim_start_matches('{'));
        self.input
            .write_all(numbered.as_bytes())
            .map_err(|error| error.to_string())?;
        let answer: Answer =
            serde_json::from_str(&self.read_line()?).map_err(|error| error.to_string())?;
        if answer.id == Some(id) {
            Ok(answer)
        } else {
            Err(format!("an answer to {:?} in place of {id}", answer.id))
        }
    }

    fn read_line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err("it ended".to_owned()),
            Ok(_) => Ok(line),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn with(mut command: Value, database: &Path, prefix: &str) -> Value {
    command["database"] = json!(database);
    command["prefix"] = json!(prefix);
    command
}

fn program(python: &Path, script: &Path) -> Program {
    Program::new("registrar", python)
        .in_its_folder()
        .args(["-u".as_ref(), script.as_os_str()])
        .env("MLFLOW_DISABLE_TELEMETRY", "true")
        .env("PYTHONNOUSERSITE", "1")
        .env("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        // Many tests stop a server: fail soon instead of trying for minutes.
        .env("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        .env("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        // The server is on loopback, so proxies are bypassed.
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("no_proxy", "127.0.0.1,localhost")
        .with_pipes()
}

impl Client {
    /// With these credentials.
    #[must_use]
    pub fn with_basic_auth(mut self, username: &str, password: &str) -> Self {
        self.target.extend([
            ("username", username.to_owned()),
            ("password", password.to_owned()),
        ]);
        self
    }

    /// In this workspace (MLflow 3, on a server with workspaces).
    #[must_use]
    pub fn in_workspace(mut self, workspace: &str) -> Self {
        self.target.insert("workspace", workspace.to_owned());
        self
    }

    /// Trains a small model, logs it, and registers it as the next version.
    pub async fn train_and_register(
        &self,
        model: &str,
        how: How,
        alpha: f64,
    ) -> Result<TrainedVersion, ClientError> {
        let how = match how {
            How::RegisterModel => "register_model",
            How::CreateModelVersion => "create_model_version",
        };
        self.ask(
            "train_and_register",
            json!({"model": model, "how": how, "alpha": alpha}),
        )
        .await
    }

    /// Creates a model without versions.
    pub async fn create_registered_model(&self, model: &str) -> Result<(), ClientError> {
        self.ask("create_registered_model", json!({"model": model}))
            .await
    }

    /// Creates a version with artifacts at any URI; returns its number.
    pub async fn create_model_version(
        &self,
        model: &str,
        source: &str,
    ) -> Result<String, ClientError> {
        self.ask(
            "create_model_version",
            json!({"model": model, "source": source}),
        )
        .await
    }

    /// Creates a version with the source and run of another one; returns its number.
    pub async fn copy_version(
        &self,
        model: &str,
        of: &TrainedVersion,
    ) -> Result<String, ClientError> {
        let version = json!({"model": model, "source": of.source, "run_id": of.run_id});
        self.ask("create_model_version", version).await
    }

    /// Points the alias at the version.
    pub async fn set_alias(
        &self,
        model: &str,
        alias: &str,
        version: &str,
    ) -> Result<(), ClientError> {
        self.ask(
            "set_alias",
            json!({"model": model, "alias": alias, "version": version}),
        )
        .await
    }

    /// Deletes the alias.
    pub async fn delete_alias(&self, model: &str, alias: &str) -> Result<(), ClientError> {
        self.ask("delete_alias", json!({"model": model, "alias": alias}))
            .await
    }

    /// Deletes a version, and with it its aliases.
    pub async fn delete_version(&self, model: &str, version: &str) -> Result<(), ClientError> {
        self.ask(
            "delete_version",
            json!({"model": model, "version": version}),
        )
        .await
    }

    /// Deletes a model with all its versions.
    pub async fn delete_model(&self, model: &str) -> Result<(), ClientError> {
        self.ask("delete_model", json!({"model": model})).await
    }

    /// Gives a model another name; its aliases follow.
    pub async fn rename_model(&self, model: &str, new_name: &str) -> Result<(), ClientError> {
        self.ask(
            "rename_model",
            json!({"model": model, "new_name": new_name}),
        )
        .await
    }

    /// Moves a version to one of the old stages.
    pub async fn transition_stage(
        &self,
        model: &str,
        version: &str,
        stage: &str,
    ) -> Result<(), ClientError> {
        self.ask(
            "transition_stage",
            json!({"model": model, "version": version, "stage": stage}),
        )
        .await
    }

    /// Sets a tag of the version, or of the model when no version is named.
    pub async fn set_tag(
        &self,
        model: &str,
        version: Option<&str>,
        key: &str,
        value: &str,
    ) -> Result<(), ClientError> {
        self.ask(
            "set_tag",
            json!({"model": model, "version": version, "key": key, "value": value}),
        )
        .await
    }

    /// The model as the client shows it: `name`, `aliases` (alias to version), `tags`, `description`, `latest_versions`.
    pub async fn get_model(&self, model: &str) -> Result<Value, ClientError> {
        self.ask("get_model", json!({"model": model})).await
    }

    /// The tags of a version.
    pub async fn version_tags(&self, model: &str, version: &str) -> Result<Value, ClientError> {
        self.ask("version_tags", json!({"model": model, "version": version}))
            .await
    }

    /// Creates `<prefix>-00000` and so on through the server, each with two versions and `champion` on the first: about a dozen a second.
    pub async fn bulk_create(&self, prefix: &str, count: usize) -> Result<(), ClientError> {
        self.ask("bulk_create", json!({"prefix": prefix, "count": count}))
            .await
    }

    /// The same by writing to the database of [`crate::mlflow::Mlflow::database`], for thousands of models.
    pub async fn seed(
        &self,
        database: &Path,
        prefix: &str,
        count: usize,
    ) -> Result<(), ClientError> {
        self.seed_versions(database, prefix, 0..count, 2).await
    }

    /// The same with other numbers, and with so many versions each.
    pub async fn seed_versions(
        &self,
        database: &Path,
        prefix: &str,
        numbers: Range<usize>,
        versions: usize,
    ) -> Result<(), ClientError> {
        let numbers = json!({"from": numbers.start, "count": numbers.len(), "versions": versions});
        self.ask("seed", with(numbers, database, prefix)).await
    }

    /// The same with this source for each version, in which `{name}` and `{version}` are replaced.
    pub async fn seed_versions_from(
        &self,
        database: &Path,
        prefix: &str,
        numbers: Range<usize>,
        versions: usize,
        source: &str,
    ) -> Result<(), ClientError> {
        let seed = json!({"from": numbers.start, "count": numbers.len(), "versions": versions, "source": source});
        self.ask("seed", with(seed, database, prefix)).await
    }

    /// Points `champion` of all these models at a version in one transaction of the database, between two requests to the server.
    pub async fn move_champions(
        &self,
        database: &Path,
        prefix: &str,
        numbers: Range<usize>,
        version: usize,
    ) -> Result<(), ClientError> {
        let numbers = json!({"from": numbers.start, "count": numbers.len(), "version": version});
        self.ask("move_champions", with(numbers, database, prefix))
            .await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        operation: &str,
        mut command: Value,
    ) -> Result<T, ClientError> {
        command["op"] = operation.into();
        for (key, value) in &self.target {
            command[*key] = value.as_str().into();
        }
        let broken = |cause: String| self.broken(operation, cause);
        let (answer, answered) = oneshot::channel();
        let command = Command {
            line: command.to_string(),
            answer,
        };
        self.registrar
            .commands
            .send(command)
            .map_err(|_| broken("its thread ended".into()))?;
        let answer = tokio::time::timeout(COMMAND_LIMIT, answered).await;
        let answer = answer.map_err(|_| broken(format!("no answer within {COMMAND_LIMIT:?}")))?;
        let answer = answer
            .map_err(|_| broken("its thread ended".into()))?
            .map_err(broken)?;
        if let Some(message) = answer.error {
            return Err(ClientError::Refused {
                operation: operation.to_owned(),
                message,
                code: answer.code,
            });
        }
        serde_json::from_value(answer.result).map_err(|error| broken(error.to_string()))
    }

    fn broken(&self, operation: &str, cause: String) -> ClientError {
        ClientError::Broken {
            operation: operation.to_owned(),
            cause,
            log: self.registrar.log.clone(),
        }
    }
}
