//! What lies in a shared directory, for `discovery doctor`.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use discovery_core::{Key, Record};
use discovery_dynamo::layout::{bucket_of_kind, parse_file_name};
use discovery_dynamo::{Endpoint, EventChannel, EventSource, Model};

use crate::MAX_VALUE;
use crate::config::Config;
use crate::owner::{Claim, Owner};
use crate::place::{Nonce, Place, Spot, TEMPORARY, is_stray};
use crate::reading::{Content, Reading, open};
use crate::record::{FOREIGN_TTL, GRACE, age};

/// What lies in a shared directory.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Diagnosis {
    /// Who registers here.
    pub owners: OwnerFiles,
    /// What is registered here, by whomever.
    pub records: RecordFiles,
}

/// The owner files of a directory.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OwnerFiles {
    /// How many owners live.
    pub alive: usize,
    /// The processes of those that live and have not renewed for longer than their time to live: stopped, or unable to
    /// write.
    pub silent: Vec<u32>,
    /// How many are dead. Whoever watches removes their records.
    pub dead: usize,
    /// Files that cannot be read, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// What is no regular file, and is passed over.
    pub strays: Vec<PathBuf>,
}

/// The record files of a directory.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RecordFiles {
    /// How many are claimed by an owner.
    pub owned: usize,
    /// How many are claimed by none and young: another implementation's, or just being written.
    pub others: usize,
    /// How many are claimed by none and not renewed for so long that they are shown to nobody.
    pub expired: usize,
    /// Files whose names are no records', which are passed over.
    pub foreign: Vec<PathBuf>,
    /// What is no regular file under a record's name, and is passed over.
    pub strays: Vec<PathBuf>,
    /// Files that are larger than [`MAX_VALUE`], and are passed over.
    pub oversized: Vec<PathBuf>,
    /// What stands where the directory of one of Dynamo's kinds should be, and is no directory.
    pub misplaced: Vec<PathBuf>,
    /// The keys and values of all that can be read, those that are not shown included.
    pub records: Vec<(Key, Bytes)>,
}

/// Looks at all that lies in the directory of `config`. Reads only: what has expired is counted and left alone. What
/// comes or goes meanwhile may be missed. Blocks, for as long as the file system takes.
pub fn diagnose(config: &Config) -> Diagnosis {
    let place = Place::new(config.directory.clone());
    let mut claimed = HashSet::new();
    let owners = owners(&place, &mut claimed);
    Diagnosis { owners, records: records(&place, &claimed) }
}

fn owners(place: &Place, claimed: &mut HashSet<Claim>) -> OwnerFiles {
    let mut found = OwnerFiles::default();
    for name in names(&place.owners()) {
        if name.starts_with(TEMPORARY) {
            continue;
        }
        let path = place.owners().join(&name);
        match Owner::read(place, &name, Reading::Waits) {
            Ok(Some(owner)) => {
                let silent = age(owner.state.renewed) > owner.ttl;
                if owner.alive && silent {
                    found.silent.push(owner.pid());
                }
                *(if owner.alive { &mut found.alive } else { &mut found.dead }) += 1;
                claimed.extend(owner.claims);
            }
            Ok(None) if is_stray(&path) => found.strays.push(path),
            Ok(None) => match fs::File::open(&path) {
                // It may have ended meanwhile.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    found.unreadable.push((path, error.to_string()))
                }
                _ => {}
            },
            Err(error) => found.unreadable.push((path, error.message().to_owned())),
        }
    }
    found
}

fn records(place: &Place, claimed: &HashSet<Claim>) -> RecordFiles {
    let mut found = RecordFiles::default();
    for bucket in names(&place.buckets()) {
        let directory = place.bucket(&bucket);
        if directory.is_dir() {
            for name in names(&directory).into_iter().filter(|name| !name.starts_with(TEMPORARY)) {
                found.take_in(place, Spot { bucket: bucket.clone(), name }, claimed);
            }
        } else if is_known(&bucket) {
            found.misplaced.push(directory);
        }
    }
    found
}

impl RecordFiles {
    fn take_in(&mut self, place: &Place, spot: Spot, claimed: &HashSet<Claim>) {
        let path = place.record(&spot);
        let Ok(key) = parse_file_name(&spot.bucket, &spot.name) else {
            self.foreign.push(path);
            return;
        };
        let file = match open(&path, Reading::Waits) {
            Ok(Some(file)) => file,
            Ok(None) if is_stray(&path) => {
                self.strays.push(path);
                return;
            }
            // It was removed meanwhile, or may not be read, which the owners' files tell first.
            _ => return,
        };
        let Ok(metadata) = file.metadata() else { return };
        if metadata.len() > MAX_VALUE as u64 {
            self.oversized.push(path);
            return;
        }
        let expired = || metadata.modified().is_ok_and(|at| age(at) > FOREIGN_TTL + GRACE);
        *(if claimed.contains(&Claim { spot, nonce: Nonce::of(&metadata) }) {
            &mut self.owned
        } else if expired() {
            &mut self.expired
        } else {
            &mut self.others
        }) += 1;
        let mut value = Vec::new();
        if Content::of(&file, Reading::Waits).take(MAX_VALUE as u64).read_to_end(&mut value).is_ok() {
            self.records.push((key, value.into()));
        }
    }
}

/// Whether records of one of Dynamo's kinds lie there.
fn is_known(bucket: &str) -> bool {
    let kinds = [Endpoint::KIND, Model::KIND, EventChannel::KIND, EventSource::KIND];
    kinds.iter().any(|kind| bucket_of_kind(kind).is_ok_and(|known| known == bucket))
}

/// What a directory holds; nothing where it cannot be read or is none.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}
