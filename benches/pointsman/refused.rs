//! Bindings whose writes an admission policy refuses: the requests of the operator meanwhile, and the time until all are written
//! after the policy is lifted.
//!
//! Absent: other refusals. They are repeated by the same rule.

use std::time::{Duration, Instant};

use pointsman_env::interceptor::{Interceptor, Request};
use pointsman_env::progress::Task;
use pointsman_env::{Operator, TestNamespace, kinds};
use serde_json::json;

use crate::environment::{Environment, TIMEOUT, binding, deployment};
use crate::object_counter::{ObjectCounter, holds_version};
use crate::object_set::ObjectSet;
use crate::report::Measurement;

pub const BINDINGS: usize = 1000;
const PREFIX: &str = "refused";
const RATE_GOAL: f64 = 2.0;
/// The rate after a shorter time proves nothing: the first retries are early ones.
const REFUSED_FOR: Duration = Duration::from_secs(300);
/// A single binding is tried again within this time.
const LIFTED_GOAL: Duration = Duration::from_secs(64);
const IS_REFUSED: &str = r#""reason":"ApplyRefused""#;

struct RefusedFixture {
    objects: ObjectSet,
    operator: Operator,
    /// Before the API server, for the operator only.
    api: Interceptor,
}

impl RefusedFixture {
    async fn start(environment: &Environment, count: usize) -> Self {
        environment.register(PREFIX, count).await;
        let server = &environment.control_plane;
        let api = Interceptor::start(server.apiserver_url(), Some(server.ca_pem()))
            .await
            .unwrap();
        let objects = ObjectSet::new(environment, PREFIX, count).await;
        let operator = environment
            .operator(&objects.namespace, PREFIX, Some(api.url()))
            .await;
        Self {
            objects,
            operator,
            api,
        }
    }

    /// Creates bindings under the policy, and waits until all report it.
    async fn refuse_all(&self, environment: &Environment) {
        self.objects
            .mirror_models(&environment.mlflow.url(), "1h")
            .await;
        let create_deployment = |name: String| deployment(&name);
        self.objects
            .create("Deployments", &kinds::DEPLOYMENT, create_deployment)
            .await;
        refuse_writes(&self.objects.namespace, &self.objects.name(0)).await;
        self.objects
            .create("bindings", &kinds::ALIAS_BINDING, |name| binding(&name))
            .await;
        let (namespace, kind) = (&self.objects.namespace, &kinds::ALIAS_BINDING);
        let mut refused = ObjectCounter::start(namespace, kind, IS_REFUSED).await;
        let task = self.objects.task("bindings refused");
        let timeout = self.objects.timeout();
        refused.wait_for(self.objects.count, &task, timeout).await;
        task.done();
    }

    /// The requests of this time, after as long a time without counting.
    async fn count_requests(&self, duration: Duration) -> Vec<Request> {
        let task = Task::start("refused bindings, waiting and then counting", 0);
        tokio::time::sleep(duration).await;
        let mark = self.api.mark();
        tokio::time::sleep(duration).await;
        task.done();
        self.api.since(mark)
    }

    /// From the deletion of the policy to the last Deployment seen patched.
    async fn lift(&self) -> Duration {
        let (namespace, kind) = (&self.objects.namespace, &kinds::DEPLOYMENT);
        let mut patched = ObjectCounter::start(namespace, kind, holds_version(1)).await;
        let task = self.objects.task("Deployments patched");
        let lifted = Instant::now();
        lift_policy(namespace).await;
        let timeout = self.objects.timeout() + TIMEOUT * 10;
        let last = patched.wait_for(self.objects.count, &task, timeout).await;
        task.done();
        last - lifted
    }
}

/// Refuses every write of a service account to a Deployment of the namespace, and waits until the policy is in force.
async fn refuse_writes(namespace: &TestNamespace, deployment: &str) {
    let name = namespace.namespace();
    let object = |kind: &str, spec: serde_json::Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]});
    let policy = json!({
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [{"name": "operator", "expression": "request.userInfo.username.startsWith('system:serviceaccount:')"}],
        "validations": [{"expression": "false", "message": "not now"}],
    });
    let scope = json!({
        "policyName": name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}},
    });
    for manifest in [
        object("ValidatingAdmissionPolicy", policy),
        object("ValidatingAdmissionPolicyBinding", scope),
    ] {
        namespace.kubectl_apply(manifest).await.unwrap();
    }
    let user = format!("--as=system:serviceaccount:{name}:probe");
    let probe = [
        "label",
        "deployment",
        deployment,
        "probe=1",
        "--dry-run=server",
    ];
    let probe = [probe.as_slice(), &[&user, "--as-group=system:masters"]].concat();
    let in_force = async {
        while namespace.kubectl(&probe).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, in_force)
        .await
        .expect("the policy is in force");
}

async fn lift_policy(namespace: &TestNamespace) {
    for kind in [
        "validatingadmissionpolicybinding",
        "validatingadmissionpolicy",
    ] {
        let delete = ["delete", kind, namespace.namespace()];
        namespace.kubectl(&delete).await.unwrap();
    }
}

/// Measures bindings that were refused for `duration`.
pub async fn measure(
    environment: &Environment,
    count: usize,
    duration: Duration,
) -> Vec<Measurement> {
    let mut fixture = RefusedFixture::start(environment, count).await;
    fixture.refuse_all(environment).await;
    let requests = fixture.count_requests(duration).await;
    let lifted = fixture.lift().await;
    fixture.operator.stop().unwrap();
    fixture.objects.namespace.end().await.unwrap();
    vec![
        rate(count, &requests, duration),
        Measurement::new(
            format!("policy lifted → last of {count} refused Deployments patched"),
            format!("{:.1} s", lifted.as_secs_f64()),
        )
        .with_goal("≤ 64 s", lifted <= LIFTED_GOAL),
    ]
}

fn rate(count: usize, requests: &[Request], duration: Duration) -> Measurement {
    let is_of_lease = |request: &&Request| request.path.contains("/leases/");
    let leases = requests.iter().filter(is_of_lease).count();
    let counted = u32::try_from(requests.len() - leases).expect("there are few requests");
    let rate = f64::from(counted) / duration.as_secs_f64();
    let name = format!("requests a second to the API, {count} bindings refused by a policy");
    let measurement = Measurement::new(name, format!("{rate:.2}")).of_runs(1);
    if duration < REFUSED_FOR {
        return measurement.with_undecided_goal("≤ 2 after 5 minutes");
    }
    measurement.with_goal("≤ 2 after 5 minutes", rate <= RATE_GOAL)
}
