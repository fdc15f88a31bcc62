//! Controllers of other projects, as they are, each with as many objects as Pointsman is given, on a control plane like its own.
//!
//! Flux's source-controller follows a tag for each object, as Pointsman follows an alias; Argo Rollouts follows nothing, and stands
//! for what a controller that drives rollouts costs while there are none.
//!
//! Absent: what Pointsman costs itself. That is measured where none of these ever was: deleting what they leave takes minutes.

use futures::{StreamExt, stream};
use pointsman_env::interceptor::Interceptor;
use pointsman_env::oci::OciRegistry;
use pointsman_env::progress::Task;
use pointsman_env::{Kind, Peer};
use serde_json::{Value, json};

use crate::costs::{Idle, comes_to_rest, times};
use crate::crowd::{Crowd, READY};
use crate::figures::Durations;
use crate::fleet::Fleet;
use crate::ground::{Ground, deployment};
use crate::peers::{PREFIX, Plan, in_seconds, late};
use crate::report::Goal;
use crate::sightings::Mirror;

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
/// In the status of a Rollout that is well.
const HEALTHY: &str = r#""phase":"Healthy""#;
/// What an object follows, as it would an alias.
const TAG: &str = "champion";
const SIDE_BY_SIDE: usize = 32;

/// What one of them was measured to cost.
pub struct Controller {
    /// Its name and version.
    name: String,
    objects: String,
    idle: Idle,
    /// How late it saw what it follows move, if it follows anything.
    late: Option<Durations>,
}

/// What they are compared with.
pub struct Beside<'own> {
    pub idle: &'own Idle,
    pub late: &'own Durations,
}

impl Controller {
    pub fn goals(&self, plan: &Plan, own: &Beside) -> Vec<Goal> {
        let mut goals = Vec::from(self.idle.goals(&format!("{}, {}", self.name, self.objects)));
        let mut ratios = own.idle.ratios(&self.idle);
        if let Some(late) = &self.late {
            let asked = format!("{:.1} requests each minute", self.idle.asked_a_minute());
            goals.push(Goal::noted(
                format!("{}, {}: cost to the registry", self.name, self.objects),
                asked,
            ));
            goals.push(
                Goal::noted(
                    format!("{}, {}: tag moved → seen", self.name, self.objects),
                    late.in_seconds(),
                )
                .of_runs(late.count()),
            );
            let requests = times(self.idle.asked_a_minute(), own.idle.asked_a_minute());
            let delay = times(
                late.percentile(50).as_secs_f64(),
                own.late.percentile(50).as_secs_f64(),
            );
            ratios = format!("{ratios}, requests to the registry {requests}, delay (p50) {delay}");
        }
        goals.push(Goal::noted(
            format!(
                "ratios: {} ÷ Pointsman, every {} s",
                self.name,
                plan.interval.as_secs()
            ),
            ratios,
        ));
        goals
    }
}

/// One after the other; what a stopped one leaves behind moves no more.
pub async fn measured(ground: &Ground, plan: &Plan) -> Vec<Controller> {
    vec![
        source_controller(ground, plan).await,
        rollouts(ground, plan).await,
    ]
}

/// One of them, and its objects.
struct Stage {
    fleet: Fleet,
    peer: Peer,
}

impl Stage {
    /// Makes the objects and waits until all are well, unless the controller ends first.
    async fn create(&mut self, kind: &Kind, mark: &str, object: impl Fn(String) -> Value) {
        let (fleet, peer) = (&self.fleet, &mut self.peer);
        let well = async {
            let mut well = Crowd::of(&fleet.place, kind, mark).await;
            fleet.create(kind.plural, kind, object).await;
            let task = Task::start(
                &format!("{} {} being well", fleet.count, kind.plural),
                fleet.count as u64,
            );
            well.reaches(fleet.count, &task, fleet.patience()).await;
            task.done();
        };
        tokio::select! { () = well => {}, error = peer.ends() => panic!("{error}") }
    }
}

/// Every object asks for its tag by itself, each interval.
async fn source_controller(ground: &Ground, plan: &Plan) -> Controller {
    let registry = OciRegistry::start().await.unwrap();
    push_all(&registry, plan).await;
    let asked = Interceptor::start(registry.url(), None).await.unwrap();
    let fleet = Fleet::new(ground, PREFIX, plan.objects).await;
    let peer = Peer::source_controller(&fleet.place).await.unwrap();
    let mut stage = Stage { fleet, peer };
    stage
        .create(&OCI_REPOSITORY, READY, |name| {
            oci_repository(&asked.url(), plan, &name)
        })
        .await;
    let name = format!("source-controller {}", stage.peer.version());
    let task = Task::start(&format!("{name}: counting, then moving tags"), 0);
    // What it does at first is over once each timer has rung.
    tokio::time::sleep(plan.interval).await;
    let idle = Idle::of(
        stage.peer.pid().unwrap(),
        stage.peer.api(),
        &asked,
        plan.window,
    )
    .await;
    let late = tags_moved(&stage, &registry, plan).await;
    task.done();
    stage.peer.stop().unwrap();
    Controller {
        name,
        objects: format!("{} OCIRepositories", plan.objects),
        idle,
        late: Some(late),
    }
}

async fn push_all(registry: &OciRegistry, plan: &Plan) {
    let names = stream::iter(plan.names());
    let pushed =
        names.map(|name| async move { registry.push(&name, TAG, "version 1").await.unwrap() });
    pushed
        .buffer_unordered(SIDE_BY_SIDE)
        .for_each(|_| std::future::ready(()))
        .await;
}

/// The tag, as it is: nothing is verified, and what it names is kept as it came.
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

/// How late the status names what the tag was moved to.
async fn tags_moved(stage: &Stage, registry: &OciRegistry, plan: &Plan) -> Durations {
    let place = &stage.fleet.place;
    // The same content is the same artifact, whatever repository it is in.
    let digest = registry.push("any", TAG, "version 2").await.unwrap();
    let revision = format!("{TAG}@{digest}");
    let seen = |name: String| {
        let mut mirror = Mirror::at(
            place.api(&OCI_REPOSITORY),
            &name,
            "/status/artifact/revision",
        );
        let revision = revision.clone();
        async move { mirror.alias(&revision).await }
    };
    let change =
        |name: String| async move { drop(registry.push(&name, TAG, "version 2").await.unwrap()) };
    late(plan, plan.interval, change, seen).await
}

/// Nothing is rolled out.
async fn rollouts(ground: &Ground, plan: &Plan) -> Controller {
    let fleet = Fleet::new(ground, PREFIX, plan.objects).await;
    let peer = Peer::rollouts(&fleet.place).await.unwrap();
    let mut stage = Stage { fleet, peer };
    stage.create(&ROLLOUT, HEALTHY, |name| rollout(&name)).await;
    comes_to_rest(stage.peer.api()).await;
    let name = format!("argo-rollouts {}", stage.peer.version());
    let task = Task::start(&format!("{name}: counting"), 0);
    let idle = Idle::of(
        stage.peer.pid().unwrap(),
        stage.peer.api(),
        stage.peer.api(),
        plan.window,
    )
    .await;
    task.done();
    stage.peer.stop().unwrap();
    Controller {
        name,
        objects: format!("{} Rollouts", plan.objects),
        idle,
        late: None,
    }
}

/// The Deployment that Pointsman is given, as a Rollout without steps.
fn rollout(name: &str) -> Value {
    let mut object = deployment(name);
    object["apiVersion"] = json!("argoproj.io/v1alpha1");
    object["kind"] = json!("Rollout");
    object["spec"]["strategy"] = json!({"canary": {}});
    object
}
