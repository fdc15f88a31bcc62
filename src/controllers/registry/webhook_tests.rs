use serde_json::json;

use super::*;
use crate::api::ModelRegistryStatus;

fn webhook(id: &str, name: &str, url: &str) -> Webhook {
    Webhook {
        id: id.to_owned(),
        name: name.to_owned(),
        url: url.to_owned(),
        is_whole: true,
    }
}

fn registry(namespace: &str, name: &str, url: &str) -> ModelRegistry {
    let spec = json!({"mlflow": {"uri": "http://mlflow:5000"}, "webhook": {"mode": "Managed", "url": url, "secretRef": {"name": "s"}}});
    let mut registry = ModelRegistry::new(name, serde_json::from_value(spec).unwrap());
    registry.metadata.namespace = Some(namespace.to_owned());
    registry
}

fn ids(webhooks: impl IntoIterator<Item = Webhook>) -> Vec<String> {
    webhooks.into_iter().map(|webhook| webhook.id).collect()
}

#[test]
fn doubles_are_found_and_what_is_anothers_is_left_alone() {
    let listed = vec![
        webhook("1", "ours", "http://a/"),
        webhook("2", "ours", "http://a/"),
        webhook("3", "ours", "http://another-cluster/"),
        webhook("4", "theirs", "http://a/"),
    ];
    let (kept, doubles) = ours(listed, "ours", "http://a/", None);
    assert_eq!(
        (ids(kept), ids(doubles)),
        (vec!["1".to_owned()], vec!["2".to_owned()])
    );
}

#[test]
fn the_one_in_the_status_is_kept_whatever_its_address() {
    let before = RegisteredWebhook {
        id: "2".to_owned(),
        url: "http://old/".to_owned(),
        server: None,
    };
    let listed = vec![
        webhook("1", "ours", "http://new/"),
        webhook("2", "ours", "http://old/"),
    ];
    let (kept, doubles) = ours(listed, "ours", "http://new/", Some(&before));
    assert_eq!(
        (ids(kept), ids(doubles)),
        (vec!["2".to_owned()], vec!["1".to_owned()])
    );
}

#[test]
fn names_are_such_as_mlflow_takes_and_differ() {
    let long = "a".repeat(253);
    let names = [
        ("ml", "mlflow", "one"),
        ("ml", "mlflow", "two"),
        ("ml", "x.mlflow", "one"),
        ("ml", &long, "one"),
    ]
    .map(|(namespace, name, cluster)| name_of(&registry(namespace, name, "http://x"), cluster));
    for name in &names {
        assert!(
            name.len() <= LONGEST_NAME && name.ends_with(|c: char| c.is_ascii_alphanumeric()),
            "{name}"
        );
    }
    assert_ne!(names[0], names[1]);
    assert!(
        names[0].starts_with("pointsman.") && names[0].ends_with(".ml.mlflow"),
        "{}",
        names[0]
    );
}

#[test]
fn the_address_is_the_base_and_the_path_of_the_registry() {
    for base in [
        "http://pointsman-webhook.pointsman.svc:8443",
        "http://pointsman-webhook.pointsman.svc:8443/",
    ] {
        let url = url_of(&registry("ml", "mlflow", base));
        assert_eq!(
            url,
            "http://pointsman-webhook.pointsman.svc:8443/webhooks/ml/mlflow"
        );
    }
}

#[test]
fn a_refusal_names_its_remedy() {
    let at = || "http://mlflow/api".to_owned();
    let refused = |words: &str| RegistryError::Refused {
        at: at(),
        status: 400,
        code: None,
        words: words.to_owned(),
    };
    let unwell = |code: Option<&str>| RegistryError::Unwell {
        at: at(),
        status: 500,
        code: code.map(ToOwned::to_owned),
        words: String::new(),
    };
    let cases = [
        (
            refused("Invalid webhook URL scheme: 'http'. Allowed schemes are: https."),
            Reason::WebhookAddressRefused,
            "ALLOWED_SCHEMES=http,https",
        ),
        (
            refused("Webhook URL must not resolve to a non-public IP address."),
            Reason::WebhookAddressRefused,
            "ALLOW_PRIVATE_IPS=true",
        ),
        (
            unwell(Some("INTERNAL_ERROR")),
            Reason::WebhookKeyMissing,
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",
        ),
        (
            unwell(None),
            Reason::WebhookUnsupported,
            "--backend-store-uri",
        ),
        (
            RegistryError::NotMlflow {
                at: at(),
                status: 404,
                what: String::new(),
            },
            Reason::WebhookUnsupported,
            "3.3",
        ),
        (
            RegistryError::Forbidden {
                at: at(),
                sent: "a bearer token",
                words: String::new(),
            },
            Reason::WebhookRefused,
            "administrator",
        ),
        (
            refused("something else"),
            Reason::RegistryRefused,
            "something else",
        ),
    ];
    for (error, reason, remedy) in cases {
        let told = problem(error);
        assert_eq!(told.reason, reason, "{}", told.message);
        assert!(told.message.contains(remedy), "{}", told.message);
    }
}

#[test]
fn an_object_that_is_being_deleted_waits_for_a_minute() {
    let mut registry = registry("ml", "mlflow", "http://x");
    let at = |second| Timestamp::from_second(second).unwrap();
    registry.metadata.deletion_timestamp = Some(
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(100)),
    );
    assert!(waits(&registry, at(159)));
    assert!(!waits(&registry, at(160)));
}

#[test]
fn a_webhook_is_known_to_stay_where_it_was_registered() {
    let mut registry = registry("ml", "mlflow", "http://x");
    let at = |server: Option<&str>| RegisteredWebhook {
        server: server.map(ToOwned::to_owned),
        ..RegisteredWebhook::default()
    };
    for (server, is_elsewhere) in [
        (None, false),
        (Some("http://mlflow:5000"), false),
        (Some("http://before:5000"), true),
    ] {
        registry.status = Some(ModelRegistryStatus {
            webhook: Some(at(server)),
            ..ModelRegistryStatus::default()
        });
        assert_eq!(moved_away(&registry).is_some(), is_elsewhere, "{server:?}");
    }
}
