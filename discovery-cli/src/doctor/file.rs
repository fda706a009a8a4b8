//! What can go wrong with a shared directory. Reads only: files that have expired are counted and left alone.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, SystemTime};

use discovery_core::Environment;
use discovery_dynamo::layout::parse_file_name;
use discovery_file::{Config, DIRECTORY_VARIABLE};
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
    let mut findings = vec![directory(root), inotify()];
    if root.is_dir() {
        let owners = Owners::read(root);
        findings.push(owners.finding());
        findings.extend(files(root, &owners.claimed));
    }
    findings
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
        Ok(system) if system.f_bavail == 0 || (system.f_files > 0 && system.f_favail == 0) => {
            Finding::wrong("directory", format!("{shown}: the file system is full: free some space"))
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
            match owners.take_in(&directory.join(&name)) {
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
    findings.extend(about_records(records.iter().map(|(key, value)| (key, value.as_slice()))));
    findings
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
