//! What a run leaves behind: tables, raw results, plots.

mod interop;
mod plots;
mod speed;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

pub(crate) use interop::write as write_interop;
pub(crate) use speed::{forget, keep, line};

use crate::Outcome;

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
        }
    }
}

fn write(name: &str, text: &str) -> Outcome {
    let path = docs().join(name);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    Ok(fs::write(path, text)?)
}
