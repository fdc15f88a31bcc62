//! The order in which bindings write what they came to: behind the Deployments, where many move at once.
//!
//! Absent: what is written.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::kubernetes::compress::{Compressor, Encoded};
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::lock::lock;
use crate::kubernetes::work_queue::{ConcurrencyLimit, Permit};

/// How many write at the same time.
const WRITERS: usize = 4;
/// How many may wait to write.
const WAITING: usize = 1024;
/// How long a status waits for other bindings' Deployments at most.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it looks whether they are written.
const MOMENT: Duration = Duration::from_millis(20);

/// Those who wait to write, and those who do.
pub struct DeferredWrites {
    waiting: Semaphore,
    writers: Semaphore,
    /// What is to be written waits compressed.
    compressor: Mutex<Compressor>,
}

/// The right to write now.
#[must_use]
pub struct WritePermit<'a> {
    _place: Option<Permit>,
    _permits: [Option<SemaphorePermit<'a>>; 2],
}

impl Default for DeferredWrites {
    fn default() -> Self {
        Self {
            waiting: Semaphore::new(WAITING),
            writers: Semaphore::new(WRITERS),
            compressor: Mutex::default(),
        }
    }
}

impl DeferredWrites {
    /// For a status that a Deployment waits for: at once, in the pass's own place.
    pub fn ahead(place: Permit) -> WritePermit<'static> {
        WritePermit {
            _place: Some(place),
            _permits: [None, None],
        }
    }

    /// Gives up a pass's place for another binding's Deployment, and waits until none is waiting for one; or until so many
    /// statuses wait, or this one for so long, that it goes first. What has to wait is compressed meanwhile.
    ///
    /// # Errors
    /// Where what was compressed cannot be read again.
    pub async fn behind<T>(
        &self,
        place: Permit,
        deciding: &ConcurrencyLimit,
        told: T,
    ) -> Result<(WritePermit<'_>, T), ReconcileError>
    where
        T: DeserializeOwned + Serialize,
    {
        if !deciding.is_full()
            && let (Ok(waiting), Ok(writer)) =
                (self.waiting.try_acquire(), self.writers.try_acquire())
        {
            return Ok((
                WritePermit {
                    _place: None,
                    _permits: [Some(waiting), Some(writer)],
                },
                told,
            ));
        }
        let compressed = lock(&self.compressor).compress(&Encoded::of(&told));
        drop(told);
        // Neither semaphore is ever closed.
        let waiting = self.waiting.acquire().await.ok();
        drop(place);
        let since = Instant::now();
        let writer = self.writers.acquire().await.ok();
        while deciding.is_full()
            && self.waiting.available_permits() > 0
            && since.elapsed() < PATIENCE
        {
            tokio::time::sleep(MOMENT).await;
        }
        let told = compressed.decompress().ok_or(ReconcileError::Unreadable)?;
        Ok((
            WritePermit {
                _place: None,
                _permits: [waiting, writer],
            },
            told,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_told(turn: Result<(WritePermit<'_>, String), ReconcileError>) -> bool {
        turn.is_ok_and(|(_, told)| told == "told")
    }

    /// Whether a status is written within a few moments.
    async fn is_written(
        deferred_writes: &DeferredWrites,
        place: Permit,
        deciding: &ConcurrencyLimit,
    ) -> bool {
        tokio::time::timeout(
            MOMENT * 5,
            deferred_writes.behind(place, deciding, "told".to_owned()),
        )
        .await
        .is_ok_and(is_told)
    }

    #[tokio::test]
    async fn a_status_is_written_at_once_where_no_deployment_waits() {
        let (deferred_writes, deciding) =
            (DeferredWrites::default(), ConcurrencyLimit::for_passes(2));
        let place = deciding.place().await;
        assert!(is_written(&deferred_writes, place, &deciding).await);
    }

    #[tokio::test]
    async fn a_status_gives_up_its_place_and_waits_while_all_places_are_taken() {
        let (deferred_writes, deciding) =
            (DeferredWrites::default(), ConcurrencyLimit::for_passes(2));
        let (place, other) = (deciding.place().await, deciding.place().await);
        let waiting = deferred_writes.behind(place, &deciding, ());
        let taken = async {
            let third = deciding.place().await;
            tokio::time::sleep(MOMENT * 5).await;
            drop((other, third));
            Instant::now()
        };
        let written = async {
            let _turn = waiting.await;
            Instant::now()
        };
        let (freed, written) = tokio::join!(taken, written);
        assert!(written >= freed, "the Deployments go first");
    }

    #[tokio::test]
    async fn a_status_goes_first_where_as_many_wait_as_may() {
        let (deferred_writes, deciding) =
            (DeferredWrites::default(), ConcurrencyLimit::for_passes(1));
        let _others = deferred_writes
            .waiting
            .acquire_many(u32::try_from(WAITING - 1).expect("few"))
            .await;
        let place = deciding.place().await;
        let others = async {
            let _place = deciding.place().await;
            tokio::time::sleep(MOMENT * 10).await;
        };
        let (is_written, ()) = tokio::join!(is_written(&deferred_writes, place, &deciding), others);
        assert!(is_written);
    }

    #[tokio::test]
    async fn a_status_that_a_deployment_waits_for_keeps_its_place() {
        let deciding = ConcurrencyLimit::for_passes(1);
        let turn = DeferredWrites::ahead(deciding.place().await);
        assert!(deciding.is_full());
        drop(turn);
        assert!(!deciding.is_full());
    }
}
