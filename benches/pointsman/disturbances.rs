//! Random rollouts and disturbances of a cluster: planned from a seed, so that a run can be repeated, and carried out.
//!
//! Absent: figures, and randomness other than the seed's. The cluster's own timing differs from run to run.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use pointsman_env::interceptor::{Fault, Interceptor, Matcher, matching};
use pointsman_env::kwok::LOST_ANNOTATION;
use pointsman_env::{Kind, TestNamespace, kinds};
use serde_json::{Value, json};
use tokio::time::sleep;

/// Two are part of every control plane, the others are added.
pub const NODES: [&str; 4] = ["kwok-0", "kwok-1", "kwok-2", "kwok-3"];
/// Bindings in one namespace, which share its quota.
pub const BINDINGS_PER_NAMESPACE: usize = 5;
const MOST_BINDINGS: usize = 100;
const MOST_ROUNDS: usize = 11;
const BAD_VERSIONS: [Behavior; 3] = [
    Behavior::Crash,
    Behavior::NeverReady,
    Behavior::LoseReadiness,
];
const GOOD_VERSIONS: [Behavior; 5] = [
    Behavior::Ready,
    Behavior::Slow,
    Behavior::SlowPull,
    Behavior::Flaky,
    Behavior::SidecarCrash,
];
const QUOTA: &str = "small";
const RESOURCE_QUOTA: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ResourceQuota",
    plural: "resourcequotas",
};
const CONCURRENT_CHANGES: usize = 16;

/// The generator splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("64 bits fit");
        usize::try_from(self.next() % limit).expect("it is below a usize")
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn milliseconds(&mut self, range: Range<usize>) -> Duration {
        let milliseconds = range.start + self.below(range.len());
        Duration::from_millis(u64::try_from(milliseconds).expect("64 bits fit"))
    }

    fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }
}

/// Action the pods of a version do, see `pointsman_env::kwok`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    Ready,
    Slow,
    SlowPull,
    Flaky,
    SidecarCrash,
    Crash,
    NeverReady,
    LoseReadiness,
}

impl Behavior {
    const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Slow => "slow",
            Self::SlowPull => "slow-pull",
            Self::Flaky => "flaky",
            Self::SidecarCrash => "sidecar-crash",
            Self::Crash => "crash",
            Self::NeverReady => "never-ready",
            Self::LoseReadiness => "lose-readiness",
        }
    }

    pub fn is_good(self) -> bool {
        GOOD_VERSIONS.contains(&self)
    }
}

/// A binding with its workload.
#[derive(Debug)]
pub struct PlannedBinding {
    pub replicas: u32,
    /// `spec.strategy` of the Deployment.
    pub strategy: Value,
    /// The behavior of version 2 and all later ones; version 1 is ready at once.
    behaviors: Vec<Behavior>,
}

impl PlannedBinding {
    /// The value of the annotation that chooses the behavior.
    pub fn behavior(&self) -> String {
        let entry = |(index, behavior): (usize, &Behavior)| {
            format!("{}={}", version_of(index), behavior.name())
        };
        let entries: Vec<String> = self.behaviors.iter().enumerate().map(entry).collect();
        entries.join(",")
    }

    pub fn is_good(&self, version: usize) -> bool {
        let behavior = version
            .checked_sub(2)
            .and_then(|index| self.behaviors.get(index));
        behavior.is_none_or(|behavior| behavior.is_good())
    }
}

/// The version that is rolled out in a round.
pub fn version_of(round: usize) -> usize {
    round + 2
}

/// One rollout in each of the first bindings, and what happens meanwhile.
#[derive(Debug)]
pub struct Round {
    pub moved: usize,
    /// When the aliases of a namespace are moved, by namespace.
    pub moved_after: Vec<Duration>,
    pub disturbances: Vec<Disturbance>,
}

#[derive(Debug)]
pub struct Plan {
    pub bindings: Vec<PlannedBinding>,
    pub rounds: Vec<Round>,
}

impl Plan {
    /// So many rollouts of good versions, with a tenth as many of bad ones.
    pub fn new(seed: u64, good: usize) -> Self {
        let mut random = Random(seed);
        let bad = good.div_ceil(10);
        let rollouts = good + bad;
        let bindings = rollouts.div_ceil(MOST_ROUNDS).clamp(10, MOST_BINDINGS);
        let mut behaviors: Vec<Behavior> = (0..rollouts)
            .map(|number| {
                let from: &[Behavior] = if number < bad {
                    &BAD_VERSIONS
                } else {
                    &GOOD_VERSIONS
                };
                random.pick(from)
            })
            .collect();
        random.shuffle(&mut behaviors);
        let of_binding = |binding: usize| behaviors.iter().skip(binding).step_by(bindings).copied();
        let bindings: Vec<PlannedBinding> = (0..bindings)
            .map(|binding| PlannedBinding::random(&mut random, of_binding(binding).collect()))
            .collect();
        let moved = behaviors.chunks(bindings.len()).map(<[Behavior]>::len);
        let rounds = moved
            .map(|moved| Round::random(&mut random, &bindings, moved))
            .collect();
        Self { bindings, rounds }
    }
}

