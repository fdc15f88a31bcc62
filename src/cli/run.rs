//! `pointsman run`: runs the operator.
//!
//! Absent: the operator. Arguments become [`OperatorSettings`], and the library does the rest.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use ipnet::IpNet;
use kube::Config;
use kube::api::{ApiResource, GroupVersionKind};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use super::Failure;
use crate::api::alias_binding::TargetKind;
use crate::api::names;
use crate::controllers::{self, AddressGuard, Features, OperatorSettings, WebhookSettings};
use crate::kubernetes::client::fenced_client;
use crate::kubernetes::lease::{Election, Fence};

/// Run the operator on the cluster of KUBECONFIG or of the pod's service account
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  On the current context, for one namespace:
    pointsman run --watch-namespace ml --health-address 127.0.0.1:8080
  As one of several replicas, of which one leads:
    pointsman run --leader-election --instance \"$HOSTNAME\" --lease-namespace pointsman
  With MLflow's webhooks, so that a moved alias is seen at once instead of at the next poll:
    pointsman run --webhook-address 0.0.0.0:8443 --webhook-tls-folder /etc/pointsman/tls")]
#[allow(clippy::struct_excessive_bools)] // independent switches
pub struct RunArguments {
    /// The address of /healthz, /readyz and /metrics
    #[arg(long, default_value = "[::]:8080", env = "POINTSMAN_HEALTH_ADDRESS")]
    health_address: SocketAddr,
    /// The address for the registry's webhooks, such as 0.0.0.0:8443; without it registries are only polled
    #[arg(long, value_name = "ADDRESS", env = "POINTSMAN_WEBHOOK_ADDRESS")]
    webhook_address: Option<SocketAddr>,
    /// A folder with tls.crt and tls.key: webhooks are then served over https. Changed files are read again
    #[arg(long, value_name = "FOLDER", requires = "webhook_address")]
    webhook_tls_folder: Option<PathBuf>,
    /// The address of this pod, at which other replicas forward webhooks to the leader, to the port of --health-address
    #[arg(long, value_name = "ADDRESS", env = "POD_IP")]
    pod_ip: Option<IpAddr>,
    /// A namespace to watch; repeat it for several. All namespaces if it is left out
    #[arg(
        long = "watch-namespace",
        value_name = "NAMESPACE",
        env = "POINTSMAN_WATCH_NAMESPACES",
        value_delimiter = ','
    )]
    watch_namespaces: Vec<String>,
    /// Reconcile only the RegisteredModels and AliasBindings with these labels, such as pointsman.dev/shard=a or
    /// !pointsman.dev/shard: for several operators in one cluster
    #[arg(long, value_name = "SELECTOR", env = "POINTSMAN_SHARD", value_parser = selector)]
    shard: Option<String>,
    /// The kinds of workloads that AliasBindings may drive. Each needs rights of its own; see targets in the chart's values
    #[arg(
        long,
        value_name = "KIND",
        default_value = "Deployment",
        env = "POINTSMAN_TARGETS",
        value_delimiter = ',',
        value_parser = target_kind
    )]
    targets: Vec<TargetKind>,
    /// What AliasBindings may have made for them: templates (Deployments), retrain (Jobs). Each needs rights of its own
    #[arg(
        long,
        value_enum,
        value_name = "FEATURE",
        default_value = "templates,retrain",
        env = "POINTSMAN_FEATURES",
        value_delimiter = ','
    )]
    features: Vec<Feature>,
    /// Another kind that AliasBindings may drive by fields, as GROUP/VERSION/KIND/PLURAL; repeat it for several
    #[arg(
        long = "other-target",
        value_name = "KIND",
        env = "POINTSMAN_OTHER_TARGETS",
        value_delimiter = ',',
        value_parser = other_target
    )]
    other_targets: Vec<ApiResource>,
    /// Whether /metrics has a pointsman_binding_info for each AliasBinding
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false", env = "POINTSMAN_BINDING_INFO_METRIC")]
    binding_info_metric: bool,
    /// Whether /metrics is only for those whose bearer token may get this path; it takes the rights to review tokens and access
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, value_name = "true|false", env = "POINTSMAN_METRICS_AUTHENTICATION")]
    metrics_authentication: bool,
    /// Whether the annotation pointsman.dev/freeze of namespaces counts; it takes the rights to list and watch them
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false", env = "POINTSMAN_NAMESPACE_FREEZES")]
    namespace_freezes: bool,
    /// Take the annotation pointsman.dev/approved-by of an AliasBinding for the user who approved: a policy of the cluster must
    /// write it and refuse everybody else's value, as that of the chart does (approvals.recordUser)
    #[arg(long, env = "POINTSMAN_TRUST_APPROVER_ANNOTATION")]
    trust_approver_annotation: bool,
    /// This cluster's name in MLflow, in tags and names of webhooks, of letters, digits, hyphens and dots; without it the UID of
    /// the namespace kube-system
    #[arg(long, value_name = "NAME", env = "POINTSMAN_CLUSTER_NAME", value_parser = cluster_name)]
    cluster_name: Option<String>,
    /// Check file: artifacts too, in this process's own file system; only if the pods have the same one
    #[arg(long, env = "POINTSMAN_CHECK_FILE_ARTIFACTS")]
    check_file_artifacts: bool,
    /// Networks that registries and stores may be in, although they are refused by default: loopback, link-local, instance
    /// metadata, the API server; as 127.0.0.0/8, several separated by commas
    #[arg(
        long,
        value_name = "NETWORK",
        env = "POINTSMAN_ALLOW_NETWORKS",
        value_delimiter = ','
    )]
    allow_networks: Vec<IpNet>,
    /// Networks that no request for a registry or a store goes to, also if they are allowed
    #[arg(
        long,
        value_name = "NETWORK",
        env = "POINTSMAN_DENY_NETWORKS",
        value_delimiter = ','
    )]
    deny_networks: Vec<IpNet>,
    /// The format of log lines
    #[arg(long, value_enum, default_value = "text", env = "POINTSMAN_LOG_FORMAT")]
    log_format: LogFormat,
    /// The log level: error, warn, info, debug or trace; or one for each module, such as pointsman=debug,kube=info
    #[arg(long, default_value = "info", env = "POINTSMAN_LOG")]
    log: String,
    /// This process's name in Events and in the Lease; in a cluster the name of the pod
    #[arg(long, env = "POD_NAME")]
    instance: Option<String>,
    /// Act only while holding a Lease: for two replicas and more. The others keep their caches up to date and wait
    #[arg(long, requires = "instance", env = "POINTSMAN_LEADER_ELECTION")]
    leader_election: bool,
    /// The name of the Lease
    #[arg(long, default_value = "pointsman", value_name = "NAME")]
    lease_name: String,
    /// The namespace of the Lease; without it that of the pod or of the kubeconfig's context
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    lease_namespace: Option<String>,
    /// How long the Lease is valid after a renewal: another replica takes over from a failed leader after this time, 3 to 300 s
    #[arg(long, default_value = "15", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..=300))]
    lease_seconds: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Feature {
    /// Deployments of AliasBindings with a template
    Templates,
    /// Jobs of AliasBindings with retrain
    Retrain,
    /// Neither
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

fn selector(word: &str) -> Result<String, String> {
    if word.trim().is_empty() {
        return Err(
            "write a label selector, such as pointsman.dev/shard=a, or leave it out".to_owned(),
        );
    }
    Ok(word.to_owned())
}

fn cluster_name(word: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if (1..=63).contains(&word.len()) && word.chars().all(is_allowed) {
        Ok(word.to_owned())
    } else {
        Err("write 1 to 63 letters, digits, hyphens or dots".to_owned())
    }
}

/// Runs the command, until a signal ends it.
pub fn run(arguments: RunArguments) -> Result<(), Failure> {
    // kube and reqwest share one TLS provider. Installing it fails only if it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    start_logging(&arguments)?;
    // Reconciles are short and mostly wait for the network, so one thread is enough; a second one costs almost a megabyte.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run_operator(arguments))
}

fn start_logging(arguments: &RunArguments) -> Result<(), Failure> {
    let filter: Targets = arguments
        .log
        .parse()
        .map_err(|error| format!("--log {}: {error}", arguments.log))?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match arguments.log_format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Registry::default().with(lines.with_filter(filter)).init();
    Ok(())
}

async fn run_operator(arguments: RunArguments) -> Result<(), Failure> {
    let config = Config::infer().await.map_err(|error| {
        format!(
            "there is no cluster: {error}; set KUBECONFIG, or run in a pod with a service account"
        )
    })?;
    let fence = if arguments.leader_election {
        Fence::closed()
    } else {
        Fence::open()
    };
    let own_namespace = config.default_namespace.clone();
    let api_server = api_server_addresses(&config).await;
    let client = fenced_client(config, fence.clone())?;
    let settings = settings(arguments, own_namespace, &api_server);
    controllers::run(client, fence, settings, stop_signal()?).await?;
    Ok(())
}

fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static, std::io::Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    })
}

