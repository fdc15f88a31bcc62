//! The behaviour of the real `MLflow`, version 3 and version 2, that the scenarios rely on.
//! Absent: Pointsman itself; its scenarios are in the root crate.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic fails the test

use std::fs;
use std::future::Future;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use pointsman_env::interceptor::{Interceptor, Method, When, matching};
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::{Client, ClientError, How, Registrar};
use serde_json::json;

const MODEL: &str = "house prices é";

fn main() -> ExitCode {
    pointsman_env::supervise_if_asked();
    let arguments = Arguments::from_args();
    let both = |name: &str, test: fn(MlflowVersion) -> BoxedTest| {
        [MlflowVersion::Three, MlflowVersion::Two]
            .map(|version| trial(format!("{}_{name}", version.name()), move || test(version)))
    };
    let mut trials = Vec::new();
    trials.extend(both(
        "registers_in_both_ways_and_moves_the_alias",
        |version| Box::pin(registers(version)),
    ));
    trials.extend(both(
        "keeps_its_data_over_a_restart_and_leaves_no_worker",
        |version| Box::pin(restarts(version)),
    ));
    trials.extend(both("refuses_in_its_own_words", |version| {
        Box::pin(refuses(version))
    }));
    trials.extend(both("asks_for_the_password", |version| {
        Box::pin(authenticates(version))
    }));
    trials.push(trial(
        "seeded_models_are_found_by_the_server".into(),
        || Box::pin(seeds()),
    ));
    trials.push(trial("workspaces_are_separate".into(), || {
        Box::pin(workspaces())
    }));
    trials.push(trial(
        "an_alias_write_can_be_paused_after_the_server_did_it".into(),
        || Box::pin(pauses()),
    ));
    let conclusion = libtest_mimic::run(&arguments, trials);
    pointsman_env::process::remove_run_folders();
    conclusion.exit_code()
}

type BoxedTest = std::pin::Pin<Box<dyn Future<Output = ()>>>;

fn trial(name: String, test: impl FnOnce() -> BoxedTest + Send + 'static) -> Trial {
    Trial::test(name.clone(), move || {
        let started = Instant::now();
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(test());
        eprintln!("{name}: {:.1} s", started.elapsed().as_secs_f64());
        Ok(())
    })
}

async fn start(version: MlflowVersion) -> (Mlflow, Client) {
    let mlflow = Mlflow::start(version, MlflowOptions::default())
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let client = Registrar::shared(version)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
        .at(&mlflow.url());
    (mlflow, client)
}

async fn registers(version: MlflowVersion) {
    let (_mlflow, client) = start(version).await;
    let first = client
        .train_and_register(MODEL, How::RegisterModel, 0.1)
        .await
        .unwrap();
    let second = client
        .train_and_register(MODEL, How::CreateModelVersion, 0.2)
        .await
        .unwrap();
    let third = client
        .create_model_version(MODEL, "s3://bucket/models/x")
        .await
        .unwrap();
    assert_eq!(
        (
            first.version.as_str(),
            second.version.as_str(),
            third.as_str()
        ),
        ("1", "2", "3")
    );
    if version == MlflowVersion::Three {
        assert!(first.source.starts_with("models:/m-"), "{first:?}");
    } else {
        assert!(first.source.starts_with("mlflow-artifacts:/"), "{first:?}");
    }
    assert_eq!(second.source, format!("runs:/{}/model", second.run_id));
    client.set_alias(MODEL, "champion", "2").await.unwrap();
    client.set_alias(MODEL, "champion", "1").await.unwrap();
    client
        .set_tag(MODEL, Some("1"), "approved", "yes")
        .await
        .unwrap();
    client.set_tag(MODEL, None, "team", "ml").await.unwrap();
    client
        .transition_stage(MODEL, "2", "Production")
        .await
        .unwrap();
    client.rename_model(MODEL, "prices").await.unwrap();
    let model = client.get_model("prices").await.unwrap();
    assert_eq!(model["aliases"], json!({"champion": "1"}));
    assert_eq!(model["tags"]["team"], "ml");
    client.delete_version("prices", "1").await.unwrap();
    // MLflow 2 keeps the alias without a version.
    let left = if version == MlflowVersion::Three {
        json!({})
    } else {
        json!({"champion": "1"})
    };
    assert_eq!(client.get_model("prices").await.unwrap()["aliases"], left);
    client.delete_alias("prices", "champion").await.unwrap();
    client.delete_model("prices").await.unwrap();
}

