//! Leader election by a Lease, and the fence that closes when leadership ends.
//!
//! The leader renews the Lease; another replica takes it when it was not renewed for its duration.
//!
//! Absent: clocks that must agree. Each replica measures by its own clock how long ago it saw the Lease change.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::kubernetes::lock::lock;

/// How a replica takes part in the election.
#[derive(Clone, Debug)]
pub struct Election {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// The name of this replica, which no other has.
    pub identity: String,
    /// How long the Lease is valid after a renewal.
    pub duration: Duration,
    /// The address at which other replicas reach this one while it leads.
    pub address: Option<SocketAddr>,
    /// The Lease's annotation with the leader's address.
    pub address_annotation: &'static str,
}

/// The address of the leader, as the Lease said when it was read last.
#[derive(Clone, Default)]
pub struct Leader(Arc<Mutex<Option<SocketAddr>>>);

impl Leader {
    /// The address; `None` if there is no leader, or it has none.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        *lock(&self.0)
    }

    fn update(&self, lease: &Lease, annotation: &str) {
        *lock(&self.0) = address_of(lease, annotation);
    }
}

fn address_of(lease: &Lease, annotation: &str) -> Option<SocketAddr> {
    holder_of(lease)?;
    let annotations = lease.metadata.annotations.as_ref()?;
    annotations.get(annotation)?.parse().ok()
}

fn holder_of(lease: &Lease) -> Option<&str> {
    match lease.spec.as_ref()?.holder_identity.as_deref() {
        Some("") | None => None,
        holder => holder,
    }
}

/// The API groups of the Lease, and of reviews, which change nothing.
const ALWAYS_ADMITTED: [&str; 3] = [
    "/apis/coordination.k8s.io/",
    "/apis/authentication.k8s.io/",
    "/apis/authorization.k8s.io/",
];

/// The time until which this process may write. The clients ask it before each attempt of a request; see [`Fence::admits`].
#[derive(Clone)]
pub struct Fence {
    started: Instant,
    /// Milliseconds after `started`.
    until: Arc<AtomicU64>,
}

impl Fence {
    /// A fence that is always open, for a single replica.
    #[must_use]
    pub fn open() -> Self {
        Self {
            started: Instant::now(),
            until: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    /// A fence that is closed until this replica leads.
    #[must_use]
    pub fn closed() -> Self {
        Self {
            started: Instant::now(),
            until: Arc::default(),
        }
    }

    /// Whether a request may be sent: reads, reviews of tokens and rights, and requests for the Lease always; other writes only
    /// while the fence is open.
    ///
    /// A leader that was paused for longer than the Lease finds the fence closed when it resumes, before it can write anything.
    #[must_use]
    pub fn admits(&self, method: &http::Method, path: &str) -> bool {
        let reads = method == http::Method::GET;
        reads || ALWAYS_ADMITTED.iter().any(|group| path.contains(group)) || self.is_open()
    }

    /// Whether writes may be sent now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        milliseconds(self.started.elapsed()) < self.until.load(Ordering::Acquire)
    }

    fn open_until(&self, moment: Instant) {
        self.until.store(
            milliseconds(moment.saturating_duration_since(self.started)),
            Ordering::Release,
        );
    }

    pub(super) fn close(&self) {
        self.until.store(0, Ordering::Release);
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Takes part in the election for one replica.
pub struct LeaderElector {
    leases: Api<Lease>,
    election: Election,
    fence: Fence,
    leader: Leader,
    /// The Lease as it was read last, and the time when it was first read so.
    observed: Option<(Lease, Instant)>,
}

impl LeaderElector {
    /// A replica that opens `fence` while it leads.
    #[must_use]
    pub fn new(client: Client, election: Election, fence: Fence) -> Self {
        let leases = Api::namespaced(client, &election.namespace);
        Self {
            leases,
            election,
            fence,
            leader: Leader::default(),
            observed: None,
        }
    }

    /// The address of the leader, which this elector keeps up to date.
    #[must_use]
    pub fn leader(&self) -> Leader {
        self.leader.clone()
    }

    /// Waits until this replica leads.
    pub async fn acquire(&mut self) {
        while !self.attempt().await {
            tokio::time::sleep(self.election.duration / 12).await;
        }
        tracing::info!(
            lease = self.election.name,
            identity = self.election.identity,
            "became the leader"
        );
    }

    /// Renews the Lease, until that has failed for its whole duration or another replica holds it.
    pub async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.election.duration / 3).await;
            while !self.attempt().await {
                let is_anothers = self
                    .holder()
                    .is_some_and(|holder| holder != self.election.identity);
                if is_anothers || renewed.elapsed() >= self.election.duration {
                    self.fence.close();
                    return;
                }
                tokio::time::sleep(self.election.duration / 15).await;
            }
            renewed = Instant::now();
        }
    }

    /// Releases the Lease, so that another replica can take it at once.
    pub async fn release(&mut self) {
        self.fence.close();
        let Some((mut lease, _)) = self.observed.take() else {
            return;
        };
        if holder_of(&lease) != Some(self.election.identity.as_str()) {
            return;
        }
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        let params = PostParams::default();
        let released = self.leases.replace(&self.election.name, &params, &lease);
        let failure = match tokio::time::timeout(self.election.duration / 3, released).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(
            failure,
            "the Lease could not be released; another replica takes it when it expires"
        );
    }

    fn holder(&self) -> Option<&str> {
        holder_of(&self.observed.as_ref()?.0)
    }

