//! Moments as people write them: `2026-11-24 03:00`, `yesterday 03:00`, `tuesday 15:00`, `9h`.
//!
//! Absent: the clock. `now` is a parameter, and its time zone is the one that times are meant in.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Zoned};

/// The moment that the words name, in the past as seen from `now`.
///
/// # Errors
/// What can be written instead.
pub fn parse(words: &str, now: &Zoned) -> Result<Timestamp, String> {
    let words = words.trim().to_lowercase();
    let moment = read(&words, now).ok_or_else(|| {
        format!(
            "{words:?} is no moment: write 2026-11-24T03:00:00Z, \"2026-11-24 03:00\", \"yesterday 03:00\", \"tuesday 03:00\", \
             03:00, or how long ago: 9h, 2d"
        )
    })?;
    if moment > now.timestamp() {
        return Err(format!(
            "{} is not past yet",
            local(moment, now.time_zone())
        ));
    }
    Ok(moment)
}

fn read(words: &str, now: &Zoned) -> Option<Timestamp> {
    // Its T and Z may be written small.
    if let Ok(exact) = words.to_uppercase().parse::<Timestamp>() {
        return Some(exact);
    }
    if words == "now" {
        return Some(now.timestamp());
    }
    // Without a unit, such as 03:00:00, it is a time of the day.
    let has_unit = words.contains(|c: char| c.is_ascii_alphabetic());
    if let (true, Ok(ago)) = (has_unit, words.trim_end_matches(" ago").parse::<Span>()) {
        return Some(now.checked_sub(ago.abs()).ok()?.timestamp());
    }
    if let Ok(time) = words.parse::<DateTime>() {
        return at(time, now);
    }
    if let Ok(time) = words.parse::<Time>() {
        let today = at(now.date().to_datetime(time), now)?;
        if today <= now.timestamp() {
            return Some(today);
        }
        return at(now.date().yesterday().ok()?.to_datetime(time), now);
    }
    let (day, time) = words.split_once(' ').unwrap_or((words, "00:00"));
    let time: Time = time.trim_start_matches("at ").parse().ok()?;
    at(day_named(day, now.date())?.to_datetime(time), now)
}

fn at(time: DateTime, now: &Zoned) -> Option<Timestamp> {
    let zoned = time.to_zoned(now.time_zone().clone());
    Some(zoned.ok()?.timestamp())
}

/// Today, yesterday, or the last day of this name, which is before today.
fn day_named(word: &str, today: Date) -> Option<Date> {
    let weekday = match word {
        "today" => return Some(today),
        "yesterday" => return today.yesterday().ok(),
        "monday" => Weekday::Monday,
        "tuesday" => Weekday::Tuesday,
        "wednesday" => Weekday::Wednesday,
        "thursday" => Weekday::Thursday,
        "friday" => Weekday::Friday,
        "saturday" => Weekday::Saturday,
        "sunday" => Weekday::Sunday,
        _ => return None,
    };
    let days = match today.weekday().since(weekday) {
        0 => 7,
        days => days,
    };
    today.checked_sub(i64::from(days).days()).ok()
}

/// A moment in a time zone, to the second, such as 2026-11-24 03:00:00.
pub fn local(moment: Timestamp, zone: &TimeZone) -> String {
    let zoned = moment.to_zoned(zone.clone());
    zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The same with the time zone, such as 2026-11-24 03:00:00 +01:00.
pub fn local_with_zone(moment: Timestamp, zone: &TimeZone) -> String {
    let zoned = moment.to_zoned(zone.clone());
    zoned.strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Wednesday in Berlin, an hour ahead of UTC.
    fn now() -> Zoned {
        "2026-11-25T12:30:00+01:00[Europe/Berlin]".parse().unwrap()
    }

    #[test]
    fn moments_are_read_as_people_write_them() {
        for (words, expected) in [
            ("2026-11-24T02:00:00Z", "2026-11-24T02:00:00Z"),
            ("2026-11-24t02:00:00z", "2026-11-24T02:00:00Z"),
            ("2026-11-24T02:00:00+05:30", "2026-11-23T20:30:00Z"),
            ("2026-11-24 03:00", "2026-11-24T02:00:00Z"),
            ("2026-11-24T03:00:30", "2026-11-24T02:00:30Z"),
            ("2026-11-24", "2026-11-23T23:00:00Z"),
            ("yesterday 03:00", "2026-11-24T02:00:00Z"),
            ("Yesterday", "2026-11-23T23:00:00Z"),
            ("today 03:00", "2026-11-25T02:00:00Z"),
            ("tuesday 15:00", "2026-11-24T14:00:00Z"),
            ("wednesday 15:00", "2026-11-18T14:00:00Z"),
            ("sunday at 03:00", "2026-11-22T02:00:00Z"),
            ("03:00", "2026-11-25T02:00:00Z"),
            ("03:00:10", "2026-11-25T02:00:10Z"),
            ("23:00", "2026-11-24T22:00:00Z"),
            ("9h", "2026-11-25T02:30:00Z"),
            ("1h30m", "2026-11-25T10:00:00Z"),
            ("2d", "2026-11-23T11:30:00Z"),
            ("2 days ago", "2026-11-23T11:30:00Z"),
            ("now", "2026-11-25T11:30:00Z"),
        ] {
            let moment = parse(words, &now()).map(|moment| moment.to_string());
            assert_eq!(moment.as_deref(), Ok(expected), "{words}");
        }
    }

    #[test]
    fn a_day_is_a_day_also_when_the_clocks_change() {
        let monday = "2026-10-26T12:00:00+01:00[Europe/Berlin]".parse().unwrap();
        let moment = parse("1d", &monday).unwrap();
        assert_eq!(moment.to_string(), "2026-10-25T11:00:00Z");
        assert_eq!(
            parse("2d", &monday).unwrap().to_string(),
            "2026-10-24T10:00:00Z"
        );
    }

    #[test]
    fn what_is_no_moment_of_the_past_says_what_to_write() {
        for words in ["", "soon", "25:00", "2026-13-01", "yesterday noon"] {
            let error = parse(words, &now()).unwrap_err();
            assert!(error.contains("yesterday 03:00"), "{words}: {error}");
        }
        assert_eq!(
            parse("2026-11-26", &now()).unwrap_err(),
            "2026-11-26 00:00:00 is not past yet"
        );
    }
}
