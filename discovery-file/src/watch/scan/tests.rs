use std::thread;

use discovery_core::backend::Change;
use discovery_core::{InstanceId, Path};

use super::*;
use crate::owner::OwnerFile;
use crate::place::Nonce;
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
    scan.follow(Following::Notices);
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
    scan.follow(Following::Notices);
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
    scan.follow(Following::Notices);
    let fd = super::super::notice::instance().unwrap();
    let found = scan.pass(Depth::Full, None, Some(&fd)).unwrap();
    assert!(matches!(&found.changes[..], [Change::Put(_)]));
    owner.remove().unwrap();
}

/// The bucket of endpoints.
const INSTANCES: &str = "instances";

/// A watcher that has seen `wanted` as it is.
fn watching(place: &Place, wanted: &BTreeSet<String>) -> (Scan, OwnedFd) {
    let mut scan = Scan::new(place.clone());
    scan.follow(Following::Notices);
    let fd = super::super::notice::instance().unwrap();
    scan.pass(Depth::Full, Some(wanted), Some(&fd)).unwrap();
    (scan, fd)
}

fn kinds(findings: &Findings) -> Vec<&'static str> {
    let kind = |change: &Change| if matches!(change, Change::Put(_)) { "put" } else { "delete" };
    findings.changes.iter().map(kind).collect()
}

/// Whether the file system there can be read at once: ext4, XFS and Btrfs can, tmpfs and overlayfs cannot.
fn tells_what_is_in_memory(directory: &std::path::Path) -> bool {
    let path = directory.join("probe");
    fs::write(&path, "1").unwrap();
    let read = crate::reading::open(&path, Reading::AtOnce).and_then(|file| {
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        io::read_to_string(crate::reading::Content::of(&file, Reading::AtOnce))
    });
    fs::remove_file(&path).unwrap();
    read.is_ok()
}

#[test]
fn what_an_owner_does_is_taken_in_without_a_pass_and_its_death_is_not() {
    let root = tempfile::tempdir().unwrap();
    let able = tells_what_is_in_memory(root.path());
    let place = Place::new(root.path().to_owned());
    let wanted = BTreeSet::from([INSTANCES.to_owned()]);
    fs::create_dir_all(place.bucket(INSTANCES)).unwrap();
    let others: Vec<_> =
        (10..14).map(|id| OwnerFile::create(&place, InstanceId(id), Duration::from_secs(10)).unwrap()).collect();
    let owner = OwnerFile::create(&place, InstanceId(7), Duration::from_secs(10)).unwrap();
    let (mut scan, fd) = watching(&place, &wanted);

    let key = Key::new(Path::new("endpoint", ["a", "b", "c"]).unwrap(), InstanceId(7));
    let ledger = Ledger::default();
    let records = Records { place: &place, owner: &owner, ledger: &ledger };
    for (value, expected) in [(Some(b"1"), "put"), (Some(b"2"), "put"), (None, "delete"), (Some(b"3"), "put")] {
        match value {
            Some(value) => records.put(&key, value).unwrap(),
            None => records.delete(&key).unwrap(),
        }
        assert!(scan.notices(&fd));
        let found = scan.at_once(&fd);
        assert_eq!(found.is_some(), able, "one file and one owner, just written");
        let found = found.unwrap_or_else(|| scan.pass(Depth::Noticed, Some(&wanted), Some(&fd)).unwrap());
        assert_eq!(kinds(&found), [expected]);
        assert!(!scan.unfinished());
    }
    drop(owner);
    assert!(scan.notices(&fd));
    assert!(scan.at_once(&fd).is_none(), "whether an owner is dead may have to be asked again and again");
    assert_eq!(kinds(&scan.pass(Depth::Noticed, Some(&wanted), Some(&fd)).unwrap()), ["delete"]);
    drop(others);
}

