//! When a version may go forward: freezes, windows, approvals, and what passes them.
//!
//! Absent: the checks of a version itself; see `failure` and `evidence`.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use pointsman_env::Workload;
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, MODEL_REGISTRY, REGISTERED_MODEL};
use pointsman_env::registrar::How;
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, MUTATING_POLICIES, PATIENCE, ScenarioResult, condition, ready_message,
    ready_status, scenarios, template_version,
};

scenarios!(
    a_frozen_registry_or_namespace_holds_a_new_version_until_the_freeze_ends,
    a_frozen_binding_holds_its_own_versions_alone,
    in_a_freeze_versions_go_back_and_people_override_it_on_the_record,
    a_version_goes_forward_once_when_a_window_opens_and_nothing_is_written_before,
    a_window_that_cannot_be_read_is_told_before_a_version_waits_for_it,
    a_version_waits_for_its_approval_in_git_and_the_history_names_the_manager,
    the_plugin_approves_with_the_command_of_the_message_and_shows_what_waits,
    the_api_server_names_who_approves_and_the_registrar_of_a_version_may_not,
    each_role_may_do_what_its_people_decide_and_nothing_else,
);

const WHY: &str = "quarter end, CHG-4711";

/// Sets or ends the freeze of the registry, and waits until the operator has seen it.
async fn freeze_registry(fixture: &Fixture, why: Value) {
    let spec = json!({"spec": {"freeze": why}});
    let namespace = &fixture.namespace;
    namespace
        .patch(&MODEL_REGISTRY, "mlflow", &spec)
        .await
        .unwrap();
    let is_seen = |registry: &Value| {
        registry["status"]["observedGeneration"] == registry["metadata"]["generation"]
            && registry["spec"]["freeze"] == why
    };
    fixture
        .eventually("the freeze is seen", &MODEL_REGISTRY, "mlflow", is_seen)
        .await;
}

async fn says(fixture: &Fixture, words: &str) -> String {
    let holds = |binding: &Value| ready_message(binding).contains(words);
    let seen = fixture
        .eventually(words, &ALIAS_BINDING, "binding", holds)
        .await;
    ready_message(&seen)
}

async fn annotate(fixture: &Fixture, annotation: &str) {
    let arguments = ["annotate", "--overwrite", "abind", "binding", annotation];
    fixture.namespace.kubectl(&arguments).await.unwrap();
}

/// Applies the binding as a `GitOps` tool would, and waits until the operator has seen it.
async fn commit(fixture: &Fixture, spec: Value) {
    fixture.declare_binding(spec).await;
    let generation = fixture.binding().await["metadata"]["generation"].clone();
    let is_seen = |binding: &Value| binding["status"]["observedGeneration"] == generation;
    fixture
        .eventually("the spec is seen", &ALIAS_BINDING, "binding", is_seen)
        .await;
}

/// The plugin's command in a message behind these words, as a person copies it.
fn remedy(message: &str, words: &str) -> String {
    let (_, command) = message.split_once(words).expect(message);
    let (command, _) = command.split_once(" (or ").unwrap_or((command, ""));
    assert!(command.starts_with("kubectl pointsman "), "{message}");
    command.to_owned()
}

/// The entries of a version in the binding's history, newest first.
fn entries<'a>(binding: &'a Value, version: &str) -> Vec<&'a Value> {
    let history = binding["status"]["history"].as_array();
    let all = history.into_iter().flatten();
    all.filter(|entry| entry["version"] == version).collect()
}

