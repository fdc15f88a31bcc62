//! Argo CD: its application controller, repo server and API server, with Redis, as processes on loopback.
//! Absent: Dex, ApplicationSets, notifications, and sign-in.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::{MANAGER, account, apply_all, copy_program, customizations};
use crate::cache::Cache;
use crate::control_plane::ControlPlane;
use crate::error::{Context, Error, Result};
use crate::kinds::{self, Kind};
use crate::manifests;
use crate::observe::{self, Objects, Selection};
use crate::operator::define;
use crate::peer;
use crate::ports::free_port;
use crate::prerequisites::find_on_path;
use crate::process::{Child, Program, RunFolder};
use crate::tools::{self, PeerTools};

/// The namespace of Argo CD and its Applications.
pub const NAMESPACE: &str = "argocd";
/// `Application`
pub const APPLICATION: Kind = kinds::kind("argoproj.io", "v1alpha1", "Application", "applications");

const PATIENCE: Duration = Duration::from_secs(60);
/// How often Applications are compared without a reason. Changes of live objects are seen by watches.
const RESYNC_SECONDS: &str = "5";

/// A running Argo CD; it ends when this is dropped.
pub struct ArgoCd {
    // The last that starts is the first that ends.
    server: Child,
    controller: Child,
    repositories: Child,
    redis: Child,
    control_plane: Arc<ControlPlane>,
    api: String,
    http: reqwest::Client,
    _folder: RunFolder,
}

/// An object of an Application, for the API.
#[derive(Debug, Clone, Copy)]
pub struct Resource<'a> {
    /// Its Application.
    pub application: &'a str,
    /// Its kind.
    pub kind: &'a Kind,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// Addresses that the parts have to agree on.
struct Addresses {
    redis: String,
    repositories: String,
    api: String,
}

impl ArgoCd {
    /// Builds it, installs its kinds and settings with the fragment of integrations/argocd, and starts it.
    pub async fn start(control_plane: &Arc<ControlPlane>) -> Result<Self> {
        let tools = tokio::task::spawn_blocking(|| tools::argocd(&Cache::open()?))
            .await
            .context("building Argo CD")??;
        let folder = RunFolder::create("argocd")?;
        let (token, kubeconfig) = install(control_plane, &tools).await?;
        copy_program(
            &tools.module.join("hack/git-verify-wrapper.sh"),
            &folder.path().join("git-verify-wrapper.sh"),
        )?;
        let role = Role {
            tools: &tools,
            kubeconfig: &kubeconfig,
            folder: folder.path(),
        };
        let addresses = Addresses {
            redis: loopback()?,
            repositories: loopback()?,
            api: loopback()?,
        };
        let redis = redis(&addresses.redis, folder.path())?;
        let repositories = role.repo_server(&addresses)?;
        let controller = role.application_controller(&addresses)?;
        let server = role.server(&addresses)?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build();
        let mut argocd = Self {
            server,
            controller,
            repositories,
            redis,
            control_plane: Arc::clone(control_plane),
            api: format!("http://{}", addresses.api),
            http: http.context("making an HTTP client")?,
            _folder: folder,
        };
        argocd.await_ready().await?;
        argocd.add_cluster("test", control_plane, &token).await?;
        Ok(argocd)
    }

