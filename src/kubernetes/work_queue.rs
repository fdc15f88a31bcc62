//! The queue of a loop, and the loop itself: each name that is woken is reconciled, by one pass at a time, and only so many passes
//! are under way at once. What there is news of goes before what is merely to be looked through.
//!
//! Absent: what a pass does, and any memory of why a name was woken.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{FutureExt, StreamExt};
use kube::runtime::scheduler::{ScheduleRequest, Scheduler, scheduler};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch::Receiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::kubernetes::key::ObjectKey;

/// How many names the lists of a loop have room for that has nothing to do.
const FEW: usize = 64;
/// One pass of so many is for a name of the backlog, so that all of them have theirs whatever else comes.
const SHARE_OF_BACKLOG: usize = 16;

/// A pass's place among those under way. Who gives it up before the pass ends lets a pass over another name begin.
#[must_use]
pub struct Permit(#[allow(dead_code)] OwnedSemaphorePermit); // held, and not read

/// How many passes of a loop are under way at the same time.
#[derive(Clone)]
pub struct ConcurrencyLimit(Arc<Semaphore>);

impl ConcurrencyLimit {
    /// `ConcurrencyLimit` for so many.
    #[must_use]
    pub fn for_passes(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// Whether every place is taken, so that others may be waiting for one.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.available_permits() == 0
    }

    /// A place, when there is one.
    pub async fn place(&self) -> Permit {
        match Arc::clone(&self.0).acquire_owned().await {
            Ok(permit) => Permit(permit),
            // Nobody closes it.
            Err(_) => std::future::pending().await,
        }
    }
}

/// When a name is looked at again, though nothing may have changed by then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Requeue(Option<Duration>);

impl Requeue {
    /// Not before something changes.
    #[must_use]
    pub const fn await_change() -> Self {
        Self(None)
    }

    /// After this time, or when something changes before.
    #[must_use]
    pub const fn after(after: Duration) -> Self {
        Self(Some(after))
    }
}

/// The end of a queue at which names are put in.
#[derive(Clone)]
pub struct WorkQueue {
    due: UnboundedSender<ScheduleRequest<ObjectKey>>,
    behind: UnboundedSender<ObjectKey>,
}

/// The end of a queue at which names come out.
pub struct WorkQueueReceiver {
    due: UnboundedReceiver<ScheduleRequest<ObjectKey>>,
    behind: UnboundedReceiver<ObjectKey>,
}

/// A queue.
#[must_use]
pub fn queue() -> (WorkQueue, WorkQueueReceiver) {
    let ((due, is_due), (behind, is_behind)) = (unbounded(), unbounded());
    (
        WorkQueue { due, behind },
        WorkQueueReceiver {
            due: is_due,
            behind: is_behind,
        },
    )
}

impl WorkQueue {
    /// Has a name looked at as soon as may be.
    pub fn enqueue(&self, name: ObjectKey) {
        self.enqueue_after(name, Duration::ZERO);
    }

    /// Has each of some names looked at as soon as may be.
    pub fn enqueue_all(&self, names: Vec<ObjectKey>) {
        for name in names {
            self.enqueue(name);
        }
    }

    /// Has a name looked at after this time, if nothing wakes it before.
    pub fn enqueue_after(&self, message: ObjectKey, time: Duration) {
        // A closed queue means that the operator is stopping.
        let _ = self.due.unbounded_send(ScheduleRequest {
            message,
            run_at: Instant::now() + time,
        });
    }

    /// Has each of some names looked at behind all of which there is news: they are many, and most of them are well.
    pub fn enqueue_low_priority(&self, names: Vec<ObjectKey>) {
        for name in names {
            let _ = self.behind.unbounded_send(name);
        }
    }
}

/// Where a loop's names stand.
struct QueueState {
    /// Names of which there is news.
    ready: PendingKeys,
    /// Names that are looked through: when the loop begins, all that there are. Each is in one of the two lines at most, and
    /// none that has a pass under way is in this one.
    backlog: PendingKeys,
    /// Names with a pass under way.
    busy: HashSet<ObjectKey>,
    passes: JoinSet<(ObjectKey, Requeue)>,
    begun: usize,
    depth: Gauge,
}

/// Names in the order in which they came, each of them once.
#[derive(Default)]
struct PendingKeys {
    order: VecDeque<ObjectKey>,
    /// Those of them that still wait.
    waiting: HashSet<ObjectKey>,
}

impl PendingKeys {
    fn join(&mut self, name: ObjectKey) {
        if self.waiting.insert(name.clone()) {
            self.order.push_back(name);
        }
    }

    fn leave(&mut self, name: &ObjectKey) {
        self.waiting.remove(name);
    }

    fn has(&self, name: &ObjectKey) -> bool {
        self.waiting.contains(name)
    }

    /// The one that waits longest.
    fn first(&mut self) -> Option<ObjectKey> {
        loop {
            let name = self.order.pop_front()?;
            if self.waiting.remove(&name) {
                return Some(name);
            }
        }
    }

    fn len(&self) -> usize {
        self.waiting.len()
    }

    /// What a burst took up is given back, when nobody waits.
    fn shrink(&mut self) {
        self.order.clear();
        self.order.shrink_to(FEW);
        self.waiting.shrink_to(FEW);
    }
}

impl QueueState {
    fn new(depth: Gauge) -> Self {
        let (ready, backlog) = (PendingKeys::default(), PendingKeys::default());
        Self {
            ready,
            backlog,
            busy: HashSet::new(),
            passes: JoinSet::new(),
            begun: 0,
            depth,
        }
    }

    /// Takes up a name that is due; one that waits already waits on, and one of the backlog does not wait with it any more.
    fn take_up(&mut self, name: ObjectKey) {
        self.backlog.leave(&name);
        self.ready.join(name);
    }

    /// Has a name looked through, unless it waits already; one with a pass under way is due when that ends.
    fn put_behind(&mut self, name: ObjectKey, queue: &WorkQueue) {
        if self.busy.contains(&name) {
            queue.enqueue(name);
        } else if !self.ready.has(&name) {
            self.backlog.join(name);
        }
    }

    fn waiting(&self) -> usize {
        self.ready.len() + self.backlog.len()
    }

    fn first(&mut self) -> Option<ObjectKey> {
        self.begun = self.begun.wrapping_add(1);
        if self.begun.is_multiple_of(SHARE_OF_BACKLOG) {
            self.backlog.first().or_else(|| self.ready.first())
        } else {
            self.ready.first().or_else(|| self.backlog.first())
        }
    }

    /// Begins a pass over the name whose turn it is.
    fn begin<Pass>(&mut self, place: Permit, pass: impl Fn(ObjectKey, Permit) -> Pass)
    where
        Pass: Future<Output = Requeue> + Send + 'static,
    {
        let Some(name) = self.first() else { return };
        self.busy.insert(name.clone());
        let next = pass(name.clone(), place);
        self.passes.spawn(next.map(|next| (name, next)));
    }

    fn note_depth(&mut self) {
        self.depth
            .set(i64::try_from(self.waiting()).unwrap_or(i64::MAX));
        if self.waiting() == 0 {
            self.ready.shrink();
            self.backlog.shrink();
            self.busy.shrink_to(FEW);
        }
    }

    fn end(
        &mut self,
        ended: Result<(ObjectKey, Requeue), tokio::task::JoinError>,
        queue: &WorkQueue,
    ) {
        match ended {
            Ok((name, Requeue(after))) => {
                self.busy.remove(&name);
                if let Some(after) = after {
                    queue.enqueue_after(name, after);
                }
            }
            // Nothing aborts a pass, so it is a panic, which ends the operator as anywhere else.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// Runs passes over all names that `beginning` answers, and from then on over those that come out of a queue, until `stopping`
/// comes true; and brings those under way to their end. What comes out before is taken up, and waits.
pub async fn turn<Pass>(
    (queue, WorkQueueReceiver { due, mut behind }): (WorkQueue, WorkQueueReceiver),
    beginning: impl Future<Output = Vec<ObjectKey>>,
    depth: Gauge,
    room: ConcurrencyLimit,
    pass: impl Fn(ObjectKey, Permit) -> Pass,
    mut stopping: Receiver<bool>,
) where
    Pass: Future<Output = Requeue> + Send + 'static,
{
    let mut due: Pin<Box<Scheduler<ObjectKey, _>>> = Box::pin(scheduler(due));
    let (mut beginning, mut has_begun) = (std::pin::pin!(beginning), false);
    let mut desk = QueueState::new(depth);
    loop {
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => break,
            Some(ended) = desk.passes.join_next() => desk.end(ended, &queue),
            name = next_due(due.as_mut(), &desk.busy) => match name {
                Some(name) => desk.take_up(name),
                None => break,
            },
            Some(name) = behind.next() => desk.put_behind(name, &queue),
            all = &mut beginning, if !has_begun => {
                has_begun = true;
                for name in all {
                    desk.put_behind(name, &queue);
                }
            }
            place = room.place(), if has_begun && desk.waiting() > 0 => desk.begin(place, &pass),
        }
        if has_begun {
            desk.note_depth();
        }
    }
    while desk.passes.join_next().await.is_some() {}
}

/// The next name that is due and has no pass under way.
async fn next_due<S>(
    due: Pin<&mut Scheduler<ObjectKey, S>>,
    busy: &HashSet<ObjectKey>,
) -> Option<ObjectKey>
where
    S: futures::Stream<Item = ScheduleRequest<ObjectKey>>,
{
    due.hold_unless(|name| !busy.contains(name)).next().await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use tokio::sync::watch::channel;

    use super::*;

    fn name(word: &str) -> ObjectKey {
        ObjectKey::new("ml", word)
    }

    /// A loop that begins with nothing.
    fn at_once() -> impl Future<Output = Vec<ObjectKey>> {
        std::future::ready(Vec::new())
    }

    /// Runs a loop whose passes say what `answer` says, until they were `enough`; answers the names in the order of their passes.
    async fn told(woken: &[&str], enough: usize, answer: fn(usize) -> Requeue) -> Vec<String> {
        let (queue, queued) = queue();
        for each in woken {
            queue.enqueue(name(each));
        }
        let (stop, stopping) = channel(false);
        let told = Arc::new(Mutex::new(Vec::new()));
        let (stop, seen) = (Arc::new(stop), Arc::clone(&told));
        let pass = move |name: ObjectKey, _: Permit| {
            let mut seen = seen.lock().expect("no pass panics");
            seen.push(name.name().to_owned());
            if seen.len() == enough {
                stop.send_replace(true);
            }
            std::future::ready(answer(seen.len()))
        };
        turn(
            (queue, queued),
            at_once(),
            Gauge::default(),
            ConcurrencyLimit::for_passes(8),
            pass,
            stopping,
        )
        .await;
        Arc::try_unwrap(told)
            .map(|told| told.into_inner().expect("no pass panics"))
            .unwrap_or_default()
    }

    #[tokio::test]
    async fn a_name_that_is_woken_thrice_before_its_pass_has_one_pass() {
        let mut told = told(&["a", "a", "a", "b"], 2, |_| Requeue::await_change()).await;
        told.sort();
        assert_eq!(told, ["a", "b"]);
    }

    #[tokio::test]
    async fn a_pass_that_asks_for_another_look_gets_it() {
        let next = |count| {
            if count == 1 {
                Requeue::after(Duration::from_millis(20))
            } else {
                Requeue::await_change()
            }
        };
        assert_eq!(told(&["a"], 2, next).await, ["a", "a"]);
    }

    #[tokio::test]
    async fn two_passes_over_one_name_never_overlap_and_no_wake_is_lost() {
        let (queue, queued) = queue();
        let (stop, stopping) = channel(false);
        let under_way = Arc::new(AtomicUsize::new(0));
        let passes = Arc::new(AtomicUsize::new(0));
        let (stop, waker) = (Arc::new(stop), queue.clone());
        queue.enqueue(name("a"));
        let pass = move |name: ObjectKey, place: Permit| {
            let (under_way, passes, stop, waker) = (
                Arc::clone(&under_way),
                Arc::clone(&passes),
                Arc::clone(&stop),
                waker.clone(),
            );
            async move {
                // Who gives up its place is still the only pass over its name.
                drop(place);
                assert_eq!(under_way.fetch_add(1, Ordering::SeqCst), 0);
                // Woken while its own pass is under way: the enqueue-up must lead to another pass.
                waker.enqueue(name);
                tokio::task::yield_now().await;
                under_way.fetch_sub(1, Ordering::SeqCst);
                if passes.fetch_add(1, Ordering::SeqCst) == 9 {
                    stop.send_replace(true);
                }
                Requeue::await_change()
            }
        };
        let turning = turn(
            (queue, queued),
            at_once(),
            Gauge::default(),
            ConcurrencyLimit::for_passes(8),
            pass,
            stopping,
        );
        tokio::time::timeout(Duration::from_secs(10), turning)
            .await
            .expect("ten passes come to an end");
    }

    fn numbers(count: usize) -> Vec<ObjectKey> {
        (0..count).map(|number| name(&number.to_string())).collect()
    }

    /// Runs a loop that begins with a hundred names until each of so many had its pass; `woken` is told with the first of them.
    async fn order_with(woken: fn(&WorkQueue), enough: usize) -> Vec<String> {
        let (queue, queued) = queue();
        let (stop, stopping) = channel(false);
        let (seen, stop, waker) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(stop),
            queue.clone(),
        );
        let told = Arc::clone(&seen);
        let pass = move |each: ObjectKey, place: Permit| {
            let mut seen = seen.lock().expect("no pass panics");
            seen.push(each.name().to_owned());
            match seen.len() {
                1 => woken(&waker),
                all if all == enough => _ = stop.send_replace(true),
                _ => {}
            }
            async move {
                // A pass takes a moment, and another one begins after it.
                tokio::time::sleep(Duration::from_millis(1)).await;
                drop(place);
                Requeue::await_change()
            }
        };
        let beginning = std::future::ready(numbers(100));
        turn(
            (queue, queued),
            beginning,
            Gauge::default(),
            ConcurrencyLimit::for_passes(1),
            pass,
            stopping,
        )
        .await;
        Arc::try_unwrap(told)
            .map(|told| told.into_inner().expect("no pass panics"))
            .unwrap_or_default()
    }

    #[tokio::test]
    async fn what_is_woken_while_a_loop_works_off_its_backlog_does_not_wait_for_it() {
        let told = order_with(|queue| queue.enqueue(name("news")), 101).await;
        let news = told
            .iter()
            .position(|each| each == "news")
            .expect("it had its pass");
        assert!(
            told.len() == 101 && news < 50,
            "pass {news} of {}",
            told.len()
        );
    }

    #[tokio::test]
    async fn what_is_woken_behind_has_one_pass_after_all_that_waits_and_one_more_where_its_own_is_under_way()
     {
        let told = order_with(
            |queue| queue.enqueue_low_priority(vec![name("0"), name("99"), name("old")]),
            102,
        )
        .await;
        assert_eq!(
            told.iter().filter(|each| *each == "0").count(),
            2,
            "its pass was under way"
        );
        assert_eq!(
            told.iter().filter(|each| *each == "99").count(),
            1,
            "it was waiting"
        );
        assert_eq!(told.last().map(String::as_str), Some("old"));
    }

    #[tokio::test]
    async fn what_is_woken_before_a_loop_begins_waits_for_its_beginning_and_goes_before_its_backlog()
     {
        let (queue, queued) = queue();
        queue.enqueue(name("news"));
        let (stop, stopping) = channel(false);
        let (begin, mut word) = channel(false);
        let (told, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(stop));
        let seen = Arc::clone(&told);
        let pass = move |each: ObjectKey, _: Permit| {
            let mut seen = seen.lock().expect("no pass panics");
            seen.push(each.name().to_owned());
            if seen.len() == 3 {
                stop.send_replace(true);
            }
            std::future::ready(Requeue::await_change())
        };
        let beginning = async move {
            let _ = word.wait_for(|word| *word).await;
            numbers(2)
        };
        let turning = turn(
            (queue, queued),
            beginning,
            Gauge::default(),
            ConcurrencyLimit::for_passes(1),
            pass,
            stopping,
        );
        let before = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let before = told.lock().expect("no pass panics").clone();
            begin.send_replace(true);
            before
        };
        let ((), before) = tokio::join!(turning, before);
        assert_eq!(before, Vec::<String>::new());
        assert_eq!(*told.lock().expect("no pass panics"), ["news", "0", "1"]);
    }

    /// A desk with a backlog of so many names, `"0"` and so on, and these taken up after them.
    fn desk(backlog: usize, taken_up: &[&str]) -> QueueState {
        let mut desk = QueueState::new(Gauge::default());
        for name in numbers(backlog) {
            desk.backlog.join(name);
        }
        for each in taken_up {
            desk.take_up(name(each));
        }
        desk
    }

    fn order(mut desk: QueueState) -> Vec<String> {
        std::iter::from_fn(|| desk.first())
            .map(|name| name.name().to_owned())
            .collect()
    }

    #[test]
    fn what_there_is_news_of_goes_before_what_is_looked_through() {
        assert_eq!(order(desk(3, &["news", "2"])), ["news", "2", "0", "1"]);
    }

    #[test]
    fn what_is_looked_through_has_its_turn_whatever_comes() {
        let news: Vec<String> = (0..SHARE_OF_BACKLOG * 3)
            .map(|number| format!("news {number}"))
            .collect();
        let news: Vec<&str> = news.iter().map(String::as_str).collect();
        let order = order(desk(2, &news));
        let turns: Vec<usize> = ["0", "1"]
            .iter()
            .filter_map(|each| order.iter().position(|name| name == each))
            .collect();
        assert_eq!(turns, [SHARE_OF_BACKLOG - 1, SHARE_OF_BACKLOG * 2 - 1]);
    }

    #[tokio::test]
    async fn all_that_was_woken_before_a_loop_begins_has_one_pass_each() {
        let names: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut told = told(&names, names.len(), |_| Requeue::await_change()).await;
        told.sort_by_key(|name| name.parse::<usize>().unwrap_or_default());
        assert_eq!(told, names);
    }

    /// How many of four passes are under way when no more of them begin, where there is room for two.
    async fn under_way(keeps_its_place: bool) -> usize {
        let (queue, queued) = queue();
        for each in ["a", "b", "c", "d"] {
            queue.enqueue(name(each));
        }
        let (stop, stopping) = channel(false);
        let begun = Arc::new(AtomicUsize::new(0));
        let (seen, go_on) = (Arc::clone(&begun), Arc::new(Semaphore::new(0)));
        let gate = Arc::clone(&go_on);
        let pass = move |_: ObjectKey, place: Permit| {
            seen.fetch_add(1, Ordering::SeqCst);
            let (place, gate) = (keeps_its_place.then_some(place), Arc::clone(&gate));
            async move {
                let _ = gate.acquire().await;
                drop(place);
                Requeue::await_change()
            }
        };
        let room = ConcurrencyLimit::for_passes(2);
        let turning = tokio::spawn(turn(
            (queue, queued),
            at_once(),
            Gauge::default(),
            room.clone(),
            pass,
            stopping,
        ));
        let mut count = usize::MAX;
        while count != begun.load(Ordering::SeqCst) || count == 0 {
            count = begun.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(room.is_full(), keeps_its_place);
        go_on.add_permits(4);
        stop.send_replace(true);
        turning.await.expect("the loop ends");
        count
    }

    #[tokio::test]
    async fn only_so_many_passes_are_under_way_as_there_is_room_for() {
        assert_eq!(under_way(true).await, 2);
    }

    #[tokio::test]
    async fn a_pass_that_gives_up_its_place_lets_another_begin() {
        assert_eq!(under_way(false).await, 4);
    }
}
