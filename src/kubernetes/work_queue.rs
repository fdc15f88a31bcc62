//! A work queue with two priorities, and the loop that reconciles the objects in it.
//!
//! An object is reconciled by at most one task at a time, and a limited number of objects at the same time, in all and of one
//! namespace. Changed objects run before those of the initial list. Within a priority the namespaces take turns, so that many
//! objects of one namespace, or slow ones, delay no other namespace.
//!
//! Absent: the reconcile itself, and the reason why an object was enqueued.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{FutureExt, StreamExt};
use kube::runtime::scheduler::{ScheduleRequest, Scheduler, scheduler};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch::Receiver;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::progress::Progress;
use crate::kubernetes::turns::Turns;

/// The capacity that an idle queue keeps.
const IDLE_CAPACITY: usize = 64;
/// One reconcile in so many takes an object of low priority, so that those are never starved by changes.
const LOW_PRIORITY_SHARE: usize = 16;
/// How often an idle loop records that it runs.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// How many objects are reconciled at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub all: usize,
    /// Of one namespace.
    pub of_namespace: usize,
}

/// What a loop reports about its queue.
pub struct QueueReports<Limited> {
    /// How many objects wait.
    pub depth: Gauge,
    /// Called with the namespace of an object that has to wait because its namespace uses its whole share.
    pub limited: Limited,
    /// When the loop made progress last.
    pub progress: Progress,
}

/// When an object is reconciled again if it does not change before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Requeue(Option<Duration>);

impl Requeue {
    /// Only when something changes.
    #[must_use]
    pub const fn await_change() -> Self {
        Self(None)
    }

    /// After this time.
    #[must_use]
    pub const fn after(after: Duration) -> Self {
        Self(Some(after))
    }
}

/// The sending end of a work queue.
#[derive(Clone)]
pub struct WorkQueue {
    changed: UnboundedSender<ScheduleRequest<ObjectKey>>,
    low_priority: UnboundedSender<ObjectKey>,
}

/// The receiving end of a work queue.
pub struct WorkQueueReceiver {
    changed: UnboundedReceiver<ScheduleRequest<ObjectKey>>,
    low_priority: UnboundedReceiver<ObjectKey>,
}

/// Makes a work queue.
#[must_use]
pub fn work_queue() -> (WorkQueue, WorkQueueReceiver) {
    let (changed, changed_receiver) = unbounded();
    let (low_priority, low_priority_receiver) = unbounded();
    let queue = WorkQueue {
        changed,
        low_priority,
    };
    let receiver = WorkQueueReceiver {
        changed: changed_receiver,
        low_priority: low_priority_receiver,
    };
    (queue, receiver)
}

impl WorkQueue {
    /// Enqueues an object at high priority.
    pub fn enqueue(&self, object: ObjectKey) {
        self.enqueue_after(object, Duration::ZERO);
    }

    /// Enqueues some objects at high priority.
    pub fn enqueue_all(&self, objects: Vec<ObjectKey>) {
        for object in objects {
            self.enqueue(object);
        }
    }

    /// Enqueues an object after this time, unless it is enqueued before.
    pub fn enqueue_after(&self, object: ObjectKey, delay: Duration) {
        // Sending fails only after the loop has ended, when the operator stops.
        let _ = self.changed.unbounded_send(ScheduleRequest {
            message: object,
            run_at: Instant::now() + delay,
        });
    }

    /// Enqueues some objects at low priority: a resync of many of which most need nothing.
    pub fn enqueue_low_priority(&self, objects: Vec<ObjectKey>) {
        for object in objects {
            let _ = self.low_priority.unbounded_send(object);
        }
    }
}

