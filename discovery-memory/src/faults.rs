//! Faults, to be switched on and off by tests and demonstrations.
//!
//! What happens to one handle's connection is at its [`Link`]: cut, half open, denied, slow, answers lost, writes late.
//! What happens to the cluster, to a process or to stored data is here, as methods of [`Cluster`]. Each takes effect
//! when it returns.

use bytes::Bytes;
use discovery_core::{InstanceId, Key};
use tokio::time::Instant;

use crate::backend::MemoryBackend;
use crate::cluster::Cluster;
pub use crate::link::Link;
use crate::state::Ended;

impl Cluster {
    /// The cluster answers nobody: calls fail with [`Unavailable`](discovery_core::ErrorKind::Unavailable), streams end
    /// with that error. Time goes on, so sessions that are not renewed expire meanwhile.
    pub fn outage(&self) {
        self.change_weather(|weather| {
            weather.down = true;
            weather.breaks += 1;
        });
    }

    /// Ends [`Cluster::outage`].
    pub fn restore(&self) {
        self.change_weather(|weather| weather.down = false);
    }

    /// A new leader: every connection breaks once, every session gets its whole time to live again, nothing is lost.
    pub fn change_leader(&self) {
        self.state().extend_all(Instant::now());
        self.change_weather(|weather| weather.breaks += 1);
    }

    /// The member dies that a handle uses: the connections to it break once, and go to another member. Where it led,
    /// every session gets its whole time to live again. Where most members are lost, nobody is answered. Nothing is lost.
    /// The only member of a cluster does not die.
    pub fn lose_member(&self, handle: &MemoryBackend) {
        if let Some(serving) = handle.handle().serving() {
            self.lose(serving.member);
        }
    }

    /// The same for the member that leads.
    pub fn lose_leader(&self) {
        if let Some(leader) = self.weather().members.leader() {
            self.lose(leader);
        }
    }

    fn lose(&self, member: usize) {
        let members = self.weather().members;
        if members.count() == 1 {
            return;
        }
        if members.leader() == Some(member) {
            self.state().extend_all(Instant::now());
        }
        self.change_weather(|weather| weather.members.lose(member));
    }

    /// Ends [`Cluster::lose_member`] and [`Cluster::lose_leader`]: every member serves again.
    pub fn restore_members(&self) {
        self.change_weather(|weather| weather.members.restore());
    }

    /// Ends the sessions of an instance, and removes the records of each in one transaction. Answers how many there
    /// were.
    pub fn revoke(&self, instance: InstanceId) -> usize {
        let mut state = self.state();
        let sessions = state.sessions_where(|_, id| id == instance);
        for session in &sessions {
            state.end_with_records(*session, Ended::Revoked);
        }
        sessions.len()
    }

    /// Ends the sessions of a handle, and removes the records of each in one transaction. Answers how many there were.
    pub fn revoke_handle(&self, handle: &MemoryBackend) -> usize {
        let mut state = self.state();
        let sessions = state.sessions_where(|owner, _| owner == handle.owner());
        for session in &sessions {
            state.end_with_records(*session, Ended::Revoked);
        }
        sessions.len()
    }

    /// Kills the process of a handle, as SIGKILL does: its calls and streams fail for ever, and nothing is withdrawn.
    /// Its records go when its session expires.
    pub fn crash(&self, handle: &MemoryBackend) {
        handle.link().crash();
    }

    /// Stops the process of a handle, as SIGSTOP does: its calls and streams hang until [`Cluster::resume`].
    pub fn pause(&self, handle: &MemoryBackend) {
        handle.link().set_paused(true);
    }

    /// Ends [`Cluster::pause`]: what hung goes on, and meets the store as it is now.
    pub fn resume(&self, handle: &MemoryBackend) {
        handle.link().set_paused(false);
    }

    /// Whether a handle is ready: with [`Cluster::with_readiness`] its records are visible only while it is, and it
    /// starts out as not ready. All its records appear or disappear in one transaction. Elsewhere it changes nothing.
    pub fn set_ready(&self, handle: &MemoryBackend, ready: bool) {
        self.state().set_ready(handle.owner(), ready);
    }

    /// A handle is being terminated: its records are invisible at once and for good, whatever [`Cluster::set_ready`]
    /// says. Where readiness is not claimed it changes nothing.
    pub fn terminate(&self, handle: &MemoryBackend) {
        self.state().terminate(handle.owner());
    }

    /// Stores bytes under a key in the name of an owner that is not ready, whoever is ready under the key's instance id:
    /// nobody sees it. It stays until it is deleted. Where readiness is not claimed, everybody sees it.
    pub fn impersonate(&self, key: &Key, value: impl Into<Bytes>) {
        self.state().write_impostor(key, value.into());
    }

    /// Loses everything, sessions and history included. Open watches go on with a snapshot that says
    /// [`Reset`](discovery_core::backend::Lineage::Reset).
    pub fn lose_data(&self) {
        self.state().lose_data();
    }

    /// Goes back by this many revisions, or as far as history reaches, as after restoring a backup. Sessions that were
    /// opened since are lost. A record that comes back lives as long as its session, and for one time to live where
    /// that is gone. Open watches go on with a snapshot that says [`Reset`](discovery_core::backend::Lineage::Reset).
    pub fn roll_back(&self, revisions: usize) {
        self.state().roll_back(revisions, Instant::now());
    }

    /// Forgets the history before now. A reader that was still behind gets
    /// [`Expired`](discovery_core::ErrorKind::Expired); a position from before cannot be resumed.
    pub fn compact(&self) {
        self.state().compact();
    }

    /// Stores bytes under a key as something foreign would: without an owner or a session, whoever held the key, and
    /// never expiring. An owner that writes the key takes it over.
    pub fn inject(&self, key: &Key, value: impl Into<Bytes>) {
        self.state().write_foreign(key, Some(value.into()));
    }

    /// Removes a key, whoever holds it.
    pub fn delete(&self, key: &Key) {
        self.state().write_foreign(key, None);
    }

    /// Whether watches get transactions that wait together in another order. Those that share a key keep theirs, no
    /// transaction is split, and positions stay true: one says only what all before it have delivered.
    pub fn reorder(&self, on: bool) {
        self.state().reorder = on;
    }

    /// Whether watches get every batch twice in a row.
    pub fn duplicate(&self, on: bool) {
        self.state().duplicate = on;
    }
}
