//! Writes Events in the background, one after the other.
//!
//! Absent: the content of an Event. One that cannot be written is logged and delays nothing.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, Recorder, Reporter};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// kube's recorder keeps each Event for minutes to count repetitions. After so many Events it is replaced, to bound its memory.
const EVENTS_PER_RECORDER: usize = 100;

/// The sending end of the background task.
#[derive(Clone)]
pub struct EventRecorder(UnboundedSender<(ObjectReference, Event)>);

impl EventRecorder {
    /// Starts the background task. It ends when every clone of the recorder is dropped.
    #[must_use]
    pub fn start(client: Client, reporter: Reporter) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = unbounded_channel();
        (
            Self(sender),
            tokio::spawn(write(client, reporter, receiver)),
        )
    }

    /// Queues an Event about an object.
    pub fn publish(&self, about: ObjectReference, event: Event) {
        // Sending fails only after the task has ended, when the operator stops.
        let _ = self.0.send((about, event));
    }
}

async fn write(
    client: Client,
    reporter: Reporter,
    mut events: UnboundedReceiver<(ObjectReference, Event)>,
) {
    let mut recorder = Recorder::new(client.clone(), reporter.clone());
    let mut written = 0;
    while let Some((about, event)) = events.recv().await {
        if written == EVENTS_PER_RECORDER {
            (recorder, written) = (Recorder::new(client.clone(), reporter.clone()), 0);
        }
        written += 1;
        if let Err(error) = recorder.publish(&event, &about).await {
            tracing::warn!(object = about.name, %error, "an Event could not be written");
        }
    }
}
