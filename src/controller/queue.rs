//! The queue of a loop, and the loop itself: each name that is woken is reconciled, by one pass at a time.
//!
//! Absent: what a pass does, and any memory of why a name was woken.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{FutureExt, StreamExt};
use kube::runtime::scheduler::{ScheduleRequest, Scheduler, scheduler};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::name::Name;

/// How many passes of one kind are under way at the same time.
const CONCURRENCY: usize = 64;

/// When a name is looked at again, though nothing may have changed by then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Next(Option<Duration>);

impl Next {
    /// Not before something changes.
    pub const fn await_change() -> Self {
        Self(None)
    }

    /// After this time, or when something changes before.
    pub const fn requeue(after: Duration) -> Self {
        Self(Some(after))
    }
}

/// The end of a queue at which names are put in.
#[derive(Clone)]
pub struct Queue(UnboundedSender<ScheduleRequest<Name>>);

/// The end of a queue at which names come out.
pub struct Queued(UnboundedReceiver<ScheduleRequest<Name>>);

/// A queue.
pub fn queue() -> (Queue, Queued) {
    let (sender, receiver) = unbounded();
    (Queue(sender), Queued(receiver))
}

impl Queue {
    /// Has a name looked at as soon as may be.
    pub fn wake(&self, name: Name) {
        self.wake_after(name, Duration::ZERO);
    }

    /// Has each of some names looked at as soon as may be.
    pub fn wake_all(&self, names: Vec<Name>) {
        for name in names {
            self.wake(name);
        }
    }

    /// Has a name looked at after this time, if nothing wakes it before.
    pub fn wake_after(&self, message: Name, time: Duration) {
        // A closed queue means that the operator is stopping.
        let _ = self.0.unbounded_send(ScheduleRequest { message, run_at: Instant::now() + time });
    }
}

/// Where a loop's names stand.
struct Desk {
    /// Names that wait for a pass.
    ready: VecDeque<Name>,
    /// The same names, to be found.
    is_ready: HashSet<Name>,
    /// Names with a pass under way.
    busy: HashSet<Name>,
    passes: JoinSet<(Name, Next)>,
    depth: Gauge,
}

impl Desk {
    /// Takes up a name that is due; one that waits already waits on.
    fn take_up(&mut self, name: Name) {
        if self.is_ready.insert(name.clone()) {
            self.ready.push_back(name);
        }
    }

    /// Begins passes as far as there is room.
    fn begin<Pass>(&mut self, pass: impl Fn(Name) -> Pass)
    where
        Pass: Future<Output = Next> + Send + 'static,
    {
        while self.busy.len() < CONCURRENCY
            && let Some(name) = self.ready.pop_front()
        {
            self.is_ready.remove(&name);
            self.busy.insert(name.clone());
            let next = pass(name.clone());
            self.passes.spawn(next.map(|next| (name, next)));
        }
        self.depth.set(i64::try_from(self.ready.len()).unwrap_or(i64::MAX));
    }

    fn end(&mut self, ended: Result<(Name, Next), tokio::task::JoinError>, queue: &Queue) {
        match ended {
            Ok((name, Next(after))) => {
                self.busy.remove(&name);
                if let Some(after) = after {
                    queue.wake_after(name, after);
                }
            }
            // Nothing aborts a pass, so it is a panic, which ends the operator as anywhere else.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// Runs passes over the names that come out of a queue until `stopping` comes true, and brings those under way to their end.
pub async fn turn<Pass>(
    queue: Queue,
    queued: Queued,
    depth: Gauge,
    pass: impl Fn(Name) -> Pass,
    mut stopping: Receiver<bool>,
) where
    Pass: Future<Output = Next> + Send + 'static,
{
    let mut due: Pin<Box<Scheduler<Name, _>>> = Box::pin(scheduler(queued.0));
    let (ready, is_ready, busy) = <(VecDeque<Name>, HashSet<Name>, HashSet<Name>)>::default();
    let mut desk = Desk { ready, is_ready, busy, passes: JoinSet::new(), depth };
    loop {
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => break,
            Some(ended) = desk.passes.join_next() => desk.end(ended, &queue),
            name = next_due(due.as_mut(), &desk.busy) => match name {
                Some(name) => desk.take_up(name),
                None => break,
            },
        }
        desk.begin(&pass);
    }
    while desk.passes.join_next().await.is_some() {}
}

/// The next name that is due and has no pass under way.
async fn next_due<S>(due: Pin<&mut Scheduler<Name, S>>, busy: &HashSet<Name>) -> Option<Name>
where
    S: futures::Stream<Item = ScheduleRequest<Name>>,
{
    due.hold_unless(|name| !busy.contains(name)).next().await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use tokio::sync::watch::channel;

    use super::*;

    fn name(word: &str) -> Name {
        Name::new("ml", word)
    }

    /// Runs a loop whose passes say what `answer` says, until they were `enough`; answers the names in the order of their passes.
    async fn told(woken: &[&str], enough: usize, answer: fn(usize) -> Next) -> Vec<String> {
        let (queue, queued) = queue();
        for each in woken {
            queue.wake(name(each));
        }
        let (stop, stopping) = channel(false);
        let told = Arc::new(Mutex::new(Vec::new()));
        let (stop, seen) = (Arc::new(stop), Arc::clone(&told));
        let pass = move |name: Name| {
            let mut seen = seen.lock().expect("no pass panics");
            seen.push(name.name().to_owned());
            if seen.len() == enough {
                stop.send_replace(true);
            }
            std::future::ready(answer(seen.len()))
        };
        turn(queue, queued, Gauge::default(), pass, stopping).await;
        Arc::try_unwrap(told).map(|told| told.into_inner().expect("no pass panics")).unwrap_or_default()
    }

    #[tokio::test]
    async fn a_name_that_is_woken_thrice_before_its_pass_has_one_pass() {
        let mut told = told(&["a", "a", "a", "b"], 2, |_| Next::await_change()).await;
        told.sort();
        assert_eq!(told, ["a", "b"]);
    }

    #[tokio::test]
    async fn a_pass_that_asks_for_another_look_gets_it() {
        let next = |count| if count == 1 { Next::requeue(Duration::from_millis(20)) } else { Next::await_change() };
        assert_eq!(told(&["a"], 2, next).await, ["a", "a"]);
    }

    #[tokio::test]
    async fn two_passes_over_one_name_never_overlap_and_no_wake_is_lost() {
        let (queue, queued) = queue();
        let (stop, stopping) = channel(false);
        let under_way = Arc::new(AtomicUsize::new(0));
        let passes = Arc::new(AtomicUsize::new(0));
        let (stop, waker) = (Arc::new(stop), queue.clone());
        queue.wake(name("a"));
        let pass = move |name: Name| {
            let (under_way, passes, stop, waker) =
                (Arc::clone(&under_way), Arc::clone(&passes), Arc::clone(&stop), waker.clone());
            async move {
                assert_eq!(under_way.fetch_add(1, Ordering::SeqCst), 0);
                // Woken while its own pass is under way: the wake-up must lead to another pass.
                waker.wake(name);
                tokio::task::yield_now().await;
                under_way.fetch_sub(1, Ordering::SeqCst);
                if passes.fetch_add(1, Ordering::SeqCst) == 9 {
                    stop.send_replace(true);
                }
                Next::await_change()
            }
        };
        let turning = turn(queue, queued, Gauge::default(), pass, stopping);
        tokio::time::timeout(Duration::from_secs(10), turning).await.expect("ten passes come to an end");
    }
}
