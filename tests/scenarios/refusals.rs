//! Writes that the API server refuses or changes: admission policies, webhooks that are down, errors of the API server itself.
//!
//! Absent: admission of our own kinds; see `admission`.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::Workload;
use pointsman_env::interceptor::{Fault, Request, matching};
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, POD};
use pointsman_env::observe::Selection;
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, MUTATING_POLICIES, PATIENCE, ScenarioResult, condition, env,
    ready_reason, ready_status, scenarios, template_version,
};

scenarios!(
    a_version_that_a_policy_refuses_is_told_and_rolled_out_when_the_policy_is_lifted,
    an_admission_webhook_that_is_down_is_told_and_the_rollout_goes_on_when_it_ends,
    every_refusal_of_the_api_server_is_told_and_none_stops_the_operator,
    a_refused_deletion_of_a_broken_pod_is_told_and_repeated,
    a_deployment_that_may_not_be_read_is_told,
    a_field_that_a_policy_changes_at_each_write_is_told_and_never_live,
    a_field_that_a_policy_removes_at_each_write_is_told_and_never_live,
    a_policy_that_changes_the_template_at_each_write_causes_no_loop,
    a_lagging_watch_of_deployments_invents_no_hold_and_no_history,
);

/// The resource of an admission rule, and the operations on it.
type Rule = (&'static str, &'static str, &'static [&'static str]);

const WORKLOADS: Rule = ("apps", "deployments", &["CREATE", "UPDATE"]);
const POD_DELETIONS: Rule = ("", "pods", &["DELETE"]);
/// The operator is the only service account that writes in a scenario.
const BY_THE_OPERATOR: &str = "request.userInfo.username.startsWith('system:serviceaccount:')";
const IS_NOT_VERSION_2: &str =
    "object.spec.template.metadata.?annotations['pointsman.dev/model-version'].orValue('') != '2'";

fn rules((group, resource, operations): Rule) -> Value {
    json!([{"apiGroups": [group], "apiVersions": ["v1"], "operations": operations, "resources": [resource]}])
}

/// An admission policy on the operator's writes in the fixture's namespace.
struct Policy<'a> {
    fixture: &'a Fixture,
    kind: &'static str,
}

impl<'a> Policy<'a> {
    /// Refuses the operator's requests unless the expression is true.
    async fn validating(fixture: &'a Fixture, rule: Rule, expression: &str) -> Self {
        let spec = json!({"validations": [{"expression": expression, "message": "not in this namespace"}]});
        Self::start(fixture, "ValidatingAdmissionPolicy", rule, spec).await
    }

    /// Changes what the operator writes.
    async fn mutating(fixture: &'a Fixture, mutation: Value) -> Self {
        let spec = json!({"reinvocationPolicy": "Never", "mutations": [mutation]});
        Self::start(fixture, "MutatingAdmissionPolicy", WORKLOADS, spec).await
    }

    async fn start(fixture: &'a Fixture, kind: &'static str, rule: Rule, mut spec: Value) -> Self {
        let name = fixture.namespace.namespace();
        spec["failurePolicy"] = json!("Fail");
        spec["matchConstraints"] = json!({"resourceRules": rules(rule)});
        spec["matchConditions"] = json!([{"name": "operator", "expression": BY_THE_OPERATOR}]);
        let mut scope = json!({"policyName": name, "matchResources": {"namespaceSelector":
            {"matchLabels": {"kubernetes.io/metadata.name": name}}}});
        if kind == "ValidatingAdmissionPolicy" {
            scope["validationActions"] = json!(["Deny"]);
        }
        let object = |kind: &str, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        let policy = Self { fixture, kind };
        for manifest in [object(kind, spec), object(&format!("{kind}Binding"), scope)] {
            fixture.namespace.kubectl_apply(manifest).await.unwrap();
        }
        policy
    }

