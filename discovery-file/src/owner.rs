//! Owner files: who is alive, and which files are whose.
//!
//! An owner file lies outside the buckets, in `.discovery/owners`, and is locked for its owner's life. Its first line
//! says who that is; each further line claims a file by its place and its [`Nonce`], and is written before the file
//! appears, so that no file of a dead owner is without a claim. Its modification time is the last renewal. All that
//! creates, replaces or removes owner files does so under the lock of their directory.

use std::collections::HashSet;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use discovery_core::{Error, ErrorKind, InstanceId, Result};
use serde::{Deserialize, Serialize};

use crate::fault::fault;
use crate::lock::{DirectoryLock, is_alive, take_life};
use crate::place::{Nonce, Place, Spot, TEMPORARY, remove};
use crate::reading::{self, Content, Reading};

/// Claims are kept until the file has this many bytes more than twice what is needed.
const COMPACT_ABOVE: u64 = 64 << 10;
/// No line of an owner is as long: what is, is nobody's, and may be endless.
const MAX_LINE: u64 = 64 << 10;

/// How many owners this process has had.
static LIVES: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    id: String,
    pid: u32,
    ttl_ms: u64,
}

/// A file of an owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Claim {
    #[serde(flatten)]
    pub(crate) spot: Spot,
    pub(crate) nonce: Nonce,
}

/// The owner file of one of this process's sessions. Dropping it ends the owner's life.
#[derive(Debug)]
pub(crate) struct OwnerFile {
    place: Place,
    name: String,
    life: u64,
    header: Header,
    file: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    file: File,
    nonce: Nonce,
    size: u64,
    /// Whether the last line has no end, because the disk was full.
    torn: bool,
}

impl OwnerFile {
    /// Makes and locks the owner file of a new session of `id`. What a dead owner of the same name left goes first.
    pub(crate) fn create(place: &Place, id: InstanceId, ttl: Duration) -> Result<Self> {
        let header = Header { version: 1, id: id.to_string(), pid: std::process::id(), ttl_ms: ttl.as_millis() as u64 };
        let owners = place.owners();
        place.make(&owners)?;
        if let Some(earlier) = Owner::read(place, &id.to_string(), Reading::Waits)?
            && !earlier.alive
        {
            earlier.reap(place, End::Death)?;
        }
        let _lock = DirectoryLock::acquire(&owners)?;
        // Two sessions of one chosen id live side by side; only one of them gets a key that both want.
        let mut name = id.to_string();
        let mut file = open_new(&owners.join(&name));
        while matches!(&file, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
            name = format!("{id}.{:x}", fastrand::u64(..));
            file = open_new(&owners.join(&name));
        }
        let path = owners.join(&name);
        let held = file.and_then(|file| Held::write(file, &header, &[])).map_err(|error| {
            // Without its lock it would only be taken for a dead owner's; best effort all the same.
            let _ = fs::remove_file(&path);
            fault(&path, error)
        })?;
        let life = LIVES.fetch_add(1, Ordering::Relaxed);
        Ok(Self { place: place.clone(), name, life, header, file: Mutex::new(held) })
    }

    /// The name of the file, which is this owner's own among all that live.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Which owner it is of all that this process has had. A later one of the same name claims nothing that this one did.
    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    fn path(&self) -> PathBuf {
        self.place.owners().join(&self.name)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails once the file was removed: then this owner counts as dead, and must not write any more.
    ///
    /// # Errors
    /// [`ErrorKind::SessionLost`], or what keeps the file from being looked at.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_held(&self.held())
    }