#[test]
fn what_cannot_be_read_at_once_is_left_to_a_pass_that_finds_all() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    fs::create_dir_all(place.bucket(INSTANCES)).unwrap();
    let wanted = BTreeSet::from([INSTANCES.to_owned()]);
    let (mut scan, fd) = watching(&place, &wanted);
    let record = |id| {
        let key = Key::new(Path::new("endpoint", ["a", "b", "c"]).unwrap(), InstanceId(id));
        place.record(&Spot::of(&key).unwrap())
    };
    fs::write(record(1), "1").unwrap();
    // A link is as good as a file that is not in memory: reading it at once fails.
    std::os::unix::fs::symlink("nowhere", record(2)).unwrap();
    fs::write(record(3), "1").unwrap();
    assert!(scan.notices(&fd));
    assert!(scan.at_once(&fd).is_none());
    assert!(scan.unfinished(), "a pass has to come");
    assert_eq!(kinds(&scan.pass(Depth::Noticed, Some(&wanted), Some(&fd)).unwrap()), ["put", "put"]);
    assert_eq!(scan.skipped(), 1);
    fs::write(record(1), "2").unwrap();
    assert!(scan.notices(&fd));
    assert!(scan.at_once(&fd).is_none() && !scan.failed, "it is not tried each time");
    assert_eq!(kinds(&scan.pass(Depth::Noticed, Some(&wanted), Some(&fd)).unwrap()), ["put"]);
}

#[test]
fn many_files_and_foreign_names_are_left_to_a_pass() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    let bucket = place.bucket(INSTANCES);
    fs::create_dir_all(&bucket).unwrap();
    let wanted = BTreeSet::from([INSTANCES.to_owned()]);
    let (mut scan, fd) = watching(&place, &wanted);
    for id in 1..40 {
        let key = Key::new(Path::new("endpoint", ["a", "b", "c"]).unwrap(), InstanceId(id));
        fs::write(place.record(&Spot::of(&key).unwrap()), "1").unwrap();
    }
    assert!(scan.notices(&fd));
    assert!(scan.at_once(&fd).is_none() && !scan.failed, "39 files would keep the thread from other work");
    assert_eq!(scan.pass(Depth::Noticed, Some(&wanted), Some(&fd)).unwrap().changes.len(), 39);
    fs::write(bucket.join("README"), "").unwrap();
    assert!(scan.notices(&fd));
    assert!(scan.at_once(&fd).is_none());
    scan.pass(Depth::Noticed, Some(&wanted), Some(&fd)).unwrap();
    assert_eq!(scan.skipped(), 1);
}

#[test]
fn an_owner_that_goes_takes_its_claims_along_and_nobody_elses() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    let wanted = BTreeSet::from([INSTANCES.to_owned()]);
    fs::create_dir_all(place.bucket(INSTANCES)).unwrap();
    let ledgers = [Ledger::default(), Ledger::default()];
    let owners = [1, 2].map(|id| OwnerFile::create(&place, InstanceId(id), Duration::from_secs(10)).unwrap());
    let (mut scan, fd) = watching(&place, &wanted);
    for (id, (owner, ledger)) in owners.iter().zip(&ledgers).enumerate() {
        let key = Key::new(Path::new("endpoint", ["a", "b", "c"]).unwrap(), InstanceId(id as u64 + 1));
        Records { place: &place, owner, ledger }.put(&key, b"1").unwrap();
    }
    assert_eq!(kinds(&scan.pass(Depth::Noticed, Some(&wanted), Some(&fd)).unwrap()), ["put", "put"]);
    // The file is removed by somebody else: its owner counts as dead, its record as nobody's, and that stays while it is young.
    fs::remove_file(place.owners().join(owners[0].name())).unwrap();
    assert!(scan.notices(&fd));
    assert!(scan.pass(Depth::Noticed, Some(&wanted), Some(&fd)).unwrap().changes.is_empty());
    assert_eq!(scan.owners.claimed(), 1);
    let [_, second] = owners;
    drop(second);
    assert_eq!(kinds(&scan.pass(Depth::Noticed, Some(&wanted), Some(&fd)).unwrap()), ["delete"]);
}

