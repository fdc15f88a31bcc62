//! Tests of the client against servers that respond slowly, endlessly or with invalid data.
//!
//! Absent: real servers; those are in the test target `registry`.

use super::super::request::SMALL_RESPONSE;
use super::*;
use crate::api::Reason;
use crate::http::hostile::{HostileServer, Reply};
use crate::registries::testing::{TestResult, connection, mlflow_client};

fn connect(connection: Connection) -> Result<Client, RegistryError> {
    _ = rustls::crypto::ring::default_provider().install_default();
    Client::connect(connection, RequestMetrics::default())
}

/// The error of a request whose every connection gets this reply.
async fn error_of(
    reply: Reply,
    credentials: Credentials,
) -> Result<RegistryError, Box<dyn std::error::Error>> {
    let server = HostileServer::start(move |_, _| reply.clone()).await?;
    let answer = mlflow_client(&server, credentials)?.model("m").await;
    Ok(answer.err().ok_or("no error")?)
}

fn basic() -> Credentials {
    Credentials::Basic {
        username: "ada".to_owned(),
        password: "hunter2-hunter2".to_owned(),
    }
}

#[tokio::test]
async fn an_html_page_is_not_a_registry() -> TestResult {
    let error = error_of(
        Reply::typed("200 OK", "text/html; charset=utf-8", "<html>Sign in</html>"),
        Credentials::None,
    )
    .await?;
    assert_eq!(error.reason(), Reason::RegistryAnswerInvalid);
    assert!(
        error
            .to_string()
            .contains("is this an MLflow server? Check spec.mlflow.uri"),
        "{error}"
    );
    let error = error_of(
        Reply::typed("200 OK", "application/json", " \n<html>"),
        Credentials::None,
    )
    .await?;
    assert!(error.to_string().contains("HTML"), "{error}");
    Ok(())
}

