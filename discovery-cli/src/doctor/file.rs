//! What can go wrong with a shared directory. Reads only: files that have expired are counted and left alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use discovery_core::Environment;
use discovery_file::{Config, DIRECTORY_VARIABLE, Diagnosis, MAX_VALUE, OwnerFiles, RecordFiles, diagnose};
use rustix::fs::{StatVfs, StatVfsMountFlags};

use super::{Finding, about_records};
use crate::output::bytes_text;

const DIRECTORY: &str = "directory";

pub(super) fn look() -> Vec<Finding> {
    let config = match Config::from_environment(&Environment::process()) {
        Ok(config) => config,
        Err(error) => return vec![Finding::wrong(DIRECTORY, error.to_string())],
    };
    let root = config.directory.as_path();
    let mut findings = vec![directory(root), inotify()];
    if root.is_dir() {
        let Diagnosis { owners: found, records, .. } = diagnose(&config);
        findings.extend(owners(&found));
        findings.extend(files(&records));
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
            None => absent(root, existing),
        },
    }
}

/// What is where no directory can be seen.
fn absent(root: &Path, existing: &Path) -> Finding {
    let shown = root.display();
    match fs::symlink_metadata(root) {
        Ok(_) => Finding::wrong(
            DIRECTORY,
            format!("{shown} is no directory: move it away, or set {DIRECTORY_VARIABLE} elsewhere"),
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::wrong(
            DIRECTORY,
            format!("{shown} cannot be looked at: give this user permission to enter {}", existing.display()),
        ),
        Err(_) => Finding::good(DIRECTORY, format!("{shown} does not exist yet: the first registration makes it")),
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

/// One finding of all that is no regular file where one should be.
fn passed_over(what: &'static str, strays: &[PathBuf]) -> Option<Finding> {
    let first = strays.first()?.display();
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

fn owners(owners: &OwnerFiles) -> Vec<Finding> {
    let OwnerFiles { alive, dead, silent, unreadable, strays, .. } = owners;
    let text = format!("{alive} alive, {dead} dead, whose records are removed by whoever watches");
    let finding = if let Some((path, cause)) = unreadable.first() {
        let advice = "let all processes run as one user, or in one group";
        let text = format!("{text}; {} cannot be read: {}: {cause}: {advice}", unreadable.len(), path.display());
        Finding::wrong("owners", text)
    } else if let Some(pid) = silent.first() {
        let text = format!("{text}; {} alive do not renew, as process {pid}: is it stopped?", silent.len());
        Finding::poor("owners", text)
    } else {
        Finding::good("owners", text)
    };
    [finding].into_iter().chain(passed_over("owners", strays)).collect()
}

/// The files in the buckets, whoever wrote them.
fn files(files: &RecordFiles) -> Vec<Finding> {
    let RecordFiles { owned, others, expired, .. } = files;
    let text = format!("{owned} of this implementation, {others} of others or just being written, {expired} expired");
    let mut findings = vec![if *expired == 0 {
        Finding::good("files", text)
    } else {
        Finding::poor(
            "files",
            format!("{text}, which are shown to nobody: remove them, or let Dynamo's processes do it"),
        )
    }];
    findings.extend(files.misplaced.iter().map(|path| {
        let text = format!("{}: no directory stands where one should be: move it away", path.display());
        Finding::wrong("files", text)
    }));
    findings.extend(passed_over("files", &files.strays));
    if let Some(first) = files.oversized.first() {
        let (count, most, first) = (files.oversized.len(), bytes_text(MAX_VALUE as u64), first.display());
        let text = format!("{count} are larger than {most} and are skipped, as {first}: remove them");
        findings.push(Finding::poor("files", text));
    }
    if let Some(first) = files.foreign.first() {
        let (count, first) = (files.foreign.len(), first.display());
        let text = format!("{count} files are no records and are skipped, as {first}: move them away");
        findings.push(Finding::poor("files", text));
    }
    findings.extend(about_records(files.records.iter().map(|(key, value)| (key, &**value))));
    findings
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
