//! The fixtures of the scenarios: one environment for all, and for each a namespace, an operator and proxies of its own.
//!
//! Absent: assertions. They are the scenarios' own.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pointsman_env::cache::Cache;
use pointsman_env::interceptor::{Interceptor, Request};
use pointsman_env::kinds::{
    ALIAS_BINDING, DEPLOYMENT, EVENT, MODEL_REGISTRY, REGISTERED_MODEL, REPLICA_SET,
};
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::operator::{install_definitions, run_uninstall_hook};
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::{Client, How, Registrar, TrainedVersion};
use pointsman_env::resources::{self, merge, with_spec};
use pointsman_env::{
    ControlPlane, ControlPlaneOptions, Kind, Operator, OperatorOptions, TestNamespace, Tools,
    Workload,
};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// The time limit of every wait, for a loaded machine of two cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A word in each secret of the scenarios: nothing that people may see holds it.
pub const CANARY: &str = "hunter2";

/// A feature of the API server, and the minor that has it by default.
pub type Feature = (&'static str, u32);

pub const MUTATING_POLICIES: Feature = ("MutatingAdmissionPolicy", 36);

pub type ScenarioResult = Result<(), String>;
pub type Scenario = (
    &'static str,
    fn(Arc<Environment>) -> Pin<Box<dyn Future<Output = ScenarioResult> + Send>>,
);

/// Lists async functions as scenarios, named like the functions. A macro, because it needs their names and boxes their futures.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        pub fn scenarios() -> Vec<$crate::fixture::Scenario> {
            vec![$((stringify!($name), |environment| Box::pin($name(environment)))),+]
        }
    };
}
pub(crate) use scenarios;

/// The servers that all scenarios share, each started on first use.
#[derive(Default)]
pub struct Environment {
    cluster: OnceCell<Cluster>,
    three: OnceCell<Mutex<Mlflow>>,
    webhooks: OnceCell<Mutex<Mlflow>>,
    two: OnceCell<Mutex<Mlflow>>,
}

/// Tools and control plane.
pub struct Cluster {
    pub tools: Tools,
    pub control_plane: Arc<ControlPlane>,
}

impl Environment {
    pub async fn cluster(&self) -> &Cluster {
        self.cluster.get_or_init(Cluster::start).await
    }

    /// Whether the API server is too old for a feature; then prints the cause, and the scenario ends.
    pub async fn lacks(&self, (feature, since): Feature) -> bool {
        let minor = self.cluster().await.control_plane.minor().await.unwrap();
        if minor < since {
            eprintln!(
                "  skipped: {feature} needs Kubernetes 1.{since}, and the API server has 1.{minor}"
            );
        }
        minor < since
    }

    /// The shared MLflow server of this version.
    async fn server(&self, version: MlflowVersion) -> MutexGuard<'_, Mlflow> {
        let cell = if version == MlflowVersion::Three {
            &self.three
        } else {
            &self.two
        };
        let start = || async {
            Mutex::new(
                Mlflow::start(version, MlflowOptions::default())
                    .await
                    .unwrap(),
            )
        };
        cell.get_or_init(start).await.lock().await
    }

    /// The address of the shared MLflow server of this version.
    pub async fn mlflow(&self, version: MlflowVersion) -> String {
        self.server(version).await.url()
    }

    /// The artifact folder of the shared MLflow server of this version.
    pub async fn artifacts(&self, version: MlflowVersion) -> PathBuf {
        self.server(version).await.artifacts()
    }

    /// The database of the shared MLflow server of this version.
    pub async fn database(&self, version: MlflowVersion) -> PathBuf {
        self.server(version).await.database()
    }

    /// The address of the shared MLflow server that delivers webhooks to this machine. It reads its list of webhooks every second.
    pub async fn mlflow_with_webhooks(&self) -> String {
        let start = || async {
            Mutex::new(
                Mlflow::start(MlflowVersion::Three, with_webhooks(1))
                    .await
                    .unwrap(),
            )
        };
        self.webhooks.get_or_init(start).await.lock().await.url()
    }

    pub async fn end(&self) {
        for server in [&self.three, &self.two, &self.webhooks]
            .into_iter()
            .filter_map(OnceCell::get)
        {
            server.lock().await.stop().await;
        }
    }
}

impl Cluster {
    async fn start() -> Self {
        let tools = Tools::locate(&Cache::open().unwrap()).unwrap();
        let control_plane = ControlPlane::start(&tools, ControlPlaneOptions::default())
            .await
            .unwrap();
        install_definitions(&control_plane, &tools).await.unwrap();
        Self {
            tools,
            control_plane: Arc::new(control_plane),
        }
    }
}

