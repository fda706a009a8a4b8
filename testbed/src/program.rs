//! Where the servers and their clients come from: installed ones first, else what the Go module builds or Debian packages.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::{debian, go};

/// A program that tests run against or with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The store.
    Etcd,
    /// Its client.
    Etcdctl,
    /// The Kubernetes API.
    KubeApiserver,
    /// The controllers: EndpointSlices, garbage collection, namespaces and so on.
    KubeControllerManager,
    /// The Kubernetes client.
    Kubectl,
    /// The store of an example.
    RedisServer,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Etcd, Self::Etcdctl, Self::KubeApiserver, Self::KubeControllerManager, Self::Kubectl, Self::RedisServer];

    /// The name of its file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Etcdctl => "etcdctl",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::Kubectl => "kubectl",
            Self::RedisServer => "redis-server",
        }
    }

    /// Whether tests go without it where it cannot be had, and say so.
    pub fn is_optional(self) -> bool {
        self == Self::RedisServer
    }

    /// The file of this name in the directory that `KUBEBUILDER_ASSETS` names, or else on `PATH`.
    pub fn installed(self) -> Option<PathBuf> {
        let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let path = env::var_os("PATH").unwrap_or_default();
        let mut candidates = assets.into_iter().chain(env::split_paths(&path)).map(|place| place.join(self.name()));
        candidates.find(|file| is_executable(file))
    }

    /// The words that start it: those of [`Program::installed`], or those of the program that the Go module builds, or
    /// that Debian packages, which is built or fetched now unless it has been. Blocks for as long as that takes: about ten
    /// minutes for Go on two cores when nothing is cached, and seconds otherwise.
    ///
    /// # Errors
    /// It is not installed, and cannot be built: there is no Go, or the build failed. It cannot be fetched: this is no
    /// Debian, or the packages are out of reach. Or an etcd is installed that is too old. The line says what to install.
    pub fn command(self) -> Result<Vec<OsString>> {
        let Some(file) = self.installed() else { return self.made() };
        if self == Self::Etcd {
            static CHECKED: OnceLock<Result<()>> = OnceLock::new();
            CHECKED.get_or_init(|| is_new_enough(&file)).clone()?;
        }
        Ok(vec![file.into()])
    }
}

impl Program {
    fn made(self) -> Result<Vec<OsString>> {
        if self != Self::RedisServer {
            return Ok(vec![go::built(self)?.into(), self.name().into()]);
        }
        static FETCHED: OnceLock<Result<Vec<OsString>>> = OnceLock::new();
        let fetched = FETCHED.get_or_init(|| debian::unpacked(self.name(), &["redis-server", "redis-tools"]));
        fetched.clone().map_err(|cause| {
            let name = self.name();
            let advice = format!("install it, as `apt-get install {name}` does where there is one, and run this again");
            Error::new(format!("there is no {name} on PATH, and Debian's cannot be had ({cause}): {advice}"))
        })
    }
}

/// The oldest etcd of use: what older ones get wrong, `discovery-etcd/README.md` says.
const OLDEST_ETCD: [u32; 3] = [3, 5, 13];

fn is_new_enough(etcd: &Path) -> Result<()> {
    let shown = etcd.display();
    let output = Command::new(etcd).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|error| Error::because(&shown, error))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.lines().find_map(|line| line.strip_prefix("etcd Version: ")).map(str::trim);
    let advice = "install 3.5.13 or newer, or take it away and Go builds one";
    let numbers = version.and_then(numbers);
    match (version, numbers) {
        (_, Some(numbers)) if numbers >= OLDEST_ETCD => Ok(()),
        (Some(version), Some(_)) => Err(Error::new(format!("{shown} is etcd {version}, which is too old: {advice}"))),
        _ => Err(Error::new(format!("{shown} does not tell its version: {advice}"))),
    }
}

/// The three numbers of a version, without what may follow the last.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let plain = version.split(['-', '+']).next()?;
    let numbers: Vec<u32> = plain.split('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let of = |version| numbers(version);
        assert!(of("3.5.9") < Some(OLDEST_ETCD) && of("3.4.30") < Some(OLDEST_ETCD));
        assert!(of("3.10.0") > Some(OLDEST_ETCD) && of("3.6.0-rc.1") > Some(OLDEST_ETCD));
        assert_eq!([of("3.5"), of("new"), of("")], [None, None, None]);
    }
}
