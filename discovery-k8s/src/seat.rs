//! One registering process for each resource: the kernel's word on it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use discovery_core::{Error, ErrorKind, Result};
use discovery_dynamo::layout;

use crate::identity::Identity;

/// The right to register for an identity: a name in the pod's network namespace, which its containers share. It is free
/// again the moment its process ends, however it ends, so that a restarted container never waits for it.
#[derive(Debug)]
pub(crate) struct Seat(#[expect(dead_code, reason = "it is bound for as long as it lives")] UnixListener);

impl Seat {
    /// Takes the seat.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where another handle of this pod has it.
    pub(crate) fn take(identity: &Identity) -> Result<Self> {
        let Identity { namespace, uid, resource, .. } = identity;
        // A socket's name is short; a hash of the identity always fits.
        let seat = layout::kubernetes_instance_id(&format!("{namespace}/{uid}/{resource}"));
        let bound = SocketAddr::from_abstract_name(format!("discovery-kubernetes/{seat}"))
            .and_then(|address| UnixListener::bind_addr(&address));
        match bound {
            Ok(listener) => Ok(Self(listener)),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "another process of this pod registers as {resource:?}: for one instance in each container set \
                     DYN_KUBE_DISCOVERY_MODE=container and CONTAINER_NAME, else share one handle"
                ),
            )),
            Err(error) => {
                Err(Error::new(ErrorKind::Internal, "cannot bind a name for this identity").with_source(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;

    #[test]
    fn a_seat_is_taken_once_and_free_when_left() {
        let identity = Identity::new(Mode::Pod, "seat-test", "u", "ns", None).unwrap();
        let other = Identity { uid: "v".to_owned(), ..identity.clone() };
        let seat = Seat::take(&identity).unwrap();
        let error = Seat::take(&identity).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("DYN_KUBE_DISCOVERY_MODE=container"), "{error}");
        assert!(Seat::take(&other).is_ok(), "the next pod of that name");
        drop(seat);
        assert!(Seat::take(&identity).is_ok());
    }
}
