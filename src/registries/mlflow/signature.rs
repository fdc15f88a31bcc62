//! Verifies that a delivery was signed with the shared secret, and recently.
//!
//! Absent: the clock, and the list of deliveries that were seen before.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use ring::hmac;

use crate::registries::delivery_error::DeliveryError;

/// The id of a delivery, the same on each retry.
const ID_HEADER: &str = "x-mlflow-delivery-id";
/// The time of the signature, in seconds since 1970.
const TIMESTAMP_HEADER: &str = "x-mlflow-timestamp";
/// The signature of id, timestamp and body.
const SIGNATURE_HEADER: &str = "x-mlflow-signature";
/// The headers of a signed delivery.
pub const DELIVERY_HEADERS: [&str; 3] = [ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER];
/// The largest difference between a delivery's time and ours, in both directions.
const WINDOW: SignedDuration = SignedDuration::from_mins(5);
/// The longest id; MLflow sends UUIDs.
const LONGEST_ID: usize = 128;

/// The signature headers of a delivery.
#[derive(Debug, Eq, PartialEq)]
pub struct DeliverySignature {
    id: String,
    timestamp: String,
    at: Timestamp,
    signature: Vec<u8>,
}

impl DeliverySignature {
    /// Reads the three headers.
    ///
    /// # Errors
    /// If one of them is missing or malformed.
    pub fn read(headers: &HeaderMap) -> Result<Self, DeliveryError> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let id = text(ID_HEADER).unwrap_or_default();
        if !is_id(id) {
            return Err(DeliveryError::Malformed);
        }
        let timestamp = text(TIMESTAMP_HEADER).unwrap_or_default();
        let at = parse_timestamp(timestamp).ok_or(DeliveryError::Malformed)?;
        let signature = text(SIGNATURE_HEADER).unwrap_or_default();
        let encoded = signature
            .strip_prefix("v1,")
            .ok_or(DeliveryError::NoSignature)?;
        let signature = STANDARD
            .decode(encoded)
            .map_err(|_| DeliveryError::NoSignature)?;
        Ok(Self {
            id: id.to_owned(),
            timestamp: timestamp.to_owned(),
            at,
            signature,
        })
    }

    /// The id of the delivery.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The time until which a delivery with this timestamp is accepted.
    #[must_use]
    pub fn valid_until(&self) -> Timestamp {
        self.at.saturating_add(WINDOW).unwrap_or(Timestamp::MAX)
    }

    /// Whether the delivery was signed within the window.
    #[must_use]
    pub fn is_recent(&self, now: Timestamp) -> bool {
        self.at.duration_since(now).abs() <= WINDOW
    }

    /// Whether one of these keys signed the id, the time and this body. Compares in constant time.
    #[must_use]
    pub fn is_signed_with<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k [u8]>,
        body: &[u8],
    ) -> bool {
        let content = [
            self.id.as_bytes(),
            b".",
            self.timestamp.as_bytes(),
            b".",
            body,
        ]
        .concat();
        for key in keys {
            // Anyone can sign with an empty key, so it verifies nothing.
            if key.is_empty() {
                continue;
            }
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            if hmac::verify(&key, &content, &self.signature).is_ok() {
                return true;
            }
        }
        false
    }
}

