//! How many artifact checks run at the same time, in all and for one namespace.
//!
//! Absent: the checks.

use crate::controllers::registry::state::artifact_cache::Purpose;
use crate::kubernetes::permits::Permits;
use crate::kubernetes::work_queue::Limits;

/// Before moves and before rollbacks.
const MOVES: Limits = Limits {
    all: 32,
    of_namespace: 8,
};
const ROLLBACKS: Limits = Limits {
    all: 128,
    of_namespace: 32,
};

/// The permits for checks.
pub struct CheckPermits {
    moves: Permits,
    rollbacks: Permits,
}

impl Default for CheckPermits {
    fn default() -> Self {
        Self {
            moves: Permits::new(MOVES),
            rollbacks: Permits::new(ROLLBACKS),
        }
    }
}

impl CheckPermits {
    /// The permits for this use.
    pub const fn of(&self, purpose: Purpose) -> &Permits {
        match purpose {
            Purpose::Move => &self.moves,
            Purpose::Rollback => &self.rollbacks,
        }
    }
}
