//! Every reachable state within a bound, by stateright, and the paths that lead where a property fails.
//!
//! Absent: what a state is and how it moves.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use stateright::report::{ReportData, ReportDiscovery, Reporter};
use stateright::{Checker, HasDiscoveries, Model, Property as Claim};

use super::pass::Passes;
use super::policy::Policy;
use super::properties::Property;
use super::settle::{self, Rest};
use super::steps::{self, Scope, Step};
use super::world::{StatusId, World};

/// How much of the world is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub name: &'static str,
    pub scope: Scope,
    pub history_limit: u8,
    /// How many things happen that nobody takes back.
    pub things: u8,
}

/// A bounded world with an operator in it.
pub struct Bounded {
    pub bound: Bound,
    pub passes: Passes,
    pub rest: Rest,
}

impl Bounded {
    pub fn new(bound: Bound, policy: Policy) -> Self {
        Self {
            bound,
            passes: Passes::new(policy, bound.history_limit),
            rest: Rest::default(),
        }
    }

    /// The properties that a state violates, now or where it comes to rest.
    pub fn violations(&self, world: &World) -> u16 {
        world.ghost.violated | self.rest.violations(world, &self.passes)
    }

    /// A path as people read it: each step, and how the world is after it.
    pub fn tell(&self, path: &[(Option<Step>, World)]) -> String {
        let mut told = String::new();
        for (step, world) in path {
            let step = step.map_or_else(|| "at first".to_owned(), |step| format!("{step:?}"));
            let _ = writeln!(told, "  {step:<34} {}", self.picture(world));
        }
        if let Some((_, last)) = path.last().filter(|(_, last)| last.ghost.violated == 0) {
            let _ = writeln!(told, "  and when nobody does anything any more:");
            for (step, world) in settle::way(last, &self.passes) {
                let _ = writeln!(
                    told,
                    "  {:<34} {}",
                    format!("{step:?}"),
                    self.picture(&world)
                );
            }
        }
        told
    }

    fn picture(&self, world: &World) -> String {
        let work = &world.work;
        let pending = world
            .operator
            .pending
            .map(|pending| format!(" unwritten: {}", self.status(pending.status)));
        format!(
            "alias {:?} {:?}; {:?} by {:?} {:?}; {}{}",
            world.mirror.alias,
            world.mirror.registry,
            work.version,
            work.writer,
            work.pods,
            self.status(world.status),
            pending.unwrap_or_default()
        )
    }

    fn status(&self, id: StatusId) -> String {
        let status = self.passes.statuses.get(id);
        let entries: Vec<_> = status
            .history
            .iter()
            .map(|entry| format!("{} {}", entry.version.number(), entry.outcome))
            .collect();
        let held_back = status.held_back.as_ref().map(|held_back| {
            let versions: Vec<_> = held_back
                .versions
                .iter()
                .map(|failed| failed.version.number())
                .collect();
            format!(" held back {versions:?} for {}", held_back.wanted.number())
        });
        let hold = status
            .hold
            .as_ref()
            .map(|hold| format!(" hold against {}", hold.wanted.number()));
        let ready = status.conditions.iter().find(|each| each.type_ == "Ready");
        let ready = ready
            .map(|ready| format!(" {}/{}", ready.status, ready.reason))
            .unwrap_or_default();
        format!(
            "[{}]{}{}{ready}",
            entries.join(", "),
            held_back.unwrap_or_default(),
            hold.unwrap_or_default()
        )
    }
}

