//! Writes Events in the background, one after the other. The namespaces take turns, so that many Events of one delay no other's.
//!
//! Absent: the content of an Event, but for its length. One that cannot be written is logged and delays nothing.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, Recorder, Reporter};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::kubernetes::turns::Turns;

/// kube's recorder keeps each Event for minutes to count repetitions. After so many Events it is replaced, to bound its memory.
const EVENTS_PER_RECORDER: usize = 100;
/// The limits of events.k8s.io/v1, in bytes: the API server refuses a longer note, and a longer reason, action or instance.
const LONGEST_NOTE: usize = 1024;
const LONGEST_WORD: usize = 128;

/// The sending end of the background task.
#[derive(Clone)]
pub struct EventRecorder(UnboundedSender<(ObjectReference, Event)>);

impl EventRecorder {
    /// Starts the background task. It ends when every clone of the recorder is dropped.
    #[must_use]
    pub fn start(client: Client, mut reporter: Reporter) -> (Self, JoinHandle<()>) {
        reporter.instance = reporter.instance.map(|name| cut(name, LONGEST_WORD, ""));
        let (sender, receiver) = unbounded_channel();
        (
            Self(sender),
            tokio::spawn(write(client, reporter, receiver)),
        )
    }

    /// Queues an Event about an object.
    pub fn publish(&self, about: ObjectReference, event: Event) {
        // Sending fails only after the task has ended, when the operator stops.
        let _ = self.0.send((about, within_limits(event)));
    }
}

/// The Event as the API server accepts it.
fn within_limits(event: Event) -> Event {
    Event {
        note: event.note.map(|note| cut(note, LONGEST_NOTE, "…")),
        reason: cut(event.reason, LONGEST_WORD, ""),
        action: cut(event.action, LONGEST_WORD, ""),
        ..event
    }
}

/// At most so many bytes, cut between two characters, with this mark at the end if some were left out.
fn cut(text: String, most: usize, mark: &str) -> String {
    if text.len() <= most {
        return text;
    }
    let mut end = most.saturating_sub(mark.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{mark}", &text[..end])
}

/// The next Event to write; `None` if no further one comes.
async fn next(
    events: &mut UnboundedReceiver<(ObjectReference, Event)>,
    waiting: &mut Turns<(ObjectReference, Event)>,
) -> Option<(ObjectReference, Event)> {
    while let Ok((about, event)) = events.try_recv() {
        let namespace = about.namespace.clone().unwrap_or_default();
        waiting.push(&namespace, (about, event));
    }
    match waiting.pop(|_, events| events.pop_front()) {
        Some(next) => Some(next),
        None => events.recv().await,
    }
}

async fn write(
    client: Client,
    reporter: Reporter,
    mut events: UnboundedReceiver<(ObjectReference, Event)>,
) {
    let mut recorder = Recorder::new(client.clone(), reporter.clone());
    let (mut written, mut waiting) = (0, Turns::default());
    while let Some((about, event)) = next(&mut events, &mut waiting).await {
        if written == EVENTS_PER_RECORDER {
            (recorder, written) = (Recorder::new(client.clone(), reporter.clone()), 0);
        }
        written += 1;
        if let Err(error) = recorder.publish(&event, &about).await {
            tracing::warn!(object = about.name, %error, "an Event could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::events::EventType;

    use super::*;

    fn event(note: &str) -> Event {
        Event {
            type_: EventType::Warning,
            reason: "x".repeat(200),
            note: Some(note.to_owned()),
            action: "é".repeat(100),
            secondary: None,
        }
    }

    #[test]
    fn an_event_keeps_the_limits_in_bytes_and_is_cut_between_characters() {
        for note in ["x".repeat(2000), "é".repeat(1000), "a日本語".repeat(300)] {
            let event = within_limits(event(&note));
            let cut = event.note.unwrap_or_default();
            assert!(cut.len() <= LONGEST_NOTE && cut.len() > LONGEST_NOTE - 4);
            assert!(note.starts_with(cut.trim_end_matches('…')), "{cut}");
            assert_eq!((event.reason.len(), event.action.len()), (128, 128));
        }
    }

    #[tokio::test]
    async fn many_events_of_one_namespace_delay_no_other() {
        let (sender, mut events) = unbounded_channel();
        for (namespace, note) in [
            ("noisy", "1"),
            ("noisy", "2"),
            ("noisy", "3"),
            ("quiet", "4"),
        ] {
            let about = ObjectReference {
                namespace: Some(namespace.to_owned()),
                ..ObjectReference::default()
            };
            sender.send((about, event(note))).expect("a receiver");
        }
        drop(sender);
        let (mut waiting, mut order) = (Turns::default(), String::new());
        while let Some((_, event)) = next(&mut events, &mut waiting).await {
            order += &event.note.unwrap_or_default();
        }
        assert_eq!(order, "1423");
    }

    #[test]
    fn a_note_within_the_limit_is_left_as_it_is() {
        for note in ["é".repeat(512), String::new()] {
            assert_eq!(within_limits(event(&note)).note, Some(note));
        }
    }
}
