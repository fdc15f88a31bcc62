//! One pass of the operator over real objects: resolve → decide → apply → summarize, each input looked at once.
//!
//! Absent: resource versions and crashes. Whether the patch and the status really get written is the world's business.

use dashmap::DashMap;
use pointsman::api::{AliasBinding, Reason, RegisteredModel};
use pointsman::rollout::{Action, Applied, Decision, Observed, Pass, claim, resolve};
use pointsman::targets::{Pod, Workload, patch_for_target};

use super::objects;
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
    works: DashMap<Work, (Workload, Vec<Pod>)>,
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

    fn objects(&self, work: Work) -> (Workload, Vec<Pod>) {
        self.works
            .entry(work)
            .or_insert_with(|| (objects::workload(work), objects::pods(work)))
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
        let (workload, pods) = self.objects(seen.work);
        let pods: Vec<&Pod> = pods.iter().collect();
        let evidence = objects::evidence(seen.book);
        let claim = claim(&binding, &[], Some(&workload));
        let observed = Observed {
            resolution: &resolution,
            workload: Some(&workload),
            pods: &pods,
            claim: claim.as_ref(),
            template_changed: false,
            evidence: &evidence,
        };
        let now = objects::time(objects::NOW);
        let decision = self.policy.decide(&binding, &observed, now);
        let wrote = apply(seen.work, &workload, &decision);
        let after = wrote.map_or(workload, |work| self.objects(work).0);
        let applied = Applied {
            workload: Some(&after),
            failure: None,
            retrain: None,
        };
        let pass = Pass {
            resolution: &resolution,
            evidence: &evidence,
            decision: &decision,
            applied: &applied,
        };
        let new = self.policy.summarize(&binding, &pass, now);
        Done {
            wrote,
            is_back: decision.gone_back.is_some(),
            is_status_changed: new != *status,
            status: self.statuses.keep(new),
            ask: questions(&decision, seen.book),
        }
    }
}

/// The real patch, merged as the API server would.
fn apply(work: Work, workload: &Workload, decision: &Decision) -> Option<Work> {
    let Action::Apply(injection) = &decision.action else {
        return None;
    };
    let merged = objects::apply(workload, &patch_for_target(workload, injection));
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

/// As the controller asks: what the decision lacks, and again what was answered badly while that is in the way.
fn questions(decision: &Decision, book: Book) -> u16 {
    let lacking = decision.questions.iter().filter_map(objects::query);
    let depends = |reason| {
        matches!(
            reason,
            Reason::ArtifactUnavailable | Reason::NoRollbackTarget
        )
    };
    let in_the_way = matches!(&decision.action, Action::Leave(problem) if depends(problem.reason));
    let is_bad = |query: &Query| matches!(book.get(*query), Some(Reply::Gone | Reply::Silent));
    let doubtful = Query::all().filter(|query| in_the_way && is_bad(query));
    lacking
        .chain(doubtful)
        .fold(0, |asked, query| asked | query.bit())
}
