//! How narrow feeds become one wide feed, and what happens where the store refuses the wide one.

use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::scopes::{Move, Scopes, Stage};
use super::{Command, Feed, FeedOwner, Released};
use crate::backoff::Backoff;
use crate::query::Scope;

impl Scopes {
    /// Follows a new feed until it has its first snapshot, and then moves the slots of narrower feeds to it. Where it is
    /// refused, those that joined it because it is wider go to feeds of their own. Holds no feed open.
    pub(super) async fn merge(self: Arc<Self>, wide: Weak<FeedOwner>, feed: Arc<Feed>) {
        let progress = feed.progress.clone();
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
        // Where this one has itself been released to a wider one, the narrower ones are left to that.
        while !feed.is_over() {
            let Some(owner) = wide.upgrade() else { return };
            let Some(narrow) = self.next_narrower(&feed.scope) else { return };
            if let Some(released) = narrow.ask(|reply| Command::Release { reply }).await {
                self.hand_over(released, owner).await;
            }
            self.moved(&narrow);
        }
    }

    /// A feed inside `scope`, which serves no more from here on: its slots are leaving.
    fn next_narrower(&self, scope: &Scope) -> Option<Arc<Feed>> {
        let mut table = self.table();
        let mut inside = table.feeds.iter().filter(|(held, _)| scope.covers(held) && *held != scope);
        let owner = inside.find_map(|(_, owner)| owner.upgrade())?;
        let feed = owner.feed();
        table.feeds.remove(&feed.scope);
        table.moves.push(Move { feed: Arc::clone(&feed), owner: Arc::downgrade(&owner), stage: Stage::Leaving });
        Some(feed)
    }

    /// The slots of a feed are with another one, which shows them once it is as far as they are.
    fn arriving(&self, feed: &Arc<Feed>) {
        for one in self.table().moves.iter_mut().filter(|one| Arc::ptr_eq(&one.feed, feed)) {
            one.stage = Stage::Arriving;
        }
        self.table_changed();
    }

    /// The slots of a feed have arrived, or there is nobody left who would use them.
    fn moved(&self, feed: &Arc<Feed>) {
        self.table().moves.retain(|one| !Arc::ptr_eq(&one.feed, feed));
        self.table_changed();
    }

    /// Gives slots to the feed of `owner`, or to whichever serves their scope by then, and waits until they are adopted
    /// or move on.
    async fn hand_over(self: &Arc<Self>, released: Released, owner: Arc<FeedOwner>) {
        let from = Arc::clone(&released.from);
        let Some((feed, mut adopted)) = self.give(released, &from.scope, owner).await else { return };
        self.arriving(&from);
        // Nothing need change in the store for the feed to get where the slots are, and after a loss of data it never
        // gets there: once it has seen all that was written before now, it is far enough.
        let limit = self.context.settings.open_timeout;
        let mut backoff = Backoff::seeded(self.context.backend.bounds().recovery / 2, self.context.seed);
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

    /// Sends slots to a feed, and where that has ended to the one that serves `scope`, which holds them all. `None`: the
    /// handle is shut down.
    async fn give(
        self: &Arc<Self>,
        mut released: Released,
        scope: &Scope,
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
            owner = self.feed_for_moving(scope).await.ok()?;
        }
    }

    /// Moves the slots of narrower scopes out of a feed that the store refuses.
    async fn expel(self: &Arc<Self>, feed: &Arc<Feed>) {
        let Some(mut expelled) = feed.ask(|reply| Command::Expel { reply }).await else { return };
        // One by one: those that are still in it end with it.
        while let Some((type_id, slot)) = expelled.slots.pop() {
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
            drop(self.give(one, &scope, owner).await);
        }
    }
}
