//! What a backend author implements: where stores come from, and which faults can be done to them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use discovery_core::backend::Backend;
use discovery_core::{Error, ErrorKind, Key, Result};

use crate::report::Verdict;

/// Which clock the cases of a backend run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Clock {
    /// Tokio's paused clock: for backends that do no I/O of their own. An hour passes in no time.
    Paused,
    /// The clock on the wall.
    Real,
}

/// That no store can be had on this machine, and what that makes of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The run fails and says this: what to install, or what to set.
    Fails(String),
    /// Every case is reported as ignored, for this reason.
    Ignored(String),
}

/// Makes stores for the cases. One for each backend.
#[async_trait]
pub trait Factory: Send + Sync + 'static {
    /// The backend's name, as `DYN_DISCOVERY_BACKEND` would pick it.
    fn name(&self) -> &str;

    /// Which clock its cases run on. The default is the real one.
    fn clock(&self) -> Clock {
        Clock::Real
    }

    /// Which faults its worlds can do. The default is none: the verdict then says "black box".
    fn hooks(&self) -> Vec<Hook> {
        Vec::new()
    }

    /// Why a fault cannot exist on this backend at all, whoever does it; `None` where it can. A case that needs one is
    /// not applicable then, for that reason, which every report shows. A fault that could happen and that the worlds cannot
    /// do is no such fault: leave it out of [`Factory::hooks`], and say nothing here. The default is that each can exist.
    fn impossible(&self, _fault: Hook) -> Option<&'static str> {
        None
    }

    /// The worst verdict that a whole run may come to: `harness::main` fails with a worse one. The default is
    /// [`Verdict::PassedBlackBox`]; a factory that does every fault there is says [`Verdict::Passed`].
    fn expects(&self) -> Verdict {
        Verdict::PassedBlackBox
    }

    /// Exactly the faults that cases need and that the worlds cannot do: `harness::main` fails a whole run where others are
    /// missing, so that a hook which is lost does not go unnoticed, nor one that came and may be counted on. The default is
    /// that nothing is said of it.
    fn missing(&self) -> Option<Vec<Hook>> {
        None
    }

    /// How many times a declared bound a case waits before it calls the bound broken. The bounds are those of a machine
    /// that has nothing else to do; the default of 4 is for one that runs other cases too.
    fn patience(&self) -> u32 {
        4
    }

    /// Says that no store can be had here, where that is so. Asked once, before the first world; a server that serves all
    /// worlds can be started here. The default is that worlds can be made.
    fn absent(&self) -> Option<Absent> {
        None
    }

    /// A new, empty store that no other world shares. Called on the runtime that the case runs on.
    ///
    /// # Errors
    /// What keeps the store from being made; the case fails with it.
    async fn world(&self) -> Result<Box<dyn World>>;

    /// The same for a case that may do these faults: where worlds share a server, a case that harms it needs one of its
    /// own. The default is [`Factory::world`].
    ///
    /// # Errors
    /// See [`Factory::world`].
    async fn world_for(&self, _faults: &[Hook]) -> Result<Box<dyn World>> {
        self.world().await
    }
}

/// One store, with its owners and its faults. Dropped when the case is over.
#[async_trait]
pub trait World: Send + Sync {
    /// A new handle on this store, as another process would have it. Called at most once for each number. Its owner is
    /// ready, where the store knows readiness.
    ///
    /// # Errors
    /// What keeps the handle from being made.
    async fn owner(&self, n: usize) -> Result<Arc<dyn Backend>>;

    /// Does a fault, or ends one. Answers when it is done.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where this world cannot do it: the case is then skipped.
    async fn inject(&self, fault: Fault) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, format!("no hook for {}", fault.hook())))
    }

    /// How many tasks run for this world elsewhere than on the case's runtime and on the threads of its handles: a case that
    /// counts them finds those that are left over. The default is none.
    fn tasks(&self) -> usize {
        0
    }

    /// Frees what the store holds, after the case.
    async fn close(&self) {}
}

/// Something that is done to a store, or to the n-th owner's way to it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The owner's connections break, and new ones are refused.
    Cut(usize),
    /// The owner's packets get lost without a word, both ways.
    HalfOpen(usize),
    /// The owner's way to the store is whole again.
    Heal(usize),
    /// Nobody reaches the store.
    Outage,
    /// The store serves again, with the data it had.
    Restore,
    /// The owner's session ends at once, its records with it; the owner is healthy.
    Revoke(usize),
    /// The owner's process dies without a word.
    Crash(usize),
    /// The owner's process stops: it does nothing, and nothing that it holds is let go.
    Pause(usize),
    /// It goes on.
    Resume(usize),
    /// The store forgets its history up to now.
    Compact,
    /// The store comes back empty.
    LoseData,
    /// The store comes back as it was this many transactions ago.
    RollBack(usize),
    /// Somebody deletes a record that is not theirs.
    Delete(Key),
    /// Somebody writes these bytes under a key.
    Write(Key, Bytes),
    /// Whether the store carries out the owner's writes and their acknowledgements get lost.
    DropAcks(usize, bool),
    /// The owner's writes reach the store this much later; `None` for at once.
    DelayWrites(usize, Option<Duration>),
    /// The store refuses the owner everything, for want of permission.
    Deny(usize),
    /// It allows it again.
    Allow(usize),
    /// Whether the owner is ready.
    Ready(usize, bool),
    /// The owner is being terminated, while its readiness still says ready.
    Terminate(usize),
    /// A record of this key and value stands there whose owner is not the one that is ready under its name.
    Impostor(Key, Bytes),
    /// The store's leader changes.
    LeaderChange,
    /// The store's member that the owner uses dies.
    LoseMember(usize),
    /// The store's member that leads dies.
    LoseLeader,
    /// Every member is back.
    RestoreMember,
    /// The wall clock of every process jumps by this many seconds.
    WallClock(i64),
    /// Whether the directory is read-only.
    ReadOnly(bool),
    /// Whether the disk is full.
    DiskFull(bool),
    /// A half-written record stands under this key.
    Torn(Key),
    /// Whether watches get transactions that wait together in another order, those of one key in theirs.
    Reorder(bool),
    /// Whether watches get every transaction twice.
    Duplicate(bool),
}

