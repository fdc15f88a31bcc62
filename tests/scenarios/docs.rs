//! The pages as a reader follows them: each command is run where its page has led, and each manifest is applied.
//!
//! All pages share a cluster with the operator and MLflow, and are followed one after the other, each in a namespace of its own:
//!
//! - `sh` and `console` blocks are run in their order, in a copy of the repository. `kubectl`, `helm`, `kubectl pointsman` and `cargo run`
//!   work; a command that fails fails the test. A table below a command (`NAME … AGE`) has to appear, whatever its ages are.
//! - `python` blocks that move an alias or a stage are run, with a `client`; the syntax of others is checked.
//! - docs/quickstart.md comes first and begins with nothing but the operator; docs/install.md comes last and removes it. A page below docs/migrate begins with a registry, the model `nyc-taxi` and its
//!   alias `champion` on version 2, and its manifests are applied as they come. Any other page begins with a Deployment and a binding
//!   `nyc-taxi` too, which ran version 4 and run version 5; version 6 crashes.
//! - A comment in front of a block, `<!-- not run: … -->` or `<!-- not applied: … -->`, excepts it; `tests/docs.rs` counts the first.
//!
//! Absent: container engines, and containers: kwok simulates the pods, and `kubectl exec` runs its command on this machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_env::cache::Cache;
use pointsman_env::chart::RenderedChart;
use pointsman_env::kinds::{ALIAS_BINDING, INFERENCE_SERVICE};
use pointsman_env::manifests::{self, text};
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::pages::{self, Block, Page};
use pointsman_env::ports::free_port;
use pointsman_env::process::RunFolder;
use pointsman_env::python::{self, MlflowVersion};
use pointsman_env::registrar::{Client, Registrar};
use pointsman_env::resources::{self, merge};
use pointsman_env::{
    ControlPlane, ControlPlaneOptions, Operator, OperatorOptions, TestNamespace, Tools, Workload,
    gateway_api, gitops, peer,
};
use serde_json::{Value, json};

use crate::fixture::{
    self, Environment, PATIENCE, ScenarioResult, binary, ready_status, scenarios,
};

scenarios!(
    every_command_of_the_pages_works,
    every_manifest_of_the_pages_and_examples_is_accepted,
);

/// The time limit of a command; some of them train a model, or wait for a rollout.
const COMMAND_PATIENCE: Duration = Duration::from_secs(300);
/// The model and all objects of the pages.
const TAXI: &str = "nyc-taxi";
/// The behavior of the versions that crash in a container, for kwok, which runs none.
const CRASHING: &str = "3=crash,6=crash";
/// The highest version that a page names.
const VERSIONS: u32 = 6;
/// The group of a kind that is not in the cluster of the commands; a binding to it has the same name as the page's other binding.
const KSERVE: &str = "serving.kserve.io";
/// The calls of MLflow's client that move a version.
const MOVES: [&str; 2] = [
    "set_registered_model_alias",
    "transition_model_version_stage",
];
/// The address of MLflow in manifests and programs of the pages.
const MLFLOW: &str = "http://mlflow.mlflow.svc:5000";
/// The address of an operator that the reader starts.
const HEALTH: &str = "127.0.0.1:8080";

/// Groups whose kinds are not defined here: the definitions are in no module that the Go module proxy has.
const FOREIGN_GROUPS: [&str; 4] = [
    "argocd-image-updater.argoproj.io",
    "helm.toolkit.fluxcd.io",
    "machinelearning.seldon.io",
    "mlops.seldon.io",
];

async fn every_command_of_the_pages_works(_: Arc<Environment>) -> ScenarioResult {
    let reader = Reader::start().await;
    let mut pages = pages::pages().unwrap();
    // The first registers the first versions by itself, and the last uninstalls everything.
    pages.sort_by_key(|page| (!is_quickstart(page), page.path.ends_with("install.md")));
    for page in &pages {
        let blocks = page.blocks();
        if blocks
            .iter()
            .any(|block| block.is_commands() && block.excuse.is_none())
        {
            reader.follow(page, &blocks).await;
        }
    }
    reader.end().await
}

fn is_quickstart(page: &Page) -> bool {
    page.path.ends_with("quickstart.md")
}

