//! The factories of the embedded backends.

#[cfg(feature = "file")]
mod file;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "file")]
mod process;

use std::sync::Arc;

use discovery_conformance::Factory;

/// The factories that `DYN_DISCOVERY_BACKEND` picks: all of them where it is unset or empty.
pub(crate) fn chosen() -> Result<Vec<Arc<dyn Factory>>, String> {
    let wanted = std::env::var("DYN_DISCOVERY_BACKEND").unwrap_or_default();
    let all = all();
    if wanted.is_empty() {
        return Ok(all);
    }
    let known: Vec<String> = all.iter().map(|factory| factory.name().to_owned()).collect();
    let name = if wanted == "mem" { "memory" } else { wanted.as_str() };
    let chosen: Vec<_> = all.into_iter().filter(|factory| factory.name() == name).collect();
    if chosen.is_empty() {
        return Err(format!("DYN_DISCOVERY_BACKEND={wanted}: the suite knows {}", known.join(", ")));
    }
    Ok(chosen)
}

fn all() -> Vec<Arc<dyn Factory>> {
    vec![
        #[cfg(feature = "memory")]
        Arc::new(memory::Memory),
        #[cfg(feature = "file")]
        Arc::new(file::File),
    ]
}
