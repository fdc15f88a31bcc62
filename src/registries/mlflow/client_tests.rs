//! Tests of the transport, against servers that answer as they should not.
//!
//! Absent: real servers; those are in the test target `registry`.

use super::super::hostile::{Hostile, Reply};
use super::*;
use crate::api::Reason;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// What a question ends with, where each connection gets this answer.
async fn fault_of(
    reply: Reply,
    credentials: Credentials,
) -> Result<RegistryError, Box<dyn std::error::Error>> {
    let server = Hostile::start(move |_, _| reply.clone()).await?;
    let answer = server.registry(credentials)?.get_model("m").await;
    Ok(answer.err().ok_or("the answer was believed")?)
}

fn basic() -> Credentials {
    Credentials::Basic {
        username: "ada".to_owned(),
        password: "hunter2-hunter2".to_owned(),
    }
}

#[tokio::test]
async fn page_for_people_is_no_registry() -> Outcome {
    let fault = fault_of(
        Reply::typed("200 OK", "text/html; charset=utf-8", "<html>Sign in</html>"),
        Credentials::None,
    )
    .await?;
    assert_eq!(fault.reason(), Reason::RegistryAnswerInvalid);
    assert!(
        fault
            .to_string()
            .contains("is this an MLflow server? Check spec.mlflow.uri"),
        "{fault}"
    );
    let fault = fault_of(
        Reply::typed("200 OK", "application/json", " \n<html>"),
        Credentials::None,
    )
    .await?;
    assert!(fault.to_string().contains("HTML"), "{fault}");
    Ok(())
}

