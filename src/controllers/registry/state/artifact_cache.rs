//! The results of artifact checks: of the files behind a URI, and of a version in the registry, each in one place. The newest
//! answer counts for every use; how long it counts depends on the use. Bindings that wait for a result are kept beside it.
//!
//! Absent: the checks themselves.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::api::{Availability, VersionId, VersionRef};
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;
use crate::rollout::{ArtifactCheck, CheckResults};

/// For how long a good result counts: a move relies on a recent read of the same files, a rollback checks them again.
const GOOD_FOR_MOVES: Duration = Duration::from_secs(600);
const GOOD_FOR_ROLLBACKS: Duration = Duration::from_secs(30);
/// For how long a bad result counts while the check is repeated.
const BAD_FOR: Duration = Duration::from_secs(120);
/// After what time a check with a bad result is repeated.
const REPEAT_AFTER: Duration = Duration::from_secs(20);
/// How long a first result may take before a status says that it is awaited.
pub const BRIEF: Duration = Duration::from_secs(1);
/// The most results that are kept of reads that nobody waited for.
const MOST: usize = 20_000;

/// The use of a result.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// A version goes forward.
    Move,
    /// A version of the history is rolled back to.
    Rollback,
}

/// The object of a check.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum CheckSubject {
    /// The files behind a URI.
    Files {
        /// The URI, without its query.
        uri: String,
        /// The version for which the registry says the query, if there is one. As a signature may expire, such files are read
        /// again for every move.
        signed_for: Option<Box<VersionId>>,
    },
    /// This version of the registry.
    Version(Box<VersionRef>),
}

/// The results of one registry's checks.
#[derive(Default)]
pub struct ArtifactCache {
    known: Mutex<BTreeMap<CheckSubject, KnownResult>>,
}

#[derive(Default)]
struct KnownResult {
    /// The newest answer.
    answer: Option<(Availability, Instant)>,
    /// Whether a check before a rollback has given it: files that were read for a move may be gone since.
    is_for_rollback: bool,
    /// The newest check without an answer (`Unknown`). It does not replace the answer.
    unanswered: Option<Box<(Availability, Instant)>>,
    /// The running checks before moves and before rollbacks, which have other deadlines.
    running: [Option<Box<RunningCheck>>; 2],
    /// The bindings that the newest result enqueued and that have not read it yet. It counts for them even if it expires while
    /// they wait in a long queue: else they would ask for it again, and again.
    unread: [Vec<ObjectKey>; 2],
}

struct RunningCheck {
    since: Instant,
    /// The bindings that its result enqueues.
    waiting: Vec<ObjectKey>,
}

impl Purpose {
    /// The use of a check's result.
    pub fn of(check: &ArtifactCheck) -> Self {
        if check.must_exist {
            Self::Rollback
        } else {
            Self::Move
        }
    }
}

