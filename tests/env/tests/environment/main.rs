//! Tests of the environment: no process outlives it, interceptors change no request by themselves, the control plane rolls out.
//! Absent: `MLflow`, which has a test target of its own, and the operator, whose scenarios are in the root crate.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic fails the test

mod interception;
mod rollouts;
mod supervision;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use pointsman_env::cache::Cache;
use pointsman_env::{ControlPlane, ControlPlaneOptions, Tools};
use tokio::sync::OnceCell;

fn main() -> ExitCode {
    pointsman_env::supervise_if_asked();
    supervision::become_a_parent_if_asked();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let shared = Arc::new(Shared {
        handle: runtime.handle().clone(),
        control_plane: OnceCell::new(),
    });
    let mut trials = Vec::new();
    trials.extend(supervision::trials());
    trials.extend(interception::trials(&shared));
    trials.extend(rollouts::trials(&shared));
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    drop(shared);
    conclusion.exit_code()
}

/// The runtime and the control plane that these tests share.
pub(crate) struct Shared {
    handle: tokio::runtime::Handle,
    control_plane: OnceCell<Arc<ControlPlane>>,
}

impl Shared {
    /// The control plane, started on first use.
    pub(crate) async fn control_plane(&self) -> Arc<ControlPlane> {
        let start = async || {
            let tools = tokio::task::block_in_place(|| Tools::locate(&Cache::open().unwrap()))
                .unwrap_or_else(|error| panic!("{error}"));
            Arc::new(
                ControlPlane::start(&tools, ControlPlaneOptions::default())
                    .await
                    .unwrap_or_else(|error| panic!("{error}")),
            )
        };
        self.control_plane.get_or_init(start).await.clone()
    }

    /// A test that runs on the shared runtime.
    pub(crate) fn trial<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        name: &str,
        test: impl FnOnce(Arc<Self>) -> F + Send + 'static,
    ) -> Trial {
        let shared = self.clone();
        Trial::test(name, move || {
            let handle = shared.handle.clone();
            // On a worker of the runtime, so that a test may block in place.
            handle
                .block_on(handle.spawn(test(shared)))
                .map_err(|error| panic_text(error).into())
        })
    }
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let panic = error.into_panic();
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "it panicked".to_owned())
}