    fn check_held(&self, held: &Held) -> Result<()> {
        let path = self.path();
        match Nonce::at(&path) {
            Ok(Some(nonce)) if nonce == held.nonce => Ok(()),
            Ok(_) => Err(self.lost()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(self.lost()),
            Err(error) => Err(fault(&path, error)),
        }
    }

    pub(crate) fn lost(&self) -> Error {
        Error::new(
            ErrorKind::SessionLost,
            format!("{} is gone: this owner was silent for longer than its time to live", self.path().display()),
        )
        .with_backend("file")
    }

    /// Claims files that are about to appear. `held` is everything this owner claims, these included.
    pub(crate) fn claim(&self, new: &[Claim], all: impl FnOnce() -> Vec<Claim>) -> Result<()> {
        let path = self.path();
        let mut held = self.held();
        self.check_held(&held)?;
        let mut text = if held.torn { vec![b'\n'] } else { Vec::new() };
        for claim in new {
            write_line(&mut text, claim).map_err(|error| fault(&path, error))?;
        }
        if held.size + text.len() as u64 > COMPACT_ABOVE {
            let all = all();
            let mut needed = Vec::new();
            for claim in &all {
                write_line(&mut needed, claim).map_err(|error| fault(&path, error))?;
            }
            if held.size > COMPACT_ABOVE + 2 * needed.len() as u64 {
                return self.compact(&mut held, &all);
            }
        }
        // One call, so that a reader sees whole lines, but for a full disk: a torn line is closed by the next one.
        let written = held.file.write_all(&text);
        held.size = held.file.metadata().map_or(held.size, |metadata| metadata.len());
        held.torn = written.is_err() && held.file.write_all(b"\n").is_err();
        written.map_err(|error| fault(&path, error))
    }

    #[cfg(test)]
    pub(crate) fn compact_now(&self, all: &[Claim]) -> Result<()> {
        self.compact(&mut self.held(), all)
    }

    fn compact(&self, held: &mut Held, all: &[Claim]) -> Result<()> {
        let owners = self.place.owners();
        let _lock = DirectoryLock::acquire(&owners)?;
        self.check_held(held)?;
        let temporary = owners.join(format!("{TEMPORARY}{}", self.name));
        remove(&temporary)?;
        let replaced = open_new(&temporary).and_then(|file| Held::write(file, &self.header, all)).and_then(|next| {
            fs::rename(&temporary, self.path())?;
            Ok(next)
        });
        match replaced {
            Ok(next) => {
                *held = next;
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_file(&temporary);
                Err(fault(&temporary, error))
            }
        }
    }

    /// Renews.
    pub(crate) fn touch(&self) -> Result<()> {
        let held = self.held();
        self.check_held(&held)?;
        touch(&held.file).map_err(|error| fault(&self.path(), error))
    }

    /// Removes the file, where it is still this owner's.
    pub(crate) fn remove(&self) -> Result<()> {
        let owners = self.place.owners();
        let held = self.held();
        if self.check_held(&held).is_err_and(|error| error.kind() == ErrorKind::SessionLost) {
            return Ok(());
        }
        let _lock = DirectoryLock::acquire(&owners)?;
        match self.check_held(&held) {
            Ok(()) => remove(&self.path()),
            Err(error) if error.kind() == ErrorKind::SessionLost => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Held {
    fn write(mut file: File, header: &Header, claims: &[Claim]) -> io::Result<Self> {
        if !take_life(&file)? {
            return Err(io::Error::other("a new owner file is locked by somebody else"));
        }
        let mut text = Vec::new();
        write_line(&mut text, header)?;
        for claim in claims {
            write_line(&mut text, claim)?;
        }
        file.write_all(&text)?;
        let nonce = Nonce::of(&file.metadata()?);
        Ok(Self { file, nonce, size: text.len() as u64, torn: false })
    }
}

fn open_new(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create_new(true).open(path)
}

fn write_line(text: &mut Vec<u8>, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *text, line)?;
    text.push(b'\n');
    Ok(())
}

/// Sets a file's modification time to now.
pub(crate) fn touch(file: &File) -> io::Result<()> {
    file.set_times(FileTimes::new().set_modified(SystemTime::now()))
}

/// Why an owner is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its lock is gone.
    Death,
    /// It has not renewed since this time for longer than its time to live.
    Silence(SystemTime),
}

/// An owner as its file shows it.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) name: String,
    pub(crate) alive: bool,
    pub(crate) claims: HashSet<Claim>,
    pub(crate) ttl: Duration,
    pub(crate) state: State,
    id: String,
    pid: u32,
    /// How many bytes of the file were read in whole lines.
    whole: u64,
}

/// What tells whether an owner file has to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) nonce: Nonce,
    pub(crate) size: u64,
    pub(crate) renewed: SystemTime,
}

impl State {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { nonce: Nonce::of(&metadata), size: metadata.len(), renewed: metadata.modified()? })
    }
}

