//! Loading one view again and again, for next to nothing while it does not change.

use std::fmt;
use std::sync::Arc;

use crate::store::Latest;
use crate::view::{Snapshot, View};

/// Loads a view and keeps what it loaded: for a loop that looks a record up for every request.
///
/// [`View::load`] counts a reference, on a counter that all threads share. A reader compares one number, and counts
/// only after a change. In exchange it is one task's or thread's own, and what it loaded last stays in memory until it
/// loads again or is dropped: let go of readers that rest for long. Like the view, it keeps the handle open.
///
/// ```
/// # use discovery_core::{Discovery, Path, Query, Record, Result};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Worker { address: String }
/// # impl Record for Worker {
/// #     const KIND: &'static str = "worker";
/// #     fn path(&self) -> Result<Path> { Path::new(Self::KIND, ["pool"]) }
/// # }
/// # async fn route(discovery: Discovery, mut requests: tokio::sync::mpsc::Receiver<u64>) -> Result<()> {
/// let mut workers = discovery.view::<Worker>(Query::all()).await?.reader();
/// while let Some(request) = requests.recv().await {
///     if let Some(worker) = workers.load().pick(request) {
///         println!("{request} goes to {}", worker.address);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Reader<T> {
    latest: Latest<T>,
    snapshot: Snapshot<T>,
    view: View<T>,
}

impl<T: Send + Sync + 'static> Reader<T> {
    pub(crate) fn new(view: View<T>) -> Self {
        Self { latest: Latest::new(Arc::clone(&view.slot)), snapshot: view.load(), view }
    }

    /// The newest state. What is loaded next may be another; clone the snapshot to keep this one.
    ///
    /// Never older than what any load, list or batch has shown that this thread knows of. No I/O, no lock.
    #[inline]
    pub fn load(&mut self) -> &Snapshot<T> {
        if let Some(version) = self.latest.newer() {
            self.snapshot.show(version);
        }
        &self.snapshot
    }

    /// The view that is read.
    pub fn view(&self) -> &View<T> {
        &self.view
    }
}

impl<T: Send + Sync + 'static> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self::new(self.view.clone())
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("view", &self.view).finish()
    }
}
