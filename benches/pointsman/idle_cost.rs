//! The cost of following many objects while nothing happens: for the follower, the API server and the registry.
//!
//! Absent: the followers. A process and the proxies that only it uses are all that is needed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pointsman_env::interceptor::{Interceptor, Request};
use pointsman_env::usage;

use crate::burst::kind_of;
use crate::durations::megabytes;
use crate::environment::{Environment, TIMEOUT};
use crate::object_set::share;
use crate::report::Measurement;

/// A cluster without writes for this time is settled.
const QUIET: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
/// Processor time is counted in steps.
const PROCESSOR_STEP: f64 = 0.01;

/// The cost of a follower for MLflow.
pub struct RegistryCost {
    window: Duration,
    requests: usize,
    /// Processor time of the server and its workers.
    processor_time: Duration,
}

impl RegistryCost {
    /// Counts the requests through the proxy, and the processor time of the server.
    pub async fn measure(environment: &Environment, proxy: &Interceptor, window: Duration) -> Self {
        let mark = proxy.mark();
        let used = environment.mlflow.processor_time().unwrap();
        tokio::time::sleep(window).await;
        let now = environment.mlflow.processor_time().unwrap();
        Self {
            window,
            requests: proxy.since(mark).len(),
            processor_time: now.saturating_sub(used),
        }
    }

    pub fn requests_per_minute(&self) -> f64 {
        per_minute(self.requests, self.window)
    }

    pub fn processor_seconds_per_minute(&self) -> f64 {
        self.processor_time.as_secs_f64() / minutes(self.window)
    }

    pub fn description(&self) -> String {
        let requests = self.requests_per_minute();
        let seconds = self.processor_seconds_per_minute();
        format!("{requests:.1} requests, {seconds:.2} s of a processor, each minute")
    }
}

/// The cost of a controller with nothing to do.
pub struct IdleCost {
    window: Duration,
    resident: u64,
    processor_time: Duration,
    api_requests: usize,
    api_writes: Vec<Request>,
    registry_requests: usize,
}

impl IdleCost {
    /// Observes a process that reaches the API server and its registry through these proxies.
    pub async fn measure(
        pid: u32,
        api: &Interceptor,
        registry: &Interceptor,
        window: Duration,
    ) -> Self {
        let (api_mark, registry_mark) = (api.mark(), registry.mark());
        let used = usage::processor_time(pid).unwrap();
        tokio::time::sleep(window).await;
        Self {
            window,
            resident: usage::resident_bytes(pid).unwrap(),
            processor_time: usage::processor_time(pid).unwrap().saturating_sub(used),
            api_requests: api.since(api_mark).len(),
            api_writes: api.writes_since(api_mark),
            registry_requests: registry.since(registry_mark).len(),
        }
    }

    pub fn registry_requests_per_minute(&self) -> f64 {
        per_minute(self.registry_requests, self.window)
    }

    /// How many times as much memory and processor time a peer needs.
    pub fn ratios(&self, peer: &Self) -> String {
        #[allow(clippy::cast_precision_loss)] // resident memory is far below 2^52 bytes
        let memory = ratio(peer.resident as f64, self.resident as f64);
        let processor = ratio(
            peer.processor_time.as_secs_f64(),
            self.processor_time.as_secs_f64(),
        );
        format!("memory {memory}, processor {processor}")
    }

    pub fn measurements(&self, what: &str) -> [Measurement; 2] {
        let share = 100.0 * share(self.processor_time, self.window);
        let (memory, window) = (megabytes(self.resident), self.window.as_secs());
        let own = format!("{memory} resident, {share:.2} % of a processor over {window} s");
        let (requests, writes) = (self.api_requests, self.api_writes.len());
        let kinds = counts_by_kind(&self.api_writes);
        let api = format!("{requests} requests, {writes} of them writes{kinds}, in {window} s");
        [
            Measurement::new(format!("{what}, idle"), own),
            Measurement::new(format!("{what}, idle: cost to the API server"), api),
        ]
    }
}

/// Writes by method and kind, in parentheses.
fn counts_by_kind(writes: &[Request]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for write in writes {
        *counts
            .entry(format!("{} {}", write.method, kind_of(&write.path)))
            .or_default() += 1;
    }
    if counts.is_empty() {
        return String::new();
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    format!(" ({})", counts.join(", "))
}

#[allow(clippy::cast_precision_loss)] // there are far fewer than 2^52 requests
fn per_minute(requests: usize, window: Duration) -> f64 {
    requests as f64 / minutes(window)
}

fn minutes(window: Duration) -> f64 {
    window.as_secs_f64() / MINUTE.as_secs_f64()
}

/// The ratio as text; a lower bound if our own figure is below one step.
pub fn ratio(peer: f64, own: f64) -> String {
    let ratio = peer / own.max(PROCESSOR_STEP);
    let digits = if ratio < 10.0 {
        format!("{ratio:.1}")
    } else {
        format!("{ratio:.0}")
    };
    if own < PROCESSOR_STEP {
        format!("> {digits}")
    } else {
        digits
    }
}

/// Waits until nothing was written through this proxy for a while.
pub async fn wait_until_quiet(api: &Interceptor) {
    let deadline = Instant::now() + TIMEOUT * 3;
    loop {
        let mark = api.mark();
        tokio::time::sleep(QUIET).await;
        if api.writes_since(mark).is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "the controller still writes after {:?}",
            TIMEOUT * 3
        );
    }
}
