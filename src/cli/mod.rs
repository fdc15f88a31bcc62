//! The commands of the binary.
//!
//! Absent: what they do. They read their arguments and call the library.

use std::net::{IpAddr, SocketAddr};

use clap::{Parser, Subcommand, ValueEnum};

/// Moves of a model-registry alias become Kubernetes deployments, and moves back become rollbacks.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator, on the cluster that KUBECONFIG or the pod's own service account names.
    #[command(
        after_help = "Example, against the current context and one namespace only:\n  pointsman run --watch-namespace ml --health-address 127.0.0.1:8080"
    )]
    Run(Box<RunArguments>),
    /// Print the custom resource definitions as YAML: pointsman crds | kubectl apply --server-side -f -
    Crds(CrdsArguments),
}

/// Where the definitions go.
#[derive(Clone, Debug, clap::Args)]
pub struct CrdsArguments {
    /// Write one file a definition into this folder instead.
    #[arg(long, value_name = "FOLDER")]
    pub output: Option<std::path::PathBuf>,
}

/// How to run the operator.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArguments {
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, default_value = "0.0.0.0:8080", env = "POINTSMAN_HEALTH_ADDRESS")]
    pub health_address: SocketAddr,
    /// Where deliveries of webhooks are listened to, such as 0.0.0.0:8443; nowhere where it is left out.
    #[arg(long, value_name = "ADDRESS", env = "POINTSMAN_WEBHOOK_ADDRESS")]
    pub webhook_address: Option<SocketAddr>,
    /// A folder with tls.crt and tls.key: deliveries are then listened to on https. Read again when the files change.
    #[arg(long, value_name = "FOLDER", requires = "webhook_address")]
    pub webhook_tls_folder: Option<std::path::PathBuf>,
    /// The address of this pod, by which other replicas hand on what they heard, to the port of --health-address.
    #[arg(long, value_name = "ADDRESS", env = "POD_IP")]
    pub pod_ip: Option<IpAddr>,
    /// A namespace to watch; may be given several times. All namespaces where it is left out.
    #[arg(
        long = "watch-namespace",
        value_name = "NAMESPACE",
        env = "POINTSMAN_WATCH_NAMESPACES",
        value_delimiter = ','
    )]
    pub watch_namespaces: Vec<String>,
    /// Which registered models and bindings are this process's, by a label selector such as pointsman.dev/shard=a or !pointsman.dev/shard: for several operators on one cluster. All where it is left out.
    #[arg(long, value_name = "SELECTOR", env = "POINTSMAN_SHARD", value_parser = selector)]
    pub shard: Option<String>,
    /// Whether /metrics tells of each binding by name.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false", env = "POINTSMAN_BINDING_INFO_METRIC")]
    pub binding_info_metric: bool,
    /// This cluster's name in the tags that spec.writeBack of a ModelRegistry writes: letters, digits, - and .
    #[arg(long, default_value = "cluster", value_name = "NAME", env = "POINTSMAN_CLUSTER_NAME", value_parser = cluster_name)]
    pub cluster_name: String,
    /// Look for file: artifacts too, in this process's own file system: only where the pods see the same one.
    #[arg(long, env = "POINTSMAN_CHECK_FILE_ARTIFACTS")]
    pub check_file_artifacts: bool,
    /// How log lines are written.
    #[arg(long, value_enum, default_value = "text", env = "POINTSMAN_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or filters such as pointsman=debug,kube=info.
    #[arg(long, default_value = "info", env = "POINTSMAN_LOG")]
    pub log: String,
    /// This process's name in Events and in the Lease; the pod's name in a cluster.
    #[arg(long, env = "POD_NAME")]
    pub instance: Option<String>,
    /// Act only while holding a Lease: for two replicas and more. The others keep their caches filled and wait.
    #[arg(long, requires = "instance", env = "POINTSMAN_LEADER_ELECTION")]
    pub leader_election: bool,
    /// The Lease's name.
    #[arg(long, default_value = "pointsman", value_name = "NAME")]
    pub lease_name: String,
    /// The Lease's namespace; that of the pod or of the kubeconfig's context where it is left out.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// For how long the Lease holds after it was renewed: a failed leader is followed by another after this time. From 3 s.
    #[arg(long, default_value = "15", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..=300))]
    pub lease_seconds: u64,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
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
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if (1..=63).contains(&word.len()) && word.chars().all(plain) {
        Ok(word.to_owned())
    } else {
        Err("write 1 to 63 letters, digits, - or .".to_owned())
    }
}