    /// Waits until the API server applies it: `shows` is true for the answer to a dry run as the operator.
    async fn is_in_force(&self, arguments: &[&str], shows: impl Fn(&str) -> bool) {
        let operator = format!(
            "--as=system:serviceaccount:{}:probe",
            self.fixture.namespace.namespace()
        );
        let groups = "--as-group=system:masters";
        let arguments = [arguments, &["--dry-run=server", &operator, groups]].concat();
        let probe = async {
            loop {
                let answer = match self.fixture.namespace.kubectl(&arguments).await {
                    Ok(answer) => answer,
                    Err(error) => error.to_string(),
                };
                if shows(&answer) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, probe)
            .await
            .expect("the policy is in force");
    }

    async fn lift(self) {
        let name = self.fixture.namespace.namespace();
        for kind in [format!("{}Binding", self.kind), self.kind.to_owned()] {
            self.fixture
                .namespace
                .kubectl(&["delete", &kind, name])
                .await
                .unwrap();
        }
    }
}

const ANNOTATE_VERSION_2: [&str; 5] = [
    "patch",
    "deployment",
    "server",
    "-p",
    r#"{"spec":{"template":{"metadata":{"annotations":{"pointsman.dev/model-version":"2"}}}}}"#,
];

async fn refusing_version_2(fixture: &Fixture) -> Policy<'_> {
    let policy = Policy::validating(fixture, WORKLOADS, IS_NOT_VERSION_2).await;
    let denied = |answer: &str| answer.contains("denied request");
    policy.is_in_force(&ANNOTATE_VERSION_2, denied).await;
    policy
}

fn patches(requests: &[Request]) -> usize {
    let is_patch =
        |request: &&Request| request.method == "PATCH" && request.path.contains("/deployments/");
    requests.iter().filter(is_patch).count()
}

async fn a_version_that_a_policy_refuses_is_told_and_rolled_out_when_the_policy_is_lifted(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "refusing policy").await;
    fixture.serve_version_1().await;
    let before = fixture.workload().await;
    let policy = refusing_version_2(&fixture).await;
    let mark = fixture.api.mark();
    fixture.alias("2").await;
    let message = fixture.reports("ApplyRefused").await;
    let name = fixture.namespace.namespace();
    let words = format!(
        "ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: not in this namespace"
    );
    assert!(message.contains(&words), "{message}");
    assert!(message.chars().count() <= 200, "{message}");
    let told = fixture.binding().await;
    assert_eq!(
        (
            told["status"]["wanted"].as_str(),
            told["status"]["running"]["version"].as_str()
        ),
        (Some("2"), Some("1"))
    );
    assert_eq!(ready_status(&told), "False");
    assert_eq!(condition(&told, "Reconciling")["status"], "True");
    let is_told = |binding: &Value| ready_reason(binding) == "ApplyRefused";
    let stays = Duration::from_secs(8);
    fixture
        .namespace
        .stays(
            "it stays refused",
            stays,
            &ALIAS_BINDING,
            "binding",
            is_told,
        )
        .await;
    assert_eq!(fixture.workload().await, before);
    let tried = patches(&fixture.api.since(mark));
    assert!((2..=6).contains(&tried), "{tried} patches in eight seconds");
    policy.lift().await;
    let runs = fixture.runs("2").await;
    assert_eq!(
        runs["status"]["history"].as_array().unwrap().len(),
        2,
        "{runs}"
    );
    fixture.end().await
}

async fn an_admission_webhook_that_is_down_is_told_and_the_rollout_goes_on_when_it_ends(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "webhook down").await;
    fixture.serve_version_1().await;
    let name = fixture.namespace.namespace();
    // Nothing listens on the discard port.
    let webhook = json!({"name": "check.example.com", "clientConfig": {"url": "https://127.0.0.1:9/"}, "rules": rules(WORKLOADS),
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}, "failurePolicy": "Fail",
        "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 2});
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name}, "webhooks": [webhook]});
    fixture
        .namespace
        .kubectl_apply(configuration)
        .await
        .unwrap();
    let probe = [ANNOTATE_VERSION_2.as_slice(), &["--dry-run=server"]].concat();
    while fixture.namespace.kubectl(&probe).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fixture.alias("2").await;
    let message = fixture.reports("ApplyRefused").await;
    assert!(
        message.contains(r#"failed calling webhook "check.example.com""#),
        "{message}"
    );
    let told = fixture.binding().await;
    assert_eq!(told["status"]["wanted"], "2");
    assert_eq!(ready_status(&told), "False");
    let kind = "validatingwebhookconfiguration";
    fixture
        .namespace
        .kubectl(&["delete", kind, name])
        .await
        .unwrap();
    fixture.runs("2").await;
    fixture.end().await
}

