//! What can go wrong with a shared directory. Reads only: files that have expired are counted and left alone.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, SystemTime};

use discovery_core::Environment;
use discovery_dynamo::layout::{bucket_of_kind, parse_file_name};
use discovery_file::{Config, DIRECTORY_VARIABLE, MAX_VALUE};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::StatVfsMountFlags;
use serde::Deserialize;

use super::{Finding, about_records};

/// What the names of files start with that are being written.
const TEMPORARY: &str = ".tmp_";
/// After this, files of other implementations count as left behind.
const REFERENCE_TTL: Duration = Duration::from_secs(10);

pub(super) fn look() -> Vec<Finding> {
    let config = match Config::from_environment(&Environment::process()) {
        Ok(config) => config,
        Err(error) => return vec![Finding::wrong("directory", error.to_string())],
    };
    let root = config.directory.as_path();
    let mut findings: Vec<_> = misplaced(root).collect();
    if findings.is_empty() {
        findings.push(directory(root));
    }
    findings.push(inotify());
    if root.is_dir() {
        let owners = Owners::read(root);
        findings.push(owners.finding());
        findings.extend(files(root, &owners.claimed));
    }
    findings
}

/// What stands where a directory should be, and is none.
fn misplaced(root: &Path) -> impl Iterator<Item = Finding> {
    let below = [".discovery", ".discovery/owners", "v1"].map(str::to_owned);
    let buckets = ["endpoint", "model", "event_channel", "event_source"].into_iter().flat_map(bucket_of_kind);
    let below = below.into_iter().chain(buckets.map(|bucket| format!("v1/{bucket}")));
    let places = std::iter::once(root.to_owned()).chain(below.map(|below| root.join(below)));
    places.filter_map(|place| {
        // What is not there yet is made.
        let link = fs::symlink_metadata(&place).ok()?.is_symlink();
        let what = match fs::metadata(&place) {
            Ok(metadata) if metadata.is_dir() => return None,
            Ok(_) => "is no directory",
            Err(error) if link && error.kind() == io::ErrorKind::NotFound => "is a link that points to nothing",
            Err(error) if link && error.kind() != io::ErrorKind::PermissionDenied => "is a link that points to itself",
            // The health check's question.
            Err(_) => return None,
        };
        let advice = format!("move it away, or set {DIRECTORY_VARIABLE} elsewhere");
        Some(Finding::wrong("directory", format!("{} {what}: {advice}", place.display())))
    })
}

/// Whether the file system takes writes and has room. Permission is the health check's question.
fn directory(root: &Path) -> Finding {
    let shown = root.display();
    let Some(existing) = root.ancestors().find(|path| path.is_dir()) else {
        return Finding::wrong(
            "directory",
            format!("{shown}: nothing above it exists: set {DIRECTORY_VARIABLE} elsewhere"),
        );
    };
    match rustix::fs::statvfs(existing) {
        Err(error) => Finding::wrong("directory", format!("{shown}: {error}: set {DIRECTORY_VARIABLE} elsewhere")),
        Ok(system) if system.f_flag.contains(StatVfsMountFlags::RDONLY) => Finding::wrong(
            "directory",
            format!("{shown}: the file system is read-only: remount it, or set {DIRECTORY_VARIABLE} elsewhere"),
        ),
        // As /proc.
        Ok(system) if system.f_blocks == 0 => Finding::wrong(
            "directory",
            format!("{shown}: the file system takes no files there: set {DIRECTORY_VARIABLE} elsewhere"),
        ),
        Ok(system) if system.f_bavail == 0 => {
            Finding::wrong("directory", format!("{shown}: the file system is full: free some space"))
        }
        Ok(system) if system.f_files > 0 && system.f_favail == 0 => {
            Finding::wrong("directory", format!("{shown}: the file system has no inodes left (`df -i`): remove files"))
        }
        Ok(_) if root.is_dir() => Finding::good("directory", shown.to_string()),
        Ok(_) => Finding::good("directory", format!("{shown} does not exist yet: the first registration makes it")),
    }
}

/// Each process that watches takes one instance.
fn inotify() -> Finding {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").unwrap_or_default();
    match rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC) {
        Ok(_) => Finding::good("inotify", format!("can be had, by {} processes of a user", limit.trim())),
        Err(error) => Finding::poor(
            "inotify",
            format!("{error}: changes are found by polling, later: raise fs.inotify.max_user_instances"),
        ),
    }
}

/// A line of an owner file.
#[derive(Deserialize)]
#[serde(untagged)]
enum OwnerLine {
    Claim { bucket: String, name: String },
    Header { pid: u32, ttl_ms: u64 },
}

/// The owner files of a directory.
#[derive(Default)]
struct Owners {
    alive: usize,
    /// Alive and not renewing: stopped, or unable to write.
    silent: Vec<u32>,
    dead: usize,
    unreadable: Vec<String>,
    /// What is no regular file, and so nobody's.
    strays: Vec<String>,
    claimed: HashSet<(String, String)>,
}

