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

/// What runs the suite on servers of its own, which this crate does not start.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (&["etcd"], "cargo test -p discovery-etcd --test conformance"),
    (&["kubernetes", "k8s"], "cargo test -p discovery-k8s --test conformance"),
    (&["redis"], "cargo test -p discovery-redis --test conformance"),
];

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
        let elsewhere = ELSEWHERE.iter().find(|(names, _)| names.contains(&wanted));
        let how = elsewhere.map_or_else(
            || "`discovery conformance` judges every backend that is linked into it".to_owned(),
            |(_, how)| format!("`{how}` runs it on {wanted}"),
        );
        return Err(format!("DYN_DISCOVERY_BACKEND={wanted}: the suite knows {} here: {how}", names.join(", ")));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(wanted: &str) -> String {
        chosen(wanted).map(drop).expect_err("it is not built in")
    }

    #[test]
    fn whoever_asks_for_a_backend_that_is_not_built_in_is_told_what_runs_it() {
        let told = refusal("kubernetes");
        assert!(told.contains("`cargo test -p discovery-k8s --test conformance` runs it on kubernetes"), "{told}");
        assert!(refusal("redis").contains("discovery-redis"));
        assert!(refusal("nonsense").contains("`discovery conformance` judges every backend"));
    }

    #[cfg(all(feature = "memory", feature = "file"))]
    #[test]
    fn where_nobody_asks_the_embedded_ones_are_meant() {
        let names = |wanted: &str| -> Vec<String> {
            chosen(wanted).expect("known").iter().map(|factory| factory.name().to_owned()).collect()
        };
        assert_eq!(names(""), ["memory", "file"]);
        assert_eq!((names("mem"), names("file")), (vec!["memory".to_owned()], vec!["file".to_owned()]));
    }
}