impl Owner {
    /// The names of all owner files, `.tmp_*` included.
    pub(crate) fn names(place: &Place) -> Result<Vec<String>> {
        let path = place.owners();
        let listing = match fs::read_dir(&path) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(fault(&path, error)),
        };
        let mut names = Vec::new();
        for entry in listing {
            let entry = entry.map_err(|error| fault(&path, error))?;
            names.extend(entry.file_name().into_string().ok());
        }
        Ok(names)
    }

    /// Whether the owner of this name lives, and the state of its file; `None` where there is no file, or where what has
    /// its name is none or may not be read.
    pub(crate) fn probe(place: &Place, name: &str, reading: Reading) -> Result<Option<(State, bool)>> {
        Ok(open(place, name, reading)?.map(|Opened { state, alive, .. }| (state, alive)))
    }

    /// Reads the file of this name; `None` as with [`Self::probe`].
    pub(crate) fn read(place: &Place, name: &str, reading: Reading) -> Result<Option<Self>> {
        let Some(Opened { file, state, alive }) = open(place, name, reading)? else { return Ok(None) };
        let path = place.owners().join(name);
        let failed = |error| fault(&path, error);
        let mut owner = Self {
            name: name.to_owned(),
            alive,
            claims: HashSet::new(),
            ttl: Duration::from_secs(10),
            state,
            id: name.to_owned(),
            pid: 0,
            whole: 0,
        };
        let claims = owner.take_in(&file, reading).map_err(failed)?;
        owner.claims.extend(claims);
        Ok(Some(owner))
    }

    /// Reads what was added to the file since it was read last, and answers the claims among it. `None` where the file is
    /// another one by now. A process that registers thousands would else have all of them read for each.
    pub(crate) fn read_on(&mut self, place: &Place, reading: Reading) -> Result<Option<Vec<Claim>>> {
        let Some(Opened { file, state, .. }) = open(place, &self.name, reading)? else { return Ok(None) };
        if state.nonce != self.state.nonce {
            return Ok(None);
        }
        let claims = self.take_in(&file, reading).map_err(|error| fault(&place.owners().join(&self.name), error))?;
        self.claims.extend(claims.iter().cloned());
        Ok(Some(claims))
    }

    /// Takes in the lines that were not whole before.
    fn take_in(&mut self, file: &File, reading: Reading) -> io::Result<Vec<Claim>> {
        let (mut claims, mut whole) = (Vec::new(), self.whole);
        let mut lines = BufReader::new(Content::of(file, reading).starting_at(whole));
        let mut line = Vec::new();
        loop {
            let read = lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? as u64;
            if read == 0 || read == MAX_LINE {
                // Not before: what a read that failed half-way has seen is read again.
                self.whole = whole;
                return Ok(claims);
            }
            if line.ends_with(b"\n") {
                whole += read;
            }
            if let Ok(claim) = serde_json::from_slice::<Claim>(&line) {
                claims.push(claim);
            } else if let Ok(header) = serde_json::from_slice::<Header>(&line) {
                self.ttl = Duration::from_millis(header.ttl_ms);
                self.id = header.id;
                self.pid = header.pid;
            }
            line.clear();
        }
    }

    /// The owner that claims this file, where one does.
    pub(crate) fn of(place: &Place, claim: &Claim) -> Result<Option<Self>> {
        for name in Self::names(place)? {
            if let Some(owner) = Self::read(place, &name, Reading::Waits)?
                && owner.claims.contains(claim)
            {
                return Ok(Some(owner));
            }
        }
        Ok(None)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Who it is, for an error's message.
    pub(crate) fn describe(&self) -> String {
        format!("instance {} (process {})", self.id, self.pid)
    }

    fn is_over(&self, place: &Place, end: End) -> Result<bool> {
        Ok(match Self::probe(place, &self.name, Reading::Waits)? {
            Some((state, alive)) if state.nonce == self.state.nonce => match end {
                End::Death => !alive,
                End::Silence(renewed) => state.renewed == renewed,
            },
            _ => false,
        })
    }

    /// Removes what an owner that is over has left: its records where they are still its own, its temporary files,
    /// at last its owner file. Stops quietly where the owner turns out to live, or where somebody else was faster.
    pub(crate) fn reap(&self, place: &Place, end: End) -> Result<()> {
        if !self.name.starts_with(TEMPORARY) {
            let mut buckets: Vec<_> = self.claims.iter().map(|claim| claim.spot.bucket.as_str()).collect();
            buckets.sort_unstable();
            buckets.dedup();
            for bucket in buckets {
                self.reap_bucket(place, bucket, end)?;
            }
        }
        let owners = place.owners();
        let _lock = DirectoryLock::acquire(&owners)?;
        if self.is_over(place, end)? {
            remove(&owners.join(&self.name))?;
            tracing::info!(owner = self.describe(), cause = ?end, "removed what an owner has left");
        }
        Ok(())
    }

    fn reap_bucket(&self, place: &Place, bucket: &str, end: End) -> Result<()> {
        let directory = place.bucket(bucket);
        // What cannot be looked at may be there again later; without the owner file nobody would remove it then.
        if reading::directory(&directory, Reading::Waits).map_err(|error| fault(&directory, error))?.is_none() {
            return Ok(());
        }
        let _lock = DirectoryLock::acquire(&directory)?;
        if !self.is_over(place, end)? {
            return Ok(());
        }
        for claim in self.claims.iter().filter(|claim| claim.spot.bucket == bucket) {
            let path = place.record(&claim.spot);
            if Nonce::at(&path).map_err(|error| fault(&path, error))? == Some(claim.nonce) {
                remove(&path)?;
            }
        }
        let prefix = temporary_prefix(&self.name);
        for entry in fs::read_dir(&directory).map_err(|error| fault(&directory, error))?.flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// What the temporary files in buckets of this owner start with.
pub(crate) fn temporary_prefix(owner: &str) -> String {
    format!("{TEMPORARY}{owner}_")
}

/// An owner file, and whether its owner lived when it was opened.
struct Opened {
    file: File,
    state: State,
    alive: bool,
}

/// Opens the owner file of this name; `None` where there is none, or where what has its name is none or may not be read:
/// whom that belongs to is not known, and it hides nobody else.
fn open(place: &Place, name: &str, reading: Reading) -> Result<Option<Opened>> {
    let path = place.owners().join(name);
    let failed = |error| fault(&path, error);
    loop {
        let file = match reading::open(&path, reading) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && reading == Reading::Waits => {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let state = State::of(&file).map_err(failed)?;
        let alive = is_alive(&file).map_err(failed)?;
        // An owner that put another file in this one's place holds that one's lock. Asked of the name, for that one may
        // be a dead owner's too.
        if alive || Nonce::at(&path).map_err(failed)?.is_none_or(|now| now == state.nonce) {
            return Ok(Some(Opened { file, state, alive }));
        }
    }
}

#[cfg(test)]
mod tests;
