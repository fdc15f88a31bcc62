//! Who may read `/metrics`: those whose token the API server knows and lets get the path.
//!
//! Absent: TLS. In a cluster where the network is not trusted, a `NetworkPolicy` or a mesh protects the token.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use ring::digest;

use crate::controllers::receiver::limits::TokenBucket;
use crate::kubernetes::lock::lock;

/// The path in the rights of readers.
const PATH: &str = "/metrics";
/// For how long an answer of the API server counts.
const VALID: Duration = Duration::from_secs(60);
/// How many answers are kept, and how many tokens are reviewed: a burst, and then so many a second.
const MOST: usize = 1000;
const BURST: u32 = 20;
const PER_SECOND: u32 = 5;
/// The longest token that is reviewed.
const LONGEST_TOKEN: usize = 8 << 10;

/// Asks the API server whether a token may read the metrics, and keeps its answers.
pub struct MetricsAccess {
    client: Client,
    inner: Mutex<AccessInner>,
}

struct AccessInner {
    answers: HashMap<[u8; 32], (StatusCode, Instant)>,
    reviews: TokenBucket,
}

impl MetricsAccess {
    /// Nothing is asked yet.
    pub fn new(client: Client) -> Self {
        let inner = AccessInner {
            answers: HashMap::new(),
            reviews: TokenBucket::new(BURST, PER_SECOND, Instant::now()),
        };
        Self {
            client,
            inner: Mutex::new(inner),
        }
    }

    /// 200 if the request may read the metrics, and otherwise the status of the refusal.
    pub async fn check(&self, headers: &HeaderMap) -> StatusCode {
        let Some(token) = bearer(headers) else {
            return StatusCode::UNAUTHORIZED;
        };
        let key = digest_of(token);
        match self.known(&key, Instant::now()) {
            Known::Answer(status) => return status,
            Known::TooMany => return StatusCode::TOO_MANY_REQUESTS,
            Known::Nothing => {}
        }
        match self.ask(token).await {
            Ok(status) => {
                let answer = (status, Instant::now());
                lock(&self.inner).answers.insert(key, answer);
                status
            }
            Err(error) => {
                tracing::warn!(%error, "it cannot be reviewed who reads the metrics; look at the rights of the operator");
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    fn known(&self, key: &[u8; 32], now: Instant) -> Known {
        let mut inner = lock(&self.inner);
        let is_valid = |at: Instant| now.saturating_duration_since(at) < VALID;
        if let Some((status, at)) = inner.answers.get(key)
            && is_valid(*at)
        {
            return Known::Answer(*status);
        }
        if inner.answers.len() >= MOST {
            inner.answers.retain(|_, (_, at)| is_valid(*at));
        }
        if inner.answers.len() >= MOST || !inner.reviews.take(now) {
            return Known::TooMany;
        }
        Known::Nothing
    }

    async fn ask(&self, token: &str) -> Result<StatusCode, kube::Error> {
        let Some(user) = self.authenticate(token).await? else {
            return Ok(StatusCode::UNAUTHORIZED);
        };
        if self.is_allowed(user).await? {
            Ok(StatusCode::OK)
        } else {
            Ok(StatusCode::FORBIDDEN)
        }
    }

    async fn authenticate(&self, token: &str) -> Result<Option<UserInfo>, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let reviewed = reviews.create(&PostParams::default(), &review).await?;
        let status = reviewed.status.unwrap_or_default();
        Ok(status
            .user
            .filter(|_user| status.authenticated == Some(true)))
    }

    async fn is_allowed(&self, user: UserInfo) -> Result<bool, kube::Error> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                uid: user.uid,
                groups: user.groups,
                extra: user.extra,
                non_resource_attributes: Some(NonResourceAttributes {
                    path: Some(PATH.to_owned()),
                    verb: Some("get".to_owned()),
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let reviewed = reviews.create(&PostParams::default(), &review).await?;
        Ok(reviewed.status.is_some_and(|status| status.allowed))
    }
}

/// What is known about a token.
#[derive(Debug, Eq, PartialEq)]
enum Known {
    Answer(StatusCode),
    /// It may be asked for.
    Nothing,
    /// Others were asked for too often.
    TooMany,
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let is_token = scheme.eq_ignore_ascii_case("bearer");
    (is_token && !token.is_empty() && token.len() <= LONGEST_TOKEN).then_some(token)
}

fn digest_of(token: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;

    use super::*;

    #[test]
    fn only_a_bearer_token_of_usual_length_is_reviewed() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().expect("a value"));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(with("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(with("bearer abc").as_deref(), Some("abc"));
        for refused in ["Basic abc", "Bearer", "Bearer "] {
            assert_eq!(with(refused), None, "{refused}");
        }
        assert_eq!(
            with(&format!("Bearer {}", "x".repeat(LONGEST_TOKEN + 1))),
            None
        );
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn a_flood_of_unknown_tokens_is_not_passed_on_and_known_ones_get_through() {
        let refuse = |_: Request<Body>| {
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
        };
        let client = Client::new(tower::service_fn(refuse), "ml");
        let access = MetricsAccess::new(client);
        let (known, now) = (digest_of("known"), Instant::now());
        lock(&access.inner)
            .answers
            .insert(known, (StatusCode::OK, now));
        let outcomes =
            (0..BURST + 10).map(|number| access.known(&digest_of(&number.to_string()), now));
        let passed_on = outcomes
            .filter(|outcome| *outcome == Known::Nothing)
            .count();
        assert_eq!(passed_on, usize::try_from(BURST).expect("a small number"));
        assert_eq!(access.known(&known, now), Known::Answer(StatusCode::OK));
        assert_ne!(
            access.known(&known, now + VALID),
            Known::Answer(StatusCode::OK)
        );
    }
}
