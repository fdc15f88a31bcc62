//! Whether a delivery was signed by who holds the secret, and lately.
//!
//! Absent: the clock, and the memory of what was delivered before.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use ring::hmac;

/// Header: a delivery's own name, the same on each try.
pub const ID_HEADER: &str = "x-mlflow-delivery-id";
/// Header: when the delivery was signed, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "x-mlflow-timestamp";
/// Header: the signature of id, timestamp and body.
pub const SIGNATURE_HEADER: &str = "x-mlflow-signature";
/// How far a delivery's time may lie from ours, before and after.
pub const WINDOW: SignedDuration = SignedDuration::from_mins(5);
/// The longest id; MLflow sends UUIDs.
const LONGEST_ID: usize = 128;

/// What a delivery says of itself.
#[derive(Debug, Eq, PartialEq)]
pub struct Signed {
    id: String,
    timestamp: String,
    at: Timestamp,
    signature: Vec<u8>,
}

/// Why headers say nothing that could be checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unsigned {
    /// Id or time are missing, or not as MLflow writes them.
    Malformed,
    /// There is no signature of a kind that is known.
    NoSignature,
}

impl Signed {
    /// Reads the three headers.
    ///
    /// # Errors
    /// Where one of them is missing, or not as MLflow writes it.
    pub fn read(headers: &HeaderMap) -> Result<Self, Unsigned> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let id = text(ID_HEADER)
            .filter(|id| is_id(id))
            .ok_or(Unsigned::Malformed)?;
        let timestamp = text(TIMESTAMP_HEADER).ok_or(Unsigned::Malformed)?;
        let at = moment(timestamp).ok_or(Unsigned::Malformed)?;
        let signature = text(SIGNATURE_HEADER)
            .and_then(|text| text.strip_prefix("v1,"))
            .ok_or(Unsigned::NoSignature)?;
        let signature = STANDARD
            .decode(signature)
            .map_err(|_| Unsigned::NoSignature)?;
        Ok(Self {
            id: id.to_owned(),
            timestamp: timestamp.to_owned(),
            at,
            signature,
        })
    }

    /// The delivery's own name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Until when a delivery with this time is let in.
    #[must_use]
    pub fn valid_until(&self) -> Timestamp {
        self.at.saturating_add(WINDOW).unwrap_or(Timestamp::MAX)
    }

    /// Whether the delivery was signed lately.
    #[must_use]
    pub fn is_timely(&self, now: Timestamp) -> bool {
        self.at.duration_since(now).abs() <= WINDOW
    }

    /// Whether the holder of one of these keys signed id, time and this very body. Compares in constant time.
    #[must_use]
    pub fn is_by<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>, body: &[u8]) -> bool {
        let content = [
            self.id.as_bytes(),
            b".",
            self.timestamp.as_bytes(),
            b".",
            body,
        ]
        .concat();
        let signed = |key: &[u8]| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            hmac::verify(&key, &content, &self.signature).is_ok()
        };
        // An empty key is nobody's: anyone could sign with it.
        keys.into_iter().filter(|key| !key.is_empty()).any(signed)
    }
}

/// Without a dot, so that no part of the signed text can pass for another.
fn is_id(id: &str) -> bool {
    (1..=LONGEST_ID).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn moment(timestamp: &str) -> Option<Timestamp> {
    let digits =
        (1..=12).contains(&timestamp.len()) && timestamp.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| Timestamp::from_second(timestamp.parse().ok()?).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Id, time, secret, body and signature, made by Python's `hmac` over a delivery that MLflow 3.17 sent.
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

    fn signed(id: &str, time: &str, signature: &str) -> Signed {
        Signed::read(&headers(id, time, signature)).unwrap()
    }

    #[test]
    fn what_the_holder_of_the_secret_signed_is_believed() {
        assert!(signed(ID, TIME, SIGNATURE).is_by([SECRET], BODY));
        assert!(
            signed(ID, TIME, SIGNATURE).is_by([b"another".as_slice(), SECRET], BODY),
            "a key that went before"
        );
    }

    #[test]
    fn whatever_was_altered_is_not_believed() {
        let good = signed(ID, TIME, SIGNATURE);
        assert!(
            !good.is_by([b"a-secret-of-the-test".as_slice()], BODY),
            "another secret"
        );
        assert!(
            !good.is_by([], BODY) && !good.is_by([b"".as_slice()], BODY),
            "no secret"
        );
        assert!(!good.is_by([SECRET], &BODY[1..]), "another body");
        assert!(!good.is_by([SECRET], b""), "no body");
        let other_id = ID.replace('6', "7");
        assert!(
            !signed(&other_id, TIME, SIGNATURE).is_by([SECRET], BODY),
            "another id"
        );
        assert!(
            !signed(ID, "1795420870", SIGNATURE).is_by([SECRET], BODY),
            "another time"
        );
        assert!(
            !signed(ID, "01795420869", SIGNATURE).is_by([SECRET], BODY),
            "the same time, written otherwise"
        );
        assert!(
            !signed(ID, TIME, "v1,AAAA").is_by([SECRET], BODY),
            "a short signature"
        );
        assert!(
            !signed(ID, TIME, "v1,").is_by([SECRET], BODY),
            "an empty signature"
        );
    }

    #[test]
    fn headers_that_mlflow_does_not_write_are_refused() {
        let read =
            |id: &str, time: &str, signature: &str| Signed::read(&headers(id, time, signature));
        for id in ["", "a.b", "a b", &"a".repeat(129)] {
            assert_eq!(read(id, TIME, SIGNATURE), Err(Unsigned::Malformed), "{id}");
        }
        for time in ["", "-1", "1e9", " 1", "17954208690000000000", "１"] {
            assert_eq!(
                read(ID, time, SIGNATURE),
                Err(Unsigned::Malformed),
                "{time}"
            );
        }
        for signature in ["", "v1", "v2,AAAA", "v1,not base64", "AAAA"] {
            assert_eq!(
                read(ID, TIME, signature),
                Err(Unsigned::NoSignature),
                "{signature}"
            );
        }
        assert_eq!(Signed::read(&HeaderMap::new()), Err(Unsigned::Malformed));
    }

    #[test]
    fn a_delivery_is_timely_for_five_minutes_before_and_after() {
        let signed = signed(ID, TIME, SIGNATURE);
        let timely =
            |offset: i64| signed.is_timely(Timestamp::from_second(1_795_420_869 + offset).unwrap());
        assert!(timely(0) && timely(300) && timely(-300));
        assert!(!timely(301), "old");
        assert!(!timely(-301), "from the future");
        assert_eq!(
            signed.valid_until(),
            Timestamp::from_second(1_795_420_869 + 300).unwrap()
        );
    }
}