/// The addresses of the API server, to which no request for a tenant goes.
async fn api_server_addresses(config: &Config) -> Vec<IpAddr> {
    let host = config.cluster_url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match tokio::net::lookup_host((host, 0)).await {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(_) => Vec::new(),
    }
}

fn settings(
    arguments: RunArguments,
    own_namespace: String,
    api_server: &[IpAddr],
) -> OperatorSettings {
    let (allowed, denied) = (
        arguments.allow_networks.clone(),
        arguments.deny_networks.clone(),
    );
    let election = election(&arguments, own_namespace);
    let tls_folder = arguments.webhook_tls_folder;
    OperatorSettings {
        health_address: arguments.health_address,
        webhook: arguments.webhook_address.map(|address| WebhookSettings {
            address,
            tls_folder,
        }),
        watch_namespaces: arguments.watch_namespaces.into_iter().collect(),
        instance: arguments.instance,
        cluster_name: arguments.cluster_name.unwrap_or_default(),
        allow_file_artifacts: arguments.check_file_artifacts,
        shard: arguments.shard,
        targets: arguments.targets,
        features: Features {
            templates: arguments.features.contains(&Feature::Templates),
            retrain: arguments.features.contains(&Feature::Retrain),
        },
        namespace_freezes: arguments.namespace_freezes,
        other_targets: arguments.other_targets,
        guard: AddressGuard::for_tenants(allowed, denied, api_server),
        binding_info_metric: arguments.binding_info_metric,
        records_approver: arguments.trust_approver_annotation,
        metrics_authentication: arguments.metrics_authentication,
        election,
    }
}