/// As if so much time had gone by since the watcher looked last.
fn age_by(scan: &mut Scan, by: Duration) {
    let back = |at: &mut Instant| *at = at.checked_sub(by).expect("the machine has run for longer");
    back(&mut scan.last);
    scan.files.each().flat_map(|known| &mut known.modified_seen).for_each(back);
    scan.owners.clocks().for_each(back);
}

#[test]
fn who_only_lists_now_and_then_sees_silence_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    fs::create_dir_all(place.bucket(INSTANCES)).unwrap();
    let key = |id| Key::new(Path::new("endpoint", ["a", "b", "c"]).unwrap(), InstanceId(id));
    // One of the reference's, killed, and one of ours that was stopped.
    fs::write(place.record(&Spot::of(&key(1)).unwrap()), "1").unwrap();
    let stopped = OwnerFile::create(&place, InstanceId(2), Duration::from_secs(10)).unwrap();
    Records { place: &place, owner: &stopped, ledger: &Ledger::default() }.put(&key(2), b"1").unwrap();
    let lives = OwnerFile::create(&place, InstanceId(3), Duration::from_secs(10)).unwrap();
    Records { place: &place, owner: &lives, ledger: &Ledger::default() }.put(&key(3), b"1").unwrap();
    let wanted = BTreeSet::from([INSTANCES.to_owned()]);
    let mut scan = Scan::new(place);
    let mut told = Vec::new();
    for _ in 0..4 {
        lives.touch().unwrap();
        let found = scan.pass(Depth::Full, Some(&wanted), None).unwrap();
        told.push(kinds(&found).len());
        age_by(&mut scan, Duration::from_secs(6));
    }
    assert_eq!(told, [3, 0, 0, 2], "after 18 s");
    assert_eq!(scan.files.each().filter(|known| known.shown).count(), 1);
}

#[test]
fn a_record_that_is_written_again_after_long_shows_at_once() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    fs::create_dir_all(place.bucket(INSTANCES)).unwrap();
    let key = Key::new(Path::new("endpoint", ["a", "b", "c"]).unwrap(), InstanceId(1));
    let path = place.record(&Spot::of(&key).unwrap());
    fs::write(&path, "1").unwrap();
    let wanted = BTreeSet::from([INSTANCES.to_owned()]);
    let (mut scan, fd) = watching(&place, &wanted);
    for known in scan.files.each() {
        let seen = known.modified_seen.as_mut().unwrap();
        *seen = seen.checked_sub(Duration::from_secs(11)).expect("the machine has run for longer");
    }
    assert_eq!(kinds(&scan.pass(Depth::Lives, Some(&wanted), Some(&fd)).unwrap()), ["delete"]);
    fs::write(&path, "2").unwrap();
    assert_eq!(kinds(&scan.pass(Depth::Noticed, Some(&wanted), Some(&fd)).unwrap()), ["put"]);
}

