//! What the clients of S3, GCS and Azure are told: environment variables of a Secret over those of this process.
//!
//! Absent: a Secret that sends this process's own credentials elsewhere. One that names credentials or a server uses
//! its own credentials only, and files (tokens, keys) are named by this process's environment alone.

use std::collections::BTreeMap;
use std::fmt;

use url::Url;

use super::place::Cloud;
use crate::registries::mlflow::redact::Redactor;

/// The variables by where they come from.
#[derive(Clone, Default)]
pub(super) struct Settings {
    secret: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
}

/// The variables that one cloud's client is told.
#[derive(Clone, Default)]
pub(super) struct Chosen(BTreeMap<String, String>);

/// What may come from a Secret, per cloud: what says where and how, and then what lets in.
const S3_WHERE: &[&str] = &[
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "MLFLOW_S3_ENDPOINT_URL",
];
const S3_HOW: &[&str] = &[
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_REQUEST_PAYER",
];
const S3_WHO: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SKIP_SIGNATURE",
];
const GCS_WHERE: &[&str] = &["GOOGLE_BASE_URL"];
const GCS_HOW: &[&str] = &["GOOGLE_ALLOW_HTTP"];
const GCS_WHO: &[&str] = &[
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_BEARER_TOKEN",
    "GOOGLE_SKIP_SIGNATURE",
];
const AZURE_WHERE: &[&str] = &["AZURE_STORAGE_ENDPOINT", "AZURE_AUTHORITY_HOST"];
const AZURE_HOW: &[&str] = &["AZURE_ALLOW_HTTP"];
const AZURE_WHO: &[&str] = &[
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
/// What only this process's own environment may say: it names files here, or who this pod is.
const OWN: &[&str] = &[
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
/// What is read, and not sent as it is: a key's JSON, or a file's name.
const UNSENT: &[&str] = &[
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
];
/// What need not be kept from people's eyes.
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
            Self::S3 => [S3_WHERE, S3_HOW, S3_WHO],
            Self::Gcs => [GCS_WHERE, GCS_HOW, GCS_WHO],
            Self::Azure => [AZURE_WHERE, AZURE_HOW, AZURE_WHO],
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

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Settings")
    }
}

impl Settings {
    /// The Secret's variables over the environment's. Line breaks that editors leave at an end are dropped.
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

    /// What one cloud's client is told.
    pub(super) fn choose(&self, cloud: Cloud) -> Chosen {
        let [place, how, who] = cloud.keys();
        let from = |source: &BTreeMap<String, String>, keys: &[&str]| -> BTreeMap<String, String> {
            keys.iter()
                .filter_map(|key| Some(((*key).to_owned(), source.get(*key)?.clone())))
                .collect()
        };
        let mut chosen = from(&self.environment, how);
        chosen.extend(from(&self.secret, how));
        let (places, names) = (from(&self.secret, place), from(&self.secret, who));
        if places.is_empty() && names.is_empty() {
            chosen.extend(from(&self.environment, who));
            chosen.extend(
                from(&self.environment, OWN)
                    .into_iter()
                    .filter(|(key, _)| key.starts_with(cloud.prefix())),
            );
        }
        chosen.extend(if places.is_empty() {
            from(&self.environment, place)
        } else {
            places
        });
        chosen.extend(names);
        Chosen(chosen).spelled_one_way()
    }
}

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

