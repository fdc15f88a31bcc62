//! The steps of the demo: train, register, bind, move the alias forward, to a broken version, and back, and show the
//! history.
//! Absent: start and cleanup of the cluster; see `cluster`.

use std::time::{Duration, Instant};

use pointsman_env::error::Context as _;
use pointsman_env::manifests::text;
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::progress::Task;
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::{Client, How, Registrar};
use pointsman_env::{Error, Operator, Result, Tools};
use serde_json::Value;

use super::changes::{Changes, State, number, or_dash, ready, template_version};
use super::cluster::Cluster;
use super::operator;

const MODEL: &str = "nyc-taxi";
/// Long enough for a cluster that pulls the image first.
const PATIENCE: Duration = Duration::from_secs(150);

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: nyc-taxi}
spec:
  replicas: 2
  selector: {matchLabels: {app: nyc-taxi}}
  template:
    metadata: {labels: {app: nyc-taxi}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: server
        image: docker.io/library/busybox:1.37
        # Version 3 cannot be served: its server ends at once.
        command: [sh, -c, '[ \"$MODEL_VERSION\" != 3 ] && exec sleep 86400']
";
/// kwok runs no command, so on the throw-away control plane an annotation gives the pods the same behavior.
const WITH_BEHAVIOR: &str =
    "    metadata: {labels: {app: nyc-taxi}, annotations: {kwok.test/behavior: '3=crash'}}\n";

/// Starts MLflow and the operator, runs the steps, and prints a report if one fails.
pub async fn run(cluster: &Cluster, tools: &Tools) -> Result<()> {
    cluster.make_namespace().await?;
    let starting = Task::start("starting MLflow 3 and its client", 0);
    let (mlflow, registrar) = tokio::try_join!(
        Mlflow::start(MlflowVersion::Three, MlflowOptions::default()),
        Registrar::shared(MlflowVersion::Three)
    )?;
    starting.done();
    let starting = Task::start(
        "installing the kinds, and starting the operator under the chart's roles",
        0,
    );
    let kept = cluster.install_definitions(tools).await?;
    let operator = operator::start(cluster, tools).await?;
    starting.done();
    for name in kept {
        println!("{name} is installed already and stays unchanged.");
    }
    println!(
        "\nOn {}, with MLflow at {} and the operator on this machine.",
        cluster.name(),
        mlflow.url()
    );
    if cluster.is_users() {
        println!(
            "The pods run busybox and do not load the model; they get the variables that a server would."
        );
    }
    let demo = Demo {
        cluster,
        client: registrar.at(&mlflow.url()),
        changes: Changes::watch(cluster),
    };
    let result = demo.run(&mlflow.url()).await;
    if result.is_err() {
        eprintln!("{}", report(cluster, &operator, &mlflow).await);
    }
    result
}

struct Demo<'a> {
    cluster: &'a Cluster,
    client: Client,
    changes: Changes,
}

