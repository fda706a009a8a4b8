use std::thread;

use discovery_core::{InstanceId, Path};

use super::*;
use crate::owner::OwnerFile;
use crate::record::{Ledger, Records};

/// The time itself is what is tried here: a machine that stands still for longer than a time to live, and goes on.
#[test]
fn nobody_is_silent_while_the_watcher_was_kept_from_looking() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    let ttl = Duration::from_secs(1);
    let owner = OwnerFile::create(&place, InstanceId(7), ttl).unwrap();
    let key = Key::new(Path::new("endpoint", ["a", "b", "c"]).unwrap(), InstanceId(7));
    Records { place: &place, owner: &owner, ledger: &Ledger::default() }.put(&key, b"1").unwrap();

    let mut scan = Scan::new(place);
    scan.follow(true);
    let fd = super::super::notice::instance().unwrap();
    let mut changes = |depth| scan.pass(depth, None, Some(&fd)).unwrap().changes;
    assert!(matches!(&changes(Depth::Full)[..], [Change::Put(_)]));
    // Both stand still: the owner renews nothing, and nobody looks.
    thread::sleep(ttl * 2);
    assert!(changes(Depth::Full).is_empty(), "an owner was not asked whether it goes on");
    // The watcher goes on, and the owner does not.
    let began = Instant::now();
    while changes(Depth::Lives).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "a silent owner stays");
        thread::sleep(Duration::from_millis(100));
    }
    owner.remove().unwrap();
}

#[test]
fn a_file_on_its_way_asks_for_no_pass() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    let bucket = place.bucket("v1/instances");
    fs::create_dir_all(&bucket).unwrap();
    let mut scan = Scan::new(place);
    scan.follow(true);
    let fd = super::super::notice::instance().unwrap();
    let wanted = BTreeSet::from(["v1/instances".to_owned()]);
    scan.pass(Depth::Full, Some(&wanted), Some(&fd)).unwrap();
    let on_its_way = bucket.join(format!("{TEMPORARY}a"));
    fs::write(&on_its_way, "{}").unwrap();
    assert!(!scan.notices(&fd), "of a file that has no name yet");
    fs::hard_link(&on_its_way, bucket.join("a")).unwrap();
    assert!(scan.notices(&fd), "of a file that has got its name");
    fs::remove_file(&on_its_way).unwrap();
    assert!(scan.notices(&fd), "what was noticed before is kept for the pass");
    scan.pass(Depth::Noticed, Some(&wanted), Some(&fd)).unwrap();
    assert_eq!(scan.skipped(), 1, "the pass read what was noticed before it");
    assert!(!scan.notices(&fd));
}

#[test]
fn a_file_beside_the_buckets_hides_nothing() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    let owner = OwnerFile::create(&place, InstanceId(7), Duration::from_secs(10)).unwrap();
    let key = Key::new(Path::new("endpoint", ["a", "b", "c"]).unwrap(), InstanceId(7));
    fs::create_dir_all(place.buckets()).unwrap();
    fs::write(place.buckets().join("README"), "").unwrap();
    Records { place: &place, owner: &owner, ledger: &Ledger::default() }.put(&key, b"1").unwrap();
    let mut scan = Scan::new(place);
    scan.follow(true);
    let fd = super::super::notice::instance().unwrap();
    let found = scan.pass(Depth::Full, None, Some(&fd)).unwrap();
    assert!(matches!(&found.changes[..], [Change::Put(_)]));
    owner.remove().unwrap();
}
