//! Goals and figures as a table, for the terminal and for docs/performance.md.
//!
//! Absent: causes. They are written by hand below the mark in that file, which is kept.

use std::fs;
use std::path::Path;

use jiff::Timestamp;

/// What stands below it in docs/performance.md is kept.
const MARK: &str = "<!-- Written by make bench up to here. -->";

/// What is wished, what was measured, and whether the one meets the other.
pub struct Goal {
    what: String,
    wished: String,
    figure: String,
    /// How many times it was measured; the figure tells the spread of several.
    runs: usize,
    met: Option<bool>,
}

impl Goal {
    pub fn checked(what: impl Into<String>, goal: &str, figure: String, met: bool) -> Self {
        Self {
            what: what.into(),
            wished: goal.to_owned(),
            figure,
            runs: 1,
            met: Some(met),
        }
    }

    /// A figure that has no goal, and explains the others.
    pub fn noted(what: impl Into<String>, figure: String) -> Self {
        Self {
            what: what.into(),
            wished: "-".to_owned(),
            figure,
            runs: 1,
            met: None,
        }
    }

    /// A figure of so many runs, or of so many moves within one.
    pub fn of_runs(self, runs: usize) -> Self {
        Self { runs, ..self }
    }

    /// The goal of a figure that does not tell whether it is met.
    pub fn against(self, goal: &str) -> Self {
        Self {
            wished: goal.to_owned(),
            ..self
        }
    }

    fn cells(&self) -> [String; COLUMNS] {
        let met = self.met.map_or("-", |met| if met { "yes" } else { "NO" });
        [
            self.what.clone(),
            self.wished.clone(),
            self.figure.clone(),
            self.runs.to_string(),
            met.to_owned(),
        ]
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.cells().join(" | "))
    }
}

/// The machine and the moment.
pub struct Conditions {
    started: Timestamp,
    processor: String,
    cores: usize,
    memory: String,
    kernel: String,
    load_before: String,
    load_after: String,
}

impl Conditions {
    pub fn read() -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        Self {
            started: Timestamp::now(),
            processor: field("/proc/cpuinfo", "model name"),
            cores,
            memory: field("/proc/meminfo", "MemTotal"),
            kernel: line("/proc/sys/kernel/osrelease"),
            load_before: load(),
            load_after: String::new(),
        }
    }

    pub fn ended(&mut self) {
        self.load_after = load();
    }

    fn lines(&self) -> Vec<String> {
        vec![
            format!(
                "{} cores of {}, {} of memory, Linux {}",
                self.cores, self.processor, self.memory, self.kernel
            ),
            format!(
                "last run {}, each figure of as many runs as stand beside it; load average {} before and {} after it; figures of the same moment are of one run",
                self.moment(),
                self.load_before,
                self.load_after
            ),
        ]
    }

    /// When the run began, in UTC.
    fn moment(&self) -> String {
        self.started.strftime("%Y-%m-%d %H:%M").to_string()
    }
}

fn line(file: &str) -> String {
    fs::read_to_string(file)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_once(':'));
    found.map_or_else(
        || "unknown".to_owned(),
        |(_, value)| value.trim().to_owned(),
    )
}

/// The average of the last minute.
fn load() -> String {
    line("/proc/loadavg")
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}

pub struct Report {
    pub conditions: Conditions,
    pub goals: Vec<Goal>,
}

impl Report {
    /// Columns under each other, without marks.
    pub fn table(&self) -> String {
        let width = |column: usize| {
            self.goals
                .iter()
                .map(|goal| goal.cells()[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: [usize; COLUMNS] =
            std::array::from_fn(|column| width(column).max(HEADER[column].len()));
        let row = |cells: [String; COLUMNS]| {
            let padded = cells
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let rows = self.goals.iter().map(|goal| row(goal.cells()));
        let all: Vec<String> = self
            .conditions
            .lines()
            .into_iter()
            .chain([String::new(), row(header())])
            .chain(rows)
            .collect();
        all.join("\n")
    }

    /// Rewrites docs/performance.md down to the mark: all of it after a run of the whole, else the rows that were measured.
    pub fn write(&self, whole: bool) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
        let before = fs::read_to_string(&file).unwrap_or_default();
        let (table, kept) = before.split_once(MARK).unwrap_or(("", "\n"));
        let rows = if whole {
            self.rows()
        } else {
            merged(table, self.rows())
        };
        let folder = file.parent().expect("docs is a folder");
        fs::create_dir_all(folder).expect("docs can be made");
        fs::write(&file, format!("{}\n{MARK}{kept}", self.markdown(&rows)))
            .expect("docs/performance.md can be written");
        eprintln!("written: docs/performance.md");
    }

    fn rows(&self) -> Vec<String> {
        let moment = self.conditions.moment();
        self.goals
            .iter()
            .map(|goal| format!("| {} | {moment} |", goal.cells().join(" | ")))
            .collect()
    }

    fn markdown(&self, rows: &[String]) -> String {
        let conditions = self.conditions.lines().join("\n- ");
        let (header, marks) = (header().join(" | "), " --- |".repeat(COLUMNS + 1));
        format!(
            "{INTRODUCTION}\n- {conditions}\n\n| {header} | measured |\n|{marks}\n{}\n",
            rows.join("\n")
        )
    }
}

/// The rows of a table, those measured anew in the place of the old ones, and what is new at its end.
fn merged(table: &str, mut new: Vec<String>) -> Vec<String> {
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| ---");
    let old = table.lines().filter(is_row).skip(1).map(str::to_owned);
    let mut rows: Vec<String> = old
        .map(
            |row| match new.iter().position(|each| what_of(each) == what_of(&row)) {
                Some(at) => new.remove(at),
                None => row,
            },
        )
        .collect();
    rows.extend(new);
    rows
}

fn what_of(row: &str) -> Option<&str> {
    row.split(" | ").next()
}

const COLUMNS: usize = 5;
const HEADER: [&str; COLUMNS] = ["what", "goal", "figure", "runs", "met"];

fn header() -> [String; COLUMNS] {
    HEADER.map(str::to_owned)
}

const INTRODUCTION: &str = "# Performance

Measured by `make bench`: the release build, under the roles of the rendered chart, on a real control plane (kube-apiserver,
etcd, controllers, scheduler; pods played by kwok) and a real MLflow 3 server with SQLite, all on the one machine below.
*Patched* is the moment when a plain watch sees `pointsman.dev/model-version` change in the pod template. Times begin before
the alias is moved, or before the annotation `pointsman.dev/requested-at` or the webhook is sent. Requests and writes are counted
by reverse proxies that only the operator goes through; where time or memory is measured at scale, it speaks to the API server
itself. Processor time is that of `/proc/<pid>/stat`, in steps of 10 ms. *Runs* is how often a figure was measured, and the figure
tells the spread of several.

How cost grows with the number of bindings: [memory](growth-memory.svg), [requests to the registry](growth-requests.svg),
[a look](growth-look.svg), [a start](growth-start.svg), [a tenth of all aliases moved at once](growth-burst.svg).
";