async fn a_frozen_registry_or_namespace_holds_a_new_version_until_the_freeze_ends(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "frozen").await;
    let plane = fixture.namespace.control_plane();
    let name = fixture.namespace.namespace();
    fixture.serve_version_1().await;
    freeze_registry(&fixture, json!(WHY)).await;
    fixture.alias("2").await;
    let message = fixture.reports("Frozen").await;
    let cause = format!("version 2 waits: ModelRegistry mlflow is frozen: {WHY}; end it: ");
    assert!(message.starts_with(&cause), "{message}");
    let binding = fixture.binding().await;
    assert_eq!(ready_status(&binding), "True", "what runs is well");
    let lift_registry = remedy(&message, "end it: ");

    // The namespace's own freeze begins at once, and outlasts the registry's.
    let annotation = "pointsman.dev/freeze=release week";
    let begin = ["annotate", "namespace", name, annotation];
    plane.kubectl(&begin).await.unwrap();
    let message = says(
        &fixture,
        &format!("namespace {name} is frozen: release week"),
    )
    .await;
    fixture.shell(&lift_registry).await.unwrap();
    freeze_registry(&fixture, Value::Null).await;
    fixture.polled_twice().await;
    let holds_version_1 = |deployment: &Value| template_version(deployment) == "1";
    let moment = Duration::from_secs(2);
    let namespace = &fixture.namespace;
    namespace
        .stays(
            "it is frozen",
            moment,
            &DEPLOYMENT,
            "server",
            holds_version_1,
        )
        .await;
    let lift_namespace = remedy(&message, "end it: ");
    fixture.shell(&lift_namespace).await.unwrap();
    let binding = fixture.runs("2").await;
    assert!(binding["status"]["history"][0]["overrode"].is_null());
    fixture.end().await
}

async fn a_frozen_binding_holds_its_own_versions_alone(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "frozen binding").await;
    fixture.serve_version_1().await;
    let freeze = "freeze holidays --binding binding";
    fixture.plugin(freeze).await.unwrap();
    fixture.alias("2").await;
    let message = fixture.reports("Frozen").await;
    let cause = "version 2 waits: the binding is frozen: holidays; end it: ";
    assert!(message.starts_with(cause), "{message}");
    let lift = remedy(&message, "end it: ");
    fixture.shell(&lift).await.unwrap();
    fixture.runs("2").await;
    fixture.end().await
}

async fn in_a_freeze_versions_go_back_and_people_override_it_on_the_record(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "freeze passes").await;
    fixture.register(4).await;
    fixture.serve_with_behavior("3=crash", json!({})).await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.alias("3").await;
    fixture.reports("RolledBack").await;
    freeze_registry(&fixture, json!(WHY)).await;

    // A person has the failed version tried again; it fails, and the rollback passes the freeze, too.
    annotate(&fixture, "pointsman.dev/retry-requested-at=1").await;
    let is_tried_again = |binding: &Value| {
        entries(binding, "3").len() == 2 && binding["status"]["running"]["version"] == "2"
    };
    let binding = fixture
        .eventually(
            "3 is tried again",
            &ALIAS_BINDING,
            "binding",
            is_tried_again,
        )
        .await;
    let tried = entries(&binding, "3");
    assert_eq!(tried[0]["overrode"]["reason"], "Frozen", "{binding}");
    assert!(tried[1]["overrode"].is_null(), "{binding}");

    // The alias goes back to a version that was good.
    fixture.alias("1").await;
    let binding = fixture.runs("1").await;
    assert!(binding["status"]["history"][0]["overrode"].is_null());

    // A person pins a version that never ran.
    annotate(&fixture, "pointsman.dev/override-reason=INC-12").await;
    let pin = json!({"spec": {"pinnedVersion": "4"}});
    fixture
        .namespace
        .patch(&ALIAS_BINDING, "binding", &pin)
        .await
        .unwrap();
    let binding = fixture.runs("4").await;
    let entry = &binding["status"]["history"][0];
    let frozen = format!("ModelRegistry mlflow is frozen: {WHY}");
    let overrode = json!({"reason": "Frozen", "message": frozen, "why": "INC-12"});
    assert_eq!(
        (&entry["trigger"], &entry["overrode"]),
        (&json!("Pin"), &overrode)
    );
    fixture.end().await
}

/// A window of an hour that opens at this minute, in UTC.
fn window_at(opening: Timestamp, fields: &str) -> Value {
    let schedule = opening.strftime(fields).to_string();
    json!({"promotion": {"windows": [{"schedule": schedule, "duration": "1h"}]}})
}

/// The writes of the operator about the binding and its workload since a mark.
fn writes_about_binding(fixture: &Fixture, mark: usize) -> Vec<String> {
    let writes = fixture.api.writes_since(mark).into_iter();
    let paths = writes.map(|write| write.path);
    paths
        .filter(|path| path.contains("aliasbindings/") || path.contains("deployments/"))
        .collect()
}

