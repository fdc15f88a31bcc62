//! Windows in which versions go forward: when they open and close, as instants.
//!
//! Absent: the system's time zones. The database is part of the program, so a release decides alike everywhere.

use std::sync::LazyLock;

use jiff::tz::{TimeZone, TimeZoneDatabase, TimeZoneTransition};
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::cron::Cron;
use crate::api::duration::parse_duration;
use crate::api::promotion::Window;

static TIME_ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// For how long a window is looked for: 29 February comes within it.
const HORIZON_HOURS: i64 = 9 * 366 * 24;

/// A window, ready to be asked.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    duration: SignedDuration,
}

/// Whether a window is open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Opening {
    /// It is open.
    Open,
    /// It opens at this instant.
    At(Timestamp),
    /// It does not open again.
    Never,
}

impl Schedule {
    /// Reads a window.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(window: &Window) -> Result<Self, String> {
        let cron = Cron::parse(&window.schedule)
            .map_err(|error| format!("schedule {:?}: {error}", window.schedule))?;
        let zone = TIME_ZONES
            .get(&window.time_zone)
            .map_err(|_| format!("there is no time zone {:?}", window.time_zone))?;
        let duration = parse_duration(&window.duration)
            .and_then(|duration| SignedDuration::try_from(duration).ok())
            .ok_or_else(|| format!("{:?} is no duration", window.duration))?;
        Ok(Self {
            cron,
            zone,
            duration,
        })
    }

    /// Whether the window is open now. It is at its first instant, and is not any more at its last.
    #[must_use]
    pub fn opening(&self, now: Timestamp) -> Opening {
        let earliest = now.checked_sub(self.duration).unwrap_or(Timestamp::MIN);
        match self.next_start(earliest) {
            Some(start) if start <= now => Opening::Open,
            Some(start) => Opening::At(start),
            None => Opening::Never,
        }
    }

    /// An instant as people in the window's time zone write it.
    #[must_use]
    pub fn local(&self, instant: Timestamp) -> String {
        let local = instant.to_zoned(self.zone.clone());
        let name = self.zone.iana_name().unwrap_or("UTC");
        format!("{} ({name})", local.strftime("%Y-%m-%d %H:%M %:z"))
    }

    /// The first start after an instant. The clock on the wall comes to a time of the schedule once, as a rule; twice if an hour is
    /// repeated; and never if it is skipped: then the window opens when the clock jumps.
    fn next_start(&self, after: Timestamp) -> Option<Timestamp> {
        let horizon = after
            .checked_add(HORIZON_HOURS.hours())
            .unwrap_or(Timestamp::MAX);
        let mut from = after.checked_add(1.nanosecond()).ok()?;
        let mut offset = self.zone.to_offset(from);
        let mut changes = self.zone.following(after);
        loop {
            let change = changes.next().filter(|change| change.timestamp() < horizon);
            let end = change
                .as_ref()
                .map_or(horizon, TimeZoneTransition::timestamp);
            let (wall, end_of_wall) = (offset.to_datetime(from), offset.to_datetime(end));
            if let Some(start) = self.cron.first(wall, end_of_wall) {
                return offset.to_timestamp(start).ok();
            }
            let next = change?.offset();
            if self
                .cron
                .first(end_of_wall, next.to_datetime(end))
                .is_some()
            {
                return Some(end);
            }
            (from, offset) = (end, next);
        }
    }
}

