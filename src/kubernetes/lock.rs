//! The one way in which this process's own maps are locked.
//!
//! Absent: waiting for anything but another short look at the same map.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. A poisoned lock only means that another task panicked while holding it; every map here is still whole then.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