async fn a_version_goes_forward_once_when_a_window_opens_and_nothing_is_written_before(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "window").await;
    fixture.serve_version_1().await;
    let far = Timestamp::now() + SignedDuration::from_hours(24 * 100);
    let yearly = window_at(far, "%-M %-H %-d %-m *");
    commit(&fixture, yearly).await;
    fixture.alias("2").await;
    let message = fixture.reports("OutsideWindow").await;
    let opens = far.strftime("it goes forward at %Y-%m-%d %H:%M +00:00 (UTC)");
    assert!(message.contains(&opens.to_string()), "{message}");
    let is_checked = |binding: &Value| {
        let artifact = condition(binding, "ArtifactAvailable");
        let is_about_2 = artifact["message"]
            .as_str()
            .is_some_and(|text| text.contains("/2:"));
        is_about_2 && artifact["reason"] == "Resolved" && ready_status(binding) == "True"
    };
    fixture
        .eventually(
            "its files are asked for",
            &ALIAS_BINDING,
            "binding",
            is_checked,
        )
        .await;
    fixture.polled_twice().await;
    let mark = fixture.api.mark();
    fixture.polled_twice().await;
    assert_eq!(writes_about_binding(&fixture, mark), Vec::<String>::new());

    // The next full minute that is not about to begin.
    let seconds = (Timestamp::now().as_second() + 3) / 60 * 60 + 60;
    let opening = Timestamp::from_second(seconds).unwrap();
    fixture
        .declare_binding(window_at(opening, "%-M %-H * * *"))
        .await;
    let runs_2 = |binding: &Value| {
        binding["status"]["running"]["version"] == "2" && ready_status(binding) == "True"
    };
    let patience = Duration::from_secs(60) + PATIENCE;
    let namespace = &fixture.namespace;
    let binding = namespace
        .eventually(
            "the window opens",
            patience,
            &ALIAS_BINDING,
            "binding",
            runs_2,
        )
        .await;
    let forward = entries(&binding, "2");
    assert_eq!(forward.len(), 1, "{binding}");
    let started: Timestamp = forward[0]["startedAt"].as_str().unwrap().parse().unwrap();
    assert!(started >= opening, "{started} is before {opening}");
    let sets = fixture.replica_sets().await;
    let of_2 = sets.iter().filter(|set| template_version(set) == "2");
    assert_eq!(of_2.count(), 1, "{sets:?}");
    fixture.end().await
}

async fn a_window_that_cannot_be_read_is_told_before_a_version_waits_for_it(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "wrong window").await;
    fixture.serve_version_1().await;
    let windows = |schedule: &str, zone: &str| {
        let window = json!({"schedule": schedule, "duration": "1h", "timeZone": zone});
        json!({"promotion": {"windows": [window]}})
    };
    fixture
        .declare_binding(windows("0 9 * * 1-5", "Europe/Berlni"))
        .await;
    let message = fixture.reports("InvalidSpec").await;
    assert_eq!(
        message,
        "spec.promotion.windows[0]: there is no time zone \"Europe/Berlni\": correct it"
    );
    let hourly = json!({"spec": windows("@hourly", "UTC")});
    let namespace = &fixture.namespace;
    let refused = namespace.patch(&ALIAS_BINDING, "binding", &hourly).await;
    let refusal = refused.unwrap_err().to_string();
    assert!(
        refusal.contains("a window's schedule has five fields"),
        "{refusal}"
    );
    fixture
        .declare_binding(windows("0 9 * * 1-5", "Europe/Berlin"))
        .await;
    fixture.reports("Live").await;
    fixture.end().await
}

