use bytes::Bytes;
use discovery_core::backend::Incarnation;
use discovery_core::{ErrorKind, InstanceId, Path};

use super::*;

fn put(kind: &str, id: u64) -> Change {
    let key = Key::new(Path::new(kind, ["a"]).unwrap(), InstanceId(id));
    Change::Put(Entry { key, value: Bytes::from_static(b"1"), incarnation: Incarnation(1) })
}

fn found(changes: Vec<Change>, reset: bool) -> Result<Findings> {
    Ok(Findings { changes, reset })
}

fn scope(kind: &str) -> Scope {
    Scope::new(kind, ["a"]).unwrap()
}

fn lineage(events: &[WatchEvent]) -> Option<Lineage> {
    events.iter().find_map(|event| match event {
        WatchEvent::SnapshotStart { lineage } => Some(*lineage),
        _ => None,
    })
}

#[test]
fn a_stream_sees_its_own_scope_and_comes_to_every_position() {
    let mut log = Log::default();
    let mut cursor = Cursor::new(scope("x"));
    log.take_in(found(vec![put("x", 1), put("y", 1)], false));
    let events = log.read(&mut cursor);
    assert_eq!(lineage(&events), Some(Lineage::Unknown));
    assert!(matches!(&events[1], WatchEvent::SnapshotChunk(entries) if entries.len() == 1));
    assert!(log.read(&mut cursor).is_empty());

    log.take_in(found(vec![put("x", 2)], false));
    assert!(matches!(&log.read(&mut cursor)[..], [WatchEvent::Batch { changes, .. }] if changes.len() == 1));
    log.take_in(found(vec![put("y", 2)], false));
    assert!(matches!(&log.read(&mut cursor)[..], [WatchEvent::Progress(_)]));
    let marked = log.mark();
    assert!(matches!(&log.read(&mut cursor)[..], [WatchEvent::Progress(at)] if at.as_u64() == Some(marked)));
}

#[test]
fn a_stream_that_lags_too_far_starts_over_and_one_that_does_not_misses_nothing() {
    let mut log = Log::default();
    let (mut far, mut near) = (Cursor::new(scope("x")), Cursor::new(scope("x")));
    log.read(&mut far);
    log.take_in(found(vec![put("x", 0)], false));
    log.read(&mut near);
    for id in 1..=KEPT as u64 {
        log.take_in(found(vec![put("x", id)], false));
    }
    let events = log.read(&mut far);
    assert_eq!(lineage(&events), Some(Lineage::Same));
    assert!(matches!(&events[1], WatchEvent::SnapshotChunk(entries) if entries.len() == KEPT + 1));
    assert!(matches!(&log.read(&mut near)[..], [WatchEvent::Batch { changes, .. }] if changes.len() == KEPT));
}

#[test]
fn former_values_take_no_more_memory_than_is_allowed() {
    const VALUE: usize = 1 << 20;
    let mut log = Log::default();
    let (mut far, mut near) = (Cursor::new(scope("x")), Cursor::new(scope("x")));
    log.read(&mut far);
    let Change::Put(mut entry) = put("x", 1) else { unreachable!("it was put") };
    let held = |log: &Log| log.changes.iter().map(|(_, change)| size(change)).sum::<usize>();
    for at in 0..40_u8 {
        entry.value = vec![at; VALUE].into();
        log.take_in(found(vec![Change::Put(entry.clone())], false));
        assert!(held(&log) <= KEPT_BYTES && held(&log) == log.bytes, "{} after {at}", held(&log));
        if at > 0 {
            assert!(matches!(&log.read(&mut near)[..], [WatchEvent::Batch { changes, .. }] if changes.len() == 1));
        } else {
            log.read(&mut near);
        }
    }
    assert_eq!(log.bytes, KEPT_BYTES, "as much as is allowed");
    let events = log.read(&mut far);
    assert_eq!(lineage(&events), Some(Lineage::Same));
    assert!(matches!(&events[1], WatchEvent::SnapshotChunk(entries) if *entries == [entry.clone()]));
    // What is too much by itself is told as a whole, too.
    let all = (1..=20).map(|id| Entry { key: put("x", id).key().clone(), ..entry.clone() }).map(Change::Put).collect();
    log.take_in(found(all, false));
    assert!(matches!(&log.read(&mut near)[1], WatchEvent::SnapshotChunk(entries) if entries.len() == 20));
    log.take_in(found(vec![Change::Delete(entry.key)], true));
    assert_eq!((log.bytes, log.changes.len()), (0, 0));
}

#[test]
fn a_loss_is_told_as_one() {
    let mut log = Log::default();
    let mut cursor = Cursor::new(scope("x"));
    log.take_in(found(vec![put("x", 1)], false));
    log.read(&mut cursor);
    let Change::Put(entry) = put("x", 1) else { unreachable!("it was put") };
    log.take_in(found(vec![Change::Delete(entry.key)], true));
    let events = log.read(&mut cursor);
    assert_eq!(lineage(&events), Some(Lineage::Reset));
    assert!(matches!(&events[1], WatchEvent::SnapshotChunk(entries) if entries.is_empty()));
}

#[test]
fn a_fault_interrupts_once_and_ends_with_a_recovery() {
    let mut log = Log::default();
    let mut cursor = Cursor::new(scope("x"));
    log.read(&mut cursor);
    let fault = || Err(Error::new(ErrorKind::PermissionDenied, "no"));
    assert!(log.take_in(fault()).1);
    assert!(matches!(&log.read(&mut cursor)[..], [WatchEvent::Interrupted(_)]));
    assert!(!log.take_in(fault()).1);
    assert!(log.read(&mut cursor).is_empty());
    log.take_in(found(vec![put("x", 1)], false));
    assert!(matches!(&log.read(&mut cursor)[..], [WatchEvent::Batch { .. }, WatchEvent::Recovered]));
}