/// One scenario's namespace, operator and proxies.
pub struct Fixture {
    pub namespace: TestNamespace,
    pub operator: Operator,
    /// The proxy in front of MLflow.
    pub registry: Interceptor,
    /// The proxy between the operator and the API server.
    pub api: Interceptor,
    pub client: Client,
    /// The model's name in the registry.
    pub model: String,
}

pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_pointsman"))
}

pub async fn namespace(environment: &Environment, name: &str) -> TestNamespace {
    TestNamespace::start(&environment.cluster().await.control_plane, name)
        .await
        .unwrap()
}

impl Fixture {
    /// A fixture on the shared MLflow 3.
    pub async fn new(environment: &Arc<Environment>, name: &str) -> Self {
        Self::on(environment, name, MlflowVersion::Three).await
    }

    /// A fixture on the shared MLflow of this version.
    pub async fn on(environment: &Arc<Environment>, name: &str, version: MlflowVersion) -> Self {
        let url = environment.mlflow(version).await;
        Self::at(environment, name, version, &url).await
    }

    /// A fixture on the shared MLflow 3 whose operator has these values of the chart.
    pub async fn with_values(environment: &Arc<Environment>, name: &str, values: Value) -> Self {
        let url = environment.mlflow(MlflowVersion::Three).await;
        let namespace = namespace(environment, name).await;
        let watched = namespace.namespace().to_owned();
        let version = MlflowVersion::Three;
        Self::with(
            environment,
            namespace,
            version,
            &url,
            &[&watched],
            |options| {
                merge(&mut options.values, values);
            },
        )
        .await
    }

    /// A fixture on a given MLflow server.
    pub async fn at(
        environment: &Arc<Environment>,
        name: &str,
        version: MlflowVersion,
        url: &str,
    ) -> Self {
        let namespace = namespace(environment, name).await;
        let watched = namespace.namespace().to_owned();
        Self::watching(environment, namespace, version, url, &[&watched]).await
    }

    /// A fixture whose operator watches these namespaces.
    pub async fn watching(
        environment: &Arc<Environment>,
        namespace: TestNamespace,
        version: MlflowVersion,
        url: &str,
        namespaces: &[&str],
    ) -> Self {
        Self::with(environment, namespace, version, url, namespaces, |_| ()).await
    }

    /// A fixture whose operator watches another namespace too, which is returned.
    pub async fn beside_another(
        environment: &Arc<Environment>,
        name: &str,
        another: &str,
    ) -> (Self, TestNamespace) {
        let other = namespace(environment, another).await;
        let own = namespace(environment, name).await;
        let watched = [other.namespace().to_owned(), own.namespace().to_owned()];
        let watched: Vec<&str> = watched.iter().map(String::as_str).collect();
        let version = MlflowVersion::Three;
        let url = environment.mlflow(version).await;
        let fixture = Self::watching(environment, own, version, &url, &watched).await;
        (fixture, other)
    }

    /// The same, with changes to the operator's options.
    pub async fn with(
        environment: &Arc<Environment>,
        namespace: TestNamespace,
        version: MlflowVersion,
        url: &str,
        namespaces: &[&str],
        set_up: impl FnOnce(&mut OperatorOptions),
    ) -> Self {
        let cluster = environment.cluster().await;
        let plane = &cluster.control_plane;
        let api = Interceptor::start(plane.apiserver_url(), Some(plane.ca_pem()))
            .await
            .unwrap();
        let registry = Interceptor::start(url, None).await.unwrap();
        let mut options = options(&namespace, namespaces, &api);
        set_up(&mut options);
        let operator = Operator::start(plane, &cluster.tools, &options)
            .await
            .unwrap();
        namespace.report_log(Path::new(&operator.log_file()));
        let client = Registrar::shared(version).await.unwrap().at(url);
        let model = namespace.namespace().to_owned();
        Self {
            namespace,
            operator,
            registry,
            api,
            client,
            model,
        }
    }

    /// Replaces the fixture's operator by so many replicas of its release, with these values of the chart.
    pub async fn replicas(
        &mut self,
        environment: &Environment,
        count: u32,
        values: Value,
    ) -> Vec<Operator> {
        self.operator.stop().unwrap();
        let cluster = environment.cluster().await;
        let mut replicas = Vec::new();
        for replica in 1..=count {
            let watched = self.namespace.namespace().to_owned();
            let mut options = options(&self.namespace, &[&watched], &self.api);
            merge(&mut options.values, values.clone());
            options.replica = replica;
            let operator = Operator::start(&cluster.control_plane, &cluster.tools, &options)
                .await
                .unwrap();
            self.namespace.report_log(Path::new(&operator.log_file()));
            replicas.push(operator);
        }
        replicas
    }

