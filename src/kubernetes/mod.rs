//! Machinery for controllers: stores, watches, work queues, leader election, Events, the API client.
//!
//! Absent: our own kinds, and any decision.

pub mod backoff;
pub mod client;
pub mod compress;
pub mod event_recorder;
pub mod failure;
pub mod finalizer;
pub mod key;
pub mod lease;
pub mod lock;
pub mod permits;
pub mod progress;
pub mod status;
pub mod store;
pub mod turns;
pub mod watch;
pub mod work_queue;
