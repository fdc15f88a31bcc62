//! What should happen: resolve, decide, and what the status says of it.
//!
//! Absent: any client, clock or async. `now` is a parameter; every failure is a value.

mod back;
mod claim;
mod decide;
mod events;
mod evidence;
mod health;
mod history;
mod judge;
mod resolve;
mod summarize;
mod tags;

pub use back::{Back, Candidate, candidates, choose};
pub use claim::{Claim, claim};
pub use decide::{Action, Decision, Observed, decide};
pub use events::{Notice, ledger_changes, notices};
pub use evidence::{Answer, Evidence, Question};
pub use health::{Examined, Health, health};
pub use judge::spec_digest;
pub use resolve::{Resolution, resolve};
pub use summarize::{Applied, Pass, summarize};
pub use tags::{binding_of_key, tag_key, tag_values};
