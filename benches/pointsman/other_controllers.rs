//! Controllers of other projects, unchanged, each with as many objects as Pointsman and on a control plane of the same kind.
//!
//! Flux's source-controller follows a tag for each object, as Pointsman follows an alias; Argo Rollouts follows nothing, and shows
//! the cost of a controller that drives rollouts while there are none.
//!
//! Absent: the cost of Pointsman. It has another control plane, because deleting the objects of these takes minutes.

use futures::{StreamExt, stream};
use pointsman_env::interceptor::Interceptor;
use pointsman_env::oci::OciRegistry;
use pointsman_env::progress::Task;
use pointsman_env::{Kind, Peer};
use serde_json::{Value, json};

use crate::durations::{Durations, Unit};
use crate::environment::{Environment, deployment};
use crate::idle_cost::{IdleCost, ratio, wait_until_quiet};
use crate::object_counter::{ObjectCounter, READY};
use crate::object_set::ObjectSet;
use crate::observers::ValueObserver;
use crate::peers::{PREFIX, Plan, in_seconds, measure_delays};
use crate::report::Measurement;

const OCI_REPOSITORY: Kind = Kind {
    group: "source.toolkit.fluxcd.io",
    version: "v1",
    kind: "OCIRepository",
    plural: "ocirepositories",
};
const ROLLOUT: Kind = Kind {
    group: "argoproj.io",
    version: "v1alpha1",
    kind: "Rollout",
    plural: "rollouts",
};
/// Text of a Rollout that is healthy.
const HEALTHY: &str = r#""phase":"Healthy""#;
/// The tag that objects follow.
const TAG: &str = "champion";
const CONCURRENT_PUSHES: usize = 32;

/// A measured controller.
pub struct Controller {
    /// With its version.
    name: String,
    objects: String,
    idle: IdleCost,
    /// From the move of a tag to the status, if it follows tags.
    delays: Option<Durations>,
}

/// The figures of Pointsman that controllers are compared with.
pub struct OwnCost<'own> {
    pub idle: &'own IdleCost,
    pub delays: &'own Durations,
}

impl Controller {
    pub fn measurements(&self, plan: &Plan, own: &OwnCost) -> Vec<Measurement> {
        let what = format!("{}, {}", self.name, self.objects);
        let mut measurements = Vec::from(self.idle.measurements(&what));
        let mut ratios = own.idle.ratios(&self.idle);
        if let Some(delays) = &self.delays {
            let requests = self.idle.registry_requests_per_minute();
            let figure = format!("{requests:.1} requests each minute");
            measurements.push(Measurement::new(
                format!("{what}: cost to the registry"),
                figure,
            ));
            let figure = delays.median_figure(Unit::Seconds);
            let measurement = Measurement::new(format!("{what}: tag moved → seen"), figure);
            measurements.push(measurement.of_runs(delays.count()));
            let requests = ratio(requests, own.idle.registry_requests_per_minute());
            let median = |delays: &Durations| delays.percentile(50).as_secs_f64();
            let delay = ratio(median(delays), median(own.delays));
            ratios = format!("{ratios}, requests to the registry {requests}, delay (p50) {delay}");
        }
        let interval = plan.interval.as_secs();
        let name = format!("ratios: {} ÷ Pointsman, every {interval} s", self.name);
        measurements.push(Measurement::new(name, ratios).documented());
        measurements
    }
}

/// One after the other; the objects of a stopped controller do not change any more.
pub async fn measure(environment: &Environment, plan: &Plan) -> Vec<Controller> {
    vec![
        measure_source_controller(environment, plan).await,
        measure_rollouts(environment, plan).await,
    ]
}

/// A controller of another project, and its objects.
struct PeerFixture {
    objects: ObjectSet,
    peer: Peer,
}

impl PeerFixture {
    /// Creates the objects and waits until all contain the text; panics if the controller ends.
    async fn create(&mut self, kind: &Kind, text: &str, object: impl Fn(String) -> Value) {
        let (objects, peer) = (&self.objects, &mut self.peer);
        let created = async {
            let mut healthy = ObjectCounter::start(&objects.namespace, kind, text).await;
            objects.create(kind.plural, kind, object).await;
            let task = objects.task(&format!("{} healthy", kind.plural));
            healthy
                .wait_for(objects.count, &task, objects.timeout())
                .await;
            task.done();
        };
        tokio::select! { () = created => {}, error = peer.ends() => panic!("{error}") }
    }
}

