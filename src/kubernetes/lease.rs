//! One leader among several replicas: a Lease that the leader renews, and that another takes when it is renewed no more.
//!
//! Absent: clocks that must agree. Each replica reckons by its own, from the moment when it saw the Lease change.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::api::names;
use crate::kubernetes::lock::lock;

/// How a replica takes part.
#[derive(Clone, Debug)]
pub struct Election {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// This replica's name, unlike any other's.
    pub identity: String,
    /// For how long the Lease holds after it was renewed.
    pub duration: Duration,
    /// Where this replica takes what others heard, while it leads.
    pub address: Option<SocketAddr>,
}

/// Where the leader takes what other replicas heard, as the Lease said when it was seen last.
#[derive(Clone, Default)]
pub struct Leader(Arc<Mutex<Option<SocketAddr>>>);

impl Leader {
    /// The leader's address; `None` where nobody leads, or does not say.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        *lock(&self.0)
    }

    fn see(&self, lease: &Lease) {
        let is_held = holder_of(lease).is_some();
        let written = lease
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(names::ADDRESS_ANNOTATION));
        *lock(&self.0) = written
            .filter(|_| is_held)
            .and_then(|address| address.parse().ok());
    }
}

fn holder_of(lease: &Lease) -> Option<&str> {
    lease
        .spec
        .as_ref()?
        .holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}

/// Until when this process may write. Every write to the API server asks it; see [`Fence::admits`].
#[derive(Clone)]
pub struct Fence {
    started: Instant,
    /// Milliseconds after `started`.
    until: Arc<AtomicU64>,
}

