//! A `CronJob`'s schedule: five fields, as times that a clock on the wall shows.
//!
//! Absent: time zones, and with them instants; see `windows`.

use std::ops::RangeInclusive;

use jiff::civil::{Date, DateTime, Time, date};

/// A schedule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cron {
    minutes: CronField,
    hours: CronField,
    days: CronField,
    months: CronField,
    weekdays: CronField,
}

/// The values of a field, one bit each.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct CronField {
    bits: u64,
    /// Whether it holds all values, written `*` or `?`.
    is_any: bool,
}

impl CronField {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits >> value & 1 == 1)
    }

    /// The first value that is no less than this one.
    fn first_from(self, least: i8, most: i8) -> Option<i8> {
        (least..=most).find(|value| self.has(*value))
    }
}

/// A field's name, its range and the names of its values.
struct FieldKind {
    name: &'static str,
    range: RangeInclusive<i8>,
    /// The first name stands for the first value.
    names: &'static [&'static str],
}

const MINUTE: FieldKind = FieldKind {
    name: "minute",
    range: 0..=59,
    names: &[],
};
const HOUR: FieldKind = FieldKind {
    name: "hour",
    range: 0..=23,
    names: &[],
};
const DAY: FieldKind = FieldKind {
    name: "day of the month",
    range: 1..=31,
    names: &[],
};
const MONTH: FieldKind = FieldKind {
    name: "month",
    range: 1..=12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
/// Sunday is 0, and 7.
const WEEKDAY: FieldKind = FieldKind {
    name: "day of the week",
    range: 0..=7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Cron {
    /// Reads a schedule.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!("it has {} fields in place of 5", fields.len()));
        };
        let mut weekdays = WEEKDAY.parse(weekdays)?;
        weekdays.bits |= weekdays.bits >> 7;
        let cron = Self {
            minutes: MINUTE.parse(minutes)?,
            hours: HOUR.parse(hours)?,
            days: DAY.parse(days)?,
            months: MONTH.parse(months)?,
            weekdays,
        };
        // Nine years hold a 29 February, also around a year such as 2100.
        match cron.first(
            date(2000, 1, 1).at(0, 0, 0, 0),
            date(2009, 1, 1).at(0, 0, 0, 0),
        ) {
            Some(_) => Ok(cron),
            None => Err("such a day never comes".to_owned()),
        }
    }

    /// The first time of the schedule that is not before `from` and is before `until`.
    #[must_use]
    pub fn first(&self, from: DateTime, until: DateTime) -> Option<DateTime> {
        let mut day = from.date();
        let mut least = whole_minute(from.time());
        while day.at(0, 0, 0, 0) < until {
            if self.has_day(day)
                && let Some((hour, minute)) = least.and_then(|least| self.first_time(least))
            {
                let found = day.at(hour, minute, 0, 0);
                return (found < until).then_some(found);
            }
            day = day.tomorrow().ok()?;
            least = Some((0, 0));
        }
        None
    }

    fn first_time(&self, (hour, minute): (i8, i8)) -> Option<(i8, i8)> {
        if self.hours.has(hour)
            && let Some(minute) = self.minutes.first_from(minute, 59)
        {
            return Some((hour, minute));
        }
        let hour = self.hours.first_from(hour + 1, 23)?;
        Some((hour, self.minutes.first_from(0, 59)?))
    }

    /// If both the day of the month and that of the week are restricted, one of them is enough.
    fn has_day(&self, day: Date) -> bool {
        let of_month = self.days.has(day.day());
        let of_week = self.weekdays.has(day.weekday().to_sunday_zero_offset());
        let is_day = if self.days.is_any || self.weekdays.is_any {
            of_month && of_week
        } else {
            of_month || of_week
        };
        is_day && self.months.has(day.month())
    }
}

/// The first whole minute that is not before a time; `None` if it is on the next day.
fn whole_minute(time: Time) -> Option<(i8, i8)> {
    let (hour, minute) = (time.hour(), time.minute());
    if time.second() == 0 && time.subsec_nanosecond() == 0 {
        return Some((hour, minute));
    }
    match (hour, minute) {
        (23, 59) => None,
        (hour, 59) => Some((hour + 1, 0)),
        (hour, minute) => Some((hour, minute + 1)),
    }
}

impl FieldKind {
    fn parse(&self, text: &str) -> Result<CronField, String> {
        let mut field = CronField::default();
        for part in text.split(',') {
            let parsed = self.parse_part(part);
            let parsed = parsed.ok_or_else(|| {
                let (first, last) = (self.range.start(), self.range.end());
                format!("{part:?} is no {} from {first} to {last}", self.name)
            })?;
            field.bits |= parsed.bits;
            field.is_any |= parsed.is_any;
        }
        Ok(field)
    }

