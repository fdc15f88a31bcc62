//! The chart as platform teams install it: its values, rights and metrics.
//!
//! Absent: images. The operator's binary runs in place of the Deployment; see tests/node for pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_env::cache::Cache;
use pointsman_env::chart::{RenderedChart, chart_folder};
use pointsman_env::operator::define;
use pointsman_env::process::RunFolder;
use pointsman_env::{TestNamespace, manifests, pages, tools};
use serde_json::{Value, json};

use crate::fixture::{self, Environment, Fixture, MUTATING_POLICIES, ScenarioResult, scenarios};

scenarios!(
    every_set_of_values_passes_lint_and_is_accepted_by_the_api_server,
    values_that_contradict_each_other_are_refused_with_a_remedy,
    the_policy_that_records_who_approves_is_of_the_version_that_the_cluster_has,
    an_operator_without_rights_on_the_cluster_follows_an_alias,
    an_operator_without_features_has_no_rights_for_them_and_says_how_to_get_them,
    only_the_leader_describes_objects_in_its_metrics,
    each_alert_fires_in_its_situation_and_in_no_other,
);

/// The sets of values in tests/chart/values.yaml, by name.
fn sets_of_values(namespace: &str) -> BTreeMap<String, Value> {
    let file = pages::repository().join("tests/chart/values.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    serde_saphyr::from_str(&text.replace("NAMESPACE", namespace)).unwrap()
}

async fn every_set_of_values_passes_lint_and_is_accepted_by_the_api_server(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let cluster = environment.cluster().await;
    let namespace = fixture::namespace(&environment, "chart values").await;
    define_monitors(&namespace).await;
    let mut wrong = Vec::new();
    let mut sets = sets_of_values(namespace.namespace());
    if environment.lacks(MUTATING_POLICIES).await {
        sets.retain(|_, values| values["approvals"]["recordUser"] != true);
    }
    for (name, values) in sets {
        if let Err(error) = RenderedChart::lint(&cluster.tools, &values).await {
            wrong.push(format!("{name}: {error}"));
        }
        let own = namespace.namespace();
        match RenderedChart::render(&cluster.tools, "release", own, &values).await {
            Ok(chart) => {
                if let Err(error) = dry_run(&namespace, &chart.objects).await {
                    wrong.push(format!("{name}: {error}"));
                }
            }
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let misspelt = json!({"replica": 2});
    let refused = RenderedChart::lint(&cluster.tools, &misspelt).await;
    assert!(refused.is_err(), "an unknown value passed");
    namespace.end().await.map_err(|error| error.to_string())
}

/// Defines the kinds `ServiceMonitor` and `PrometheusRule` of the Prometheus Operator.
async fn define_monitors(namespace: &TestNamespace) {
    let folder = tokio::task::spawn_blocking(tools::prometheus_operator_definitions).await;
    let folder = folder.unwrap().unwrap();
    let mut definitions = Vec::new();
    for plural in ["servicemonitors", "prometheusrules"] {
        let file = folder.join(format!("monitoring.coreos.com_{plural}.yaml"));
        definitions.extend(manifests::parse(&std::fs::read_to_string(file).unwrap()).unwrap());
    }
    define(&namespace.client(), &definitions).await.unwrap();
}

/// Applies the objects with `--dry-run=server`. The definitions of our kinds are in this cluster already.
async fn dry_run(namespace: &TestNamespace, objects: &[Value]) -> Result<(), String> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let arguments = [
        "-n",
        namespace.namespace(),
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "-f",
        "-",
    ];
    let applied = namespace
        .control_plane()
        .kubectl_with_input(&arguments, &list.to_string())
        .await;
    let applied = applied.map_err(|error| error.to_string())?;
    let count = applied.lines().count();
    if count == objects.len() {
        Ok(())
    } else {
        Err(format!("{count} of {} objects\n{applied}", objects.len()))
    }
}

async fn values_that_contradict_each_other_are_refused_with_a_remedy(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let cluster = environment.cluster().await;
    let not_on_cluster = json!({"clusterScoped": false});
    let refusals = [
        (
            json!({"rbac": not_on_cluster, "crds": {"enabled": false}}),
            "--set 'watchNamespaces={ml}'",
        ),
        (
            json!({"rbac": not_on_cluster, "watchNamespaces": ["ml"]}),
            "--set clusterName=eu-prod",
        ),
        (
            json!({"rbac": not_on_cluster, "watchNamespaces": ["ml"], "clusterName": "eu-prod"}),
            "crds.enabled=false",
        ),
        (
            json!({"rbac": not_on_cluster, "watchNamespaces": ["ml"], "clusterName": "eu-prod",
                "crds": {"enabled": false}, "approvals": {"recordUser": true}}),
            "approvals.recordUser=false",
        ),
        (
            json!({"rbac": not_on_cluster, "watchNamespaces": ["ml"], "crds": {"enabled": false}, "clusterName": "eu",
                "metrics": {"authentication": true}}),
            "metrics.authentication=false",
        ),
        (json!({"network": {"allow": ["localhost"]}}), "allow"),
        (json!({"image": {"digest": "latest"}}), "digest"),
    ];
    for (values, remedy) in refusals {
        let rendered = RenderedChart::render(&cluster.tools, "release", "default", &values).await;
        let message = rendered.unwrap_err().to_string();
        assert!(message.contains(remedy), "{values}: {message}");
    }
    Ok(())
}

async fn the_policy_that_records_who_approves_is_of_the_version_that_the_cluster_has(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let tools = &environment.cluster().await.tools;
    let values = json!({"approvals": {"recordUser": true}});
    let beta = "v1/Pod,admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicy";
    for (flags, version) in [
        (["--kube-version", "1.36.0"], "v1"),
        (["--kube-version", "1.35.2"], "v1beta1"),
        (["--api-versions", beta], "v1beta1"),
    ] {
        let chart = RenderedChart::render_with(tools, &flags, &values).await;
        let chart = chart.unwrap();
        for kind in ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"] {
            let object = chart.the_only(kind).unwrap();
            let expected = format!("admissionregistration.k8s.io/{version}");
            assert_eq!(object["apiVersion"], expected, "{flags:?}");
        }
    }
    for flags in [["--kube-version", "1.33.4"], ["--api-versions", "v1/Pod"]] {
        let refused = RenderedChart::render_with(tools, &flags, &values).await;
        let message = refused.unwrap_err().to_string();
        assert!(
            message.contains("set approvals.recordUser=false"),
            "{message}"
        );
    }
    let old = ["--kube-version", "1.33.4"];
    let without = RenderedChart::render_with(tools, &old, &json!({})).await;
    let without = without.unwrap();
    assert_eq!(without.of_kind("MutatingAdmissionPolicy").count(), 0);
    Ok(())
}

async fn an_operator_without_rights_on_the_cluster_follows_an_alias(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let values = json!({"rbac": {"clusterScoped": false}, "clusterName": "eu-prod",
        "commonLabels": {"test": "no-cluster"}});
    let fixture = Fixture::with_values(&environment, "no cluster", values).await;
    fixture.serve_version_1().await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    let ours = ["get", "clusterroles", "-l", "test=no-cluster", "-o", "name"];
    let roles = fixture.namespace.kubectl(&ours).await.unwrap();
    assert_eq!(roles, "");
    fixture.end().await
}

async fn an_operator_without_features_has_no_rights_for_them_and_says_how_to_get_them(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let values = json!({"features": {"templates": false, "retrain": false}});
    let fixture = Fixture::with_values(&environment, "no features", values).await;
    fixture.serve_version_1().await;
    for (verb, resource) in [("create", "deployments.apps"), ("list", "jobs.batch")] {
        let may = may(&fixture, verb, resource).await;
        assert!(!may, "it may {verb} {resource}");
    }
    assert!(may(&fixture, "patch", "deployments.apps").await);
    let template = json!({"apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding",
        "metadata": {"name": "own"}, "spec": {"modelRef": {"name": "model"}, "alias": "champion",
            "template": {"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "server"}]}}}}}});
    fixture.apply_object(template).await;
    let message = fixture.binding_reports("own", "InvalidSpec").await;
    assert!(message.contains("features.templates=true"), "{message}");
    // The other binding is not affected.
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.end().await
}

/// Whether the operator's `ServiceAccount` may do this in its namespace.
async fn may(fixture: &Fixture, verb: &str, resource: &str) -> bool {
    let own = fixture.namespace.namespace();
    let user = format!("--as=system:serviceaccount:{own}:{own}");
    let answer = fixture
        .namespace
        .kubectl(&["auth", "can-i", verb, resource, &user])
        .await;
    answer.is_ok_and(|answer| answer.trim() == "yes")
}

async fn only_the_leader_describes_objects_in_its_metrics(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "described once").await;
    fixture.serve_version_1().await;
    fixture.declare_binding(json!({"pinnedVersion": "2"})).await;
    fixture.runs("2").await;
    fixture.reports("Pinned").await;
    let mut replicas = fixture
        .replicas(&environment, 2, json!({"replicas": 2}))
        .await;
    let standby = replicas.pop().unwrap();
    let leader = replicas.pop().unwrap();
    let described = leader.metrics().await.unwrap();
    let own = fixture.namespace.namespace();
    for line in [
        "pointsman_leader 1".to_owned(),
        format!(
            r#"pointsman_registry_info{{namespace="{own}",registry="mlflow",ready="True",reason="Reachable"}} 1"#
        ),
        format!(
            r#"pointsman_binding_info{{namespace="{own}",binding="binding",model="model",alias="champion",wanted="2",running="2",ready="True",reason="Pinned"}} 1"#
        ),
        r#"pointsman_rollouts_total{outcome="RolledBack",trigger="AliasMove"} 0"#.to_owned(),
    ] {
        assert!(described.contains(&line), "{line}\n{described}");
    }
    let silent = standby.metrics().await.unwrap();
    assert!(silent.contains("pointsman_leader 0"), "{silent}");
    for metric in ["pointsman_registry_info{", "pointsman_binding_info{"] {
        assert!(!silent.contains(metric), "{silent}");
    }
    fixture.end().await
}

async fn each_alert_fires_in_its_situation_and_in_no_other(_: Arc<Environment>) -> ScenarioResult {
    let cache = Cache::open().unwrap();
    let folder = tokio::task::spawn_blocking(move || tools::prometheus(&cache)).await;
    let promtool = folder.unwrap().unwrap().join("promtool");
    let tests = pages::repository().join("tests/chart");
    let alerts = chart_folder().join("files/alerts.yaml");
    // promtool reads the rules beside the tests.
    let folder = RunFolder::create("alerts").unwrap();
    for file in [alerts, tests.join("alerts.test.yaml")] {
        std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    let output = tokio::process::Command::new(promtool)
        .args(["test", "rules", "alerts.test.yaml"])
        .current_dir(folder.path())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    Ok(())
}
