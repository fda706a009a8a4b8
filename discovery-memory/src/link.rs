//! The network and the process between one handle and the cluster.

use std::time::Duration;

use discovery_core::{Error, ErrorKind};
use tokio::sync::watch;

/// What is wrong with a link now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Condition {
    mode: Mode,
    paused: bool,
    pub(crate) delay: Duration,
    pub(crate) delay_writes: Duration,
    pub(crate) drop_acks: bool,
    /// How often the connection broke. A stream ends when this has changed since it was opened.
    pub(crate) breaks: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Up,
    Cut,
    HalfOpen,
    Denied,
    Crashed,
    Closed,
}

/// Whether something gets through.
#[derive(Debug)]
pub(crate) enum Passage {
    Open,
    /// Neither an answer nor an error, until the link changes.
    Hang,
    Fail(Error),
}

impl Condition {
    pub(crate) fn passage(&self) -> Passage {
        let unavailable = |message: &str| Passage::Fail(Error::new(ErrorKind::Unavailable, message));
        match self.mode {
            Mode::Closed => Passage::Fail(Error::new(ErrorKind::Closed, "this handle was closed: connect another one")),
            Mode::Crashed => unavailable("the process of this handle was killed"),
            _ if self.paused => Passage::Hang,
            Mode::Up => Passage::Open,
            Mode::Cut => unavailable("the link is cut: heal it"),
            Mode::HalfOpen => Passage::Hang,
            Mode::Denied => Passage::Fail(Error::new(
                ErrorKind::PermissionDenied,
                "this handle may not use the cluster: heal its link",
            )),
        }
    }
}

/// One handle's connection, and what can be done to it. See [`MemoryBackend::link`](crate::MemoryBackend::link).
///
/// Each of these replaces the earlier ones of the same sort: a link is cut, half open, denied or in order; delays and
/// lost answers are independent of that. A link of a crashed or closed handle stays dead.
#[derive(Debug)]
pub struct Link {
    condition: watch::Sender<Condition>,
}

impl Link {
    pub(crate) fn new() -> Self {
        Self { condition: watch::Sender::new(Condition::default()) }
    }

    pub(crate) fn condition(&self) -> Condition {
        *self.condition.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }

    fn turn(&self, mode: Mode) {
        self.condition.send_modify(|condition| {
            if matches!(condition.mode, Mode::Crashed | Mode::Closed) {
                return;
            }
            condition.mode = mode;
            if !matches!(mode, Mode::Up | Mode::HalfOpen) {
                condition.breaks += 1;
            }
        });
    }

    /// Calls fail with [`ErrorKind::Unavailable`] and no effect; open streams end with that error.
    pub fn cut(&self) {
        self.turn(Mode::Cut);
    }

    /// Calls and streams hang without a word, as when packets are dropped. Healing lets them go on where they were.
    pub fn half_open(&self) {
        self.turn(Mode::HalfOpen);
    }

    /// Calls fail with [`ErrorKind::PermissionDenied`]; open streams end with that error.
    pub fn deny(&self) {
        self.turn(Mode::Denied);
    }

    /// Each call takes this much longer before it does anything. Streams are not delayed.
    pub fn delay(&self, by: Duration) {
        self.condition.send_modify(|condition| condition.delay = by);
    }

    /// Each write is accepted by the network, and reaches the store this much later even where its caller has given
    /// up by then. It is fenced there: it changes nothing if its session has ended or was superseded, or if a newer
    /// write of the session came first.
    pub fn delay_writes(&self, by: Duration) {
        self.condition.send_modify(|condition| condition.delay_writes = by);
    }

    /// Writes and the closing of a session take effect, and their answer is lost:
    /// [`ErrorKind::Unavailable`] with [`Effect::Unknown`](discovery_core::Effect::Unknown).
    pub fn drop_acks(&self) {
        self.condition.send_modify(|condition| condition.drop_acks = true);
    }

    /// Ends all of these. Streams that ended stay ended.
    pub fn heal(&self) {
        self.turn(Mode::Up);
        self.condition.send_modify(|condition| {
            condition.delay = Duration::ZERO;
            condition.delay_writes = Duration::ZERO;
            condition.drop_acks = false;
        });
    }

    pub(crate) fn crash(&self) {
        self.turn(Mode::Crashed);
    }

    pub(crate) fn close(&self) {
        self.turn(Mode::Closed);
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.condition.send_modify(|condition| condition.paused = paused);
    }
}
