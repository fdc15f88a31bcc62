//! The secrets that deliveries are signed with: read by name, kept for a moment, and read again where a signature fails.
//!
//! Absent: any other use of a Secret.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::Mutex;

use crate::api::model_registry::WebhookSecretReference;

/// How long a Secret is believed to be as it was read.
const FRESH: Duration = Duration::from_secs(30);
/// How soon after it was read a failing signature has it read again.
const RETRY: Duration = Duration::from_secs(2);
/// How long reading a Secret may take; deliveries wait for it.
const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the key before the present one is accepted: MLflow's workers go on signing with it for a minute.
const OVERLAP: Duration = Duration::from_secs(120);

/// The keys of all registries.
#[derive(Default)]
pub struct SigningKeys {
    all: Mutex<HashMap<KeyReference, Arc<Mutex<CachedKey>>>>,
}

/// Namespace, Secret and key.
type KeyReference = (String, String, String);

#[derive(Default)]
struct CachedKey {
    current: Option<Vec<u8>>,
    previous: Option<(Vec<u8>, Instant)>,
    read_at: Option<Instant>,
}

impl SigningKeys {
    /// The keys that sign for a registry now, and whether a signature that none of them made may still be good: true where
    /// the Secret was not read just now.
    pub async fn of(
        &self,
        client: &Client,
        namespace: &str,
        secret: &WebhookSecretReference,
    ) -> (Vec<Vec<u8>>, bool) {
        let entry = self.entry(namespace, secret).await;
        let mut entry = entry.lock().await;
        let was_read = entry
            .read_unless_within(FRESH, client, namespace, secret)
            .await;
        (entry.accepted(), !was_read)
    }

    /// The same after a signature failed: read refreshed, but not more often than now and then.
    pub async fn refreshed(
        &self,
        client: &Client,
        namespace: &str,
        secret: &WebhookSecretReference,
    ) -> Vec<Vec<u8>> {
        let entry = self.entry(namespace, secret).await;
        let mut entry = entry.lock().await;
        entry
            .read_unless_within(RETRY, client, namespace, secret)
            .await;
        entry.accepted()
    }

    async fn entry(
        &self,
        namespace: &str,
        secret: &WebhookSecretReference,
    ) -> Arc<Mutex<CachedKey>> {
        let place = (
            namespace.to_owned(),
            secret.name.clone(),
            secret.key.clone(),
        );
        Arc::clone(self.all.lock().await.entry(place).or_default())
    }
}

impl CachedKey {
    async fn read_unless_within(
        &mut self,
        age: Duration,
        client: &Client,
        namespace: &str,
        secret: &WebhookSecretReference,
    ) -> bool {
        if self.read_at.is_some_and(|read_at| read_at.elapsed() < age) {
            return false;
        }
        let api = Api::<Secret>::namespaced(client.clone(), namespace);
        match tokio::time::timeout(READ_TIMEOUT, api.get_opt(&secret.name)).await {
            Ok(Ok(found)) => self.take(
                found.and_then(|found| signing_key(&found, &secret.key)),
                Instant::now(),
            ),
            // What was read last is as good as anything while the API server does not answer.
            Ok(Err(error)) => {
                tracing::warn!(%error, namespace, secret = secret.name, "a webhook's Secret cannot be read");
            }
            Err(_) => tracing::warn!(
                namespace,
                secret = secret.name,
                "a webhook's Secret was not read in time"
            ),
        }
        self.read_at = Some(Instant::now());
        true
    }

    fn take(&mut self, found: Option<Vec<u8>>, now: Instant) {
        if found != self.current {
            self.previous = self.current.take().map(|before| (before, now + OVERLAP));
            self.current = found;
        }
    }

    fn accepted(&self) -> Vec<Vec<u8>> {
        let previous = self
            .previous
            .iter()
            .filter(|(_, until)| Instant::now() < *until)
            .map(|(key, _)| key);
        // Where there is no key any more, the one before opens nothing either.
        self.current
            .iter()
            .chain(previous.filter(|_| self.current.is_some()))
            .cloned()
            .collect()
    }
}

/// What deliveries are signed with: text without the line breaks that files and editors leave at its end.
pub fn signing_key(secret: &Secret, key: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(&secret.data.as_ref()?.get(key)?.0).ok()?;
    let text = text.trim_end_matches(['\r', '\n']);
    (!text.is_empty()).then(|| text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_before_is_good_for_a_while_after_a_change() {
        let mut entry = CachedKey::default();
        let now = Instant::now();
        entry.take(Some(b"one".to_vec()), now);
        assert_eq!(entry.accepted(), [b"one".to_vec()]);
        entry.take(Some(b"two".to_vec()), now);
        assert_eq!(entry.accepted(), [b"two".to_vec(), b"one".to_vec()]);
        entry.previous = Some((b"one".to_vec(), now));
        assert_eq!(entry.accepted(), [b"two".to_vec()]);
    }

    #[test]
    fn a_secret_that_is_gone_opens_nothing() {
        let mut entry = CachedKey::default();
        entry.take(Some(b"one".to_vec()), Instant::now());
        entry.take(None, Instant::now());
        assert!(entry.accepted().is_empty());
    }
}
