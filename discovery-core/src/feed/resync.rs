//! A whole snapshot takes the place of what is stored and shown, in all slots at once.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio::task::spawn_blocking;

use super::run::Task;
use super::staging::{DecodedAhead, Staging};
use crate::backend::Lineage;
use crate::store::{AnySlot, Source, Staged};

/// Sets from this size on take milliseconds to sort.
const LARGE: usize = 16_384;

impl Task {
    /// A snapshot is whole: shows it, and leaves it to the caller to wake the streams.
    pub(super) async fn resync(&mut self, staging: Staging) {
        let Staging { lineage, staged, ahead } = staging;
        if lineage == Lineage::Reset {
            tracing::warn!(records = staged.len(), "the store lost data: resynchronised with what it holds now");
        }
        self.replace(staged, lineage).await;
        let raw = self.raw.tree();
        let last_good = self.last_good.get_mut().unwrap_or_else(PoisonError::into_inner);
        last_good.retain(|(_, key), _| raw.get(key).is_some());
        let slots = self.slots.all();
        self.rebase_upon(slots.iter().map(|(_, slot)| slot), ahead).await;
        self.snapshot_of = self.opening;
        self.meter.records.set(self.raw.len() as f64);
    }

    /// A large set is sorted beside this thread, which may have renewals to send meanwhile.
    async fn replace(&mut self, staged: Staged, lineage: Lineage) {
        let grace = self.settings.resync_grace;
        if staged.len() < LARGE {
            return self.raw.replace(staged, lineage, grace);
        }
        let mut raw = self.raw.clone();
        let replaced = spawn_blocking(move || {
            raw.replace(staged, lineage, grace);
            raw
        });
        self.raw = match replaced.await {
            Ok(raw) => raw,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime ends, and this task with it.
                Err(_) => pending().await,
            },
        };
    }

    /// Shows all that is stored in these slots, and leaves it to the caller to wake their streams.
    pub(super) async fn rebase<'a>(&mut self, slots: impl IntoIterator<Item = &'a Arc<dyn AnySlot>>) {
        self.rebase_upon(slots, DecodedAhead::default()).await;
    }

    /// As [`Task::rebase`], where slots may have decoded some of it already.
    async fn rebase_upon<'a>(
        &mut self,
        slots: impl IntoIterator<Item = &'a Arc<dyn AnySlot>>,
        mut ahead: DecodedAhead,
    ) {
        let slots: Vec<_> = slots.into_iter().collect();
        let newest = slots.iter().map(|slot| slot.number()).max().unwrap_or_default();
        self.number = self.number.max(newest) + 1;
        let source = Source { number: self.number, published: &self.published, last_good: &self.last_good };
        for slot in &slots {
            slot.rebase(self.raw.tree(), &source, ahead.take(slot)).await;
        }
        self.published.store(self.number, Ordering::Release);
        for slot in &slots {
            slot.commit();
        }
    }
}
