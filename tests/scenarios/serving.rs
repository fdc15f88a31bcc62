//! The servers of examples/serving: they load the version of the alias and answer, with the variables that the operator wrote.
//!
//! Absent: images and accelerators. The commands of the containers run on this machine, which has the packages of the image.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pointsman_env::kinds::{ALIAS_BINDING, CONFIG_MAP, DEPLOYMENT};
use pointsman_env::pages;
use pointsman_env::ports::free_port;
use pointsman_env::process::{Child, Program, RunFolder};
use pointsman_env::python::{self, MlflowVersion};
use pointsman_env::resources;
use serde_json::{Value, json};

use crate::fixture::{Environment, Fixture, PATIENCE, ScenarioResult, scenarios};

scenarios!(
    mlflows_own_server_of_the_examples_answers_with_the_version_of_the_alias,
    the_fastapi_server_of_the_examples_answers_with_the_version_of_the_alias,
    the_download_of_the_examples_fetches_the_files_of_the_version_of_the_alias,
);

/// A version of the quick start's model, with champion on it, a registry, and a `RegisteredModel` of this name.
async fn with_model(environment: &Arc<Environment>, name: &str, object: &str) -> Fixture {
    let fixture = Fixture::new(environment, name).await;
    let url = environment.mlflow(MlflowVersion::Three).await;
    let training = pages::repository().join("examples/quickstart/train.py");
    let training = fs::read_to_string(training).unwrap();
    let training = training
        .replace("http://127.0.0.1:5000", &url)
        .replace("nyc-taxi", &fixture.model);
    let mut command = tokio::process::Command::new(python().await);
    command.args(["-c", &training, "0.1"]).kill_on_drop(true);
    let output = command.output().await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    fixture.alias("1").await;
    fixture.declare_registry(json!({})).await;
    let model = resources::registered_model(object, &fixture.model);
    fixture.apply_object(model).await;
    fixture
}

async fn python() -> PathBuf {
    python::environment(MlflowVersion::Three).await.unwrap()
}

/// Applies an example, waits until its binding has written version 1, and returns the Deployment.
async fn applied(fixture: &Fixture, file: &str, name: &str) -> Value {
    let path = pages::repository().join("examples/serving").join(file);
    let manifest = fs::read_to_string(path).unwrap();
    fixture.namespace.kubectl_apply(manifest).await.unwrap();
    let written = |binding: &Value| binding["status"]["running"]["version"] == "1";
    fixture
        .eventually("version 1 is written", &ALIAS_BINDING, name, written)
        .await;
    fixture.namespace.get(&DEPLOYMENT, name).await.unwrap()
}

/// The command of a container as the kubelet would run it, with some of its words replaced by those of this machine.
async fn started(container: &Value, folder: &RunFolder, words: &[(&str, String)]) -> Child {
    let variables: Vec<(String, String)> = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|each| {
            (
                string(&each["name"]),
                string(&each["value"]).replace("$$", "$"),
            )
        })
        .collect();
    let command = container["command"].as_array().unwrap();
    let expanded = command.iter().map(|word| {
        let mut word = string(word);
        for (name, value) in &variables {
            word = word.replace(&format!("$({name})"), value);
        }
        for (from, to) in words {
            word = word.replace(from, to);
        }
        word
    });
    let expanded: Vec<String> = expanded.collect();
    let python = python().await;
    let programs = python.parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", programs.display());
    Program::new("server", programs.join(&expanded[0]))
        .args(&expanded[1..])
        .only_this_environment()
        .envs(variables)
        .env("PATH", path)
        .env("HOME", folder.path())
        .in_its_folder()
        .start(folder.path())
        .unwrap()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Waits until the readiness probe of the container succeeds, and returns the answer to a request.
async fn answer(
    server: &mut Child,
    container: &Value,
    port: u16,
    path: &str,
    body: Value,
) -> Value {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let probe = string(&container["readinessProbe"]["httpGet"]["path"]);
    let probe = format!("http://127.0.0.1:{port}{probe}");
    let ready = async {
        while !http
            .get(&probe)
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            server.still_running().unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let in_time = tokio::time::timeout(2 * PATIENCE, ready).await;
    assert!(
        in_time.is_ok(),
        "{probe} does not succeed\n{}",
        server.tail(40)
    );
    let url = format!("http://127.0.0.1:{port}{path}");
    let answer = http.post(url).json(&body).send().await.unwrap();
    answer.error_for_status().unwrap().json().await.unwrap()
}

/// The fare of a ride of two and a half miles, as the quick start's model was trained.
fn assert_fare(fare: &Value) {
    let fare = fare.as_f64().unwrap();
    assert!((8.5..10.0).contains(&fare), "{fare}");
}

async fn mlflows_own_server_of_the_examples_answers_with_the_version_of_the_alias(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_model(&environment, "mlflow server", "nyc-taxi").await;
    let deployment = applied(&fixture, "mlflow-server.yaml", "fares-mlflow").await;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let (folder, port) = (RunFolder::create("serving").unwrap(), free_port().unwrap());
    let words = [("0.0.0.0", "127.0.0.1".into()), ("8080", port.to_string())];
    let mut server = started(container, &folder, &words).await;
    let rides = json!({"inputs": [[2.5]]});
    let answer = answer(&mut server, container, port, "/invocations", rides).await;
    assert_fare(&answer["predictions"][0]);
    server.terminate().unwrap();
    fixture.end().await
}

async fn the_fastapi_server_of_the_examples_answers_with_the_version_of_the_alias(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_model(&environment, "fastapi server", "nyc-taxi").await;
    let deployment = applied(&fixture, "fastapi.yaml", "fares-fastapi").await;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let (folder, port) = (RunFolder::create("serving").unwrap(), free_port().unwrap());
    let program = fixture
        .namespace
        .get(&CONFIG_MAP, "fares-program")
        .await
        .unwrap();
    fs::write(
        folder.path().join("app.py"),
        string(&program["data"]["app.py"]),
    )
    .unwrap();
    let words = [
        ("0.0.0.0", "127.0.0.1".into()),
        ("8080", port.to_string()),
        ("/program", folder.path().display().to_string()),
    ];
    let mut server = started(container, &folder, &words).await;
    let answer = answer(&mut server, container, port, "/fares", json!([2.5])).await;
    assert_eq!(answer["version"], "1", "{answer}");
    assert_fare(&answer["fares"][0]);
    server.terminate().unwrap();
    fixture.end().await
}

async fn the_download_of_the_examples_fetches_the_files_of_the_version_of_the_alias(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_model(&environment, "download", "assistant").await;
    let deployment = applied(&fixture, "vllm.yaml", "assistant").await;
    let container = &deployment["spec"]["template"]["spec"]["initContainers"][0];
    let folder = RunFolder::create("serving").unwrap();
    let models = folder.path().join("models");
    let words = [("=/models", format!("={}", models.display()))];
    let mut download = started(container, &folder, &words).await;
    let ended = async {
        while download.ended().is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(2 * PATIENCE, ended)
        .await
        .expect("the download ends");
    assert!(download.ended().unwrap().success(), "{}", download.tail(40));
    // The servers of the examples are given /models/*.
    let folders: Vec<_> = fs::read_dir(&models)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    assert!(folders[0].join("MLmodel").exists(), "{folders:?}");
    fixture.end().await
}