fn is_about_migration(page: &Page) -> bool {
    page.path.starts_with("docs/migrate")
}

/// A machine as the pages assume it: a cluster where Helm has installed the operator, MLflow, and the repository as working folder.
struct Reader {
    // Dropped before the servers that it uses.
    operator: Operator,
    mlflow: Mlflow,
    client: Client,
    control_plane: Arc<ControlPlane>,
    shell: Shell,
}

impl Reader {
    async fn start() -> Self {
        let tools = Tools::locate(&Cache::open().unwrap()).unwrap();
        let version = MlflowVersion::Three;
        let (control_plane, mlflow) = tokio::try_join!(
            ControlPlane::start(&tools, ControlPlaneOptions::default()),
            Mlflow::start(version, MlflowOptions::default()),
        )
        .unwrap();
        let control_plane = Arc::new(control_plane);
        let admin = control_plane.admin_client();
        gateway_api::install(&admin).await.unwrap();
        for object in objects_of_others() {
            manifests::apply(&admin, "argocd", "argocd", &object)
                .await
                .unwrap();
        }
        let shell = Shell::new(&tools, &mlflow).await;
        let install =
            "helm install pointsman charts/pointsman --namespace pointsman --create-namespace";
        let kubeconfig = control_plane.admin_kubeconfig();
        shell.run(&kubeconfig, install).await.unwrap();
        let operator = operator(&control_plane, &tools).await;
        symlink(operator.log_file(), shell.folder.path().join(LOG)).unwrap();
        Self {
            operator,
            client: Registrar::shared(version).await.unwrap().at(&mlflow.url()),
            mlflow,
            control_plane,
            shell,
        }
    }

    /// Runs all commands of a page in a namespace of its own.
    async fn follow(&self, page: &Page, blocks: &[Block]) {
        let name = format!("docs {}", page.path.file_stem().unwrap().display());
        let namespace = TestNamespace::start(&self.control_plane, &name)
            .await
            .unwrap();
        namespace.report_log(&self.operator.log_file());
        let kubeconfig = self.shell.kubeconfig(&self.control_plane, &namespace);
        self.prepare(page, &namespace).await;
        for block in blocks.iter().filter(|block| block.excuse.is_none()) {
            // The reader of such a page has the objects that it shows.
            if is_about_migration(page) && block.language == "yaml" {
                let objects = native(&manifests::parse(&block.text).unwrap());
                let elsewhere = |object: &Value| object.to_string().contains(KSERVE);
                for object in objects.into_iter().filter(|object| !elsewhere(object)) {
                    namespace.kubectl_apply(object).await.unwrap();
                }
            }
            if let Err(error) = self.shell.follow(block, &kubeconfig).await {
                let place = format!("{}:{}", page.path.display(), block.line);
                panic!("{place}: {error}\n{}", namespace.report().await);
            }
        }
        if is_quickstart(page) {
            self.register_more().await;
        }
        namespace.end().await.unwrap();
    }

    async fn prepare(&self, page: &Page, namespace: &TestNamespace) {
        if is_quickstart(page) {
            return;
        }
        self.champion("2").await;
        for object in [
            resources::model_registry(&self.mlflow.url()),
            resources::registered_model(TAXI, TAXI),
        ] {
            namespace.apply_object(&object).await.unwrap();
        }
        if !is_about_migration(page) {
            self.serve(namespace).await;
        }
    }

    /// Version 5 is live, and version 4 was before.
    async fn serve(&self, namespace: &TestNamespace) {
        let deployment = Workload::deployment(TAXI).with_behavior(CRASHING);
        namespace
            .kubectl_apply(deployment.manifest())
            .await
            .unwrap();
        let binding = resources::alias_binding(TAXI, TAXI, TAXI);
        namespace.apply_object(&binding).await.unwrap();
        for version in ["4", "5"] {
            self.champion(version).await;
            let holds = |binding: &Value| {
                binding["status"]["running"]["version"] == version
                    && ready_status(binding) == "True"
            };
            let what = format!("version {version} runs");
            namespace
                .eventually(&what, PATIENCE, &ALIAS_BINDING, TAXI, holds)
                .await;
        }
    }