impl Demo<'_> {
    async fn run(mut self, mlflow: &str) -> Result<()> {
        self.deploy().await?;
        self.train().await?;
        self.bind(mlflow).await?;
        let first = self.replica_set("1")?;
        self.move_alias("A better model is ready", "2").await?;
        self.fail().await?;
        self.move_alias("And version 2 is not better after all. Back", "1")
            .await?;
        let last = self.replica_set("1")?;
        if first != last {
            return Err(Error::new(
                "rolling back",
                format_args!("{last} runs version 1, and {first} did before"),
            ));
        }
        println!(
            "\nVersion 1 runs in the ReplicaSet {last} again, the one that ran it before: no new one was created."
        );
        self.show_record().await
    }

    async fn deploy(&mut self) -> Result<()> {
        heading("A Deployment as a team has it, without any field of Pointsman");
        let since = Instant::now();
        let plain = "    metadata: {labels: {app: nyc-taxi}}\n";
        let deployment = if self.cluster.is_users() {
            DEPLOYMENT.to_owned()
        } else {
            DEPLOYMENT.replace(plain, WITH_BEHAVIOR)
        };
        self.apply(&deployment).await?;
        self.changes
            .until("the Deployment is available", since, PATIENCE, is_complete)
            .await
            .map(drop)
    }

    async fn train(&self) -> Result<()> {
        heading("The data scientist trains a model and registers it, three times");
        python("mlflow.sklearn.log_model(Ridge(alpha=1.0).fit(features, prices), name=\"model\")");
        python(&format!(
            "mlflow.register_model(f\"runs:/{{run_id}}/model\", \"{MODEL}\")"
        ));
        self.train_version(How::RegisterModel, 1.0).await?;
        python("mlflow.sklearn.log_model(Ridge(alpha=0.1).fit(features, prices), name=\"model\")");
        python(&format!(
            "client.create_registered_model(\"{MODEL}\", tags=…, description=…)   # it exists: this is version 2"
        ));
        python(&format!(
            "client.create_model_version(\"{MODEL}\", source=f\"runs:/{{run_id}}/model\", tags=…, description=…)"
        ));
        self.train_version(How::CreateModelVersion, 0.1).await?;
        python("…   # and once more, with alpha=10.0: version 3");
        self.train_version(How::CreateModelVersion, 10.0).await?;
        self.set_alias("1").await
    }

    async fn train_version(&self, how: How, alpha: f64) -> Result<()> {
        let training = Task::start("training and registering", 0);
        let trained = self
            .client
            .train_and_register(MODEL, how, alpha)
            .await
            .context("training")?;
        training.done();
        println!(
            "  version {} of {MODEL}, from run {}, source {}",
            trained.version, trained.run_id, trained.source
        );
        Ok(())
    }

    async fn set_alias(&self, version: &str) -> Result<()> {
        python(&format!(
            "client.set_registered_model_alias(\"{MODEL}\", \"champion\", \"{version}\")"
        ));
        self.client
            .set_alias(MODEL, "champion", version)
            .await
            .context("moving the alias")
    }

    async fn bind(&mut self, mlflow: &str) -> Result<()> {
        heading("The platform team binds the alias to the Deployment");
        let since = Instant::now();
        self.apply(&objects(mlflow)).await?;
        self.changes
            .until("version 1 is live", since, PATIENCE, |state| {
                is_live(state, "1")
            })
            .await?;
        self.changes.print_late_changes(since).await;
        println!("\nThe container now has:");
        let pointer = "/spec/template/spec/containers/0/env";
        let variables = self
            .changes
            .state()
            .get("Deployment", MODEL)
            .pointer(pointer)
            .and_then(Value::as_array);
        for variable in variables.into_iter().flatten() {
            println!("  {}={}", text(variable, "/name"), text(variable, "/value"));
        }
        self.show_state().await
    }

    async fn move_alias(&mut self, why: &str, version: &str) -> Result<()> {
        heading(&format!("{why}: champion moves to version {version}"));
        self.set_alias(version).await?;
        let moved = Instant::now();
        let is_patched =
            |state: &State| template_version(state.get("Deployment", MODEL)) == version;
        let patched = self
            .changes
            .until("the Deployment is patched", moved, PATIENCE, is_patched)
            .await?;
        let what = format!("version {version} is live");
        let live = self
            .changes
            .until(&what, moved, PATIENCE, |state| is_live(state, version))
            .await?;
        self.changes.print_late_changes(moved).await;
        println!(
            "\nAlias moved → Deployment patched: {:.2} s (the registry is polled every 2 s); → live: {:.2} s",
            patched.as_secs_f64(),
            live.as_secs_f64()
        );
        self.show_state().await
    }

    async fn fail(&mut self) -> Result<()> {
        heading("The next one cannot be served: champion moves to version 3");
        self.set_alias("3").await?;
        let moved = Instant::now();
        let is_tried = |state: &State| template_version(state.get("Deployment", MODEL)) == "3";
        self.changes
            .until("version 3 is tried", moved, PATIENCE, is_tried)
            .await?;
        let back = self
            .changes
            .until("version 2 is back", moved, PATIENCE, |state| {
                is_rolled_back(state, "2")
            })
            .await?;
        self.changes.print_late_changes(moved).await;
        println!(
            "\nWithout any action of a person: {:.2} s after the alias moved version 2 is back, and version 3 is held back:",
            back.as_secs_f64()
        );
        println!(
            "  {}",
            ready(self.changes.state().get("AliasBinding", MODEL), "message")
        );
        self.show_state().await
    }

    fn replica_set(&self, version: &str) -> Result<String> {
        let found = self
            .changes
            .state()
            .replica_set_of(version)
            .map(ToOwned::to_owned);
        found.ok_or_else(|| {
            Error::new(
                "looking for the ReplicaSet",
                format_args!("none runs version {version}"),
            )
        })
    }

    async fn show_state(&self) -> Result<()> {
        self.show(&["get", "deployment,replicaset"]).await?;
        self.show(&["get", "aliasbinding"]).await
    }

    async fn show_record(&self) -> Result<()> {
        heading("The history");
        println!("status.history of the AliasBinding, newest first:");
        let printed = self
            .cluster
            .kubectl(&["get", "aliasbinding", MODEL, "-o", "json"], "")
            .await?;
        let binding: Value = serde_json::from_str(&printed).context("reading the AliasBinding")?;
        print!("{}", history(&binding));
        self.show(&["rollout", "history", &format!("deployment/{MODEL}")])
            .await
    }

    async fn apply(&self, manifest: &str) -> Result<()> {
        println!("$ kubectl apply -f - <<EOF\n{manifest}EOF");
        print!(
            "{}",
            indented(
                &self
                    .cluster
                    .kubectl(&["apply", "-f", "-"], manifest)
                    .await?
            )
        );
        Ok(())
    }

    async fn show(&self, arguments: &[&str]) -> Result<()> {
        println!("\n$ kubectl {}", arguments.join(" "));
        print!("{}", indented(&self.cluster.kubectl(arguments, "").await?));
        Ok(())
    }
}