async fn restarts(version: MlflowVersion) {
    let (mut mlflow, client) = start(version).await;
    client.create_registered_model(MODEL).await.unwrap();
    client
        .create_model_version(MODEL, "s3://bucket/x")
        .await
        .unwrap();
    client.set_alias(MODEL, "champion", "1").await.unwrap();
    let port = mlflow.url().rsplit(':').next().unwrap().to_owned();
    assert!(!processes_with_argument(&port).is_empty());
    mlflow.stop().await;
    assert_no_process(&port);
    let requested = Instant::now();
    let error = client.get_model(MODEL).await.unwrap_err();
    assert!(
        requested.elapsed() < Duration::from_secs(10),
        "{error} took {:?}",
        requested.elapsed()
    );
    mlflow.start_again().await.unwrap();
    assert_eq!(
        client.get_model(MODEL).await.unwrap()["aliases"],
        json!({"champion": "1"})
    );
    drop(mlflow);
    assert_no_process(&port);
}

/// No process of this server is left. A killed process ends when it is scheduled next, which takes a moment on a busy machine.
fn assert_no_process(port: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !processes_with_argument(port).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(processes_with_argument(port), Vec::<String>::new());
}

fn processes_with_argument(port: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains("mlflow") && line.contains(port))
        .collect()
}

async fn refuses(version: MlflowVersion) {
    let (_mlflow, client) = start(version).await;
    let error = client.set_alias("nope", "champion", "1").await.unwrap_err();
    let ClientError::Refused { message, code, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(code.as_deref(), Some("RESOURCE_DOES_NOT_EXIST"));
    assert!(message.contains("nope"), "{message}");
}

async fn authenticates(version: MlflowVersion) {
    let basic_auth = Some(("user".to_owned(), "correct horse 100%".to_owned()));
    let options = MlflowOptions {
        basic_auth,
        ..MlflowOptions::default()
    };
    let mlflow = Mlflow::start(version, options)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let client = Registrar::shared(version).await.unwrap().at(&mlflow.url());
    client.create_registered_model(MODEL).await.unwrap_err();
    let client = client.with_basic_auth("user", "correct horse 100%");
    client
        .train_and_register(MODEL, How::RegisterModel, 0.5)
        .await
        .unwrap();
}

async fn seeds() {
    let (mlflow, client) = start(MlflowVersion::Three).await;
    client
        .seed(&mlflow.database(), "seeded", 1000)
        .await
        .unwrap();
    client.bulk_create("made", 20).await.unwrap();
    for model in ["seeded-00999", "made-00019"] {
        let shown = client.get_model(model).await.unwrap();
        assert_eq!(shown["aliases"], json!({"champion": "1"}));
        assert_eq!(shown["latest_versions"][0]["version"], "2");
    }
}

async fn workspaces() {
    let options = MlflowOptions {
        workspaces: true,
        workers: 2,
        ..MlflowOptions::default()
    };
    let mlflow = Mlflow::start(MlflowVersion::Three, options)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let client = Registrar::shared(MlflowVersion::Three)
        .await
        .unwrap()
        .at(&mlflow.url());
    client.create_registered_model(MODEL).await.unwrap();
    client
        .clone()
        .in_workspace("default")
        .get_model(MODEL)
        .await
        .unwrap();
    let other = client.clone().in_workspace("team-a");
    other.get_model(MODEL).await.unwrap_err();
    let url = format!("{}/api/3.0/mlflow/workspaces", mlflow.url());
    let created = reqwest::Client::new()
        .post(url)
        .json(&json!({"name": "team-a"}))
        .send()
        .await
        .unwrap();
    assert!(created.status().is_success(), "{created:?}");
    other.get_model(MODEL).await.unwrap_err();
    other.create_registered_model(MODEL).await.unwrap();
}

async fn pauses() {
    let (mlflow, direct) = start(MlflowVersion::Three).await;
    let interceptor = Interceptor::start(mlflow.url(), None).await.unwrap();
    let through = Registrar::shared(MlflowVersion::Three)
        .await
        .unwrap()
        .at(&interceptor.url());
    through
        .train_and_register(MODEL, How::CreateModelVersion, 0.3)
        .await
        .unwrap();
    let mark = interceptor.mark();
    let alias_write = matching::request(Method::POST, "/registered-models/alias");
    let mut pause = interceptor.pause(alias_write, When::After);
    let setting = tokio::spawn(async move { through.set_alias(MODEL, "champion", "1").await });
    pause.reached().await;
    // The registrar waits for the stopped request, so the server is read without it.
    let url = format!("{}/api/2.0/mlflow/registered-models/get", mlflow.url());
    let shown = reqwest::Client::new()
        .get(url)
        .query(&[("name", MODEL)])
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        shown.contains(r#""alias": "champion""#) || shown.contains(r#""alias":"champion""#),
        "{shown}"
    );
    assert!(!setting.is_finished());
    pause.release();
    setting.await.unwrap().unwrap();
    assert_eq!(interceptor.writes_since(mark).len(), 1);
    assert_eq!(interceptor.writes_since(mark)[0].status, Some(200));
    direct.get_model(MODEL).await.unwrap();
}
