//! Tests of looking at many models: how a server's ways are learnt, and what is believed of its
//! answers.
//!
//! Absent: real servers; those are in the test target `registry`.

use super::super::search::{SHORT_LINE, SearchStrategy};
use super::*;
use crate::api::Reason;
use crate::http::hostile::{HostileServer, Reply};
use crate::registries::connection::Credentials;
use crate::registries::testing::{TestResult, mlflow_client};

impl Client {
    async fn snapshots(
        &self,
        names: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, ModelSnapshot>, RegistryError> {
        let mut snapshots = BTreeMap::new();
        let insert = |model: ModelSnapshot| _ = snapshots.insert(model.name.clone(), model);
        self.for_each_snapshot(names, insert).await?;
        Ok(snapshots)
    }
}

fn names(count: usize) -> BTreeSet<String> {
    (0..count).map(|i| format!("model-{i:024}")).collect()
}

fn page(names: &[&str], next: Option<&str>) -> Reply {
    let models: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
    Reply::json(
        "200 OK",
        &json!({"registered_models": models, "next_page_token": next}).to_string(),
    )
}

fn request_line(head: &str) -> &str {
    head.lines().next().unwrap_or_default()
}

#[tokio::test]
async fn a_thousand_models_take_one_request() -> TestResult {
    let server =
        HostileServer::start(|_, _| page(&["model-000000000000000000000001", "other"], None))
            .await?;
    let snapshots = mlflow_client(&server, Credentials::None)?
        .snapshots(&names(1000))
        .await?;
    assert_eq!(
        snapshots.into_keys().collect::<Vec<_>>(),
        ["model-000000000000000000000001"]
    );
    assert_eq!(server.heads().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_page_that_takes_too_long_is_smaller_at_the_next_poll() -> TestResult {
    let server = HostileServer::start(|_, head| {
        if request_line(head).contains("max_results=1000") {
            Reply::Drip(format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(200)))
        } else {
            page(&["model-000000000000000000000001"], None)
        }
    })
    .await?;
    let client = mlflow_client(&server, Credentials::None)?;
    let error = client.snapshots(&names(5)).await.err().ok_or("no error")?;
    assert_eq!(error.reason(), Reason::RegistryUnreachable, "{error}");
    assert_eq!(client.snapshots(&names(5)).await?.len(), 1);
    let heads = server.heads();
    assert_eq!(heads.len(), 2);
    assert!(heads[1].contains("max_results=100&"), "{}", heads[1]);
    Ok(())
}

#[tokio::test]
async fn no_page_is_requested_after_all_models_were_found() -> TestResult {
    let server =
        HostileServer::start(|number, _| page(&["taxi"], Some(&format!("another page {number}"))))
            .await?;
    let taxi = BTreeSet::from(["taxi".to_owned()]);
    let client = mlflow_client(&server, Credentials::None)?;
    assert_eq!(client.snapshots(&taxi).await?.len(), 1);
    assert_eq!(server.heads().len(), 1);
    Ok(())
}

#[tokio::test]
async fn no_names_send_no_request() -> TestResult {
    let server = HostileServer::start(|_, _| Reply::HangUp).await?;
    assert!(
        mlflow_client(&server, Credentials::None)?
            .snapshots(&BTreeSet::new())
            .await?
            .is_empty()
    );
    assert!(server.heads().is_empty());
    Ok(())
}

#[tokio::test]
async fn short_request_lines_are_used_after_a_refusal() -> TestResult {
    for refusal in [
        Reply::typed(
            "400 Bad Request",
            "text/html",
            "<html>Request Line is too large</html>",
        ),
        Reply::typed("414 URI Too Long", "text/plain", ""),
        Reply::HangUp,
    ] {
        let server = HostileServer::start(move |_, head| {
            if request_line(head).len() > 4094 {
                refusal.clone()
            } else {
                page(&["x"], Some("more"))
            }
        })
        .await?;
        let registry = mlflow_client(&server, Credentials::None)?;
        let wanted = names(200);
        assert_eq!(
            registry
                .snapshots(&wanted)
                .await
                .err()
                .map(|error| error.reason()),
            Some(Reason::RegistryAnswerInvalid)
        );
        assert!(
            server
                .heads()
                .iter()
                .skip(1)
                .all(|head| request_line(head).len() <= 4094)
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_server_without_in_is_listed_if_that_takes_fewer_requests() -> TestResult {
    let server = HostileServer::start(|_, head| match request_line(head) {
        line if line.contains("filter=") => Reply::json(
            "400 Bad Request",
            r#"{"error_code":"INVALID_PARAMETER_VALUE","message":"Invalid filter"}"#,
        ),
        line if line.contains("page_token=two") => page(&["b"], None),
        line if line.contains("/get?name=b") => {
            Reply::json("200 OK", r#"{"registered_model":{"name":"b"}}"#)
        }
        _ => page(&["a", "c"], Some("two")),
    })
    .await?;
    let registry = mlflow_client(&server, Credentials::None)?;
    let wanted = ["a", "b", "d"].map(str::to_owned).into();
    for requests in [3, 5] {
        assert_eq!(
            registry
                .snapshots(&wanted)
                .await?
                .into_keys()
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(
            server.heads().len(),
            requests,
            "a walk of two pages, after the refusal of the first look"
        );
    }
    assert_eq!(
        registry
            .snapshots(&BTreeSet::from(["b".to_owned()]))
            .await?
            .len(),
        1
    );
    assert_eq!(
        server.heads().len(),
        6,
        "one model is asked for by its name"
    );
    Ok(())
}

#[tokio::test]
async fn a_list_is_abandoned_if_names_take_fewer_requests() -> TestResult {
    let server = HostileServer::start(|number, head| match request_line(head) {
        line if line.contains("filter=") => page(&["model-000000000000000000000007"], None),
        _ => page(&["z"], Some(&number.to_string())),
    })
    .await?;
    let registry = mlflow_client(&server, Credentials::None)?;
    registry.set_search_strategy(SearchStrategy {
        line: SHORT_LINE,
        ..SearchStrategy::default()
    });
    let wanted = names(300);
    registry.snapshots(&wanted).await?;
    let (first, second) = (server.heads().len(), {
        registry.snapshots(&wanted).await?;
        server.heads().len()
    });
    let batches = second - first;
    assert_eq!(
        first,
        2 * batches,
        "a walk of as many pages as there are batches, then the batches"
    );
    assert!(
        server.heads()[first..]
            .iter()
            .all(|head| head.contains("filter="))
    );
    Ok(())
}

#[tokio::test]
async fn endless_pages_are_detected() -> TestResult {
    for next in [page(&["a"], Some("same")), page(&[], Some("same"))] {
        let server = HostileServer::start(move |_, _| next.clone()).await?;
        let error = mlflow_client(&server, Credentials::None)?
            .snapshots(&names(1))
            .await
            .err()
            .ok_or("no error")?;
        assert_eq!(error.reason(), Reason::RegistryAnswerInvalid, "{error}");
        assert!(server.heads().len() <= 2);
    }
    Ok(())
}

#[tokio::test]
async fn an_outage_does_not_change_the_search_strategy() -> TestResult {
    let server =
        HostileServer::start(|_, _| Reply::typed("500 Oops", "text/plain", "database is locked"))
            .await?;
    let registry = mlflow_client(&server, Credentials::None)?;
    assert_eq!(
        registry
            .snapshots(&names(3))
            .await
            .err()
            .map(|error| error.reason()),
        Some(Reason::RegistryUnreachable)
    );
    assert_eq!(
        (server.heads().len(), registry.search_strategy()),
        (2, SearchStrategy::default())
    );
    Ok(())
}

#[tokio::test]
async fn a_page_that_failed_once_is_retried() -> TestResult {
    let oops = Reply::typed(
        "500 Oops",
        "text/plain",
        "AST constructor recursion depth mismatch",
    );
    let server = HostileServer::start(move |number, _| {
        if number == 0 {
            oops.clone()
        } else {
            page(&["a"], None)
        }
    })
    .await?;
    let snapshots = mlflow_client(&server, Credentials::None)?
        .snapshots(&BTreeSet::from(["a".to_owned()]))
        .await?;
    assert_eq!((snapshots.len(), server.heads().len()), (1, 2));
    Ok(())
}

#[tokio::test]
async fn another_model_than_the_requested_one_is_refused() -> TestResult {
    let server =
        HostileServer::start(|_, _| Reply::json("200 OK", r#"{"registered_model":{"name":"M"}}"#))
            .await?;
    assert_eq!(
        mlflow_client(&server, Credentials::None)?
            .model("m")
            .await
            .err()
            .map(|error| error.reason()),
        Some(Reason::RegistryAnswerInvalid)
    );
    Ok(())
}

#[test]
fn a_snapshot_keeps_only_well_formed_values() -> TestResult {
    let model: wire::RegisteredModel = serde_json::from_value(json!({
        "name": "m", "creation_timestamp": 1_795_420_212_449_i64, "description": "d", "tags": [{"key": "team", "value": "ml"}, {"value": "x"}],
        "aliases": [{"alias": "champion", "version": "2"}, {"alias": "bad", "version": "2; rm"}, {"alias": "x".repeat(256), "version": "1"}, {"alias": "number", "version": 3}],
        "latest_versions": [
            {"version": "9", "current_stage": "Production"}, {"version": "10", "current_stage": "None"}, {"version": "8", "current_stage": "Production"}, {"version": "abc", "current_stage": "Staging"}
        ]
    }))?;
    let snapshots = read_snapshot(model).map_err(|fault| format!("{fault:?}"))?;
    assert_eq!(
        snapshots.aliases,
        BTreeMap::from([
            ("champion".to_owned(), "2".to_owned()),
            ("number".to_owned(), "3".to_owned())
        ])
    );
    assert_eq!(
        snapshots.stages,
        BTreeMap::from([("Production".to_owned(), "9".to_owned())])
    );
    assert_eq!(snapshots.latest_version.as_deref(), Some("10"));
    assert_eq!(
        snapshots.tags,
        BTreeMap::from([("team".to_owned(), "ml".to_owned())])
    );
    assert_eq!(
        snapshots.created_at.map(jiff::Timestamp::as_millisecond),
        Some(1_795_420_212_449)
    );
    Ok(())
}

/// A page of so many empty models.
fn page_of(count: usize) -> Reply {
    Reply::json(
        "200 OK",
        &format!(
            "{{\"registered_models\":[{{}}{}]}}",
            ",{}".repeat(count - 1)
        ),
    )
}

async fn error_of_page(reply: Reply) -> Result<(RegistryError, usize), Box<dyn std::error::Error>> {
    let server = HostileServer::start(move |_, _| reply.clone()).await?;
    let snapshots = mlflow_client(&server, Credentials::None)?
        .snapshots(&names(1000))
        .await;
    let error = snapshots.err().ok_or("no error")?;
    assert_eq!(error.reason(), Reason::RegistryAnswerInvalid, "{error}");
    assert!(error.to_string().chars().count() <= 200, "{error}");
    Ok((error, server.heads().len()))
}

#[tokio::test]
async fn a_page_of_more_models_than_were_asked_for_is_refused() -> TestResult {
    let (error, requests) = error_of_page(page_of(1001)).await?;
    assert!(error.to_string().contains("more models than"), "{error}");
    assert_eq!(requests, 1);
    Ok(())
}

#[tokio::test]
async fn small_json_that_becomes_large_structs_is_refused_before_it_is_parsed() -> TestResult {
    let models = page_of(1_300_000);
    let versions = format!(
        "{{\"registered_models\":[{{\"name\":\"m\",\"latest_versions\":[[]{}]}}]}}",
        ",[]".repeat(349_000)
    );
    for page in [models, Reply::json("200 OK", &versions)] {
        let (error, requests) = error_of_page(page).await?;
        assert!(error.to_string().contains("objects and lists"), "{error}");
        assert_eq!(requests, 3, "pages of 1000, 100 and 10 models");
    }
    Ok(())
}

#[tokio::test]
async fn a_page_of_too_many_bytes_is_requested_in_smaller_pages() -> TestResult {
    let long = "x".repeat(5000);
    let server = HostileServer::start(move |_, head| {
        let size = if head.contains("max_results=1000") {
            1000
        } else {
            10
        };
        let models: Vec<_> = (0..size)
            .map(|i| json!({"name": format!("model-{i:024}"), "description": long}))
            .collect();
        let page = json!({"registered_models": models});
        Reply::json("200 OK", &page.to_string())
    })
    .await?;
    let registry = mlflow_client(&server, Credentials::None)?;
    assert_eq!(registry.snapshots(&names(1000)).await?.len(), 10);
    assert_eq!(registry.search_strategy().page_size, 100);
    Ok(())
}

#[tokio::test]
async fn a_model_with_too_many_aliases_hinders_no_other_model() -> TestResult {
    let aliases: Vec<_> = (0..=wire::NESTED)
        .map(|i| json!({"alias": format!("a{i}"), "version": "1"}))
        .collect();
    let large = json!({"name": "large", "aliases": aliases});
    let page = json!({"registered_models": [large, {"name": "small"}]}).to_string();
    let model = json!({"registered_model": large}).to_string();
    let server = HostileServer::start(move |_, head| {
        let is_search = head.contains("registered-models/search");
        Reply::json("200 OK", if is_search { &page } else { &model })
    })
    .await?;
    let registry = mlflow_client(&server, Credentials::None)?;
    let wanted = ["large", "small"].map(str::to_owned).into();
    let found = registry.snapshots(&wanted).await?;
    assert_eq!(found.into_keys().collect::<Vec<_>>(), ["small"]);
    let error = registry.model("large").await.err().ok_or("no error")?;
    assert_eq!(error.reason(), Reason::RegistryAnswerInvalid);
    assert!(error.to_string().contains("1000 aliases"), "{error}");
    Ok(())
}