async fn every_refusal_of_the_api_server_is_told_and_none_stops_the_operator(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "refusals").await;
    fixture.serve_version_1().await;
    let (mut wanted, mut other) = ("2", "1");
    for code in [
        400, 402, 403, 404, 409, 410, 413, 422, 429, 500, 501, 503, 504,
    ] {
        let words = format!("answer {code}");
        let answer = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": words, "code": code});
        let refusal = Fault::json(code, answer.to_string());
        fixture
            .api
            .inject(matching::write("/deployments/server"), refusal, None);
        fixture.alias(wanted).await;
        let is_told = |binding: &Value| {
            ready_reason(binding) == "ApplyRefused"
                && condition(binding, "Ready")["message"]
                    .as_str()
                    .unwrap()
                    .contains(&words)
                && binding["status"]["wanted"] == wanted
        };
        let sentence = format!("status {code} is told");
        fixture
            .eventually(&sentence, &ALIAS_BINDING, "binding", is_told)
            .await;
        fixture.api.clear();
        fixture.runs(wanted).await;
        (wanted, other) = (other, wanted);
    }
    // No answer at all: nothing can be told, and the write is repeated.
    fixture.api.inject(
        matching::write("/deployments/server"),
        Fault::CloseConnection,
        Some(3),
    );
    fixture.alias(wanted).await;
    fixture.runs(wanted).await;
    fixture.end().await
}

async fn a_refused_deletion_of_a_broken_pod_is_told_and_repeated(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let values = json!({"targets": {"statefulSets": true}});
    let fixture = Fixture::with_values(&environment, "refused deletion", values).await;
    fixture.register(2).await;
    fixture.alias("1").await;
    fixture.declare().await;
    fixture
        .bind_to(&Workload::stateful_set("server").with_behavior("2=crash"))
        .await;
    fixture.runs("1").await;
    let policy = Policy::validating(&fixture, POD_DELETIONS, "false").await;
    let denied = |answer: &str| answer.contains("denied request");
    policy
        .is_in_force(&["delete", "pod", "server-0"], denied)
        .await;
    fixture.alias("2").await;
    let message = fixture.reports("ApplyRefused").await;
    assert!(
        message.starts_with("pod server-") && message.contains("is not deleted: "),
        "{message}"
    );
    policy.lift().await;
    let serve_version_1 = |pods: &pointsman_env::Objects| {
        pods.len() == 2
            && pods.values().all(|pod| {
                pod["metadata"]["annotations"]["pointsman.dev/model-version"] == "1"
                    && condition(pod, "Ready")["status"] == "True"
            })
    };
    let which = Selection::Labelled("app=server");
    fixture
        .namespace
        .eventually_all(
            "all pods serve again",
            PATIENCE,
            &POD,
            &which,
            serve_version_1,
        )
        .await;
    fixture.reports("RolledBack").await;
    fixture.end().await
}

async fn a_deployment_that_may_not_be_read_is_told(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "unreadable").await;
    fixture.register(1).await;
    fixture.alias("1").await;
    fixture.declare().await;
    let forbidden = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
        "message": "deployments.apps \"server\" is forbidden: User \"pointsman\" cannot get resource"});
    let answer = Fault::json(403, forbidden.to_string());
    fixture.api.inject(
        matching::request(http::Method::GET, "/deployments/server"),
        answer,
        None,
    );
    fixture.bind(json!({})).await;
    let message = fixture.reports("ApplyRefused").await;
    assert!(
        message.contains("the workload is not readable: User \"pointsman\" cannot get resource"),
        "{message}"
    );
    fixture.api.clear();
    fixture.runs("1").await;
    fixture.end().await
}