impl PlannedBinding {
    fn random(random: &mut Random, behaviors: Vec<Behavior>) -> Self {
        let strategy = match random.below(4) {
            0 => json!({"type": "Recreate"}),
            1 => json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
            2 => json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
            _ => json!({"type": "RollingUpdate"}),
        };
        let replicas = random.pick(&[1, 2, 3]);
        Self {
            replicas,
            strategy,
            behaviors,
        }
    }
}

impl Round {
    fn random(random: &mut Random, bindings: &[PlannedBinding], moved: usize) -> Self {
        let namespaces = bindings.len().div_ceil(BINDINGS_PER_NAMESPACE);
        let moved_after = (0..namespaces).map(|_| random.milliseconds(0..4000));
        let moved_after = moved_after.collect();
        let mut all = Vec::new();
        for (binding, settings) in bindings.iter().enumerate() {
            let home = settings.replicas;
            if random.one_in(3) {
                let replicas = random.pick(&[0, 0, 1, home + 1, home + 3]);
                all.push(Action::Scale {
                    binding,
                    replicas,
                    home,
                });
            }
            if random.one_in(4) {
                all.push(random.pick(&[Action::Evict { binding }, Action::Delete { binding }]));
            }
        }
        for namespace in 0..namespaces {
            if random.one_in(3) {
                let of = random.pick(&["pods", "count/replicasets.apps"]);
                all.push(Action::Quota { namespace, of });
            }
        }
        let node = random.pick(&NODES);
        all.extend(match random.below(4) {
            0 => vec![Action::Drain(node)],
            1 => vec![Action::LoseNode(node)],
            2 => vec![Action::FillNodes],
            _ => vec![Action::LoseNode(node), Action::FillNodes],
        });
        let (fault, only_writes) = (random.pick(&ApiFault::ALL), random.one_in(2));
        all.push(Action::Api { fault, only_writes });
        let disturbances = all
            .into_iter()
            .map(|what| Disturbance::random(random, what));
        Self {
            moved,
            moved_after,
            disturbances: disturbances.collect(),
        }
    }
}

/// A fault between the operator and the API server.
#[derive(Clone, Copy, Debug)]
enum ApiFault {
    InternalError,
    Unavailable,
    Busy,
    Slow,
    Closed,
    Refused,
}

impl ApiFault {
    const ALL: [Self; 6] = [
        Self::InternalError,
        Self::Unavailable,
        Self::Busy,
        Self::Slow,
        Self::Closed,
        Self::Refused,
    ];

    /// Action a request meets; nothing if no connection is accepted.
    fn fault(self) -> Option<Fault> {
        let status = |code: u16, reason: &str| {
            let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "etcdserver: request timed out", "reason": reason, "code": code});
            Some(Fault::json(code, body.to_string()))
        };
        match self {
            Self::InternalError => status(500, "InternalError"),
            Self::Unavailable => status(503, "ServiceUnavailable"),
            Self::Busy => Some(Fault::Busy(1)),
            Self::Slow => Some(Fault::Slow(Duration::from_secs(3))),
            Self::Closed => Some(Fault::CloseConnection),
            Self::Refused => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Scale {
        binding: usize,
        replicas: u32,
        home: u32,
    },
    /// All pods, by the API of evictions.
    Evict {
        binding: usize,
    },
    /// One pod.
    Delete {
        binding: usize,
    },
    /// No more objects of this resource.
    Quota {
        namespace: usize,
        of: &'static str,
    },
    /// A node takes no more pods, and all of its pods are evicted.
    Drain(&'static str),
    /// A node and its pods keep the status that they have, and the node is not ready.
    LoseNode(&'static str),
    /// No node has processor time left.
    FillNodes,
    Api {
        fault: ApiFault,
        only_writes: bool,
    },
}

#[derive(Debug)]
pub struct Disturbance {
    after: Duration,
    lasts: Duration,
    what: Action,
}

impl fmt::Display for Disturbance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (after, until) = (self.after, self.after + self.lasts);
        let what = &self.what;
        let (after, until) = (after.as_secs_f32(), until.as_secs_f32());
        write!(formatter, "{after:.1} s to {until:.1} s: {what:?}")
    }
}

