//! What an owner does: registers, updates, withdraws, lists, in lanes that each have keys of their own.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use discovery_core::{Discovery, InstanceId, Key, Registration, View};
use tokio::time::sleep;

use super::log::{Act, Answer, Lens, Listing, Load, Recorder, Seq, Shown};
use crate::item::Item;

/// Where lanes put their records. The first is read by watchers that expect nothing to happen there.
pub(super) const PLACES: [&[&str]; 6] = [&["quiet"], &["a"], &["ab"], &["a", "b"], &["a", "b", "c"], &["late", "x"]];
/// Where every owner claims the same keys.
const SHARED: &[&str] = &["a", "shared"];

/// For how many milliseconds a lane rests before an operation.
const PAUSE: Range<u64> = 1..30;

/// What a lane does in a round.
#[derive(Clone)]
pub(super) struct Work {
    /// How many operations at least.
    operations: usize,
    /// How many times longer its pauses are.
    slower: u32,
    /// Whether nothing strikes any more.
    calm: Arc<AtomicBool>,
}

impl Work {
    /// So many operations, whatever strikes.
    pub(super) fn of(operations: usize) -> Self {
        Self { operations, slower: 1, calm: Arc::new(true.into()) }
    }

    /// So many operations in about this time, and more of them until it is calm: by a real clock faults last for longer
    /// than operations take, and would strike those who have done their work.
    pub(super) fn through(operations: usize, time: Duration, calm: &Arc<AtomicBool>) -> Self {
        let (each, pause) = (time.as_millis() / operations.max(1) as u128, u128::from((PAUSE.start + PAUSE.end) / 2));
        let slower = u32::try_from(each / pause).unwrap_or(u32::MAX).max(1);
        Self { operations, slower, calm: Arc::clone(calm) }
    }
}

/// One key of a lane, and what is known of it.
pub(super) struct Slot {
    place: &'static [&'static str],
    suffix: Option<String>,
    fixed: Option<u64>,
    held: Option<Held>,
}

struct Held {
    registration: Registration<Item>,
    /// The values that may be stored: more than one after an update without an answer.
    values: Vec<u64>,
}

impl Slot {
    fn item(&self, n: u64) -> Item {
        let item = Item::at(self.place.iter().copied()).n(n);
        let item = self.fixed.map_or(item.clone(), |id| item.id(id));
        match &self.suffix {
            Some(suffix) => item.suffixed(suffix.clone()),
            None => item,
        }
    }
}

/// Part of what one owner does, one operation after the other.
pub(super) struct Lane {
    pub(super) owner: usize,
    pub(super) discovery: Discovery,
    instance: InstanceId,
    pub(super) slots: Vec<Slot>,
    random: fastrand::Rng,
    recorder: Arc<Recorder>,
    /// A view of this handle, for what a handle reads of its own writes.
    own_view: Option<(usize, View<Item>)>,
    pub(super) operations: usize,
    values: u64,
    written: u64,
}

impl Lane {
    pub(super) fn new(
        owner: usize,
        lane: usize,
        discovery: Discovery,
        instance: InstanceId,
        mut random: fastrand::Rng,
        recorder: Arc<Recorder>,
        own_view: Option<(usize, View<Item>)>,
    ) -> Self {
        let mut slots = Vec::new();
        for (index, place) in PLACES.iter().enumerate().skip(1) {
            slots.push(Slot { place, suffix: Some(format!("{lane}-{index}")), fixed: None, held: None });
        }
        slots.push(Slot { place: SHARED, suffix: None, fixed: Some(7_000 + lane as u64), held: None });
        random.shuffle(&mut slots);
        let values = ((owner * 16 + lane) as u64) << 24;
        Self { owner, discovery, instance, slots, random, recorder, own_view, operations: 0, values, written: 0 }
    }

    /// Adds a key at a place where nothing ever changes.
    pub(super) async fn settle_quietly(&mut self) {
        let mut slot = Slot { place: PLACES[0], suffix: Some("still".to_owned()), fixed: None, held: None };
        self.register(&mut slot).await;
        // Held, and never touched again.
        self.slots.insert(0, slot);
    }

    fn key(&self, slot: &Slot) -> Option<Key> {
        slot.item(0).key(self.instance).ok()
    }

    /// Values are never written twice: each lane has its own.
    fn fresh_value(&mut self) -> u64 {
        self.written += 1;
        self.values + self.written
    }

