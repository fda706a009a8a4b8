//! The factories of the project's own backends, and which of them somebody asks for.
//!
//! Each is a feature of this crate, named like the backend: the library alone knows no store. [`Linked`] is for every other
//! backend, and needs none.

#[cfg(feature = "file")]
mod disk;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "file")]
mod file;
mod linked;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "file")]
mod process;

use std::sync::Arc;

#[cfg(feature = "etcd")]
pub use etcd::Etcd;
#[cfg(feature = "file")]
pub use file::File;
pub use linked::Linked;
#[cfg(feature = "memory")]
pub use memory::Memory;

use crate::world::Factory;

/// A backend that a program may be asked for.
struct Known {
    /// Its name, then what else it is called.
    names: &'static [&'static str],
    /// Whether it needs nothing but this process: these are meant where nobody asks for one.
    embedded: bool,
    make: fn() -> Arc<dyn Factory>,
}

/// One line for each backend that is built in.
const KNOWN: &[Known] = &[
    #[cfg(feature = "memory")]
    Known { names: &["memory", "mem"], embedded: true, make: || Arc::new(Memory) },
    #[cfg(feature = "file")]
    Known { names: &["file"], embedded: true, make: || Arc::new(File::new()) },
    #[cfg(feature = "etcd")]
    Known { names: &["etcd"], embedded: false, make: || Arc::new(Etcd::new()) },
];

/// The backends whose crates bring a target of their own, and servers with it.
const ELSEWHERE: &[(&str, &str)] = &[
    ("etcd", "cargo test -p discovery-etcd --test conformance"),
    ("etcd-cluster", "cargo test -p discovery-etcd --test conformance etcd-cluster"),
    ("kubernetes", "cargo test -p discovery-k8s --test conformance"),
    ("kubernetes-containers", "cargo test -p discovery-k8s --test conformance kubernetes-containers"),
    ("redis", "cargo test -p discovery-redis --test conformance"),
];

/// Whether this crate has a feature of this name, which builds the backend in.
#[cfg(feature = "harness")]
pub(crate) fn is_feature(backend: &str) -> bool {
    KNOWN.iter().any(|known| known.names.first() == Some(&backend))
}

/// The factories that `DYN_DISCOVERY_BACKEND=<wanted>` means: that of the backend of this name, or those of all
/// embedded backends where it is empty.
///
/// # Errors
/// A line that says which names are known, where this one is not.
pub fn chosen(wanted: &str) -> Result<Vec<Arc<dyn Factory>>, String> {
    let meant = |known: &&Known| if wanted.is_empty() { known.embedded } else { known.names.contains(&wanted) };
    let chosen: Vec<_> = KNOWN.iter().filter(meant).map(|known| (known.make)()).collect();
    if chosen.is_empty() {
        let names: Vec<_> = KNOWN.iter().map(|known| known.names[0]).collect();
        let names = names.join(", ");
        let next = match ELSEWHERE.iter().find(|(name, _)| *name == wanted) {
            Some((_, command)) => format!("this one runs by `{command}`"),
            None => {
                let others: Vec<_> = ELSEWHERE.iter().map(|(name, command)| format!("{name}: `{command}`")).collect();
                format!("on servers of their own run {}", others.join("; "))
            }
        };
        return Err(format!("DYN_DISCOVERY_BACKEND={wanted}: this target knows {names}; {next}"));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_a_feature_of_its_name() {
        let manifest = include_str!("../../Cargo.toml");
        let features =
            manifest.split("[features]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap_or_default();
        for known in KNOWN {
            assert!(features.lines().any(|line| line.starts_with(&format!("{} = ", known.names[0]))), "{features}");
        }
    }

    #[test]
    fn who_asks_for_a_backend_with_servers_of_its_own_is_told_its_command() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (name, command) in ELSEWHERE {
            let package = command.split(' ').nth(3).unwrap_or_default();
            let place = if package == "discovery-redis" { "examples/redis" } else { package };
            let manifest = std::fs::read_to_string(root.join(place).join("Cargo.toml")).unwrap_or_default();
            assert!(manifest.contains(&format!("name = \"{package}\"")), "{command}");
            if KNOWN.iter().all(|known| !known.names.contains(name)) {
                let text = chosen(name).err().unwrap_or_default();
                assert!(text.ends_with(&format!("this one runs by `{command}`")), "{text}");
            }
        }
        let text = chosen("nonesuch").err().unwrap_or_default();
        assert!(ELSEWHERE.iter().all(|(name, command)| text.contains(&format!("{name}: `{command}`"))), "{text}");
    }
}
