//! Checks a connection's settings and builds the HTTP client from them.
//!
//! Absent: requests. An address that may hold a password is never repeated in an error.

use reqwest::RequestBuilder;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use crate::http::body::root_cause;
use crate::http::uri::brief;
use crate::registries::connection::{Connection, Credentials};
use crate::registries::error::RegistryError;

/// The base address, which must be plain http or https.
pub(super) fn parse_base(uri: &str) -> Result<Url, RegistryError> {
    let invalid = |fault: &str| {
        Err(RegistryError::configuration(format!(
            "spec.mlflow.uri {fault}"
        )))
    };
    let Ok(url) = Url::parse(uri) else {
        return invalid("is no URI: write it as http://mlflow.mlflow.svc:5000");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return invalid(
            "must begin with http:// or https:// and name a host, such as http://mlflow.mlflow.svc:5000",
        );
    }
    if !url.username().is_empty() || url.password().is_some() {
        return invalid(
            "must hold no user or password: put them into a Secret and name it in spec.auth.basic.secretRef",
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return invalid("must hold no query (?) and no fragment (#)");
    }
    Ok(url)
}

/// The workspace as a header's value.
pub(super) fn workspace_header(workspace: &str) -> Result<HeaderValue, RegistryError> {
    HeaderValue::from_str(workspace).map_err(|_| {
        RegistryError::configuration(
            "spec.mlflow.workspace holds characters that cannot be sent: use letters, digits and -",
        )
    })
}

/// A client that follows no redirects and reuses no connection. Https uses the proxy that the process's environment names.
pub(super) fn build_client(
    connection: &Connection,
    base: &Url,
) -> Result<reqwest::Client, RegistryError> {
    if !connection.guard.admits_url(base) {
        return Err(RegistryError::configuration(
            "spec.mlflow.uri names an address to which Pointsman sends no requests; name another one, or have whoever runs Pointsman allow its network (network.allow of the chart, --allow-networks)",
        ));
    }
    let builder = reqwest::Client::builder()
        .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .default_headers(extra_headers(connection)?)
        .dns_resolver(connection.guard.resolver())
        // A reused connection to uvicorn stalls for 44 ms (delayed ACK); a fresh one takes about 1
        // ms.
        .pool_max_idle_per_host(0)
        .connect_timeout(connection.connect_timeout)
        .timeout(connection.total_timeout);
    let builder = match &connection.ca_pem {
        Some(pem) => builder.tls_certs_only(parse_authorities(pem)?),
        // Plain http needs no certificates, and must work if none are installed.
        None if base.scheme() == "http" => builder.tls_certs_only([]),
        None => builder,
    };
    // Plain http stays in the cluster: credentials are shown to no proxy.
    let builder = match base.scheme() {
        "http" => builder.no_proxy(),
        _ => builder,
    };
    let builder = match &connection.identity_pem {
        Some(pem) => builder.identity(parse_identity(pem)?),
        None => builder,
    };
    builder.build().map_err(|error| {
        RegistryError::configuration(format!(
            "TLS cannot be set up: {}; check spec.tls",
            root_cause(&error)
        ))
    })
}

fn parse_identity(pem: &str) -> Result<reqwest::Identity, RegistryError> {
    reqwest::Identity::from_pem(pem.as_bytes()).map_err(|_| {
        RegistryError::configuration(
            "the Secret that spec.tls.clientCertificateSecretRef names holds no certificate and key in PEM form: set tls.crt and tls.key",
        )
    })
}

/// Headers that the client itself sets, or that concern a connection.
const OWN_HEADERS: [&str; 10] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "range",
    "x-mlflow-workspace",
];

/// The headers of the spec. Their values are marked as secrets.
fn extra_headers(connection: &Connection) -> Result<HeaderMap, RegistryError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &connection.headers {
        let invalid = |fault: &str| {
            RegistryError::configuration(format!(
                "the Secret of spec.mlflow.headersSecretRef: {} {fault}",
                brief(name)
            ))
        };
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let parsed = parsed.map_err(|_| invalid("is no name of a header; correct the key"))?;
        let is_credential =
            parsed == AUTHORIZATION && !matches!(connection.credentials, Credentials::None);
        if is_credential || OWN_HEADERS.contains(&parsed.as_str()) {
            return Err(invalid("is set by Pointsman itself; remove the key"));
        }
        let value = HeaderValue::from_str(value.trim_end_matches(['\r', '\n']));
        let mut value = value
            .map_err(|_| invalid("has a value that cannot be sent; look for line breaks in it"))?;
        value.set_sensitive(true);
        headers.insert(parsed, value);
    }
    Ok(headers)
}

fn parse_authorities(pem: &str) -> Result<Vec<reqwest::Certificate>, RegistryError> {
    match reqwest::Certificate::from_pem_bundle(pem.as_bytes()) {
        Ok(authorities) if !authorities.is_empty() => Ok(authorities),
        _ => Err(RegistryError::configuration(
            "the ConfigMap that spec.tls names holds no certificates in PEM form (-----BEGIN CERTIFICATE-----)",
        )),
    }
}

/// The request with the credentials in its header.
pub(super) fn authenticate(request: RequestBuilder, credentials: &Credentials) -> RequestBuilder {
    match credentials {
        Credentials::None => request,
        Credentials::Basic { username, password } => request.basic_auth(username, Some(password)),
        Credentials::Bearer(token) => request.bearer_auth(token),
    }
}

/// The text after `Basic` or `Bearer` in the header, which is a secret too.
pub(super) fn authorization(
    http: &reqwest::Client,
    base: &Url,
    credentials: &Credentials,
) -> Result<Option<String>, RegistryError> {
    let request = authenticate(http.get(base.clone()), credentials).build();
    let request = request.map_err(|_| {
        RegistryError::configuration(format!(
            "spec.auth: {} cannot be sent in a header; look for line breaks in the Secret",
            credentials.kind()
        ))
    })?;
    let Some(value) = request.headers().get(AUTHORIZATION) else {
        return Ok(None);
    };
    let value = value.to_str().unwrap_or_default();
    Ok(value.split_once(' ').map(|(_, secret)| secret.to_owned()))
}