#[cfg(test)]
#[path = "windows_fuzz_tests.rs"]
mod fuzz_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn schedule(schedule: &str, duration: &str, zone: &str) -> Schedule {
        let window = Window {
            schedule: schedule.to_owned(),
            duration: duration.to_owned(),
            time_zone: zone.to_owned(),
        };
        Schedule::of(&window).expect("a window")
    }

    /// The spans of time in which the window is open, in minutes, as `from..to` in UTC.
    fn open(window: &Schedule, from: &str, to: &str) -> Vec<String> {
        let (mut now, to) = (at(from), at(to));
        let mut spans = Vec::new();
        let mut since = None;
        while now <= to {
            let is_open = window.opening(now) == Opening::Open;
            match since {
                None if is_open => since = Some(now),
                Some(start) if !is_open => {
                    let short = |at: Timestamp| at.strftime("%d %H:%M").to_string();
                    spans.push(format!("{}..{}", short(start), short(now)));
                    since = None;
                }
                _ => {}
            }
            now = now.checked_add(1.minute()).expect("in range");
        }
        spans
    }

    /// Schedule, duration, time zone, the hours in UTC that are looked at, and when the window is open in them.
    const CHANGES_OF_THE_CLOCK: &str = "
        Berlin: at 01:00 UTC the clock jumps from 02:00 to 03:00.
        30 1 * * *  | 15m | Europe/Berlin       | 2026-03-28T22 | 2026-03-29T06 | 29 00:30..29 00:45
        30 2 * * *  | 15m | Europe/Berlin       | 2026-03-28T22 | 2026-03-29T06 | 29 01:00..29 01:15
        0 3 * * *   | 15m | Europe/Berlin       | 2026-03-28T22 | 2026-03-29T06 | 29 01:00..29 01:15
        0 2,3 * * * | 15m | Europe/Berlin       | 2026-03-28T22 | 2026-03-29T06 | 29 01:00..29 01:15
        0 1 * * *   | 2h  | Europe/Berlin       | 2026-03-28T22 | 2026-03-29T06 | 29 00:00..29 02:00
        Berlin: at 01:00 UTC the clock goes back from 03:00 to 02:00.
        30 2 * * *  | 15m | Europe/Berlin       | 2026-10-24T22 | 2026-10-25T06 | 25 00:30..25 00:45, 25 01:30..25 01:45
        0 2 * * *   | 1h  | Europe/Berlin       | 2026-10-24T22 | 2026-10-25T06 | 25 00:00..25 02:00
        0 3 * * *   | 15m | Europe/Berlin       | 2026-10-24T22 | 2026-10-25T06 | 25 02:00..25 02:15
        New York: at 07:00 UTC from 02:00 to 03:00, and at 06:00 UTC from 02:00 to 01:00.
        59 2 * * *  | 15m | America/New_York    | 2026-03-08T04 | 2026-03-08T12 | 08 07:00..08 07:15
        0 1 * * 0   | 15m | America/New_York    | 2026-11-01T04 | 2026-11-01T12 | 01 05:00..01 05:15, 01 06:00..01 06:15
        0 2 * * 0   | 15m | America/New_York    | 2026-11-01T04 | 2026-11-01T12 | 01 07:00..01 07:15
        Lord Howe Island: half an hour. At 15:30 UTC from 02:00 to 02:30, and at 15:00 UTC from 02:00 to 01:30.
        15 2 * * *  | 5m  | Australia/Lord_Howe | 2026-10-03T12 | 2026-10-03T20 | 03 15:30..03 15:35
        45 1 * * *  | 5m  | Australia/Lord_Howe | 2026-04-04T12 | 2026-04-04T20 | 04 14:45..04 14:50, 04 15:15..04 15:20
        ";

    #[test]
    fn a_window_follows_the_clock_on_the_wall_over_both_changes_of_it() {
        let mut rows = 0;
        for line in CHANGES_OF_THE_CLOCK.lines() {
            let columns: Vec<&str> = line.split('|').map(str::trim).collect();
            let [cron, duration, zone, from, to, expected] = columns[..] else {
                continue;
            };
            let (from, to) = (format!("{from}:00:00Z"), format!("{to}:00:00Z"));
            let spans = open(&schedule(cron, duration, zone), &from, &to);
            assert_eq!(spans.join(", "), expected, "{line}");
            rows += 1;
        }
        assert_eq!(rows, 13);
    }

    #[test]
    fn a_window_of_each_minute_is_always_open() {
        let window = schedule("* * * * *", "1m", "Europe/Berlin");
        let mut now = at("2026-10-25T00:00:30Z");
        while now < at("2026-10-25T03:00:00Z") {
            assert_eq!(window.opening(now), Opening::Open, "{now}");
            now = now.checked_add(31.seconds()).expect("in range");
        }
    }

    #[test]
    fn a_window_opens_at_its_first_instant_and_is_closed_at_its_last() {
        let window = schedule("0 9 * * 1-5", "8h", "Europe/Berlin");
        let opening = |instant| window.opening(at(instant));
        let (monday, tuesday) = (at("2026-11-23T08:00:00Z"), at("2026-11-24T08:00:00Z"));
        assert_eq!(opening("2026-11-21T12:00:00Z"), Opening::At(monday));
        assert_eq!(
            opening("2026-11-23T07:59:59.999999999Z"),
            Opening::At(monday)
        );
        assert_eq!(opening("2026-11-23T08:00:00Z"), Opening::Open);
        assert_eq!(opening("2026-11-23T15:59:59.999999999Z"), Opening::Open);
        assert_eq!(opening("2026-11-23T16:00:00Z"), Opening::At(tuesday));
        assert_eq!(
            window.local(tuesday),
            "2026-11-24 09:00 +01:00 (Europe/Berlin)"
        );
    }

    #[test]
    fn a_window_that_is_longer_than_its_period_never_closes() {
        let window = schedule("0 */6 * * *", "7h", "UTC");
        assert_eq!(
            open(&window, "2026-11-23T00:00:00Z", "2026-11-25T00:00:00Z"),
            Vec::<String>::new()
        );
        assert_eq!(window.opening(at("2026-11-23T05:59:59Z")), Opening::Open);
    }

    #[test]
    fn what_is_wrong_with_a_window_is_said() {
        let wrong = |schedule: &str, duration: &str, zone: &str| {
            let window = Window {
                schedule: schedule.to_owned(),
                duration: duration.to_owned(),
                time_zone: zone.to_owned(),
            };
            Schedule::of(&window).err().unwrap_or_default()
        };
        assert_eq!(
            [
                wrong("0 25 * * *", "1h", "UTC"),
                wrong("0 9 * * *", "1h", "Europe/Berlni"),
                wrong("0 9 * * *", "an hour", "UTC")
            ],
            [
                "schedule \"0 25 * * *\": \"25\" is no hour from 0 to 23",
                "there is no time zone \"Europe/Berlni\"",
                "\"an hour\" is no duration"
            ]
        );
    }
}
