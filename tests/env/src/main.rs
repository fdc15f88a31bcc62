//! The command that sets the test environment up and runs it by hand.
//! Absent: the parts themselves; the library has them.

fn main() {
    pointsman_env::leash_if_asked();
}