impl Chosen {
    /// A variable's value.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All variables, named as the stores' library names its settings.
    pub(super) fn named(&self) -> impl Iterator<Item = (String, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.to_ascii_lowercase(), value.as_str()))
    }

    /// The server that is asked instead of the cloud's own.
    pub(super) fn endpoint(&self) -> Option<&str> {
        [
            "AWS_ENDPOINT_URL",
            "GOOGLE_BASE_URL",
            "AZURE_STORAGE_ENDPOINT",
        ]
        .iter()
        .find_map(|key| self.get(key))
    }

    /// Whether nothing is signed, because somebody says so.
    pub(super) fn is_anonymous(&self) -> bool {
        self.0
            .iter()
            .any(|(key, value)| key.ends_with("_SKIP_SIGNATURE") && is_true(value))
    }

    /// What hides all of this in words.
    pub(super) fn redactor(&self) -> Redactor {
        let secret = |(key, value): (&String, &String)| {
            let hidden = value.len() > 5 && !PUBLIC.contains(&key.as_str()) && !is_place(key);
            hidden.then(|| value.clone())
        };
        let whole = self.0.iter().filter_map(secret);
        let parts = self
            .get("AZURE_STORAGE_SAS_KEY")
            .into_iter()
            .flat_map(|token| token.split('&'));
        let parts = parts
            .filter_map(|pair| pair.split_once('='))
            .map(|(_, value)| value.to_owned());
        Redactor::new(
            whole
                .chain(parts.filter(|value| value.len() > 15))
                .collect::<Vec<_>>(),
        )
    }

    /// Whether there is something to be let in with; else what to set, and whether all of it is well formed.
    pub(super) fn check(&self, cloud: Cloud) -> Result<(), String> {
        for (key, value) in self.0.iter().filter(|(key, _)| is_place(key)) {
            if !is_server(value) {
                return Err(format!(
                    "{key} must be an address such as http://minio.minio.svc:9000, without user, password and query"
                ));
            }
        }
        self.check_words()?;
        if self.is_anonymous() {
            return Ok(());
        }
        match cloud {
            Cloud::S3 => self.check_s3(),
            Cloud::Gcs => self.check_gcs(),
            Cloud::Azure => self.check_azure(),
        }
    }

    /// What the stores' library puts into headers and hosts as it is: it panics where that is no header and no host,
    /// and a region with a slash in it would be another host, which gets this process's own credentials.
    fn check_words(&self) -> Result<(), String> {
        for (key, value) in &self.0 {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            let is_domain = |byte: u8| is_name(byte) || byte == b'.';
            let (well, rule) = match key.as_str() {
                "AWS_REGION" | "AZURE_STORAGE_ACCOUNT_NAME" => {
                    (value.bytes().all(is_name), "letters, digits and hyphens")
                }
                "AZURE_TENANT_ID" => (
                    value.bytes().all(is_domain),
                    "letters, digits, hyphens and dots",
                ),
                key if UNSENT.contains(&key) || OWN.contains(&key) => continue,
                _ => (
                    value.bytes().all(|byte| matches!(byte, b' '..=b'~')),
                    "one line of printable ASCII",
                ),
            };
            if !well {
                return Err(format!("{key} must be of {rule} only; set it again"));
            }
        }
        Ok(())
    }

    fn has(&self, keys: &[&str]) -> bool {
        keys.iter().all(|key| self.get(key).is_some())
    }

    fn check_s3(&self) -> Result<(), String> {
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
            (None, None) => Err(wanted(
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                "AWS_SKIP_SIGNATURE",
            )),
        }
    }

    fn check_gcs(&self) -> Result<(), String> {
        let keys = [
            "GOOGLE_SERVICE_ACCOUNT_KEY",
            "GOOGLE_SERVICE_ACCOUNT",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "GOOGLE_BEARER_TOKEN",
        ];
        let found = keys.iter().any(|key| self.get(key).is_some());
        let missing = || {
            wanted(
                "GOOGLE_SERVICE_ACCOUNT_KEY (the JSON of a service account's key)",
                "GOOGLE_SKIP_SIGNATURE",
            )
        };
        found.then_some(()).ok_or_else(missing)
    }

    fn check_azure(&self) -> Result<(), String> {
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
            .ok_or_else(|| wanted(names, "AZURE_SKIP_SIGNATURE"))
    }

    /// The many names of one thing become one, and what a text holds becomes variables.
    fn spelled_one_way(mut self) -> Self {
        self.rename("AWS_ENDPOINT_URL", S3_WHERE);
        self.rename("AWS_REGION", &["AWS_REGION", "AWS_DEFAULT_REGION"]);
        self.open_connection_string();
        self.rename(
            "AZURE_STORAGE_ACCOUNT_KEY",
            &["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY"],
        );
        self.rename(
            "AZURE_STORAGE_SAS_KEY",
            &["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"],
        );
        self.open_google_key();
        self
    }

    /// Keeps the first that is set of several names, under one of them.
    fn rename(&mut self, to: &str, names: &[&str]) {
        let values: Vec<String> = names
            .iter()
            .filter_map(|name| self.0.remove(*name))
            .collect();
        if let Some(first) = values.into_iter().next() {
            self.0.insert(to.to_owned(), first);
        }
    }

    /// `AccountName=…;AccountKey=…;BlobEndpoint=…;SharedAccessSignature=…`, as Azure's portal shows it.
    fn open_connection_string(&mut self) {
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

    /// A key's JSON is a key under whatever name it comes; a path is one only in this process's own environment.
    fn open_google_key(&mut self) {
        if let Some(text) = self.0.remove("GOOGLE_APPLICATION_CREDENTIALS") {
            let key = if text.starts_with('{') {
                "GOOGLE_SERVICE_ACCOUNT_KEY"
            } else {
                "GOOGLE_APPLICATION_CREDENTIALS"
            };
            self.0.entry(key.to_owned()).or_insert(text);
        }
        if let Some(text) = self.0.get("GOOGLE_SERVICE_ACCOUNT_KEY") {
            // Emulators' keys name a server, and the stores' library believes them: it is checked like any other.
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

fn wanted(names: &str, anonymous: &str) -> String {
    format!(
        "no credentials for it are known; set {names} in the Secret that spec.artifacts of the ModelRegistry names, or {anonymous}=true where everybody may read"
    )
}

/// Whether a variable names a server.
fn is_place(key: &str) -> bool {
    key.starts_with("AWS_ENDPOINT")
        || matches!(
            key,
            "GOOGLE_BASE_URL" | "AZURE_STORAGE_ENDPOINT" | "AZURE_AUTHORITY_HOST"
        )
}

/// Whether requests can be built on an address: the stores' library relies on it.
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

    fn chosen(cloud: Cloud, secret: &[(&str, &str)], environment: &[(&str, &str)]) -> Chosen {
        Settings::new(map(secret), map(environment)).choose(cloud)
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
    fn environment_alone_is_enough() {
        let found = chosen(Cloud::S3, &[], OWN_KEY);
        assert_eq!(found.get("AWS_ACCESS_KEY_ID"), Some("own-id"));
        assert_eq!(found.check(Cloud::S3), Ok(()));
    }

    #[test]
    fn secret_is_laid_over_the_environment() {
        let secret = [
            ("AWS_ACCESS_KEY_ID", "id\n"),
            ("AWS_SECRET_ACCESS_KEY", "secret\n"),
            ("AWS_DEFAULT_REGION", "us-east-2"),
        ];
        let found = chosen(
            Cloud::S3,
            &secret,
            &[("AWS_ENDPOINT_URL", "http://minio:9000")],
        );
        assert_eq!(found.get("AWS_ACCESS_KEY_ID"), Some("id"));
        assert_eq!(
            (found.endpoint(), found.get("AWS_REGION")),
            (Some("http://minio:9000"), Some("us-east-2"))
        );
        assert_eq!(found.check(Cloud::S3), Ok(()));
    }

    #[test]
    fn server_of_a_secret_never_gets_our_own_credentials() {
        let found = chosen(
            Cloud::S3,
            &[("MLFLOW_S3_ENDPOINT_URL", "https://evil.example.com")],
            OWN_KEY,
        );
        assert_eq!(found.endpoint(), Some("https://evil.example.com"));
        assert!(
            found
                .check(Cloud::S3)
                .is_err_and(|why| why.contains("AWS_ACCESS_KEY_ID"))
        );
        let redirected = chosen(
            Cloud::S3,
            &[("AWS_ENDPOINT_URL_STS", "https://evil.example.com")],
            OWN_KEY,
        );
        assert_eq!(redirected.get("AWS_ENDPOINT_URL_STS"), None);
    }

    #[test]
    fn region_of_a_secret_is_no_other_host() {
        for region in [
            "x.evil.example.com/",
            "x@evil.example.com/",
            "evil.example.com#",
            "a b",
            "a\nb",
        ] {
            let found = chosen(Cloud::S3, &[("AWS_REGION", region)], &OWN_KEY[..5]);
            assert_eq!(found.get("AWS_ACCESS_KEY_ID"), Some("own-id"));
            assert!(
                found
                    .check(Cloud::S3)
                    .is_err_and(|why| why.contains("AWS_REGION")),
                "{region}"
            );
        }
        assert_eq!(
            chosen(Cloud::S3, &[("AWS_REGION", "us-gov-west-1")], &OWN_KEY[..5]).check(Cloud::S3),
            Ok(())
        );
    }

    #[test]
    fn secret_never_names_files_of_ours() {
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
            let found = chosen(cloud, &secret, &[]);
            assert!(found.named().all(|(_, value)| value != token), "{cloud:?}");
            assert!(found.check(cloud).is_err(), "{cloud:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (cloud, name) in [
            (Cloud::S3, "AWS_ACCESS_KEY_ID"),
            (Cloud::Gcs, "GOOGLE_SERVICE_ACCOUNT_KEY"),
            (Cloud::Azure, "AZURE_STORAGE_ACCOUNT_KEY"),
        ] {
            let why = chosen(cloud, &[], &[])
                .check(cloud)
                .err()
                .unwrap_or_default();
            assert!(
                why.contains(name) && why.contains("spec.artifacts"),
                "{why}"
            );
        }
        let half = chosen(Cloud::S3, &[("AWS_ACCESS_KEY_ID", "x")], &[]).check(Cloud::S3);
        assert!(half.is_err_and(|why| why.contains("set both")));
    }

    #[test]
    fn broken_servers_are_refused_before_anything_is_built() {
        for (cloud, key, value) in [
            (Cloud::Azure, "AZURE_STORAGE_ENDPOINT", "mailto:x@y"),
            (Cloud::S3, "AWS_ENDPOINT_URL", "minio:9000"),
            (Cloud::S3, "AWS_ENDPOINT_URL", "http://user:hunter2@minio"),
            (Cloud::Gcs, "GOOGLE_BASE_URL", "http://"),
        ] {
            let why = chosen(cloud, &[(key, value)], &[])
                .check(cloud)
                .err()
                .unwrap_or_default();
            assert!(why.contains(key) && !why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn connection_string_is_opened() {
        let text = "DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=a2V5a2V5a2V5==;EndpointSuffix=core.windows.net";
        let found = chosen(
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
    fn google_key_is_known_by_its_form() {
        let found = chosen(
            Cloud::Gcs,
            &[("GOOGLE_APPLICATION_CREDENTIALS", "{\"type\":1}")],
            &[],
        );
        assert_eq!(
            found.get("GOOGLE_SERVICE_ACCOUNT_KEY"),
            Some("{\"type\":1}")
        );
        let path = chosen(
            Cloud::Gcs,
            &[("GOOGLE_APPLICATION_CREDENTIALS", "/etc/passwd")],
            &[],
        );
        assert!(
            path.check(Cloud::Gcs).is_err(),
            "a Secret named a file of ours"
        );
        let own = chosen(
            Cloud::Gcs,
            &[],
            &[("GOOGLE_APPLICATION_CREDENTIALS", "/key.json")],
        );
        assert_eq!(own.check(Cloud::Gcs), Ok(()));
    }
}
