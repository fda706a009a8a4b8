//! What a backend claims, and the bounds that it declares.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// The capabilities of `docs/contract.md`. A statement marked `[x]` there holds where `x` is claimed here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// Records live under a lease, which survives a change of the store's leader.
    pub lease: bool,
    /// A dead owner's records go by a time to live.
    pub ttl: bool,
    /// An owner's death is proven at once, before its time to live has passed.
    pub death_notice: bool,
    /// Of two owners of one key exactly one succeeds.
    pub exclusive: bool,
    /// Incarnations survive gaps in a watch.
    pub incarnation: bool,
    /// Several writes can be one transaction.
    pub batch: bool,
    /// The history of changes can be read from a token on.
    pub changelog: bool,
    /// The store has several members and survives the loss of one.
    pub cluster: bool,
    /// Ten thousand sessions may expire together.
    pub storm: bool,
    /// A record is visible only while its owner is ready.
    pub readiness: bool,
    /// Processes share plain files, which other implementations write too.
    pub file: bool,
}

impl Capabilities {
    /// No claim at all.
    pub const fn none() -> Self {
        Self {
            lease: false,
            ttl: false,
            death_notice: false,
            exclusive: false,
            incarnation: false,
            batch: false,
            changelog: false,
            cluster: false,
            storm: false,
            readiness: false,
            file: false,
        }
    }

    /// Every capability by its name in the contract, with whether it is claimed.
    pub fn entries(&self) -> Vec<(&'static str, bool)> {
        vec![
            ("lease", self.lease),
            ("ttl", self.ttl),
            ("death_notice", self.death_notice),
            ("exclusive", self.exclusive),
            ("incarnation", self.incarnation),
            ("batch", self.batch),
            ("changelog", self.changelog),
            ("cluster", self.cluster),
            ("storm", self.storm),
            ("readiness", self.readiness),
            ("file", self.file),
        ]
    }
}

/// The figures that a backend declares, on the class of machine that its documentation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Bounds {
    /// `P`: from a committed change to every view that matches it.
    pub propagation: Duration,
    /// The smallest time to live that the store honours; `None` without `[ttl]`.
    pub min_ttl: Option<Duration>,
    /// The time to live where the user asks for none; `None` without `[ttl]`.
    pub default_ttl: Option<Duration>,
    /// `S`: how much later than its time to live a dead owner's records may go.
    pub slack: Duration,
    /// `R`: from the end of a fault until views and records are right again. The core verifies an owner's records once in
    /// each `R`, sooner by what a repair takes, so that what it finds is mended within `R`: by twice what a verification and
    /// a write took of late, which counts for a fiftieth of `R` at least and for a fifth at most; and by up to a fiftieth
    /// more, so that owners do not go on in step. It does so again soon after a verification that failed, and when
    /// [its session asks](crate::backend::Session::verify_by). It reopens watches at least twice in each `R`.
    pub recovery: Duration,
    /// How long an open watch may be silent before the core takes it for dead and opens it anew; `None` for never.
    /// A backend that sets it sends [`Progress`](crate::backend::WatchEvent::Progress) more often than this.
    pub silence: Option<Duration>,
    /// The largest atomic batch; 1 without `[batch]`.
    pub max_batch: usize,
    /// How many watches a handle opens at most. At least 2.
    pub max_watches: usize,
    /// The longest value in bytes.
    pub max_value: usize,
}

impl Bounds {
    /// Refuses a value of more bytes than [`max_value`](Self::max_value), for
    /// [`Backend::admit`](crate::backend::Backend::admit). The backend and the key are the caller's to add.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`], saying both lengths.
    pub fn admit_value(&self, value: usize) -> Result<()> {
        let most = self.max_value;
        if value > most {
            let message =
                format!("the value takes {value} bytes, and {most} are possible: store a reference to it instead");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        Ok(())
    }
}

impl Default for Bounds {
    /// Propagation and slack of one second, recovery of five, 64 watches, values of 1 MiB, no batches, no TTL.
    fn default() -> Self {
        Self {
            propagation: Duration::from_secs(1),
            min_ttl: None,
            default_ttl: None,
            slack: Duration::from_secs(1),
            recovery: Duration::from_secs(5),
            silence: None,
            max_batch: 1,
            max_watches: 64,
            max_value: 1 << 20,
        }
    }
}