impl ArtifactCache {
    /// The known results of some checks.
    pub fn results<'a>(
        &self,
        checks: impl IntoIterator<Item = &'a ArtifactCheck>,
        binding: &ObjectKey,
    ) -> CheckResults {
        let (mut known, now) = (lock(&self.known), Instant::now());
        let mut results = CheckResults::new();
        for check in checks {
            let reader = Reader::new(check, binding, now);
            if let Some(result) = result(&known, check, reader) {
                results.insert(check.clone(), result);
                for subject in subjects(&known, check, reader) {
                    if let Some(known) = known.get_mut(&subject) {
                        known.unread[reader.purpose as usize].retain(|waiting| waiting != binding);
                    }
                }
            }
        }
        results
    }

    /// Notes that a binding needs the result of a check, and returns the subjects to check for it now.
    pub fn begin(&self, check: &ArtifactCheck, binding: &ObjectKey) -> Vec<CheckSubject> {
        let mut known = lock(&self.known);
        let reader = Reader::new(check, binding, Instant::now());
        let subjects = subjects(&known, check, reader);
        let is_due = |subject: &CheckSubject| {
            let known = known.entry(subject.clone()).or_default();
            known.begin(subject, reader)
        };
        subjects.into_iter().filter(is_due).collect()
    }

    /// Whether a check without a result was started less than [`BRIEF`] ago.
    pub fn is_brief_wait(&self, checks: &[ArtifactCheck], binding: &ObjectKey) -> bool {
        let (known, now) = (lock(&self.known), Instant::now());
        checks.iter().any(|check| {
            let reader = Reader::new(check, binding, now);
            let is_brief = |subject: &CheckSubject| {
                known
                    .get(subject)
                    .is_some_and(|known| known.is_brief_wait(reader))
            };
            result(&known, check, reader).is_none()
                && subjects(&known, check, reader).iter().any(is_brief)
        })
    }

    /// Records a result, and returns the bindings to enqueue: those that wait, if the result is new to them.
    pub fn record(
        &self,
        subject: &CheckSubject,
        purpose: Purpose,
        availability: Availability,
    ) -> Vec<ObjectKey> {
        let (mut known, now) = (lock(&self.known), Instant::now());
        let known = known.entry(subject.clone()).or_default();
        let before = known.usable(subject, purpose, now, false).cloned();
        known.record(availability, purpose, now);
        let running = known.running[purpose as usize].take();
        match running {
            Some(running) if before.as_ref() != known.usable(subject, purpose, now, false) => {
                known.unread[purpose as usize].clone_from(&running.waiting);
                running.waiting
            }
            _ => Vec::new(),
        }
    }

    /// Records why a check without a result has to wait, and returns the bindings to enqueue: their status says so.
    pub fn record_wait(
        &self,
        subject: &CheckSubject,
        purpose: Purpose,
        why: String,
    ) -> Vec<ObjectKey> {
        let (mut known, now) = (lock(&self.known), Instant::now());
        let Some(known) = known.get_mut(subject) else {
            return Vec::new();
        };
        if known.usable(subject, purpose, now, false).is_some() {
            return Vec::new();
        }
        known.record(Availability::Unknown(why), purpose, now);
        match &known.running[purpose as usize] {
            Some(running) => running.waiting.clone(),
            None => Vec::new(),
        }
    }

    /// Records that files were read for another reason than a check.
    pub fn record_readable(&self, uri: &str) {
        let mut known = lock(&self.known);
        let subject = CheckSubject::Files {
            uri: uri.to_owned(),
            signed_for: None,
        };
        if known.len() < MOST || known.contains_key(&subject) {
            let known = known.entry(subject).or_default();
            known.record(Availability::Readable, Purpose::Move, Instant::now());
        }
    }

    /// Removes results that count for no use any more.
    pub fn sweep(&self) {
        let now = Instant::now();
        lock(&self.known).retain(|_, known| known.is_used(now));
    }
}

type KnownResults = BTreeMap<CheckSubject, KnownResult>;

/// The binding that reads a result, the use that it has for it, and the time.
#[derive(Clone, Copy)]
struct Reader<'a> {
    binding: &'a ObjectKey,
    purpose: Purpose,
    now: Instant,
}

impl<'a> Reader<'a> {
    fn new(check: &ArtifactCheck, binding: &'a ObjectKey, now: Instant) -> Self {
        let purpose = Purpose::of(check);
        Self {
            binding,
            purpose,
            now,
        }
    }
}

/// The result of a check, from the results of its subjects.
fn result(known: &KnownResults, check: &ArtifactCheck, reader: Reader<'_>) -> Option<Availability> {
    let of = |subject: &CheckSubject| known.get(subject)?.result(subject, reader).cloned();
    let files = |uri: &str| of(&files(check, uri));
    if !check.must_exist {
        return files(&check.artifact_uri);
    }
    match of(&registered(check))? {
        Availability::Missing(why) => Some(Availability::Missing(why)),
        Availability::Moved(uri) => match files(&uri)? {
            Availability::Missing(why) => Some(Availability::Missing(why)),
            _ => Some(Availability::Moved(uri)),
        },
        Availability::Readable | Availability::Unknown(_) | Availability::Unchecked(_) => {
            files(&check.artifact_uri)
        }
    }
}

/// The subjects that the result of a check depends on.
fn subjects(known: &KnownResults, check: &ArtifactCheck, reader: Reader<'_>) -> Vec<CheckSubject> {
    if !check.must_exist {
        return vec![files(check, &check.artifact_uri)];
    }
    let version = registered(check);
    let moved = known
        .get(&version)
        .and_then(|known| known.result(&version, reader));
    let uri = match moved {
        Some(Availability::Moved(uri)) => uri,
        _ => &check.artifact_uri,
    };
    let files = files(check, uri);
    vec![version, files]
}

fn registered(check: &ArtifactCheck) -> CheckSubject {
    CheckSubject::Version(Box::new(VersionRef {
        id: check.version.clone(),
        artifact_uri: Some(check.artifact_uri.clone()),
        ..VersionRef::default()
    }))
}

