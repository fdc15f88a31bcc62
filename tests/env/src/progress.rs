//! Prints the progress of builds and starts: a bar on a terminal, plain lines elsewhere.
//! No log levels and no colours of its own: silence is the caller's choice, by not starting a task.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The longest silence of a task without a terminal: CI systems end silent jobs.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// One piece of work that is shown while it lasts.
pub struct Task {
    label: String,
    started: Instant,
    bar: Option<ProgressBar>,
    heartbeat: Option<Heartbeat>,
    finished: bool,
}

struct Heartbeat {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    done: bool,
    position: u64,
    length: u64,
}

impl Task {
    /// Starts showing `label`; `length` is the number of steps, or 0 if it is unknown.
    #[must_use]
    pub fn start(label: &str, length: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        if !terminal {
            line(&format!("{label} ..."));
        }
        Self {
            label: label.to_owned(),
            started: Instant::now(),
            bar: terminal.then(|| bar(label, length)),
            heartbeat: (!terminal).then(|| Heartbeat::start(label, length)),
            finished: false,
        }
    }

    /// One step further.
    pub fn advance(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.shared.0.lock().unwrap().position += 1;
        }
    }

    /// So many steps are done.
    pub fn reach(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        }
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.shared.0.lock().unwrap().position = position;
        }
    }

    /// Shows the present step if there is space for it.
    pub fn detail(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(detail.to_owned());
        }
    }

    /// Ends the task as done.
    pub fn done(mut self) {
        self.end("done");
    }

    fn end(&mut self, outcome: &str) {
        self.finished = true;
        self.heartbeat = None;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        line(&format!(
            "{}: {outcome} in {}",
            self.label,
            elapsed(self.started.elapsed())
        ));
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.finished {
            self.end("failed");
        }
    }
}

impl Heartbeat {
    fn start(label: &str, length: u64) -> Self {
        let shared = Arc::new((
            Mutex::new(State {
                length,
                ..State::default()
            }),
            Condvar::new(),
        ));
        let (label, seen, started) = (label.to_owned(), shared.clone(), Instant::now());
        std::thread::spawn(move || beat(&label, &seen, started));
        Self { shared }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.shared.0.lock().unwrap().done = true;
        self.shared.1.notify_all();
    }
}

fn beat(label: &str, shared: &(Mutex<State>, Condvar), started: Instant) {
    let (state, wake) = shared;
    let mut guard = state.lock().unwrap();
    while !guard.done {
        let (next, timeout) = wake.wait_timeout(guard, HEARTBEAT).unwrap();
        guard = next;
        if timeout.timed_out() && !guard.done {
            let share = if guard.length == 0 {
                String::new()
            } else {
                format!(" {}/{}", guard.position, guard.length)
            };
            line(&format!(
                "{label} ...{share} ({})",
                elapsed(started.elapsed())
            ));
        }
    }
}

fn bar(label: &str, length: u64) -> ProgressBar {
    let (bar, template) = if length == 0 {
        (
            ProgressBar::new_spinner(),
            "{spinner} {prefix} [{elapsed}] {wide_msg}",
        )
    } else {
        (
            ProgressBar::new(length),
            "{spinner} {prefix} [{elapsed}] {bar:30} {pos}/{len} {wide_msg}",
        )
    };
    let bar =
        bar.with_style(ProgressStyle::with_template(template).expect("the template is a constant"));
    bar.set_prefix(label.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn line(text: &str) {
    // A closed stderr is no reason to stop building.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn elapsed(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}
