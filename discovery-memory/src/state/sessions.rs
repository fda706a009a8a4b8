//! Sessions and the handles that they belong to.

use std::collections::BTreeSet;
use std::time::Duration;

use discovery_core::{Error, ErrorKind, InstanceId, Key};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Due, Lease, OwnerId, State};
use crate::cluster::later;

/// Why a session is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Expired,
    Revoked,
    Superseded,
    DataLost,
    Closed,
}

impl Ended {
    pub(crate) fn error(self) -> Error {
        let message = match self {
            Self::Expired => "the session expired: it was not renewed in time",
            Self::Revoked => "the session was revoked",
            Self::Superseded => "the session was superseded by a newer one of the same handle",
            Self::DataLost => "the store lost the session with its data",
            Self::Closed => "the session was closed",
        };
        Error::new(ErrorKind::SessionLost, message)
    }
}

/// A handle, as the store knows it.
#[derive(Debug, Default)]
pub(super) struct Owner {
    /// The session that may write.
    pub(super) current: Option<u64>,
    pub(super) ready: bool,
    /// It will never be ready again.
    pub(super) terminating: bool,
    pub(super) keys: BTreeSet<Key>,
    /// The handle was dropped; forgotten with its last record.
    gone: bool,
}

impl Owner {
    pub(super) fn is_visible(&self) -> bool {
        self.ready && !self.terminating
    }
}

#[derive(Debug)]
pub(super) struct SessionState {
    pub(super) lease: Lease,
    deadline: Instant,
    /// The newest revision when it was opened.
    pub(super) opened: u64,
    /// The sequence number of the newest publish that arrived.
    pub(super) arrived: u64,
    pub(super) ended: watch::Sender<Option<Ended>>,
}

/// A session that was just opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) session: u64,
    pub(crate) ended: watch::Receiver<Option<Ended>>,
}

impl State {
    pub(crate) fn open_session(&mut self, owner: OwnerId, instance: InstanceId, ttl: Duration, now: Instant) -> Opened {
        let session = self.new_id();
        let previous = self.owners.entry(owner).or_default().current.replace(session);
        if let Some(previous) = previous.and_then(|id| self.sessions.get(&id)) {
            previous.ended.send_replace(Some(Ended::Superseded));
        }
        let ended = self.insert_session(Lease { owner, session, instance, ttl }, now);
        self.noticed();
        Opened { session, ended }
    }

    fn insert_session(&mut self, lease: Lease, now: Instant) -> watch::Receiver<Option<Ended>> {
        let (ended, receiver) = watch::channel(None);
        let deadline = later(now, lease.ttl);
        let opened = self.revision;
        self.sessions.insert(lease.session, SessionState { lease, deadline, opened, arrived: 0, ended });
        self.schedule(deadline, lease.session, Due::Expiry);
        receiver
    }

    /// Gives a session of the past the rest of its time to live, for records that came back with it. It takes no more
    /// writes.
    pub(super) fn revive_session(&mut self, lease: Lease, now: Instant) {
        if !self.sessions.contains_key(&lease.session) {
            drop(self.insert_session(lease, now));
        }
    }

    pub(crate) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Whether `session` is the one of its handle that may write.
    pub(crate) fn is_current(&self, owner: OwnerId, session: u64) -> bool {
        self.owners.get(&owner).is_some_and(|owner| owner.current == Some(session))
    }

    pub(crate) fn deadline(&self, session: u64) -> Option<Instant> {
        self.sessions.get(&session).map(|state| state.deadline)
    }

    /// Starts a session's time to live again. Answers whether it is the current one of its handle.
    pub(crate) fn renew_session(&mut self, owner: OwnerId, session: u64, now: Instant) -> bool {
        let current = self.is_current(owner, session);
        if current {
            self.extend(session, now);
        }
        current
    }

    /// Deadlines only move away here, so nobody who sleeps until the old one wakes too late.
    fn extend(&mut self, session: u64, now: Instant) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        self.timers.remove(&(state.deadline, session));
        state.deadline = later(now, state.lease.ttl);
        self.timers.insert((state.deadline, session), Due::Expiry);
    }

    pub(crate) fn extend_all(&mut self, now: Instant) {
        let sessions: Vec<u64> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.extend(session, now);
        }
    }

    /// Ends a session and removes its records in one transaction.
    pub(crate) fn end_with_records(&mut self, session: u64, why: Ended) {
        let Some(owner) = self.end_session(session, why) else { return };
        let keys = self.owners.get(&owner).map(|owner| &owner.keys).into_iter().flatten();
        let gone: Vec<_> = keys
            .filter(|key| {
                let lease = self.records.get(key).and_then(|record| record.lease);
                lease.is_some_and(|lease| lease.session == session)
            })
            .map(|key| (key.clone(), None))
            .collect();
        if !gone.is_empty() {
            self.commit(gone);
        }
        self.forget_if_gone(owner);
    }

    /// Ends a session and leaves the records alone. Answers whose it was.
    pub(super) fn end_session(&mut self, session: u64, why: Ended) -> Option<OwnerId> {
        let state = self.sessions.remove(&session)?;
        self.timers.remove(&(state.deadline, session));
        state.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(why);
            first
        });
        let owner = state.lease.owner;
        if let Some(owner) = self.owners.get_mut(&owner).filter(|owner| owner.current == Some(session)) {
            owner.current = None;
        }
        self.noticed();
        Some(owner)
    }

    /// The sessions of one instance, or of one handle.
    pub(crate) fn sessions_where(&self, chosen: impl Fn(OwnerId, InstanceId) -> bool) -> Vec<u64> {
        let sessions = self.sessions.iter();
        let mut found: Vec<_> =
            sessions.filter(|(_, state)| chosen(state.lease.owner, state.lease.instance)).map(|(id, _)| *id).collect();
        found.sort_unstable();
        found
    }

    /// A handle was dropped. What its sessions stored lives on until they expire.
    pub(crate) fn drop_owner(&mut self, id: OwnerId) {
        if let Some(owner) = self.owners.get_mut(&id) {
            owner.gone = true;
            self.forget_if_gone(id);
        }
    }

    fn forget_if_gone(&mut self, id: OwnerId) {
        if self.owners.get(&id).is_some_and(|owner| owner.gone && owner.current.is_none() && owner.keys.is_empty()) {
            self.owners.remove(&id);
        }
    }
}
