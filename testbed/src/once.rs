//! What is made once, for all processes that want it at one time: where it lies, and how they wait for each other.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What lies at `finished`, made now unless it has been: once, for all processes that want it at one time. `make` makes it at
/// the path that it is told, from which it is moved when it is whole; `doing` says what another process does meanwhile.
pub(crate) fn once(finished: &Path, doing: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if finished.exists() {
        return Ok(finished.to_owned());
    }
    let place = finished.parent().unwrap_or(finished);
    fs::create_dir_all(place).map_err(|error| Error::because(place.display(), error))?;
    let lock = place.join("lock");
    let lock = File::create(&lock).map_err(|error| Error::because(lock.display(), error))?;
    if lock.try_lock().is_err() {
        say(&format!("another process {doing}; waiting for it"));
        lock.lock().map_err(|error| Error::because(format!("waiting while another process {doing}"), error))?;
    }
    // Whoever waited for another process finds its result.
    if !finished.exists() {
        let unfinished = place.join("unfinished");
        make(&unfinished)?;
        fs::rename(&unfinished, finished).map_err(|error| Error::because(finished.display(), error))?;
    }
    Ok(finished.to_owned())
}

/// The target directory that this process was built in, wherever it was told to be: cargo marks it as a cache.
///
/// # Errors
/// The path of this program is not known.
pub fn target_directory() -> Result<PathBuf> {
    let executable = env::current_exe().map_err(|error| Error::because("the path of this program", error))?;
    let marked = executable.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file());
    Ok(marked.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), Path::to_owned))
}

/// Tells whoever waits. Not by `eprintln!`, whose output a test keeps until it has failed.
pub(crate) fn say(what: &str) {
    // Nobody is there to hear that nobody hears.
    let _ = writeln!(io::stderr(), "testbed: {what}");
}
