//! The `pointsman` binary: reads its arguments, sets up logging and signals, and calls the library.
//!
//! Absent: everything else.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use http::Request;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt, retry::RetryPolicy};
use kube::{Client, Config};
use pointsman::api::custom_resource_definitions;
use pointsman::cli::{Arguments, Command, LogFormat, RunArguments};
use pointsman::controllers::{Settings, WebhookSettings, run};
use pointsman::kubernetes::lease::{Election, Fence};
use pointsman::kubernetes::protobuf::{ask_for_protobuf, read_protobuf};
use tokio::signal::unix::{SignalKind, signal};
use tower::filter::FilterLayer;
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

/// glibc keeps what a burst freed; this allocator gives it back. See docs/performance.md for what either takes.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long a connection to the API server that nobody uses is kept.
const IDLE_CONNECTION: Duration = Duration::from_secs(10);

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => operate(*arguments),
        Command::Crds(arguments) => print_definitions(arguments.output.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("pointsman: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn print_definitions(folder: Option<&Path>) -> Result<(), Failure> {
    for definition in custom_resource_definitions() {
        let yaml = pointsman::api::to_yaml(&definition)?;
        match folder {
            None => print!("---\n{yaml}"),
            Some(folder) => {
                let name = definition.metadata.name.unwrap_or_default();
                std::fs::write(folder.join(format!("{name}.yaml")), yaml)?;
            }
        }
    }
    Ok(())
}

fn operate(arguments: RunArguments) -> Result<(), Failure> {
    // One provider for kube and reqwest alike; a second installation is the only way in which this fails.
    let _ = rustls::crypto::ring::default_provider().install_default();
    start_logging(&arguments)?;
    // One thread: passes are short work between long answers. A second one costs nearly a megabyte, for stacks, caches and libm.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(connect_and_run(arguments))
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

async fn connect_and_run(arguments: RunArguments) -> Result<(), Failure> {
    let config = Config::infer().await.map_err(|error| {
        format!(
            "no cluster to work on: {error}; set KUBECONFIG, or run in a pod with a service account"
        )
    })?;
    let fence = if arguments.leader_election {
        Fence::closed()
    } else {
        Fence::open()
    };
    let election = election(&arguments, &config.default_namespace);
    let client = fenced_client(config, fence.clone())?;
    let tls_folder = arguments.webhook_tls_folder;
    let settings = Settings {
        health_address: arguments.health_address,
        webhook: arguments.webhook_address.map(|address| WebhookSettings {
            address,
            tls_folder,
        }),
        watch_namespaces: arguments.watch_namespaces,
        instance: arguments.instance,
        cluster_name: arguments.cluster_name,
        allow_file_artifacts: arguments.check_file_artifacts,
        shard: arguments.shard,
        binding_info_metric: arguments.binding_info_metric,
        election,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    run(client, fence, settings, stop).await?;
    Ok(())
}

fn election(arguments: &RunArguments, own_namespace: &str) -> Option<Election> {
    let identity = arguments
        .instance
        .clone()
        .filter(|_| arguments.leader_election)?;
    Some(Election {
        namespace: arguments
            .lease_namespace
            .clone()
            .unwrap_or_else(|| own_namespace.to_owned()),
        name: arguments.lease_name.clone(),
        identity,
        duration: Duration::from_secs(arguments.lease_seconds),
        address: arguments
            .pod_ip
            .map(|ip| SocketAddr::new(ip, arguments.health_address.port())),
    })
}

/// A client whose writes leave only while the fence is open.
fn fenced_client(config: Config, fence: Fence) -> Result<Client, Failure> {
    let admit = move |request: Request<Body>| {
        if fence.admits(request.method(), request.uri().path()) {
            Ok(request)
        } else {
            Err("this replica does not lead: the write was not sent")
        }
    };
    let service = ServiceBuilder::new()
        .layer(FilterLayer::new(admit))
        .map_request(ask_for_protobuf)
        .map_response(read_protobuf)
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(RetryPolicy::server_retry()))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(prompt_client(&config)?);
    Ok(Client::new(service, config.default_namespace))
}

/// Connections that a burst opened are closed soon after it: each holds buffers here and at the API server.
fn prompt_client(
    config: &Config,
) -> Result<legacy::Client<HttpsConnector<HttpConnector>, Body>, Failure> {
    let mut client = legacy::Client::builder(TokioExecutor::new());
    client
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_CONNECTION);
    Ok(client.build(prompt_connector(config)?))
}

/// kube's own connector, but for Nagle's algorithm: hyper writes the head of a request and its body apart, and the body would
/// wait for the acknowledgement of the head, which the API server's kernel delays by 40 ms.
fn prompt_connector(config: &Config) -> Result<HttpsConnector<HttpConnector>, Failure> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(config.connect_timeout);
    // A watch may say nothing for minutes: a connection whose other end is gone is found out by asking it, within a minute.
    connector.set_keepalive(Some(Duration::from_secs(30)));
    connector.set_keepalive_interval(Some(Duration::from_secs(10)));
    connector.set_keepalive_retries(Some(3));
    Ok(config.rustls_https_connector_with_connector(connector)?)
}
