//! What a failure of etcd, of its client or of the network means, whether it had an effect, and what to do about it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;

use discovery_core::{Effect, Error, ErrorKind};
use tonic::transport::Uri;
use tonic::{Code, Status};

use crate::config::{CA_VARIABLE, DEFAULT_PORT, ENDPOINTS_VARIABLE, USERNAME_VARIABLE};

/// A failed call.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) error: Error,
    /// Whether another member, or a new connection, may do better.
    pub(crate) broken: bool,
}

impl Fault {
    fn new(kind: ErrorKind, effect: Effect, broken: bool, message: String) -> Self {
        Self { error: Error::new(kind, message).with_effect(effect), broken }
    }

    /// A call that had no answer in time.
    pub(crate) fn silent(endpoint: &str, limit: std::time::Duration) -> Self {
        let endpoint = with_port(endpoint);
        let message = format!("{endpoint} did not answer within {limit:?}: is it overloaded or cut off?");
        Self::new(ErrorKind::Timeout, Effect::Unknown, true, message)
    }

    /// A page of so many records that takes too long, of a member that lives.
    pub(crate) fn slow(records: i64, limit: std::time::Duration) -> Self {
        let message = format!("a page of {records} records took longer than {limit:?}: is the link to etcd slow?");
        Self::new(ErrorKind::Timeout, Effect::None, true, message)
    }

    /// A connection that could not be made. Nothing was sent.
    pub(crate) fn connecting(endpoint: &str, error: &(dyn StdError + 'static)) -> Self {
        let message = format!("{}: {}", with_port(endpoint), network_cause(error));
        Self::new(ErrorKind::Unavailable, Effect::None, true, message)
    }

    /// A call that failed, of a client that has a user or none.
    pub(crate) fn calling(endpoint: &str, has_user: bool, error: &etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => Self::answered(endpoint, has_user, status),
            etcd_client::Error::TransportError(error) => Self::connecting(endpoint, error),
            etcd_client::Error::LeaseKeepAliveError(text) if text.contains("lease not found") => {
                Self { error: lease_gone(), broken: false }
            }
            etcd_client::Error::LeaseKeepAliveError(_) | etcd_client::Error::WatchError(_) => {
                let message = format!("{endpoint} ended the stream: it is opened again");
                Self::new(ErrorKind::Unavailable, Effect::Unknown, true, message)
            }
            other => {
                let message = format!("{endpoint}: the client failed: {other}: please report it");
                Self::new(ErrorKind::Internal, Effect::Unknown, true, message)
            }
        }
    }

    /// A watch that the server ended, for its own reason.
    pub(crate) fn canceled(endpoint: &str, has_user: bool, reason: &str) -> Self {
        let text = reason.rsplit("desc = ").next().unwrap_or(reason);
        Self::answered(endpoint, has_user, &Status::new(code_of(text), text))
    }

