//! The secrets that deliveries are signed with: read by name, cached for a short time, and read
//! again if a signature fails.
//!
//! Absent: any other use of a Secret.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use crate::api::model_registry::WebhookSecretReference;
use crate::kubernetes::lock::lock;

/// How long a Secret is cached.
const TTL: Duration = Duration::from_secs(30);
/// The shortest time between two reads after failing signatures.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(2);
/// The timeout of reading a Secret. Deliveries wait for it.
const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the previous key is accepted after a change: MLflow's workers sign with it for another
/// minute.
const OVERLAP: Duration = Duration::from_secs(120);

/// The shortest key, in bytes: as many as 64 random bits in hex have.
const SHORTEST_KEY: usize = 16;
/// How the values begin that people are meant to replace.
const PLACEHOLDERS: [&str; 4] = ["replace", "change", "example", "placeholder"];

/// The keys of all registries.
#[derive(Default)]
pub struct SigningKeys {
    all: Mutex<HashMap<KeyReference, Arc<KeyEntry>>>,
}

/// The key of a registry. While it is read, deliveries are verified with the cached one.
#[derive(Default)]
struct KeyEntry {
    cached: Mutex<CachedKey>,
    reading: tokio::sync::Mutex<()>,
}

/// Namespace, Secret and key.
type KeyReference = (String, String, String);

#[derive(Default)]
struct CachedKey {
    current: Option<String>,
    previous: Option<(String, Instant)>,
    read_at: Option<Instant>,
}

impl SigningKeys {
    /// The keys of a registry, and whether they may be stale: true if they come from the cache.
    pub async fn cached(
        &self,
        client: &Client,
        namespace: &str,
        secret: &WebhookSecretReference,
    ) -> (Vec<Vec<u8>>, bool) {
        let entry = self.entry(namespace, secret);
        let was_read = entry
            .read_unless_within(TTL, client, namespace, secret)
            .await;
        (lock(&entry.cached).accepted(), !was_read)
    }

    /// The keys after a signature failed, read again unless that happened a moment ago.
    pub async fn refreshed(
        &self,
        client: &Client,
        namespace: &str,
        secret: &WebhookSecretReference,
    ) -> Vec<Vec<u8>> {
        let entry = self.entry(namespace, secret);
        entry
            .read_unless_within(SHORTEST_INTERVAL, client, namespace, secret)
            .await;
        lock(&entry.cached).accepted()
    }

    fn entry(&self, namespace: &str, secret: &WebhookSecretReference) -> Arc<KeyEntry> {
        let reference = (
            namespace.to_owned(),
            secret.name.clone(),
            secret.key.clone(),
        );
        Arc::clone(lock(&self.all).entry(reference).or_default())
    }
}

impl KeyEntry {
    /// Reads the Secret if the last read is older than `age`. Returns whether it was read.
    async fn read_unless_within(
        &self,
        age: Duration,
        client: &Client,
        namespace: &str,
        secret: &WebhookSecretReference,
    ) -> bool {
        if lock(&self.cached).is_within(age) {
            return false;
        }
        let _reading = self.reading.lock().await;
        // Another delivery may have read it meanwhile.
        if lock(&self.cached).is_within(age) {
            return false;
        }
        let api = Api::<Secret>::namespaced(client.clone(), namespace);
        let read = tokio::time::timeout(READ_TIMEOUT, api.get_opt(&secret.name)).await;
        let mut cached = lock(&self.cached);
        match read {
            Ok(Ok(found)) => cached.replace(
                found.and_then(|found| signing_key(&found, &secret.key).ok()),
                Instant::now(),
            ),
            // While the API server does not respond, the cached key stays in use.
            Ok(Err(error)) => {
                tracing::warn!(%error, namespace, secret = secret.name, "the Secret of a webhook cannot be read");
            }
            Err(_) => tracing::warn!(
                namespace,
                secret = secret.name,
                "reading the Secret of a webhook timed out"
            ),
        }
        cached.read_at = Some(Instant::now());
        true
    }
}

impl CachedKey {
    fn is_within(&self, age: Duration) -> bool {
        self.read_at.is_some_and(|read_at| read_at.elapsed() < age)
    }

    fn replace(&mut self, found: Option<String>, now: Instant) {
        if found != self.current {
            self.previous = self.current.take().map(|before| (before, now + OVERLAP));
            self.current = found;
        }
    }

    /// The keys that are accepted now. Without a current key the previous one is not accepted
    /// either.
    fn accepted(&self) -> Vec<Vec<u8>> {
        let Some(current) = &self.current else {
            return Vec::new();
        };
        let mut keys = vec![current.clone().into_bytes()];
        if let Some((previous, until)) = &self.previous
            && Instant::now() < *until
        {
            keys.push(previous.clone().into_bytes());
        }
        keys
    }
}

/// Why a Secret has no key to sign with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyFault {
    /// It has no text under the key.
    Missing,
    /// Its text can be guessed: it is short, or a placeholder of an example.
    Weak,
}

/// The key in a Secret: text without the line breaks that files and editors leave at its end.
///
/// # Errors
/// If there is none, or if it can be guessed.
pub fn signing_key(secret: &Secret, key: &str) -> Result<String, KeyFault> {
    let data = secret.data.as_ref().and_then(|data| data.get(key));
    let text = data.and_then(|data| std::str::from_utf8(&data.0).ok());
    let text = text.unwrap_or_default().trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(KeyFault::Missing);
    }
    let lower = text.to_lowercase();
    let is_placeholder = PLACEHOLDERS.iter().any(|word| lower.starts_with(word));
    if text.len() < SHORTEST_KEY || is_placeholder {
        return Err(KeyFault::Weak);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_previous_key_is_accepted_for_a_while_after_a_change() {
        let mut entry = CachedKey::default();
        let now = Instant::now();
        entry.replace(Some("one".to_owned()), now);
        assert_eq!(entry.accepted(), [b"one".to_vec()]);
        entry.replace(Some("two".to_owned()), now);
        assert_eq!(entry.accepted(), [b"two".to_vec(), b"one".to_vec()]);
        entry.previous = Some(("one".to_owned(), now));
        assert_eq!(entry.accepted(), [b"two".to_vec()]);
    }

    #[test]
    fn a_deleted_secret_verifies_nothing() {
        let mut entry = CachedKey::default();
        entry.replace(Some("one".to_owned()), Instant::now());
        entry.replace(None, Instant::now());
        assert!(entry.accepted().is_empty());
    }

    #[test]
    fn a_key_that_can_be_guessed_is_none() {
        let key = |text: &str| {
            let text = k8s_openapi::ByteString(text.as_bytes().to_vec());
            let secret = Secret {
                data: Some([("secret".to_owned(), text)].into()),
                ..Secret::default()
            };
            signing_key(&secret, "secret")
        };
        assert_eq!(key("0123456789abcdef\n"), Ok("0123456789abcdef".to_owned()));
        assert_eq!(key("\n"), Err(KeyFault::Missing));
        for weak in ["0123456789abcde", "Replace-this-by-32-random-bytes-in-hex"] {
            assert_eq!(key(weak), Err(KeyFault::Weak), "{weak}");
        }
    }
}