#[tokio::test]
async fn an_html_404_does_not_prove_absence() -> TestResult {
    for status in ["404 Not Found", "405 Method Not Allowed"] {
        let error = error_of(
            Reply::typed(status, "text/html", "<html>nothing here</html>"),
            Credentials::None,
        )
        .await?;
        assert!(
            matches!(error, RegistryError::WrongServer { .. }) && !error.is_not_found(),
            "{error}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn mlflows_own_not_found_proves_absence() -> TestResult {
    let body = r#"{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"Registered Model with name=m not found"}"#;
    let server = HostileServer::start(move |_, _| Reply::json("404 Not Found", body)).await?;
    assert_eq!(
        mlflow_client(&server, Credentials::None)?
            .model("m")
            .await?,
        None
    );
    Ok(())
}

#[tokio::test]
async fn broken_json_is_refused() -> TestResult {
    for body in [
        r#"{"registered_model":{"name":"m""#,
        "{]",
        "[]",
        "",
        "null",
        r#"{"registered_model":7}"#,
        "{}",
    ] {
        let error = error_of(Reply::json("200 OK", body), Credentials::None).await?;
        assert_eq!(
            error.reason(),
            Reason::RegistryAnswerInvalid,
            "{body}: {error}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_response_shorter_than_announced_is_refused() -> TestResult {
    let reply = Reply::Raw(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"registered_model\":"
            .to_owned(),
    );
    let error = error_of(reply, Credentials::None).await?;
    assert!(error.to_string().contains("breaks off"), "{error}");
    assert_eq!(error.reason(), Reason::RegistryAnswerInvalid);
    Ok(())
}

#[tokio::test]
async fn an_endless_response_is_cut_off() -> TestResult {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"registered_model\":\"";
    let error = error_of(Reply::Endless(head.to_owned()), Credentials::None).await?;
    assert!(
        matches!(
            error,
            RegistryError::TooLarge {
                limit: SMALL_RESPONSE,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.reason(), Reason::RegistryAnswerInvalid);
    Ok(())
}

#[tokio::test]
async fn a_response_that_drips_times_out() -> TestResult {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{}",
        " ".repeat(4000)
    );
    let error = error_of(Reply::Drip(head), Credentials::None).await?;
    assert!(matches!(error, RegistryError::TimedOut { .. }), "{error}");
    assert_eq!(error.reason(), Reason::RegistryUnreachable);
    Ok(())
}

#[tokio::test]
async fn refused_credentials_are_named_by_kind() -> TestResult {
    let page = Reply::typed("401 Unauthorized", "text/html", "You are not authenticated");
    for (credentials, kind) in [
        (Credentials::None, "no credentials"),
        (basic(), "a user name and password"),
        (Credentials::Bearer("t0k3n".to_owned()), "a bearer token"),
    ] {
        let error = error_of(page.clone(), credentials).await?;
        assert_eq!(error.reason(), Reason::RegistryRefused);
        assert!(
            error.to_string().contains(kind) && error.to_string().contains("spec.auth"),
            "{error}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_host_names_the_flag_to_set() -> TestResult {
    let reply = Reply::typed(
        "403 Forbidden",
        "text/plain",
        "Invalid Host header - possible DNS rebinding attack detected",
    );
    let server = HostileServer::start(move |_, _| reply.clone()).await?;
    let error = mlflow_client(&server, Credentials::None)?
        .model("m")
        .await
        .err()
        .ok_or("no error")?;
    let host = server.uri.trim_start_matches("http://");
    assert!(
        error.to_string().contains(&format!(
            "start it with `--allowed-hosts '{host},localhost,localhost:*,127.0.0.1:*,10.*,172.*,192.168.*'`"
        )),
        "{error}"
    );
    assert_eq!(error.reason(), Reason::RegistryRefused);
    Ok(())
}

#[tokio::test]
async fn a_redirect_is_reported_and_not_followed() -> TestResult {
    let reply = Reply::Raw(
        "HTTP/1.1 302 Found\r\nLocation: https://sso.example.test/login?state=s3cr3t\r\nContent-Length: 0\r\n\r\n"
            .to_owned(),
    );
    let server = HostileServer::start(move |_, _| reply.clone()).await?;
    let error = mlflow_client(&server, basic())?
        .model("m")
        .await
        .err()
        .ok_or("no error")?;
    assert!(
        error.to_string().contains("https://sso.example.test")
            && !error.to_string().contains("s3cr3t"),
        "{error}"
    );
    assert_eq!(
        (error.reason(), server.heads().len()),
        (Reason::RegistryAnswerInvalid, 1)
    );
    Ok(())
}

#[tokio::test]
async fn secrets_that_the_server_repeats_are_redacted() -> TestResult {
    let said = "no: YWRhOmh1bnRlcjItaHVudGVyMg== is ada:hunter2-hunter2\u{1b}[2J";
    let body = serde_json::json!({"error_code": "INVALID_STATE", "message": said}).to_string();
    for reply in [
        Reply::json("400 Bad Request", &body),
        Reply::typed("500 Oops", "text/plain", said),
        Reply::typed("403 Forbidden", "text/plain", said),
    ] {
        let error = error_of(reply, basic()).await?;
        let shown = format!("{error} {error:?}");
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
async fn headers_of_the_secret_are_sent_and_never_shown() -> TestResult {
    let said = "no entry with hunter2-access";
    let server =
        HostileServer::start(move |_, _| Reply::typed("403 Forbidden", "text/plain", said)).await?;
    let connection = |name: &str, value: &str| {
        let mut connection = Connection::mlflow(server.uri.clone());
        connection.headers = [(name.to_owned(), value.to_owned())].into();
        connection
    };
    let registry = connect(connection("X-Access-Client", "hunter2-access\n"))?;
    let error = registry.model("m").await.err().ok_or("no error")?;
    let shown = format!("{error} {error:?} {registry:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let heads = server.heads();
    assert!(
        heads[0].contains("x-access-client: hunter2-access\r\n"),
        "{heads:?}"
    );
    for (name, value, fault) in [
        ("Host", "elsewhere", "is set by Pointsman itself"),
        ("X-MLflow-Workspace", "b", "is set by Pointsman itself"),
        ("two words", "a", "is no name of a header"),
        ("X-A", "a\nb: hunter2", "a value that cannot be sent"),
    ] {
        let error = connect(connection(name, value)).err().ok_or(name)?;
        let text = error.to_string();
        assert_eq!(error.reason(), Reason::InvalidSpec);
        assert!(text.contains(fault) && !text.contains("hunter2"), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_read_is_retried_once_after_a_short_outage() -> TestResult {
    let server = HostileServer::start(|number, _| match number {
        0 => Reply::typed("503 Service Unavailable", "text/html", "<html>busy</html>"),
        _ => Reply::json("200 OK", r#"{"registered_model":{"name":"m"}}"#),
    })
    .await?;
    assert!(
        mlflow_client(&server, Credentials::None)?
            .model("m")
            .await?
            .is_some()
    );
    assert_eq!(server.heads().len(), 2);
    Ok(())
}

#[tokio::test]
async fn changes_are_never_retried() -> TestResult {
    let server =
        HostileServer::start(|_, _| Reply::typed("503 Service Unavailable", "text/plain", "busy"))
            .await?;
    let error = mlflow_client(&server, Credentials::None)?
        .set_alias("m", "champion", "1")
        .await
        .err()
        .ok_or("no error")?;
    assert_eq!(
        (error.reason(), server.heads().len()),
        (Reason::RegistryUnreachable, 1)
    );
    Ok(())
}

#[tokio::test]
async fn a_client_that_may_not_write_sends_no_change() -> TestResult {
    let server =
        HostileServer::start(|_, _| Reply::json("200 OK", r#"{"registered_model":{"name":"m"}}"#))
            .await?;
    let connection = connection(&server, Credentials::None);
    let client = Client::connect_fenced(connection, RequestMetrics::default(), Arc::new(|| false))?;
    let changed = client.set_alias("m", "champion", "1").await;
    assert!(
        matches!(changed, Err(RegistryError::NotLeading)),
        "{changed:?}"
    );
    assert_eq!(server.heads().len(), 0);
    assert!(client.model("m").await?.is_some(), "it may read");
    Ok(())
}

#[tokio::test]
async fn an_address_that_is_refused_gets_no_request() -> TestResult {
    let server = HostileServer::start(|_, _| Reply::json("200 OK", "{}")).await?;
    let guard = crate::http::guard::AddressGuard::for_tenants(Vec::new(), Vec::new(), &[]);
    let port = server.uri.rsplit_once(':').ok_or("no port")?.1.to_owned();
    for host in ["127.0.0.1", "localhost"] {
        let connection = Connection {
            guard: guard.clone(),
            ..Connection::mlflow(format!("http://{host}:{port}"))
        };
        let answer = match connect(connection) {
            Ok(client) => client.model("m").await.map(drop),
            Err(error) => Err(error),
        };
        let error = answer.err().ok_or("no error")?;
        assert!(error.to_string().contains("address"), "{error}");
    }
    assert_eq!(server.heads().len(), 0);
    Ok(())
}

#[tokio::test]
async fn a_closed_connection_is_unreachable() -> TestResult {
    let server = HostileServer::start(|_, _| Reply::HangUp).await?;
    let error = mlflow_client(&server, Credentials::None)?
        .model("m")
        .await
        .err()
        .ok_or("no error")?;
    assert_eq!(error.reason(), Reason::RegistryUnreachable, "{error}");
    let error = connect(Connection::mlflow("http://127.0.0.1:1/base"))?
        .model("m")
        .await
        .err()
        .ok_or("no error")?;
    assert!(
        error
            .to_string()
            .contains("http://127.0.0.1:1/base/api/2.0/mlflow/registered-models/get: "),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn the_workspace_is_sent_only_if_the_server_has_workspaces() -> TestResult {
    for (enabled, heads) in [(true, 3), (false, 1)] {
        let server = HostileServer::start(move |_, head| {
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
        let registry = connect(Connection::new(Server::Mlflow {
            uri: server.uri.clone(),
            workspace: Some("team-a".to_owned()),
        }))?;
        let first = registry.model("m").await;
        assert_eq!(
            first.as_ref().err().map(RegistryError::reason),
            (!enabled).then_some(Reason::InvalidSpec)
        );
        if enabled {
            registry.model("m").await?;
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
async fn each_request_uses_a_new_connection_and_a_user_agent() -> TestResult {
    let server = HostileServer::start(|_, _| Reply::Raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 33\r\n\r\n{\"registered_model\":{\"name\":\"m\"}}".to_owned())).await?;
    let registry = mlflow_client(&server, Credentials::None)?;
    registry.model("m").await?;
    registry.model("m").await?;
    assert_eq!(server.heads().len(), 2);
    assert!(
        server.heads().iter().all(|head| head.contains(concat!("user-agent: pointsman/", env!("CARGO_PKG_VERSION"))))
    );
    Ok(())
}

#[test]
fn invalid_addresses_name_the_fix() {
    for (uri, says) in [
        ("mlflow:5000", "must begin with http"),
        ("ftp://mlflow", "must begin with http"),
        ("http://", "is no URI"),
        ("http://ada:hunter2@mlflow", "spec.auth.basic.secretRef"),
        ("http://mlflow?x=1", "no query"),
        ("nonsense", "is no URI"),
    ] {
        let error = connect(Connection::mlflow(uri))
            .err()
            .map(|error| (error.reason(), error.to_string()));
        assert!(
            error
                .as_ref()
                .is_some_and(|(reason, text)| *reason == Reason::InvalidSpec
                    && text.contains(says)
                    && !text.contains("hunter2")),
            "{uri}: {error:?}"
        );
    }
}

#[test]
fn invalid_certificates_are_an_invalid_spec() {
    for pem in [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        _ = rustls::crypto::ring::default_provider().install_default();
        let connection = Connection {
            ca_pem: Some(pem.to_owned()),
            ..Connection::mlflow("https://mlflow")
        };
        assert_eq!(
            connect(connection).err().map(|error| error.reason()),
            Some(Reason::InvalidSpec),
            "{pem}"
        );
    }
}
