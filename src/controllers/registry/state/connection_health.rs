//! The connection to a registry, and its health: the present problem and the number of failed polls
//! in a row.
//!
//! Absent: requests. Each poll records its own outcome.

use std::sync::Mutex;
use std::time::Duration;

use crate::api::reason::Problem;
use crate::kubernetes::lock::lock;
use crate::registries::{Connection, RegistryClient};

/// The longest backoff, unless the interval is longer.
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// The longest backoff, in intervals, as a power of two.
const MAX_DOUBLINGS: u32 = 4;

/// The connection to a registry, and its health.
#[derive(Default)]
pub struct ConnectionHealth {
    inner: Mutex<HealthInner>,
}

#[derive(Default)]
struct HealthInner {
    /// Set by the first poll that succeeds.
    current: Option<(Connection, RegistryClient)>,
    problem: Option<Problem>,
    failures: u32,
    server_version: Option<String>,
}

/// The difference that a failed poll makes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FailureNews {
    /// Whether the poll before succeeded, or failed for another reason.
    pub is_new_problem: bool,
    /// Whether an outage begins, or has another reason than before.
    pub is_new_outage: bool,
}

impl HealthInner {
    fn outage(&self) -> Option<Problem> {
        let is_outage = self.failures > 1 || self.current.is_none();
        self.problem.clone().filter(|_problem| is_outage)
    }
}

impl ConnectionHealth {
    /// The client of the last poll that succeeded.
    pub fn client(&self) -> Option<RegistryClient> {
        let inner = lock(&self.inner);
        inner.current.as_ref().map(|(_, client)| client.clone())
    }

    /// The client, if the last poll succeeded.
    pub fn healthy_client(&self) -> Option<RegistryClient> {
        if self.problem().is_some() {
            return None;
        }
        self.client()
    }

    /// The client, if it was made for this connection.
    pub fn client_for(&self, connection: &Connection) -> Option<RegistryClient> {
        match &lock(&self.inner).current {
            Some((current, client)) if current == connection => Some(client.clone()),
            _ => None,
        }
    }

    /// Whether the client was made for this connection.
    pub fn is_for(&self, connection: &Connection) -> bool {
        let inner = lock(&self.inner);
        matches!(&inner.current, Some((current, _)) if current == connection)
    }

    /// Whether the last poll that succeeded was answered at this address.
    pub fn is_at(&self, uri: &str) -> bool {
        let inner = lock(&self.inner);
        matches!(&inner.current, Some((current, _)) if current.is_at(uri))
    }

    /// Why the last poll failed; `None` if it succeeded.
    pub fn problem(&self) -> Option<Problem> {
        lock(&self.inner).problem.clone()
    }

    /// Why the registry cannot be used now. One failed poll after others that succeeded is no
    /// outage: what it would have shown is as old as after a longer interval.
    pub fn outage(&self) -> Option<Problem> {
        lock(&self.inner).outage()
    }

    /// The server's version.
    pub fn server_version(&self) -> Option<String> {
        lock(&self.inner).server_version.clone()
    }

    /// Records the server's version.
    pub fn set_server_version(&self, version: Option<String>) {
        lock(&self.inner).server_version = version;
    }

    /// Records that a poll succeeded. Returns true if none did before at this address, or the last one failed.
    pub fn record_success(&self, connection: Connection, client: RegistryClient) -> bool {
        let mut inner = lock(&self.inner);
        let is_known =
            matches!(&inner.current, Some((current, _)) if current.server == connection.server);
        let is_news = inner.problem.is_some() || !is_known;
        inner.current = Some((connection, client));
        inner.problem = None;
        inner.failures = 0;
        is_news
    }

    /// Records that a poll failed.
    pub fn record_failure(&self, problem: Problem) -> FailureNews {
        let mut inner = lock(&self.inner);
        let before = (inner.problem.clone(), inner.outage());
        inner.failures = inner.failures.saturating_add(1);
        inner.problem = Some(problem);
        FailureNews {
            is_new_problem: before.0 != inner.problem,
            is_new_outage: before.1 != inner.outage(),
        }
    }