#[tokio::test]
async fn html_404_is_no_proof_of_absence() -> Outcome {
    for status in ["404 Not Found", "405 Method Not Allowed"] {
        let fault = fault_of(
            Reply::typed(status, "text/html", "<html>nothing here</html>"),
            Credentials::None,
        )
        .await?;
        assert!(
            matches!(fault, RegistryError::NotMlflow { .. }) && !fault.is_not_found(),
            "{fault}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn plain_absence_is_believed() -> Outcome {
    let body = r#"{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"Registered Model with name=m not found"}"#;
    let server = Hostile::start(move |_, _| Reply::json("404 Not Found", body)).await?;
    assert_eq!(
        server.registry(Credentials::None)?.get_model("m").await?,
        None
    );
    Ok(())
}

#[tokio::test]
async fn broken_json_is_refused() -> Outcome {
    for body in [
        r#"{"registered_model":{"name":"m""#,
        "{]",
        "[]",
        "",
        "null",
        r#"{"registered_model":7}"#,
        "{}",
    ] {
        let fault = fault_of(Reply::json("200 OK", body), Credentials::None).await?;
        assert_eq!(
            fault.reason(),
            Reason::RegistryAnswerInvalid,
            "{body}: {fault}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn answer_shorter_than_announced_is_refused() -> Outcome {
    let reply = Reply::Raw(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"registered_model\":"
            .to_owned(),
    );
    let fault = fault_of(reply, Credentials::None).await?;
    assert!(fault.to_string().contains("breaks off"), "{fault}");
    assert_eq!(fault.reason(), Reason::RegistryAnswerInvalid);
    Ok(())
}

#[tokio::test]
async fn endless_answer_is_cut_off() -> Outcome {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"registered_model\":\"";
    let fault = fault_of(Reply::Endless(head.to_owned()), Credentials::None).await?;
    assert!(
        matches!(
            fault,
            RegistryError::TooLarge {
                limit: SMALL_ANSWER,
                ..
            }
        ),
        "{fault}"
    );
    assert_eq!(fault.reason(), Reason::RegistryAnswerInvalid);
    Ok(())
}

#[tokio::test]
async fn slow_drip_ends_in_time() -> Outcome {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{}",
        " ".repeat(4000)
    );
    let fault = fault_of(Reply::Drip(head), Credentials::None).await?;
    assert!(matches!(fault, RegistryError::TimedOut { .. }), "{fault}");
    assert_eq!(fault.reason(), Reason::RegistryUnreachable);
    Ok(())
}

#[tokio::test]
async fn wrong_credentials_are_named_by_kind() -> Outcome {
    let page = Reply::typed("401 Unauthorized", "text/html", "You are not authenticated");
    for (credentials, kind) in [
        (Credentials::None, "no credentials"),
        (basic(), "a user name and password"),
        (Credentials::Bearer("t0k3n".to_owned()), "a bearer token"),
    ] {
        let fault = fault_of(page.clone(), credentials).await?;
        assert_eq!(fault.reason(), Reason::RegistryRefused);
        assert!(
            fault.to_string().contains(kind) && fault.to_string().contains("spec.auth"),
            "{fault}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn refused_host_names_the_flag() -> Outcome {
    let reply = Reply::typed(
        "403 Forbidden",
        "text/plain",
        "Invalid Host header - possible DNS rebinding attack detected",
    );
    let server = Hostile::start(move |_, _| reply.clone()).await?;
    let fault = server
        .registry(Credentials::None)?
        .get_model("m")
        .await
        .err()
        .ok_or("believed")?;
    let host = server.uri.trim_start_matches("http://");
    assert!(
        fault.to_string().contains(&format!(
            "start the MLflow server with `--allowed-hosts {host}`"
        )),
        "{fault}"
    );
    assert_eq!(fault.reason(), Reason::RegistryRefused);
    Ok(())
}

#[tokio::test]
async fn redirect_is_named_and_not_followed() -> Outcome {
    let reply = Reply::Raw(
        "HTTP/1.1 302 Found\r\nLocation: https://sso.example.test/login?state=s3cr3t\r\nContent-Length: 0\r\n\r\n"
            .to_owned(),
    );
    let server = Hostile::start(move |_, _| reply.clone()).await?;
    let fault = server
        .registry(basic())?
        .get_model("m")
        .await
        .err()
        .ok_or("believed")?;
    assert!(
        fault.to_string().contains("https://sso.example.test")
            && !fault.to_string().contains("s3cr3t"),
        "{fault}"
    );
    assert_eq!(
        (fault.reason(), server.heads().len()),
        (Reason::RegistryAnswerInvalid, 1)
    );
    Ok(())
}

#[tokio::test]
async fn secrets_that_the_server_says_back_are_hidden() -> Outcome {
    let said = "no: YWRhOmh1bnRlcjItaHVudGVyMg== is ada:hunter2-hunter2\u{1b}[2J";
    let body = serde_json::json!({"error_code": "INVALID_STATE", "message": said}).to_string();
    for reply in [
        Reply::json("400 Bad Request", &body),
        Reply::typed("500 Oops", "text/plain", said),
        Reply::typed("403 Forbidden", "text/plain", said),
    ] {
        let fault = fault_of(reply, basic()).await?;
        let shown = format!("{fault} {fault:?}");
        assert!(
            shown.contains("[redacted]")
                && !shown.contains("hunter2")
                && !shown.contains("YWRh")
                && !shown.contains('\u{1b}'),
            "{shown}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn short_outage_is_asked_through_once() -> Outcome {
    let server = Hostile::start(|number, _| match number {
        0 => Reply::typed("503 Service Unavailable", "text/html", "<html>busy</html>"),
        _ => Reply::json("200 OK", r#"{"registered_model":{"name":"m"}}"#),
    })
    .await?;
    assert!(
        server
            .registry(Credentials::None)?
            .get_model("m")
            .await?
            .is_some()
    );
    assert_eq!(server.heads().len(), 2);
    Ok(())
}

#[tokio::test]
async fn changes_are_never_asked_twice() -> Outcome {
    let server =
        Hostile::start(|_, _| Reply::typed("503 Service Unavailable", "text/plain", "busy"))
            .await?;
    let fault = server
        .registry(Credentials::None)?
        .set_alias("m", "champion", "1")
        .await
        .err()
        .ok_or("believed")?;
    assert_eq!(
        (fault.reason(), server.heads().len()),
        (Reason::RegistryUnreachable, 1)
    );
    Ok(())
}

#[tokio::test]
async fn nobody_there_is_unreachable() -> Outcome {
    let server = Hostile::start(|_, _| Reply::HangUp).await?;
    let fault = server
        .registry(Credentials::None)?
        .get_model("m")
        .await
        .err()
        .ok_or("believed")?;
    assert_eq!(fault.reason(), Reason::RegistryUnreachable, "{fault}");
    let fault = Registry::connect(Connection::new("http://127.0.0.1:1/base"))?
        .get_model("m")
        .await
        .err()
        .ok_or("believed")?;
    assert!(
        fault
            .to_string()
            .contains("http://127.0.0.1:1/base/api/2.0/mlflow/registered-models/get: "),
        "{fault}"
    );
    Ok(())
}

#[tokio::test]
async fn workspace_is_sent_only_where_the_server_has_them() -> Outcome {
    for (enabled, heads) in [(true, 3), (false, 1)] {
        let server = Hostile::start(move |_, head| {
            let info = format!(r#"{{"workspaces_enabled":{enabled}}}"#);
            Reply::json(
                "200 OK",
                if head.contains("/server-info") {
                    &info
                } else {
                    r#"{"registered_model":{"name":"m"}}"#
                },
            )
        })
        .await?;
        let registry = Registry::connect(Connection {
            workspace: Some("team-a".to_owned()),
            ..Connection::new(&server.uri)
        })?;
        let first = registry.get_model("m").await;
        assert_eq!(
            first.as_ref().err().map(RegistryError::reason),
            (!enabled).then_some(Reason::InvalidSpec)
        );
        if enabled {
            registry.get_model("m").await?;
        }
        let seen = server.heads();
        assert_eq!(seen.len(), heads);
        assert!(seen.iter().all(|head| {
            head.to_ascii_lowercase()
                .contains("x-mlflow-workspace: team-a")
                != head.contains("/server-info")
        }));
    }
    Ok(())
}

#[tokio::test]
async fn each_question_takes_a_fresh_connection_and_says_who_asks() -> Outcome {
    let server = Hostile::start(|_, _| Reply::Raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 33\r\n\r\n{\"registered_model\":{\"name\":\"m\"}}".to_owned())).await?;
    let registry = server.registry(Credentials::None)?;
    registry.get_model("m").await?;
    registry.get_model("m").await?;
    assert_eq!(server.heads().len(), 2);
    assert!(
        server.heads().iter().all(|head| head.contains(concat!("user-agent: pointsman/", env!("CARGO_PKG_VERSION"))))
    );
    Ok(())
}

#[test]
fn addresses_that_cannot_be_used_say_what_to_write() {
    for (uri, says) in [
        ("mlflow:5000", "must begin with http"),
        ("ftp://mlflow", "must begin with http"),
        ("http://", "is no URI"),
        ("http://ada:hunter2@mlflow", "spec.auth.basic.secretRef"),
        ("http://mlflow?x=1", "no query"),
        ("nonsense", "is no URI"),
    ] {
        let fault = Registry::connect(Connection::new(uri))
            .err()
            .map(|fault| (fault.reason(), fault.to_string()));
        assert!(
            fault
                .as_ref()
                .is_some_and(|(reason, text)| *reason == Reason::InvalidSpec
                    && text.contains(says)
                    && !text.contains("hunter2")),
            "{uri}: {fault:?}"
        );
    }
}

#[test]
fn certificates_that_are_none_are_a_fault_of_the_spec() {
    for pem in [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        _ = rustls::crypto::ring::default_provider().install_default();
        let connection = Connection {
            ca_pem: Some(pem.to_owned()),
            ..Connection::new("https://mlflow")
        };
        assert_eq!(
            Registry::connect(connection)
                .err()
                .map(|fault| fault.reason()),
            Some(Reason::InvalidSpec),
            "{pem}"
        );
    }
}

#[test]
fn debug_shows_no_credentials() {
    let connection = Connection {
        credentials: basic(),
        ..Connection::new("http://ada:hunter2@mlflow/x?hunter2")
    };
    assert!(
        !format!(
            "{connection:?} {:?}",
            Credentials::Bearer("hunter2".to_owned())
        )
        .contains("hunter2")
    );
}

#[test]
fn a_busy_server_says_how_long_it_wants_to_be_left_alone() {
    let now: Timestamp = "2026-11-23T08:00:00Z".parse().expect("a time");
    let asked = |status: u16, header: &str| {
        patience(StatusCode::from_u16(status).expect("a status"), header, now)
            .map(|wait| wait.as_secs())
    };
    assert_eq!(asked(429, "7"), Some(7));
    assert_eq!(asked(429, ""), Some(PATIENCE.as_secs()));
    assert_eq!(asked(429, "999999"), Some(3600));
    assert_eq!(asked(503, "mon, 23 nov 2026 08:01:00 gmt"), Some(60));
    assert_eq!(asked(503, "mon, 23 nov 2026 07:00:00 gmt"), Some(0));
    assert_eq!(
        (asked(503, ""), asked(503, "soon"), asked(500, "7")),
        (None, None, None)
    );
}
