//! The layer below kube's client: asks for protobuf where it is read, and translates what comes so.
//!
//! Absent: retries and errors of the connection, which are kube's.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as HttpBody, Frame};
use kube::client::Body;
use tokio_util::codec::LengthDelimitedCodec;
use tokio_util::io::StreamReader;
use tower::BoxError;

use super::translate::{event, object};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// Servers that have no protobuf answer in JSON, and so does whatever stands in between and knows no better.
const ACCEPTED: HeaderValue =
    HeaderValue::from_static("application/vnd.kubernetes.protobuf;stream=watch,application/json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The kinds that are read so.
const RESOURCES: [(&str, &str); 3] = [
    ("apps/v1", "deployments"),
    ("apps/v1", "replicasets"),
    ("v1", "pods"),
];
/// The longest object: etcd takes none of 2 MiB.
const LONGEST: usize = 4 << 20;

/// What kube's client reads.
type Answer = UnsyncBoxBody<Bytes, BoxError>;

/// Asks for protobuf, where the answer is of a kind that is read so: a watch, a list, an object, or what became of one by a patch.
#[must_use]
pub fn ask_for_protobuf(mut request: Request<Body>) -> Request<Body> {
    if is_read_so(&request) {
        request.headers_mut().insert(ACCEPT, ACCEPTED);
    }
    request
}

fn is_read_so(request: &Request<Body>) -> bool {
    let is_reading = matches!(*request.method(), Method::GET | Method::PATCH);
    is_reading
        && resource(request.uri().path()).is_some_and(|resource| RESOURCES.contains(&resource))
}

/// The group, version and kind of a path of the API: of one object, or of all of a namespace or the cluster.
fn resource(path: &str) -> Option<(&str, &str)> {
    let (version, rest) = match path.strip_prefix("/api/v1/") {
        Some(rest) => ("v1", rest),
        None => ("apps/v1", path.strip_prefix("/apis/apps/v1/")?),
    };
    match rest.split('/').collect::<Vec<_>>()[..] {
        [resource] | ["namespaces", _, resource] | ["namespaces", _, resource, _] => {
            Some((version, resource))
        }
        _ => None,
    }
}

/// Translates an answer in protobuf; any other one is passed on.
#[must_use]
pub fn read_protobuf<B>(response: Response<B>) -> Response<Answer>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let form = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|form| form.to_str().ok())
        .unwrap_or_default();
    let (is_protobuf, is_stream) = (form.starts_with(PROTOBUF), form.contains("stream=watch"));
    let (mut head, body) = response.into_parts();
    if !is_protobuf {
        return Response::from_parts(head, body.map_err(Into::into).boxed_unsync());
    }
    head.headers.insert(CONTENT_TYPE, JSON);
    let body = if is_stream { events(body) } else { whole(body) };
    Response::from_parts(head, body)
}

/// Each event as a line. They come one behind the other, each behind its length.
fn events<B>(body: B) -> Answer
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let bytes = body.into_data_stream().map_err(std::io::Error::other);
    let frames = LengthDelimitedCodec::builder()
        .max_frame_length(LONGEST)
        .new_read(StreamReader::new(bytes));
    let lines = frames.map(|frame| event(&frame?).map_err(BoxError::from));
    BodyExt::boxed_unsync(StreamBody::new(
        lines.map_ok(|line| Frame::data(line.into())),
    ))
}

/// A single object, a list, or a refusal.
fn whole<B>(body: B) -> Answer
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let json = async {
        Ok::<_, BoxError>(object(
            &body.collect().await.map_err(Into::into)?.to_bytes(),
        )?)
    };
    BodyExt::boxed_unsync(StreamBody::new(
        stream::once(json).map_ok(|json| Frame::data(json.into())),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(method: Method, path: &str) -> Option<HeaderValue> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .unwrap();
        ask_for_protobuf(request).headers().get(ACCEPT).cloned()
    }

    #[test]
    fn protobuf_is_asked_for_where_a_deployment_its_sets_or_its_pods_are_shown_and_nowhere_else() {
        for path in [
            "/apis/apps/v1/deployments?watch=true",
            "/apis/apps/v1/namespaces/ml/deployments/taxi",
            "/apis/apps/v1/namespaces/ml/replicasets?limit=100",
            "/api/v1/pods",
            "/api/v1/namespaces/ml/pods?watch=true",
        ] {
            assert_eq!(accepted(Method::GET, path), Some(ACCEPTED), "{path}");
        }
        assert_eq!(
            accepted(
                Method::PATCH,
                "/apis/apps/v1/namespaces/ml/deployments/taxi"
            ),
            Some(ACCEPTED)
        );
        for path in [
            "/api/v1/namespaces/pods",
            "/api/v1/namespaces/ml/pods/taxi/log",
            "/api/v1/namespaces/ml/secrets/pods",
            "/apis/batch/v1/jobs",
            "/apis/pointsman.dev/v1alpha1/aliasbindings",
            "/apis/metrics.k8s.io/v1beta1/pods",
        ] {
            assert_eq!(accepted(Method::GET, path), None, "{path}");
        }
        assert_eq!(
            accepted(Method::DELETE, "/api/v1/namespaces/ml/pods/taxi"),
            None
        );
    }
}