    /// Works until it is done and the storms are over, or its process is dead.
    pub(super) async fn run(mut self, work: Work, dead: Arc<AtomicBool>) -> Self {
        let until = self.operations + work.operations;
        while (self.operations < until || !work.calm.load(Ordering::Acquire)) && !dead.load(Ordering::Acquire) {
            sleep(Duration::from_millis(self.random.u64(PAUSE)) * work.slower).await;
            self.operations += 1;
            self.step().await;
        }
        self
    }

    async fn step(&mut self) {
        let roll = self.random.u32(0..100);
        if roll < 8 {
            list(&self.recorder, self.owner, &self.discovery, &LENSES[self.random.usize(0..LENSES.len())]).await;
            return;
        }
        if roll < 14 && self.discovery.capabilities().batch {
            self.register_all().await;
            return;
        }
        let busy: Vec<usize> = (0..self.slots.len()).filter(|index| self.slots[*index].place != PLACES[0]).collect();
        let index = busy[self.random.usize(0..busy.len())];
        let mut slot = self.slots.swap_remove(index);
        match &slot.held {
            None => self.register(&mut slot).await,
            Some(_) => match self.random.u32(0..100) {
                0..50 => self.update(&mut slot).await,
                50..62 => self.again(&slot).await,
                62..80 => self.withdraw(&mut slot).await,
                80..92 => {
                    self.withdraw(&mut slot).await;
                    self.register(&mut slot).await;
                }
                _ => self.drop_guard(&mut slot),
            },
        }
        self.slots.push(slot);
    }

    async fn register(&mut self, slot: &mut Slot) {
        let Some(key) = self.key(slot) else { return };
        let n = self.fresh_value();
        let write = self.recorder.begin(self.owner, &key, Act::Register(n), None);
        let result = self.discovery.register(slot.item(n)).await;
        self.recorder.end(&[write], Answer::of(&result));
        if let Ok(registration) = result {
            slot.held = Some(Held { registration, values: vec![n] });
            self.read_back(slot, write).await;
        }
    }

    async fn register_all(&mut self) {
        let mut free: Vec<usize> = (0..self.slots.len())
            .filter(|index| self.slots[*index].held.is_none() && self.slots[*index].fixed.is_none())
            .collect();
        free.truncate(3);
        if free.len() < 2 {
            return;
        }
        let (mut writes, mut items) = (Vec::new(), Vec::new());
        for index in &free {
            let Some(key) = self.key(&self.slots[*index]) else { return };
            let n = self.fresh_value();
            let write = self.recorder.begin(self.owner, &key, Act::Register(n), writes.first().copied());
            if writes.is_empty() {
                self.recorder.log().writes[write].group = Some(write);
            }
            writes.push(write);
            items.push(self.slots[*index].item(n));
        }
        let values: Vec<u64> = items.iter().map(|item| item.n).collect();
        let result = self.discovery.register_all(items).await;
        self.recorder.end(&writes, Answer::of(&result));
        if let Ok(registrations) = result {
            for ((index, registration), n) in free.into_iter().zip(registrations).zip(values) {
                self.slots[index].held = Some(Held { registration, values: vec![n] });
            }
        }
    }

    async fn update(&mut self, slot: &mut Slot) {
        let Some(key) = self.key(slot) else { return };
        let n = self.fresh_value();
        let item = slot.item(n);
        let Some(held) = &mut slot.held else { return };
        let write = self.recorder.begin(self.owner, &key, Act::Update(n), None);
        let result = held.registration.update(item).await;
        let answer = Answer::of(&result);
        self.recorder.end(&[write], answer);
        match answer {
            Answer::Ok => {
                held.values = vec![n];
                self.read_back(slot, write).await;
            }
            Answer::Unknown => held.values.push(n),
            Answer::Refused(_) => {}
        }
    }

    /// Registers what is registered: silent, whatever the answer is.
    async fn again(&mut self, slot: &Slot) {
        let Some(held) = slot.held.as_ref().filter(|held| held.values.len() == 1 && slot.fixed.is_none()) else {
            return;
        };
        // The second guard goes, and the first one keeps the record.
        drop(self.discovery.register(slot.item(held.values[0])).await);
    }

