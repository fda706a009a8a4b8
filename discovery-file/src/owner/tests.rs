use std::path::Path;

use super::*;

fn owner(root: &Path, id: u64) -> OwnerFile {
    OwnerFile::create(&Place::new(root.to_owned()), InstanceId(id), Duration::from_secs(7)).unwrap()
}

/// A file in a bucket, and the claim on it.
fn file(place: &Place, name: &str) -> Claim {
    let spot = Spot { bucket: "instances".to_owned(), name: name.to_owned() };
    place.make(&place.bucket(&spot.bucket)).unwrap();
    fs::write(place.record(&spot), "{}").unwrap();
    let nonce = Nonce::at(&place.record(&spot)).unwrap().unwrap();
    Claim { spot, nonce }
}

fn read(place: &Place, name: &str) -> Owner {
    Owner::read(place, name, Reading::Waits).unwrap().unwrap()
}

#[test]
fn a_living_owner_is_not_reaped_and_a_dead_one_is_with_what_it_claims() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    let living = owner(root.path(), 0x2a);
    let claims = [file(&place, "a"), file(&place, "b")];
    living.claim(&claims, || unreachable!("so few claims need no compacting")).unwrap();
    let seen = read(&place, "2a");
    assert!(seen.alive);
    assert_eq!((seen.ttl, seen.claims.len()), (Duration::from_secs(7), 2));
    seen.reap(&place, End::Death).unwrap();
    assert!(place.record(&claims[0].spot).exists() && living.check().is_ok());

    // One of its files is now somebody else's, under the same name.
    let temporary = place.bucket("instances").join(format!("{}x", temporary_prefix("2a")));
    fs::write(&temporary, "").unwrap();
    fs::write(place.root().join("next"), "{}").unwrap();
    fs::rename(place.root().join("next"), place.record(&claims[1].spot)).unwrap();
    drop(living);
    let seen = read(&place, "2a");
    assert!(!seen.alive);
    seen.reap(&place, End::Death).unwrap();
    assert!(!place.record(&claims[0].spot).exists() && !temporary.exists());
    assert!(place.record(&claims[1].spot).exists(), "the next one's file is left alone");
    assert!(Owner::names(&place).unwrap().is_empty());
}

#[test]
fn a_dead_owner_stays_known_while_one_of_its_buckets_cannot_be_looked_at() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    let dead = owner(root.path(), 1);
    let claim = file(&place, "a");
    dead.claim(std::slice::from_ref(&claim), || unreachable!("one claim needs no compacting")).unwrap();
    drop(dead);
    // A link to itself: neither there nor missing, for root too.
    let (buckets, away) = (place.buckets(), root.path().join("away"));
    fs::rename(&buckets, &away).unwrap();
    std::os::unix::fs::symlink(&buckets, &buckets).unwrap();
    read(&place, "1").reap(&place, End::Death).unwrap_err();
    fs::remove_file(&buckets).unwrap();
    fs::rename(&away, &buckets).unwrap();
    read(&place, "1").reap(&place, End::Death).unwrap();
    assert!(!place.record(&claim.spot).exists() && Owner::names(&place).unwrap().is_empty());
    // What a bucket held that is missing is gone with it.
    let dead = owner(root.path(), 1);
    dead.claim(&[file(&place, "a")], || unreachable!("one claim needs no compacting")).unwrap();
    drop(dead);
    fs::remove_dir_all(&buckets).unwrap();
    read(&place, "1").reap(&place, End::Death).unwrap();
    assert!(Owner::names(&place).unwrap().is_empty());
}

#[test]
fn a_silent_owner_that_renews_in_time_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    let silent = owner(root.path(), 1);
    let seen = read(&place, "1");
    let end = End::Silence(seen.state.renewed);
    File::open(place.owners().join("1")).unwrap().set_modified(seen.state.renewed + Duration::from_secs(1)).unwrap();
    seen.reap(&place, end).unwrap();
    silent.check().unwrap();

    read(&place, "1").reap(&place, End::Silence(read(&place, "1").state.renewed)).unwrap();
    assert_eq!(silent.check().unwrap_err().kind(), ErrorKind::SessionLost);
    assert_eq!(silent.touch().unwrap_err().kind(), ErrorKind::SessionLost);
    silent.remove().unwrap();
}

