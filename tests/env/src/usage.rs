//! Processor time and memory of a process, from `/proc`.
//!
//! Absent: rates. The caller reads twice and knows the time between.

use std::fs;
use std::time::Duration;

use crate::error::{Context, Error, Result};
use crate::supervisor::descendants;

/// Linux counts processor time for user space in hundredths of a second, on every architecture (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// The processor time that all threads of a process have used.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let what = format!("reading the processor time of process {pid}");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context(&what)?;
    used(&stat).ok_or_else(|| {
        Error::new(
            what,
            format_args!("/proc/{pid}/stat is not as expected: {stat}"),
        )
    })
}

/// The same with all processes below it; one that has just ended is left out.
pub fn processor_time_with_descendants(pid: u32) -> Duration {
    descendants(pid)
        .into_iter()
        .chain([pid])
        .filter_map(|pid| processor_time(pid).ok())
        .sum()
}

/// How much memory a process has resident.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmRSS:")
}

/// How much memory a process has had resident at most.
pub fn peak_resident_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, field: &str) -> Result<u64> {
    let what = format!("reading the memory of process {pid}");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context(&what)?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes
        .map(|kilobytes| kilobytes * 1024)
        .ok_or_else(|| Error::new(what, format_args!("there is no {field}")))
}

/// The 14th and 15th field: in user space, and in the kernel.
fn used(stat: &str) -> Option<Duration> {
    // The name in parentheses may hold anything, so the fields are counted from its last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(TICK * (user + system))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_kernel_time_are_added_whatever_the_name_is() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 99 0 0 0 120 30 0 0 20 0 3 0 5 1000 10";
        assert_eq!(used(stat), Some(Duration::from_millis(1500)));
        assert_eq!(used("7 (cut"), None);
        assert!(processor_time(std::process::id()).is_ok());
    }
}
