//! A real MLflow server on loopback or in a network of its own, with a SQLite database and artifacts behind its own proxy, in a folder of its own.
//! Absent: talking to it; tests do that through `registrar`, through the operator, or by themselves.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::ports::free_port;
use crate::process::{Child, Program, RunFolder, tail};
use crate::python::{self, MlflowVersion};
use crate::usage;

/// The time limit from the server's start to its first healthy response.
const START_LIMIT: Duration = Duration::from_secs(90);

/// How long a server may take to finish its requests before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// The settings of a server.
#[derive(Clone, Debug)]
pub struct MlflowOptions {
    /// The address that it listens at.
    pub host: Ipv4Addr,
    /// The port; a free one if none is given.
    pub port: Option<u16>,
    /// Turns basic authentication on, with this administrator; MLflow refuses passwords under twelve characters.
    pub basic_auth: Option<(String, String)>,
    /// Turns workspaces on (MLflow 3 only).
    pub workspaces: bool,
    /// Answers on https, with this certificate and this key (MLflow 3 only).
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Demands certificates of its clients, which this authority signed; the file beside it holds one with its key, for the
    /// check whether the server runs (PEM). Goes with `certificate`.
    pub client_authority: Option<(PathBuf, PathBuf)>,
    /// The database of another server, to serve the same data on another port; its own by default.
    pub database: Option<PathBuf>,
    /// How many server processes share the port.
    pub workers: u8,
    /// More arguments of `mlflow server`.
    pub extra_args: Vec<String>,
    /// More variables for it.
    pub extra_env: Vec<(String, String)>,
}

impl Default for MlflowOptions {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST,
            port: None,
            basic_auth: None,
            workspaces: false,
            certificate: None,
            client_authority: None,
            database: None,
            workers: 1,
            extra_args: Vec::new(),
            extra_env: Vec::new(),
        }
    }
}

impl MlflowOptions {
    /// A server that delivers webhooks to private addresses, with one key for all its workers.
    #[must_use]
    pub fn with_webhooks() -> Self {
        let variables = [
            ("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true"),
            ("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https"),
            (
                "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",
                "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
            ),
            ("MLFLOW_WEBHOOK_CACHE_TTL", "1"),
        ];
        let extra_env = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            extra_env: extra_env.to_vec(),
            ..Self::default()
        }
    }
}

/// A server with its data; it ends, and its data goes, when this is dropped.
#[derive(Debug)]
pub struct Mlflow {
    // The child is dropped before its folder.
    child: Option<Child>,
    program: Program,
    host: Ipv4Addr,
    port: u16,
    scheme: &'static str,
    http: reqwest::Client,
    folder: RunFolder,
}

impl Mlflow {
    /// Starts a server and returns once it is healthy.
    ///
    /// # Errors
    /// When MLflow cannot be installed or does not become healthy; the error ends with its log.
    pub async fn start(version: MlflowVersion, options: MlflowOptions) -> Result<Self> {
        let python = python::environment(version).await?;
        let folder = RunFolder::create(version.name())?;
        let database = folder.path().join("mlflow.db");
        fs::copy(python::database(version).await?, &database)
            .context("copying the empty database")?;
        let port = options.port.map_or_else(free_port, Ok)?;
        let program = program(version, &python, &options, port, folder.path())?;
        let scheme = if options.certificate.is_some() {
            "https"
        } else {
            "http"
        };
        let identity = options.client_authority.as_ref();
        let http = plain_client(identity.map(|(_, identity)| identity.as_path()))?;
        let mut server = Self {
            http,
            child: None,
            program,
            host: options.host,
            port,
            scheme,
            folder,
        };
        server.start_again().await?;
        Ok(server)
    }

    /// Starts a stopped server on the same port with the same data, and returns once it is healthy.
    ///
    /// # Errors
    /// When it does not become healthy; the error ends with its log.
    pub async fn start_again(&mut self) -> Result<()> {
        if self.child.is_none() {
            self.child = Some(self.program.start(self.folder.path())?);
            self.wait_until_healthy().await?;
        }
        Ok(())
    }

