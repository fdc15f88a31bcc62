//! The identity of a registry's webhook: its name and address in MLflow, and the recognition of the
//! operator's own among others.
//!
//! Absent: requests.

use kube::ResourceExt;
use ring::digest;

use crate::api::ModelRegistry;
use crate::api::model_registry::RegisteredWebhook;
use crate::registries::ListedWebhook;

/// The longest name that MLflow accepts.
const MAX_NAME_LENGTH: usize = 63;

/// The webhooks of the operator among those that MLflow lists.
pub struct OwnWebhooks {
    /// The one to keep.
    pub kept: Option<ListedWebhook>,
    /// The others, which are to be deleted.
    pub duplicates: Vec<ListedWebhook>,
}

impl OwnWebhooks {
    /// Finds the operator's own webhooks. Names are not unique in MLflow, and another cluster may
    /// use the same one; so the address, or the id in the status, must match too.
    pub fn find(
        mut listed: Vec<ListedWebhook>,
        name: &str,
        url: &str,
        recorded: Option<&RegisteredWebhook>,
    ) -> Self {
        let is_recorded =
            |webhook: &ListedWebhook| recorded.is_some_and(|recorded| recorded.id == webhook.id);
        listed
            .retain(|webhook| webhook.name == name && (webhook.url == url || is_recorded(webhook)));
        listed.sort_by_key(|webhook| !is_recorded(webhook));
        let mut own = listed.into_iter();
        Self {
            kept: own.next(),
            duplicates: own.collect(),
        }
    }
}

/// The webhook's name in MLflow: stable, readable, and different from that of any other registry.
pub fn webhook_name(registry: &ModelRegistry, cluster: &str) -> String {
    let namespace = registry.namespace().unwrap_or_default();
    let name = registry.name_any();
    let identity = format!("{cluster}/{namespace}/{name}");
    let digest = digest::digest(&digest::SHA256, identity.as_bytes());
    let first_bytes = digest.as_ref().iter().take(4);
    let prefix = first_bytes.fold(0, |number: u32, byte| (number << 8) | u32::from(*byte));
    let whole = format!("pointsman.{prefix:08x}.{namespace}.{name}");
    let short: String = whole.chars().take(MAX_NAME_LENGTH).collect();
    let is_separator = |c: char| !c.is_ascii_alphanumeric();
    short.trim_end_matches(is_separator).to_owned()
}

/// The address that MLflow delivers to.
pub fn webhook_url(registry: &ModelRegistry) -> String {
    let base = match &registry.spec.webhook {
        Some(webhook) => webhook.url.as_deref().unwrap_or_default(),
        None => "",
    };
    let namespace = registry.namespace().unwrap_or_default();
    let name = registry.name_any();
    format!("{}/webhooks/{namespace}/{name}", base.trim_end_matches('/'))
}

/// The webhook that the status names.
pub fn recorded_webhook(registry: &ModelRegistry) -> Option<&RegisteredWebhook> {
    registry.status.as_ref()?.webhook.as_ref()
}

/// The webhook that the status names, if it was registered at another MLflow server than that of
/// the spec. It is not deleted there: the credentials of the spec may not be meant for that server.
pub fn webhook_elsewhere(registry: &ModelRegistry) -> Option<&RegisteredWebhook> {
    let webhook = recorded_webhook(registry)?;
    let server = webhook.server.as_ref()?;
    (server != registry.spec.address()).then_some(webhook)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ModelRegistryStatus;

    fn webhook(id: &str, name: &str, url: &str) -> ListedWebhook {
        ListedWebhook {
            id: id.to_owned(),
            name: name.to_owned(),
            url: url.to_owned(),
            is_complete: true,
        }
    }

    fn registry(namespace: &str, name: &str, url: &str) -> ModelRegistry {
        let spec = json!({"mlflow": {"uri": "http://mlflow:5000"}, "webhook": {"mode": "Managed", "url": url, "secretRef": {"name": "s"}}});
        let mut registry = ModelRegistry::new(name, serde_json::from_value(spec).unwrap());
        registry.metadata.namespace = Some(namespace.to_owned());
        registry
    }

    /// The id of the kept webhook, and those of the duplicates.
    fn ids(own: OwnWebhooks) -> (Option<String>, Vec<String>) {
        let duplicates = own.duplicates.into_iter();
        (
            own.kept.map(|webhook| webhook.id),
            duplicates.map(|webhook| webhook.id).collect(),
        )
    }

    #[test]
    fn duplicates_are_found_and_the_webhooks_of_others_are_left_alone() {
        let listed = vec![
            webhook("1", "ours", "http://a/"),
            webhook("2", "ours", "http://a/"),
            webhook("3", "ours", "http://another-cluster/"),
            webhook("4", "theirs", "http://a/"),
        ];
        let own = OwnWebhooks::find(listed, "ours", "http://a/", None);
        assert_eq!(ids(own), (Some("1".to_owned()), vec!["2".to_owned()]));
    }

    #[test]
    fn the_webhook_in_the_status_is_kept_even_at_another_address() {
        let recorded = RegisteredWebhook {
            id: "2".to_owned(),
            url: "http://old/".to_owned(),
            server: None,
        };
        let listed = vec![
            webhook("1", "ours", "http://new/"),
            webhook("2", "ours", "http://old/"),
        ];
        let own = OwnWebhooks::find(listed, "ours", "http://new/", Some(&recorded));
        assert_eq!(ids(own), (Some("2".to_owned()), vec!["1".to_owned()]));
    }

    #[test]
    fn names_are_valid_in_mlflow_and_differ() {
        let long = "a".repeat(253);
        let names = [
            ("ml", "mlflow", "one"),
            ("ml", "mlflow", "two"),
            ("ml", "x.mlflow", "one"),
            ("ml", &long, "one"),
        ]
        .map(|(namespace, name, cluster)| {
            webhook_name(&registry(namespace, name, "http://x"), cluster)
        });
        for name in &names {
            assert!(
                name.len() <= MAX_NAME_LENGTH
                    && name.ends_with(|c: char| c.is_ascii_alphanumeric()),
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
    fn a_name_stays_the_same_in_every_release() {
        let name = webhook_name(&registry("ml", "mlflow", "http://x"), "one");
        assert_eq!(name, "pointsman.44279400.ml.mlflow");
    }

    #[test]
    fn the_address_is_the_base_and_the_path_of_the_registry() {
        for base in [
            "http://pointsman-webhook.pointsman.svc:8443",
            "http://pointsman-webhook.pointsman.svc:8443/",
        ] {
            let url = webhook_url(&registry("ml", "mlflow", base));
            assert_eq!(
                url,
                "http://pointsman-webhook.pointsman.svc:8443/webhooks/ml/mlflow"
            );
        }
    }

    #[test]
    fn a_webhook_is_elsewhere_if_it_was_registered_at_another_server() {
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
            assert_eq!(
                webhook_elsewhere(&registry).is_some(),
                is_elsewhere,
                "{server:?}"
            );
        }
    }
}