    /// The time until the next poll: the interval, doubled with each failure after the first.
    pub fn backoff(&self, interval: Duration) -> Duration {
        backoff_after(lock(&self.inner).failures, interval)
    }
}

fn backoff_after(failures: u32, interval: Duration) -> Duration {
    let factor = 1 << failures.saturating_sub(1).min(MAX_DOUBLINGS);
    interval
        .saturating_mul(factor)
        .min(MAX_BACKOFF.max(interval))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::api::Reason;
    use crate::registries::RequestMetrics;

    /// A connection to this address and its client; nothing is sent.
    pub fn connected(uri: &str) -> (Connection, RegistryClient) {
        // Another test may have chosen the provider already.
        _ = rustls::crypto::ring::default_provider().install_default();
        let connection = Connection::mlflow(uri);
        let client = RegistryClient::connect(connection.clone(), RequestMetrics::default())
            .expect("a client");
        (connection, client)
    }

    fn unreachable() -> Problem {
        Problem::new(Reason::RegistryUnreachable, "no answer")
    }

    #[test]
    fn a_client_is_given_out_after_the_first_successful_poll() {
        let (health, (connection, client)) =
            (ConnectionHealth::default(), connected("http://127.0.0.1:1"));
        assert!(health.client().is_none());
        assert!(health.record_success(connection.clone(), client.clone()));
        assert!(health.healthy_client().is_some());
        assert!(health.client_for(&connection).is_some());
        assert!(
            !health.record_success(connection, client),
            "a second success is no news"
        );
    }

    #[test]
    fn a_client_is_not_reused_for_another_connection() {
        let (health, (connection, client)) =
            (ConnectionHealth::default(), connected("http://127.0.0.1:1"));
        health.record_success(connection, client);
        let (other, _) = connected("http://127.0.0.1:2");
        assert!(health.client_for(&other).is_none());
    }

    #[test]
    fn a_failure_is_news_once_and_so_is_the_recovery() {
        let (health, (connection, client)) =
            (ConnectionHealth::default(), connected("http://127.0.0.1:1"));
        health.record_success(connection.clone(), client.clone());
        let news = |is_new_problem, is_new_outage| FailureNews {
            is_new_problem,
            is_new_outage,
        };
        assert_eq!(health.record_failure(unreachable()), news(true, false));
        assert_eq!(health.outage(), None, "one failed poll is no outage");
        assert_eq!(health.record_failure(unreachable()), news(false, true));
        assert_eq!(health.outage(), Some(unreachable()));
        assert_eq!(health.record_failure(unreachable()), news(false, false));
        let refused = Problem::new(Reason::RegistryRefused, "no");
        assert_eq!(health.record_failure(refused), news(true, true));
        assert!(health.healthy_client().is_none() && health.client().is_some());
        assert!(health.record_success(connection, client));
        assert_eq!((health.problem(), health.outage()), (None, None));
    }

    #[test]
    fn a_registry_that_never_answered_is_an_outage_at_once() {
        let health = ConnectionHealth::default();
        assert!(health.record_failure(unreachable()).is_new_outage);
        assert_eq!(health.outage(), Some(unreachable()));
    }

    #[test]
    fn the_backoff_doubles_up_to_sixteen_intervals_or_five_minutes() {
        let seconds = Duration::from_secs;
        for (failures, interval, expected) in [
            (0, 10, 10),
            (1, 10, 10),
            (2, 10, 20),
            (5, 10, 160),
            (50, 10, 160),
            (50, 30, 300),
            (50, 600, 600),
        ] {
            let backoff = backoff_after(failures, seconds(interval));
            assert_eq!(backoff, seconds(expected), "{failures} × {interval} s");
        }
    }
}