/// Whether an id has no dot, so that no part of the signed text can be taken for another.
fn is_id(id: &str) -> bool {
    (1..=LONGEST_ID).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let is_number =
        (1..=12).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return None;
    }
    Timestamp::from_second(text.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Id, time, secret, body and signature, made by Python's `hmac` over a delivery that MLflow
    /// 3.17 sent.
    const ID: &str = "68fff168-ad1b-4e6c-919a-7e537ca1d7b8";
    const TIME: &str = "1795420869";
    const SECRET: &[u8] = b"a-secret-of-the-tests";
    const BODY: &[u8] = br#"{"entity": "model_version_alias", "action": "created", "timestamp": "2026-11-23T08:01:10.810816+00:00", "data": {"name": "wh", "alias": "champion", "version": "1"}}"#;
    const SIGNATURE: &str = "v1,BqjicOHJVjUqkvfmLkFfwxEGqpJxQIq3rI9Lu1txjyw=";

    fn headers(id: &str, time: &str, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (ID_HEADER, id),
            (TIMESTAMP_HEADER, time),
            (SIGNATURE_HEADER, signature),
        ] {
            headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn signed(id: &str, time: &str, signature: &str) -> DeliverySignature {
        DeliverySignature::read(&headers(id, time, signature)).unwrap()
    }

    #[test]
    fn a_delivery_signed_with_the_secret_is_accepted() {
        assert!(signed(ID, TIME, SIGNATURE).is_signed_with([SECRET], BODY));
        assert!(
            signed(ID, TIME, SIGNATURE).is_signed_with([b"another".as_slice(), SECRET], BODY),
            "a previous key"
        );
    }

    #[test]
    fn an_altered_delivery_is_rejected() {
        let good = signed(ID, TIME, SIGNATURE);
        assert!(
            !good.is_signed_with([b"a-secret-of-the-test".as_slice()], BODY),
            "another secret"
        );
        assert!(
            !good.is_signed_with([], BODY) && !good.is_signed_with([b"".as_slice()], BODY),
            "no secret"
        );
        assert!(!good.is_signed_with([SECRET], &BODY[1..]), "another body");
        assert!(!good.is_signed_with([SECRET], b""), "no body");
        let other_id = ID.replace('6', "7");
        assert!(
            !signed(&other_id, TIME, SIGNATURE).is_signed_with([SECRET], BODY),
            "another id"
        );
        assert!(
            !signed(ID, "1795420870", SIGNATURE).is_signed_with([SECRET], BODY),
            "another time"
        );
        assert!(
            !signed(ID, "01795420869", SIGNATURE).is_signed_with([SECRET], BODY),
            "the same time, written in another way"
        );
        assert!(
            !signed(ID, TIME, "v1,AAAA").is_signed_with([SECRET], BODY),
            "a short signature"
        );
        assert!(
            !signed(ID, TIME, "v1,").is_signed_with([SECRET], BODY),
            "an empty signature"
        );
    }

    #[test]
    fn headers_in_another_format_are_rejected() {
        let read = |id: &str, time: &str, signature: &str| {
            DeliverySignature::read(&headers(id, time, signature))
        };
        for id in ["", "a.b", "a b", &"a".repeat(129)] {
            assert_eq!(
                read(id, TIME, SIGNATURE),
                Err(DeliveryError::Malformed),
                "{id}"
            );
        }
        for time in ["", "-1", "1e9", " 1", "17954208690000000000", "１"] {
            assert_eq!(
                read(ID, time, SIGNATURE),
                Err(DeliveryError::Malformed),
                "{time}"
            );
        }
        for signature in ["", "v1", "v2,AAAA", "v1,not base64", "AAAA"] {
            assert_eq!(
                read(ID, TIME, signature),
                Err(DeliveryError::NoSignature),
                "{signature}"
            );
        }
        assert_eq!(
            DeliverySignature::read(&HeaderMap::new()),
            Err(DeliveryError::Malformed)
        );
    }

    #[test]
    fn a_delivery_is_recent_for_five_minutes_before_and_after() {
        let signed = signed(ID, TIME, SIGNATURE);
        let recent =
            |offset: i64| signed.is_recent(Timestamp::from_second(1_795_420_869 + offset).unwrap());
        assert!(recent(0) && recent(300) && recent(-300));
        assert!(!recent(301), "old");
        assert!(!recent(-301), "from the future");
        assert_eq!(
            signed.valid_until(),
            Timestamp::from_second(1_795_420_869 + 300).unwrap()
        );
    }
}