impl Model for Bounded {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.bound.things)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps::possible(world, self.bound.scope, &self.passes, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        Some(steps::after(world, step, &self.passes))
    }

    fn properties(&self) -> Vec<Claim<Self>> {
        let hold = |property: Property, claim: fn(&Self, &World) -> bool| {
            Claim::always(property.sentence(), claim)
        };
        vec![
            hold(Property::HeldBack, holds::<{ Property::HeldBack as u16 }>),
            hold(
                Property::FailStatic,
                holds::<{ Property::FailStatic as u16 }>,
            ),
            hold(
                Property::OneVersion,
                holds::<{ Property::OneVersion as u16 }>,
            ),
            hold(Property::PeopleWin, holds::<{ Property::PeopleWin as u16 }>),
            hold(Property::Readable, holds::<{ Property::Readable as u16 }>),
            hold(
                Property::BackToGood,
                holds::<{ Property::BackToGood as u16 }>,
            ),
            hold(Property::Settles, rests::<{ Property::Settles as u16 }>),
            hold(Property::Quiet, rests::<{ Property::Quiet as u16 }>),
            hold(Property::GetsThere, rests::<{ Property::GetsThere as u16 }>),
            hold(
                Property::LeavesFailure,
                rests::<{ Property::LeavesFailure as u16 }>,
            ),
            hold(Property::Honest, rests::<{ Property::Honest as u16 }>),
            hold(Property::LetsGo, rests::<{ Property::LetsGo as u16 }>),
            hold(
                Property::TriesAgain,
                rests::<{ Property::TriesAgain as u16 }>,
            ),
        ]
    }
}

fn holds<const BIT: u16>(_: &Bounded, world: &World) -> bool {
    world.ghost.violated & BIT == 0
}

fn rests<const BIT: u16>(bounded: &Bounded, world: &World) -> bool {
    bounded.rest.violations(world, &bounded.passes) & BIT == 0
}

/// What a check found.
pub struct Found {
    pub states: usize,
    pub seconds: f64,
    /// The sentence of each property that failed, with the path to where it did.
    pub failures: Vec<(&'static str, String)>,
}

/// Looks at every state within the bound; ends where this property fails, if one is given, else where each has.
pub fn check(bound: Bound, policy: Policy, wanted: Option<Property>) -> Found {
    let begun = Instant::now();
    let sought = wanted.map_or(HasDiscoveries::All, |property| {
        HasDiscoveries::AnyOf([property.sentence()].into())
    });
    let threads = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .min(4);
    let checker = Bounded::new(bound, policy)
        .checker()
        .threads(threads)
        .finish_when(sought)
        .spawn_bfs();
    let checker = checker.join_and_report(&mut Told(bound.name, wanted.is_none()));
    let model = checker.model();
    let mut failures: Vec<_> = checker
        .discoveries()
        .into_iter()
        .map(|(sentence, path)| (sentence, model.tell(&with_steps(path.into_vec()))))
        .collect();
    failures.sort();
    let seconds = begun.elapsed().as_secs_f64();
    if wanted.is_none() {
        println!(
            "{}: {} states, {} different passes, {} statuses, {seconds:.1} s",
            bound.name,
            checker.unique_state_count(),
            model.passes.len(),
            model.passes.statuses.len()
        );
    }
    Found {
        states: checker.unique_state_count(),
        seconds,
        failures,
    }
}

/// stateright names the step that follows each state; people read the step that led to it.
fn with_steps(path: Vec<(World, Option<Step>)>) -> Vec<(Option<Step>, World)> {
    let mut before = None;
    path.into_iter()
        .map(|(world, step)| (std::mem::replace(&mut before, step), world))
        .collect()
}

/// Tells how far a long check is.
struct Told(&'static str, bool);

impl Reporter<Bounded> for Told {
    fn report_checking(&mut self, data: ReportData) {
        if self.1 && !data.done && data.duration > Duration::from_secs(1) {
            println!(
                "{}: {} states so far, {} deep, {} s",
                self.0,
                data.unique_states,
                data.max_depth,
                data.duration.as_secs()
            );
        }
    }

    fn report_discoveries(
        &mut self,
        _: &Bounded,
        _: std::collections::BTreeMap<&'static str, ReportDiscovery<Bounded>>,
    ) {
    }

    fn delay(&self) -> Duration {
        if self.1 {
            Duration::from_secs(5)
        } else {
            Duration::from_millis(50)
        }
    }
}