    /// `*`, `5`, `1-5`, each with `/2` behind it or not.
    fn parse_part(&self, part: &str) -> Option<CronField> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(parse_number(step).filter(|step| *step > 0)?)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (*self.range.start(), *self.range.end()),
            Some((first, last)) => (self.value(first)?, self.value(last)?),
            None if step.is_some() => (self.value(range)?, *self.range.end()),
            None => (self.value(range)?, self.value(range)?),
        };
        if first > last {
            return None;
        }
        let mut field = CronField {
            bits: 0,
            is_any: matches!(range, "*" | "?") && step.is_none_or(|step| step == 1),
        };
        for value in (first..=last).step_by(usize::try_from(step.unwrap_or(1)).ok()?) {
            field.bits |= 1_u64.checked_shl(u32::try_from(value).ok()?)?;
        }
        Some(field)
    }

    fn value(&self, text: &str) -> Option<i8> {
        let name = text.to_ascii_lowercase();
        let named = self.names.iter().position(|each| *each == name);
        let value = match named {
            Some(position) => self.range.start() + i8::try_from(position).ok()?,
            None => parse_number(text)?,
        };
        self.range.contains(&value).then_some(value)
    }
}

/// Digits only: `str::parse` would take a sign.
fn parse_number(text: &str) -> Option<i8> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first times from a Wednesday on.
    fn times(schedule: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(schedule).expect("a schedule");
        let mut from = date(2026, 11, 25).at(12, 30, 0, 0);
        let until = date(2036, 1, 1).at(0, 0, 0, 0);
        let mut found = Vec::new();
        while found.len() < count {
            let next = cron.first(from, until).expect("a time");
            found.push(next.strftime("%m-%d %H:%M").to_string());
            from = next
                .checked_add(jiff::Span::new().seconds(1))
                .expect("in range");
        }
        found
    }

    #[test]
    fn fields_are_values_lists_ranges_steps_and_names() {
        let rows: [(&str, &[&str]); 10] = [
            ("* * * * *", &["11-25 12:30", "11-25 12:31"]),
            (
                "0 9 * * 1-5",
                &["11-26 09:00", "11-27 09:00", "11-30 09:00"],
            ),
            (
                "0 9 * * mon-FRI",
                &["11-26 09:00", "11-27 09:00", "11-30 09:00"],
            ),
            (
                "*/20 13 * * *",
                &["11-25 13:00", "11-25 13:20", "11-25 13:40", "11-26 13:00"],
            ),
            (
                "5/25 13 ? * ?",
                &["11-25 13:05", "11-25 13:30", "11-25 13:55", "11-26 13:05"],
            ),
            (
                "10-30/10,59 23 * * *",
                &["11-25 23:10", "11-25 23:20", "11-25 23:30", "11-25 23:59"],
            ),
            ("0 0 1 jan,MAR *", &["01-01 00:00", "03-01 00:00"]),
            ("0 0 * * 7", &["11-29 00:00", "12-06 00:00"]),
            ("0 0 * * 0", &["11-29 00:00", "12-06 00:00"]),
            ("0 0 29 2 *", &["02-29 00:00", "02-29 00:00"]),
        ];
        for (schedule, expected) in rows {
            assert_eq!(times(schedule, expected.len()), expected, "{schedule}");
        }
    }

    #[test]
    fn a_day_matches_by_either_field_if_both_are_restricted_as_in_a_cron_job() {
        let rows: [(&str, &[&str]); 4] = [
            ("0 0 1 * 5", &["11-27 00:00", "12-01 00:00", "12-04 00:00"]),
            ("0 0 * * 5", &["11-27 00:00", "12-04 00:00"]),
            ("0 0 1 * *", &["12-01 00:00", "01-01 00:00"]),
            // A step is a restriction.
            (
                "0 0 */10 * 5",
                &["11-27 00:00", "12-01 00:00", "12-04 00:00", "12-11 00:00"],
            ),
        ];
        for (schedule, expected) in rows {
            assert_eq!(times(schedule, expected.len()), expected, "{schedule}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_schedule_is_said() {
        let rows = [
            ("0 9 * *", "it has 4 fields in place of 5"),
            ("0 9 * * 1-5 2026", "it has 6 fields in place of 5"),
            ("60 9 * * *", "\"60\" is no minute from 0 to 59"),
            ("0 9-8 * * *", "\"9-8\" is no hour from 0 to 23"),
            ("0 9 0 * *", "\"0\" is no day of the month from 1 to 31"),
            ("0 9 * foo *", "\"foo\" is no month from 1 to 12"),
            ("0 9 * * 8", "\"8\" is no day of the week from 0 to 7"),
            ("*/0 9 * * *", "\"*/0\" is no minute from 0 to 59"),
            ("+1 9 * * *", "\"+1\" is no minute from 0 to 59"),
            ("1, 9 * * *", "\"\" is no minute from 0 to 59"),
            ("0 0 31 2 *", "such a day never comes"),
        ];
        for (schedule, expected) in rows {
            assert_eq!(
                Cron::parse(schedule),
                Err(expected.to_owned()),
                "{schedule}"
            );
        }
    }
}
