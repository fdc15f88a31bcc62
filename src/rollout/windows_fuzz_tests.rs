//! Windows and durations as people may write them.
//!
//! Absent: what admission refuses. More than it lets through is tried.

use super::*;
use crate::testing::at;
use crate::testing::fuzz::Fuzz;

/// Times at which a window is asked: the borders, and both changes of the clock in Europe.
const MOMENTS: [&str; 5] = [
    "-009999-01-02T02:00:00Z",
    "2026-03-29T00:59:59Z",
    "2026-10-25T00:30:00.5Z",
    "2028-02-29T23:59:59.999999999Z",
    "9999-12-30T21:00:00Z",
];

#[test]
fn no_duration_breaks_the_parser() {
    let fuzz = Fuzz {
        name: "durations",
        words: &["h", "m", "s", "ms", "99999h", "1h", "-"],
        generate: None,
        accepted_of: 20,
    };
    fuzz.run(|input| {
        let Ok(text) = std::str::from_utf8(input) else {
            return false;
        };
        let parsed = parse_duration(text);
        assert!(parsed.is_none_or(|duration| !duration.is_zero()));
        parsed.is_some()
    });
}

#[test]
fn no_window_breaks_the_search_for_its_opening() {
    let fuzz = Fuzz {
        name: "windows",
        words: &[
            "*",
            "*/7",
            "1-5",
            "0,30",
            "?",
            "sun",
            "feb",
            "744h",
            "1m",
            "Europe/Berlin",
            "America/Scoresbysund",
            "Africa/Casablanca",
            "Antarctica/Troll",
        ],
        generate: None,
        accepted_of: 20,
    };
    let mut number = 0;
    fuzz.run(|input| {
        let text = String::from_utf8_lossy(input);
        let mut lines = text.split('\n').map(str::to_owned);
        let mut line = || lines.next().unwrap_or_default();
        let window = Window {
            schedule: line(),
            duration: line(),
            time_zone: line(),
        };
        let Ok(schedule) = Schedule::of(&window) else {
            return false;
        };
        number += 1;
        let now = at(MOMENTS[number % MOMENTS.len()]);
        if let Opening::At(start) = schedule.opening(now) {
            assert!(start > now, "{window:?} at {now}");
            assert_eq!(schedule.opening(start), Opening::Open, "{window:?}");
            _ = schedule.local(start);
        }
        true
    });
}
