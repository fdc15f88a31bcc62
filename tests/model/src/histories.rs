//! Random histories, longer than any bound that can be walked through, with more versions and every length of the ledger.
//!
//! Absent: likelihood of real life. A history that fails is shrunk to the steps that matter.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use libtest_mimic::{Failed, Trial};
use proptest::prelude::{Strategy, any, prop};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use stateright::Model;

use super::bounds::EVERYTHING;
use super::check::{Bound, Bounded};
use super::policy::Policy;
use super::properties::Property;
use super::steps::{self, Scope, Step};
use super::world::World;

const CASES: u32 = 512;
const LONGEST: usize = 200;

/// A choice: the operator's and the cluster's own course, or whatever is possible.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Course,
    Any(u16),
}

pub fn trial() -> Trial {
    Trial::test("random histories", || {
        let begun = Instant::now();
        let worlds = RefCell::new(BTreeMap::new());
        let strategy = (1..=5_u8, prop::collection::vec(choice(), 1..LONGEST));
        let cases = Config::default().cases.max(CASES);
        let config = Config {
            cases,
            failure_persistence: None,
            max_shrink_iters: 20_000,
            ..Config::default()
        };
        // The same histories every time; PROPTEST_CASES has more of them told.
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let outcome = TestRunner::new_with_rng(config, rng).run(&strategy, |(limit, choices)| {
            let mut worlds = worlds.borrow_mut();
            let bounded = worlds
                .entry(limit)
                .or_insert_with(|| Bounded::new(bound(limit), Policy::default()));
            live(bounded, &choices)
                .map_err(|(violations, _)| TestCaseError::fail(sentences(violations)))
        });
        println!("{cases} histories, {:.1} s", begun.elapsed().as_secs_f64());
        outcome.map_err(|error| Failed::from(told(&error)))
    })
}

fn choice() -> impl Strategy<Value = Choice> {
    any::<(bool, u16)>().prop_map(|(course, which)| {
        if course {
            Choice::Course
        } else {
            Choice::Any(which)
        }
    })
}

fn bound(history_limit: u8) -> Bound {
    Bound {
        name: "a history",
        scope: Scope {
            versions: 5,
            kinds: EVERYTHING,
        },
        history_limit,
        things: u8::MAX,
    }
}

type Path = Vec<(Option<Step>, World)>;

/// Lives through a history; ends at the first world that violates something.
fn live(bounded: &Bounded, choices: &[Choice]) -> Result<(), (u16, Path)> {
    let mut world = World::new(u8::MAX);
    let mut path = vec![(None, world)];
    for choice in choices {
        let step = chosen(bounded, &world, *choice);
        world = steps::after(&world, step, &bounded.passes);
        path.push((Some(step), world));
        let violations = bounded.violations(&world);
        if violations != 0 {
            return Err((violations, path));
        }
    }
    Ok(())
}

fn chosen(bounded: &Bounded, world: &World, choice: Choice) -> Step {
    let course = || super::settle::next(world, &bounded.passes).unwrap_or(Step::OperatorPasses);
    let Choice::Any(which) = choice else {
        return course();
    };
    let mut possible = Vec::new();
    bounded.actions(world, &mut possible);
    // The choice names a step, not a place in a list: so a history without a step before it still means the same.
    let all = Step::all();
    let step = all[usize::from(which) % all.len()];
    if possible.contains(&step) {
        step
    } else {
        course()
    }
}

fn sentences(violations: u16) -> String {
    let violated = Property::ALL
        .into_iter()
        .filter(|property| violations & property.bit() != 0);
    violated
        .map(Property::sentence)
        .collect::<Vec<_>>()
        .join("; ")
}

/// The shrunk history, as people read it.
fn told(error: &TestError<(u8, Vec<Choice>)>) -> String {
    let TestError::Fail(reason, (limit, choices)) = error else {
        return error.to_string();
    };
    let bounded = Bounded::new(bound(*limit), Policy::default());
    let path = live(&bounded, choices)
        .err()
        .map(|(_, path)| bounded.tell(&path))
        .unwrap_or_default();
    format!("it is not so that {reason} (historyLimit {limit}):\n{path}")
}
