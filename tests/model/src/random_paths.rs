//! Random paths, longer than any bound that can be explored, with more versions and every length of the history.
//!
//! Absent: realistic probabilities. A path that fails is shrunk to the steps that matter.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use libtest_mimic::{Failed, Trial};
use proptest::prelude::{Strategy, any, prop};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::bounds::{ALL_EVENTS, ALL_TEMPLATE_EVENTS};
use super::explore::{Bound, BoundedModel};
use super::policy::Policy;
use super::properties::Property;
use super::quiescence;
use super::state::{Ownership, State};
use super::steps::{Scope, Step};

const CASES: u32 = 512;
const MAX_STEPS: usize = 200;

/// The choice of the next step.
#[derive(Clone, Copy, Debug)]
enum Choice {
    /// The step of the operator and the cluster if there is no outside event.
    Undisturbed,
    /// The step with this index in [`Step::all`], if it is possible.
    Index(u16),
}

/// The length of the history, whether the binding has a template, and whether the Deployment recreates its pods.
type Setting = (u8, bool, bool);

pub fn trial() -> Trial {
    Trial::test("random paths", || {
        let begun = Instant::now();
        let models = RefCell::new(BTreeMap::new());
        let setting = (1..=5_u8, any::<bool>(), any::<bool>());
        let strategy = (setting, prop::collection::vec(choice(), 1..MAX_STEPS));
        let cases = Config::default().cases.max(CASES);
        let config = Config {
            cases,
            failure_persistence: None,
            max_shrink_iters: 20_000,
            ..Config::default()
        };
        // The same paths in every run; PROPTEST_CASES adds more.
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let result = TestRunner::new_with_rng(config, rng).run(&strategy, |(setting, choices)| {
            let mut models = models.borrow_mut();
            let model = models.entry(setting).or_insert_with(|| model(setting));
            run(model, &choices)
                .map_err(|(violations, _)| TestCaseError::fail(sentences(violations)))
        });
        println!(
            "{cases} random paths, {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        result.map_err(|error| Failed::from(describe(&error)))
    })
}

fn choice() -> impl Strategy<Value = Choice> {
    any::<(bool, u16)>().prop_map(|(undisturbed, index)| {
        if undisturbed {
            Choice::Undisturbed
        } else {
            Choice::Index(index)
        }
    })
}

fn model((history_limit, has_template, recreates): Setting) -> BoundedModel {
    let (ownership, kinds) = if has_template {
        (Ownership::Template, ALL_TEMPLATE_EVENTS)
    } else {
        (Ownership::TargetRef, ALL_EVENTS)
    };
    let bound = Bound {
        name: "random paths",
        scope: Scope {
            recreates,
            ..Scope::new(ownership, 5, kinds)
        },
        history_limit,
        events: u8::MAX,
    };
    BoundedModel::new(bound, Policy::default())
}

type Path = Vec<(Option<Step>, State)>;

/// Follows a path; returns the violations and the path so far at the first state that violates a property.
fn run(model: &BoundedModel, choices: &[Choice]) -> Result<(), (u32, Path)> {
    let mut state = model.initial();
    let mut path = vec![(None, state)];
    for choice in choices {
        let step = chosen(model, &state, *choice);
        state = model.after(&state, step);
        path.push((Some(step), state));
        let violations = model.violations(&state);
        if violations != 0 {
            return Err((violations, path));
        }
    }
    Ok(())
}

fn chosen(model: &BoundedModel, state: &State, choice: Choice) -> Step {
    let undisturbed =
        || quiescence::next(state, &model.reconciler).unwrap_or(Step::OperatorReconciles);
    let Choice::Index(index) = choice else {
        return undisturbed();
    };
    let mut possible = Vec::new();
    model.steps(state, &mut possible);
    // The index names a step, not a position in `possible`: a shrunk path keeps its other steps.
    let all = Step::all();
    let step = all[usize::from(index) % all.len()];
    if possible.contains(&step) {
        step
    } else {
        undisturbed()
    }
}

fn sentences(violations: u32) -> String {
    let mut sentences = Vec::new();
    for property in Property::ALL {
        if violations & property.bit() != 0 {
            sentences.push(property.sentence());
        }
    }
    sentences.join("; ")
}

/// The shrunk path as text.
fn describe(error: &TestError<(Setting, Vec<Choice>)>) -> String {
    let TestError::Fail(reason, (setting, choices)) = error else {
        return error.to_string();
    };
    let model = model(*setting);
    let path = match run(&model, choices) {
        Ok(()) => String::new(),
        Err((_, path)) => model.describe(&path),
    };
    let (limit, has_template, recreates) = setting;
    format!(
        "this fails: {reason} (historyLimit {limit}, template: {has_template}, recreates: {recreates}):\n{path}"
    )
}
