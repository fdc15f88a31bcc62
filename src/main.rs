//! The `pointsman` binary.
//!
//! Absent: everything but the choice of an allocator and the exit code; see `cli`.

use std::process::ExitCode;

use pointsman::cli::Arguments;

/// glibc keeps the memory that a burst freed; this allocator returns it. See docs/decisions/0007-size-of-the-program.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match Arguments::read().run() {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("pointsman: {failure}");
            ExitCode::FAILURE
        }
    }
}