    /// An operator of a release of its own that drives one shard. The first replaces the fixture's operator.
    pub async fn shard(
        &mut self,
        environment: &Environment,
        number: u32,
        selector: &str,
    ) -> Operator {
        if number == 1 {
            self.operator.stop().unwrap();
        }
        let cluster = environment.cluster().await;
        let watched = self.namespace.namespace().to_owned();
        let mut options = options(&self.namespace, &[&watched], &self.api);
        options.release = format!("{watched}-{number}");
        merge(&mut options.values, json!({"shard": selector}));
        Operator::start(&cluster.control_plane, &cluster.tools, &options)
            .await
            .unwrap()
    }

    /// Runs the hook of `helm uninstall`, and returns its output.
    pub async fn run_uninstall_hook(&self, environment: &Environment) -> String {
        let cluster = environment.cluster().await;
        let watched = self.namespace.namespace().to_owned();
        let options = options(&self.namespace, &[&watched], &self.api);
        let run = run_uninstall_hook(&cluster.control_plane, &cluster.tools, &options);
        run.await.unwrap()
    }

    /// Registers so many versions of the fixture's model without training them.
    pub async fn register(&self, versions: u32) {
        self.register_as(&self.model, versions).await;
    }

    pub async fn register_as(&self, model: &str, versions: u32) {
        self.client.create_registered_model(model).await.unwrap();
        for number in 1..=versions {
            self.client
                .create_model_version(
                    model,
                    &format!("s3://models/{}/{number}", self.namespace.namespace()),
                )
                .await
                .unwrap();
        }
    }

    pub async fn alias(&self, version: &str) {
        self.client
            .set_alias(&self.model, "champion", version)
            .await
            .unwrap();
    }

    /// Trains a small model and registers it as the next version.
    pub async fn train(&self, how: How, alpha: f64) -> TrainedVersion {
        let trained = self.client.train_and_register(&self.model, how, alpha);
        trained.await.unwrap()
    }

    /// Applies a `ModelRegistry`, polled every second, and a `RegisteredModel`.
    pub async fn declare(&self) {
        self.declare_registry(json!({})).await;
        self.declare_model(json!({})).await;
    }

