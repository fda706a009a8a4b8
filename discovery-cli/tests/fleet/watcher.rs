//! A process of `discovery watch --output json`, folded.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::Running;

/// What a watcher said of one instance, and when that was heard.
pub(crate) struct Told {
    at: Instant,
    instance: String,
    removed: bool,
}

pub(crate) struct Watcher {
    pub(crate) process: Running,
    shown: BTreeMap<String, String>,
    /// Whether it says so itself.
    pub(crate) stale: bool,
    pub(crate) told: Vec<Told>,
}

impl Watcher {
    pub(crate) fn new(process: Running) -> Self {
        Self { process, shown: BTreeMap::new(), stale: false, told: Vec::new() }
    }

    /// Takes in what it has said meanwhile.
    pub(crate) fn hear(&mut self) {
        while let Some(line) = self.process.line_if_any() {
            let said: Value = serde_json::from_str(&line).unwrap();
            let change = said["change"].as_str().unwrap().to_owned();
            match change.as_str() {
                "stale" => self.stale = true,
                "live" => self.stale = false,
                "synced" => {}
                change => self.fold(change, &said),
            }
        }
    }

    fn fold(&mut self, change: &str, said: &Value) {
        let instance = said["instance_id"].as_str().unwrap().to_owned();
        let address = said["value"]["transport"]["tcp"].as_str().unwrap().to_owned();
        let before = match change {
            "removed" => self.shown.remove(&instance),
            _ => self.shown.insert(instance.clone(), address),
        };
        // Removed is what was there, updated too, and added what was not.
        assert_eq!(before.is_none(), change == "added", "{said} after {before:?}");
        self.told.push(Told { at: Instant::now(), instance, removed: change == "removed" });
    }

    /// What is missing and what is too much.
    pub(crate) fn differs(&self, expected: &BTreeMap<String, String>) -> Option<String> {
        let missing: Vec<_> = expected.keys().filter(|instance| !self.shown.contains_key(*instance)).collect();
        let more: Vec<_> = self.shown.keys().filter(|instance| !expected.contains_key(*instance)).collect();
        let same = self.shown == *expected;
        (!same).then(|| format!("stale: {}, missing: {missing:?}, too much: {more:?}", self.stale))
    }

    fn of(&self, instance: &str) -> impl Iterator<Item = &Told> {
        self.told.iter().filter(move |told| told.instance == instance)
    }

    pub(crate) fn removals(&self, instance: &str) -> usize {
        self.of(instance).filter(|told| told.removed).count()
    }

    /// For how long this instance was not shown at the longest, counted from `since` at the earliest.
    pub(crate) fn away(&self, instance: &str, since: Instant) -> Duration {
        let mut longest = Duration::ZERO;
        let mut gone = None;
        for told in self.of(instance) {
            match (told.removed, gone.take()) {
                (true, _) => gone = Some(told.at.max(since)),
                (false, Some(left)) => longest = longest.max(told.at.saturating_duration_since(left)),
                (false, None) => {}
            }
        }
        gone.map_or(longest, |left| longest.max(left.elapsed()))
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.told.iter().map(|told| format!("{} {}", if told.removed { '-' } else { '+' }, told.instance));
        f.debug_struct("Watcher")
            .field("stale", &self.stale)
            .field("shown", &self.shown.len())
            .field("told", &told.collect::<Vec<_>>())
            .finish()
    }
}
