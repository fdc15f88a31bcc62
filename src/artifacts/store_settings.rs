//! The settings of S3, GCS and Azure clients: environment variables from a Secret, which take
//! precedence over those of this process.
//!
//! Absent: a Secret that sends this process's own credentials to another server. If a Secret names
//! credentials or a server, only its own credentials are used; files (tokens, keys) can be named by
//! this process's environment only.

use std::collections::BTreeMap;
use std::fmt;

use url::Url;

use super::location::Cloud;
use crate::http::redact::Redactor;

/// The variables of the Secret and of this process.
#[derive(Clone, Default)]
pub(super) struct StoreSettings {
    secret: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
}

/// The variables for the client of one cloud.
#[derive(Clone, Default)]
pub(super) struct CloudSettings(BTreeMap<String, String>);

/// The variables that may come from a Secret, per cloud: endpoints, options, and then credentials.
const S3_ENDPOINTS: &[&str] = &[
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "MLFLOW_S3_ENDPOINT_URL",
];
const S3_OPTIONS: &[&str] = &[
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_REQUEST_PAYER",
];
const S3_CREDENTIALS: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SKIP_SIGNATURE",
];
const GCS_ENDPOINTS: &[&str] = &["GOOGLE_BASE_URL"];
const GCS_OPTIONS: &[&str] = &["GOOGLE_ALLOW_HTTP"];
const GCS_CREDENTIALS: &[&str] = &[
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_BEARER_TOKEN",
    "GOOGLE_SKIP_SIGNATURE",
];
const AZURE_ENDPOINTS: &[&str] = &["AZURE_STORAGE_ENDPOINT", "AZURE_AUTHORITY_HOST"];
const AZURE_OPTIONS: &[&str] = &["AZURE_ALLOW_HTTP"];
const AZURE_CREDENTIALS: &[&str] = &[
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "AZURE_SKIP_SIGNATURE",
];
/// The variables that may come from this process's environment only: they name files here, or this
/// pod's identity.
const ENVIRONMENT_ONLY: &[&str] = &[
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "GOOGLE_SERVICE_ACCOUNT",
    "AZURE_FEDERATED_TOKEN_FILE",
];
/// The variables whose values are not sent as written: the JSON of a key, or the name of a file.
const UNSENT: &[&str] = &[
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
];
/// The variables that are no secrets.
const PUBLIC: &[&str] = &[
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_CLIENT_ID",
    "AZURE_TENANT_ID",
];

impl Cloud {
    fn keys(self) -> [&'static [&'static str]; 3] {
        match self {
            Self::S3 => [S3_ENDPOINTS, S3_OPTIONS, S3_CREDENTIALS],
            Self::Gcs => [GCS_ENDPOINTS, GCS_OPTIONS, GCS_CREDENTIALS],
            Self::Azure => [AZURE_ENDPOINTS, AZURE_OPTIONS, AZURE_CREDENTIALS],
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::S3 => "AWS_",
            Self::Gcs => "GOOGLE_",
            Self::Azure => "AZURE_",
        }
    }
}

impl fmt::Debug for StoreSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StoreSettings")
    }
}

impl StoreSettings {
    /// Settings from a Secret and an environment. Line breaks that editors leave at the end of a
    /// value are dropped.
    pub(super) fn new(
        secret: BTreeMap<String, String>,
        environment: BTreeMap<String, String>,
    ) -> Self {
        let (mut secret, environment) = (tidy(secret), tidy(environment));
        secret
            .retain(|key, value| key != "GOOGLE_APPLICATION_CREDENTIALS" || value.starts_with('{'));
        Self {
            secret,
            environment,
        }
    }

    /// The settings for the client of one cloud.
    pub(super) fn of_cloud(&self, cloud: Cloud) -> CloudSettings {
        let [endpoint_keys, option_keys, credential_keys] = cloud.keys();
        let endpoints = pick(&self.secret, endpoint_keys);
        let credentials = pick(&self.secret, credential_keys);
        let mut settings = pick(&self.environment, option_keys);
        settings.extend(pick(&self.secret, option_keys));
        if endpoints.is_empty() && credentials.is_empty() {
            settings.extend(pick(&self.environment, credential_keys));
            for (key, value) in pick(&self.environment, ENVIRONMENT_ONLY) {
                if key.starts_with(cloud.prefix()) {
                    settings.insert(key, value);
                }
            }
        }
        if endpoints.is_empty() {
            settings.extend(pick(&self.environment, endpoint_keys));
        } else {
            settings.extend(endpoints);
        }
        settings.extend(credentials);
        CloudSettings(settings).normalized()
    }
}

