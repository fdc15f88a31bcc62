//! Measurements as a table, for the terminal and for docs/performance.md.
//!
//! Absent: explanations. A figure that needs one has a name that says too little.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::durations::Figure;

/// Text below this line of docs/performance.md is written by hand, and kept.
const MARK: &str = "<!-- Written by make bench up to here. -->";

/// A wanted figure. `met` is `None` if the run was too short to decide.
#[derive(Debug, Clone)]
struct Goal {
    wanted: String,
    met: Option<bool>,
}

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Measurement {
    name: String,
    figure: Figure,
    runs: usize,
    goal: Option<Goal>,
    /// Whether docs/performance.md has the row; the terminal shows all.
    is_documented: bool,
}

impl Measurement {
    /// A figure without a goal, for the terminal only.
    pub fn new(name: impl Into<String>, figure: impl Into<Figure>) -> Self {
        let (name, figure) = (name.into(), figure.into());
        Self {
            name,
            figure,
            runs: 1,
            goal: None,
            is_documented: false,
        }
    }

    pub fn with_goal(self, goal: &str, met: bool) -> Self {
        self.compared_with(goal, Some(met))
    }

    /// A goal that this run was too short to prove.
    pub fn with_undecided_goal(self, goal: &str) -> Self {
        self.compared_with(goal, None)
    }

    fn compared_with(self, goal: &str, met: Option<bool>) -> Self {
        let wanted = goal.to_owned();
        Self {
            goal: Some(Goal { wanted, met }),
            is_documented: true,
            ..self
        }
    }

    /// For docs/performance.md too, without a goal: a floor or a comparison that explains others.
    pub fn documented(self) -> Self {
        Self {
            is_documented: true,
            ..self
        }
    }

    /// Not for docs/performance.md: a row of more objects stands for it.
    pub fn undocumented(self) -> Self {
        Self {
            is_documented: false,
            ..self
        }
    }

    /// The number of runs, or of moves within one run, that the figure was taken from.
    pub fn of_runs(self, runs: usize) -> Self {
        Self { runs, ..self }
    }

    fn cells(&self) -> [String; COLUMNS] {
        let wanted = self.goal.as_ref().map_or("-", |goal| &goal.wanted);
        let met = match self.goal.as_ref().and_then(|goal| goal.met) {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        [
            self.name.clone(),
            wanted.to_owned(),
            self.figure.value.clone(),
            self.figure.spread.clone(),
            self.runs.to_string(),
            met.to_owned(),
        ]
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.cells().join(" | "))
    }
}

/// The machine, and how busy it was.
pub struct Machine {
    started: Timestamp,
    processor: String,
    cores: usize,
    memory: String,
    kernel: String,
    load_before: String,
    load_after: String,
}

impl Machine {
    pub fn read() -> Self {
        Self {
            started: Timestamp::now(),
            processor: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory: field("/proc/meminfo", "MemTotal"),
            kernel: line("/proc/sys/kernel/osrelease"),
            load_before: load(),
            load_after: String::new(),
        }
    }

    pub fn run_ended(&mut self) {
        self.load_after = load();
    }

    fn description(&self) -> String {
        format!(
            "Machine: {} cores of {}, {} of memory, Linux {}.",
            self.cores, self.processor, self.memory, self.kernel
        )
    }

    fn last_run(&self) -> String {
        format!(
            "Last run: {} UTC; load average {} before it, {} after it.",
            self.moment(),
            self.load_before,
            self.load_after
        )
    }

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

/// The load average of the last minute.
fn load() -> String {
    line("/proc/loadavg")
        .split(' ')
        .next()
        .unwrap_or("unknown")
        .to_owned()
}

/// All measurements of a run.
pub struct Report {
    pub machine: Machine,
    pub measurements: Vec<Measurement>,
}

impl Report {
    /// Everything, for the terminal.
    pub fn table(&self) -> String {
        let mut lines = vec![
            self.machine.description(),
            self.machine.last_run(),
            String::new(),
        ];
        lines.push(row(&HEADER.map(str::to_owned)));
        lines.extend(self.measurements.iter().map(|each| row(&each.cells())));
        lines.join("\n")
    }

    /// Rewrites docs/performance.md above the mark: the whole table if everything was measured, else only the rows that were.
    pub fn write(&self, is_complete: bool) {
        let file = docs().join("performance.md");
        let before = fs::read_to_string(&file).unwrap_or_default();
        let (table, below) = before.split_once(MARK).unwrap_or(("", "\n"));
        let rows = if is_complete {
            self.documented_rows()
        } else {
            merged(table, self.documented_rows())
        };
        fs::create_dir_all(docs()).expect("the folder docs can be created");
        fs::write(&file, format!("{}\n{MARK}{below}", self.markdown(&rows)))
            .expect("docs/performance.md can be written");
        eprintln!("written: docs/performance.md");
    }

    fn documented_rows(&self) -> Vec<String> {
        let moment = self.machine.moment();
        let documented = self.measurements.iter().filter(|each| each.is_documented);
        documented
            .map(|each| format!("| {} | {moment} |", each.cells().join(" | ")))
            .collect()
    }

    fn markdown(&self, rows: &[String]) -> String {
        let (header, rule) = (HEADER.join(" | "), " --- |".repeat(COLUMNS + 1));
        let (machine, last_run) = (self.machine.description(), self.machine.last_run());
        let rows = rows.join("\n");
        let plots = plots();
        format!(
            "{INTRODUCTION}\n{machine} {last_run}\n{plots}\n| {header} | measured |\n|{rule}\n{rows}\n"
        )
    }
}

/// The rows of the old table, each replaced if it was measured again, then the new ones.
fn merged(table: &str, mut new: Vec<String>) -> Vec<String> {
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| ---");
    let mut rows = Vec::new();
    for old in table.lines().filter(is_row).skip(1) {
        match new.iter().position(|row| name_of(row) == name_of(old)) {
            Some(index) => rows.push(new.remove(index)),
            None => rows.push(old.to_owned()),
        }
    }
    rows.extend(new);
    rows
}

fn name_of(row: &str) -> Option<&str> {
    row.split(" | ").next()
}

fn row(cells: &[String]) -> String {
    cells.join(" | ")
}

/// The folder of docs/performance.md and of the plots.
pub fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Plots by file name, with the text of the link.
pub const PLOTS: [(&str, &str); 5] = [
    ("growth-memory.svg", "memory"),
    ("growth-requests.svg", "requests of one poll"),
    ("growth-poll.svg", "duration of one poll"),
    ("growth-start.svg", "start"),
    ("growth-burst.svg", "a tenth of all aliases moved at once"),
];

/// Links to the plots that there are.
fn plots() -> String {
    let existing = PLOTS.iter().filter(|(file, _)| docs().join(file).exists());
    let links: Vec<String> = existing
        .map(|(file, text)| format!("[{text}]({file})"))
        .collect();
    if links.is_empty() {
        return String::new();
    }
    format!(
        "\nGrowth with the number of bindings: {}.\n",
        links.join(", ")
    )
}

const COLUMNS: usize = 6;
const HEADER: [&str; COLUMNS] = ["measurement", "goal", "figure", "spread", "runs", "met"];

const INTRODUCTION: &str = "# Performance

The program of the image, under the RBAC of the chart, on a real control plane (kube-apiserver, etcd, controller manager, scheduler; kwok
plays the pods) and a real MLflow 3 server with SQLite, all on one machine. A Deployment counts as patched when a plain watch sees
`pointsman.dev/model-version` change in its pod template. A *floor* is the same work done by a plain client without the operator.
";
