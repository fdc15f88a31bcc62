//! What it costs to follow many objects while nothing happens: the follower itself, the API server, and the registry.
//!
//! Absent: who follows. Each is measured by its process and by the proxies that only it goes through.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pointsman_env::interceptor::{Interceptor, Request};
use pointsman_env::usage;

use crate::figures::megabytes;
use crate::fleet::share;
use crate::ground::{Ground, PATIENCE};
use crate::moves_at_once::kind_of;
use crate::report::Goal;

/// A cluster without writes for so long is settled.
const QUIET: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

/// What one way of following costs MLflow.
pub struct Cost {
    window: Duration,
    requests: usize,
    /// Processor time of the server and its workers.
    registry: Duration,
}

impl Cost {
    /// What goes through the proxy, and what the server uses meanwhile.
    pub async fn of(ground: &Ground, proxy: &Interceptor, window: Duration) -> Self {
        let (mark, used) = (proxy.mark(), ground.mlflow.processor_time().unwrap());
        tokio::time::sleep(window).await;
        let registry = ground.mlflow.processor_time().unwrap().saturating_sub(used);
        Self {
            window,
            requests: proxy.since(mark).len(),
            registry,
        }
    }

    pub fn requests_a_minute(&self) -> f64 {
        a_minute(self.requests, self.window)
    }

    pub fn registry_seconds_a_minute(&self) -> f64 {
        self.registry.as_secs_f64() / minutes(self.window)
    }

    pub fn told(&self) -> String {
        let (requests, seconds) = (self.requests_a_minute(), self.registry_seconds_a_minute());
        format!("{requests:.1} requests, {seconds:.2} s of a processor, each minute")
    }
}

/// What a controller with nothing to do costs.
pub struct Idle {
    window: Duration,
    pub resident: u64,
    used: Duration,
    requests: usize,
    writes: Vec<Request>,
    /// Requests to its registry.
    asked: usize,
}

impl Idle {
    /// Of the process that goes through these proxies to the API server and to its registry.
    pub async fn of(pid: u32, api: &Interceptor, registry: &Interceptor, window: Duration) -> Self {
        let (mark, asked, used) = (
            api.mark(),
            registry.mark(),
            usage::processor_time(pid).unwrap(),
        );
        tokio::time::sleep(window).await;
        Self {
            window,
            resident: usage::resident_bytes(pid).unwrap(),
            used: usage::processor_time(pid).unwrap().saturating_sub(used),
            requests: api.since(mark).len(),
            writes: api.writes_since(mark),
            asked: registry.since(asked).len(),
        }
    }

    pub fn asked_a_minute(&self) -> f64 {
        a_minute(self.asked, self.window)
    }

    /// How many times as much memory and processor the other one costs.
    pub fn ratios(&self, peer: &Self) -> String {
        #[allow(clippy::cast_precision_loss)] // far below 2^52 bytes
        let memory = times(peer.resident as f64, self.resident as f64);
        let processor = times(peer.used.as_secs_f64(), self.used.as_secs_f64());
        format!("memory {memory}, processor {processor}")
    }

    pub fn goals(&self, what: &str) -> [Goal; 2] {
        let share = 100.0 * share(self.used, self.window);
        let window = self.window.as_secs();
        let own = format!(
            "{} resident, {share:.2} % of a processor over {window} s",
            megabytes(self.resident)
        );
        let (writes, kinds) = (self.writes.len(), kinds_of(&self.writes));
        let api = format!(
            "{} requests, {writes} of them writes{kinds}, in {window} s",
            self.requests
        );
        [
            Goal::noted(format!("{what}, idle"), own),
            Goal::noted(format!("{what}, idle: cost to the API server"), api),
        ]
    }
}

/// What was written, and how often.
fn kinds_of(writes: &[Request]) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for write in writes {
        *kinds
            .entry(format!("{} {}", write.method, kind_of(&write.path)))
            .or_default() += 1;
    }
    let told: Vec<String> = kinds
        .iter()
        .map(|(kind, times)| format!("{kind} {times}"))
        .collect();
    if told.is_empty() {
        String::new()
    } else {
        format!(" ({})", told.join(", "))
    }
}

#[allow(clippy::cast_precision_loss)] // far fewer than 2^52 requests
fn a_minute(requests: usize, window: Duration) -> f64 {
    requests as f64 / minutes(window)
}

fn minutes(window: Duration) -> f64 {
    window.as_secs_f64() / MINUTE.as_secs_f64()
}

/// Processor time is counted in steps of 10 ms: below one there is no ratio, only a bound.
pub fn times(peer: f64, own: f64) -> String {
    const STEP: f64 = 0.01;
    let ratio = peer / own.max(STEP);
    let digits = if ratio < 10.0 {
        format!("{ratio:.1}")
    } else {
        format!("{ratio:.0}")
    };
    if own < STEP {
        format!("> {digits}")
    } else {
        digits
    }
}

/// Waits until nothing was written through this proxy for a while.
pub async fn comes_to_rest(api: &Interceptor) {
    let deadline = Instant::now() + PATIENCE * 3;
    loop {
        let mark = api.mark();
        tokio::time::sleep(QUIET).await;
        if api.writes_since(mark).is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "who is measured does not come to rest"
        );
    }
}
