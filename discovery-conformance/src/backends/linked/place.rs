//! Where is a world in the store, and how do its keys and scopes look from inside and from outside?

use discovery_core::backend::{Change, Entry, WatchEvent};
use discovery_core::{Key, Path, Result, Scope};

/// What the paths of one world begin with in the store.
#[derive(Clone, Debug)]
pub(super) struct Segment(String);

impl Segment {
    /// One that nobody else has.
    pub(super) fn new() -> Self {
        Self(format!("conformance-{:016x}", fastrand::u64(..)))
    }

    /// A key of the world, as the store has it.
    pub(super) fn stored(&self, key: &Key) -> Result<Key> {
        let own = std::iter::once(self.0.as_str().into());
        moved(key, &own.chain(key.path().segments()).collect::<Vec<_>>())
    }

    /// A key of the store, as the world has it. `None`: it is not in the world.
    pub(super) fn seen(&self, key: &Key) -> Option<Key> {
        let mut segments = key.path().segments();
        (segments.next()? == self.0).then_some(())?;
        moved(key, &segments.collect::<Vec<_>>()).ok()
    }

    /// The scope of the store that holds this one of the world. Everything has no narrower one: it has no kind.
    pub(super) fn stored_scope(&self, scope: &Scope) -> Result<Scope> {
        match scope.kind() {
            Some(kind) => Scope::new(kind, std::iter::once(self.0.as_str().into()).chain(scope.segments())),
            None => Ok(Scope::all()),
        }
    }

    /// The scope of the world that this one of the store holds.
    pub(super) fn seen_scope(&self, scope: &Scope) -> Result<Scope> {
        match scope.kind() {
            Some(kind) => Scope::new(kind, scope.segments().skip(1)),
            None => Ok(Scope::all()),
        }
    }

    pub(super) fn seen_entries(&self, entries: Vec<Entry>) -> Vec<Entry> {
        let seen = |entry: Entry| Some(Entry { key: self.seen(&entry.key)?, ..entry });
        entries.into_iter().filter_map(seen).collect()
    }

    pub(super) fn seen_changes(&self, changes: Vec<Change>) -> Vec<Change> {
        let seen = |change: Change| match change {
            Change::Put(entry) => Some(Change::Put(Entry { key: self.seen(&entry.key)?, ..entry })),
            Change::Delete(key) => self.seen(&key).map(Change::Delete),
        };
        changes.into_iter().filter_map(seen).collect()
    }

    /// What others do is a sign of life, and nothing else.
    pub(super) fn seen_event(&self, event: WatchEvent) -> WatchEvent {
        match event {
            WatchEvent::SnapshotChunk(entries) => WatchEvent::SnapshotChunk(self.seen_entries(entries)),
            WatchEvent::Batch { changes, position } => {
                let changes = self.seen_changes(changes);
                if changes.is_empty() {
                    WatchEvent::Progress(position)
                } else {
                    WatchEvent::Batch { changes, position }
                }
            }
            other => other,
        }
    }
}

/// The key with another path of its kind.
fn moved(key: &Key, segments: &[std::borrow::Cow<'_, str>]) -> Result<Key> {
    let moved = Key::new(Path::new(key.kind(), segments)?, key.instance());
    match key.suffix() {
        Some(suffix) => moved.with_suffix(suffix),
        None => Ok(moved),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use discovery_core::InstanceId;
    use discovery_core::backend::{Incarnation, Position};

    use super::*;

    fn key(segments: &[&str]) -> Key {
        Key::new(Path::new("item", segments).unwrap(), InstanceId(7)).with_suffix("a/b").unwrap()
    }

    #[test]
    fn keys_and_scopes_go_in_and_come_out() {
        let (segment, other) = (Segment::new(), Segment::new());
        for path in [&["a"][..], &["a/%", "b"]] {
            let stored = segment.stored(&key(path)).unwrap();
            assert_eq!(segment.seen(&stored), Some(key(path)));
            assert_eq!(other.seen(&stored), None);
            let scope = Scope::new("item", path).unwrap();
            let outside = segment.stored_scope(&scope).unwrap();
            assert!(outside.contains(&stored) && !outside.contains(&other.stored(&key(path)).unwrap()));
            assert_eq!(segment.seen_scope(&outside).unwrap(), scope);
        }
        // What a store widens covers the world, and what lies there without a path below is nobody's.
        let kind = Scope::new::<&str>("item", []).unwrap();
        assert_eq!(segment.seen_scope(&kind).unwrap(), kind);
        assert_eq!(segment.seen_scope(&segment.stored_scope(&Scope::all()).unwrap()).unwrap(), Scope::all());
        assert_eq!(segment.seen(&key(&[&segment.0])), None);
    }

    #[test]
    fn what_others_do_is_a_sign_of_life() {
        let segment = Segment::new();
        let entry = |key| Entry { key, value: Bytes::new(), incarnation: Incarnation(1) };
        let batch = |changes| WatchEvent::Batch { changes, position: Position::from_u64(1) };
        let foreign = batch(vec![Change::Put(entry(key(&["a"]))), Change::Delete(key(&["b"]))]);
        assert!(matches!(segment.seen_event(foreign), WatchEvent::Progress(_)));
        let own = segment.stored(&key(&["a"])).unwrap();
        let mixed = batch(vec![Change::Delete(key(&["b"])), Change::Put(entry(own))]);
        let WatchEvent::Batch { changes, .. } = segment.seen_event(mixed) else { panic!("a batch") };
        assert_eq!(changes, [Change::Put(entry(key(&["a"])))]);
    }
}