/// Each object polls its tag by itself.
async fn measure_source_controller(environment: &Environment, plan: &Plan) -> Controller {
    let registry = OciRegistry::start().await.unwrap();
    push_all(&registry, plan).await;
    let proxy = Interceptor::start(registry.url(), None).await.unwrap();
    let objects = ObjectSet::new(environment, PREFIX, plan.objects).await;
    let peer = Peer::source_controller(&objects.namespace).await.unwrap();
    let mut fixture = PeerFixture { objects, peer };
    fixture
        .create(&OCI_REPOSITORY, READY, |name| {
            oci_repository(&proxy.url(), plan, &name)
        })
        .await;
    let name = format!("source-controller {}", fixture.peer.version());
    let task = Task::start(&format!("{name}: counting, then moving tags"), 0);
    // After one interval each timer has ticked.
    tokio::time::sleep(plan.interval).await;
    let (pid, api) = (fixture.peer.pid().unwrap(), fixture.peer.api());
    let idle = IdleCost::measure(pid, api, &proxy, plan.window).await;
    let delays = move_tags(&fixture, &registry, plan).await;
    task.done();
    fixture.peer.stop().unwrap();
    let objects = format!("{} OCIRepositories", plan.objects);
    Controller {
        name,
        objects,
        idle,
        delays: Some(delays),
    }
}

async fn push_all(registry: &OciRegistry, plan: &Plan) {
    let names = stream::iter(plan.names());
    let pushed =
        names.map(|name| async move { registry.push(&name, TAG, "version 1").await.unwrap() });
    pushed
        .buffer_unordered(CONCURRENT_PUSHES)
        .for_each(|_| std::future::ready(()))
        .await;
}

/// Follows the tag without verifying or unpacking the artifact.
fn oci_repository(registry: &str, plan: &Plan, name: &str) -> Value {
    let address = registry.trim_start_matches("http://");
    json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "OCIRepository",
        "metadata": {"name": name},
        "spec": {
            "url": format!("oci://{address}/{name}"),
            "insecure": true,
            "interval": in_seconds(plan.interval),
            "ref": {"tag": TAG},
            "layerSelector": {"operation": "copy"},
        },
    })
}

/// From the move of a tag to the status that has its new digest.
async fn move_tags(fixture: &PeerFixture, registry: &OciRegistry, plan: &Plan) -> Durations {
    let namespace = &fixture.objects.namespace;
    // The same content has the same digest in every repository.
    let digest = registry.push("any", TAG, "version 2").await.unwrap();
    let revision = format!("{TAG}@{digest}");
    let seen = |name: String| {
        let objects = namespace.api(&OCI_REPOSITORY);
        let mut observer = ValueObserver::new(objects, &name, "/status/artifact/revision");
        let revision = revision.clone();
        async move { observer.wait_for(&revision).await }
    };
    let change =
        |name: String| async move { drop(registry.push(&name, TAG, "version 2").await.unwrap()) };
    measure_delays(plan, plan.interval, change, seen).await
}

/// Nothing is rolled out.
async fn measure_rollouts(environment: &Environment, plan: &Plan) -> Controller {
    let objects = ObjectSet::new(environment, PREFIX, plan.objects).await;
    let peer = Peer::rollouts(&objects.namespace).await.unwrap();
    let mut fixture = PeerFixture { objects, peer };
    fixture
        .create(&ROLLOUT, HEALTHY, |name| rollout(&name))
        .await;
    let (pid, api) = (fixture.peer.pid().unwrap(), fixture.peer.api());
    wait_until_quiet(api).await;
    let name = format!("argo-rollouts {}", fixture.peer.version());
    let task = Task::start(&format!("{name}: counting"), 0);
    let idle = IdleCost::measure(pid, api, api, plan.window).await;
    task.done();
    fixture.peer.stop().unwrap();
    let objects = format!("{} Rollouts", plan.objects);
    Controller {
        name,
        objects,
        idle,
        delays: None,
    }
}

/// The Deployment of Pointsman's fixture as a Rollout without steps.
fn rollout(name: &str) -> Value {
    let mut object = deployment(name);
    object["apiVersion"] = json!("argoproj.io/v1alpha1");
    object["kind"] = json!("Rollout");
    object["spec"]["strategy"] = json!({"canary": {}});
    object
}