fn files(check: &ArtifactCheck, uri: &str) -> CheckSubject {
    let version = || Box::new(check.version.clone());
    CheckSubject::Files {
        uri: uri.to_owned(),
        signed_for: check.query_withheld.then(version),
    }
}

fn good_for(subject: &CheckSubject, purpose: Purpose) -> Duration {
    let is_signed = matches!(
        subject,
        CheckSubject::Files {
            signed_for: Some(_),
            ..
        }
    );
    match purpose {
        Purpose::Move if !is_signed => GOOD_FOR_MOVES,
        Purpose::Move | Purpose::Rollback => GOOD_FOR_ROLLBACKS,
    }
}

impl KnownResult {
    /// The result, if it is not too old for this use or the reader has waited for it.
    fn result(&self, subject: &CheckSubject, reader: Reader<'_>) -> Option<&Availability> {
        let (purpose, now) = (reader.purpose, reader.now);
        let has_waited = self.unread[purpose as usize].contains(reader.binding);
        self.usable(subject, purpose, now, has_waited)
    }

    fn usable(
        &self,
        subject: &CheckSubject,
        purpose: Purpose,
        now: Instant,
        at_any_age: bool,
    ) -> Option<&Availability> {
        let age = |at: Instant| now.saturating_duration_since(at);
        let good_for = good_for(subject, purpose);
        let counts = |answer: &Availability| {
            *answer != Availability::Readable || purpose == Purpose::Move || self.is_for_rollback
        };
        if let Some((answer, at)) = &self.answer
            && (at_any_age || age(*at) < counts_for(answer, good_for))
            && counts(answer)
        {
            return Some(answer);
        }
        let (unanswered, at) = self.unanswered.as_deref()?;
        if age(*at) >= BAD_FOR && !at_any_age {
            return None;
        }
        // What was missing is not back because nobody could be asked since.
        match &self.answer {
            Some((missing @ Availability::Missing(_), _)) => Some(missing),
            _ => Some(unanswered),
        }
    }

    fn record(&mut self, availability: Availability, purpose: Purpose, now: Instant) {
        if matches!(availability, Availability::Unknown(_)) {
            self.unanswered = Some(Box::new((availability, now)));
        } else {
            let is_same = self
                .answer
                .as_ref()
                .is_some_and(|(before, _)| *before == availability);
            self.is_for_rollback =
                purpose == Purpose::Rollback || (is_same && self.is_for_rollback);
            self.answer = Some((availability, now));
            self.unanswered = None;
        }
    }

    /// Notes that a binding needs the result. True if a check has to be started for it.
    fn begin(&mut self, subject: &CheckSubject, reader: Reader<'_>) -> bool {
        let binding = reader.binding;
        if let Some(running) = &mut self.running[reader.purpose as usize] {
            let mut waiting = running.waiting.iter();
            let is_own = waiting.any(|waiting| waiting.namespace() == binding.namespace());
            if !running.waiting.contains(binding) {
                running.waiting.push(binding.clone());
            }
            // The check of another namespace may wait for that namespace's other checks.
            return !is_own;
        }
        if !self.is_due(subject, reader) {
            return false;
        }
        self.running[reader.purpose as usize] = Some(Box::new(RunningCheck {
            since: reader.now,
            waiting: vec![binding.clone()],
        }));
        true
    }

    /// Whether the check has to run: it has no result, or a bad one for some time.
    fn is_due(&self, subject: &CheckSubject, reader: Reader<'_>) -> bool {
        match self.result(subject, reader) {
            None => true,
            Some(Availability::Missing(_) | Availability::Unknown(_)) => self
                .newest()
                .is_none_or(|at| reader.now.saturating_duration_since(at) >= REPEAT_AFTER),
            Some(_) => false,
        }
    }

    fn is_brief_wait(&self, reader: Reader<'_>) -> bool {
        let running = self.running[reader.purpose as usize].as_ref();
        running.is_some_and(|running| reader.now.saturating_duration_since(running.since) < BRIEF)
    }

    /// When a check ended last.
    fn newest(&self) -> Option<Instant> {
        let answer = self.answer.as_ref().map(|(_, at)| *at);
        answer.max(self.unanswered.as_ref().map(|unanswered| unanswered.1))
    }

    fn is_used(&self, now: Instant) -> bool {
        let is_running = self.running.iter().any(Option::is_some);
        let is_new = |at| now.saturating_duration_since(at) < GOOD_FOR_MOVES;
        is_running || self.newest().is_some_and(is_new)
    }
}