    /// Ends the server with all its workers; the data stays for [`Mlflow::start_again`].
    pub async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let ending = tokio::task::spawn_blocking(move || child.terminate().map(drop));
            ending
                .await
                .expect("ending a server does not panic")
                .expect("a server ends when it is killed");
        }
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}:{}", self.scheme, self.host, self.port)
    }

    /// The SQLite database, as [`crate::registrar::Client::seed`] wants it.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("mlflow.db")
    }

    /// The folder behind `mlflow-artifacts:/`.
    #[must_use]
    pub fn artifacts(&self) -> PathBuf {
        self.folder.path().join("artifacts")
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.folder.path().join("mlflow.log"), lines)
    }

    /// Stops the server's process: the kernel accepts connections, and no response comes.
    ///
    /// # Errors
    /// When it is not running.
    pub fn freeze(&self) -> Result<()> {
        self.running()?.freeze()
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// When it is not running.
    pub fn thaw(&self) -> Result<()> {
        self.running()?.thaw()
    }

    /// How much processor time the server and its workers have used since their start, in steps of 10 ms.
    ///
    /// # Errors
    /// When it is not running.
    pub fn processor_time(&self) -> Result<Duration> {
        let pid = self.running()?.pid();
        let pid =
            pid.ok_or_else(|| Error::new("looking for the MLflow server", "it has not started"))?;
        Ok(usage::processor_time_with_descendants(pid))
    }

    fn running(&self) -> Result<&Child> {
        self.child
            .as_ref()
            .ok_or_else(|| Error::new("looking for the MLflow server", "it is stopped"))
    }

    async fn wait_until_healthy(&mut self) -> Result<()> {
        let health = format!("{}/health", self.url());
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            self.child.as_mut().map_or(Ok(()), Child::still_running)?;
            if self
                .http
                .get(&health)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let cause = format!(
            "{health} did not answer 200 within {START_LIMIT:?}\n{}",
            self.log_tail(40)
        );
        Err(Error::new("starting MLflow", cause)
            .remedy("read its log above; a slow machine may need fewer tests at a time"))
    }
}

fn plain_client(identity: Option<&Path>) -> Result<reqwest::Client> {
    // An error means that another part of this process has installed a provider already.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(5));
    let builder = match identity {
        Some(file) => {
            let pem = fs::read(file).context(format_args!("reading {}", file.display()))?;
            let identity = reqwest::Identity::from_pem(&pem);
            builder.identity(identity.context("reading a client's certificate")?)
        }
        None => builder,
    };
    // Checks only whether the server runs; its users verify the certificate.
    builder
        .tls_danger_accept_invalid_certs(true)
        .build()
        .context("making an HTTP client")
}

fn program(
    version: MlflowVersion,
    python: &Path,
    options: &MlflowOptions,
    port: u16,
    folder: &Path,
) -> Result<Program> {
    let mut program = Program::new("mlflow", python)
        .in_its_folder()
        .args([
            "-m",
            "mlflow",
            "server",
            "--host",
            &options.host.to_string(),
        ])
        .args([
            "--port",
            &port.to_string(),
            "--workers",
            &options.workers.to_string(),
        ])
        .args([
            "--backend-store-uri",
            &sqlite(
                options
                    .database
                    .as_deref()
                    .unwrap_or(&folder.join("mlflow.db")),
            ),
        ])
        .args([
            "--artifacts-destination",
            &folder.join("artifacts").display().to_string(),
        ])
        .env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
        .env("MLFLOW_DISABLE_TELEMETRY", "true")
        .env("PYTHONNOUSERSITE", "1")
        .env("PYTHONUNBUFFERED", "1")
        // Training in a test must not see the user's own server.
        .env("MLFLOW_TRACKING_URI", "")
        .grace(GRACE);
    if let Some((user, password)) = &options.basic_auth {
        let configuration = write_auth_configuration(folder, user, password)?;
        program = program
            .args(["--app-name", "basic-auth"])
            .env("MLFLOW_AUTH_CONFIG_PATH", configuration)
            .env("MLFLOW_FLASK_SERVER_SECRET_KEY", "only-for-tests");
    }
    if let Some((certificate, key)) = &options.certificate {
        let (certificate, key) = (certificate.display(), key.display());
        let mut tls = format!("--ssl-certfile {certificate} --ssl-keyfile {key}");
        if let Some((authority, _)) = &options.client_authority {
            // 2 is Python's ssl.CERT_REQUIRED.
            let demand = format!(" --ssl-ca-certs {} --ssl-cert-reqs 2", authority.display());
            tls.push_str(&demand);
        }
        program = program.args(["--uvicorn-opts", &tls]);
    }
    if options.workspaces && version == MlflowVersion::Three {
        program = program.args(["--enable-workspaces"]);
    }
    Ok(program
        .args(&options.extra_args)
        .envs(options.extra_env.iter().cloned()))
}

fn sqlite(file: &Path) -> String {
    format!("sqlite:///{}", file.display())
}

fn write_auth_configuration(folder: &Path, user: &str, password: &str) -> Result<PathBuf> {
    let path = folder.join("auth.ini");
    // A percent sign begins an interpolation in such files.
    let (user, password) = (user.replace('%', "%%"), password.replace('%', "%%"));
    let database = sqlite(&folder.join("auth.db"));
    let text = format!(
        "[mlflow]\ndefault_permission = READ\ndatabase_uri = {database}\nadmin_username = {user}\nadmin_password = {password}\n\
         authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    );
    fs::write(&path, text).context(format_args!("writing {}", path.display()))?;
    Ok(path)
}
