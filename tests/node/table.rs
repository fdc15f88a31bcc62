//! The results of the scenarios as a table.
//!
//! Absent: assertions about them.

use std::fmt::Write;

use pointsman_env::load::Tally;

/// A scenario and the results of its requests.
pub struct Row {
    pub scenario: &'static str,
    pub tally: Tally,
    /// Other measurements, as text.
    pub remark: String,
}

pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<44} {:>8} {:>7} {:>8}  answered by\n",
        "scenario", "requests", "failed", "seconds"
    );
    for Row {
        scenario,
        tally,
        remark,
    } in rows
    {
        let versions = tally
            .answered_by
            .iter()
            .map(|(version, count)| format!("{version}: {count}"));
        let versions = versions.collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            text,
            "{scenario:<44} {:>8} {:>7} {:>8.1}  {versions}",
            tally.sent, tally.failed, tally.seconds
        );
        if !remark.is_empty() {
            let _ = writeln!(text, "    {remark}");
        }
    }
    text
}