fn counts_for(answer: &Availability, good_for: Duration) -> Duration {
    match answer {
        Availability::Missing(_) | Availability::Unknown(_) => BAD_FOR,
        Availability::Readable => good_for,
        Availability::Moved(_) | Availability::Unchecked(_) => GOOD_FOR_ROLLBACKS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn before_move(uri: &str) -> ArtifactCheck {
        ArtifactCheck {
            artifact_uri: uri.to_owned(),
            ..testing::check("1", false)
        }
    }

    fn before_rollback(uri: &str) -> ArtifactCheck {
        ArtifactCheck {
            must_exist: true,
            ..before_move(uri)
        }
    }

    fn files(uri: &str) -> CheckSubject {
        super::files(&before_move(uri), uri)
    }

    fn missing() -> Availability {
        Availability::Missing("deleted".to_owned())
    }

    fn unknown() -> Availability {
        Availability::Unknown("timed out".to_owned())
    }

    fn binding() -> ObjectKey {
        ObjectKey::new("ml", "a")
    }

    impl ArtifactCache {
        fn answer(&self, check: &ArtifactCheck) -> Option<Availability> {
            self.results([check], &binding()).remove(check)
        }

        /// Makes all results older.
        fn age(&self, by: Duration) {
            let earlier = |at: &mut Instant| *at = at.checked_sub(by).expect("a long uptime");
            for known in lock(&self.known).values_mut() {
                known.answer.iter_mut().for_each(|(_, at)| earlier(at));
                let unanswered = known.unanswered.iter_mut();
                unanswered.for_each(|unanswered| earlier(&mut unanswered.1));
            }
        }
    }

    #[test]
    fn one_check_serves_all_bindings_that_wait_for_it() {
        let (cache, check) = (ArtifactCache::default(), before_move("s3://m/1"));
        let (a, b) = (binding(), ObjectKey::new("ml", "b"));
        assert_eq!(cache.begin(&check, &a), [files("s3://m/1")]);
        assert!(cache.begin(&check, &b).is_empty(), "it is running already");
        assert!(cache.is_brief_wait(std::slice::from_ref(&check), &a));
        let waiting = cache.record(&files("s3://m/1"), Purpose::Move, Availability::Readable);
        assert_eq!(waiting, [a.clone(), b]);
        assert!(cache.begin(&check, &a).is_empty(), "the result is known");
        assert_eq!(cache.answer(&check), Some(Availability::Readable));
    }

    #[test]
    fn a_namespace_does_not_wait_for_the_check_of_another() {
        let cache = ArtifactCache::default();
        let check = before_move("s3://models/1");
        let (own, other) = (binding(), ObjectKey::new("other", "a"));
        let third = ObjectKey::new("other", "b");
        assert_eq!(cache.begin(&check, &own).len(), 1);
        assert_eq!(cache.begin(&check, &other).len(), 1, "a check of its own");
        assert_eq!(cache.begin(&check, &third).len(), 0, "which serves it too");
        let subject = files("s3://models/1");
        let told = cache.record(&subject, Purpose::Move, Availability::Readable);
        assert_eq!(told.len(), 3, "the first answer serves all");
        let again = cache.record(&subject, Purpose::Move, Availability::Readable);
        assert_eq!(again, Vec::<ObjectKey>::new());
    }

    #[test]
    fn the_cause_of_a_wait_is_told_and_the_result_replaces_it() {
        let cache = ArtifactCache::default();
        let (check, own) = (before_move("s3://models/1"), binding());
        let subject = files("s3://models/1");
        cache.begin(&check, &own);
        let told = cache.record_wait(&subject, Purpose::Move, "busy".to_owned());
        assert_eq!(told, std::slice::from_ref(&own));
        let waits = Availability::Unknown("busy".to_owned());
        assert_eq!(cache.answer(&check), Some(waits));
        assert_eq!(cache.begin(&check, &own).len(), 0, "it still runs");
        let told = cache.record(&subject, Purpose::Move, Availability::Readable);
        assert_eq!(told, std::slice::from_ref(&own));
        assert_eq!(cache.answer(&check), Some(Availability::Readable));
    }

    #[test]
    fn a_rollback_that_found_files_gone_counts_for_the_next_move() {
        let (cache, check) = (ArtifactCache::default(), before_move("s3://m/1"));
        cache.record_readable("s3://m/1");
        assert_eq!(cache.answer(&check), Some(Availability::Readable));
        cache.record(&files("s3://m/1"), Purpose::Rollback, missing());
        assert_eq!(cache.answer(&check), Some(missing()));
    }

    #[test]
    fn a_read_counts_for_ten_minutes_before_a_move_and_for_half_a_minute_before_a_rollback() {
        let (cache, rollback) = (ArtifactCache::default(), before_rollback("s3://m/1"));
        let begun = cache.begin(&rollback, &binding());
        assert_eq!(begun.len(), 2, "version and files are checked concurrently");
        for subject in &begun {
            cache.record(subject, Purpose::Rollback, Availability::Readable);
        }
        assert_eq!(cache.answer(&rollback), Some(Availability::Readable));
        cache.age(GOOD_FOR_ROLLBACKS);
        assert_eq!(cache.answer(&rollback), None);
        let before_move = before_move("s3://m/1");
        assert_eq!(cache.answer(&before_move), Some(Availability::Readable));
        cache.age(GOOD_FOR_MOVES);
        assert_eq!(cache.answer(&before_move), None);
        cache.sweep();
        assert!(lock(&cache.known).is_empty());
    }

    #[test]
    fn a_result_counts_once_for_a_binding_that_waited_for_it_however_long_its_queue_was() {
        let (cache, check) = (ArtifactCache::default(), before_rollback("s3://m/1"));
        let (a, b) = (binding(), ObjectKey::new("ml", "b"));
        for subject in &cache.begin(&check, &a) {
            cache.record(subject, Purpose::Rollback, Availability::Readable);
        }
        cache.age(GOOD_FOR_ROLLBACKS * 2);
        assert_eq!(cache.results([&check], &b).remove(&check), None);
        assert!(cache.begin(&check, &a).is_empty());
        assert_eq!(cache.answer(&check), Some(Availability::Readable));
        assert_eq!(cache.answer(&check), None, "it has been read");
    }

    #[test]
    fn signed_files_are_read_again_for_every_move() {
        let cache = ArtifactCache::default();
        let signed = ArtifactCheck {
            query_withheld: true,
            ..before_move("https://store.example/1")
        };
        let begun = cache.begin(&signed, &binding());
        cache.record(&begun[0], Purpose::Move, Availability::Readable);
        assert_eq!(cache.answer(&signed), Some(Availability::Readable));
        cache.age(GOOD_FOR_ROLLBACKS);
        assert_eq!(
            cache.answer(&signed),
            None,
            "the signature may have expired"
        );
    }

    #[test]
    fn a_check_without_an_answer_does_not_replace_what_is_known() {
        let (cache, check) = (ArtifactCache::default(), before_move("s3://m/1"));
        cache.record(&files("s3://m/1"), Purpose::Move, missing());
        cache.age(BAD_FOR);
        assert_eq!(cache.begin(&check, &binding()).len(), 1);
        assert_eq!(cache.answer(&check), None, "it may be back");
        cache.record(&files("s3://m/1"), Purpose::Move, unknown());
        assert_eq!(cache.answer(&check), Some(missing()));
        cache.record_readable("s3://m/1");
        assert_eq!(cache.answer(&check), Some(Availability::Readable));
    }

    #[test]
    fn a_version_that_moved_is_looked_for_where_the_registry_names_it_now() {
        let (cache, check) = (ArtifactCache::default(), before_rollback("s3://old/1"));
        let begun = cache.begin(&check, &binding());
        let moved = Availability::Moved("s3://new/1".to_owned());
        cache.record(&begun[1], Purpose::Rollback, missing());
        assert_eq!(
            cache.answer(&check),
            None,
            "the registry did not answer yet"
        );
        cache.record(&begun[0], Purpose::Rollback, moved.clone());
        assert_eq!(
            cache.answer(&check),
            None,
            "the new files are not checked yet"
        );
        assert_eq!(cache.begin(&check, &binding()), [files("s3://new/1")]);
        cache.record(&files("s3://new/1"), Purpose::Rollback, unknown());
        assert_eq!(cache.answer(&check), Some(moved));
    }

    #[test]
    fn a_bad_result_is_checked_again_after_a_while() {
        let (cache, check) = (ArtifactCache::default(), before_move("s3://m/1"));
        cache.record(&files("s3://m/1"), Purpose::Move, unknown());
        assert!(cache.begin(&check, &binding()).is_empty());
        cache.age(REPEAT_AFTER);
        assert_eq!(cache.begin(&check, &binding()).len(), 1);
        assert_eq!(cache.answer(&check), Some(unknown()), "meanwhile");
    }
}
