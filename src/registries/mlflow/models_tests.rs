//! Tests of looking at many models: how a server's ways are learnt, and what is believed of its answers.
//!
//! Absent: real servers; those are in the test target `registry`.

use super::super::Credentials;
use super::super::hostile::{Hostile, Reply};
use super::*;
use crate::api::Reason;

type Outcome = Result<(), Box<dyn std::error::Error>>;

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
async fn thousand_models_are_one_request() -> Outcome {
    let server =
        Hostile::start(|_, _| page(&["model-000000000000000000000001", "other"], None)).await?;
    let facts = server
        .registry(Credentials::None)?
        .look(&names(1000))
        .await?;
    assert_eq!(
        facts.into_keys().collect::<Vec<_>>(),
        ["model-000000000000000000000001"]
    );
    assert_eq!(server.heads().len(), 1);
    Ok(())
}

#[tokio::test]
async fn no_names_ask_nothing() -> Outcome {
    let server = Hostile::start(|_, _| Reply::HangUp).await?;
    assert!(
        server
            .registry(Credentials::None)?
            .look(&BTreeSet::new())
            .await?
            .is_empty()
    );
    assert!(server.heads().is_empty());
    Ok(())
}

#[tokio::test]
async fn short_request_lines_are_learnt_once() -> Outcome {
    for refusal in [
        Reply::typed(
            "400 Bad Request",
            "text/html",
            "<html>Request Line is too large</html>",
        ),
        Reply::typed("414 URI Too Long", "text/plain", ""),
        Reply::HangUp,
    ] {
        let server = Hostile::start(move |_, head| {
            if request_line(head).len() > 4094 {
                refusal.clone()
            } else {
                page(&["x"], Some("more"))
            }
        })
        .await?;
        let registry = server.registry(Credentials::None)?;
        let wanted = names(200);
        assert_eq!(
            registry
                .look(&wanted)
                .await
                .err()
                .map(|fault| fault.reason()),
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
async fn server_without_in_is_walked_where_that_is_shorter() -> Outcome {
    let server = Hostile::start(|_, head| match request_line(head) {
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
    let registry = server.registry(Credentials::None)?;
    let wanted = ["a", "b", "d"].map(str::to_owned).into();
    for requests in [3, 5] {
        assert_eq!(
            registry
                .look(&wanted)
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
            .look(&BTreeSet::from(["b".to_owned()]))
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
async fn walk_is_left_where_asking_by_name_is_shorter() -> Outcome {
    let server = Hostile::start(|number, head| match request_line(head) {
        line if line.contains("filter=") => page(&["model-000000000000000000000007"], None),
        _ => page(&["z"], Some(&number.to_string())),
    })
    .await?;
    let registry = server.registry(Credentials::None)?;
    registry.remember(Habit {
        line: SHORT_LINE,
        ..Habit::default()
    });
    let wanted = names(300);
    registry.look(&wanted).await?;
    let (first, second) = (server.heads().len(), {
        registry.look(&wanted).await?;
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
async fn pages_without_an_end_are_found_out() -> Outcome {
    for next in [page(&["a"], Some("same")), page(&[], Some("same"))] {
        let server = Hostile::start(move |_, _| next.clone()).await?;
        let fault = server
            .registry(Credentials::None)?
            .look(&names(1))
            .await
            .err()
            .ok_or("believed")?;
        assert_eq!(fault.reason(), Reason::RegistryAnswerInvalid, "{fault}");
        assert!(server.heads().len() <= 2);
    }
    Ok(())
}

#[tokio::test]
async fn server_that_is_away_is_no_reason_to_ask_otherwise() -> Outcome {
    let server =
        Hostile::start(|_, _| Reply::typed("500 Oops", "text/plain", "database is locked")).await?;
    let registry = server.registry(Credentials::None)?;
    assert_eq!(
        registry
            .look(&names(3))
            .await
            .err()
            .map(|fault| fault.reason()),
        Some(Reason::RegistryUnreachable)
    );
    assert_eq!(
        (server.heads().len(), registry.habit()),
        (2, Habit::default())
    );
    Ok(())
}

#[tokio::test]
async fn a_page_that_failed_once_is_asked_for_again() -> Outcome {
    let oops = Reply::typed(
        "500 Oops",
        "text/plain",
        "AST constructor recursion depth mismatch",
    );
    let server = Hostile::start(move |number, _| {
        if number == 0 {
            oops.clone()
        } else {
            page(&["a"], None)
        }
    })
    .await?;
    let facts = server
        .registry(Credentials::None)?
        .look(&BTreeSet::from(["a".to_owned()]))
        .await?;
    assert_eq!((facts.len(), server.heads().len()), (1, 2));
    Ok(())
}

#[tokio::test]
async fn another_model_than_asked_for_is_not_believed() -> Outcome {
    let server =
        Hostile::start(|_, _| Reply::json("200 OK", r#"{"registered_model":{"name":"M"}}"#))
            .await?;
    assert_eq!(
        server
            .registry(Credentials::None)?
            .get_model("m")
            .await
            .err()
            .map(|fault| fault.reason()),
        Some(Reason::RegistryAnswerInvalid)
    );
    Ok(())
}

#[test]
fn facts_keep_what_is_well_formed() -> Outcome {
    let model: wire::RegisteredModel = serde_json::from_value(json!({
        "name": "m", "creation_timestamp": 1_795_420_212_449_i64, "description": "d", "tags": [{"key": "team", "value": "ml"}, {"value": "x"}],
        "aliases": [{"alias": "champion", "version": "2"}, {"alias": "bad", "version": "2; rm"}, {"alias": "x".repeat(256), "version": "1"}, {"alias": "number", "version": 3}],
        "latest_versions": [
            {"version": "9", "current_stage": "Production"}, {"version": "10", "current_stage": "None"}, {"version": "8", "current_stage": "Production"}, {"version": "abc", "current_stage": "Staging"}
        ]
    }))?;
    let facts = read_facts(model).ok_or("no facts")?;
    assert_eq!(
        facts.aliases,
        BTreeMap::from([
            ("champion".to_owned(), "2".to_owned()),
            ("number".to_owned(), "3".to_owned())
        ])
    );
    assert_eq!(
        facts.stages,
        BTreeMap::from([("Production".to_owned(), "9".to_owned())])
    );
    assert_eq!(facts.latest_version.as_deref(), Some("10"));
    assert_eq!(
        facts.tags,
        BTreeMap::from([("team".to_owned(), "ml".to_owned())])
    );
    assert_eq!(
        facts.created_at.map(jiff::Timestamp::as_millisecond),
        Some(1_795_420_212_449)
    );
    Ok(())
}
