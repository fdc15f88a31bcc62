//! With `spec.promotion.windows`, versions go forward only while one of them is open.
//!
//! Absent: the end of a window. A rollout that has begun goes on.

use super::{Gate, GateInput, Verdict};
use crate::api::promotion::Window;
use crate::api::reason::Problem;
use crate::api::{AliasBinding, Reason};
use crate::rollout::messages::Note;
use crate::rollout::windows::{Opening, Schedule};

/// The gate.
pub const GATE: Gate = Gate {
    name: "windowOpen",
    check,
    also_for_same_version: false,
    yields: true,
    invalid,
};

fn windows(binding: &AliasBinding) -> &[Window] {
    let promotion = binding.spec.promotion.as_ref();
    promotion.map_or(&[], |promotion| promotion.windows.as_slice())
}

fn schedules(binding: &AliasBinding) -> Result<Vec<Schedule>, Problem> {
    let mut schedules = Vec::new();
    for (position, window) in windows(binding).iter().enumerate() {
        let schedule = Schedule::of(window).map_err(|error| {
            let message = format!("spec.promotion.windows[{position}]: {error}: correct it");
            Problem::new(Reason::InvalidSpec, message)
        })?;
        schedules.push(schedule);
    }
    Ok(schedules)
}

fn invalid(binding: &AliasBinding) -> Option<Problem> {
    schedules(binding).err()
}

fn check(input: &GateInput<'_>) -> Verdict {
    let schedules = match schedules(input.binding) {
        Ok(schedules) if schedules.is_empty() => return Verdict::Pass,
        Ok(schedules) => schedules,
        Err(problem) => return Verdict::Wait(problem),
    };
    let mut next = None;
    for schedule in &schedules {
        match schedule.opening(input.now) {
            Opening::Open => return Verdict::Pass,
            Opening::At(start) if next.is_none_or(|(earlier, _)| start < earlier) => {
                next = Some((start, schedule));
            }
            Opening::At(_) | Opening::Never => {}
        }
    }
    let remedy = match next {
        Some((start, schedule)) => format!("it goes forward at {}", schedule.local(start)),
        None => "add one to spec.promotion.windows".to_owned(),
    };
    Verdict::Pause {
        reason: Reason::OutsideWindow,
        note: Note {
            cause: "no window of spec.promotion.windows is open".to_owned(),
            remedy,
        },
        until: next.map(|(start, _)| start),
    }
}
