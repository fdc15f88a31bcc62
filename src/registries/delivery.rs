//! Deliveries of webhooks, whatever the kind of registry: their signature, and the change that an
//! event is about.
//!
//! Absent: the secret's storage, the clock, and the list of deliveries that were seen before.

use http::HeaderMap;
use jiff::Timestamp;

use super::announced_change::AnnouncedChange;
use super::delivery_error::{DeliveryError, InvalidEvent};
use super::mlflow;
use crate::api::model_registry::ModelRegistrySpec;

/// The protocol that a registry's deliveries follow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeliveryProtocol {
    /// MLflow's.
    Mlflow,
}

/// A delivery whose headers were read, but whose signature was not verified yet.
#[derive(Debug, Eq, PartialEq)]
pub enum SignedDelivery {
    /// One of MLflow.
    Mlflow(mlflow::DeliverySignature),
}

impl DeliveryProtocol {
    /// The protocol of the registry that a spec names; `None` if that kind of registry has no
    /// webhooks.
    #[must_use]
    pub fn of(spec: &ModelRegistrySpec) -> Option<Self> {
        spec.mlflow.as_ref().map(|_| Self::Mlflow)
    }

    /// The headers that belong to the signature. A replica that forwards a delivery sends them
    /// along.
    #[must_use]
    pub fn headers(self) -> &'static [&'static str] {
        match self {
            Self::Mlflow => &mlflow::DELIVERY_HEADERS,
        }
    }

    /// Reads the headers of a delivery.
    ///
    /// # Errors
    /// If a header is missing or malformed.
    pub fn read(self, headers: &HeaderMap) -> Result<SignedDelivery, DeliveryError> {
        match self {
            Self::Mlflow => mlflow::DeliverySignature::read(headers).map(SignedDelivery::Mlflow),
        }
    }

    /// The change that an event is about; `None` if it is about something else.
    ///
    /// # Errors
    /// If the body is not an event of the protocol.
    pub fn change(self, body: &[u8]) -> Result<Option<AnnouncedChange>, InvalidEvent> {
        match self {
            Self::Mlflow => mlflow::change(body),
        }
    }
}

impl SignedDelivery {
    /// The id of the delivery. Retries have the same.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Mlflow(signature) => signature.id(),
        }
    }

    /// The time until which the delivery is accepted.
    #[must_use]
    pub fn valid_until(&self) -> Timestamp {
        match self {
            Self::Mlflow(signature) => signature.valid_until(),
        }
    }

    /// Whether the delivery was signed recently.
    #[must_use]
    pub fn is_recent(&self, now: Timestamp) -> bool {
        match self {
            Self::Mlflow(signature) => signature.is_recent(now),
        }
    }

    /// Whether one of these keys signed the id, the time and this body. Compares in constant time.
    #[must_use]
    pub fn is_signed_with<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k [u8]>,
        body: &[u8],
    ) -> bool {
        match self {
            Self::Mlflow(signature) => signature.is_signed_with(keys, body),
        }
    }
}
