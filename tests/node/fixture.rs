//! The fixtures of the scenarios: one node for all, and for each a namespace with operator, model server and requests.
//!
//! Absent: assertions. They are the scenarios' own.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pointsman_env::cache::Cache;
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, POD};
use pointsman_env::load::{Load, LoadOptions, Tally};
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::node::{Isolation, Node, image};
use pointsman_env::operator::install_definitions;
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::{Client, Registrar};
use pointsman_env::resources::{self, merge, with_spec};
use pointsman_env::{
    ControlPlane, ControlPlaneOptions, NodeTools, Objects, Operator, OperatorOptions, Selection,
    TestNamespace, Tools,
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::table::{Row, table};

/// The time limit of every wait, for a loaded machine of two cores.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const REPLICAS: usize = 2;
pub const SERVER: &str = "server";
pub const MAX_RESTARTS: u64 = 3;
/// Shorter than usual, because each scenario waits for it.
const BAKE_SECONDS: u32 = 5;

pub type ScenarioResult = Result<(), String>;

/// A name, and the scenario of that name.
pub type Scenario = (
    &'static str,
    fn(Arc<Environment>) -> Pin<Box<dyn Future<Output = ScenarioResult> + Send>>,
);

/// Lists async functions as scenarios, named like the functions.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        pub fn all() -> Vec<$crate::fixture::Scenario> {
            vec![$((stringify!($name), |environment| Box::pin($name(environment)))),+]
        }
    };
}
pub(crate) use scenarios;

/// The servers that all scenarios share, each started on first use.
pub struct Environment {
    isolation: Isolation,
    cluster: OnceCell<Cluster>,
    mlflow: OnceCell<tokio::sync::Mutex<Mlflow>>,
    rows: Mutex<Vec<Row>>,
}

/// Tools, node and control plane.
pub struct Cluster {
    pub tools: Tools,
    /// Dropped before the control plane.
    pub node: Node,
    pub control_plane: Arc<ControlPlane>,
}

impl Environment {
    pub fn new(isolation: Isolation) -> Self {
        Self {
            isolation,
            cluster: OnceCell::new(),
            mlflow: OnceCell::new(),
            rows: Mutex::default(),
        }
    }

    pub async fn cluster(&self) -> &Cluster {
        self.cluster
            .get_or_init(|| Cluster::start(&self.isolation))
            .await
    }

    /// A folder for files that pods mount from the node.
    pub fn folder(&self) -> &Path {
        self.isolation.folder()
    }

    pub fn note(&self, row: Row) {
        self.rows.lock().unwrap().push(row);
    }

    /// Prints the table of results.
    pub fn print_results(&self) {
        let rows = self.rows.lock().unwrap();
        if !rows.is_empty() {
            println!("{}", table(&rows));
        }
    }

    pub async fn end(&self) {
        if let Some(server) = self.mlflow.get() {
            server.lock().await.stop().await;
        }
    }

    async fn mlflow(&self) -> String {
        let start = || async {
            tokio::sync::Mutex::new(
                Mlflow::start(MlflowVersion::Three, MlflowOptions::default())
                    .await
                    .unwrap(),
            )
        };
        self.mlflow.get_or_init(start).await.lock().await.url()
    }
}

impl Cluster {
    pub async fn start(isolation: &Isolation) -> Self {
        progress("starting a control plane and a node");
        let cache = Cache::open().unwrap();
        let (tools, node_tools) = (
            Tools::locate(&cache).unwrap(),
            NodeTools::locate(&cache).unwrap(),
        );
        let control_plane = ControlPlane::start(&tools, ControlPlaneOptions::for_real_node())
            .await
            .unwrap();
        install_definitions(&control_plane, &tools).await.unwrap();
        let node = Node::start(&control_plane, &node_tools, isolation)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        Self {
            tools,
            node,
            control_plane: Arc::new(control_plane),
        }
    }
}

/// One scenario's namespace, operator and model server.
pub struct Fixture {
    pub namespace: TestNamespace,
    operator: Operator,
    client: Client,
    scenario: &'static str,
    model: String,
    environment: Arc<Environment>,
    replicas: usize,
}

