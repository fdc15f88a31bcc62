//! The open connections of a server: how many there may be, and which one is closed to make room.
//!
//! Absent: sockets, and timeouts. Each connection is a task that can be aborted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// What a connection does. Those of the first phases are closed first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Phase {
    /// It waits for a request, or for the rest of its head.
    Waiting,
    /// It has a request whose sender is unknown.
    Handling,
    /// It has a request of a known sender. It is not closed.
    Trusted,
}

/// The open connections of a server.
pub(super) struct Connections {
    most: usize,
    most_of_peer: usize,
    table: Mutex<ConnectionTable>,
}

#[derive(Default)]
struct ConnectionTable {
    last: u64,
    /// In the order in which they were accepted.
    open: BTreeMap<u64, ConnectionEntry>,
}

struct ConnectionEntry {
    peer: IpAddr,
    phase: Phase,
    task: Option<AbortHandle>,
}

/// A connection of the server. Handlers find it in the extensions of the request.
#[derive(Clone)]
pub(crate) struct OpenConnection {
    connections: Arc<Connections>,
    id: u64,
}

/// Removes a connection from the table when its task ends or is aborted.
pub(super) struct ConnectionGuard(pub(super) OpenConnection);

impl Connections {
    /// No connections yet, and at most `most`, of which `most_of_peer` may have the same peer.
    pub(super) fn new(most: usize, most_of_peer: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_peer,
            table: Mutex::default(),
        })
    }

    /// Adds a connection and spawns its task. If there are too many, another one is closed: the
    /// oldest that waits, of the peer that has the most. If all of them have requests of known
    /// senders, the new one is dropped instead.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        spawn: impl FnOnce(ConnectionGuard) -> AbortHandle,
    ) {
        let Some((id, closed)) = self.table().add(peer, self.most, self.most_of_peer) else {
            return;
        };
        if let Some(task) = closed {
            task.abort();
        }
        let task = spawn(ConnectionGuard(OpenConnection {
            connections: Arc::clone(self),
            id,
        }));
        if let Some(entry) = self.table().open.get_mut(&id) {
            entry.task = Some(task);
        }
    }

    fn table(&self) -> MutexGuard<'_, ConnectionTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionTable {
    /// Adds a connection. Returns its id, and the task of the one that makes room for it.
    fn add(
        &mut self,
        peer: IpAddr,
        most: usize,
        most_of_peer: usize,
    ) -> Option<(u64, Option<AbortHandle>)> {
        let own = self.open.values().filter(|entry| entry.peer == peer);
        let crowded = if own.count() >= most_of_peer {
            Some(peer)
        } else if self.open.len() >= most {
            self.busiest_peer()
        } else {
            None
        };
        let closed = match crowded {
            Some(crowded) => self.open.remove(&self.first_to_close(crowded)?)?.task,
            None => None,
        };
        self.last += 1;
        let entry = ConnectionEntry {
            peer,
            phase: Phase::Waiting,
            task: None,
        };
        self.open.insert(self.last, entry);
        Some((self.last, closed))
    }

    /// The peer with the most connections.
    fn busiest_peer(&self) -> Option<IpAddr> {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for entry in self.open.values() {
            *counts.entry(entry.peer).or_default() += 1;
        }
        let busiest = counts.into_iter().max_by_key(|(_, count)| *count);
        busiest.map(|(peer, _)| peer)
    }

    /// The connection of a peer that is closed first; `None` if all of its are trusted.
    fn first_to_close(&self, peer: IpAddr) -> Option<u64> {
        let of_peer = self.open.iter().filter(|(_, entry)| entry.peer == peer);
        let (id, entry) = of_peer.min_by_key(|(id, entry)| (entry.phase, **id))?;
        (entry.phase < Phase::Trusted).then_some(*id)
    }
}

impl OpenConnection {
    /// A request arrived.
    pub(super) fn begin_request(&self) {
        self.set_phase(Phase::Handling);
    }

    /// The sender of the request is known: the connection stays open until the response is there.
    pub(crate) fn trust(&self) {
        self.set_phase(Phase::Trusted);
    }

    /// The response is there.
    pub(super) fn end_request(&self) {
        self.set_phase(Phase::Waiting);
    }

    fn set_phase(&self, phase: Phase) {
        if let Some(entry) = self.connections.table().open.get_mut(&self.id) {
            entry.phase = phase;
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let OpenConnection { connections, id } = &self.0;
        connections.table().open.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table whose connections are from peers with these numbers, accepted in this order.
    fn table(peers: &[u8]) -> ConnectionTable {
        let mut table = ConnectionTable::default();
        for peer in peers {
            assert!(table.add(address(*peer), 100, 100).is_some());
        }
        table
    }

    fn address(peer: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, peer])
    }

    fn set_phase(table: &mut ConnectionTable, id: u64, phase: Phase) {
        table.open.get_mut(&id).expect("it is open").phase = phase;
    }

    fn open(table: &ConnectionTable) -> Vec<u64> {
        table.open.keys().copied().collect()
    }

    #[test]
    fn the_oldest_connection_of_the_busiest_peer_makes_room() {
        let mut table = table(&[1, 2, 2, 2]);
        assert!(table.add(address(3), 4, 4).is_some());
        assert_eq!(open(&table), [1, 3, 4, 5]);
    }

    #[test]
    fn a_peer_makes_room_for_its_own_connections() {
        let mut table = table(&[1, 2, 1]);
        assert!(table.add(address(1), 100, 2).is_some());
        assert_eq!(open(&table), [2, 3, 4]);
    }

    #[test]
    fn connections_with_requests_are_closed_last_and_trusted_ones_never() {
        let mut table = table(&[1, 1, 1]);
        set_phase(&mut table, 1, Phase::Trusted);
        set_phase(&mut table, 2, Phase::Handling);
        assert!(table.add(address(1), 3, 3).is_some());
        assert_eq!(open(&table), [1, 2, 4], "the third one waited");
        set_phase(&mut table, 4, Phase::Trusted);
        assert!(table.add(address(1), 3, 3).is_some());
        assert_eq!(open(&table), [1, 4, 5]);
        set_phase(&mut table, 5, Phase::Trusted);
        assert!(table.add(address(1), 3, 3).is_none(), "it is refused");
        assert!(table.add(address(2), 3, 3).is_none());
    }
}