impl Disturbance {
    fn random(random: &mut Random, what: Action) -> Self {
        let lasts = match what {
            // The node lifecycle controller looks every five seconds.
            Action::LoseNode(_) => 8000..14_000,
            // A leader that cannot renew its lease for longer ends.
            Action::Api { .. } => 1000..5000,
            _ => 1000..12_000,
        };
        Self {
            after: random.milliseconds(0..10_000),
            lasts: random.milliseconds(lasts),
            what,
        }
    }

    /// The binding that it concerns, if it is only one.
    pub fn is_about(&self, number: usize) -> bool {
        match self.what {
            Action::Scale { binding, .. }
            | Action::Evict { binding }
            | Action::Delete { binding } => binding == number,
            Action::Quota { namespace, .. } => number / BINDINGS_PER_NAMESPACE == namespace,
            _ => true,
        }
    }

    /// Whether it concerns more than one namespace.
    pub fn is_general(&self) -> bool {
        matches!(
            self.what,
            Action::Drain(_) | Action::LoseNode(_) | Action::FillNodes | Action::Api { .. }
        )
    }

    /// Begins it after its time, and ends it after its time.
    pub async fn carry_out(&self, cluster: &Cluster<'_>) {
        sleep(self.after).await;
        match self.what {
            Action::Scale {
                binding,
                replicas,
                home,
            } => {
                cluster.scale(binding, replicas).await;
                sleep(self.lasts).await;
                cluster.scale(binding, home).await;
            }
            Action::Evict { binding } => cluster.evict(cluster.pods_of(binding).await).await,
            Action::Delete { binding } => cluster.delete_one(binding).await,
            Action::Quota { namespace, of } => {
                let namespace = &cluster.namespaces[namespace];
                create_quota(namespace, of).await;
                sleep(self.lasts).await;
                namespace.delete(&RESOURCE_QUOTA, QUOTA).await.unwrap();
            }
            Action::Drain(node) => {
                cluster
                    .patch_node(node, json!({"spec": {"unschedulable": true}}))
                    .await;
                cluster.evict(cluster.pods_on(node).await).await;
                sleep(self.lasts).await;
                cluster
                    .patch_node(node, json!({"spec": {"unschedulable": null}}))
                    .await;
            }
            Action::LoseNode(node) => {
                cluster.lose(node).await;
                sleep(self.lasts).await;
                cluster.find_again(node).await;
            }
            Action::FillNodes => cluster.fill(self.lasts).await,
            Action::Api { fault, only_writes } => {
                let matcher = if only_writes {
                    matching::write("")
                } else {
                    matching::everything()
                };
                cluster.break_api(fault, matcher, self.lasts).await;
            }
        }
    }
}

async fn create_quota(namespace: &TestNamespace, of: &str) {
    let hard = json!({of: "1"});
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": QUOTA}, "spec": {"hard": hard}});
    namespace.create(&RESOURCE_QUOTA, &quota).await.unwrap();
}

/// Where disturbances are carried out. They do not pass through the faults of the operator's API.
pub struct Cluster<'a> {
    pub client: kube::Client,
    pub namespaces: &'a [TestNamespace],
    /// The namespace of the pods that fill nodes.
    pub others: &'a TestNamespace,
    /// Before the API server, for the operator only.
    pub api: &'a Interceptor,
    pub name: fn(usize) -> String,
}