fn target_kind(word: &str) -> Result<TargetKind, String> {
    let mut kinds = TargetKind::KNOWN.into_iter();
    let found = kinds.find(|kind| kind.as_str() == word);
    found.ok_or_else(|| "write Deployment, StatefulSet, DaemonSet, Rollout or CronJob".to_owned())
}

fn other_target(word: &str) -> Result<ApiResource, String> {
    let parts: Vec<&str> = word.split('/').collect();
    let &[group, version, kind, plural] = parts.as_slice() else {
        return Err(
            "write GROUP/VERSION/KIND/PLURAL, such as serving.kserve.io/v1beta1/InferenceService/inferenceservices"
                .to_owned(),
        );
    };
    let kind = GroupVersionKind::gvk(group, version, kind);
    Ok(ApiResource::from_gvk_with_plural(&kind, plural))
}

fn election(arguments: &RunArguments, own_namespace: String) -> Option<Election> {
    if !arguments.leader_election {
        return None;
    }
    let port = arguments.health_address.port();
    Some(Election {
        namespace: arguments.lease_namespace.clone().unwrap_or(own_namespace),
        name: arguments.lease_name.clone(),
        identity: arguments.instance.clone()?,
        duration: Duration::from_secs(arguments.lease_seconds),
        address: arguments.pod_ip.map(|ip| SocketAddr::new(ip, port)),
        address_annotation: names::ADDRESS_ANNOTATION,
    })
}
