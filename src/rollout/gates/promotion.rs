//! The expressions of `spec.promotion.gates`: all must be true of a version before it goes forward.
//!
//! Absent: versions that were good before (`fast_rollback`), and those that a person chose. They pass unchecked.

use jiff::{SignedDuration, Timestamp};

use super::{Gate, GateInput, Verdict};
use crate::api::conditions::shorten;
use crate::api::promotion::{GateResult, GateState, PromotionGate};
use crate::api::reason::Problem;
use crate::api::{AliasBinding, Reason};
use crate::rollout::expressions::{Expression, ExpressionFault, Facts, Unknown, compile};
use crate::rollout::messages;

/// The gate.
pub const GATE: Gate = Gate {
    name: "promotion",
    check,
    also_for_same_version: false,
    yields: true,
    invalid: invalid_gate,
};

/// How soon an expression that reads the time is evaluated again.
const TIME_RETRY: SignedDuration = SignedDuration::from_secs(60);
/// The longest reason in a message, in characters.
const LONGEST_REASON: usize = 120;

/// The results of all expressions for one version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GateResults {
    /// The results, in the order of the spec.
    pub gates: Vec<GateState>,
    /// When they may be others although nothing has changed by then.
    pub look_again: Option<Timestamp>,
    /// Whether one that did not pass may pass by itself with time.
    is_waiting: bool,
}

fn check(input: &GateInput<'_>) -> Verdict {
    let Some(results) = evaluate(input) else {
        return Verdict::Pass;
    };
    if let Some(problem) = invalid_gate(input.binding) {
        return Verdict::Wait(problem);
    }
    let number = input.desired.number();
    let Some((first, sentence)) = hindrance(&results.gates) else {
        return Verdict::Pass;
    };
    let (name, namespace) = (
        messages::name(input.binding),
        messages::namespace(input.binding),
    );
    let problem = messages::problem(
        Reason::GateFailed,
        &format!("version {number} is not rolled out: {sentence}"),
        &format!("values: kubectl get abind {name} -n {namespace} -o yaml"),
    );
    if results.is_waiting {
        Verdict::Retry(problem)
    } else if first.result == GateResult::Failed {
        Verdict::Refuse(problem)
    } else {
        Verdict::Wait(problem)
    }
}

/// The first result that does not let a version pass, with a sentence about all that do not.
#[must_use]
pub fn hindrance(gates: &[GateState]) -> Option<(&GateState, String)> {
    let mut hindrances = gates
        .iter()
        .filter(|gate| gate.result != GateResult::Passed);
    let first = hindrances.next()?;
    let more = match hindrances.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let sentence = format!("gate {}: {}{more}", first.name, first.message);
    Some((first, sentence))
}

/// The results of a binding's expressions for the version that would go forward; `None` if there are none.
#[must_use]
pub fn evaluate(input: &GateInput<'_>) -> Option<GateResults> {
    let binding = input.binding;
    if binding.gates().is_empty() {
        return None;
    }
    let candidate = input.resolution.details.as_ref()?;
    let compared = input.resolution.compared.as_deref()?;
    let facts = Facts {
        candidate,
        current: compared.current.as_ref(),
        model: &compared.model,
        binding,
        now: input.now,
    };
    let mut results = GateResults::default();
    for gate in binding.gates() {
        let compiled = compile(&gate.expression);
        let Ok(expression) = compiled.as_ref() else {
            continue;
        };
        let state = evaluated(gate, expression, &facts);
        if expression.reads_time() {
            results.look_again = input.now.checked_add(TIME_RETRY).ok();
            results.is_waiting |= state.result != GateResult::Passed;
        }
        results.gates.push(state);
    }
    Some(results)
}

fn evaluated(gate: &PromotionGate, expression: &Expression, facts: &Facts<'_>) -> GateState {
    let (result, message) = match expression.is_true(facts) {
        Ok(true) => (GateResult::Passed, String::new()),
        Ok(false) => (GateResult::Failed, refusal(gate)),
        Err(Unknown::NoCurrent) => {
            let message = "there is no current version to compare with";
            (GateResult::Passed, message.to_owned())
        }
        Err(Unknown::Absent(reason) | Unknown::Because(reason)) => {
            (GateResult::Unknown, shorten(&reason, LONGEST_REASON))
        }
    };
    GateState {
        name: gate.name.clone(),
        version: facts.candidate.version.clone(),
        result: result.into(),
        message,
        values: expression.values(facts),
    }
}

/// The words for an expression that is false: those of the spec, or the expression.
fn refusal(gate: &PromotionGate) -> String {
    if let Some(message) = &gate.message {
        return message.clone();
    }
    let words = gate.expression.split_whitespace();
    let line = words.collect::<Vec<_>>().join(" ");
    format!("{} is false", shorten(&line, LONGEST_REASON))
}

/// The first expression that cannot be evaluated, whatever the version.
#[must_use]
pub fn invalid_gate(binding: &AliasBinding) -> Option<Problem> {
    let invalid = |gate: &PromotionGate| match compile(&gate.expression).as_ref() {
        Ok(_) => None,
        Err(fault) => Some(invalid(gate, fault)),
    };
    binding.gates().iter().find_map(invalid)
}

fn invalid(gate: &PromotionGate, fault: &ExpressionFault) -> Problem {
    let message = format!(
        "spec.promotion: gate {}: {fault}: correct its expression (docs/gates.md)",
        gate.name
    );
    Problem::new(Reason::InvalidSpec, message)
}

#[cfg(test)]
#[path = "promotion_tests.rs"]
mod tests;
