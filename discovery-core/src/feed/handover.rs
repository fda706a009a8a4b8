//! How slots come to a feed and leave it.

use std::any::TypeId;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::run::{Stop, Task};
use super::{Command, Feed, FeedOwner, Released};
use crate::backend::Position;
use crate::freshness::Freshness;
use crate::query::Scope;
use crate::store::{AnySlot, KnownGood};

/// Slots of another feed that wait until this one is as far as they are. Until then they show what they have shown, and
/// the feed that they come from goes on speaking for their freshness.
pub(super) struct Adoption {
    from: Arc<Feed>,
    slots: Vec<(TypeId, Weak<dyn AnySlot>)>,
    position: Option<Position>,
    speakers: Vec<Arc<Feed>>,
    last_good: KnownGood,
    owner: Arc<FeedOwner>,
    reply: oneshot::Sender<()>,
}

impl Adoption {
    fn slots(&self) -> Vec<(TypeId, Arc<dyn AnySlot>)> {
        self.slots.iter().filter_map(|(type_id, slot)| Some((*type_id, slot.upgrade()?))).collect()
    }
}

impl Task {
    pub(super) async fn obey(&mut self, command: Command) -> Result<(), Stop> {
        match command {
            // Without an answer the caller asks for another feed.
            Command::Attach { slot, .. } if self.is_misplaced(slot.scope()) => {}
            Command::Attach { type_id, slot, owner, reply } => {
                let slot = match self.known(type_id, slot.scope()) {
                    Some(known) => known,
                    None => {
                        slot.attach(owner);
                        self.slots.insert(type_id, &slot);
                        if self.position.is_some() {
                            self.rebase([&slot]).await;
                        }
                        slot
                    }
                };
                if let Some(error) = &self.hopeless {
                    slot.end(error.clone());
                }
                // The caller may have given up; the slot then goes with the reply.
                let _ = reply.send(slot.into_any());
            }
            Command::Reopen { opening } => {
                self.wanted_opening = self.wanted_opening.max(opening);
                self.feed.reopen.store(true, Ordering::Relaxed);
            }
            Command::Release { reply } => return Err(Stop::Released(reply)),
            Command::Expel { reply } => {
                let slots: Vec<_> =
                    self.slots.all().into_iter().filter(|(_, slot)| self.is_misplaced(slot.scope())).collect();
                for (_, slot) in &slots {
                    self.slots.remove(slot);
                }
                // Whoever asked may be gone at shutdown; the slots end with it.
                drop(reply.send(self.handed(slots, None)));
            }
            Command::Adopt { released, owner, reply } => {
                self.await_adoption(released, owner, reply);
                self.adopt(None).await;
            }
            Command::AdoptNow { from } => self.adopt(Some(&from)).await,
            Command::Prune => {}
        }
        if self.feed.slot_dropped.swap(false, Ordering::AcqRel) {
            self.prune();
        }
        Ok(())
    }

    /// Whether a slot of this scope must go to a feed of its own, because the store refuses this one.
    pub(super) fn is_misplaced(&self, scope: &Scope) -> bool {
        self.feed.status.borrow().refused && self.feed.backend.coarsen(scope) != self.feed.scope
    }

    /// The slot of this type and scope that is here already, or about to be adopted.
    fn known(&self, type_id: TypeId, scope: &Scope) -> Option<Arc<dyn AnySlot>> {
        let arriving = || {
            let mut slots = self.adoptions.iter().flat_map(Adoption::slots);
            slots.find(|(id, slot)| *id == type_id && slot.scope() == scope).map(|(_, slot)| slot)
        };
        self.slots.find(type_id, scope.as_str()).or_else(arriving)
    }

    /// Every slot, those that wait to be adopted included.
    pub(super) fn every_slot(&self) -> Vec<(TypeId, Arc<dyn AnySlot>)> {
        let waiting = self.adoptions.iter().flat_map(Adoption::slots);
        self.slots.all().into_iter().chain(waiting).collect()
    }