async fn a_version_waits_for_its_approval_in_git_and_the_history_names_the_manager(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "approval").await;
    fixture.serve_version_1().await;
    commit(
        &fixture,
        json!({"promotion": {"approval": "Manual", "approvedVersion": "1"}}),
    )
    .await;
    // Nobody but the chart's policy, which is not installed here, may say who approved.
    annotate(&fixture, "pointsman.dev/approved-by=somebody").await;
    annotate(&fixture, "pointsman.dev/approval-reason=better by 3 %").await;
    annotate(&fixture, "pointsman.dev/approval-ticket=CHG-1").await;
    fixture.alias("2").await;
    let message = fixture.reports("AwaitingApproval").await;
    assert!(
        message.starts_with("version 2 waits: it is not approved; approve it: "),
        "{message}"
    );
    assert_eq!(
        ready_status(&fixture.binding().await),
        "True",
        "what runs is well"
    );
    fixture
        .declare_binding(json!({"promotion": {"approval": "Manual", "approvedVersion": "2"}}))
        .await;
    let binding = fixture.runs("2").await;
    let mut approval = binding["status"]["history"][0]["approval"].clone();
    let at = approval["at"].take();
    assert!(
        at.as_str()
            .is_some_and(|at| at.parse::<Timestamp>().is_ok()),
        "{binding}"
    );
    assert_eq!(
        approval,
        json!({"approvedBy": "scenario", "knownBy": "FieldManager", "at": null,
            "reason": "better by 3 %", "ticket": "CHG-1"})
    );
    // Back needs no approval.
    fixture.alias("1").await;
    let binding = fixture.runs("1").await;
    assert!(binding["status"]["history"][0]["approval"].is_null());
    fixture.end().await
}

async fn the_plugin_approves_with_the_command_of_the_message_and_shows_what_waits(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "approve").await;
    fixture.register(3).await;
    let server = Workload::deployment("server").manifest();
    fixture.serve(server, json!({})).await;
    let refused = fixture.plugin("approve binding").await.unwrap_err();
    assert!(refused.contains("needs no approvals"), "{refused}");
    annotate(&fixture, "pointsman.dev/approval-ticket=CHG-1").await;
    commit(&fixture, json!({"promotion": {"approval": "Manual"}})).await;
    fixture.alias("2").await;
    let message = fixture.reports("AwaitingApproval").await;
    let status = fixture.plugin("status").await.unwrap();
    let told = format!("1 of 1 needs a person:\n  binding: {message}");
    assert!(status.contains(&told), "{status}");
    let plan = fixture.plugin("plan binding").await.unwrap();
    let gate = plan.lines().find(|line| line.contains("approved "));
    let gate = gate.unwrap_or_default();
    assert!(gate.contains("waits: version 2 waits: it is not"), "{plan}");
    let described = fixture.plugin("describe binding").await.unwrap();
    let line = "Manual; no version is approved";
    assert!(described.contains(line), "{described}");

    let approve = remedy(&message, "approve it: ");
    let approve = format!("{approve} --reason 'rmse 3 % better' --wait --timeout 90s");
    let told = fixture.shell(&approve).await.unwrap();
    assert!(told.contains("binding approved: version 2\n"), "{told}");
    assert!(told.contains("version 2 runs (Live)"), "{told}");
    let binding = fixture.binding().await;
    let mut approval = binding["status"]["history"][0]["approval"].clone();
    approval["at"].take();
    assert_eq!(
        approval,
        json!({"approvedBy": "kubectl-pointsman", "knownBy": "FieldManager", "at": null,
            "reason": "rmse 3 % better"}),
        "the ticket was that of another approval"
    );
    let history = fixture.plugin("history binding -o wide").await.unwrap();
    let by = "kubectl-pointsman (FieldManager)";
    assert!(history.contains(by), "{history}");
    fixture.alias("3").await;
    fixture.reports("AwaitingApproval").await;
    fixture.end().await
}

/// Gives a user one of the chart's roles in the fixture's namespace.
async fn give_role(fixture: &Fixture, user: &str, role: &str) {
    let role = format!("--clusterrole={}-{role}", fixture.namespace.namespace());
    let user_option = format!("--user={user}");
    let create = ["create", "rolebinding", user, &role, &user_option];
    fixture.namespace.kubectl(&create).await.unwrap();
}

/// Runs kubectl as a user.
async fn kubectl_as(fixture: &Fixture, user: &str, arguments: &[&str]) -> Result<String, String> {
    let user = format!("--as={user}");
    let arguments = [&[user.as_str()], arguments].concat();
    let ran = fixture.namespace.kubectl(&arguments).await;
    ran.map_err(|error| error.to_string())
}

/// Runs a command of the plugin in a message as a user, with more flags.
async fn shell_as(
    fixture: &Fixture,
    user: &str,
    command: &str,
    flags: &str,
) -> Result<String, String> {
    let plane = fixture.namespace.control_plane();
    let admin = std::fs::read_to_string(plane.admin_kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&admin).unwrap();
    config["users"][0]["user"]["as"] = json!(user);
    let name = format!("{}-{user}.kubeconfig", fixture.namespace.namespace());
    let path = plane.folder().join(name);
    std::fs::write(&path, config.to_string()).unwrap();
    let kubeconfig = path.display();
    fixture
        .shell(&format!("KUBECONFIG={kubeconfig} {command} {flags}"))
        .await
}