impl Fixture {
    /// Registers a model of three versions and binds it to this Deployment, with these fields of `rollback` changed.
    /// Returns when the version is live, so that a rollback to it is possible.
    pub async fn serving(
        environment: &Arc<Environment>,
        scenario: &'static str,
        version: &str,
        deployment: Value,
        rollback: Value,
    ) -> Self {
        let mut fixture = Self::new(environment, scenario).await;
        fixture.declare(version, deployment, rollback).await;
        fixture.is_live(version).await;
        fixture
    }

    /// The operator in a namespace of its own.
    pub async fn new(environment: &Arc<Environment>, scenario: &'static str) -> Self {
        let cluster = environment.cluster().await;
        let namespace = TestNamespace::start(&cluster.control_plane, scenario)
            .await
            .unwrap();
        let release = namespace.namespace().to_owned();
        let mut options = OperatorOptions::watching(
            PathBuf::from(env!("CARGO_BIN_EXE_pointsman")),
            &release,
            &[&release],
        );
        options.namespace.clone_from(&release);
        let operator = Operator::start(&cluster.control_plane, &cluster.tools, &options)
            .await
            .unwrap();
        namespace.report_log(&operator.log_file());
        cluster
            .node
            .logs()
            .iter()
            .for_each(|log| namespace.report_log(log));
        let client = Registrar::shared(MlflowVersion::Three)
            .await
            .unwrap()
            .at(&environment.mlflow().await);
        Self {
            namespace,
            operator,
            client,
            scenario,
            model: release,
            environment: Arc::clone(environment),
            replicas: REPLICAS,
        }
    }

    async fn register(&self, champion: &str) {
        self.client
            .create_registered_model(&self.model)
            .await
            .unwrap();
        for number in 1..=3 {
            let source = format!("s3://models/{}/{number}", self.model);
            self.client
                .create_model_version(&self.model, &source)
                .await
                .unwrap();
        }
        self.client
            .set_alias(&self.model, "champion", champion)
            .await
            .unwrap();
    }

    pub async fn alias(&self, version: &str) {
        progress(&format!(
            "{}: the alias moves to version {version}",
            self.scenario
        ));
        self.client
            .set_alias(&self.model, "champion", version)
            .await
            .unwrap();
    }

    /// Registers a model of three versions and binds it to this Deployment.
    pub async fn declare(&mut self, version: &str, deployment: Value, rollback: Value) {
        self.register(version).await;
        let replicas = deployment["spec"]["replicas"].as_u64();
        self.replicas = replicas.and_then(|count| count.try_into().ok()).unwrap();
        for object in [deployment, service()] {
            self.namespace.kubectl_apply(object).await.unwrap();
        }
        let mut settings = json!({"maxRestarts": MAX_RESTARTS, "bakeSeconds": BAKE_SECONDS});
        merge(&mut settings, rollback);
        let binding = resources::alias_binding("binding", "model", SERVER);
        for object in [
            resources::model_registry(&self.environment.mlflow().await),
            resources::registered_model("model", &self.model),
            with_spec(binding, json!({"rollback": settings})),
        ] {
            self.namespace.apply_object(&object).await.unwrap();
        }
    }

    /// Waits until only this version runs and it is live.
    pub async fn is_live(&self, version: &str) -> Value {
        self.only_runs(version).await;
        let binding = self.reports(version, "Live").await;
        let (scenario, replicas) = (self.scenario, self.replicas);
        progress(&format!(
            "{scenario}: {replicas} pods serve version {version}"
        ));
        binding
    }

    pub fn scenario(&self) -> &str {
        self.scenario
    }

    /// Starts to send requests to the Service.
    pub async fn load(&self, options: LoadOptions) -> Load {
        Load::start(
            self.namespace.client(),
            self.namespace.namespace(),
            SERVER,
            options,
        )
        .await
        .unwrap()
    }

    /// Stops the requests and records the results.
    pub async fn settle(&self, load: Load, remark: String) -> Tally {
        let tally = load.end().await.unwrap();
        progress(&format!(
            "{}: {} requests, {} failed",
            self.scenario, tally.sent, tally.failed
        ));
        self.environment.note(Row {
            scenario: self.scenario,
            tally: tally.clone(),
            remark,
        });
        tally
    }

    /// Waits until the template of the Deployment has this version.
    pub async fn has_version(&self, version: &str) {
        let has_version = |deployment: &Value| template_version(deployment) == version;
        self.namespace
            .eventually(
                "the Deployment has the version",
                PATIENCE,
                &DEPLOYMENT,
                SERVER,
                has_version,
            )
            .await;
    }

