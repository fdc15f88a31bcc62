//! The faults of a webhook delivery.
//!
//! Absent: HTTP statuses. The receiver chooses them.

/// Why the headers of a delivery cannot be verified.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeliveryError {
    /// The id or the time is missing, or not in the protocol's format.
    Malformed,
    /// There is no signature of a known scheme.
    NoSignature,
}

/// The body is not an event of the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidEvent;