    async fn champion(&self, version: &str) {
        self.client
            .set_alias(TAXI, "champion", version)
            .await
            .unwrap();
    }

    /// The quick start registers three versions, and other pages name more.
    async fn register_more(&self) {
        for number in 4..=VERSIONS {
            let source = format!("s3://models/{TAXI}/{number}");
            self.client
                .create_model_version(TAXI, &source)
                .await
                .unwrap();
        }
        self.client
            .set_alias(TAXI, "challenger", "3")
            .await
            .unwrap();
    }

    async fn end(mut self) -> ScenarioResult {
        let status = self.operator.stop().map_err(|error| error.to_string())?;
        self.mlflow.stop().await;
        if status.success() {
            return Ok(());
        }
        Err(format!(
            "the operator ended with {status}\n{}",
            self.operator.log_tail(40)
        ))
    }
}

/// What the pages take for granted: a namespace `ml`, and the settings of an Argo CD.
fn objects_of_others() -> [Value; 3] {
    let namespace =
        |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    [
        namespace("ml"),
        namespace("argocd"),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm"}}),
    ]
}

/// The operator's log, in the reader's folder.
const LOG: &str = "operator.log";

/// The reader's shell: a folder with a copy of the repository, and programs.
struct Shell {
    folder: RunFolder,
    path: String,
    mlflow: String,
    health: String,
}

impl Shell {
    async fn new(tools: &Tools, mlflow: &Mlflow) -> Self {
        let folder = RunFolder::create("docs").unwrap();
        for part in ["charts", "crds", "examples", "integrations"] {
            let copy = folder.path().join(part);
            copy_with_address(&pages::repository().join(part), &copy, &mlflow.url());
        }
        let python = python::environment(MlflowVersion::Three).await.unwrap();
        let health = format!("127.0.0.1:{}", free_port().unwrap());
        Self {
            path: programs(&folder, tools, &python, &health),
            folder,
            mlflow: mlflow.url(),
            health,
        }
    }

    /// A kubeconfig whose context has this namespace.
    fn kubeconfig(&self, control_plane: &ControlPlane, namespace: &TestNamespace) -> PathBuf {
        let admin = fs::read_to_string(control_plane.admin_kubeconfig()).unwrap();
        let mut config: Value = serde_json::from_str(&admin).unwrap();
        config["contexts"][0]["context"]["namespace"] = json!(namespace.namespace());
        let name = format!("{}.json", namespace.namespace());
        let path = self.folder.path().join(name);
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Runs a block, and looks at what it prints.
    async fn follow(&self, block: &Block, kubeconfig: &Path) -> Result<(), String> {
        if block.language == "python" {
            return self.python(block, kubeconfig).await;
        }
        let commands = block.commands();
        for (command, expected) in commands.iter().filter(|_| block.is_commands()) {
            let command = command
                .replace(MLFLOW, &self.mlflow)
                .replace(HEALTH, &self.health);
            let deadline = Instant::now() + PATIENCE;
            loop {
                let output = self.run(kubeconfig, &command).await?;
                if is_as_shown(expected, &output) {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(format!("{command}\nprints\n{output}\nand not\n{expected}"));
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        Ok(())
    }

    async fn python(&self, block: &Block, kubeconfig: &Path) -> Result<(), String> {
        let program = block.text.replace(MLFLOW, &self.mlflow);
        let program = if MOVES.iter().any(|call| program.contains(call)) {
            let client = format!("client = MlflowClient({:?})", self.mlflow);
            format!("from mlflow import MlflowClient\n{client}\n{program}")
        } else {
            format!("import ast\nast.parse({})", json!(program))
        };
        fs::write(self.folder.path().join("block.py"), program).unwrap();
        self.run(kubeconfig, "python block.py").await.map(drop)
    }

    /// Runs a script in a shell that stops at the first command that fails, and returns its output.
    async fn run(&self, kubeconfig: &Path, script: &str) -> Result<String, String> {
        let mut command = tokio::process::Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(self.folder.path())
            .env("PATH", &self.path)
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let Ok(output) = tokio::time::timeout(COMMAND_PATIENCE, command.output()).await else {
            return Err(format!("{script}\nnot within {COMMAND_PATIENCE:?}"));
        };
        let output = output.map_err(|error| format!("{script}\n{error}"))?;
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        if output.status.success() {
            return Ok(stdout.into_owned());
        }
        Err(format!("{script}\n{}\n{stdout}\n{stderr}", output.status))
    }
}

/// Copies a folder. In the copy MLflow has the address of this machine's and is polled every second, a version bakes for a second unless
/// its binding says otherwise, and the Deployments `nyc-taxi` crash as [`CRASHING`] says.
fn copy_with_address(from: &Path, to: &Path, url: &str) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_with_address(&entry.path(), &target, url);
            continue;
        }
        let mut text = fs::read_to_string(entry.path()).unwrap();
        text = text
            .replace(MLFLOW, url)
            .replace("http://127.0.0.1:5000", url)
            .replace("interval: 30s", "interval: 1s")
            .replace("default: 60", "default: 1");
        if text.contains("kind: Deployment\nmetadata:\n  name: nyc-taxi\n") {
            let crashes = format!(
                "    metadata:\n      annotations: {{kwok.test/behavior: {CRASHING:?}}}\n      labels:"
            );
            text = text.replacen("    metadata:\n      labels:", &crashes, 1);
        }
        fs::write(target, text).unwrap();
    }
}

/// `kubectl exec` runs its command on this machine, and the log of the operator's pod is that of the process in its place.
const KUBECTL: &str = r#"#!/usr/bin/env bash
case " $* " in
*' exec '*) while [[ $1 != -- ]]; do shift; done; shift; exec "$@" ;;
*' logs deploy/pointsman '*) exec cat LOG ;;
esac
exec KUBECTL "$@"
"#;

