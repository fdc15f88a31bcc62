//! Free ports of the loopback address.
//! Nothing here listens: a port is free when it is handed out, and no other part of this process is given it again.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Mutex;

use crate::error::{Context, Result};

static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port that nobody listens on and that was not handed out before.
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