/// A kind of fault that a factory offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Hook {
    /// [`Fault::Cut`] and [`Fault::Heal`].
    Cut,
    /// [`Fault::HalfOpen`] and [`Fault::Heal`].
    HalfOpen,
    /// [`Fault::Outage`] and [`Fault::Restore`].
    Outage,
    /// [`Fault::Revoke`].
    Revoke,
    /// [`Fault::Crash`].
    Crash,
    /// [`Fault::Pause`] and [`Fault::Resume`].
    Pause,
    /// [`Fault::Compact`].
    Compact,
    /// [`Fault::LoseData`].
    LoseData,
    /// [`Fault::RollBack`].
    RollBack,
    /// [`Fault::Delete`].
    Delete,
    /// [`Fault::Write`].
    Write,
    /// [`Fault::DropAcks`].
    DropAcks,
    /// [`Fault::DelayWrites`].
    DelayWrites,
    /// [`Fault::Deny`] and [`Fault::Allow`].
    Deny,
    /// [`Fault::Ready`].
    Ready,
    /// [`Fault::Terminate`].
    Terminate,
    /// [`Fault::Impostor`].
    Impostor,
    /// [`Fault::LeaderChange`].
    LeaderChange,
    /// [`Fault::LoseMember`], [`Fault::LoseLeader`] and [`Fault::RestoreMember`].
    LoseMember,
    /// [`Fault::WallClock`].
    WallClock,
    /// [`Fault::ReadOnly`].
    ReadOnly,
    /// [`Fault::DiskFull`].
    DiskFull,
    /// [`Fault::Torn`].
    Torn,
    /// [`Fault::Reorder`].
    Reorder,
    /// [`Fault::Duplicate`].
    Duplicate,
}

impl Hook {
    /// Every kind of fault.
    pub const ALL: [Self; 25] = [
        Self::Cut,
        Self::HalfOpen,
        Self::Outage,
        Self::Revoke,
        Self::Crash,
        Self::Pause,
        Self::Compact,
        Self::LoseData,
        Self::RollBack,
        Self::Delete,
        Self::Write,
        Self::DropAcks,
        Self::DelayWrites,
        Self::Deny,
        Self::Ready,
        Self::Terminate,
        Self::Impostor,
        Self::LeaderChange,
        Self::LoseMember,
        Self::WallClock,
        Self::ReadOnly,
        Self::DiskFull,
        Self::Torn,
        Self::Reorder,
        Self::Duplicate,
    ];
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "cut",
            Self::HalfOpen => "half_open",
            Self::Outage => "outage",
            Self::Revoke => "revoke",
            Self::Crash => "crash",
            Self::Pause => "pause",
            Self::Compact => "compact",
            Self::LoseData => "lose_data",
            Self::RollBack => "roll_back",
            Self::Delete => "delete",
            Self::Write => "write",
            Self::DropAcks => "drop_acks",
            Self::DelayWrites => "delay_writes",
            Self::Deny => "deny",
            Self::Ready => "ready",
            Self::Terminate => "terminate",
            Self::Impostor => "impostor",
            Self::LeaderChange => "leader_change",
            Self::LoseMember => "lose_member",
            Self::WallClock => "wall_clock",
            Self::ReadOnly => "read_only",
            Self::DiskFull => "disk_full",
            Self::Torn => "torn",
            Self::Reorder => "reorder",
            Self::Duplicate => "duplicate",
        })
    }
}

impl Fault {
    /// The hook that offers it. Healing counts as that of a cut, whatever it heals.
    pub fn hook(&self) -> Hook {
        match self {
            Self::Cut(_) | Self::Heal(_) => Hook::Cut,
            Self::HalfOpen(_) => Hook::HalfOpen,
            Self::Outage | Self::Restore => Hook::Outage,
            Self::Revoke(_) => Hook::Revoke,
            Self::Crash(_) => Hook::Crash,
            Self::Pause(_) | Self::Resume(_) => Hook::Pause,
            Self::Compact => Hook::Compact,
            Self::LoseData => Hook::LoseData,
            Self::RollBack(_) => Hook::RollBack,
            Self::Delete(_) => Hook::Delete,
            Self::Write(..) => Hook::Write,
            Self::DropAcks(..) => Hook::DropAcks,
            Self::DelayWrites(..) => Hook::DelayWrites,
            Self::Deny(_) | Self::Allow(_) => Hook::Deny,
            Self::Ready(..) => Hook::Ready,
            Self::Terminate(_) => Hook::Terminate,
            Self::Impostor(..) => Hook::Impostor,
            Self::LeaderChange => Hook::LeaderChange,
            Self::LoseMember(_) | Self::LoseLeader | Self::RestoreMember => Hook::LoseMember,
            Self::WallClock(_) => Hook::WallClock,
            Self::ReadOnly(_) => Hook::ReadOnly,
            Self::DiskFull(_) => Hook::DiskFull,
            Self::Torn(_) => Hook::Torn,
            Self::Reorder(_) => Hook::Reorder,
            Self::Duplicate(_) => Hook::Duplicate,
        }
    }
}