/// Sets a variable of the container `server`; the value is an expression.
fn setting(variable: &str, value: &str) -> Value {
    let (spec, container) = (
        "Object.spec.template.spec",
        "Object.spec.template.spec.containers",
    );
    let env = format!("{container}.env{{name: '{variable}', value: {value}}}");
    let containers = format!("[{container}{{name: 'server', env: [{env}]}}]");
    let expression = format!(
        "Object{{spec: Object.spec{{template: Object.spec.template{{spec: {spec}{{containers: {containers}}}}}}}}}"
    );
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

async fn changes_show_in_a_dry_run(policy: &Policy<'_>, shows: impl Fn(&Value) -> bool) {
    let arguments = [ANNOTATE_VERSION_2.as_slice(), &["-o", "json"]].concat();
    let shown = |answer: &str| serde_json::from_str(answer).is_ok_and(|answer| shows(&answer));
    policy.is_in_force(&arguments, shown).await;
}

/// The binding reports the effect of a policy, is not Live with version 2, and is not written without end.
async fn is_told_and_never_live(fixture: &Fixture, effect: &str) {
    let mark = fixture.api.mark();
    fixture.alias("2").await;
    let message = fixture.reports("FieldConflict").await;
    assert!(message.contains(effect), "{message}");
    assert!(message.chars().count() <= 200, "{message}");
    let is_told = |binding: &Value| {
        ready_reason(binding) == "FieldConflict"
            && ready_status(binding) == "False"
            && binding["status"]["lastGood"]["version"] == "1"
    };
    let stays = Duration::from_secs(8);
    fixture
        .namespace
        .stays(
            "it is never live",
            stays,
            &ALIAS_BINDING,
            "binding",
            is_told,
        )
        .await;
    let tried = patches(&fixture.api.since(mark));
    assert!((2..=7).contains(&tried), "{tried} patches in eight seconds");
}

async fn a_field_that_a_policy_changes_at_each_write_is_told_and_never_live(
    environment: Arc<Environment>,
) -> ScenarioResult {
    if environment.lacks(MUTATING_POLICIES).await {
        return Ok(());
    }
    let fixture = Fixture::new(&environment, "changing policy").await;
    fixture.serve_version_1().await;
    let policy = Policy::mutating(&fixture, setting("MODEL_URI", "'s3://mirror/model'")).await;
    let is_changed = |deployment: &Value| {
        env(deployment, 0, "MODEL_URI").as_deref() == Some("s3://mirror/model")
    };
    changes_show_in_a_dry_run(&policy, is_changed).await;
    is_told_and_never_live(
        &fixture,
        r#"changes MODEL_URI of container server to "s3://mirror/model""#,
    )
    .await;
    policy.lift().await;
    fixture.runs("2").await;
    let uri = env(&fixture.deployment().await, 0, "MODEL_URI").unwrap();
    assert!(uri.starts_with("s3://models/"), "{uri}");
    fixture.end().await
}

async fn a_field_that_a_policy_removes_at_each_write_is_told_and_never_live(
    environment: Arc<Environment>,
) -> ScenarioResult {
    if environment.lacks(MUTATING_POLICIES).await {
        return Ok(());
    }
    let fixture = Fixture::new(&environment, "removing policy").await;
    fixture.serve_version_1().await;
    let remove =
        "[JSONPatch{op: 'remove', path: '/metadata/annotations/kubernetes.io~1change-cause'}]";
    let mutation = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": remove}});
    let policy = Policy::mutating(&fixture, mutation).await;
    let is_removed = |deployment: &Value| {
        deployment["metadata"]["annotations"]["kubernetes.io/change-cause"].is_null()
    };
    changes_show_in_a_dry_run(&policy, is_removed).await;
    is_told_and_never_live(&fixture, "removes annotation kubernetes.io/change-cause").await;
    policy.lift().await;
    fixture.runs("2").await;
    fixture.end().await
}

async fn a_policy_that_changes_the_template_at_each_write_causes_no_loop(
    environment: Arc<Environment>,
) -> ScenarioResult {
    if environment.lacks(MUTATING_POLICIES).await {
        return Ok(());
    }
    let fixture = Fixture::new(&environment, "stamping policy").await;
    fixture.register(2).await;
    fixture.alias("1").await;
    fixture.declare().await;
    fixture
        .deploy(&Workload::deployment("server").with_behavior("2=crash"))
        .await;
    fixture.declare_binding(json!({})).await;
    fixture.runs("1").await;
    let policy = Policy::mutating(
        &fixture,
        setting("STAMP", "oldObject.metadata.resourceVersion"),
    )
    .await;
    let is_stamped = |deployment: &Value| env(deployment, 0, "STAMP").is_some();
    changes_show_in_a_dry_run(&policy, is_stamped).await;
    fixture.alias("2").await;
    let went_back = |binding: &Value| {
        ready_reason(binding) == "RolledBack" && binding["status"]["running"]["version"] == "1"
    };
    fixture
        .eventually(
            "version 2 is rolled back",
            &ALIAS_BINDING,
            "binding",
            went_back,
        )
        .await;
    assert!(env(&fixture.deployment().await, 0, "STAMP").is_some());
    let holds = |deployment: &Value| template_version(deployment) == "1";
    let stays = Duration::from_secs(8);
    fixture
        .namespace
        .stays("it is not tried again", stays, &DEPLOYMENT, "server", holds)
        .await;
    let binding = fixture.binding().await;
    assert_eq!(
        binding["status"]["history"].as_array().unwrap().len(),
        3,
        "{binding}"
    );
    policy.lift().await;
    fixture.end().await
}

/// From now on the operator sees no change of a Deployment but by its own requests.
async fn no_watch_shows_deployments(fixture: &Fixture) {
    let busy = Fault::json(
        500,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500}).to_string(),
    );
    fixture
        .api
        .inject(matching::watch("/deployments"), busy, None);
    fixture.api.refuse().await;
    fixture.api.accept_again().await.unwrap();
}