fn objects(mlflow: &str) -> String {
    format!(
        "\
apiVersion: pointsman.dev/v1alpha1
kind: ModelRegistry
metadata: {{name: mlflow}}
spec: {{mlflow: {{uri: \"{mlflow}\"}}, interval: 2s}}
---
apiVersion: pointsman.dev/v1alpha1
kind: RegisteredModel
metadata: {{name: {MODEL}}}
spec: {{registryRef: {{name: mlflow}}, creationPolicy: Observe}}
---
apiVersion: pointsman.dev/v1alpha1
kind: AliasBinding
metadata: {{name: {MODEL}}}
spec:
  modelRef: {{name: {MODEL}}}
  alias: champion
  targetRef: {{name: {MODEL}}}
  rollback: {{maxRestarts: 1, bakeSeconds: 2}}
"
    )
}

/// All replicas are of the present template, and none of an older one is left.
fn is_complete(state: &State) -> bool {
    let deployment = state.get("Deployment", MODEL);
    let wanted = number(deployment, "/spec/replicas");
    let counts = [
        "/status/replicas",
        "/status/updatedReplicas",
        "/status/availableReplicas",
    ];
    wanted > 0
        && number(deployment, "/status/observedGeneration")
            == number(deployment, "/metadata/generation")
        && counts
            .iter()
            .all(|count| number(deployment, count) == wanted)
}

fn is_live(state: &State, version: &str) -> bool {
    let binding = state.get("AliasBinding", MODEL);
    let runs = text(binding, "/status/running/version") == version;
    runs && ready(binding, "status") == "True"
        && ready(binding, "reason") == "Live"
        && is_complete(state)
}

fn is_rolled_back(state: &State, version: &str) -> bool {
    let binding = state.get("AliasBinding", MODEL);
    let runs = text(binding, "/status/running/version") == version;
    runs && ready(binding, "reason") == "RolledBack" && is_complete(state)
}

fn history(binding: &Value) -> String {
    let entries = binding.pointer("/status/history").and_then(Value::as_array);
    let head = row([
        "VERSION", "OUTCOME", "REASON", "STARTED", "FINISHED", "TRIGGER",
    ]);
    let rows = entries.into_iter().flatten().map(|entry| {
        row([
            "/version",
            "/outcome",
            "/reason",
            "/startedAt",
            "/finishedAt",
            "/trigger",
        ]
        .map(|at| or_dash(text(entry, at))))
    });
    std::iter::once(head).chain(rows).collect()
}

fn row([version, outcome, reason, started, finished, trigger]: [&str; 6]) -> String {
    format!("  {version:<8} {outcome:<11} {reason:<11} {started:<22} {finished:<22} {trigger}\n")
}

fn heading(text: &str) {
    println!("\n== {text}\n");
}

fn python(call: &str) {
    println!(">>> {call}");
}

fn indented(printed: &str) -> String {
    printed
        .trim_end()
        .lines()
        .flat_map(|line| ["  ", line, "\n"])
        .collect()
}

/// Objects, Events and logs that may explain the failure of a step.
async fn report(cluster: &Cluster, operator: &Operator, mlflow: &Mlflow) -> String {
    let mut report = String::new();
    for arguments in [
        &[
            "get",
            "deployment,replicaset,pod,aliasbinding,registeredmodel,modelregistry",
        ][..],
        &["describe", "aliasbinding,registeredmodel,modelregistry"],
        &["get", "events"],
    ] {
        let printed = cluster
            .kubectl(arguments, "")
            .await
            .unwrap_or_else(|error| error.to_string());
        report = format!("{report}===== kubectl {}\n{printed}\n", arguments.join(" "));
    }
    format!(
        "{report}===== the operator's log\n{}\n===== MLflow's log\n{}",
        operator.log_tail(40),
        mlflow.log_tail(20)
    )
}