    /// Applies a `ModelRegistry` with a token and a header that its server does not ask for, unless `more` says otherwise.
    pub async fn declare_registry(&self, more: Value) {
        let secret = |name: &str, key: &str| {
            let value = format!("{CANARY}-of-{name}");
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: value}})
        };
        self.apply_object(secret("token", "token")).await;
        self.apply_object(secret("headers", "X-Access")).await;
        let uri = self.registry.url();
        let canaries = json!({"auth": {"bearer": {"secretRef": {"name": "token"}}},
            "mlflow": {"uri": uri, "headersSecretRef": {"name": "headers"}}});
        let registry = with_spec(resources::model_registry(&uri), canaries);
        self.apply_object(with_spec(registry, more)).await;
    }

    pub async fn declare_model(&self, more: Value) {
        let model = resources::registered_model("model", &self.model);
        self.apply_object(with_spec(model, more)).await;
    }

    /// Applies a Deployment `server` and a binding `binding` for it.
    pub async fn bind(&self, more: Value) {
        self.deploy(&Workload::deployment("server")).await;
        self.declare_binding(more).await;
    }

    /// Applies a workload of any kind and a binding `binding` for it.
    pub async fn bind_to(&self, workload: &Workload) {
        self.deploy(workload).await;
        let target = json!({"targetRef": workload.target_ref()});
        self.declare_binding(target).await;
    }

    pub async fn deploy(&self, workload: &Workload) {
        self.namespace
            .kubectl_apply(workload.manifest())
            .await
            .unwrap();
    }

    pub async fn declare_binding(&self, more: Value) {
        let binding = resources::alias_binding("binding", "model", "server");
        self.apply_object(with_spec(binding, more)).await;
    }

    pub async fn apply_object(&self, object: Value) -> Value {
        self.namespace.apply_object(&object).await.unwrap()
    }

    /// Points champion to version 1, declares registry and model, applies a Deployment `server` and a binding for it, and waits
    /// until version 1 runs.
    pub async fn serve(&self, deployment: Value, binding: Value) {
        self.alias("1").await;
        self.declare().await;
        self.namespace.kubectl_apply(deployment).await.unwrap();
        self.declare_binding(binding).await;
        self.runs("1").await;
    }

    /// The same for the Deployment `server` whose pods have this behavior.
    pub async fn serve_with_behavior(&self, behavior: &str, binding: Value) {
        let server = Workload::deployment("server").with_behavior(behavior);
        self.serve(server.manifest(), binding).await;
    }

    /// Registers a model of two versions with champion on 1, binds it to the Deployment `server`, and waits until version 1 runs.
    pub async fn serve_version_1(&self) {
        self.register(2).await;
        let server = Workload::deployment("server").manifest();
        self.serve(server, json!({})).await;
    }

    /// Waits for two polls of the registry from now on: requests of before are complete by then.
    pub async fn polled_twice(&self) {
        let mark = self.registry.mark();
        let is_look = |request: &Request| {
            request.path.ends_with("registered-models/search") && request.status.is_some()
        };
        let polls = async {
            while self
                .registry
                .since(mark)
                .iter()
                .filter(|request| is_look(request))
                .count()
                < 2
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, polls)
            .await
            .expect("the registry is polled every second");
    }

    /// Waits until an object is as described, and returns it.
    pub async fn eventually(
        &self,
        description: &str,
        kind: &Kind,
        name: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        self.namespace
            .eventually(description, PATIENCE, kind, name, holds)
            .await
    }

    /// Waits until the binding runs this version and is Ready.
    pub async fn runs(&self, version: &str) -> Value {
        self.binding_runs("binding", version).await
    }

    /// Moves the alias, and waits until the workload has the version, for this time at most.
    pub async fn moves_within(&self, limit: Duration, version: &str) {
        self.alias(version).await;
        let holds = |deployment: &Value| template_version(deployment) == version;
        let what = format!("version {version} is deployed soon");
        self.namespace
            .eventually(&what, limit, &DEPLOYMENT, "server", holds)
            .await;
    }

    pub async fn binding_runs(&self, binding: &str, version: &str) -> Value {
        let holds = |binding: &Value| {
            binding["status"]["running"]["version"] == version && ready_status(binding) == "True"
        };
        self.eventually(
            &format!("version {version} runs"),
            &ALIAS_BINDING,
            binding,
            holds,
        )
        .await
    }

    /// Waits until the binding's condition Ready has this reason, and returns its message.
    pub async fn reports(&self, reason: &str) -> String {
        self.binding_reports("binding", reason).await
    }

    pub async fn binding_reports(&self, binding: &str, wanted: &str) -> String {
        let holds = |binding: &Value| ready_reason(binding) == wanted;
        let seen = self
            .eventually(
                &format!("the binding says {wanted}"),
                &ALIAS_BINDING,
                binding,
                holds,
            )
            .await;
        ready_message(&seen)
    }

    pub async fn model_reports(&self, wanted: &str) -> String {
        let holds = |model: &Value| ready_reason(model) == wanted;
        let seen = self
            .eventually(
                &format!("the model says {wanted}"),
                &REGISTERED_MODEL,
                "model",
                holds,
            )
            .await;
        ready_message(&seen)
    }

    pub async fn registry_reports(&self, wanted: &str) -> String {
        let holds = |registry: &Value| ready_reason(registry) == wanted;
        let seen = self
            .eventually(
                &format!("the registry says {wanted}"),
                &MODEL_REGISTRY,
                "mlflow",
                holds,
            )
            .await;
        ready_message(&seen)
    }

    pub async fn binding(&self) -> Value {
        self.namespace.get(&ALIAS_BINDING, "binding").await.unwrap()
    }

    pub async fn deployment(&self) -> Value {
        self.namespace.get(&DEPLOYMENT, "server").await.unwrap()
    }

    /// The Deployment's spec, which must stay the same while another part fails.
    pub async fn workload(&self) -> Value {
        self.deployment().await["spec"].clone()
    }

    pub async fn replica_sets(&self) -> Vec<Value> {
        self.namespace.list(&REPLICA_SET, "").await.unwrap()
    }

    /// Runs `kubectl pointsman <line>` in the fixture's namespace, unless it is for all with -A. The real kubectl finds the
    /// binary under its name as a plugin.
    pub async fn plugin(&self, line: &str) -> Result<String, String> {
        self.plugin_with("", line).await
    }

    /// The same with these environment variables, such as A=b.
    pub async fn plugin_with(&self, variables: &str, line: &str) -> Result<String, String> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let namespace = if rest.contains("-A") {
            String::new()
        } else {
            format!("-n {}", self.namespace.namespace())
        };
        let line = format!("{variables} kubectl pointsman {command} {namespace} {rest}");
        self.shell(&line).await
    }

    /// Runs a line in the shell of a person who has the plugin.
    pub async fn shell(&self, line: &str) -> Result<String, String> {
        let control_plane = self.namespace.control_plane();
        let folder = control_plane.folder().join("plugins");
        link_plugin(&folder);
        let line = format!("PATH={}:$PATH {line}", folder.display());
        let output = control_plane.shell(&line).await;
        output.map_err(|error| error.to_string())
    }

    /// The key of the tags that write-back sets for a binding.
    pub async fn tag_key(&self, binding: &str) -> String {
        let uid = [
            "get",
            "namespace",
            "kube-system",
            "-o",
            "jsonpath={.metadata.uid}",
        ];
        let cluster = self.namespace.kubectl(&uid).await.unwrap();
        let namespace = self.namespace.namespace();
        format!("pointsman.dev/{cluster}/{namespace}/{binding}")
    }

    /// Fails if a secret is in the operator's log, arguments or metrics, in an Event, or in a status.
    async fn shows_no_secret(&mut self) -> ScenarioResult {
        let mut shown = vec![("the log", std::fs::read_to_string(self.operator.log_file()))];
        if self.operator.is_running() {
            let pid = self.operator.pid().map_err(|error| error.to_string())?;
            let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
            let metrics = self.operator.metrics().await;
            shown.push(("an argument", arguments));
            shown.push(("a metric", Ok(metrics.unwrap_or_default())));
        }
        for kind in [EVENT, MODEL_REGISTRY, REGISTERED_MODEL, ALIAS_BINDING] {
            let objects = self.namespace.list(&kind, "").await;
            for object in objects.map_err(|error| error.to_string())? {
                let text = format!("{}{}", object["message"], object["status"]);
                shown.push((kind.kind, Ok(text)));
            }
        }
        for (place, text) in shown {
            let text = text.map_err(|error| format!("{place}: {error}"))?;
            if let Some(line) = text.lines().find(|line| line.contains(CANARY)) {
                return Err(format!("{place} shows a secret: {line}"));
            }
        }
        Ok(())
    }

    /// Looks for secrets, stops the operator and deletes the namespace.
    pub async fn end(mut self) -> ScenarioResult {
        self.shows_no_secret().await?;
        let status = self.operator.stop().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!(
                "the operator ended with {status}\n{}",
                self.operator.log_tail(40)
            ));
        }
        self.namespace
            .end()
            .await
            .map_err(|error| error.to_string())
    }
}

