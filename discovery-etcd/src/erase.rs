//! How is everything below a prefix removed?

use etcd_client::DeleteOptions;

use discovery_core::{Error, ErrorKind, Result};

use crate::config::{Config, PREFIX_VARIABLE};
use crate::fault::Fault;
use crate::link::Wire;
use crate::store::{CALL, Store};

/// Removes every record below the prefix of `config`, whoever owns it, with what else this backend keeps there, and
/// answers how many keys that were. For whoever made up a prefix and is done with it: an owner that lives puts its records
/// back. Takes two seconds at most for each endpoint.
///
/// Cancelled, it has removed everything or nothing.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] where there is no prefix, for then the records may be anybody's. Else what the store
/// answers; with an unknown effect it may be called again.
pub async fn erase(config: &Config) -> Result<u64> {
    if config.prefix.is_empty() {
        let message = format!("{PREFIX_VARIABLE} is not set, and without it every record is meant: set it");
        return Err(Error::new(ErrorKind::InvalidConfig, message).with_backend(crate::NAME));
    }
    config.check().map_err(|error| error.with_backend(crate::NAME))?;
    let store = Store::new(config.clone());
    let root = store.names.root();
    let remove = |mut wire: Wire| {
        let root = root.clone();
        async move { wire.kv.delete(root, Some(DeleteOptions::new().with_prefix())).await }
    };
    let removed = store.control.read(CALL, remove).await;
    let removed = removed.map_err(|fault: Fault| fault.error.with_backend(crate::NAME))?;
    Ok(u64::try_from(removed.deleted()).unwrap_or_default())
}