async fn a_lagging_watch_of_deployments_invents_no_hold_and_no_history(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "lagging watch").await;
    fixture.serve_version_1().await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture
        .namespace
        .kubectl(&["rollout", "undo", "deployment/server"])
        .await
        .unwrap();
    fixture.reports("Held").await;
    let settled = |binding: &Value| ready_status(binding) == "True";
    fixture
        .eventually("the undo is rolled out", &ALIAS_BINDING, "binding", settled)
        .await;
    no_watch_shows_deployments(&fixture).await;
    let history = fixture.binding().await["status"]["history"]
        .as_array()
        .unwrap()
        .len();
    fixture
        .namespace
        .kubectl(&[
            "annotate",
            "abind",
            "binding",
            "pointsman.dev/resume-requested-at=1",
        ])
        .await
        .unwrap();
    let resumed = |binding: &Value| binding["status"]["running"]["version"] == "2";
    fixture
        .eventually(
            "version 2 is written again",
            &ALIAS_BINDING,
            "binding",
            resumed,
        )
        .await;
    // Each request for a look reconciles the binding with the store as it is.
    for request in 0..10 {
        let annotation = format!("pointsman.dev/requested-at={request}");
        let arguments = ["annotate", "--overwrite", "rmodel", "model", &annotation];
        fixture.namespace.kubectl(&arguments).await.unwrap();
        let binding = fixture.binding().await;
        assert!(binding["status"]["hold"].is_null(), "{binding}");
        assert_eq!(
            binding["status"]["history"].as_array().unwrap().len(),
            history + 1,
            "{binding}"
        );
    }
    fixture.api.clear();
    fixture.runs("2").await;
    fixture.end().await
}