    /// Lets Argo CD deploy to a control plane, which may be another one than its own.
    pub async fn add_cluster(
        &self,
        name: &str,
        control_plane: &ControlPlane,
        token: &str,
    ) -> Result<()> {
        let authority = ByteString(control_plane.ca_pem().into_bytes());
        let config = json!({"bearerToken": token, "tlsClientConfig": {"caData": authority}});
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": format!("cluster-{name}"), "labels": {"argocd.argoproj.io/secret-type": "cluster"}},
            "stringData": {"name": name, "server": control_plane.apiserver_url(), "config": config.to_string()},
        });
        apply_all(&self.control_plane, NAMESPACE, &[secret]).await
    }

    /// A token of an account with every right on another control plane, for [`ArgoCd::add_cluster`].
    pub async fn token_for(control_plane: &ControlPlane) -> Result<String> {
        account(control_plane, NAMESPACE, "argocd").await
    }

    /// The Applications.
    pub fn applications(&self) -> Api<DynamicObject> {
        APPLICATION.api(self.control_plane.admin_client(), NAMESPACE)
    }

    /// Creates or changes an Application.
    pub async fn apply(&self, application: &Value) -> Result<Value> {
        let client = self.control_plane.admin_client();
        manifests::apply(&client, NAMESPACE, MANAGER, application).await
    }

    /// Waits until an Application is as described, and returns it. The error has the Application and the ends of the logs.
    pub async fn eventually(
        &self,
        name: &str,
        description: &str,
        timeout: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let one = |seen: &Objects| seen.get(name).cloned().unwrap_or_default();
        let which = Selection::Named(name);
        let observed = observe::until(self.applications(), &which, timeout, |seen| {
            holds(&one(seen))
        })
        .await;
        let application = one(&observed.seen);
        if observed.held {
            return Ok(application);
        }
        let application = manifests::readable(&application);
        let cause = format!(
            "not within {timeout:?}\n{application}\n{}",
            self.log_tails()
        );
        Err(Error::new(
            format_args!("Application {name}: {description}"),
            cause,
        ))
    }

    /// Has an Application compared with the newest commit now, as a webhook of the Git server does.
    pub async fn refresh(&self, name: &str) -> Result<()> {
        let annotations = json!({"argocd.argoproj.io/refresh": "normal"});
        let patch = json!({"metadata": {"annotations": annotations}});
        self.applications()
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .context(format_args!("refreshing Application {name}"))
            .map(drop)
    }

    /// Deletes an Application, and leaves its objects.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.applications()
            .delete(name, &DeleteParams::default())
            .await
            .context(format_args!("deleting Application {name}"))
            .map(drop)
    }

    /// The names of the actions that can be run on an object now, as the user interface offers them.
    pub async fn actions(&self, resource: Resource<'_>) -> Result<Vec<String>> {
        let what = format!("listing the actions on {}", resource.name);
        let url = format!("{}/resource/actions", self.url(resource.application));
        let request = self.http.get(url).query(&query(resource));
        let answer: Value = self.json(request, &what).await?;
        let actions = answer["actions"].as_array().cloned().unwrap_or_default();
        let enabled = actions.iter().filter(|action| action["disabled"] != true);
        let mut names: Vec<String> = enabled
            .map(|action| manifests::text(action, "/name").to_owned())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Runs an action on an object, as a click in the user interface does.
    pub async fn run_action(&self, resource: Resource<'_>, action: &str) -> Result<()> {
        let what = format!("running {action} on {}", resource.name);
        let mut body: Value = query(resource).into_iter().collect();
        body["action"] = json!(action);
        body["name"] = json!(resource.application);
        let url = format!("{}/resource/actions/v2", self.url(resource.application));
        self.json(self.http.post(url).json(&body), &what)
            .await
            .map(drop)
    }

    /// The end of every log.
    pub fn log_tails(&self) -> String {
        [&self.controller, &self.repositories, &self.server]
            .map(|child| format!("----- {}\n{}\n", child.log().display(), child.tail(40)))
            .concat()
    }

    /// The log of the application controller.
    pub fn log(&self) -> &Path {
        self.controller.log()
    }

    /// Ends it now; dropping does the same.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        for child in [
            &mut self.server,
            &mut self.controller,
            &mut self.repositories,
        ] {
            child.terminate()?;
        }
        self.redis.terminate()
    }

    fn url(&self, application: &str) -> String {
        format!("{}/api/v1/applications/{application}", self.api)
    }

    async fn json(&self, request: reqwest::RequestBuilder, what: &str) -> Result<Value> {
        let answer = request.send().await.context(what)?;
        let status = answer.status();
        let text = answer.text().await.context(what)?;
        if !status.is_success() {
            return Err(Error::new(what, format_args!("{status}: {text}")));
        }
        serde_json::from_str(&text).context(what)
    }

    async fn await_ready(&mut self) -> Result<()> {
        let health = format!("{}/healthz", self.api);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let answer = self.http.get(&health).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            for child in [
                &mut self.server,
                &mut self.controller,
                &mut self.repositories,
            ] {
                child.still_running()?;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let cause = format!(
            "{health} was not well within {PATIENCE:?}\n{}",
            self.log_tails()
        );
        Err(Error::new("starting Argo CD", cause))
    }
}

/// What all processes of Argo CD have in common: one program, which takes its role from a variable.
struct Role<'a> {
    tools: &'a PeerTools,
    kubeconfig: &'a Path,
    folder: &'a Path,
}

