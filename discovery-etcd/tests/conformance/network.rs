//! One owner's way to the members: a proxy before each of them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use discovery_core::Result;
use discovery_testbed::{Direction, Etcd, Proxy};

use super::failed;

/// What is wrong with the way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    /// The owner's process is dead.
    pub(super) dead: bool,
    pub(super) cut: bool,
    /// Nothing passes, either way, and no connection ends.
    pub(super) stalled: bool,
    /// Answers are lost.
    pub(super) deaf: bool,
    /// What the owner sends arrives this much later.
    pub(super) late: Option<Duration>,
    /// Nobody is let through for the moment.
    pub(super) closed: bool,
}

pub(super) struct Network {
    proxies: Vec<Proxy>,
    way: Mutex<Way>,
}

impl Network {
    pub(super) fn to(members: &[Etcd]) -> Result<Self> {
        let proxies = members.iter().map(|member| Proxy::to_port(member.port()).map_err(failed));
        Ok(Self { proxies: proxies.collect::<Result<_>>()?, way: Mutex::default() })
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = String> + '_ {
        self.proxies.iter().map(|proxy| format!("http://{}", proxy.address()))
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Way)) {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        let was = *way;
        change(&mut way);
        for proxy in &self.proxies {
            if way.dead || way.cut || way.closed {
                proxy.cut();
                continue;
            }
            // What was not let through is lost, not late.
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
}
