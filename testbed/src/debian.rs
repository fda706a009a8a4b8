//! A program that Debian packages, where it is not installed: unpacked below the target directory, without root, and with
//! nothing of the system touched.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::once::{once, say, target_directory};

/// How long apt may take: for a network that answers nothing.
const PATIENCE: &str = "180";

/// The words that start `program` of the first of `packages`, which are fetched and unpacked now unless they have been,
/// with what they depend on and the system lacks.
pub(crate) fn unpacked(program: &str, packages: &[&str]) -> Result<Vec<OsString>> {
    let place = target_directory()?.join("testbed").join(packages[0]);
    let root = once(&place.join("root"), &format!("fetches {program}"), |unfinished| {
        say(&format!("fetching {program} from Debian into {}, once", place.display()));
        unpack(packages, &place, unfinished)?;
        runs(&words(unfinished, program)?)
    })?;
    words(&root, program)
}

fn unpack(packages: &[&str], place: &Path, root: &Path) -> Result<()> {
    output(Command::new("apt-get").arg("--version"))?;
    let archives = place.join("archives");
    for directory in [&archives, root] {
        // Of an attempt that was ended.
        let _ = fs::remove_dir_all(directory);
    }
    for directory in [&archives.join("partial"), &place.join("lists/partial"), &root.to_owned()] {
        fs::create_dir_all(directory).map_err(|error| Error::because(directory.display(), error))?;
    }
    // The system's lists of packages may be old, or none: then its own are fetched.
    let own_lists = format!("Dir::State::Lists={}", place.join("lists").display());
    let download = |options: &[&str]| {
        let mut apt = apt(place);
        apt.args(options.iter().flat_map(|option| ["--option", option]));
        // Those that are installed and not on PATH too.
        apt.args(["--yes", "--no-install-recommends", "--reinstall", "--download-only", "install"]).args(packages);
        output(&mut apt)
    };
    if download(&[]).is_err() {
        output(apt(place).args(["--option", &own_lists, "update"]))?;
        download(&[&own_lists])?;
    }
    let archives = fs::read_dir(&archives).map_err(|error| Error::because(archives.display(), error))?.flatten();
    for archive in archives.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "deb")) {
        output(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(root))?;
    }
    Ok(())
}

/// An apt-get that locks and writes nothing outside of `place`.
fn apt(place: &Path) -> Command {
    let mut apt = Command::new("timeout");
    apt.args([PATIENCE, "apt-get", "--quiet=2"]).env("DEBIAN_FRONTEND", "noninteractive");
    for option in
        ["Debug::NoLocking=true", "APT::Sandbox::User=root", "Acquire::Retries=0", "Acquire::http::Timeout=20"]
    {
        apt.args(["--option", option]);
    }
    // The last decides over the archives, whose default is below the first.
    for (name, directory) in [("Dir::Cache", ""), ("Dir::Cache::archives", "archives/")] {
        apt.arg("--option").arg(format!("{name}={}", place.join(directory).display()));
    }
    apt
}

/// The program, told where the libraries lie that were unpacked with it.
fn words(root: &Path, program: &str) -> Result<Vec<OsString>> {
    let mut libraries = Vec::new();
    for place in ["lib", "usr/lib"] {
        with_libraries(&root.join(place), &mut libraries);
    }
    let program = root.join("usr/bin").join(program);
    if libraries.is_empty() {
        return Ok(vec![program.into()]);
    }
    let mut paths = OsString::from("LD_LIBRARY_PATH=");
    paths.push(std::env::join_paths(&libraries).map_err(|error| Error::because(root.display(), error))?);
    Ok(vec!["env".into(), paths, program.into()])
}

fn with_libraries(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().collect();
    if entries.iter().any(|entry| entry.file_name().to_string_lossy().contains(".so")) {
        found.push(directory.to_owned());
    }
    for entry in entries.iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        with_libraries(&entry.path(), found);
    }
}

fn runs(words: &[OsString]) -> Result<()> {
    output(Command::new(&words[0]).args(&words[1..]).arg("--version"))
}

/// Runs a command to its end; what it says last is the error.
fn output(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let ended = command.stdin(Stdio::null()).output().map_err(|error| Error::because(name, error))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing").to_owned();
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    Err(Error::because(format!("{} ended with {}", words.first().map_or("", String::as_str), ended.status), last))
}
