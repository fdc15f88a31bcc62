//! What should happen: resolve, decide, and what the status says of it.
//!
//! Absent: any client, clock or async. `now` is a parameter; every failure is a value.

mod claim;
mod decide;
mod events;
mod history;
mod resolve;
mod summarize;

pub use claim::{Claim, claim};
pub use decide::{Action, Decision, Observed, decide};
pub use events::{Notice, notices};
pub use history::ledger;
pub use resolve::{Resolution, resolve};
pub use summarize::{Applied, summarize};