/// The variables with these names.
fn pick(variables: &BTreeMap<String, String>, keys: &[&str]) -> BTreeMap<String, String> {
    let mut picked = BTreeMap::new();
    for key in keys {
        if let Some(value) = variables.get(*key) {
            picked.insert((*key).to_owned(), value.clone());
        }
    }
    picked
}

/// The variables of stores, with trimmed values.
fn tidy(variables: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let known = |key: &str| {
        ["AWS_", "GOOGLE_", "AZURE_", "MLFLOW_S3_"]
            .iter()
            .any(|prefix| key.starts_with(prefix))
    };
    variables
        .into_iter()
        .map(|(key, value)| (key.to_ascii_uppercase(), value.trim().to_owned()))
        .filter(|(key, value)| known(key) && !value.is_empty())
        .collect()
}

impl CloudSettings {
    /// A variable's value.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All variables under the names of the store library's settings.
    pub(super) fn named(&self) -> impl Iterator<Item = (String, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.to_ascii_lowercase(), value.as_str()))
    }

    /// The server that is used instead of the cloud's own.
    pub(super) fn endpoint(&self) -> Option<&str> {
        [
            "AWS_ENDPOINT_URL",
            "GOOGLE_BASE_URL",
            "AZURE_STORAGE_ENDPOINT",
        ]
        .iter()
        .find_map(|key| self.get(key))
    }

    /// Whether a setting asks for anonymous requests.
    pub(super) fn is_anonymous(&self) -> bool {
        self.0
            .iter()
            .any(|(key, value)| key.ends_with("_SKIP_SIGNATURE") && is_true(value))
    }

    /// A redactor that hides all secret values.
    pub(super) fn redactor(&self) -> Redactor {
        let mut secrets = Vec::new();
        for (key, value) in &self.0 {
            if value.len() > 5 && !PUBLIC.contains(&key.as_str()) && !is_endpoint(key) {
                secrets.push(value.clone());
            }
        }
        // The signature alone is a secret too.
        let token = self.get("AZURE_STORAGE_SAS_KEY").unwrap_or_default();
        for (_, value) in token.split('&').filter_map(|pair| pair.split_once('=')) {
            if value.len() > 15 {
                secrets.push(value.to_owned());
            }
        }
        Redactor::new(secrets)
    }

    /// Checks that all values are well formed and that there are credentials; the error says what
    /// to set.
    pub(super) fn validate(&self, cloud: Cloud) -> Result<(), String> {
        for (key, value) in self.0.iter().filter(|(key, _)| is_endpoint(key)) {
            if !is_server(value) {
                return Err(format!(
                    "{key} must be an address such as http://minio.minio.svc:9000, without user, password and query"
                ));
            }
        }
        self.validate_values()?;
        if self.is_anonymous() {
            return Ok(());
        }
        match cloud {
            Cloud::S3 => self.validate_s3(),
            Cloud::Gcs => self.validate_gcs(),
            Cloud::Azure => self.validate_azure(),
        }
    }

    /// Checks the values that the store library puts into headers and hosts unchecked: it panics on
    /// an invalid header or host, and a region with a slash would name another host, which would
    /// get this process's own credentials.
    fn validate_values(&self) -> Result<(), String> {
        for (key, value) in &self.0 {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            let is_domain = |byte: u8| is_name(byte) || byte == b'.';
            let (is_valid, rule) = match key.as_str() {
                "AWS_REGION" | "AZURE_STORAGE_ACCOUNT_NAME" => {
                    (value.bytes().all(is_name), "letters, digits and hyphens")
                }
                "AZURE_TENANT_ID" => (
                    value.bytes().all(is_domain),
                    "letters, digits, hyphens and dots",
                ),
                key if UNSENT.contains(&key) || ENVIRONMENT_ONLY.contains(&key) => continue,
                _ => (
                    value.bytes().all(|byte| matches!(byte, b' '..=b'~')),
                    "one line of printable ASCII",
                ),
            };
            if !is_valid {
                return Err(format!("{key} must be of {rule} only; set it again"));
            }
        }
        Ok(())
    }

    fn has(&self, keys: &[&str]) -> bool {
        keys.iter().all(|key| self.get(key).is_some())
    }

    fn validate_s3(&self) -> Result<(), String> {
        let key = (
            self.get("AWS_ACCESS_KEY_ID"),
            self.get("AWS_SECRET_ACCESS_KEY"),
        );
        let others = self.has(&["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"])
            || self.has(&["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"])
            || self.has(&[
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            ]);
        match key {
            (Some(_), Some(_)) => Ok(()),
            (Some(_), None) => {
                Err("AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY; set both".to_owned())
            }
            (None, Some(_)) => {
                Err("AWS_SECRET_ACCESS_KEY is set without AWS_ACCESS_KEY_ID; set both".to_owned())
            }
            (None, None) if others => Ok(()),
            (None, None) => Err(missing_credentials(
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                "AWS_SKIP_SIGNATURE",
            )),
        }
    }

    fn validate_gcs(&self) -> Result<(), String> {
        let keys = [
            "GOOGLE_SERVICE_ACCOUNT_KEY",
            "GOOGLE_SERVICE_ACCOUNT",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "GOOGLE_BEARER_TOKEN",
        ];
        let found = keys.iter().any(|key| self.get(key).is_some());
        let missing = || {
            missing_credentials(
                "GOOGLE_SERVICE_ACCOUNT_KEY (the JSON of a service account's key)",
                "GOOGLE_SKIP_SIGNATURE",
            )
        };
        found.then_some(()).ok_or_else(missing)
    }

    fn validate_azure(&self) -> Result<(), String> {
        let found = self.has(&["AZURE_STORAGE_ACCOUNT_KEY"])
            || self.has(&["AZURE_STORAGE_SAS_KEY"])
            || self.has(&["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"])
            || self.has(&[
                "AZURE_CLIENT_ID",
                "AZURE_TENANT_ID",
                "AZURE_FEDERATED_TOKEN_FILE",
            ]);
        let names = "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN (or AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET)";
        found
            .then_some(())
            .ok_or_else(|| missing_credentials(names, "AZURE_SKIP_SIGNATURE"))
    }

    /// Gives each setting one name, and splits texts that hold several settings.
    fn normalized(mut self) -> Self {
        self.rename("AWS_ENDPOINT_URL", S3_ENDPOINTS);
        self.rename("AWS_REGION", &["AWS_REGION", "AWS_DEFAULT_REGION"]);
        self.split_connection_string();
        self.rename(
            "AZURE_STORAGE_ACCOUNT_KEY",
            &["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY"],
        );
        self.rename(
            "AZURE_STORAGE_SAS_KEY",
            &["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"],
        );
        self.normalize_google_key();
        self
    }

    /// Keeps the first value of several names, under the name `to`.
    fn rename(&mut self, to: &str, names: &[&str]) {
        let values: Vec<String> = names
            .iter()
            .filter_map(|name| self.0.remove(*name))
            .collect();
        if let Some(first) = values.into_iter().next() {
            self.0.insert(to.to_owned(), first);
        }
    }

    /// `AccountName=…;AccountKey=…;BlobEndpoint=…;SharedAccessSignature=…`, as Azure's portal shows
    /// it.
    fn split_connection_string(&mut self) {
        let Some(text) = self.0.remove("AZURE_STORAGE_CONNECTION_STRING") else {
            return;
        };
        for (name, value) in text.split(';').filter_map(|pair| pair.split_once('=')) {
            let key = match name.trim() {
                "AccountName" => "AZURE_STORAGE_ACCOUNT_NAME",
                "AccountKey" => "AZURE_STORAGE_ACCOUNT_KEY",
                "BlobEndpoint" => "AZURE_STORAGE_ENDPOINT",
                "SharedAccessSignature" => "AZURE_STORAGE_SAS_KEY",
                _ => continue,
            };
            self.0
                .entry(key.to_owned())
                .or_insert_with(|| value.trim().trim_end_matches('/').to_owned());
        }
    }

    /// The JSON of a key is a key under either name. A path is used only if it comes from this
    /// process's own environment.
    fn normalize_google_key(&mut self) {
        if let Some(text) = self.0.remove("GOOGLE_APPLICATION_CREDENTIALS") {
            let key = if text.starts_with('{') {
                "GOOGLE_SERVICE_ACCOUNT_KEY"
            } else {
                "GOOGLE_APPLICATION_CREDENTIALS"
            };
            self.0.entry(key.to_owned()).or_insert(text);
        }
        if let Some(text) = self.0.get("GOOGLE_SERVICE_ACCOUNT_KEY") {
            // The key of an emulator names a server, which the store library uses: it is checked
            // like any other.
            let key: BTreeMap<String, serde_json::Value> =
                serde_json::from_str(text).unwrap_or_default();
            if let Some(server) = key
                .get("gcs_base_url")
                .and_then(serde_json::Value::as_str)
                .map(str::to_owned)
            {
                self.0.entry("GOOGLE_BASE_URL".to_owned()).or_insert(server);
            }
            self.0.remove("GOOGLE_SERVICE_ACCOUNT");
            self.0.remove("GOOGLE_APPLICATION_CREDENTIALS");
        }
    }
}

