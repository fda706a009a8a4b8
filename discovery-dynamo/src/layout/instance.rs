//! Instance ids on Kubernetes.

use std::hash::Hasher;

use discovery_core::{Error, ErrorKind, InstanceId, Result};
use siphasher::sip::SipHasher13;

use super::kubernetes::MAX_KUBERNETES_INTEGER;

/// The longest name of a resource.
const MAX_RESOURCE_NAME: usize = 253;

/// The container that counts as the pod itself.
const MAIN_CONTAINER: &str = "main";

/// The name of the resource that holds a process's records: the pod's, or `{pod}-{container}` where each container is
/// an instance of its own. A container called `main` is the pod itself.
///
/// # Errors
/// [`InvalidConfig`](ErrorKind::InvalidConfig) where the name is above 253 characters.
pub fn kubernetes_resource_name(pod: &str, container: Option<&str>) -> Result<String> {
    let name = match container {
        None | Some(MAIN_CONTAINER) => pod.to_owned(),
        Some(container) => format!("{pod}-{container}"),
    };
    if name.len() > MAX_RESOURCE_NAME {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "the resource name {name:?} has {} characters, and {MAX_RESOURCE_NAME} are possible: shorten the container's name",
                name.len()
            ),
        ));
    }
    Ok(name)
}

/// The id of the instance whose records the resource of this name holds: a hash, below 2^53. Two names may collide.
pub fn kubernetes_instance_id(resource: &str) -> InstanceId {
    let mut hasher = SipHasher13::new();
    hasher.write(resource.as_bytes());
    hasher.write_u8(0xff);
    InstanceId(hasher.finish() & MAX_KUBERNETES_INTEGER)
}
