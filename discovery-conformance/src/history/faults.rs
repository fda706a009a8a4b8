//! What strikes: faults that the world offers, one after the other, each ended before the next one of its lane.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use discovery_core::{InstanceId, Key};
use tokio::time::sleep;

use super::log::{Act, Answer, FOREIGN, Recorder};
use crate::item::Item;
use crate::world::{Fault, Hook, World};

/// The faults that a run knows how to judge.
const KNOWN: [Hook; 19] = [
    Hook::Cut,
    Hook::HalfOpen,
    Hook::Outage,
    Hook::Revoke,
    Hook::Crash,
    Hook::Pause,
    Hook::Compact,
    Hook::LoseData,
    Hook::RollBack,
    Hook::Delete,
    Hook::Write,
    Hook::DropAcks,
    Hook::DelayWrites,
    Hook::Deny,
    Hook::Ready,
    Hook::LeaderChange,
    Hook::Reorder,
    Hook::Duplicate,
    Hook::LoseMember,
];

/// Those that a reader has to notice.
const NOTICED: [Hook; 5] = [Hook::Cut, Hook::HalfOpen, Hook::Pause, Hook::Deny, Hook::Outage];

/// Where records stand that no owner wrote.
const FOREIGN_PLACE: [&str; 2] = ["a", "foreign"];

/// What the faults of a run share.
pub(super) struct Sky {
    pub(super) world: Box<dyn World>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) hooks: Vec<Hook>,
    pub(super) recovery: Duration,
    pub(super) ttl: Duration,
    /// How long a fault may go unnoticed, where no fault of those that the bounds make lasts for longer by itself.
    pub(super) unnoticed: Option<Duration>,
    pub(super) foreign: Arc<Mutex<BTreeMap<u64, serde_json::Value>>>,
    /// The owners of this round, and whether each is dead.
    pub(super) owners: Mutex<Vec<(usize, Arc<AtomicBool>)>>,
    pub(super) watchers: Vec<usize>,
    /// Whether a member is lost: without two of three nobody is served.
    pub(super) member_lost: AtomicBool,
}

impl Sky {
    /// The faults that may strike.
    pub(super) fn hooks(offered: &[Hook], wanted: Option<&[Hook]>) -> Vec<Hook> {
        // Somebody has to take away what a roll-back brings back to life, and what is written over nothing.
        let leaves = |hook: Hook| matches!(hook, Hook::RollBack | Hook::Write);
        let can = |hook: &Hook| offered.contains(hook) && (!leaves(*hook) || offered.contains(&Hook::Delete));
        KNOWN.into_iter().filter(|hook| can(hook) && wanted.is_none_or(|wanted| wanted.contains(hook))).collect()
    }

    /// Strikes a few times.
    pub(super) async fn storm(self: Arc<Self>, mut random: fastrand::Rng, strikes: usize) {
        for _ in 0..strikes {
            sleep(self.recovery.mul_f64(random.f64() * 0.3)).await;
            if !self.hooks.is_empty() {
                let hook = self.hooks[random.usize(0..self.hooks.len())];
                self.strike(hook, &mut random).await;
            }
        }
    }

    async fn strike(&self, hook: Hook, random: &mut fastrand::Rng) {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The first owner is never struck alone: what it holds in a quiet place stays there.
        let owner = owners.get(random.usize(0..owners.len()).max(1)).cloned();
        let Some((owner, dead)) = owner else { return };
        let anyone = match self.watchers.get(random.usize(0..self.watchers.len().max(1))) {
            Some(watcher) if random.bool() => *watcher,
            _ => owner,
        };
        let long = random.u32(0..4) == 0;
        let lasts =
            if long { self.ttl.mul_f64(1.2 + random.f64()) } else { self.recovery.mul_f64(0.03 + 0.35 * random.f64()) };
        let lasts = match self.unnoticed {
            Some(limit) if NOTICED.contains(&hook) && random.u32(0..6) == 0 => limit.mul_f64(1.1 + 0.4 * random.f64()),
            _ => lasts,
        };
        match hook {
            Hook::Cut => self.during(Fault::Cut(anyone), Fault::Heal(anyone), Some(anyone), lasts).await,
            Hook::HalfOpen => self.during(Fault::HalfOpen(anyone), Fault::Heal(anyone), Some(anyone), lasts).await,
            Hook::Pause => self.during(Fault::Pause(anyone), Fault::Resume(anyone), Some(anyone), lasts).await,
            Hook::Deny => self.during(Fault::Deny(anyone), Fault::Allow(anyone), Some(anyone), lasts).await,
            Hook::Outage => self.during(Fault::Outage, Fault::Restore, None, lasts).await,
            // Of the dead nobody says that it is ready again.
            Hook::Ready if !dead.load(Ordering::Acquire) => {
                self.during(Fault::Ready(owner, false), Fault::Ready(owner, true), Some(owner), lasts).await;
            }
            Hook::DropAcks => {
                self.during(Fault::DropAcks(owner, true), Fault::DropAcks(owner, false), Some(owner), lasts).await;
            }
            Hook::DelayWrites => {
                let late = Some(self.recovery.mul_f64(0.02 + random.f64()));
                self.during(Fault::DelayWrites(owner, late), Fault::DelayWrites(owner, None), Some(owner), lasts).await;
            }
            Hook::Reorder => self.during(Fault::Reorder(true), Fault::Reorder(false), None, lasts).await,
            Hook::Duplicate => self.during(Fault::Duplicate(true), Fault::Duplicate(false), None, lasts).await,
            Hook::Revoke => self.once(Fault::Revoke(owner), Some(owner), None).await,
            Hook::LeaderChange => self.once(Fault::LeaderChange, None, None).await,
            Hook::LoseMember if !self.member_lost.swap(true, Ordering::AcqRel) => {
                let fault = if random.bool() { Fault::LoseLeader } else { Fault::LoseMember(anyone) };
                // To its users that is a moment; for a time there is one less to go to.
                self.once(fault, None, None).await;
                sleep(lasts).await;
                let _ = self.world.inject(Fault::RestoreMember).await;
                self.member_lost.store(false, Ordering::Release);
            }
            Hook::Compact => self.once(Fault::Compact, None, None).await,
            Hook::LoseData => self.once(Fault::LoseData, None, None).await,
            Hook::RollBack => self.once(Fault::RollBack(random.usize(1..20)), None, None).await,
            Hook::Crash if !dead.swap(true, Ordering::AcqRel) => {
                self.once(Fault::Crash(owner), Some(owner), None).await
            }
            Hook::Delete => {
                if let Some(key) = self.some_key(random) {
                    self.once(Fault::Delete(key.clone()), None, Some(key)).await;
                }
            }
            Hook::Write => self.write(random).await,
            _ => {}
        }
    }

