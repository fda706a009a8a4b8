//! What the doctor says of a directory that something is wrong with, and what the others say of it.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use common::{Ended, Place, Running};
use rustix::fs::{CWD, FileType, Mode, mknodat};

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

const REGISTER: [&str; 5] = ["register", "endpoint", "a/b/c", "--tcp", "h:1"];

/// The finding of this name that is not well; `told` is in it.
fn assert_found(ended: &Ended, mark: &str, what: &str, told: &[&str]) {
    let found = ended
        .stdout
        .lines()
        .find(|line| line.starts_with(mark) && line.contains(what) && told.iter().all(|told| line.contains(told)));
    assert!(found.is_some(), "{mark} {what} {told:?}: {ended:?}");
}

#[test]
fn a_stray_among_the_owners_or_the_records_is_named_and_stops_nothing() {
    let place = Place::new();
    let (owners, bucket) = (place.kv().join(".discovery/owners"), place.kv().join("v1/instances"));
    let record = |id: u32| bucket.join(format!("a%2Fb%2Fc%2F{id:x}"));
    fs::create_dir_all(&bucket).unwrap();
    fs::create_dir_all(owners.join("a-directory")).unwrap();
    fifo(&owners.join("a-fifo"));
    fifo(&record(1));
    File::create(record(2)).unwrap().set_len(1 << 40).unwrap();
    let worker = place.start(&REGISTER);
    worker.line();

    let ended = place.run(&["doctor"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let named = owners.join("a-directory");
    assert_found(&ended, "poor", "owners", &["2 ", named.to_str().unwrap(), "no regular file", "move"]);
    assert_found(&ended, "poor", "files", &[record(1).to_str().unwrap(), "no regular file", "move"]);
    assert_found(&ended, "poor", "files", &[record(2).to_str().unwrap(), "1 MiB", "remove"]);
    assert_found(&ended, "ok", "records", &["1 endpoint"]);
    assert_eq!(place.list("endpoint").len(), 1);
}

#[test]
fn a_file_where_a_directory_should_be_is_named() {
    for below in ["v1", ".discovery", ".discovery/owners", "v1/instances"] {
        let place = Place::new();
        let file = place.kv().join(below);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "").unwrap();
        let ended = place.run(&["doctor"]);
        ended.assert_fails(1, "wrong");
        assert_found(&ended, "WRONG", "", &[file.to_str().unwrap(), "move it away"]);
        place.run(&REGISTER).assert_fails(2, file.to_str().unwrap());
        place.run(&["watch", "endpoint"]).assert_fails(2, file.to_str().unwrap());
    }
    // What is no bucket of anybody's is passed over.
    let place = Place::new();
    fs::create_dir_all(place.kv().join("v1")).unwrap();
    fs::write(place.kv().join("v1/READ.ME"), "").unwrap();
    assert_eq!(place.run(&["doctor"]).code, Some(0));
}

#[test]
fn a_directory_that_is_a_broken_link_or_one_to_itself_is_named() {
    for (target, told) in [("nowhere", "points to nothing"), ("kv", "points to itself")] {
        let place = Place::new();
        symlink(place.directory.path().join(target), place.kv()).unwrap();
        let ended = place.run(&["doctor"]);
        ended.assert_fails(1, "wrong");
        assert_found(&ended, "WRONG", "", &[place.kv().to_str().unwrap(), told, "DYN_FILE_KV"]);
        place.run(&REGISTER).assert_fails(2, told);
    }
    let place = Place::new();
    symlink(place.kv(), place.kv()).unwrap();
    place.run(&["list"]).assert_fails(2, "points to itself");
}

#[test]
fn a_file_system_that_makes_no_directories_is_told() {
    let place = Place::new();
    let run = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        command.env("DYN_FILE_KV", "/proc/discovery");
        Running::start(command).ended()
    };
    let ended = run(&["doctor"]);
    ended.assert_fails(1, "wrong");
    assert_found(&ended, "WRONG", "directory", &["/proc/discovery", "takes no files", "DYN_FILE_KV"]);
    run(&REGISTER).assert_fails(2, "/proc/discovery");
}
