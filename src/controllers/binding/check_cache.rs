//! Caches the results of artifact checks, and the bindings that wait for them.
//!
//! Absent: the checks themselves.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::api::Availability;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;
use crate::rollout::{ArtifactCheck, CheckResults};

/// How many checks run at the same time.
const CONCURRENCY: usize = 8;
/// How long a good result holds. For a version that goes forward, a recent read of the same files holds longer; see
/// `registry::readable_artifacts`.
const GOOD_FOR: Duration = Duration::from_secs(30);
/// How long a bad result holds while the check is repeated.
const BAD_FOR: Duration = Duration::from_secs(120);
/// After what time a check with a bad result is repeated.
const REPEAT_AFTER: Duration = Duration::from_secs(20);
/// How long a first result may take before a status says that it is awaited.
pub const BRIEF: Duration = Duration::from_secs(1);

/// The cached results of all registries.
pub struct ArtifactChecks {
    known: Mutex<HashMap<CheckKey, Known>>,
    /// Limits the checks that run at the same time.
    pub permits: Semaphore,
}

/// A check in the registry that it belongs to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct CheckKey {
    /// The registry.
    pub registry: ObjectKey,
    /// The check.
    pub check: ArtifactCheck,
}

struct Known {
    result: Option<(Availability, Instant)>,
    /// When the running check was started, and the bindings that its result enqueues.
    running: Option<(Instant, Vec<ObjectKey>)>,
}

impl Default for ArtifactChecks {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            permits: Semaphore::new(CONCURRENCY),
        }
    }
}

impl ArtifactChecks {
    /// The known results of some checks.
    pub fn results(&self, registry: &ObjectKey, checks: &[ArtifactCheck]) -> CheckResults {
        let known = lock(&self.known);
        let mut results = CheckResults::new();
        for check in checks {
            let key = CheckKey::new(registry, check);
            if let Some(result) = known.get(&key).and_then(|known| known.fresh()) {
                results.insert(check.clone(), result.clone());
            }
        }
        results
    }

    /// Notes that a binding needs a result. True if a check has to be started for it.
    pub fn begin(&self, key: &CheckKey, binding: &ObjectKey) -> bool {
        let mut known = lock(&self.known);
        let known = known.entry(key.clone()).or_insert_with(|| Known {
            result: None,
            running: None,
        });
        if let Some((_, waiting)) = &mut known.running {
            if !waiting.contains(binding) {
                waiting.push(binding.clone());
            }
            return false;
        }
        if !known.is_due() {
            return false;
        }
        known.running = Some((Instant::now(), vec![binding.clone()]));
        true
    }

    /// Whether a check without a result was started less than [`BRIEF`] ago.
    pub fn is_brief_wait(&self, registry: &ObjectKey, checks: &[ArtifactCheck]) -> bool {
        let known = lock(&self.known);
        checks.iter().any(|check| {
            let Some(known) = known.get(&CheckKey::new(registry, check)) else {
                return false;
            };
            let Some((since, _)) = &known.running else {
                return false;
            };
            known.fresh().is_none() && since.elapsed() < BRIEF
        })
    }

    /// Records a result, and returns the bindings to enqueue: those that wait, if the result is new to them.
    pub fn record(&self, key: &CheckKey, result: Availability) -> Vec<ObjectKey> {
        let mut known = lock(&self.known);
        let Some(known) = known.get_mut(key) else {
            return Vec::new();
        };
        let is_news = known.fresh() != Some(&result);
        known.result = Some((result, Instant::now()));
        let waiting = known
            .running
            .take()
            .map(|(_, waiting)| waiting)
            .unwrap_or_default();
        if is_news { waiting } else { Vec::new() }
    }

    /// Removes expired results.
    pub fn sweep(&self) {
        let mut known = lock(&self.known);
        known.retain(|_, known| known.running.is_some() || known.fresh().is_some());
        known.shrink_to_fit();
    }
}

impl CheckKey {
    /// A check in a registry.
    pub fn new(registry: &ObjectKey, check: &ArtifactCheck) -> Self {
        Self {
            registry: registry.clone(),
            check: check.clone(),
        }
    }
}

impl Known {
    /// The result, if it is not too old.
    fn fresh(&self) -> Option<&Availability> {
        let (result, at) = self.result.as_ref()?;
        (at.elapsed() < holds_for(result)).then_some(result)
    }

    /// Whether the check has to run: it has no result, or a bad one for some time.
    fn is_due(&self) -> bool {
        let (Some(result), Some((_, at))) = (self.fresh(), &self.result) else {
            return true;
        };
        is_bad(result) && at.elapsed() >= REPEAT_AFTER
    }
}

fn is_bad(result: &Availability) -> bool {
    matches!(result, Availability::Missing(_) | Availability::Unknown(_))
}

fn holds_for(result: &Availability) -> Duration {
    if is_bad(result) { BAD_FOR } else { GOOD_FOR }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> CheckKey {
        let check = ArtifactCheck {
            model: "m".into(),
            version: "1".into(),
            artifact_uri: "s3://m/1".into(),
            query_withheld: false,
            must_exist: false,
        };
        CheckKey::new(&ObjectKey::new("ml", "mlflow"), &check)
    }

    #[test]
    fn one_check_serves_all_bindings_that_wait_for_it() {
        let (checks, key) = (ArtifactChecks::default(), key());
        let (a, b) = (ObjectKey::new("ml", "a"), ObjectKey::new("ml", "b"));
        assert!(checks.begin(&key, &a));
        assert!(!checks.begin(&key, &b), "it is running already");
        assert!(checks.is_brief_wait(&key.registry, std::slice::from_ref(&key.check)));
        assert_eq!(checks.record(&key, Availability::Readable), [a.clone(), b]);
        assert!(!checks.begin(&key, &a), "the result is known");
        assert_eq!(
            checks
                .results(&key.registry, std::slice::from_ref(&key.check))
                .len(),
            1
        );
    }

    #[test]
    fn an_expired_result_is_checked_again_and_is_news() {
        let (checks, key) = (ArtifactChecks::default(), key());
        let binding = ObjectKey::new("ml", "a");
        checks.begin(&key, &binding);
        checks.record(&key, Availability::Readable);
        let long_ago = Instant::now()
            .checked_sub(GOOD_FOR)
            .expect("the machine runs for longer");
        for known in lock(&checks.known).values_mut() {
            known.result = Some((Availability::Readable, long_ago));
        }
        assert!(
            checks
                .results(&key.registry, std::slice::from_ref(&key.check))
                .is_empty()
        );
        assert!(checks.begin(&key, &binding));
        assert_eq!(checks.record(&key, Availability::Readable), [binding]);
    }
}