impl Cluster<'_> {
    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    /// Scales a Deployment up and down again if its controller takes every sync for a scaling event, and so rolls out nothing:
    /// it never corrects the annotation of a ReplicaSet that has the right size (seen with Kubernetes 1.36.3).
    pub async fn free(&self, binding: usize, replicas: u32) {
        let namespace = &self.namespaces[binding / BINDINGS_PER_NAMESPACE];
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace.namespace());
        let of_binding = ListParams::default().labels(&format!("app={}", (self.name)(binding)));
        let sets = sets.list(&of_binding).await.unwrap();
        let wanted = replicas.to_string();
        let is_stuck = sets.iter().any(|set| {
            let size = set.spec.as_ref().and_then(|spec| spec.replicas);
            let noted = set
                .annotations()
                .get("deployment.kubernetes.io/desired-replicas");
            size.map(|size| size.to_string()).as_ref() == Some(&wanted) && noted != Some(&wanted)
        });
        if is_stuck {
            eprintln!("{} is stuck in scaling: freed", (self.name)(binding));
            self.scale(binding, replicas + 1).await;
            self.scale(binding, replicas).await;
        }
    }

    async fn scale(&self, binding: usize, replicas: u32) {
        let namespace = &self.namespaces[binding / BINDINGS_PER_NAMESPACE];
        let patch = json!({"spec": {"replicas": replicas}});
        namespace
            .patch(&kinds::DEPLOYMENT, &(self.name)(binding), &patch)
            .await
            .unwrap();
    }

    async fn pods_of(&self, binding: usize) -> Vec<Pod> {
        let namespace = &self.namespaces[binding / BINDINGS_PER_NAMESPACE];
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace.namespace());
        let labels = format!("app={}", (self.name)(binding));
        let pods = pods.list(&ListParams::default().labels(&labels)).await;
        pods.unwrap().items
    }

    async fn pods_on(&self, node: &str) -> Vec<Pod> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let fields = format!("spec.nodeName={node}");
        let pods = pods.list(&ListParams::default().fields(&fields)).await;
        pods.unwrap().items
    }

    /// Does something with each of these pods; a pod that is gone is no error.
    async fn each<F>(&self, pods: Vec<Pod>, change: impl Fn(Api<Pod>, String) -> F)
    where
        F: Future<Output = ()>,
    {
        let changes = stream::iter(pods).map(|pod| {
            let namespace = pod.metadata.namespace.unwrap_or_default();
            let api = Api::namespaced(self.client.clone(), &namespace);
            change(api, pod.metadata.name.unwrap_or_default())
        });
        changes
            .buffer_unordered(CONCURRENT_CHANGES)
            .for_each(|()| std::future::ready(()))
            .await;
    }

    async fn evict(&self, pods: Vec<Pod>) {
        let evict = |api: Api<Pod>, name: String| async move {
            drop(api.evict(&name, &EvictParams::default()).await);
        };
        self.each(pods, evict).await;
    }

    async fn delete_one(&self, binding: usize) {
        let mut pods = self.pods_of(binding).await;
        pods.truncate(1);
        let delete = |api: Api<Pod>, name: String| async move {
            drop(api.delete(&name, &DeleteParams::default()).await);
        };
        self.each(pods, delete).await;
    }

    async fn mark(&self, pods: Vec<Pod>, value: &Value) {
        let patch = json!({"metadata": {"annotations": {LOST_ANNOTATION: value}}});
        let patch = &patch;
        let mark = |api: Api<Pod>, name: String| async move {
            let parameters = PatchParams::default();
            drop(api.patch(&name, &parameters, &Patch::Merge(patch)).await);
        };
        self.each(pods, mark).await;
    }

    async fn patch_node(&self, node: &str, patch: Value) {
        let (nodes, parameters) = (self.nodes(), PatchParams::default());
        let patched = nodes.patch(node, &parameters, &Patch::Merge(patch)).await;
        patched.unwrap();
    }

    async fn lose(&self, node: &str) {
        self.mark(self.pods_on(node).await, &json!("true")).await;
        let mark = json!({"metadata": {"annotations": {LOST_ANNOTATION: "true"}}});
        self.patch_node(node, mark).await;
        let since = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let lost = json!({"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.", "lastTransitionTime": since.to_string()});
        let patch = Patch::Strategic(json!({"status": {"conditions": [lost]}}));
        let (nodes, parameters) = (self.nodes(), PatchParams::default());
        nodes.patch_status(node, &parameters, &patch).await.unwrap();
    }

    async fn find_again(&self, node: &str) {
        let mark = json!({"metadata": {"annotations": {LOST_ANNOTATION: null}}});
        self.patch_node(node, mark).await;
        self.mark(self.pods_on(node).await, &Value::Null).await;
    }

    async fn fill(&self, lasts: Duration) {
        for node in NODES {
            let container = json!({"name": "server", "image": "registry.example/server:1",
                "resources": {"requests": {"cpu": "1k"}}});
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("fills-{node}")},
                "spec": {"nodeName": node, "containers": [container],
                    "tolerations": [{"operator": "Exists"}]}});
            self.others.create(&kinds::POD, &pod).await.unwrap();
        }
        sleep(lasts).await;
        for node in NODES {
            let name = format!("fills-{node}");
            // With no time to end, a pod of a lost node is gone too.
            let parameters = DeleteParams::default().grace_period(0);
            // A drain may have deleted it before.
            drop(
                self.others
                    .api(&kinds::POD)
                    .delete(&name, &parameters)
                    .await,
            );
        }
    }

    async fn break_api(&self, fault: ApiFault, matcher: Matcher, lasts: Duration) {
        if let Some(fault) = fault.fault() {
            let rule = self.api.inject(matcher, fault, None);
            sleep(lasts).await;
            self.api.remove(rule);
        } else {
            self.api.refuse().await;
            sleep(lasts).await;
            self.api.accept_again().await.unwrap();
        }
    }
}
