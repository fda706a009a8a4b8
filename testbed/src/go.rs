//! The program that the Go module builds: where it lies, and how it is built.

use std::collections::VecDeque;
use std::env;
use std::fs;
use std::hash::Hasher;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;

use crate::error::{Error, Result};
use crate::once::{once, say, target_directory};
use crate::program::Program;

/// The Go module: the directory of this crate.
const MODULE: &str = env!("CARGO_MANIFEST_DIR");

/// What decides how the program comes out.
const SOURCES: [&str; 3] = ["go.mod", "go.sum", "main.go"];

/// How often a build that goes on says so.
const PROGRESS: Duration = Duration::from_secs(30);

/// The built program, built now unless it has been. `wanted` is for the error alone.
pub(crate) fn built(wanted: Program) -> Result<PathBuf> {
    let place = target_directory()?.join("testbed").join(key()?);
    once(&place.join("testbed"), "builds the servers of testbed/", |unfinished| build(wanted, unfinished))
}

fn build(wanted: Program, output: &Path) -> Result<()> {
    let go_mod = source("go.mod")?;
    let version = after(&go_mod, "k8s.io/kubernetes ")?;
    // Without them the servers call themselves v0.0.0.
    let stamp = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
        .map(|package| format!("-X {package}.gitVersion={version}"))
        .join(" ");
    let mut go = Command::new("go");
    // A debugger's tables, which the program drops in any case, would be a quarter of what the build leaves in Go's cache.
    go.current_dir(MODULE).args(["build", "-v", "-buildvcs=false", "-gcflags=all=-dwarf=false"]);
    go.args(["-ldflags", &format!("-s -w {stamp}"), "-o"]).arg(output).arg(".");
    go.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());

    say(&format!(
        "building etcd and Kubernetes {version} from testbed/ with Go, once: about ten minutes where nothing is cached"
    ));
    let start = Instant::now();
    let mut running = go.spawn().map_err(|error| no_go(wanted, &go_mod, &error))?;
    let mut last = VecDeque::new();
    let (mut lines, mut said) = (0, Instant::now());
    for line in running.stderr.take().map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(io::Result::ok)
    {
        lines += 1;
        if said.elapsed() >= PROGRESS {
            say(&format!("still building, {lines} packages in {} s", start.elapsed().as_secs()));
            said = Instant::now();
        }
        last.push_back(line);
        if last.len() > 40 {
            last.pop_front();
        }
    }
    let status = running.wait().map_err(|error| Error::because("waiting for go build", error))?;
    if !status.success() {
        let said = last.into_iter().collect::<Vec<_>>().join("\n");
        return Err(Error::new(format!("go build in {MODULE} ended with {status}")).with_log(said));
    }
    say(&format!("built in {} s", start.elapsed().as_secs()));
    Ok(())
}

fn no_go(wanted: Program, go_mod: &str, cause: &io::Error) -> Error {
    let version = after(go_mod, "\ngo ").unwrap_or("1.26");
    let name = wanted.name();
    let mut message = format!(
        "there is no {name} on PATH or in the directory KUBEBUILDER_ASSETS, and none can be built, since go cannot be \
         run ({cause}): install Go {version} or newer from https://go.dev/dl, or {name}"
    );
    if wanted == Program::Etcd && env::var_os("ETCD_ENDPOINTS").is_some() {
        message.push_str(
            ". The one that ETCD_ENDPOINTS names is left alone, for tests kill, wipe and compact theirs: \
             `discovery conformance --backend etcd` judges it, below a prefix of its own",
        );
    }
    Error::new(message)
}

/// The word after `start`.
fn after<'a>(go_mod: &'a str, start: &str) -> Result<&'a str> {
    let rest = go_mod.split_once(start).map(|(_, rest)| rest);
    let word = rest.and_then(|rest| rest.split_whitespace().next());
    word.ok_or_else(|| Error::new(format!("{MODULE}/go.mod names no {}", start.trim())))
}

fn key() -> Result<String> {
    let mut hasher = SipHasher13::new();
    for name in SOURCES {
        hasher.write(source(name)?.as_bytes());
        hasher.write_u8(0xff);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn source(name: &str) -> Result<String> {
    let file = Path::new(MODULE).join(name);
    fs::read_to_string(&file).map_err(|error| Error::because(file.display(), error))
}
