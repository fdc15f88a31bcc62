//! What should happen: resolve, assess, decide, and the status that says so.
//!
//! Absent: any client, clock or async. `now` is a parameter; every failure is a value. Kinds of workloads: see `targets`.

mod approval;
mod artifact_check;
mod assess;
mod claim;
mod cron;
mod decide;
pub mod expressions;
mod freeze;
mod gates;
mod health;
mod history;
mod hold;
mod messages;
mod needed_checks;
mod observed;
mod readiness;
mod reapply;
mod reconciled;
mod refusal;
mod resolve;
mod retrain;
mod rollback_target;
mod signs;
mod summarize;
mod timer;
mod transitions;
mod unexplained;
mod version_tags;
mod windows;

pub use approval::{manual as manual_approval, refusal as approval_refusal, without_other_fields};
pub use artifact_check::{ArtifactCheck, CheckResults, forward_check};

pub use claim::{Claim, claim};
pub use decide::{Course, Decided, Decision, Memory, Waiting, decide};
pub use freeze::{Freeze, FreezePlace};
pub use gates::{GATES, Gate, GateInput, Verdict, paused, verdicts};
pub use health::{Diagnosis, Examined, Health, Warnings, health};
pub use messages::Note;
pub use needed_checks::needed_checks;
pub use observed::Observed;
pub use reconciled::{Applied, Reconciled};
pub use refusal::{altered, refused, undone};
pub use resolve::{Resolution, resolve};
pub use retrain::{RetrainJob, retrain_job};
pub use rollback_target::{RollbackTarget, candidates, choose};
pub use signs::{Evidence, Fault, Sign};
pub use summarize::summarize;
pub use transitions::{Transition, history_changes, transitions};
pub use unexplained::{Unexplained, unexplained};
pub use version_tags::{binding_of_key, tag_key, tag_values};
