//! How does a container become a process of this machine?

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use rustix::process::Pid;

use super::environment;
use crate::error::Result;
use crate::supervised::Supervised;

const ENTER: &str = include_str!("enter.sh");

/// All that a container's process is started with.
#[derive(Debug)]
pub(super) struct Recipe {
    name: String,
    program: PathBuf,
    mounts: Vec<(PathBuf, String)>,
    /// What it runs as, in the words of `setpriv`.
    privileges: Vec<String>,
    variables: BTreeMap<String, String>,
    words: Vec<String>,
    log: PathBuf,
    home: PathBuf,
}

/// Where the files of a container are.
pub(super) struct Files<'a> {
    /// The image's program.
    pub(super) program: &'a Path,
    /// The pod's volumes, by name.
    pub(super) volumes: &'a BTreeMap<String, PathBuf>,
    pub(super) log: PathBuf,
    /// Removed where this process dies before the container's.
    pub(super) home: &'a Path,
}

impl Recipe {
    /// Answers what is wrong with the manifest where that is so.
    pub(super) fn new(
        pod: &Pod,
        container: &Container,
        files: Files<'_>,
        variables: BTreeMap<String, String>,
    ) -> std::result::Result<Self, String> {
        let mut mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            if mount.sub_path.is_some() || mount.sub_path_expr.is_some() {
                return Err(format!("{}: subPath is not played here", mount.name));
            }
            let volume = files.volumes.get(&mount.name).ok_or_else(|| format!("there is no volume {}", mount.name))?;
            mounts.push((volume.clone(), mount.mount_path.trim_end_matches('/').to_owned()));
        }
        let entrypoint = files.program.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            name: container.name.clone(),
            program: files.program.to_owned(),
            mounts,
            privileges: privileges(pod, container),
            words: environment::command(container, &entrypoint, &variables),
            variables,
            log: files.log,
            home: files.home.to_owned(),
        })
    }

    /// Starts its process, which sees the pod's files. That it cannot is an exit code, and a line in the log.
    ///
    /// # Errors
    /// No process can be started here.
    pub(super) fn start(&self) -> Result<Supervised> {
        let mut command = words(["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "enter"]);
        command.push(self.program.clone().into());
        for (volume, place) in &self.mounts {
            command.extend([volume.clone().into(), place.into()]);
        }
        command.push("--".into());
        self.supervise(command, &self.words)
    }

    /// Starts another process beside its own, which sees the same files.
    ///
    /// # Errors
    /// No process can be started here.
    pub(super) fn start_beside(&self, process: Pid, command: &[String]) -> Result<Supervised> {
        let id = process.as_raw_nonzero().to_string();
        self.supervise(words(["nsenter", "--mount", "--target", &id, "--"]), command)
    }

    fn supervise(&self, mut command: Vec<OsString>, run: &[String]) -> Result<Supervised> {
        if !self.privileges.is_empty() {
            command.push("setpriv".into());
            command.extend(self.privileges.iter().map(OsString::from));
        }
        command.extend(words(["env", "-i"]));
        command.extend(self.variables.iter().map(|(name, value)| OsString::from(format!("{name}={value}"))));
        command.extend(run.iter().map(OsString::from));
        Supervised::start(&self.name, &self.log, &self.home, &command)
    }

    /// The end of what its processes printed.
    pub(super) fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).to_vec()
}

fn privileges(pod: &Pod, container: &Container) -> Vec<String> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let of_container = container.security_context.as_ref();
    let user = of_container.and_then(|own| own.run_as_user).or_else(|| of_pod?.run_as_user);
    let group = of_container.and_then(|own| own.run_as_group).or_else(|| of_pod?.run_as_group);
    let mut privileges = Vec::new();
    if let Some(user) = user {
        privileges.extend([format!("--reuid={user}"), format!("--regid={}", group.unwrap_or(0))]);
        privileges.push("--clear-groups".to_owned());
    }
    if of_container.is_some_and(|own| own.allow_privilege_escalation == Some(false)) {
        privileges.push("--no-new-privs".to_owned());
    }
    privileges
}