#[test]
fn two_lives_of_one_id_have_two_files() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (owner(root.path(), 1), owner(root.path(), 1));
    assert_ne!(one.name(), two.name());
    one.remove().unwrap();
    two.check().unwrap();
    drop(two);
    let three = owner(root.path(), 1);
    assert_eq!(three.name(), "1");
}

#[test]
fn a_long_file_is_compacted_and_its_owner_lives_on() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    let living = owner(root.path(), 1);
    let claim = file(&place, "a");
    for _ in 0..2000 {
        living.claim(std::slice::from_ref(&claim), || vec![claim.clone()]).unwrap();
    }
    let size = fs::metadata(place.owners().join("1")).unwrap().len();
    assert!(size < 2 * COMPACT_ABOVE, "{size}");
    let seen = read(&place, "1");
    assert!(seen.alive && seen.claims == HashSet::from([claim]));
    assert_eq!(Owner::names(&place).unwrap(), ["1"]);
    living.touch().unwrap();
}

#[test]
fn a_torn_line_hides_no_other() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    let living = owner(root.path(), 1);
    let claim = file(&place, "a");
    let mut file = OpenOptions::new().append(true).open(place.owners().join("1")).unwrap();
    file.write_all(b"{\"bucket\":\"inst\n").unwrap();
    living.claim(std::slice::from_ref(&claim), || unreachable!("so few claims need no compacting")).unwrap();
    assert_eq!(read(&place, "1").claims, HashSet::from([claim]));
}

#[test]
fn an_owner_that_compacts_its_file_never_looks_dead() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    let living = owner(root.path(), 1);
    let claim = file(&place, "a");
    let done = std::sync::atomic::AtomicBool::new(false);
    let compactions = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let (_, alive) = Owner::probe(&place, "1", Reading::Waits).unwrap().expect("a file");
                assert!(alive && read(&place, "1").alive);
            }
        });
        // Each one replaces the file.
        let mut compactions = 0;
        let began = std::time::Instant::now();
        while compactions < 3_000 && !looking.is_finished() && began.elapsed() < Duration::from_secs(20) {
            living.compact_now(std::slice::from_ref(&claim)).unwrap();
            compactions += 1;
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        looking.join().unwrap();
        compactions
    });
    assert!(compactions > 100);
}

#[test]
fn what_is_added_to_a_file_is_read_alone() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path().to_owned());
    let living = owner(root.path(), 1);
    let claims: Vec<_> = ["a", "b", "c"].map(|name| file(&place, name)).into();
    let claim = |which: usize| living.claim(&claims[which..=which], || unreachable!("so few need no compacting"));
    claim(0).unwrap();
    let mut seen = read(&place, "1");
    let mut added = || seen.read_on(&place, Reading::Waits).unwrap();
    assert_eq!(added(), Some(vec![]));
    claim(1).unwrap();
    assert_eq!(added(), Some(vec![claims[1].clone()]));
    // A line that is not whole yet, as it may look to who reads while it is written.
    let path = place.owners().join("1");
    let mut torn = serde_json::to_vec(&claims[2]).unwrap();
    let rest = torn.split_off(9);
    let mut half_written = OpenOptions::new().append(true).open(&path).unwrap();
    half_written.write_all(&torn).unwrap();
    assert_eq!(added(), Some(vec![]));
    half_written.write_all(&rest).unwrap();
    half_written.write_all(b"\n").unwrap();
    assert_eq!(added(), Some(vec![claims[2].clone()]));
    living.compact_now(&claims[..1]).unwrap();
    assert_eq!(added(), None, "another file");
    assert_eq!((seen.claims.len(), read(&place, "1").claims.len()), (3, 1));
}