/// Runs reconciles until `stopping` becomes true, then waits for those in progress: first the objects of `initial` at low
/// priority, from then on those that are enqueued. Nothing runs before `initial` is there.
///
/// # Panics
/// If a reconcile panics.
pub async fn run<Running>(
    (queue, receiver): (WorkQueue, WorkQueueReceiver),
    initial: impl Future<Output = Vec<ObjectKey>>,
    limits: Limits,
    reports: QueueReports<impl Fn(&str)>,
    reconcile: impl Fn(ObjectKey) -> Running,
    mut stopping: Receiver<bool>,
) where
    Running: Future<Output = Requeue> + Send + 'static,
{
    let mut low_priority = receiver.low_priority;
    let mut changed = Box::pin(scheduler(receiver.changed));
    let mut initial = std::pin::pin!(initial);
    let mut is_started = false;
    let mut state = QueueState::new(limits);
    let mut check = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        if is_started {
            state.start_all(&reconcile, &reports);
            reports
                .depth
                .set(i64::try_from(state.len()).unwrap_or(i64::MAX));
            state.shrink_if_idle();
        }
        if state.len() == 0 || !is_started {
            reports.progress.record();
        }
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => break,
            Some(ended) = state.tasks.join_next() => {
                reports.progress.record();
                state.finish(ended, &queue);
            }
            object = next_due(changed.as_mut(), &state.in_progress) => match object {
                Some(object) => {
                    if state.is_at_limit(object.namespace()) {
                        (reports.limited)(object.namespace());
                    }
                    state.push(object);
                }
                None => break,
            },
            _ = check.tick() => {}
            Some(object) = low_priority.next() => state.push_low_priority(object, &queue),
            objects = &mut initial, if !is_started => {
                is_started = true;
                for object in objects {
                    state.push_low_priority(object, &queue);
                }
            }
        }
    }
    while state.tasks.join_next().await.is_some() {}
}

/// The next object that is due and not being reconciled.
async fn next_due<S>(
    changed: Pin<&mut Scheduler<ObjectKey, S>>,
    in_progress: &HashSet<ObjectKey>,
) -> Option<ObjectKey>
where
    S: futures::Stream<Item = ScheduleRequest<ObjectKey>>,
{
    changed
        .hold_unless(|object| !in_progress.contains(object))
        .next()
        .await
}

/// The objects that wait, and those that are being reconciled. An object waits at one priority at most, and at low priority only
/// while it is not being reconciled.
struct QueueState {
    limits: Limits,
    high: PendingKeys,
    low: PendingKeys,
    in_progress: HashSet<ObjectKey>,
    /// How many objects of each namespace are being reconciled.
    shares: HashMap<Arc<str>, usize>,
    tasks: JoinSet<(ObjectKey, Requeue)>,
    started: usize,
}

