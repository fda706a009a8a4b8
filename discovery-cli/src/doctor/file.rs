//! What can go wrong with a shared directory. Reads only: files that have expired are counted and left alone.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use discovery_core::{Environment, Record};
use discovery_dynamo::layout::{bucket_of_kind, parse_file_name};
use discovery_dynamo::{Endpoint, EventChannel, EventSource, Model};
use discovery_file::{Config, DIRECTORY_VARIABLE, MAX_VALUE};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{StatVfs, StatVfsMountFlags};
use serde::Deserialize;

use super::{Finding, about_records};
use crate::output::bytes_text;

/// What the names of files start with that are being written.
const TEMPORARY: &str = ".tmp_";
/// After this, files of other implementations count as left behind.
const REFERENCE_TTL: Duration = Duration::from_secs(10);
/// No line of an owner file is as long.
const MAX_LINE: u64 = 64 << 10;
const DIRECTORY: &str = "directory";

pub(super) fn look() -> Vec<Finding> {
    let config = match Config::from_environment(&Environment::process()) {
        Ok(config) => config,
        Err(error) => return vec![Finding::wrong(DIRECTORY, error.to_string())],
    };
    let root = config.directory.as_path();
    let mut findings = vec![directory(root), inotify()];
    if root.is_dir() {
        let owners = Owners::read(root);
        findings.push(owners.finding());
        findings.extend(strays("owners", &owners.strays));
        findings.extend(files(root, &owners.claimed));
    }
    findings
}

/// Whether the file system takes writes and has room. Permission is the health check's question.
fn directory(root: &Path) -> Finding {
    let shown = root.display();
    let Some(existing) = root.ancestors().find(|path| path.is_dir()) else {
        return Finding::wrong(
            DIRECTORY,
            format!("{shown}: nothing above it exists: set {DIRECTORY_VARIABLE} elsewhere"),
        );
    };
    match rustix::fs::statvfs(existing) {
        Err(error) => Finding::wrong(DIRECTORY, format!("{shown}: {error}: set {DIRECTORY_VARIABLE} elsewhere")),
        Ok(system) => match lacking(&system) {
            Some(what) => Finding::wrong(DIRECTORY, format!("{shown}: the file system {what}")),
            None if root.is_dir() => Finding::good(DIRECTORY, shown.to_string()),
            None if fs::symlink_metadata(root).is_ok() => Finding::wrong(
                DIRECTORY,
                format!("{shown} is no directory: move it away, or set {DIRECTORY_VARIABLE} elsewhere"),
            ),
            None => Finding::good(DIRECTORY, format!("{shown} does not exist yet: the first registration makes it")),
        },
    }
}

/// What keeps files from being made in a file system, and what to do.
fn lacking(system: &StatVfs) -> Option<String> {
    let elsewhere = format!("set {DIRECTORY_VARIABLE} elsewhere");
    if system.f_flag.contains(StatVfsMountFlags::RDONLY) {
        Some(format!("is read-only: remount it, or {elsewhere}"))
    } else if system.f_blocks == 0 && system.f_files == 0 {
        // As those of the kernel, /proc and /sys.
        Some(format!("takes no files: {elsewhere}"))
    } else if system.f_bavail == 0 {
        Some(format!("is full: free some space, or {elsewhere}"))
    } else if system.f_files > 0 && (system.f_favail == 0 || system.f_ffree == 0) {
        Some(format!("has no inodes left, as `df -i` shows: remove files, or {elsewhere}"))
    } else {
        None
    }
}

/// Opens a regular file to be read. Whatever else has its name is not waited for, as a FIFO would have to be.
fn open(path: &Path) -> io::Result<Option<File>> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(None);
    }
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