/// `cargo run -- …` runs the binary until it serves its health address.
const CARGO: &str = r#"#!/usr/bin/env bash
while [[ $1 != -- ]]; do shift; done; shift
BINARY "$@" & operator=$!
until (exec 3<>/dev/tcp/ADDRESS) 2>/dev/null; do kill -0 $operator || exit 1; sleep 0.1; done
kill $operator; wait $operator
"#;

/// Writes the programs of the reader, and returns the folders for PATH.
fn programs(folder: &RunFolder, tools: &Tools, python: &Path, health: &str) -> String {
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let log = folder.path().join(LOG);
    let kubectl = KUBECTL
        .replace("LOG", &log.display().to_string())
        .replace("KUBECTL", &tools.kubectl.display().to_string());
    let cargo = CARGO
        .replace("BINARY", &binary().display().to_string())
        .replace("ADDRESS", &health.replace(':', "/"));
    for (name, script) in [("kubectl", kubectl), ("cargo", cargo)] {
        fs::write(bin.join(name), script).unwrap();
        fs::set_permissions(bin.join(name), Permissions::from_mode(0o755)).unwrap();
    }
    symlink(&tools.helm, bin.join("helm")).unwrap();
    symlink(binary(), bin.join("kubectl-pointsman")).unwrap();
    let python = python.parent().unwrap().display();
    let inherited = std::env::var("PATH").unwrap_or_default();
    format!("{}:{python}:{inherited}", bin.display())
}

/// The operator under the account of the release that Helm installed, in place of the pod that kwok plays.
async fn operator(control_plane: &ControlPlane, tools: &Tools) -> Operator {
    let release = "pointsman";
    // MLflow and stores are on this machine.
    let values = json!({"network": {"allow": ["127.0.0.0/8"]}});
    let chart = RenderedChart::render(tools, release, release, &values)
        .await
        .unwrap();
    let token = control_plane
        .service_account_token(release, release)
        .await
        .unwrap();
    let server = control_plane.apiserver_url();
    let kubeconfig = control_plane.kubeconfig_with_token("operator.kubeconfig", server, &token);
    let mut options = OperatorOptions::watching(binary(), release, &[]);
    release.clone_into(&mut options.namespace);
    let folder = control_plane.folder();
    let mut operator =
        Operator::in_place_of(&chart, kubeconfig.unwrap(), folder, &options).unwrap();
    operator.await_ready().await.unwrap();
    operator
}

