//! The order in which bindings write what they came to: behind the Deployments, where many move at once.
//!
//! Absent: what is written.

use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::queue::{Place, Room};

/// How many write at the same time.
const WRITERS: usize = 4;
/// How many may wait to write: each holds a binding and its status in memory.
const WAITING: usize = 1024;
/// How long a status waits for other bindings' Deployments at most.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it looks whether they are written.
const MOMENT: Duration = Duration::from_millis(20);

/// Those who wait to write, and those who do.
pub struct Telling {
    waiting: Semaphore,
    writers: Semaphore,
}

/// The right to write now.
#[must_use]
pub struct Turn<'a> {
    _place: Option<Place>,
    _permits: [Option<SemaphorePermit<'a>>; 2],
}

impl Default for Telling {
    fn default() -> Self {
        Self { waiting: Semaphore::new(WAITING), writers: Semaphore::new(WRITERS) }
    }
}

impl Telling {
    /// For a status that a Deployment waits for: at once, in the pass's own place.
    pub fn ahead(place: Place) -> Turn<'static> {
        Turn { _place: Some(place), _permits: [None, None] }
    }

    /// Gives up a pass's place for another binding's Deployment, and waits until none is waiting for one; or until so many
    /// statuses wait, or this one for so long, that it goes first.
    pub async fn behind(&self, place: Place, deciding: &Room) -> Turn<'_> {
        // Neither semaphore is ever closed.
        let waiting = self.waiting.acquire().await.ok();
        drop(place);
        let since = Instant::now();
        let writer = self.writers.acquire().await.ok();
        while deciding.is_full() && self.waiting.available_permits() > 0 && since.elapsed() < PATIENCE {
            tokio::time::sleep(MOMENT).await;
        }
        Turn { _place: None, _permits: [waiting, writer] }
    }
}