    fn answered(endpoint: &str, has_user: bool, status: &Status) -> Self {
        let text = status.message().trim_start_matches("etcdserver: ");
        let new = |kind, effect, broken, advice: &str| {
            Self::new(kind, effect, broken, format!("{endpoint}: {text}: {advice}"))
        };
        let (none, unknown) = (Effect::None, Effect::Unknown);
        match status.code() {
            _ if text.contains("requested lease not found") => Self { error: lease_gone(), broken: false },
            _ if has_user && is_unsigned(text) => {
                new(ErrorKind::Unavailable, none, true, "users are demanded since the connection was made: signing in")
            }
            _ if is_credentials(text) => {
                let advice = format!("check {USERNAME_VARIABLE} and the password beside it");
                new(ErrorKind::PermissionDenied, none, false, &advice)
            }
            Code::PermissionDenied => {
                new(ErrorKind::PermissionDenied, none, false, "grant the user's role read and write below its prefix")
            }
            Code::Unauthenticated => new(ErrorKind::Unavailable, none, true, "signing in again"),
            Code::InvalidArgument if text.contains("auth store is old") => {
                new(ErrorKind::Unavailable, none, true, "users or roles changed meanwhile: it is tried again")
            }
            Code::InvalidArgument if text.contains("too large") || text.contains("too many operations") => {
                new(ErrorKind::TooLarge, none, false, "write less at once, or raise the server's limits")
            }
            Code::InvalidArgument => new(ErrorKind::Internal, none, false, "please report it"),
            // What crosses the quota is done and answered like this all the same (`quotaApplierV3` in etcd's `quota.go`).
            Code::ResourceExhausted if text.contains("database space exceeded") => new(
                ErrorKind::Unavailable,
                unknown,
                false,
                "compact and defragment etcd, raise its quota, then disarm the alarm",
            ),
            Code::ResourceExhausted if text.contains("larger than max") => {
                new(ErrorKind::TooLarge, none, false, "write less at once, or raise the server's limits")
            }
            Code::ResourceExhausted => new(ErrorKind::Unavailable, none, false, "it is tried again"),
            Code::OutOfRange if text.contains("compacted") || text.contains("future revision") => {
                new(ErrorKind::Expired, none, false, "the history is no longer kept: read the state anew")
            }
            Code::OutOfRange => new(ErrorKind::TooLarge, unknown, false, "the answer is larger than a message may be"),
            Code::FailedPrecondition | Code::Unimplemented => {
                new(ErrorKind::Unavailable, none, true, "another member is tried")
            }
            Code::DataLoss => new(ErrorKind::Unavailable, unknown, true, "the cluster is corrupt: restore it"),
            Code::DeadlineExceeded => new(ErrorKind::Timeout, unknown, true, "is it overloaded or cut off?"),
            Code::Unavailable if text == "no leader" => {
                new(ErrorKind::Unavailable, none, true, "do most of the members run, and reach each other?")
            }
            Code::Unavailable if status.message().starts_with("etcdserver: ") => {
                new(ErrorKind::Unavailable, unknown, true, "another member is tried")
            }
            _ => {
                let cause = status.source().map_or_else(|| text.to_owned(), network_cause);
                // With TLS 1.3 a server refuses a client's certificate after the connection was made.
                let secure = endpoint.starts_with("https");
                let refused = if secure { " (or does it refuse this client's certificate, or miss one?)" } else { "" };
                let message = format!("{endpoint}: the connection broke: {cause}{refused}");
                Self::new(ErrorKind::Unavailable, unknown, true, message)
            }
        }
    }
}

/// A URL, and the port that it stands for where it names none: few etcds listen there.
fn with_port(endpoint: &str) -> Cow<'_, str> {
    let uri: Option<Uri> = endpoint.parse().ok();
    if uri.is_none_or(|uri| uri.port().is_some()) {
        return endpoint.into();
    }
    let port = if endpoint.starts_with("https://") { 443 } else { 80 };
    format!("{endpoint} (port {port}, for the URL names none; etcd listens on {DEFAULT_PORT})").into()
}

/// Whether it was the network that failed, and not a server that answered.
pub(crate) fn is_network(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.source().is_some())
}

/// Whether a read failed because its revision is no longer kept.
pub(crate) fn is_compacted(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message().contains("has been compacted"))
}

/// Whether a read failed because its revision is still to come.
pub(crate) fn is_future(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message().contains("is a future revision"))
}

/// Whether a call failed because a token has run out.
pub(crate) fn is_of_token(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if tells_of_token(status.message()))
}

/// Whether signing in failed because the store has no users.
pub(crate) fn is_without_users(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message().contains("authentication is not enabled"))
}

pub(crate) fn lease_gone() -> Error {
    Error::new(ErrorKind::SessionLost, "the lease has expired or was revoked: a new one is granted")
}

fn is_credentials(text: &str) -> bool {
    text.contains("authentication failed") || is_unsigned(text)
}

/// Whether nobody had signed in on the connection, where that is demanded.
fn is_unsigned(text: &str) -> bool {
    text.contains("user name is empty")
}

/// Whether a token has run out, or is another server's.
pub(crate) fn tells_of_token(reason: &str) -> bool {
    reason.contains("invalid auth token")
}

/// Reasons for which a watch is cancelled come as text alone.
fn code_of(reason: &str) -> Code {
    if reason.contains("permission denied") {
        Code::PermissionDenied
    } else if tells_of_token(reason) {
        Code::Unauthenticated
    } else if reason.contains("compacted") {
        Code::OutOfRange
    } else if reason.contains("auth store is old") || is_credentials(reason) {
        Code::InvalidArgument
    } else {
        Code::Unavailable
    }
}