#[test]
fn an_owner_that_compacts_or_closes_keeps_nothing_from_being_taken_in_at_once() {
    let root = tempfile::tempdir().unwrap();
    let able = tells_what_is_in_memory(root.path());
    let place = Place::new(root.path().to_owned());
    fs::create_dir_all(place.bucket(INSTANCES)).unwrap();
    let wanted = BTreeSet::from([INSTANCES.to_owned()]);
    let ledgers = [Ledger::default(), Ledger::default()];
    let owners = [1, 2].map(|id| OwnerFile::create(&place, InstanceId(id), Duration::from_secs(10)).unwrap());
    let (mut scan, fd) = watching(&place, &wanted);
    let put = |which: usize, value: &[u8]| {
        let key = Key::new(Path::new("endpoint", ["a", "b", "c"]).unwrap(), InstanceId(which as u64 + 1));
        Records { place: &place, owner: &owners[which], ledger: &ledgers[which] }.put(&key, value).unwrap();
    };
    let mut taken_in = || {
        assert!(scan.notices(&fd));
        let found = scan.at_once(&fd).map(|found| kinds(&found).len());
        // Whatever it was, a pass sees to it.
        let passed = kinds(&scan.pass(Depth::Noticed, Some(&wanted), Some(&fd)).unwrap()).len();
        (found.is_some(), found.unwrap_or(0) + passed)
    };
    put(0, b"1");
    assert_eq!(taken_in(), (able, 1));
    // The file is open still, and its name is not known to be free then.
    owners[1].remove().unwrap();
    assert_eq!(taken_in().1, 0);
    put(0, b"2");
    assert_eq!(taken_in(), (able, 1), "as before");
    let spot = Spot::of(&Key::new(Path::new("endpoint", ["a", "b", "c"]).unwrap(), InstanceId(1))).unwrap();
    let nonce = Nonce::at(&place.record(&spot)).unwrap().unwrap();
    owners[0].compact_now(&[crate::owner::Claim { spot, nonce }]).unwrap();
    assert_eq!(taken_in().1, 0, "its record stays");
    put(0, b"3");
    // The former file was closed, which may be a death: for a second it is asked again and again.
    assert_eq!(taken_in().1, 1);
}

#[test]
fn nobody_is_silent_while_a_watcher_that_polls_was_kept_from_looking() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    fs::create_dir_all(place.bucket(INSTANCES)).unwrap();
    let owner = OwnerFile::create(&place, InstanceId(7), Duration::from_secs(1)).unwrap();
    let key = Key::new(Path::new("endpoint", ["a", "b", "c"]).unwrap(), InstanceId(7));
    Records { place: &place, owner: &owner, ledger: &Ledger::default() }.put(&key, b"1").unwrap();
    let wanted = BTreeSet::from([INSTANCES.to_owned()]);
    let mut scan = Scan::new(place);
    scan.follow(Following::Polling);
    let changes = |scan: &mut Scan| kinds(&scan.pass(Depth::Full, Some(&wanted), None).unwrap());
    assert_eq!(changes(&mut scan), ["put"]);
    age_by(&mut scan, Duration::from_secs(2));
    assert!(changes(&mut scan).is_empty(), "the owner was not asked whether it goes on");
    assert!(scan.leftovers().is_empty());
    // The watcher goes on, and the owner does not.
    age_by(&mut scan, Duration::from_millis(900));
    assert_eq!(changes(&mut scan), ["delete"]);
}

/// What comes while the rest is read, and cannot be read at once itself, is noticed by nothing else.
#[test]
fn what_was_noticed_while_others_were_read_at_once_is_left_to_the_pass_too() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    fs::create_dir_all(place.bucket(INSTANCES)).unwrap();
    let wanted = BTreeSet::from([INSTANCES.to_owned()]);
    let record = |id| {
        let key = Key::new(Path::new("endpoint", ["a", "b", "c"]).unwrap(), InstanceId(id));
        place.record(&Spot::of(&key).unwrap())
    };
    for id in [4, 5] {
        fs::write(record(id), "1").unwrap();
    }
    let (mut scan, fd) = watching(&place, &wanted);
    fs::write(record(1), "1").unwrap();
    assert!(scan.notices(&fd));
    // Too late for these notices, and in time for those that come with the first look.
    fs::write(record(2), "2".repeat(70 << 10)).unwrap();
    fs::write(record(3), "1").unwrap();
    fs::remove_file(record(4)).unwrap();
    fs::remove_file(record(5)).unwrap();
    fs::write(record(5), "1").unwrap();
    assert!(scan.at_once(&fd).is_none(), "one of them is too long to be read at once");
    let mut found = kinds(&scan.pass(Depth::Noticed, Some(&wanted), Some(&fd)).unwrap());
    found.sort_unstable();
    assert_eq!(found, ["delete", "delete", "put", "put", "put", "put"], "of the fifth both: it was made anew");
    assert!(!scan.unfinished());
}