impl Role<'_> {
    fn program(&self, role: &str) -> Program {
        let path = std::env::var("PATH").unwrap_or_default();
        Program::new(role, &self.tools.program)
            .only_this_environment()
            .env("ARGOCD_BINARY_NAME", role)
            .env("PATH", format!("{}:{path}", self.folder.display()))
            .env("HOME", self.folder)
            .env("TMPDIR", self.folder)
            .env("KUBECONFIG", self.kubeconfig)
            .env("ARGOCD_GPG_ENABLED", "false")
            .env("ARGOCD_ASK_PASS_SOCK", self.folder.join("ask-pass.sock"))
            .env("ARGOCD_PLUGINSOCKFILEPATH", self.folder)
    }

    fn repo_server(&self, addresses: &Addresses) -> Result<Child> {
        let (host, port) = split(&addresses.repositories);
        self.program("argocd-repo-server")
            .args(["--address", host, "--port", port])
            .args([
                "--metrics-address",
                host,
                "--metrics-port",
                &free_port()?.to_string(),
            ])
            .args([
                "--redis",
                &addresses.redis,
                "--disable-tls",
                "--client-ca-path",
                "",
            ])
            // A commit is seen at the next comparison.
            .args(["--revision-cache-expiration", "1s"])
            .start(self.folder)
    }

    /// Its port of metrics listens on every address; there is no setting for it.
    fn application_controller(&self, addresses: &Addresses) -> Result<Child> {
        self.program("argocd-application-controller")
            .args(["--namespace", NAMESPACE, "--redis", &addresses.redis])
            .args([
                "--repo-server",
                &addresses.repositories,
                "--repo-server-plaintext",
            ])
            .args(["--app-resync", RESYNC_SECONDS, "--app-resync-jitter", "0"])
            .args([
                "--metrics-port",
                &free_port()?.to_string(),
                "--persist-resource-health",
            ])
            .start(self.folder)
    }

    fn server(&self, addresses: &Addresses) -> Result<Child> {
        let (host, port) = split(&addresses.api);
        self.program("argocd-server")
            .args(["--namespace", NAMESPACE, "--redis", &addresses.redis])
            .args([
                "--repo-server",
                &addresses.repositories,
                "--repo-server-plaintext",
            ])
            .args([
                "--address",
                host,
                "--port",
                port,
                "--insecure",
                "--disable-auth",
            ])
            .args([
                "--metrics-address",
                host,
                "--metrics-port",
                &free_port()?.to_string(),
            ])
            .start(self.folder)
    }
}

/// Installs Argo CD's kinds and settings, and returns a token with every right and a kubeconfig with it.
async fn install(control_plane: &ControlPlane, tools: &PeerTools) -> Result<(String, PathBuf)> {
    let client = control_plane.admin_client();
    define(&client, &peer::definitions(&tools.definitions)?).await?;
    let token = account(control_plane, NAMESPACE, "argocd").await?;
    apply_all(control_plane, NAMESPACE, &settings()?).await?;
    let server = control_plane.apiserver_url();
    let kubeconfig = control_plane.kubeconfig_with_token("argocd.kubeconfig", server, &token)?;
    Ok((token, kubeconfig))
}

fn redis(address: &str, folder: &Path) -> Result<Child> {
    let program = find_on_path("redis-server").ok_or_else(|| {
        Error::new("starting Redis", "there is no redis-server on PATH")
            .remedy("install it (Debian: apt-get install redis-server)")
    })?;
    let (host, port) = split(address);
    Program::new("redis", program)
        .args([
            "--bind",
            host,
            "--port",
            port,
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .args(["--dir".as_ref(), folder.as_os_str()])
        .start(folder)
}

fn loopback() -> Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

fn split(address: &str) -> (&str, &str) {
    address.split_once(':').unwrap_or((address, ""))
}

fn query(resource: Resource<'_>) -> Vec<(String, String)> {
    let kind = resource.kind;
    [
        ("namespace", resource.namespace),
        ("resourceName", resource.name),
        ("group", kind.group),
        ("version", kind.version),
        ("kind", kind.kind),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// The ConfigMaps and Secrets without which Argo CD does not start, as its manifests have them, with the scripts of this project.
fn settings() -> Result<Vec<Value>> {
    let part = |kind: &str, name: &str| {
        let labels = json!({"app.kubernetes.io/part-of": "argocd", "app.kubernetes.io/name": name});
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": labels}})
    };
    let mut settings: Vec<Value> = [
        "rbac-cm",
        "gpg-keys-cm",
        "ssh-known-hosts-cm",
        "tls-certs-cm",
    ]
    .map(|name| part("ConfigMap", &format!("argocd-{name}")))
    .to_vec();
    let mut main = part("ConfigMap", "argocd-cm");
    let fragment = std::fs::read_to_string(customizations::fragment_file());
    let fragment = manifests::parse(&fragment.context("reading the fragment of argocd-cm")?)?;
    main["data"] = fragment[0]["data"].clone();
    // Outside of a cluster its own address does not resolve.
    main["data"]["cluster.inClusterEnabled"] = json!("false");
    let mut secret = part("Secret", "argocd-secret");
    secret["stringData"] = json!({"server.secretkey": "only-for-tests-on-loopback"});
    settings.extend([main, secret]);
    Ok(settings)
}
