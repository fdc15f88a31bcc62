//! Free ports of the loopback address.
//! Absent: listening. A returned port is free, and is not returned again in this process.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Mutex;

use crate::error::{Context, Result};

static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port without a listener that was not returned before.
pub fn free_port() -> Result<u16> {
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
        let port = listener
            .local_addr()
            .context("reading the free port")?
            .port();
        if HANDED_OUT.lock().unwrap().insert(port) {
            return Ok(port);
        }
    }
}
