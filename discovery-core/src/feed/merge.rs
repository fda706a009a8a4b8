//! How narrow feeds become one wide feed, and what happens where the store refuses the wide one.

use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::scopes::{Scopes, Stage};
use super::{Command, Feed, FeedOwner, Released};
use crate::backoff::Backoff;
use crate::query::Scope;

impl Scopes {
    /// Follows a new feed until it has its first snapshot, and then moves the slots of narrower feeds to it. Where it is
    /// refused, those that joined it because it is wider go to feeds of their own. Holds no feed open.
    pub(super) async fn merge(self: Arc<Self>, wide: Weak<FeedOwner>, feed: Arc<Feed>) {
        let mut progress = feed.progress.clone();
        let mut status = feed.status.subscribe();
        let ready = progress.wait_for(|progress| progress.position.is_some());
        tokio::pin!(ready);
        let refused = tokio::select! {
            biased;
            ready = &mut ready => match ready {
                Ok(_) => false,
                Err(_) => return,
            },
            // The feed holds the sender.
            _ = status.wait_for(|status| status.refused) => true,
        };
        if refused {
            self.table().refused.insert(feed.scope.clone());
            self.expel(&feed).await;
            if ready.await.is_err() {
                return;
            }
            self.table().refused.remove(&feed.scope);
        }
        while let Some(narrow) = self.next_narrower(&feed.scope) {
            let scope = narrow.scope.clone();
            if let Some(owner) = wide.upgrade() {
                if let Some(released) = narrow.ask(|reply| Command::Release { reply }).await {
                    self.hand_over(released, &scope, owner).await;
                }
                self.forget(&narrow);
            } else {
                self.set_stage(&scope, Stage::Serving);
                return;
            }
        }
    }

    /// A feed inside `scope` that nobody moves yet, marked as leaving.
    fn next_narrower(&self, scope: &Scope) -> Option<Arc<Feed>> {
        let mut table = self.table();
        let inside = table.feeds.iter_mut().filter(|(held, _)| scope.covers(held) && *held != scope);
        for (_, entry) in inside.filter(|(_, entry)| entry.stage == Stage::Serving) {
            if let Some(owner) = entry.owner.upgrade() {
                entry.stage = Stage::Leaving;
                return Some(owner.feed());
            }
        }
        None
    }

    fn set_stage(&self, scope: &Scope, stage: Stage) {
        if let Some(entry) = self.table().feeds.get_mut(scope) {
            entry.stage = stage;
        }
        self.table_changed();
    }

    /// A feed that is over leaves the table, unless another one stands in its place already.
    fn forget(&self, feed: &Arc<Feed>) {
        let mut table = self.table();
        let same = |owner: Arc<FeedOwner>| Arc::ptr_eq(&owner.feed, feed);
        if table.feeds.get(&feed.scope).is_some_and(|entry| entry.owner.upgrade().is_none_or(same)) {
            table.feeds.remove(&feed.scope);
        }
        drop(table);
        self.table_changed();
    }

    /// Gives slots to the feed of `owner`, or to whichever serves their scope by then, and waits until they are adopted
    /// or move on.
    async fn hand_over(self: &Arc<Self>, released: Released, scope: &Scope, owner: Arc<FeedOwner>) {
        let from = Arc::clone(&released.from);
        let Some((feed, mut adopted)) = self.give(released, owner).await else { return };
        self.set_stage(scope, Stage::Arriving);
        // Nothing need change in the store for the feed to get where the slots are, and after a loss of data it never
        // gets there: once it has seen all that was written before now, it is far enough.
        let limit = self.context.settings.open_timeout;
        let mut backoff = Backoff::new(self.context.backend.bounds().recovery / 2);
        loop {
            tokio::select! {
                biased;
                _ = &mut adopted => return,
                caught_up = timeout(limit, feed.catch_up()) => {
                    if matches!(caught_up, Ok(Ok(()))) {
                        // The feed may have ended: its slots are on their way to another one.
                        let _ = feed.commands.send(Command::AdoptNow { from }).await;
                        let _ = adopted.await;
                        return;
                    }
                }
            }
            // Whoever used the slots may be gone, and nobody then needs the feed.
            feed.slot_dropped();
            tokio::select! {
                biased;
                _ = &mut adopted => return,
                () = sleep(backoff.next()) => {}
            }
        }
    }

    /// Sends slots to a feed, and to another one where that has ended. `None`: the handle is shut down.
    async fn give(
        self: &Arc<Self>,
        mut released: Released,
        mut owner: Arc<FeedOwner>,
    ) -> Option<(Arc<Feed>, oneshot::Receiver<()>)> {
        loop {
            let (reply, adopted) = oneshot::channel();
            let feed = owner.feed();
            match feed.commands.send(Command::Adopt { released, owner, reply }).await {
                Ok(()) => return Some((feed, adopted)),
                Err(mpsc::error::SendError(Command::Adopt { released: back, .. })) => released = back,
                Err(_) => return None,
            }
            tokio::task::yield_now().await;
            owner = self.serving_again(&released.from.scope).await?;
        }
    }

    /// The feed that serves `scope`, though its slots are on their way.
    async fn serving_again(self: &Arc<Self>, scope: &Scope) -> Option<Arc<FeedOwner>> {
        self.table().feeds.remove(scope);
        self.feed_for(scope).await.ok()
    }

    /// Moves the slots of narrower scopes out of a feed that the store refuses.
    async fn expel(self: &Arc<Self>, feed: &Arc<Feed>) {
        let Some(mut expelled) = feed.ask(|reply| Command::Expel { reply }).await else { return };
        for (type_id, slot) in std::mem::take(&mut expelled.slots) {
            let scope = self.context.backend.coarsen(slot.scope());
            let one = Released {
                from: Arc::clone(&expelled.from),
                slots: vec![(type_id, slot)],
                position: None,
                speakers: Vec::new(),
                last_good: expelled.last_good.clone(),
            };
            let Ok(owner) = self.feed_for(&scope).await else { return };
            // They have shown nothing yet, so there is nothing to wait for.
            drop(self.give(one, owner).await);
        }
    }
}
