use discovery_core::{InstanceId, Path as KeyPath};

use super::*;

fn key(id: u64) -> Key {
    Key::new(KeyPath::new("endpoint", ["a", "b", "c"]).unwrap(), InstanceId(id))
}

#[test]
fn an_owner_that_cannot_remove_its_records_stays_theirs() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    let owner = OwnerFile::create(&place, InstanceId(7), Duration::from_secs(10)).unwrap();
    let ledger = Ledger::default();
    let records = Records { place: &place, owner: &owner, ledger: &ledger };
    records.put(&key(7), b"1").unwrap();
    let spot = Spot::of(&key(7)).unwrap();
    let (file, owner_file) = (place.record(&spot), place.owners().join(owner.name()));

    let held = DirectoryLock::acquire(&place.bucket(&spot.bucket)).unwrap();
    assert_eq!(records.close().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(file.exists() && owner_file.exists(), "once it has ended, whoever watches knows by it what to remove");
    drop(held);
    records.close().unwrap();
    assert!(!file.exists() && !owner_file.exists());
}
