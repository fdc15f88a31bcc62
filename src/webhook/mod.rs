//! What a registry delivers: whether it may be believed, which model it names, and the door that it comes in by.
//!
//! Absent: Kubernetes, the registry, and what follows from a delivery. An event only means "look now".

mod door;
mod event;
mod limits;
mod tls;
mod verify;

pub use door::{Unread, read_body, serve};
pub use event::{Malformed, model_named};
pub use limits::{Bucket, Memory};
pub use tls::Certificate;
pub use verify::{Signed, Unsigned, WINDOW};

/// Header: a delivery's own name, the same on each try.
pub const ID_HEADER: &str = "x-mlflow-delivery-id";
/// Header: when the delivery was signed, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "x-mlflow-timestamp";
/// Header: the signature of id, timestamp and body.
pub const SIGNATURE_HEADER: &str = "x-mlflow-signature";
/// How large a delivery's body may be.
pub const LARGEST_BODY: usize = 64 << 10;
