//! A budget of bytes for everything that is read at the same time, so that no server and no sender
//! can take the memory of the process.
//!
//! Absent: queues. No share may be larger than what it leaves free, so the more large shares there
//! are the smaller they have to be, and there is always room for another one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How long a share waits for others to end before it fails.
const PATIENCE: Duration = Duration::from_secs(1);

/// A number of bytes that is shared.
pub(crate) struct ByteBudget {
    total: usize,
    used: AtomicUsize,
    /// Notified when a share ends.
    freed: Notify,
}

/// The part of a budget that one reader uses. It is returned when this is dropped.
pub(crate) struct ByteShare {
    budget: &'static ByteBudget,
    bytes: usize,
}

/// The budget has no room for a share of this size now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NoRoom;

impl ByteBudget {
    /// A budget of so many bytes.
    pub(crate) const fn new(total: usize) -> Self {
        Self {
            total,
            used: AtomicUsize::new(0),
            freed: Notify::const_new(),
        }
    }

    /// A share that is empty so far.
    pub(crate) const fn share(&'static self) -> ByteShare {
        ByteShare {
            budget: self,
            bytes: 0,
        }
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
            let is_alone = self.budget.used.load(Ordering::Acquire) <= self.bytes;
            if is_alone || timeout_at(deadline, freed).await.is_err() {
                return Err(NoRoom);
            }
        }
    }

    /// Adds bytes, unless the share would then be larger than what is left.
    fn try_grow(&mut self, by: usize) -> bool {
        let (total, own) = (self.budget.total, self.bytes.saturating_add(by));
        let grown = self
            .budget
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                let after = used.checked_add(by)?;
                (own <= total.checked_sub(after)?).then_some(after)
            });
        if grown.is_ok() {
            self.bytes = own;
        }
        grown.is_ok()
    }
}

impl Drop for ByteShare {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_large_shares_leave_room_for_another_one() {
        static BUDGET: ByteBudget = ByteBudget::new(1000);
        let mut shares = Vec::new();
        for _ in 0..20 {
            let mut share = BUDGET.share();
            while share.try_grow(1) {}
            shares.push(share);
        }
        assert_eq!(shares[0].bytes, 500, "the first takes half");
        let used: usize = shares.iter().map(|share| share.bytes).sum();
        assert!(used < 1000, "{used}");
        drop(shares);
        assert!(BUDGET.share().try_grow(500), "all of it was returned");
    }

    #[tokio::test]
    async fn a_share_waits_for_the_end_of_another() {
        static BUDGET: ByteBudget = ByteBudget::new(1000);
        let mut first = BUDGET.share();
        first.grow(500).await.expect("half is free");
        let second = tokio::spawn(async {
            let mut share = BUDGET.share();
            share.grow(500).await
        });
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(second.await.expect("it ends"), Ok(()));
    }

    #[tokio::test]
    async fn a_share_that_is_too_large_for_the_budget_fails_at_once() {
        static BUDGET: ByteBudget = ByteBudget::new(1000);
        let started = Instant::now();
        assert_eq!(BUDGET.share().grow(501).await, Err(NoRoom));
        assert!(started.elapsed() < PATIENCE);
    }
}