/// One finding of all that is no regular file where one should be.
fn strays(what: &'static str, strays: &[String]) -> Option<Finding> {
    let first = strays.first()?;
    let text = format!("{} are no regular files and are passed over, as {first}: move them away", strays.len());
    Some(Finding::poor(what, text))
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
        let Some(file) = open(path)? else {
            self.strays.push(path.display().to_string());
            return Ok(());
        };
        let alive = is_locked(&file)?;
        let renewed = file.metadata()?.modified()?;
        let (mut pid, mut ttl) = (0, Duration::from_secs(10));
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? as u64;
            if read == 0 || read == MAX_LINE {
                break;
            }
            match serde_json::from_slice(&line) {
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
    let (mut misplaced, mut unusual, mut oversized) = (Vec::new(), Vec::new(), Vec::new());
    let buckets = root.join("v1");
    for bucket in names(&buckets) {
        let directory = buckets.join(&bucket);
        if !directory.is_dir() {
            if is_known(&bucket) {
                let text = format!("{}: no directory stands where one should be: move it away", directory.display());
                misplaced.push(Finding::wrong("files", text));
            }
            continue;
        }
        for name in names(&directory) {
            let path = directory.join(&name);
            if name.starts_with(TEMPORARY) {
                continue;
            }
            let Ok(key) = parse_file_name(&bucket, &name) else {
                foreign.push(path.display().to_string());
                continue;
            };
            let file = match open(&path) {
                Ok(Some(file)) => file,
                Ok(None) => {
                    unusual.push(path.display().to_string());
                    continue;
                }
                // It may have been removed meanwhile.
                Err(_) => continue,
            };
            let metadata = file.metadata();
            if metadata.as_ref().is_ok_and(|metadata| metadata.len() > MAX_VALUE as u64) {
                oversized.push(path.display().to_string());
                continue;
            }
            if claimed.contains(&(bucket.clone(), name)) {
                ours += 1;
            } else if metadata.and_then(|metadata| metadata.modified()).is_ok_and(|at| silence(at) > REFERENCE_TTL) {
                expired += 1;
            } else {
                theirs += 1;
            }
            let mut value = Vec::new();
            if file.take(MAX_VALUE as u64).read_to_end(&mut value).is_ok() {
                records.push((key, value));
            }
        }
    }
    let text = format!("{ours} of this implementation, {theirs} of others or just being written, {expired} expired");
    let mut findings = vec![if expired == 0 {
        Finding::good("files", text)
    } else {
        Finding::poor("files", format!("{text}, which the next process that lists or watches here removes"))
    }];
    findings.extend(misplaced);
    findings.extend(strays("files", &unusual));
    if let Some(first) = oversized.first() {
        let most = bytes_text(MAX_VALUE as u64);
        let text = format!("{} are larger than {most} and are skipped, as {first}: remove them", oversized.len());
        findings.push(Finding::poor("files", text));
    }
    if let Some(first) = foreign.first() {
        let text = format!("{} files are no records and are skipped, as {first}: move them away", foreign.len());
        findings.push(Finding::poor("files", text));
    }
    findings.extend(about_records(records.iter().map(|(key, value)| (key, value.as_slice()))));
    findings
}

/// Whether records of one of Dynamo's kinds lie there.
fn is_known(bucket: &str) -> bool {
    let kinds = [Endpoint::KIND, Model::KIND, EventChannel::KIND, EventSource::KIND];
    kinds.iter().any(|kind| bucket_of_kind(kind).is_ok_and(|known| known == bucket))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_lacks_what_a_file_needs() {
        let room = StatVfs { f_bavail: 1, f_favail: 1, ..rustix::fs::statvfs("/").unwrap() };
        let room = StatVfs { f_blocks: 9, f_files: 9, f_ffree: 1, f_flag: StatVfsMountFlags::empty(), ..room };
        assert_eq!(lacking(&room), None);
        // Some count no inodes.
        assert_eq!(lacking(&StatVfs { f_files: 0, f_ffree: 0, f_favail: 0, ..room }), None);
        for (system, told) in [
            (StatVfs { f_flag: StatVfsMountFlags::RDONLY, ..room }, "read-only"),
            (StatVfs { f_bavail: 0, ..room }, "free some space"),
            (StatVfs { f_favail: 0, ..room }, "`df -i`"),
            (StatVfs { f_ffree: 0, ..room }, "`df -i`"),
            (StatVfs { f_blocks: 0, f_files: 0, f_bavail: 0, ..room }, "takes no files"),
        ] {
            let lacking = lacking(&system).unwrap();
            assert!(lacking.contains(told) && lacking.contains(DIRECTORY_VARIABLE), "{lacking}");
        }
    }
}
