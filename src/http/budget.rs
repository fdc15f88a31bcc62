//! A budget of bytes for everything that is read at the same time, so that no server and no sender
//! can take the memory of the process, and no tenant that of the others.
//!
//! Absent: queues. A tenant, and a reader among those of its tenant, gets only a part of the free bytes, so
//! that there is room for another one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How long a share waits for others to end before it fails.
const PATIENCE: Duration = Duration::from_secs(1);

/// A number of bytes that is shared.
pub(crate) struct ByteBudget {
    total: usize,
    used: Mutex<Used>,
    /// Notified when a share ends.
    freed: Notify,
}

/// The bytes in use.
struct Used {
    all: usize,
    of_tenants: BTreeMap<Arc<str>, usize>,
}

/// The part of a budget that one reader uses. It is returned when this is dropped.
pub(crate) struct ByteShare {
    budget: &'static ByteBudget,
    tenant: Arc<str>,
    bytes: usize,
}

/// The budget has no room for a share of this size now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NoRoom;

impl ByteBudget {
    /// A budget of so many bytes.
    pub(crate) const fn new(total: usize) -> Self {
        let used = Used {
            all: 0,
            of_tenants: BTreeMap::new(),
        };
        Self {
            total,
            used: Mutex::new(used),
            freed: Notify::const_new(),
        }
    }

    /// A share of this tenant that is empty so far.
    pub(crate) fn share(&'static self, tenant: &Arc<str>) -> ByteShare {
        ByteShare {
            budget: self,
            tenant: Arc::clone(tenant),
            bytes: 0,
        }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ByteShare {
    /// Adds bytes to the share. Waits a moment for other shares to end if there is no room.
    pub(crate) async fn grow(&mut self, by: usize) -> Result<(), NoRoom> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let freed = self.budget.freed.notified();
            if self.try_grow(by) {
                return Ok(());
            }
            let is_alone = self.budget.used().all <= self.bytes;
            if is_alone || timeout_at(deadline, freed).await.is_err() {
                return Err(NoRoom);
            }
        }
    }

    /// Adds bytes, unless the share would then be larger than what it leaves to its tenant. A tenant
    /// may have two thirds of what the others leave.
    fn try_grow(&mut self, by: usize) -> bool {
        let mut used = self.budget.used();
        let of_tenant = used.of_tenants.get(&self.tenant);
        let of_tenant = of_tenant.copied().unwrap_or_default();
        let others = used.all - of_tenant;
        let (own, together) = (self.bytes.saturating_add(by), of_tenant.saturating_add(by));
        let allowance = self.budget.total.saturating_sub(others) / 3 * 2;
        if own.saturating_add(together) > allowance {
            return false;
        }
        used.of_tenants.insert(Arc::clone(&self.tenant), together);
        used.all += by;
        self.bytes = own;
        true
    }
}

impl Drop for ByteShare {
    fn drop(&mut self) {
        let mut used = self.budget.used();
        used.all -= self.bytes;
        if let Some(of_tenant) = used.of_tenants.get_mut(&self.tenant) {
            *of_tenant -= self.bytes;
            if *of_tenant == 0 {
                used.of_tenants.remove(&self.tenant);
            }
        }
        drop(used);
        self.budget.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_large_shares_leave_room_for_another_one() {
        static BUDGET: ByteBudget = ByteBudget::new(3000);
        let tenant = Arc::from("ml");
        let mut shares = Vec::new();
        for _ in 0..20 {
            let mut share = BUDGET.share(&tenant);
            while share.try_grow(1) {}
            shares.push(share);
        }
        assert_eq!(shares[0].bytes, 1000, "the first takes a third");
        let used: usize = shares.iter().map(|share| share.bytes).sum();
        assert!(used < 2000, "{used}");
        drop(shares);
        assert!(BUDGET.share(&tenant).try_grow(1000), "all was returned");
        assert!(BUDGET.used().of_tenants.is_empty());
    }

    #[test]
    fn a_tenant_with_many_shares_leaves_a_third_to_the_others() {
        static BUDGET: ByteBudget = ByteBudget::new(3000);
        let (busy, other) = (Arc::from("busy"), Arc::from("other"));
        let mut shares = Vec::new();
        for _ in 0..100 {
            let mut share = BUDGET.share(&busy);
            while share.try_grow(1) {}
            shares.push(share);
        }
        let used: usize = shares.iter().map(|share| share.bytes).sum();
        assert!((1900..=2000).contains(&used), "{used}");
        assert!(BUDGET.share(&other).try_grow(300));
    }

    #[tokio::test]
    async fn a_share_waits_for_the_end_of_another() {
        static BUDGET: ByteBudget = ByteBudget::new(3000);
        let tenant = Arc::from("ml");
        let mut first = BUDGET.share(&tenant);
        first.grow(1000).await.expect("a third is free");
        let second = tokio::spawn(async move {
            let mut share = BUDGET.share(&tenant);
            share.grow(1000).await
        });
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(second.await.expect("it ends"), Ok(()));
    }

    #[tokio::test]
    async fn a_share_that_is_too_large_for_the_budget_fails_at_once() {
        static BUDGET: ByteBudget = ByteBudget::new(3000);
        let started = Instant::now();
        assert_eq!(BUDGET.share(&Arc::from("ml")).grow(1001).await, Err(NoRoom));
        assert!(started.elapsed() < PATIENCE);
    }
}