impl QueueState {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            high: PendingKeys::default(),
            low: PendingKeys::default(),
            in_progress: HashSet::new(),
            shares: HashMap::new(),
            tasks: JoinSet::new(),
            started: 0,
        }
    }

    /// Whether so many objects of a namespace are being reconciled that the others have to wait.
    fn is_at_limit(&self, namespace: &str) -> bool {
        let share = self.shares.get(namespace).copied().unwrap_or_default();
        share >= self.limits.of_namespace
    }

    /// Starts to reconcile as many objects as the limits allow, and reports namespaces that use their whole share while more of
    /// their objects wait.
    fn start_all<Running>(
        &mut self,
        reconcile: impl Fn(ObjectKey) -> Running,
        reports: &QueueReports<impl Fn(&str)>,
    ) where
        Running: Future<Output = Requeue> + Send + 'static,
    {
        while self.in_progress.len() < self.limits.all {
            let Some(object) = self.pop() else {
                return;
            };
            reports.progress.record();
            let namespace = object.clone();
            self.start(object, &reconcile);
            let namespace = namespace.namespace();
            if self.is_at_limit(namespace)
                && (self.high.waits(namespace) || self.low.waits(namespace))
            {
                (reports.limited)(namespace);
            }
        }
    }

    /// Queues an object at high priority, also if it waits at low priority already.
    fn push(&mut self, object: ObjectKey) {
        self.low.remove(&object);
        self.high.push(object);
    }

    /// Queues an object at low priority, unless it waits already. If it is being reconciled, it is enqueued when that ends.
    fn push_low_priority(&mut self, object: ObjectKey, queue: &WorkQueue) {
        if self.in_progress.contains(&object) {
            queue.enqueue(object);
        } else if !self.high.contains(&object) {
            self.low.push(object);
        }
    }

    /// The next object whose namespace may have another one reconciled.
    fn pop(&mut self) -> Option<ObjectKey> {
        self.started = self.started.wrapping_add(1);
        let (shares, limit) = (&self.shares, self.limits.of_namespace);
        let may_start = |namespace: &str| shares.get(namespace).is_none_or(|share| *share < limit);
        let (first, second) = if self.started.is_multiple_of(LOW_PRIORITY_SHARE) {
            (&mut self.low, &mut self.high)
        } else {
            (&mut self.high, &mut self.low)
        };
        first.pop(may_start).or_else(|| second.pop(may_start))
    }

    fn len(&self) -> usize {
        self.high.len() + self.low.len()
    }

    fn start<Running>(&mut self, object: ObjectKey, reconcile: impl Fn(ObjectKey) -> Running)
    where
        Running: Future<Output = Requeue> + Send + 'static,
    {
        self.in_progress.insert(object.clone());
        *self.shares.entry(object.namespace().into()).or_default() += 1;
        let running = reconcile(object.clone());
        self.tasks.spawn(running.map(|requeue| (object, requeue)));
    }

    /// An object is not being reconciled any more.
    fn end(&mut self, object: &ObjectKey) {
        self.in_progress.remove(object);
        if let Some(share) = self.shares.get_mut(object.namespace()) {
            *share -= 1;
            if *share == 0 {
                self.shares.remove(object.namespace());
            }
        }
    }

    fn finish(&mut self, ended: Result<(ObjectKey, Requeue), JoinError>, queue: &WorkQueue) {
        match ended {
            Ok((object, Requeue(after))) => {
                self.end(&object);
                if let Some(after) = after {
                    queue.enqueue_after(object, after);
                }
            }
            // Nothing aborts a reconcile, so it is a panic, which ends the operator as anywhere else.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Frees the memory that a burst took.
    fn shrink_if_idle(&mut self) {
        if self.len() == 0 {
            self.high.shrink();
            self.low.shrink();
            self.in_progress.shrink_to(IDLE_CAPACITY);
        }
    }
}

/// Objects of one priority, each of them once.
#[derive(Default)]
struct PendingKeys {
    /// May hold objects that were removed since.
    order: Turns<ObjectKey>,
    waiting: HashSet<ObjectKey>,
}

impl PendingKeys {
    fn push(&mut self, object: ObjectKey) {
        if !self.waiting.contains(&object) {
            self.order.push(object.namespace(), object.clone());
            self.waiting.insert(object);
        }
    }

    fn remove(&mut self, object: &ObjectKey) {
        self.waiting.remove(object);
    }

    fn contains(&self, object: &ObjectKey) -> bool {
        self.waiting.contains(object)
    }

    /// Whether an object of a namespace waits.
    fn waits(&self, namespace: &str) -> bool {
        self.order.waits(namespace)
    }

    /// The next object of the next namespace that may start one.
    fn pop(&mut self, may_start: impl Fn(&str) -> bool) -> Option<ObjectKey> {
        let waiting = &mut self.waiting;
        self.order.pop(|namespace, objects| {
            if !may_start(namespace) {
                return None;
            }
            std::iter::from_fn(|| objects.pop_front()).find(|object| waiting.remove(object))
        })
    }

    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn shrink(&mut self) {
        self.order = Turns::default();
        self.waiting.shrink_to(IDLE_CAPACITY);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, MutexGuard};

    use tokio::sync::Semaphore;
    use tokio::sync::watch::{Sender, channel};

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ml", name)
    }

    fn of_one_namespace(limit: usize) -> Limits {
        Limits {
            all: limit,
            of_namespace: limit,
        }
    }

    fn reports() -> QueueReports<impl Fn(&str)> {
        QueueReports {
            depth: Gauge::default(),
            limited: |_: &str| {},
            progress: Progress::default(),
        }
    }

    fn numbered(count: usize) -> Vec<ObjectKey> {
        (0..count).map(|number| key(&number.to_string())).collect()
    }

    /// The objects in the order of their reconciles; stops the loop after `enough` of them.
    #[derive(Clone)]
    struct RecordedReconciles {
        names: Arc<Mutex<Vec<String>>>,
        enough: usize,
        stop: Arc<Sender<bool>>,
    }

    impl RecordedReconciles {
        fn until(enough: usize) -> (Self, Receiver<bool>) {
            let (stop, stopping) = channel(false);
            let recorded = Self {
                names: Arc::default(),
                enough,
                stop: Arc::new(stop),
            };
            (recorded, stopping)
        }

        /// Records one, and returns how many there are.
        fn record(&self, object: &ObjectKey) -> usize {
            let mut names = self.names();
            names.push(object.name().to_owned());
            if names.len() == self.enough {
                self.stop.send_replace(true);
            }
            names.len()
        }

        fn names(&self) -> MutexGuard<'_, Vec<String>> {
            self.names.lock().expect("no reconcile panics")
        }
    }

    /// Reconciles these objects, with `requeue` of the number of reconciles so far, until there were `enough`.
    async fn reconciled(
        objects: Vec<ObjectKey>,
        enough: usize,
        requeue: fn(usize) -> Requeue,
    ) -> Vec<String> {
        let (queue, receiver) = work_queue();
        queue.enqueue_all(objects);
        let (recorded, stopping) = RecordedReconciles::until(enough);
        let reconcile = |object: ObjectKey| std::future::ready(requeue(recorded.record(&object)));
        let initial = std::future::ready(Vec::new());
        run(
            (queue, receiver),
            initial,
            of_one_namespace(8),
            reports(),
            reconcile,
            stopping,
        )
        .await;
        recorded.names().clone()
    }

    #[tokio::test]
    async fn an_object_that_is_enqueued_three_times_is_reconciled_once() {
        let objects = ["a", "a", "a", "b"].map(key).to_vec();
        let mut names = reconciled(objects, 2, |_| Requeue::await_change()).await;
        names.sort();
        assert_eq!(names, ["a", "b"]);
    }

    #[tokio::test]
    async fn an_object_is_reconciled_again_after_its_requeue_time() {
        let requeue = |count| match count {
            1 => Requeue::after(Duration::from_millis(20)),
            _ => Requeue::await_change(),
        };
        assert_eq!(reconciled(vec![key("a")], 2, requeue).await, ["a", "a"]);
    }

    #[tokio::test]
    async fn reconciles_of_one_object_never_overlap_and_no_enqueue_is_lost() {
        let (queue, receiver) = work_queue();
        queue.enqueue(key("a"));
        let (recorded, stopping) = RecordedReconciles::until(10);
        let in_progress = Arc::new(AtomicUsize::new(0));
        let own_queue = queue.clone();
        let reconcile = move |object: ObjectKey| {
            let (queue, recorded) = (own_queue.clone(), recorded.clone());
            let in_progress = Arc::clone(&in_progress);
            async move {
                assert_eq!(in_progress.fetch_add(1, Ordering::SeqCst), 0);
                // Enqueued while it is being reconciled, so it must be reconciled once more.
                queue.enqueue(object.clone());
                tokio::task::yield_now().await;
                in_progress.fetch_sub(1, Ordering::SeqCst);
                recorded.record(&object);
                Requeue::await_change()
            }
        };
        let initial = std::future::ready(Vec::new());
        let running = run(
            (queue, receiver),
            initial,
            of_one_namespace(8),
            reports(),
            reconcile,
            stopping,
        );
        tokio::time::timeout(Duration::from_secs(10), running)
            .await
            .expect("there are ten reconciles");
    }

    /// Reconciles an initial list of a hundred objects, one at a time, until there were `enough`; `enqueue` is called in the first
    /// reconcile.
    async fn order_with(enqueue: fn(&WorkQueue), enough: usize) -> Vec<String> {
        let (queue, receiver) = work_queue();
        let (recorded, stopping) = RecordedReconciles::until(enough);
        let own_queue = queue.clone();
        let reconcile = |object: ObjectKey| {
            if recorded.record(&object) == 1 {
                enqueue(&own_queue);
            }
            async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Requeue::await_change()
            }
        };
        let initial = std::future::ready(numbered(100));
        run(
            (queue, receiver),
            initial,
            of_one_namespace(1),
            reports(),
            reconcile,
            stopping,
        )
        .await;
        recorded.names().clone()
    }

    #[tokio::test]
    async fn a_changed_object_does_not_wait_for_the_initial_list() {
        let names = order_with(|queue| queue.enqueue(key("changed")), 101).await;
        let position = names.iter().position(|name| name == "changed");
        assert_eq!(names.len(), 101);
        assert!(
            position.is_some_and(|position| position < 50),
            "{position:?}"
        );
    }

    #[tokio::test]
    async fn a_low_priority_object_runs_last_and_again_if_it_was_in_progress() {
        let enqueue = |queue: &WorkQueue| {
            queue.enqueue_low_priority(["0", "99", "old"].map(key).to_vec());
        };
        let names = order_with(enqueue, 102).await;
        let count = |name: &str| names.iter().filter(|each| *each == name).count();
        assert_eq!(count("0"), 2, "it was being reconciled");
        assert_eq!(count("99"), 1, "it was waiting");
        assert_eq!(names.last().map(String::as_str), Some("old"));
    }

    #[tokio::test]
    async fn an_object_enqueued_before_the_start_waits_for_it_and_runs_first() {
        let (queue, receiver) = work_queue();
        queue.enqueue(key("changed"));
        let (recorded, stopping) = RecordedReconciles::until(3);
        let (start, mut started) = channel(false);
        let reconcile = |object: ObjectKey| {
            recorded.record(&object);
            std::future::ready(Requeue::await_change())
        };
        let initial = async move {
            let _ = started.wait_for(|started| *started).await;
            numbered(2)
        };
        let running = run(
            (queue, receiver),
            initial,
            of_one_namespace(1),
            reports(),
            reconcile,
            stopping,
        );
        let before = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let before = recorded.names().clone();
            start.send_replace(true);
            before
        };
        let ((), before) = tokio::join!(running, before);
        assert_eq!(before, Vec::<String>::new());
        assert_eq!(*recorded.names(), ["changed", "0", "1"]);
    }

    /// The order in which so many objects of low priority, `"0"` and so on, and these of high priority are taken.
    fn order(low: usize, high: &[String]) -> Vec<String> {
        let mut state = QueueState::new(of_one_namespace(1));
        for object in numbered(low) {
            state.low.push(object);
        }
        for name in high {
            state.push(key(name));
        }
        std::iter::from_fn(|| state.pop())
            .map(|object| object.name().to_owned())
            .collect()
    }

    #[test]
    fn changed_objects_run_before_those_of_low_priority() {
        let changed = ["changed", "2"].map(str::to_owned);
        assert_eq!(order(3, &changed), ["changed", "2", "0", "1"]);
    }

    #[test]
    fn objects_of_low_priority_are_not_starved_by_changes() {
        let changed: Vec<String> = (0..LOW_PRIORITY_SHARE * 3)
            .map(|number| format!("changed {number}"))
            .collect();
        let order = order(2, &changed);
        let position = |name: &str| order.iter().position(|each| each == name);
        assert_eq!(position("0"), Some(LOW_PRIORITY_SHARE - 1));
        assert_eq!(position("1"), Some(LOW_PRIORITY_SHARE * 2 - 1));
    }

    #[tokio::test]
    async fn each_of_a_thousand_enqueued_objects_is_reconciled_once() {
        let objects = numbered(1000);
        let mut names = reconciled(objects.clone(), 1000, |_| Requeue::await_change()).await;
        names.sort_by_key(|name| name.parse::<usize>().unwrap_or_default());
        let expected: Vec<&str> = objects.iter().map(ObjectKey::name).collect();
        assert_eq!(names, expected);
    }

    #[tokio::test]
    async fn no_more_objects_are_reconciled_at_the_same_time_than_the_limit() {
        let (queue, receiver) = work_queue();
        queue.enqueue_all(numbered(4));
        let (recorded, stopping) = RecordedReconciles::until(usize::MAX);
        let gate = Arc::new(Semaphore::new(0));
        let (seen, own_gate) = (recorded.clone(), Arc::clone(&gate));
        let reconcile = move |object: ObjectKey| {
            seen.record(&object);
            let gate = Arc::clone(&own_gate);
            async move {
                if let Ok(permit) = gate.acquire().await {
                    permit.forget();
                }
                Requeue::await_change()
            }
        };
        let initial = std::future::ready(Vec::new());
        let running = tokio::spawn(run(
            (queue, receiver),
            initial,
            of_one_namespace(2),
            reports(),
            reconcile,
            stopping,
        ));
        let settle = || tokio::time::sleep(Duration::from_millis(50));
        settle().await;
        assert_eq!(recorded.names().len(), 2);
        gate.add_permits(1);
        settle().await;
        assert_eq!(
            recorded.names().len(),
            3,
            "one that ends lets another start"
        );
        gate.add_permits(3);
        recorded.stop.send_replace(true);
        running.await.expect("the loop ends");
    }

    #[test]
    fn namespaces_take_turns_and_removed_objects_take_none() {
        let mut pending = PendingKeys::default();
        for (namespace, name) in [
            ("a", "1"),
            ("a", "2"),
            ("a", "3"),
            ("b", "1"),
            ("c", "1"),
            ("b", "2"),
        ] {
            pending.push(ObjectKey::new(namespace, name));
        }
        pending.remove(&ObjectKey::new("c", "1"));
        let order = std::iter::from_fn(|| pending.pop(|_| true)).map(|object| object.to_string());
        assert_eq!(
            order.collect::<Vec<_>>(),
            ["a/1", "b/1", "a/2", "b/2", "a/3"]
        );
        let waits = |namespace| pending.waits(namespace);
        assert!(pending.len() == 0 && !["a", "b", "c"].into_iter().any(waits));
    }

    #[test]
    fn a_namespace_at_its_limit_leaves_the_free_places_to_others() {
        let mut state = QueueState::new(Limits {
            all: 8,
            of_namespace: 2,
        });
        for name in ["1", "2", "3", "4"] {
            state.push(ObjectKey::new("busy", name));
        }
        state.push(ObjectKey::new("other", "1"));
        let mut started = Vec::new();
        while let Some(object) = state.pop() {
            *state.shares.entry(object.namespace().into()).or_default() += 1;
            started.push(object);
        }
        let names: Vec<String> = started.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["busy/1", "other/1", "busy/2"]);
        assert!(state.is_at_limit("busy") && !state.is_at_limit("other"));
        state.end(&started[0]);
        assert_eq!(state.pop(), Some(ObjectKey::new("busy", "3")));
    }

    #[tokio::test]
    async fn a_namespace_that_must_wait_is_reported() {
        let (queue, receiver) = work_queue();
        queue.enqueue_all(numbered(3));
        let (recorded, stopping) = RecordedReconciles::until(3);
        let limited = Mutex::new(Vec::new());
        let reports = QueueReports {
            depth: Gauge::default(),
            limited: |namespace: &str| {
                limited.lock().expect("no panic").push(namespace.to_owned());
            },
            progress: Progress::default(),
        };
        let reconcile = |object: ObjectKey| {
            recorded.record(&object);
            async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Requeue::await_change()
            }
        };
        let limits = Limits {
            all: 8,
            of_namespace: 1,
        };
        let initial = std::future::ready(Vec::new());
        run(
            (queue, receiver),
            initial,
            limits,
            reports,
            reconcile,
            stopping,
        )
        .await;
        let limited = limited.into_inner().expect("no panic");
        assert!(!limited.is_empty() && limited.iter().all(|each| each == "ml"));
    }
}
