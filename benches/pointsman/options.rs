//! The command line of `make bench`.
//!
//! Absent: environment variables, but for `POINTSMAN_BENCH_BINARY`, which environment.rs reads.

use std::time::Duration;

use clap::{Parser, ValueEnum};

const EXAMPLES: &str = "Examples:
  make bench                                        everything: about two hours on two cores
  make bench OPTIONS='--only moves,webhook'         two parts
  make bench OPTIONS='--only created --count 1000'  one part, smaller
  make bench OPTIONS='--only burst --write'         one part, with its rows of docs/performance.md
  make bench OPTIONS='--quick'                      tries every part in minutes; the figures mean nothing

POINTSMAN_BENCH_BINARY=<file> measures another build than target/release/pointsman.
A part prints its figures when it ends, so an interrupted run loses only the part that was running.
Timings are worth something only while nothing else uses the processors; see the load average in the output.";

/// Measures the release build against its performance goals.
#[derive(Debug, Parser)]
#[command(bin_name = "make bench", after_help = EXAMPLES, max_term_width = 120)]
pub struct Options {
    /// Parts to measure, separated by commas; all but `memory` by default
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Fewer moves and objects and a shorter idle time: to try the measurement itself
    #[arg(long, conflicts_with = "write")]
    pub quick: bool,
    /// Write the measured rows into docs/performance.md; with `growth`, also draw docs/growth-*.svg
    #[arg(long)]
    pub write: bool,
    /// Objects in `burst`, `refused`, `inference-services` and `plugin` and good rollouts in `false-alarms` (default 1000); objects in `created`, `created-from-templates` and `tenants` (default 10000)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Rounds of `burst` (default 3)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Numbers of bindings in `growth` and `memory`, separated by commas [default: 100,1000,10000]
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(10..))]
    sizes: Vec<u32>,
    /// Seconds for which bindings are observed in `settled`, `tenants`, `growth`, `refused` and `inference-services` [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(20..))]
    settled: Option<u64>,
    /// Repeats the random choices of a run of `false-alarms` [default: another one each time]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the benchmark, in the order in which parts run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// One alias moved → Deployment patched: on request and by polling (2 min)
    Moves,
    /// Webhook received → Deployment patched (4 min)
    Webhook,
    /// A version that crashes → rolled back (3 min)
    Failures,
    /// The same while registry and artifact store hang, with nine versions to go back to (4 min)
    HangingRollback,
    /// Leader killed → the other replica patches (2 min)
    Failover,
    /// The API server away for 60 s with a move pending: it answers 503, or never (4 min)
    ApiOutage,
    /// 100 settled bindings: writes, requests, memory (8 min)
    Settled,
    /// 40 registries whose responses are small and become large: memory, and moves of another registry (2 min)
    HostileRegistry,
    /// 1,000 connections that hold what they can: memory, probes, genuine deliveries (2 min)
    HostileConnections,
    /// Moves beside hostile neighbours, each kind alone, compared with none (15 min)
    Neighbours,
    /// 1,000 aliases moved at once, artifacts behind MLflow's proxy, beside a plain client (15 min)
    Burst,
    /// 10,000 models, Deployments and bindings created at once, beside a plain client (30 min)
    Created,
    /// The same with bindings that create their Deployments (25 min)
    CreatedFromTemplates,
    /// 50 watched models of a registry with up to 10,000 (5 min)
    FewOfMany,
    /// 1,000 bindings refused by a policy: requests after five minutes, and after it is lifted (15 min)
    Refused,
    /// 1,000 bindings of KServe's InferenceServices: memory, and writes while nothing is to do (10 min)
    InferenceServices,
    /// Gates: one evaluation, a tag that releases a version, and 10,000 bindings with ten gates (30 min)
    Gates,
    /// 1,000 good rollouts, and bad ones, while pods, nodes, quotas and the API are disturbed at random (25 min)
    FalseAlarms,
    /// `kubectl pointsman status` over 1,000 bindings, and the start-up of the plugin (2 min)
    Plugin,
    /// 10,000 settled bindings of 100 tenants: writes (30 min)
    Tenants,
    /// Flux's source-controller, Argo Rollouts and a timer for each model, with 1,000 objects each (25 min)
    Peers,
    /// 100, 1,000 and 10,000 bindings: memory, polls, start, a tenth moved at once (45 min)
    Growth,
    /// Only the memory of `growth`: a figure that a busy machine does not change (20 min)
    Memory,
}

impl Options {
    /// Reads the command line; ends the process with an explanation if it is not understood.
    pub fn from_command_line() -> Self {
        Self::parse()
    }

    pub fn includes(&self, part: Part) -> bool {
        if self.only.is_empty() {
            return part != Part::Memory;
        }
        self.only.contains(&part)
    }

    pub fn includes_any(&self, parts: &[Part]) -> bool {
        parts.iter().any(|part| self.includes(*part))
    }

    pub fn is_complete(&self) -> bool {
        !self.quick && self.only.is_empty()
    }

    /// The first value with `--quick`, else the second.
    pub fn quick_or<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The value of `--count`, or the default of a part.
    pub fn count_or(&self, quick: usize, full: usize) -> usize {
        self.count
            .map_or_else(|| self.quick_or(quick, full), to_usize)
    }

    pub fn rounds(&self) -> usize {
        self.rounds.map_or_else(|| self.quick_or(2, 3), to_usize)
    }

    /// Numbers of bindings in ascending order; there is at least one.
    pub fn sizes(&self) -> Vec<usize> {
        if self.sizes.is_empty() {
            return self.quick_or(vec![20, 60], vec![100, 1000, 10_000]);
        }
        let mut sizes: Vec<usize> = self.sizes.iter().copied().map(to_usize).collect();
        sizes.sort_unstable();
        sizes
    }

    /// The value of `--seed`, or one from the clock.
    pub fn seed(&self) -> u64 {
        let from_clock = || jiff::Timestamp::now().as_microsecond().unsigned_abs() % 1_000_000;
        self.seed.unwrap_or_else(from_clock)
    }

    pub fn settled(&self) -> Duration {
        Duration::from_secs(self.settled.unwrap_or_else(|| self.quick_or(30, 300)))
    }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).expect("32 bits fit")
}
