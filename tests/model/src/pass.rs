//! One pass of the operator over real objects: resolve → decide → apply → summarize, each input looked at once.
//!
//! Absent: resource versions and crashes. Whether the patch and the status really get written is the world's business.

use dashmap::DashMap;
use pointsman::api::{AliasBinding, RegisteredModel};
use pointsman::rollout::{
    Applied, ArtifactCheck, Course, Decided, Decision, Observed, Reconciled, Waiting, claim,
    needed_checks, resolve,
};
use pointsman::targets::{Pod, Target, patch_for_target};

use super::objects::{self, Object};
use super::policy::Policy;
use super::statuses::Statuses;
use super::world::{Book, Mirror, Query, Reply, Spec, StatusId, Version, Work, Writer};

/// What a pass reads.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Seen {
    pub spec: Spec,
    pub status: StatusId,
    pub work: Work,
    pub mirror: Mirror,
    pub book: Book,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Done {
    /// The Deployment as the patch leaves it, where there is one.
    pub wrote: Option<Work>,
    /// Whether the version was gone back to by itself.
    pub is_back: bool,
    pub status: StatusId,
    pub is_status_changed: bool,
    pub ask: u16,
}

/// The operator, with everything that it ever did kept.
pub struct Passes {
    pub statuses: Statuses,
    policy: Policy,
    base: AliasBinding,
    done: DashMap<Seen, Done>,
    works: DashMap<Work, (Object, Target, Vec<Pod>)>,
    models: DashMap<Mirror, RegisteredModel>,
}

impl Passes {
    pub fn new(policy: Policy, history_limit: u8) -> Self {
        Self {
            statuses: Statuses::new(),
            policy,
            base: objects::binding(history_limit),
            done: DashMap::new(),
            works: DashMap::new(),
            models: DashMap::new(),
        }
    }

    /// How many different passes there were.
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// What a pass over this does.
    pub fn pass(&self, seen: Seen) -> Done {
        if let Some(known) = self.done.get(&seen) {
            return *known;
        }
        let done = self.take(&seen);
        self.done.insert(seen, done);
        done
    }

    fn objects(&self, work: Work) -> (Object, Target, Vec<Pod>) {
        self.works
            .entry(work)
            .or_insert_with(|| {
                let object = objects::workload(work);
                (object.clone(), object.into(), objects::pods(work))
            })
            .clone()
    }

    fn take(&self, seen: &Seen) -> Done {
        let status = self.statuses.get(seen.status);
        let binding = objects::written(&self.base, seen.spec, (*status).clone());
        let model = self
            .models
            .entry(seen.mirror)
            .or_insert_with(|| objects::model(seen.mirror))
            .clone();
        let resolution = resolve(&binding, Some(&model));
        let (object, target, pods) = self.objects(seen.work);
        let pods: Vec<&Pod> = pods.iter().collect();
        let checks = objects::results(seen.book);
        let claim = claim(&binding, &[], Some(&target));
        let observed = Observed {
            resolution: &resolution,
            target: Some(&target),
            pods: &pods,
            claim: claim.as_ref(),
            template_changed: false,
            checks: &checks,
        };
        let now = objects::time(objects::NOW);
        let decided = self.policy.decide(&binding, &observed, now);
        let wrote = apply(seen.work, &object, &target, &decided.decision);
        let after = wrote.map_or_else(|| target.clone(), |work| self.objects(work).1);
        let applied = Applied {
            target: Some(&after),
            failure: None,
            retrain: None,
        };
        let reconciled = Reconciled {
            resolution: &resolution,
            checks: &checks,
            decided: &decided,
            applied: &applied,
        };
        let new = self.policy.summarize(&binding, &reconciled, now);
        Done {
            wrote,
            is_back: matches!(decided.decision.course(), Some(Course::Rollback(_))),
            is_status_changed: new != *status,
            status: self.statuses.keep(new),
            ask: asked(&needed_checks(&binding, &observed), &decided, seen.book),
        }
    }
}

/// The real patch, merged as the API server would.
fn apply(work: Work, object: &Object, target: &Target, decision: &Decision) -> Option<Work> {
    let Decision::Write(injection, _) = decision else {
        return None;
    };
    let merged = Target::from(objects::apply(object, &patch_for_target(target, injection)));
    let named = objects::one_version(&merged);
    let annotated = || Version::all().find(|each| merged.version() == Some(each.number()));
    let version = named.or_else(annotated);
    let is_same = version == work.version && named.is_some();
    Some(Work {
        version,
        torn: named.is_none(),
        writer: Writer::Pointsman,
        labelled: true,
        edited: work.edited,
        pods: if is_same {
            work.pods
        } else {
            super::world::Pods::Unseen
        },
    })
}

/// The checks that the controller runs: those that are needed and have no result, or a bad one.
fn asked(needed: &[ArtifactCheck], decided: &Decided, book: Book) -> u16 {
    let is_due = |query: &Query| book.get(*query) != Some(Reply::Readable);
    let asked = needed.iter().filter_map(objects::query).filter(is_due);
    let asked = asked.fold(0, |asked, query| asked | query.bit());
    let waits = matches!(decided.decision, Decision::Waiting(Waiting::Checks(_)));
    assert!(
        asked != 0 || !waits,
        "the decision waits for a check that nobody runs"
    );
    asked
}
