//! Writes Events, one after the other and beside the passes.
//!
//! Absent: what is told; see `rollout::events`. An Event that cannot be written is logged, and holds nothing up.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, Recorder, Reporter};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// After how many Events the recorder, which remembers each for minutes to count repetitions, is exchanged for a new one.
const REMEMBERED: usize = 100;

/// The end at which Events are put in.
#[derive(Clone)]
pub struct EventRecorder(UnboundedSender<(ObjectReference, Event)>);

impl EventRecorder {
    /// An `event_recorder`, and the task that writes; it ends when every clone of the `event_recorder` is gone.
    #[must_use]
    pub fn start(client: Client, reporter: Reporter) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = unbounded_channel();
        (
            Self(sender),
            tokio::spawn(write(client, reporter, receiver)),
        )
    }

    /// Has an Event written.
    pub fn publish(&self, about: ObjectReference, event: Event) {
        // The writing task ends after all who could publish.
        let _ = self.0.send((about, event));
    }
}

async fn write(
    client: Client,
    reporter: Reporter,
    mut events: UnboundedReceiver<(ObjectReference, Event)>,
) {
    let mut recorder = Recorder::new(client.clone(), reporter.clone());
    let mut remembered = 0;
    while let Some((about, event)) = events.recv().await {
        if remembered == REMEMBERED {
            (recorder, remembered) = (Recorder::new(client.clone(), reporter.clone()), 0);
        }
        remembered += 1;
        if let Err(error) = recorder.publish(&event, &about).await {
            tracing::warn!(object = about.name, %error, "an Event could not be written");
        }
    }
}
