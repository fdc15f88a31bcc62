//! Where a world comes to rest when nobody does anything any more but the cluster and the operator.
//!
//! Absent: choice. In a quiet world each step follows from the one before.

use dashmap::DashMap;

use super::pass::{Passes, Seen};
use super::properties::{self, Property};
use super::steps::{self, Step};
use super::world::{Pods, Query, World};

/// After so many steps a world that does not rest never will.
const LONGEST: usize = 100;

/// What each world that was looked at violates once it rests.
#[derive(Default)]
pub struct Rest {
    known: DashMap<World, u16>,
}

impl Rest {
    /// The properties that are violated where this world comes to rest, or because it does not.
    pub fn violations(&self, world: &World, passes: &Passes) -> u16 {
        let mut on_the_way = Vec::new();
        let mut here = world.core();
        let violations = loop {
            if let Some(known) = self.known.get(&here) {
                break *known;
            }
            if on_the_way.len() > LONGEST {
                break Property::Settles.bit();
            }
            on_the_way.push(here);
            match next(&here, passes) {
                Some(step) => here = steps::after(&here, step, passes).core(),
                None => break at_rest(&here, passes),
            }
        };
        for each in on_the_way {
            self.known.insert(each, violations);
        }
        violations
    }
}

/// The steps from a world to its rest.
pub fn way(world: &World, passes: &Passes) -> Vec<(Step, World)> {
    let mut way = Vec::new();
    let mut here = *world;
    while let Some(step) = next(&here, passes).filter(|_| way.len() < 40) {
        here = steps::after(&here, step, passes);
        way.push((step, here));
    }
    way
}

/// The one step that a quiet world takes next; none where it rests.
pub fn next(world: &World, passes: &Passes) -> Option<Step> {
    let operator = &world.operator;
    if operator.old_binding.is_some() || operator.old_work.is_some() {
        return Some(Step::CachesCatchUp);
    }
    if operator.pending.is_some() {
        return Some(Step::OperatorWritesTheStatus);
    }
    match world.work.pods {
        Pods::Unseen => return Some(Step::ControllerSeesTheTemplate),
        Pods::Coming => return Some(Step::PodsBecomeReady),
        Pods::Ready | Pods::Crashing | Pods::Late => {}
    }
    let changes = |step: Step| steps::after(world, step, passes).core() != world.core();
    let answers = Query::all()
        .filter(|query| operator.asked & query.bit() != 0)
        .map(|query| Step::AnswerArrives(query.version, query.must_exist));
    // An answer that is no news wakes nobody.
    let is_news = |step: &Step| match step {
        Step::AnswerArrives(version, must_exist) => {
            let query = Query {
                version: *version,
                must_exist: *must_exist,
            };
            operator.book.get(query) != Some(world.reply(query))
        }
        _ => true,
    };
    let mut further = answers
        .filter(is_news)
        .chain([Step::OperatorPasses, Step::TimePasses]);
    further.find(|step| match step {
        Step::AnswerArrives(..) => true,
        Step::OperatorPasses => writes_or_asks(world, passes),
        step => changes(*step),
    })
}

fn seen(world: &World) -> Seen {
    Seen {
        spec: world.spec,
        status: world.status,
        work: world.work,
        mirror: world.mirror,
        book: world.operator.book,
    }
}

/// Whether a pass brings the world further than where it is.
fn writes_or_asks(world: &World, passes: &Passes) -> bool {
    let done = passes.pass(seen(world));
    done.wrote.is_some_and(|wrote| wrote != world.work)
        || done.status != world.status
        || done.ask & !world.operator.asked != 0
}

fn at_rest(world: &World, passes: &Passes) -> u16 {
    let done = passes.pass(seen(world));
    let is_written = done.wrote.is_some() || done.is_status_changed;
    let quiet = if is_written { Property::Quiet.bit() } else { 0 };
    quiet | properties::of_settled(world, &passes.statuses.get(world.status))
}