    /// Takes or renews the Lease if possible. True if this replica holds it now.
    async fn attempt(&mut self) -> bool {
        let (started_at, deadline) = (Instant::now(), self.election.duration / 3);
        let lease = self.election.name.clone();
        match tokio::time::timeout(deadline, self.try_once(started_at)).await {
            Ok(Ok(held)) => {
                if held {
                    self.fence.open_until(started_at + self.election.duration);
                }
                held
            }
            Ok(Err(error)) => {
                if !matches!(&error, kube::Error::Api(status) if status.is_conflict()) {
                    tracing::warn!(%error, lease, "the Lease cannot be read or written; retrying");
                }
                false
            }
            Err(_) => {
                let seconds = deadline.as_secs();
                tracing::warn!(
                    seconds,
                    lease,
                    "the Lease could not be read and written in time; retrying"
                );
                false
            }
        }
    }

    async fn try_once(&mut self, now: Instant) -> Result<bool, kube::Error> {
        let found = self.leases.get_opt(&self.election.name).await?;
        let Some(lease) = found else {
            let created = self
                .leases
                .create(&PostParams::default(), &self.claim(None))
                .await?;
            self.observed = Some((created, now));
            return Ok(true);
        };
        self.observe(lease, now);
        let Some((lease, since)) = &self.observed else {
            return Ok(false);
        };
        if !may_take(
            lease,
            &self.election.identity,
            now.saturating_duration_since(*since),
        ) {
            return Ok(false);
        }
        // The request carries the resource version that was read, so of several replicas one succeeds.
        let taken = self
            .leases
            .replace(
                &self.election.name,
                &PostParams::default(),
                &self.claim(Some(lease)),
            )
            .await?;
        self.observed = Some((taken, now));
        Ok(true)
    }

    fn observe(&mut self, lease: Lease, now: Instant) {
        self.leader.update(&lease, self.election.address_annotation);
        let version = &lease.metadata.resource_version;
        match &self.observed {
            Some((observed, _)) if observed.metadata.resource_version == *version => {}
            _ => self.observed = Some((lease, now)),
        }
    }

    /// The Lease with this replica as its holder.
    fn claim(&self, old: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = old.and_then(|old| old.spec.clone()).unwrap_or_default();
        let is_mine = spec.holder_identity.as_ref() == Some(&self.election.identity);
        let seconds = i32::try_from(self.election.duration.as_secs().max(1)).unwrap_or(i32::MAX);
        let transitions = spec.lease_transitions.unwrap_or_default();
        Lease {
            metadata: self.metadata(old),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.election.identity.clone()),
                lease_duration_seconds: Some(seconds),
                acquire_time: if is_mine {
                    spec.acquire_time
                } else {
                    Some(now.clone())
                },
                renew_time: Some(now),
                lease_transitions: Some(if is_mine || old.is_none() {
                    transitions
                } else {
                    transitions + 1
                }),
                ..LeaseSpec::default()
            }),
        }
    }

    fn metadata(&self, old: Option<&Lease>) -> ObjectMeta {
        let mut metadata = old.map(|old| old.metadata.clone()).unwrap_or_default();
        metadata.managed_fields = None;
        metadata.name = Some(self.election.name.clone());
        let annotation = self.election.address_annotation;
        let annotations = metadata.annotations.get_or_insert_default();
        match self.election.address {
            Some(address) => annotations.insert(annotation.to_owned(), address.to_string()),
            None => annotations.remove(annotation),
        };
        metadata
    }
}

/// Whether a replica may take a Lease that has not changed for this long: its own, a released one, or an expired one.
fn may_take(lease: &Lease, identity: &str, unchanged_for: Duration) -> bool {
    let spec = lease.spec.as_ref();
    let holder = spec
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    let seconds = spec
        .and_then(|spec| spec.lease_duration_seconds)
        .unwrap_or_default();
    let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    holder.is_empty() || holder == identity || unchanged_for >= duration
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        };
        Lease {
            spec: Some(spec),
            ..Lease::default()
        }
    }

    #[test]
    fn the_lease_of_another_replica_is_taken_only_when_it_expired() {
        assert!(!may_take(&held_by("a"), "b", Duration::from_secs(14)));
        assert!(may_take(&held_by("a"), "b", Duration::from_secs(15)));
    }

    #[test]
    fn the_address_of_the_leader_is_known_while_there_is_one() {
        let leader = Leader::default();
        let mut lease = held_by("a");
        let address = ("address".to_owned(), "[fd00::1]:8080".to_owned());
        lease.metadata.annotations = Some([address].into());
        leader.update(&lease, "address");
        assert_eq!(leader.address(), "[fd00::1]:8080".parse().ok());
        lease.spec.as_mut().unwrap().holder_identity = None;
        leader.update(&lease, "address");
        assert_eq!(leader.address(), None);
        leader.update(&held_by("b"), "address");
        assert_eq!(leader.address(), None);
    }

    #[test]
    fn an_own_or_a_released_lease_is_taken_at_once() {
        assert!(may_take(&held_by("a"), "a", Duration::ZERO));
        assert!(may_take(&held_by(""), "b", Duration::ZERO));
    }

    #[test]
    fn a_closed_fence_admits_only_reads_and_requests_for_the_lease() {
        let fence = Fence::closed();
        let path = "/apis/apps/v1/namespaces/ml/deployments/server";
        assert!(fence.admits(&http::Method::GET, path));
        assert!(!fence.admits(&http::Method::PATCH, path));
        assert!(fence.admits(
            &http::Method::PUT,
            "/apis/coordination.k8s.io/v1/namespaces/pointsman/leases/pointsman"
        ));
        fence.open_until(Instant::now() + Duration::from_secs(60));
        assert!(fence.admits(&http::Method::PATCH, path));
        fence.close();
        assert!(!fence.admits(&http::Method::PATCH, path));
    }
}
