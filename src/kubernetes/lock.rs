//! Locks a mutex.
//!
//! Absent: locks that are held across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, also if a task panicked while it held it: the maps behind our locks are consistent at each moment.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