/// The binary under its name as a plugin of kubectl.
pub fn link_plugin(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let linked = std::os::unix::fs::symlink(binary(), folder.join("kubectl-pointsman"));
    if let Err(error) = linked {
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}");
    }
}

fn options(namespace: &TestNamespace, namespaces: &[&str], api: &Interceptor) -> OperatorOptions {
    let release = namespace.namespace();
    let mut options = OperatorOptions::watching(binary(), release, namespaces);
    release.clone_into(&mut options.namespace);
    options.kube_api = Some(api.url());
    options.values = json!({"log": {"level": "pointsman=debug,info"}});
    options
}

/// An MLflow server that delivers to this machine.
pub fn with_webhooks(workers: u8) -> MlflowOptions {
    MlflowOptions {
        workers,
        ..MlflowOptions::with_webhooks()
    }
}

pub fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .and_then(|all| all.iter().find(|each| each["type"] == type_))
        .unwrap_or(&Value::Null)
}

pub fn ready_status(object: &Value) -> &str {
    condition(object, "Ready")["status"]
        .as_str()
        .unwrap_or_default()
}

pub fn ready_reason(object: &Value) -> &str {
    condition(object, "Ready")["reason"]
        .as_str()
        .unwrap_or_default()
}

pub fn ready_message(object: &Value) -> String {
    condition(object, "Ready")["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// The literal environment of a Deployment's container.
pub fn env(deployment: &Value, container: usize, name: &str) -> Option<String> {
    let env = deployment["spec"]["template"]["spec"]["containers"][container]["env"].as_array()?;
    let found = env.iter().find(|each| each["name"] == name)?;
    Some(found["value"].as_str().unwrap_or_default().to_owned())
}

pub fn template_version(deployment: &Value) -> &str {
    deployment["spec"]["template"]["metadata"]["annotations"]["pointsman.dev/model-version"]
        .as_str()
        .unwrap_or_default()
}