    async fn during(&self, fault: Fault, end: Fault, target: Option<usize>, lasts: Duration) {
        let harm = self.recorder.harm(fault.hook(), target, None);
        if self.world.inject(fault).await.is_ok() {
            self.recorder.struck(harm);
            sleep(lasts).await;
        }
        self.recorder.ending(harm);
        // Where this fails it goes on until the checkpoint ends it.
        if self.world.inject(end).await.is_ok() {
            self.recorder.healed(harm);
        }
    }

    async fn once(&self, fault: Fault, target: Option<usize>, key: Option<Key>) {
        let harm = self.recorder.harm(fault.hook(), target, key.as_ref());
        if self.world.inject(fault).await.is_ok() {
            self.recorder.struck(harm);
        }
        self.recorder.healed(harm);
    }

    /// A key that an owner has written, and not one of the quiet ones.
    fn some_key(&self, random: &mut fastrand::Rng) -> Option<Key> {
        let log = self.recorder.log();
        let loud = |key: &&Key| !key.path().as_str().starts_with("item/quiet/");
        let keys: Vec<&Key> = log.keys.iter().filter(loud).collect();
        (!keys.is_empty()).then(|| keys[random.usize(0..keys.len())].clone())
    }

    /// Somebody writes: a record of their own with fields that nobody knows, a value over an owner's, or garbage.
    async fn write(&self, random: &mut fastrand::Rng) {
        // Beyond all that owners write, and never the same twice, as good as surely.
        let n = (1 << 62) | random.u64(0..1 << 50);
        let (key, garbage) = match random.u32(0..3) {
            0 => (self.foreign_key(random.u64(1..3)), false),
            1 => (self.some_key(random), false),
            _ => (self.some_key(random), true),
        };
        let Some(key) = key else { return };
        if garbage {
            self.once(Fault::Write(key.clone(), Bytes::from_static(b"{\"n\": half")), None, Some(key)).await;
            return;
        }
        let place: Vec<String> = key.path().segments().map(std::borrow::Cow::into_owned).collect();
        let mut item = Item::at(place).n(n);
        item.suffix = key.suffix().map(str::to_owned);
        let Ok(mut value) = serde_json::to_value(&item) else { return };
        value["unknown"] = serde_json::json!({ "kept": [n, "as it is"] });
        self.foreign.lock().unwrap_or_else(PoisonError::into_inner).insert(n, value.clone());
        let harm = self.recorder.harm(Hook::Write, None, Some(&key));
        let write = self.recorder.begin(FOREIGN, &key, Act::Register(n), None);
        let done = self.world.inject(Fault::Write(key, value.to_string().into())).await;
        self.recorder.end(&[write], if done.is_ok() { Answer::Ok } else { Answer::Unknown });
        if done.is_ok() {
            self.recorder.struck(harm);
        }
        self.recorder.healed(harm);
    }

    pub(super) fn foreign_key(&self, instance: u64) -> Option<Key> {
        Item::at(FOREIGN_PLACE).key(InstanceId(0xF0_0000 + instance)).ok()
    }

    /// Ends every fault. `handles`: all that are not dead.
    pub(super) async fn clear_up(&self, handles: &[usize]) {
        let mut all = vec![Fault::Restore, Fault::RestoreMember, Fault::Reorder(false), Fault::Duplicate(false)];
        for n in handles {
            let n = *n;
            all.extend([Fault::Heal(n), Fault::Resume(n), Fault::Allow(n), Fault::Ready(n, true)]);
            all.extend([Fault::DropAcks(n, false), Fault::DelayWrites(n, None)]);
        }
        for fault in all {
            if self.hooks.contains(&fault.hook()) {
                let _ = self.world.inject(fault).await;
            }
        }
        self.recorder.all_healed();
    }

    /// Takes away what no owner wants: foreign records, and what a roll-back brought back to life.
    pub(super) async fn sweep(&self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            let write = self.recorder.begin(FOREIGN, &key, Act::Delete, None);
            let done = self.world.inject(Fault::Delete(key)).await;
            self.recorder.end(&[write], if done.is_ok() { Answer::Ok } else { Answer::Unknown });
        }
    }
}
