//! One client's way to its servers, on which several things can be wrong at a time.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::Result;
use crate::proxy::{Direction, Proxy};

/// What is wrong with a way.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Way {
    /// The client's process is dead.
    pub dead: bool,
    /// Connections are reset, and new ones refused.
    pub cut: bool,
    /// Nothing passes, either way, and no connection ends.
    pub stalled: bool,
    /// Answers are lost: once this is over they are not late, but their connections are reset.
    pub deaf: bool,
    /// What the client sends arrives this much later.
    pub late: Option<Duration>,
    /// Nobody is let through for the moment.
    pub closed: bool,
}

/// A proxy before each of some servers, all of which one client uses and no other does.
#[derive(Debug)]
pub struct Network {
    proxies: Vec<Proxy>,
    way: Mutex<Way>,
}

impl Network {
    /// A way to these addresses, with nothing wrong.
    ///
    /// # Errors
    /// See [`Proxy::to`].
    pub fn to(servers: impl IntoIterator<Item = SocketAddr>) -> Result<Self> {
        let proxies = servers.into_iter().map(Proxy::to);
        Ok(Self { proxies: proxies.collect::<Result<_>>()?, way: Mutex::default() })
    }

    /// The proxies, in the order of the servers.
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// Makes something wrong with the way, or right again, beside what else is.
    pub fn change(&self, change: impl FnOnce(&mut Way)) {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        let was = *way;
        change(&mut way);
        for proxy in &self.proxies {
            if way.dead || way.cut || way.closed {
                proxy.cut();
                continue;
            }
            if was.deaf && !way.deaf {
                proxy.reset();
            }
            proxy.heal();
            if way.stalled {
                proxy.stall();
            }
            if way.deaf {
                proxy.stall_only(Direction::ToClient);
            }
            if let Some(late) = way.late {
                proxy.delay_only(Direction::ToServer, late);
            }
        }
    }

    /// Resets every connection. New ones are as before.
    pub fn reset(&self) {
        self.proxies.iter().for_each(Proxy::reset);
    }
}