/// Whether a command printed the table that the page shows, whatever the ages are; anything else that a page shows is not compared.
fn is_as_shown(expected: &str, output: &str) -> bool {
    let rows = |table: &str| -> Vec<Vec<String>> {
        let words = table
            .lines()
            .map(|line| line.split_whitespace().map(ToOwned::to_owned).collect());
        let mut rows: Vec<Vec<String>> = words.collect();
        if rows[0].last().is_some_and(|last| last == "AGE") {
            for row in &mut rows {
                row.pop();
            }
        }
        rows
    };
    !expected.starts_with("NAME ") || rows(expected) == rows(output)
}

async fn every_manifest_of_the_pages_and_examples_is_accepted(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let cluster = environment.cluster().await;
    let client = cluster.control_plane.admin_client();
    gateway_api::install(&client).await.unwrap();
    gitops::flux::install(&client).await.unwrap();
    let namespace = fixture::namespace(&environment, "manifests").await;
    peer::define_kserve(&namespace, &INFERENCE_SERVICE, "minimal")
        .await
        .unwrap();
    let mut wrong = Vec::new();
    let mut accepted = 0;
    for (place, text) in manifest_texts() {
        match manifests::parse(&text) {
            Ok(objects) if objects.is_empty() => wrong.push(format!("{place} holds no object")),
            Ok(objects) => match dry_run(&namespace, &objects).await {
                Ok(count) => accepted += count,
                Err(error) => wrong.push(format!("{place}: {error}")),
            },
            Err(error) => wrong.push(format!("{place}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(accepted > 50, "only {accepted} objects were found");
    let misspelt = json!({"kind": "AliasBinding", "spec": {"pinedVersion": "4"}});
    let refused = dry_run(&namespace, &[misspelt]).await;
    assert!(refused.is_err(), "a field that does not exist was accepted");
    namespace.end().await.map_err(|error| error.to_string())
}

/// The manifests of all pages and of examples/, each with its place.
fn manifest_texts() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for page in pages::pages().unwrap() {
        for block in page.blocks() {
            if block.language == "yaml" && block.excuse.is_none() {
                texts.push((
                    format!("{}:{}", page.path.display(), block.line),
                    block.text,
                ));
            }
        }
    }
    for path in pages::files("examples", "yaml").unwrap() {
        let text = fs::read_to_string(pages::repository().join(&path)).unwrap();
        texts.push((path.display().to_string(), text));
    }
    texts
}

/// Applies the objects of kinds that are defined here with `--dry-run=server`, and returns their number.
async fn dry_run(namespace: &TestNamespace, objects: &[Value]) -> Result<usize, String> {
    let mut count = 0;
    for object in native(objects) {
        let own = text(&object, "/metadata/namespace");
        if !own.is_empty() {
            let object =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": own}});
            namespace
                .apply_object(&object)
                .await
                .map_err(|error| error.to_string())?;
        }
        let arguments = [
            "-n",
            or(own, namespace.namespace()),
            "apply",
            "--dry-run=server",
            "-f",
            "-",
        ];
        let control_plane = namespace.control_plane();
        let applied = control_plane
            .kubectl_with_input(&arguments, &object.to_string())
            .await;
        applied.map_err(|error| error.to_string())?;
        count += 1;
    }
    Ok(count)
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

/// The objects of kinds that are defined here. A part of one of our kinds, such as `kind` and `spec.inject`, becomes a whole object.
fn native(objects: &[Value]) -> Vec<Value> {
    let group = |object: &Value| {
        text(object, "/apiVersion")
            .split('/')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let native = objects
        .iter()
        .filter(|object| !FOREIGN_GROUPS.contains(&group(object).as_str()));
    native.map(completed).collect()
}

fn completed(part: &Value) -> Value {
    if part.get("apiVersion").is_some() {
        return part.clone();
    }
    let mut whole = match text(part, "/kind") {
        "ModelRegistry" => resources::model_registry(MLFLOW),
        "RegisteredModel" => resources::registered_model(TAXI, TAXI),
        "AliasBinding" => resources::alias_binding(TAXI, TAXI, TAXI),
        _ => return part.clone(),
    };
    let spec = &part["spec"];
    if spec.get("template").is_some() {
        merge(&mut whole["spec"], json!({"targetRef": null}));
    }
    merge(&mut whole["spec"], spec.clone());
    whole
}