/// The API server begins to apply a policy a moment after it is created.
async fn wait_for_policy(fixture: &Fixture) {
    let patch = r#"{"spec": {"promotion": {"approval": "Manual", "approvedVersion": "9"}}}"#;
    let dry_run = [
        "patch",
        "abind",
        "binding",
        "--type=merge",
        "--dry-run=server",
        "-o",
        "json",
        "-p",
        patch,
    ];
    let applied = async {
        loop {
            let patched = fixture.namespace.kubectl(&dry_run).await.unwrap();
            if patched.contains("pointsman.dev/approved-by") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, applied).await;
    in_time.expect("the policy is applied");
}

/// The user who registered version 2, as the mirror knows it.
async fn registrar_of_2(fixture: &Fixture) -> String {
    let registrar = |model: &Value| {
        let versions = model["status"]["versions"].as_array();
        let mut versions = versions.into_iter().flatten();
        let found = versions.find(|version| version["version"] == "2")?;
        found["createdBy"].as_str().map(str::to_owned)
    };
    let is_known = |model: &Value| registrar(model).is_some();
    let sentence = "the registrar is known";
    let model = fixture
        .eventually(sentence, &REGISTERED_MODEL, "model", is_known)
        .await;
    registrar(&model).expect("it was waited for")
}

async fn the_api_server_names_who_approves_and_the_registrar_of_a_version_may_not(
    environment: Arc<Environment>,
) -> ScenarioResult {
    if environment.lacks(MUTATING_POLICIES).await {
        return Ok(());
    }
    let values = json!({"approvals": {"recordUser": true}});
    let fixture = Fixture::with_values(&environment, "approver", values).await;
    fixture.train(How::RegisterModel, 0.1).await;
    fixture.train(How::RegisterModel, 0.2).await;
    let server = Workload::deployment("server").manifest();
    fixture.serve(server, json!({})).await;
    let registrar = registrar_of_2(&fixture).await;
    give_role(&fixture, &registrar, "deployment-engineer").await;
    give_role(&fixture, "ada", "deployment-engineer").await;
    wait_for_policy(&fixture).await;
    let rules = json!({"promotion": {"approval": "Manual", "requireDifferentPerson": true}});
    commit(&fixture, rules).await;
    fixture.alias("2").await;
    let message = fixture.reports("AwaitingApproval").await;
    let approve = remedy(&message, "approve it: ");
    let refused = shell_as(&fixture, &registrar, &approve, "").await;
    let refusal = refused.unwrap_err();
    let cause = format!("you may not approve version 2 of binding: {registrar} registered it");
    assert!(refusal.contains(&cause), "{refusal}");

    // The registrar approves without the plugin, and then claims to be somebody else.
    let patch = r#"{"spec": {"promotion": {"approvedVersion": "2"}}}"#;
    let patch = ["patch", "abind", "binding", "--type=merge", "-p", patch];
    kubectl_as(&fixture, &registrar, &patch).await.unwrap();
    let cause = format!("its approval does not count: {registrar} registered it; ");
    let message = says(&fixture, &cause).await;
    let forge = [
        "annotate",
        "--overwrite",
        "abind",
        "binding",
        "pointsman.dev/approved-by=ada",
    ];
    kubectl_as(&fixture, &registrar, &forge).await.unwrap();
    let binding = fixture.binding().await;
    assert_eq!(
        binding["metadata"]["annotations"]["pointsman.dev/approved-by"],
        registrar
    );

    let approve = remedy(&message, "as another person: ");
    shell_as(&fixture, "ada", &approve, "--ticket CHG-7")
        .await
        .unwrap();
    let binding = fixture.runs("2").await;
    let mut approval = binding["status"]["history"][0]["approval"].clone();
    approval["at"].take();
    assert_eq!(
        approval,
        json!({"approvedBy": "ada", "knownBy": "User", "at": null,
            "reason": "agreed", "ticket": "CHG-7"})
    );
    fixture.end().await
}

/// Whether a user may do this to objects of a kind in the fixture's namespace.
async fn may(fixture: &Fixture, user: &str, verb: &str, (group, resource): (&str, &str)) -> bool {
    let attributes = ResourceAttributes {
        namespace: Some(fixture.namespace.namespace().to_owned()),
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        ..ResourceAttributes::default()
    };
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(fixture.namespace.client());
    let reviewed = reviews
        .create(&PostParams::default(), &review)
        .await
        .unwrap();
    reviewed.status.is_some_and(|status| status.allowed)
}

async fn each_role_may_do_what_its_people_decide_and_nothing_else(
    environment: Arc<Environment>,
) -> ScenarioResult {
    const VERBS: [&str; 7] = [
        "get", "list", "watch", "create", "update", "patch", "delete",
    ];
    let fixture = Fixture::new(&environment, "roles").await;
    fixture.serve_version_1().await;
    for role in ["data-scientist", "deployment-engineer"] {
        give_role(&fixture, role, role).await;
    }
    let all = &VERBS[..];
    let read = &VERBS[..3];
    let none = &VERBS[..0];
    let ours = "pointsman.dev";
    // What the data scientist may do, and what the deployment engineer may.
    let rows = [
        ((ours, "registeredmodels"), all, read),
        ((ours, "aliasbindings"), read, all),
        ((ours, "modelregistries"), read, read),
        ((ours, "aliasbindings/status"), none, none),
        ((ours, "registeredmodels/status"), none, none),
        (("", "secrets"), none, none),
        (("", "configmaps"), none, none),
        (("", "namespaces"), none, none),
        (("apps", "deployments"), none, none),
    ];
    for (resource, scientist, engineer) in rows {
        for (user, allowed) in [
            ("data-scientist", scientist),
            ("deployment-engineer", engineer),
        ] {
            for verb in VERBS {
                let is_allowed = may(&fixture, user, verb, resource).await;
                assert_eq!(
                    is_allowed,
                    allowed.contains(&verb),
                    "{user} {verb} {resource:?}"
                );
            }
        }
    }
    people_decide(&fixture).await;
    fixture.end().await
}

/// The decisions themselves, as kubectl sends them.
async fn people_decide(fixture: &Fixture) {
    let (scientist, engineer) = ("data-scientist", "deployment-engineer");
    let merge = |kind: &'static str, name: &'static str, patch: &'static str| {
        vec!["patch", kind, name, "--type=merge", "-p", patch]
    };
    let annotate = |kind: &'static str, name: &'static str, annotation: &'static str| {
        vec!["annotate", "--overwrite", kind, name, annotation]
    };
    let approve = r#"{"spec": {"promotion": {"approval": "Manual", "approvedVersion": "2"}}}"#;
    let bearer = r#"{"spec": {"auth": {"bearer": {"secretRef": {"name": "mine"}}}}}"#;
    let decisions = [
        (engineer, merge("abind", "binding", approve)),
        (
            engineer,
            merge("abind", "binding", r#"{"spec": {"pinnedVersion": "2"}}"#),
        ),
        (
            engineer,
            merge("abind", "binding", r#"{"spec": {"suspend": true}}"#),
        ),
        (
            engineer,
            annotate("abind", "binding", "pointsman.dev/freeze=holidays"),
        ),
        (
            engineer,
            annotate("abind", "binding", "pointsman.dev/retry-requested-at=1"),
        ),
        (
            scientist,
            merge(
                "rmodel",
                "model",
                r#"{"spec": {"tags": {"team": "fares"}}}"#,
            ),
        ),
        (
            "nobody",
            merge("mreg", "mlflow", r#"{"spec": {"freeze": "holidays"}}"#),
        ),
        ("nobody", merge("mreg", "mlflow", bearer)),
    ];
    for (decides, mut arguments) in decisions {
        arguments.push("--dry-run=server");
        for user in [scientist, engineer] {
            let done = kubectl_as(fixture, user, &arguments).await;
            assert_eq!(
                done.is_ok(),
                user == decides,
                "{user} {arguments:?}: {done:?}"
            );
            if let Err(error) = done {
                assert!(error.contains("forbidden"), "{user} {arguments:?}: {error}");
            }
        }
    }
}