    /// Everything that this feed has or was about to get, for the feed that takes its place.
    pub(super) fn release(&mut self) -> Released {
        while let Ok(command) = self.inbox.try_recv() {
            if let Command::Adopt { released, owner, reply } = command {
                self.await_adoption(released, owner, reply);
            }
        }
        let further = |a: Position, b: &Position| if self.feed.backend.reached(&a, b) { a } else { b.clone() };
        let waiting = self.adoptions.iter().filter_map(|adoption| adoption.position.as_ref());
        let position = waiting.fold(self.position.clone(), |furthest, position| match furthest {
            Some(furthest) => Some(further(furthest, position)),
            None => Some(position.clone()),
        });
        let mut released = self.handed(self.every_slot(), position);
        for adoption in self.adoptions.drain(..) {
            released.speakers.extend(adoption.speakers);
            released.last_good.extend(adoption.last_good);
        }
        released
    }

    fn handed(&mut self, slots: Vec<(TypeId, Arc<dyn AnySlot>)>, position: Option<Position>) -> Released {
        let last_good = self.last_good.get_mut().unwrap_or_else(PoisonError::into_inner).clone();
        let from = Arc::clone(&self.feed);
        Released { speakers: vec![Arc::clone(&from)], from, slots, position, last_good }
    }

    fn await_adoption(&mut self, mut released: Released, owner: Arc<FeedOwner>, reply: oneshot::Sender<()>) {
        let slots = std::mem::take(&mut released.slots);
        self.adoptions.push(Adoption {
            from: Arc::clone(&released.from),
            slots: slots.iter().map(|(type_id, slot)| (*type_id, Arc::downgrade(slot))).collect(),
            position: released.position.take(),
            speakers: std::mem::take(&mut released.speakers),
            last_good: std::mem::take(&mut released.last_good),
            owner,
            reply,
        });
        self.speak_for_adoptions();
        // Their streams wait for news of whichever feed they belong to.
        slots.iter().for_each(|(_, slot)| slot.wake());
    }

    /// Takes over the slots that this feed has caught up with, and those that came from `now` in any case.
    pub(super) async fn adopt(&mut self, now: Option<&Arc<Feed>>) {
        let mut next = 0;
        while let Some(adoption) = self.adoptions.get(next) {
            let caught_up = match (&adoption.position, &self.position) {
                // Nothing was shown yet that could be taken back.
                (None, _) => true,
                (Some(_), None) => false,
                (Some(target), Some(at)) => {
                    now.is_some_and(|from| Arc::ptr_eq(from, &adoption.from)) || self.feed.backend.reached(at, target)
                }
            };
            if caught_up {
                let adoption = self.adoptions.remove(next);
                self.take_in(adoption).await;
            } else {
                next += 1;
            }
        }
    }

    async fn take_in(&mut self, adoption: Adoption) {
        let slots = adoption.slots();
        let learnt = self.learn(adoption.last_good);
        for (type_id, slot) in &slots {
            self.slots.insert(*type_id, slot);
        }
        if self.position.is_some() {
            if learnt {
                let all = self.slots.all();
                self.rebase(all.iter().map(|(_, slot)| slot)).await;
                all.iter().for_each(|(_, slot)| slot.wake());
            } else {
                self.rebase(slots.iter().map(|(_, slot)| slot)).await;
            }
        }
        // Only now: who waits for the slot's feed to be somewhere must find it in the slot.
        for (_, slot) in &slots {
            slot.attach(Arc::clone(&adoption.owner));
            slot.wake();
            if let Some(error) = &self.hopeless {
                slot.end(error.clone());
            }
        }
        // The hand-over may have been cut short by a shutdown.
        let _ = adoption.reply.send(());
    }

    /// Takes over values that were good elsewhere. Answers whether any of them was news.
    fn learn(&mut self, known: KnownGood) -> bool {
        let last_good = self.last_good.get_mut().unwrap_or_else(PoisonError::into_inner);
        let before = last_good.len();
        for (id, entry) in known {
            last_good.entry(id).or_insert(entry);
        }
        last_good.len() > before
    }

    /// While this feed is out of touch, so are the slots that wait for it.
    pub(super) fn speak_for_adoptions(&self) {
        let Freshness::Stale { cause, .. } = self.feed.freshness() else { return };
        for feed in self.adoptions.iter().flat_map(|adoption| &adoption.speakers) {
            feed.status.send_if_modified(|status| {
                let live = status.freshness.is_live();
                if live {
                    status.freshness = Freshness::Stale { since: Instant::now(), cause: cause.clone() };
                }
                live
            });
        }
    }

    /// Forgets what nobody uses any more.
    pub(super) fn prune(&mut self) {
        self.slots.prune();
        self.adoptions.retain(|adoption| adoption.slots.iter().any(|(_, slot)| slot.strong_count() > 0));
    }
}
