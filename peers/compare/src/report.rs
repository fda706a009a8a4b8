//! What a run leaves behind: tables, raw results, plots.

mod interop;
mod plots;
mod speed;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

pub(crate) use interop::write as write_interop;
pub(crate) use speed::{forget, keep, line};

use crate::Outcome;
use crate::store::versions;

/// The documentation of the checkout that this program was built from.
fn docs() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs"))
}

/// Where and when something was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Circumstances {
    date: String,
    processor: String,
    cores: usize,
    memory: String,
    kernel: String,
    /// Runnable threads in the minute before: above the number of cores, others were served too.
    load: String,
    compiler: String,
    /// The servers that had run by then, with their versions.
    #[serde(default)]
    servers: Vec<String>,
    /// What was measured.
    #[serde(default)]
    commit: String,
}

impl Circumstances {
    fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
        };
        let field = |text: String, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches([':', ' ', '\t']).trim().to_owned()
        };
        Self {
            date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            processor: field(read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory: field(read("/proc/meminfo"), "MemTotal"),
            kernel: said("uname", &["-sr"]),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            compiler: said("rustc", &["--version"]),
            servers: versions().into_iter().map(|(server, version)| format!("{server} {version}")).collect(),
            commit: COMMIT.clone(),
        }
    }
}

/// The state of the checkout, as it was when it was first asked for: see [`begin`].
static COMMIT: LazyLock<String> = LazyLock::new(|| {
    let git = |arguments: &[&str]| {
        let done = Command::new("git").args(arguments).current_dir(docs()).output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    // What a run writes by itself is no change.
    let changed = git(&["status", "--porcelain", "--", ":/", ":!beside-the-reference*", ":!interop.md"]);
    match (git(&["rev-parse", "--short", "HEAD"]), changed) {
        (Some(commit), Some(changed)) if changed.is_empty() => format!("commit {commit}"),
        (Some(commit), _) => format!("commit {commit} with changes"),
        (None, _) => "no commit".to_owned(),
    }
});

/// Remembers what is measured, before anything is.
pub(crate) fn begin() {
    LazyLock::force(&COMMIT);
}

fn write(name: &str, text: &str) -> Outcome {
    let path = docs().join(name);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    Ok(fs::write(path, text)?)
}
