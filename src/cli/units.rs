//! Durations as kubectl prints them, and sizes.
//!
//! Absent: the clock. `now` is a parameter.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// The time since a moment, such as 5m30s or 3d; `<unknown>` if there is none.
pub fn since(moment: Option<&Time>, now: Timestamp) -> String {
    moment.map_or_else(
        || "<unknown>".to_owned(),
        |moment| seconds(now.as_second() - moment.0.as_second()),
    )
}

/// So many seconds, in the one or two largest units that matter.
pub fn seconds(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let two = |unit: i64, name: &str, small: i64, small_name: &str| {
        let rest = seconds % unit / small;
        if rest == 0 {
            format!("{}{name}", seconds / unit)
        } else {
            format!("{}{name}{rest}{small_name}", seconds / unit)
        }
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two(MINUTE, "m", 1, "s"),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two(HOUR, "h", MINUTE, "m"),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two(DAY, "d", HOUR, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(YEAR, "y", DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// A size, such as 12.3 MiB.
#[allow(clippy::cast_precision_loss)] // one decimal is shown
pub fn bytes(bytes: i64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return match unit {
                "B" => format!("{bytes} B"),
                _ => format!("{value:.1} {unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_short_as_kubectls() {
        for (number, expected) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (600, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (5 * HOUR + 12 * MINUTE, "5h12m"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (3 * DAY + 5 * HOUR, "3d5h"),
            (9 * DAY + 5 * HOUR, "9d"),
            (3 * YEAR + 4 * DAY, "3y4d"),
            (9 * YEAR, "9y"),
        ] {
            assert_eq!(seconds(number), expected, "{number}");
        }
    }

    #[test]
    fn sizes_have_one_decimal() {
        for (number, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (12_897_485, "12.3 MiB"),
            (5 << 40, "5.0 TiB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
    }
}
