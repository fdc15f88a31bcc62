//! Writes a status, and finds out whether the write changed anything.
//!
//! Absent: retries. A conflict means that the object is reconciled again.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};

use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::store::{Cached, Store};

/// The effect of a status write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StatusWrite {
    /// The status is another one now.
    Changed,
    /// The API server changed nothing: the status is the same without the fields that an older CRD does not know.
    ///
    /// Nothing may be enqueued then. The next reconcile would find the same difference and write again, without end.
    Unchanged,
    /// The object was deleted.
    Gone,
}

/// Replaces an object's status, and updates the store. The request carries the resource version that the object was read at, so a
/// stale writer gets a conflict. A status that changed nothing when it was sent before is not sent again.
///
/// # Errors
/// The API server's error, unless it is "not found".
pub async fn write<K>(
    client: &Client,
    store: &Store<K>,
    object: &K,
) -> Result<StatusWrite, ReconcileError>
where
    K: Clone + Debug + Resource<Scope = NamespaceResourceScope> + Cached,
{
    if store.is_status_ineffective(object) {
        return Ok(StatusWrite::Unchanged);
    }
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let written = api
        .replace_status(&object.name_any(), &PostParams::default(), object)
        .await;
    match written {
        // The API server counts the resource version up with each change, and only then.
        Ok(written) if written.resource_version() == object.resource_version() => {
            tracing::warn!(
                kind = %K::kind(&()), namespace = written.namespace(), name = written.name_any(),
                "the API server dropped fields of a status; update the CRDs: pointsman crds | kubectl apply --server-side -f -"
            );
            store.mark_status_ineffective(object);
            Ok(StatusWrite::Unchanged)
        }
        Ok(mut written) => {
            store.put_own(&mut written);
            tracing::debug!(name = written.name_any(), "wrote a status");
            Ok(StatusWrite::Changed)
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(StatusWrite::Gone),
        Err(error) => Err(ReconcileError::when("writing a status")(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use http_body_util::BodyExt;
    use k8s_openapi::api::apps::v1::StatefulSet;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::key::{IndexKey, ObjectKey};

    impl Cached for StatefulSet {
        fn index_keys(&self) -> Vec<IndexKey> {
            Vec::new()
        }

        fn prune(&mut self) {}
    }

    /// An API server with one object, which knows no field of the status but `replicas`; and the number of its requests.
    fn pruning_server(object: &StatefulSet) -> (Client, Arc<AtomicU64>) {
        let requests = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&requests);
        let object = Arc::new(Mutex::new(serde_json::to_value(object).unwrap()));
        let answer = move |request: Request<Body>| {
            count.fetch_add(1, Ordering::SeqCst);
            let object = Arc::clone(&object);
            async move {
                let sent = request.into_body().collect().await.unwrap().to_bytes();
                let sent: Value = serde_json::from_slice(&sent).unwrap();
                let mut object = object.lock().unwrap();
                let kept = json!({"replicas": sent["status"]["replicas"]});
                if object["status"] != kept {
                    object["status"] = kept;
                    let version = object["metadata"]["resourceVersion"].as_str().unwrap();
                    let next = version.parse::<u64>().unwrap() + 1;
                    object["metadata"]["resourceVersion"] = json!(next.to_string());
                }
                Ok::<_, Infallible>(Response::new(Body::from(object.to_string().into_bytes())))
            }
        };
        (Client::new(tower::service_fn(answer), "ml"), requests)
    }

    #[tokio::test]
    async fn a_status_that_the_server_prunes_is_written_once_and_changes_nothing() {
        let mut object: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "ml", "resourceVersion": "7"}, "status": {"replicas": 1}}))
        .unwrap();
        let store = Store::default();
        store.put(0, &mut object.clone());
        let (client, requests) = pruning_server(&object);
        let key = ObjectKey::new("ml", "a");

        let status = object.status.as_mut().unwrap();
        (status.replicas, status.current_revision) = (2, Some("pruned".to_owned()));
        let written = write(&client, &store, &object).await.unwrap();
        assert_eq!(written, StatusWrite::Changed);

        let mut stored = store.get(&key).unwrap();
        stored.status.as_mut().unwrap().current_revision = Some("pruned".to_owned());
        for _ in 0..3 {
            let written = write(&client, &store, &stored).await.unwrap();
            assert_eq!(written, StatusWrite::Unchanged);
        }
        assert_eq!(requests.load(Ordering::SeqCst), 2);

        stored.status.as_mut().unwrap().replicas = 3;
        let written = write(&client, &store, &stored).await.unwrap();
        assert_eq!(written, StatusWrite::Changed);
        assert_eq!(requests.load(Ordering::SeqCst), 3);
    }
}