impl Owners {
    fn read(root: &Path) -> Self {
        let mut owners = Self::default();
        let directory = root.join(".discovery").join("owners");
        for name in names(&directory) {
            if name.starts_with(TEMPORARY) {
                continue;
            }
            let path = directory.join(&name);
            if is_stray(&path) {
                owners.strays.push(path.display().to_string());
                continue;
            }
            match owners.take_in(&path) {
                // It may have ended meanwhile.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    owners.unreadable.push(format!("{name}: {error}"));
                }
                _ => {}
            }
        }
        owners
    }

    fn take_in(&mut self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        let alive = is_locked(&file)?;
        let renewed = file.metadata()?.modified()?;
        let (mut pid, mut ttl) = (0, Duration::from_secs(10));
        for line in BufReader::new(file).split(b'\n') {
            match serde_json::from_slice(&line?) {
                Ok(OwnerLine::Claim { bucket, name }) => drop(self.claimed.insert((bucket, name))),
                Ok(OwnerLine::Header { pid: id, ttl_ms }) => (pid, ttl) = (id, Duration::from_millis(ttl_ms)),
                // A torn line is closed by the next one.
                Err(_) => {}
            }
        }
        if !alive {
            self.dead += 1;
            return Ok(());
        }
        self.alive += 1;
        if silence(renewed) > ttl {
            self.silent.push(pid);
        }
        Ok(())
    }

    fn finding(&self) -> Finding {
        let Self { alive, dead, .. } = self;
        let text = format!("{alive} alive, {dead} dead, whose records are removed by whoever watches");
        if let Some(first) = self.unreadable.first() {
            let advice = "let all processes run as one user, or in one group";
            return Finding::wrong(
                "owners",
                format!("{text}; {} cannot be read: {first}: {advice}", self.unreadable.len()),
            );
        }
        if let Some(first) = self.strays.first() {
            let count = self.strays.len();
            return Finding::poor(
                "owners",
                format!("{text}; {count} are no regular files and are passed over, as {first}: move them away"),
            );
        }
        if let Some(pid) = self.silent.first() {
            let count = self.silent.len();
            return Finding::poor(
                "owners",
                format!("{text}; {count} alive do not renew, as process {pid}: is it stopped?"),
            );
        }
        Finding::good("owners", text)
    }
}

/// Whether somebody holds the lock of an owner file. Asks only.
fn is_locked(file: &File) -> io::Result<bool> {
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// The files in the buckets, whoever wrote them.
fn files(root: &Path, claimed: &HashSet<(String, String)>) -> Vec<Finding> {
    let (mut ours, mut theirs, mut expired) = (0_usize, 0_usize, 0_usize);
    let (mut foreign, mut records) = (Vec::new(), Vec::new());
    let (mut strays, mut large) = (Vec::new(), Vec::new());
    let buckets = root.join("v1");
    for bucket in names(&buckets) {
        let directory = buckets.join(&bucket);
        for name in names(&directory) {
            let path = directory.join(&name);
            if name.starts_with(TEMPORARY) {
                continue;
            }
            let Ok(key) = parse_file_name(&bucket, &name) else {
                foreign.push(path.display().to_string());
                continue;
            };
            if is_stray(&path) {
                strays.push(path.display().to_string());
                continue;
            }
            if fs::metadata(&path).is_ok_and(|file| file.len() > MAX_VALUE as u64) {
                large.push(path.display().to_string());
                continue;
            }
            if claimed.contains(&(bucket.clone(), name)) {
                ours += 1;
            } else if fs::metadata(&path).and_then(|file| file.modified()).is_ok_and(|at| silence(at) > REFERENCE_TTL) {
                expired += 1;
            } else {
                theirs += 1;
            }
            // It may have been removed meanwhile.
            records.extend(fs::read(&path).ok().map(|value| (key, value)));
        }
    }
    let text = format!("{ours} of this implementation, {theirs} of others or just being written, {expired} expired");
    let mut findings = vec![if expired == 0 {
        Finding::good("files", text)
    } else {
        Finding::poor("files", format!("{text}, which the next process that lists or watches here removes"))
    }];
    if let Some(first) = foreign.first() {
        let text = format!("{} files are no records and are skipped, as {first}: move them away", foreign.len());
        findings.push(Finding::poor("files", text));
    }
    if let Some(first) = strays.first() {
        let text = format!("{} are no regular files and are passed over, as {first}: move them away", strays.len());
        findings.push(Finding::poor("files", text));
    }
    if let Some(first) = large.first() {
        let (count, most) = (large.len(), MAX_VALUE >> 20);
        let text = format!("{count} are larger than {most} MiB and are passed over, as {first}: remove them");
        findings.push(Finding::poor("files", text));
    }
    findings.extend(about_records(records.iter().map(|(key, value)| (key, value.as_slice()))));
    findings
}

/// Whether something stands there that is no regular file. It is not even opened: who reads a FIFO waits for its writer.
fn is_stray(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

/// How long ago that was, by the wall clock.
fn silence(at: SystemTime) -> Duration {
    SystemTime::now().duration_since(at).unwrap_or_default()
}

/// What a directory holds; nothing where it cannot be read or is none.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}