fn missing_credentials(names: &str, anonymous: &str) -> String {
    format!(
        "there are no credentials for it; set {names} in the Secret that spec.artifacts of the ModelRegistry names, or {anonymous}=true if everybody may read it"
    )
}

/// Whether a variable names a server.
fn is_endpoint(key: &str) -> bool {
    key.starts_with("AWS_ENDPOINT")
        || matches!(
            key,
            "GOOGLE_BASE_URL" | "AZURE_STORAGE_ENDPOINT" | "AZURE_AUTHORITY_HOST"
        )
}

/// Whether requests can be built on an address. The store library relies on it.
fn is_server(address: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/[]@!$&'()*+,;=%".contains(&byte);
    let is_whole = |url: Url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(|host| !host.is_empty())
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    address.bytes().all(is_plain) && Url::parse(address).is_ok_and(is_whole)
}

fn is_true(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "1" | "true" | "on" | "yes" | "y"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn settings(
        cloud: Cloud,
        secret: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> CloudSettings {
        StoreSettings::new(map(secret), map(environment)).of_cloud(cloud)
    }

    const OWN_KEY: &[(&str, &str)] = &[
        ("AWS_ACCESS_KEY_ID", "own-id"),
        ("AWS_SECRET_ACCESS_KEY", "own-secret"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token"),
        ("AWS_ROLE_ARN", "arn:own"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ENDPOINT_URL", "http://minio:9000"),
    ];

    #[test]
    fn the_environment_alone_is_sufficient() {
        let found = settings(Cloud::S3, &[], OWN_KEY);
        assert_eq!(found.get("AWS_ACCESS_KEY_ID"), Some("own-id"));
        assert_eq!(found.validate(Cloud::S3), Ok(()));
    }

    #[test]
    fn the_secret_takes_precedence_over_the_environment() {
        let secret = [
            ("AWS_ACCESS_KEY_ID", "id\n"),
            ("AWS_SECRET_ACCESS_KEY", "secret\n"),
            ("AWS_DEFAULT_REGION", "us-east-2"),
        ];
        let found = settings(
            Cloud::S3,
            &secret,
            &[("AWS_ENDPOINT_URL", "http://minio:9000")],
        );
        assert_eq!(found.get("AWS_ACCESS_KEY_ID"), Some("id"));
        assert_eq!(
            (found.endpoint(), found.get("AWS_REGION")),
            (Some("http://minio:9000"), Some("us-east-2"))
        );
        assert_eq!(found.validate(Cloud::S3), Ok(()));
    }

    #[test]
    fn a_server_from_a_secret_never_gets_our_own_credentials() {
        let found = settings(
            Cloud::S3,
            &[("MLFLOW_S3_ENDPOINT_URL", "https://evil.example.com")],
            OWN_KEY,
        );
        assert_eq!(found.endpoint(), Some("https://evil.example.com"));
        assert!(
            found
                .validate(Cloud::S3)
                .is_err_and(|why| why.contains("AWS_ACCESS_KEY_ID"))
        );
        let redirected = settings(
            Cloud::S3,
            &[("AWS_ENDPOINT_URL_STS", "https://evil.example.com")],
            OWN_KEY,
        );
        assert_eq!(redirected.get("AWS_ENDPOINT_URL_STS"), None);
    }

    #[test]
    fn a_region_from_a_secret_cannot_name_another_host() {
        for region in [
            "x.evil.example.com/",
            "x@evil.example.com/",
            "evil.example.com#",
            "a b",
            "a\nb",
        ] {
            let found = settings(Cloud::S3, &[("AWS_REGION", region)], &OWN_KEY[..5]);
            assert_eq!(found.get("AWS_ACCESS_KEY_ID"), Some("own-id"));
            assert!(
                found
                    .validate(Cloud::S3)
                    .is_err_and(|why| why.contains("AWS_REGION")),
                "{region}"
            );
        }
        assert_eq!(
            settings(Cloud::S3, &[("AWS_REGION", "us-gov-west-1")], &OWN_KEY[..5])
                .validate(Cloud::S3),
            Ok(())
        );
    }

    #[test]
    fn a_secret_cannot_name_files_of_this_process() {
        let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        for (cloud, secret) in [
            (
                Cloud::S3,
                [
                    ("AWS_WEB_IDENTITY_TOKEN_FILE", token),
                    ("AWS_ROLE_ARN", "arn:x"),
                ],
            ),
            (
                Cloud::S3,
                [
                    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "https://evil"),
                    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token),
                ],
            ),
            (
                Cloud::Azure,
                [
                    ("AZURE_FEDERATED_TOKEN_FILE", token),
                    ("AZURE_AUTHORITY_HOST", "https://evil"),
                ],
            ),
            (
                Cloud::Gcs,
                [
                    ("GOOGLE_SERVICE_ACCOUNT", token),
                    ("GOOGLE_BASE_URL", "https://evil"),
                ],
            ),
        ] {
            let found = settings(cloud, &secret, &[]);
            assert!(found.named().all(|(_, value)| value != token), "{cloud:?}");
            assert!(found.validate(cloud).is_err(), "{cloud:?}");
        }
    }

    #[test]
    fn missing_credentials_are_named() {
        for (cloud, name) in [
            (Cloud::S3, "AWS_ACCESS_KEY_ID"),
            (Cloud::Gcs, "GOOGLE_SERVICE_ACCOUNT_KEY"),
            (Cloud::Azure, "AZURE_STORAGE_ACCOUNT_KEY"),
        ] {
            let why = settings(cloud, &[], &[])
                .validate(cloud)
                .err()
                .unwrap_or_default();
            assert!(
                why.contains(name) && why.contains("spec.artifacts"),
                "{why}"
            );
        }
        let half = settings(Cloud::S3, &[("AWS_ACCESS_KEY_ID", "x")], &[]).validate(Cloud::S3);
        assert!(half.is_err_and(|why| why.contains("set both")));
    }

    #[test]
    fn invalid_servers_are_refused_before_a_client_is_built() {
        for (cloud, key, value) in [
            (Cloud::Azure, "AZURE_STORAGE_ENDPOINT", "mailto:x@y"),
            (Cloud::S3, "AWS_ENDPOINT_URL", "minio:9000"),
            (Cloud::S3, "AWS_ENDPOINT_URL", "http://user:hunter2@minio"),
            (Cloud::Gcs, "GOOGLE_BASE_URL", "http://"),
        ] {
            let why = settings(cloud, &[(key, value)], &[])
                .validate(cloud)
                .err()
                .unwrap_or_default();
            assert!(why.contains(key) && !why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn a_connection_string_is_split_into_settings() {
        let text = "DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=a2V5a2V5a2V5==;EndpointSuffix=core.windows.net";
        let found = settings(
            Cloud::Azure,
            &[("AZURE_STORAGE_CONNECTION_STRING", text)],
            &[],
        );
        assert_eq!(
            (
                found.get("AZURE_STORAGE_ACCOUNT_NAME"),
                found.get("AZURE_STORAGE_ACCOUNT_KEY")
            ),
            (Some("acct"), Some("a2V5a2V5a2V5=="))
        );
        assert_eq!(
            found.redactor().clean("key a2V5a2V5a2V5=="),
            "key [redacted]"
        );
    }

    #[test]
    fn a_google_key_is_recognized_by_its_content() {
        let found = settings(
            Cloud::Gcs,
            &[("GOOGLE_APPLICATION_CREDENTIALS", "{\"type\":1}")],
            &[],
        );
        assert_eq!(
            found.get("GOOGLE_SERVICE_ACCOUNT_KEY"),
            Some("{\"type\":1}")
        );
        let path = settings(
            Cloud::Gcs,
            &[("GOOGLE_APPLICATION_CREDENTIALS", "/etc/passwd")],
            &[],
        );
        assert!(
            path.validate(Cloud::Gcs).is_err(),
            "a Secret named a file of this process"
        );
        let own = settings(
            Cloud::Gcs,
            &[],
            &[("GOOGLE_APPLICATION_CREDENTIALS", "/key.json")],
        );
        assert_eq!(own.validate(Cloud::Gcs), Ok(()));
    }
}
