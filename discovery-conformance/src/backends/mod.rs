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
        return Err(format!(
            "DYN_DISCOVERY_BACKEND={wanted}: the suite knows {}; on servers of its own it runs by \
             `cargo test -p discovery-etcd --test conformance`",
            names.join(", ")
        ));
    }
    Ok(chosen)
}
