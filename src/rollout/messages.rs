//! Sentences for people that several steps share: a cause, and one remedy that works when it is copied.
//!
//! Absent: reasons. They are in `api::reason`.

use crate::api::conditions::{LONGEST_SENTENCE, shorten, with_remedy};
use crate::api::reason::Problem;
use crate::api::{AliasBinding, Reason, names};

/// The details that follow a remedy of any length, in characters.
const LEAST_DETAILS: usize = 100;

/// A problem with its cause and a remedy. The cause is cut if both are too long; the remedy never is.
pub fn problem(reason: Reason, cause: &str, remedy: &str) -> Problem {
    Problem::new(reason, with_remedy(cause, remedy))
}

/// A problem whose remedy comes before its details, for a message that is cut on its way, such as an Event's note. The
/// details are cut if both are too long; the remedy never is.
pub fn remedy_first(reason: Reason, remedy: &str, details: &str) -> Problem {
    let room = LONGEST_SENTENCE.saturating_sub(remedy.chars().count() + 2);
    let details = shorten(details, room.max(LEAST_DETAILS));
    Problem::new(reason, format!("{remedy}; {details}"))
}

/// What people should know beside the state of a workload that is well.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// The cause.
    pub cause: String,
    /// The remedy.
    pub remedy: String,
}

impl Note {
    /// A sentence with the note behind it.
    #[must_use]
    pub fn behind(&self, sentence: &str) -> String {
        let cause = format!("{sentence}; {}", self.cause);
        problem(Reason::Live, &cause, &self.remedy).message
    }
}

/// How a person has the registry's present address and the present location of the files written into the workload.
pub fn apply_command(binding: &AliasBinding) -> String {
    request(binding, "reapply", names::APPLY_ANNOTATION)
}

/// How a person has failed versions of a binding tried again.
pub fn retry_command(binding: &AliasBinding) -> String {
    request(binding, "retry", names::RETRY_ANNOTATION)
}

/// How a person ends the hold on a binding's workload.
pub fn resume_command(binding: &AliasBinding) -> String {
    request(binding, "resume", names::RESUME_ANNOTATION)
}

/// The plugin's command, and the annotation that it sets for those who do not have the plugin.
fn request(binding: &AliasBinding, command: &str, annotation: &str) -> String {
    format!(
        "kubectl pointsman {command} {} -n {} (or annotation {annotation})",
        name(binding),
        namespace(binding)
    )
}

/// The binding's name.
pub fn name(binding: &AliasBinding) -> &str {
    binding.metadata.name.as_deref().unwrap_or_default()
}

/// The binding's namespace.
pub fn namespace(binding: &AliasBinding) -> &str {
    binding.metadata.namespace.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_cause_is_cut_and_the_remedy_stays_whole() {
        let problem = problem(Reason::CrashLoop, &"x".repeat(500), "kubectl get pods");
        assert_eq!(problem.message.chars().count(), LONGEST_SENTENCE);
        assert!(problem.message.ends_with("…; kubectl get pods"));
    }

    #[test]
    fn a_remedy_that_comes_first_stays_whole_whatever_the_lengths() {
        let remedy = format!("to train version 3 again: commit {}", "c".repeat(300));
        let problem = remedy_first(Reason::NoRollbackTarget, &remedy, &"é".repeat(5000));
        assert!(problem.message.starts_with(&format!("{remedy}; é")));
        assert!(problem.message.chars().count() <= remedy.len() + 2 + LEAST_DETAILS);
    }
}