/// The innermost cause, and what to look at.
fn network_cause(error: &(dyn StdError + 'static)) -> String {
    let mut causes = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        causes.push(cause);
        next = cause.source();
    }
    let texts: Vec<String> = causes.iter().map(ToString::to_string).collect();
    let innermost = texts.last().cloned().unwrap_or_default();
    let all = texts.join(" ");
    let io = causes.iter().rev().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let advice = if all.contains("dns error") || all.contains("failed to lookup address") {
        format!("the name does not resolve: correct {ENDPOINTS_VARIABLE}")
    } else if all.contains("UnknownIssuer") {
        format!("its certificate is signed by nobody that is trusted here: set {CA_VARIABLE}")
    } else if all.contains("CertificateRequired") || all.contains("BadCertificate") || all.contains("HandshakeFailure")
    {
        "it asks for a client certificate that it trusts".to_owned()
    } else if all.contains("certificate") {
        "its certificate does not fit".to_owned()
    } else if all.contains("InvalidContentType") || all.contains("corrupt message") || all.contains("handshake eof") {
        "it speaks no TLS there: write http, or give the TLS port".to_owned()
    } else {
        match io {
            Some(io::ErrorKind::ConnectionRefused) => "nothing listens there: is etcd running?".to_owned(),
            Some(io::ErrorKind::TimedOut) => "no answer: is it reachable from here?".to_owned(),
            _ => "is it reachable, and does it speak as the URL says?".to_owned(),
        }
    };
    format!("{innermost}: {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, text: &str) -> Fault {
        Fault::calling("http://a:1", false, &etcd_client::Error::GRpcStatus(Status::new(code, text)))
    }

    #[test]
    fn every_answer_has_a_kind_an_effect_and_an_advice() {
        let (none, unknown) = (Effect::None, Effect::Unknown);
        let cases = [
            (Code::NotFound, "etcdserver: requested lease not found", ErrorKind::SessionLost, none, false),
            (Code::PermissionDenied, "etcdserver: permission denied", ErrorKind::PermissionDenied, none, false),
            (Code::InvalidArgument, "etcdserver: user name is empty", ErrorKind::PermissionDenied, none, false),
            (Code::InvalidArgument, "etcdserver: authentication failed", ErrorKind::PermissionDenied, none, false),
            (Code::InvalidArgument, "etcdserver: request is too large", ErrorKind::TooLarge, none, false),
            (Code::Unauthenticated, "etcdserver: invalid auth token", ErrorKind::Unavailable, none, true),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                ErrorKind::Unavailable,
                unknown,
                false,
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                ErrorKind::Expired,
                none,
                false,
            ),
            (Code::Unavailable, "etcdserver: no leader", ErrorKind::Unavailable, none, true),
            (Code::Unavailable, "etcdserver: request timed out", ErrorKind::Unavailable, unknown, true),
            (Code::Unavailable, "transport error", ErrorKind::Unavailable, unknown, true),
            (Code::DeadlineExceeded, "context deadline exceeded", ErrorKind::Timeout, unknown, true),
        ];
        for (code, text, kind, effect, broken) in cases {
            let fault = of(code, text);
            let seen = (fault.error.kind(), fault.error.effect(), fault.broken);
            assert_eq!(seen, (kind, effect, broken), "{text}: {}", fault.error);
            assert!(!fault.error.to_string().contains('\n'), "{}", fault.error);
        }
    }

    #[test]
    fn the_reason_of_a_cancelled_watch_is_read() {
        let reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        assert_eq!(Fault::canceled("http://a:1", false, reason).error.kind(), ErrorKind::PermissionDenied);
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        assert_eq!(Fault::canceled("http://a:1", false, compacted).error.kind(), ErrorKind::Expired);
        let canceled = Fault::canceled("http://a:1", false, "etcdserver: watch canceled");
        assert_eq!(canceled.error.kind(), ErrorKind::Unavailable);
    }

    /// The next connection signs in.
    #[test]
    fn who_has_a_user_and_is_not_signed_in_tries_again() {
        let text = "etcdserver: user name is empty";
        let status = etcd_client::Error::GRpcStatus(Status::new(Code::InvalidArgument, text));
        let faults = [Fault::calling("http://a:1", true, &status), Fault::canceled("http://a:1", true, text)];
        for Fault { error, broken } in faults {
            assert_eq!((error.effect(), error.is_temporary(), broken), (Effect::None, true, true), "{error}");
        }
    }

    #[test]
    fn a_refused_connection_says_so() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let fault = Fault::connecting("http://a:1", &refused);
        assert_eq!((fault.error.effect(), fault.error.is_temporary()), (Effect::None, true));
        assert!(fault.error.message().contains("http://a:1") && fault.error.message().contains("listens"));
    }

    #[test]
    fn a_url_without_a_port_is_told_with_the_one_that_was_meant() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        for (url, port) in [("http://a", "80"), ("https://a", "443")] {
            for fault in [Fault::connecting(url, &refused), Fault::silent(url, std::time::Duration::ZERO)] {
                let text = fault.error.message();
                assert!(text.contains(&format!("{url} (port {port}, ")) && text.contains("2379"), "{text}");
            }
        }
        assert!(!Fault::connecting("http://a:1", &refused).error.message().contains("2379"));
    }
}