    async fn withdraw(&mut self, slot: &mut Slot) {
        let (Some(key), Some(held)) = (self.key(slot), slot.held.take()) else { return };
        let write = self.recorder.begin(self.owner, &key, Act::Delete, None);
        let result = held.registration.deregister().await;
        // A withdrawal that failed goes on.
        let answer = if result.is_ok() { Answer::Ok } else { Answer::Unknown };
        self.recorder.end(&[write], answer);
    }

    fn drop_guard(&mut self, slot: &mut Slot) {
        let (Some(key), Some(held)) = (self.key(slot), slot.held.take()) else { return };
        self.recorder.begin(self.owner, &key, Act::Delete, None);
        drop(held);
    }

    /// What was written shows in the handle's own view once that has reached it.
    async fn read_back(&mut self, slot: &Slot, write: usize) {
        let (Some((view, own)), Some(held)) = (&self.own_view, &slot.held) else { return };
        if self.random.u32(0..3) == 0 && own.reached(&held.registration.stamp()).await.is_ok() {
            load(&self.recorder, *view, own, Some(write));
        }
    }

    /// What is held. A key that others claim too can be lost to them, which its registration says.
    fn held(&self) -> impl Iterator<Item = &Held> {
        self.slots.iter().filter_map(|slot| {
            let held = slot.held.as_ref()?;
            let lost = slot.fixed.is_some() && matches!(held.registration.state().as_str(), "failed" | "withdrawn");
            (!lost).then_some(held)
        })
    }

    /// The keys that are to be there with the values that they may have.
    pub(super) fn wants(&self) -> Vec<(Key, Vec<u64>)> {
        self.held().map(|held| (held.registration.key().clone(), held.values.clone())).collect()
    }

    /// The keys that are held and whose registration does not say so, and what it says.
    pub(super) fn unregistered(&self) -> impl Iterator<Item = (&Key, &'static str)> {
        self.held().filter_map(|held| {
            let state = held.registration.state();
            (!state.is_registered()).then(|| (held.registration.key(), state.as_str()))
        })
    }

    /// Forgets what this owner held: its process is dead.
    pub(super) fn die(self) {
        drop(self.slots);
    }
}

/// What readers ask for: everything, single places, prefixes of others, even numbers alone.
pub(super) const LENSES: [Lens; 8] = [
    Lens { segments: &[], even: false },
    Lens { segments: &["a"], even: false },
    Lens { segments: &["ab"], even: false },
    Lens { segments: &["a", "b"], even: false },
    Lens { segments: &["late"], even: false },
    Lens { segments: &["quiet"], even: false },
    Lens { segments: &[], even: true },
    Lens { segments: &["a"], even: true },
];

/// Lists and records it. Answers when the call was made and what it showed.
pub(super) async fn list(
    recorder: &Recorder,
    handle: usize,
    discovery: &Discovery,
    lens: &Lens,
) -> Option<(Seq, Shown)> {
    let start = recorder.tick();
    let result = discovery.list::<Item>(lens.query()).await;
    let mut log = recorder.log();
    let shown = match &result {
        Ok(set) => Ok(set.iter().filter(|item| lens.admits(item.n)).map(|item| (log.id(item.key()), item.n)).collect()),
        Err(error) => Err(error.kind()),
    };
    let end = recorder.tick_in(&mut log);
    log.listings.push(Listing { handle, lens: lens.clone(), start, end, shown: shown.clone() });
    Some((start, shown.ok()?))
}

/// Loads a view and records it.
pub(super) fn load(recorder: &Recorder, number: usize, view: &View<Item>, reached: Option<usize>) -> Shown {
    // Read before the state, as a stream does: what is live now is at least as new as this says.
    let fresh = (&view.freshness()).into();
    let snapshot = view.load();
    let mut log = recorder.log();
    let shown: Shown = snapshot.iter().map(|item| (log.id(item.key()), item.n)).collect();
    let at = recorder.tick_in(&mut log);
    log.loads.push(Load {
        view: number,
        at,
        version: snapshot.version(),
        synced: snapshot.is_synced(),
        fresh,
        shown: shown.clone(),
        reached,
    });
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a lane does is spread over the time in which faults strike, and never done faster than by a paused clock.
    #[test]
    fn a_lane_takes_its_time() {
        let calm = Arc::new(AtomicBool::new(false));
        assert_eq!(Work::through(50, Duration::from_secs(6), &calm).slower, 8);
        assert_eq!(Work::through(50, Duration::from_millis(5), &calm).slower, Work::of(50).slower);
        assert!(Work::of(50).calm.load(Ordering::Acquire));
    }
}
