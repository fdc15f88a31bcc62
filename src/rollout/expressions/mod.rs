//! Expressions of gates, in CEL: parsed by a library, checked before they are evaluated, and evaluated in three values.
//!
//! Absent: gates. What a result means for a version is said in `gates`.

mod check;
mod evaluate;
mod node;
mod source;
mod types;
mod value;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use check::{Checked, check};
use evaluate::Evaluator;
pub use source::ExpressionFault;
use source::{fault_at, parse};
pub use value::{Facts, ModelFacts, Unknown};

use crate::api::conditions::shorten;
use crate::api::promotion::GateValue;

/// The most expressions that are kept. A cluster has a few, which many bindings share.
const MOST_KEPT: usize = 512;
/// The most values that are shown of an expression, and the longest of them, in characters.
const MOST_VALUES: usize = 12;
const LONGEST_VALUE: usize = 100;

/// An expression that is true or false of a version.
#[derive(Debug)]
pub struct Expression(Checked);

/// An expression, or its fault.
pub type Compiled = Arc<Result<Expression, ExpressionFault>>;

/// The expression of a source. It is a function of the source alone, so results are kept for later calls.
#[must_use]
pub fn compile(source: &str) -> Compiled {
    static KEPT: LazyLock<Mutex<HashMap<String, Compiled>>> = LazyLock::new(Mutex::default);
    let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kept().get(source) {
        return Arc::clone(known);
    }
    let compiled = Arc::new(Expression::of(source));
    let mut kept = kept();
    if kept.len() >= MOST_KEPT {
        kept.clear();
    }
    kept.insert(source.to_owned(), Arc::clone(&compiled));
    compiled
}

impl Expression {
    fn of(source: &str) -> Result<Self, ExpressionFault> {
        let (parsed, info) = parse(source)?;
        check(&parsed)
            .map(Self)
            .map_err(|fault| fault_at(&info, fault.id, fault.message))
    }

    /// Whether the expression is true.
    ///
    /// # Errors
    /// If it is unknown.
    pub fn is_true(&self, facts: &Facts<'_>) -> Result<bool, Unknown> {
        Evaluator::new(facts).truth(&self.0.root)
    }

    /// Whether the result may change with time alone.
    #[must_use]
    pub fn reads_time(&self) -> bool {
        self.0.reads_time
    }

    /// The values of versions that the expression reads. They do not change with time.
    #[must_use]
    pub fn values(&self, facts: &Facts<'_>) -> Vec<GateValue> {
        let shown = |node| {
            let value = Evaluator::new(facts).value(node).ok()?;
            Some(shorten(&value.shown()?, LONGEST_VALUE))
        };
        let reads = self.0.reads.iter().take(MOST_VALUES);
        reads
            .map(|read| GateValue {
                field: shorten(&read.name, LONGEST_VALUE),
                candidate: shown(&read.candidate),
                current: shown(&read.current),
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "expressions_fuzz_tests.rs"]
mod fuzz_tests;

#[cfg(test)]
#[path = "expressions_tests.rs"]
#[allow(clippy::disallowed_methods)] // they measure
mod tests;