    /// Waits until every pod runs this version and is ready, and no other pods are left, not even terminating ones.
    pub async fn only_runs(&self, version: &str) {
        self.has_version(version).await;
        let only_this = |pods: &Objects| {
            pods.len() == self.replicas
                && pods
                    .values()
                    .all(|pod| pod_version(pod) == version && is_ready(pod))
        };
        self.namespace
            .eventually_all(
                &format!("only version {version} runs"),
                PATIENCE,
                &POD,
                &Selection::Labelled("app=server"),
                only_this,
            )
            .await;
    }

    /// Waits until the binding runs this version and its condition Ready has this reason.
    pub async fn reports(&self, version: &str, reason: &str) -> Value {
        let holds = |binding: &Value| {
            binding["status"]["running"]["version"] == version
                && condition(binding, "Ready")["reason"] == reason
        };
        self.namespace
            .eventually(
                &format!("the binding reports {reason}"),
                PATIENCE,
                &ALIAS_BINDING,
                "binding",
                holds,
            )
            .await
    }

    /// Waits until a container of this version has exited, and returns the time that the kubelet wrote.
    pub async fn first_crash(&self, version: &str) -> jiff::Timestamp {
        let ended = |pods: &Objects| {
            pods.values()
                .filter(|pod| pod_version(pod) == version)
                .filter_map(end_of)
                .min()
        };
        let pods = self
            .namespace
            .eventually_all(
                "a container crashes",
                PATIENCE,
                &POD,
                &Selection::Labelled("app=server"),
                |pods| ended(pods).is_some(),
            )
            .await;
        ended(&pods).unwrap()
    }

    /// Waits until a container of this version has exited after so many restarts. The kubelet reports `terminated` first, and
    /// `CrashLoopBackOff` possibly only near the end of the back-off.
    pub async fn last_crash(&self, version: &str, restarts: u64) {
        let has_ended = |pod: &Value| {
            let container = &pod["status"]["containerStatuses"][0];
            let runs = container["state"]["running"].is_object();
            pod_version(pod) == version && !runs && container["restartCount"] == restarts
        };
        let one_has = |pods: &Objects| pods.values().any(has_ended);
        self.namespace
            .eventually_all(
                "the last crash",
                PATIENCE,
                &POD,
                &Selection::Labelled("app=server"),
                one_has,
            )
            .await;
    }

    /// Stops the operator and deletes the namespace.
    pub async fn end(mut self) -> ScenarioResult {
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

/// Prints the progress of the tests: some wait for minutes.
pub fn progress(text: &str) {
    eprintln!("  {text}");
}

/// A Deployment that fails no request in a rollout: a readiness probe, a grace period, and no unavailable pods.
pub fn deployment(behavior: &str) -> Value {
    let container = json!({
        "name": "server",
        "image": image::MODEL_SERVER,
        "imagePullPolicy": "Never",
        "env": [{"name": "BEHAVIOR", "value": behavior}],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": SERVER},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": SERVER}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": {"app": SERVER}},
                "spec": {
                    "automountServiceAccountToken": false,
                    // The node has no cluster DNS, of which the kubelet warns otherwise.
                    "dnsPolicy": "Default",
                    "terminationGracePeriodSeconds": 15,
                    "containers": [container],
                },
            },
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVER},
        "spec": {"clusterIP": "None", "selector": {"app": SERVER}, "ports": [{"port": 8080}]},
    })
}

pub fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .and_then(|all| all.iter().find(|each| each["type"] == type_))
        .unwrap_or(&Value::Null)
}

pub fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready")["status"] == "True"
}

fn template_version(deployment: &Value) -> &str {
    pod_version(&deployment["spec"]["template"])
}

pub fn pod_version(pod: &Value) -> &str {
    pod["metadata"]["annotations"]["pointsman.dev/model-version"]
        .as_str()
        .unwrap_or_default()
}

/// The time at which the pod's container first exited; a waiting container keeps it in its last state.
fn end_of(pod: &Value) -> Option<jiff::Timestamp> {
    let container = &pod["status"]["containerStatuses"][0];
    let finished = [&container["lastState"], &container["state"]]
        .map(|state| &state["terminated"]["finishedAt"]);
    finished
        .into_iter()
        .find_map(|time| time.as_str()?.parse().ok())
}