impl Fence {
    /// A fence that is open for ever: for a process that is alone.
    #[must_use]
    pub fn open() -> Self {
        Self {
            started: Instant::now(),
            until: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    /// A fence that is closed until leadership opens it.
    #[must_use]
    pub fn closed() -> Self {
        Self {
            started: Instant::now(),
            until: Arc::default(),
        }
    }

    /// Whether a request may leave: reading always, writing only before the fence closes, the Lease itself always.
    ///
    /// A leader that was paused past its Lease finds the fence closed when it goes on, before it can write anything.
    #[must_use]
    pub fn admits(&self, method: &http::Method, path: &str) -> bool {
        let reads = method == http::Method::GET;
        reads || path.starts_with("/apis/coordination.k8s.io/") || self.is_open()
    }

    /// Whether writes may leave now.
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

    fn close(&self) {
        self.until.store(0, Ordering::Release);
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A replica's part in an election.
pub struct LeaderElector {
    leases: Api<Lease>,
    election: Election,
    fence: Fence,
    leader: Leader,
    /// The Lease as it was seen last, and since when it has been so.
    seen: Option<(Lease, Instant)>,
}

impl LeaderElector {
    /// A candidate that opens `fence` while it leads.
    #[must_use]
    pub fn new(client: Client, election: Election, fence: Fence) -> Self {
        let leases = Api::namespaced(client, &election.namespace);
        Self {
            leases,
            election,
            fence,
            leader: Leader::default(),
            seen: None,
        }
    }

    /// Where the leader is, kept up to date by this candidate.
    #[must_use]
    pub fn leader(&self) -> Leader {
        self.leader.clone()
    }

    /// Waits until this replica leads.
    pub async fn acquire(&mut self) {
        while !self.attempt().await {
            tokio::time::sleep(self.election.duration / 8).await;
        }
        tracing::info!(
            lease = self.election.name,
            identity = self.election.identity,
            "leads"
        );
    }

    /// Renews the Lease until that fails for too long, or somebody else has it.
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

    /// Gives the Lease back, so that another need not wait for its end.
    pub async fn release(&mut self) {
        self.fence.close();
        let Some((mut lease, _)) = self.seen.take() else {
            return;
        };
        if let Some(spec) = lease
            .spec
            .as_mut()
            .filter(|spec| spec.holder_identity.as_ref() == Some(&self.election.identity))
        {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            if let Err(error) = self
                .leases
                .replace(&self.election.name, &PostParams::default(), &lease)
                .await
            {
                tracing::warn!(%error, "the Lease could not be given back; another replica waits for its end");
            }
        }
    }

    fn holder(&self) -> Option<&str> {
        holder_of(&self.seen.as_ref()?.0)
    }

    /// Takes or renews the Lease, where that may be. True where this replica holds it now.
    async fn attempt(&mut self) -> bool {
        let asked_at = Instant::now();
        match self.try_once(asked_at).await {
            Ok(held) => {
                if held {
                    self.fence.open_until(asked_at + self.election.duration);
                }
                held
            }
            Err(error) => {
                let conflict = matches!(&error, kube::Error::Api(answer) if answer.code == 409);
                if !conflict {
                    tracing::warn!(%error, lease = self.election.name, "the Lease cannot be read or written");
                }
                false
            }
        }
    }

    async fn try_once(&mut self, now: Instant) -> Result<bool, kube::Error> {
        let found = self.leases.get_opt(&self.election.name).await?;
        let Some(lease) = found else {
            let made = self
                .leases
                .create(&PostParams::default(), &self.claim(None))
                .await?;
            self.seen = Some((made, now));
            return Ok(true);
        };
        self.see(lease, now);
        let Some((lease, since)) = &self.seen else {
            return Ok(false);
        };
        if !may_take(
            lease,
            &self.election.identity,
            now.saturating_duration_since(*since),
        ) {
            return Ok(false);
        }
        // The resource version that was read goes along: of several that try, one succeeds.
        let taken = self
            .leases
            .replace(
                &self.election.name,
                &PostParams::default(),
                &self.claim(Some(lease)),
            )
            .await?;
        self.seen = Some((taken, now));
        Ok(true)
    }

    fn see(&mut self, lease: Lease, now: Instant) {
        self.leader.see(&lease);
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        let is_same = self
            .seen
            .as_ref()
            .is_some_and(|(seen, _)| version(seen) == version(&lease));
        if !is_same {
            self.seen = Some((lease, now));
        }
    }

    /// The Lease as it is when this replica holds it.
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
        let annotations = metadata.annotations.get_or_insert_default();
        match self.election.address {
            Some(address) => {
                annotations.insert(names::ADDRESS_ANNOTATION.to_owned(), address.to_string())
            }
            None => annotations.remove(names::ADDRESS_ANNOTATION),
        };
        metadata
    }
}

/// Whether a Lease that has not changed for this long is one's own, nobody's, or over.
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
    fn anothers_lease_is_taken_only_when_it_was_not_renewed_for_its_whole_time() {
        assert!(!may_take(&held_by("a"), "b", Duration::from_secs(14)));
        assert!(may_take(&held_by("a"), "b", Duration::from_secs(15)));
    }

    #[test]
    fn the_leaders_address_is_known_while_somebody_leads() {
        let leader = Leader::default();
        let mut lease = held_by("a");
        lease.metadata.annotations = Some(
            [(
                names::ADDRESS_ANNOTATION.to_owned(),
                "[fd00::1]:8080".to_owned(),
            )]
            .into(),
        );
        leader.see(&lease);
        assert_eq!(leader.address(), "[fd00::1]:8080".parse().ok());
        lease.spec.as_mut().unwrap().holder_identity = None;
        leader.see(&lease);
        assert_eq!(leader.address(), None);
        leader.see(&held_by("b"));
        assert_eq!(leader.address(), None);
    }

    #[test]
    fn a_lease_of_ones_own_or_of_nobody_is_taken_at_once() {
        assert!(may_take(&held_by("a"), "a", Duration::ZERO));
        assert!(may_take(&held_by(""), "b", Duration::ZERO));
    }

    #[test]
    fn a_closed_fence_lets_reads_and_the_lease_pass_and_nothing_else() {
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
