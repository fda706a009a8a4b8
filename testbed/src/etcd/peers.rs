//! What the members of a cluster reach each other through, and who is kept from whom.
//!
//! Each member is advertised at a proxy. A proxy alone could cut what goes to a member; what that member sends goes to the
//! proxies of the others, who tell it from what they send each other by the process that holds the connection's other end.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::Member;
use crate::error::Result;
use crate::proxy::Proxy;

/// A member that is alone.
#[derive(Clone, Copy, Debug)]
struct Alone {
    index: usize,
    pid: u32,
}

/// A proxy before each member.
#[derive(Debug)]
pub(super) struct Peers {
    proxies: Vec<Proxy>,
    alone: Arc<Mutex<Option<Alone>>>,
}

impl Peers {
    pub(super) fn of(members: &[Member]) -> Result<Self> {
        let alone = Arc::<Mutex<Option<Alone>>>::default();
        let proxies = members.iter().enumerate().map(|(index, member)| {
            let alone = Arc::clone(&alone);
            let admits = move |client, proxy| match *alone.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(alone) => alone.index != index && !holds(alone.pid, client, proxy),
                None => true,
            };
            Proxy::guarded(member.peer.address(), admits)
        });
        Ok(Self { proxies: proxies.collect::<Result<_>>()?, alone })
    }

    /// Where members find the one of this index.
    pub(super) fn address(&self, index: usize) -> SocketAddr {
        self.proxies[index].address()
    }

    /// Nothing passes between the member of this index, which is this process, and the others.
    pub(super) fn isolate(&self, index: usize, pid: u32) {
        self.set(Some(Alone { index, pid }));
        // What is open was let through before.
        self.proxies.iter().for_each(Proxy::reset);
    }

    pub(super) fn rejoin(&self) {
        self.set(None);
    }

    fn set(&self, alone: Option<Alone>) {
        *self.alone.lock().unwrap_or_else(PoisonError::into_inner) = alone;
    }
}

/// Whether a process holds the end of a connection that is at `own`, on the way to `other`. One that has ended it already
/// counts as if it did: nothing is lost by it.
fn holds(pid: u32, own: SocketAddr, other: SocketAddr) -> bool {
    let Some(inode) = inode(own, other) else { return true };
    let wanted = format!("socket:[{inode}]");
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|to| to.as_os_str() == &*wanted))
}

/// The number of the socket at `own`.
fn inode(own: SocketAddr, other: SocketAddr) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    // Addresses are in the machine's order of bytes, and all the same here: ports tell.
    let ends = |address: &str, end: SocketAddr| address.ends_with(&format!(":{:04X}", end.port()));
    table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find_map(|fields| match fields[..] {
        [_, local, remote, _, _, _, _, _, _, inode, ..] if ends(local, own) && ends(remote, other) => {
            Some(inode.to_owned())
        }
        _ => None,
    })
}
