//! What an answer of the API server means to a user, and what to do about it.

use std::fmt;

use discovery_core::{Effect, Error, ErrorKind};
use kube::core::Status;

use crate::doubting::Undecided;
use crate::resource::{GROUP, PLURAL, VERSION};

/// What was asked of the API server, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// The verb, as a Role's rule names it.
    pub(crate) verb: &'static str,
    /// The resource with its group, as a Role's rule names it.
    pub(crate) resource: &'a str,
    /// The namespace; `None` for the whole cluster.
    pub(crate) namespace: Option<&'a str>,
}

impl Request<'_> {
    fn place(&self) -> String {
        self.namespace.map_or_else(|| "in the whole cluster".to_owned(), |name| format!("in namespace {name:?}"))
    }

    pub(crate) fn is_write(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch")
    }

    /// The typed error of a request that failed.
    pub(crate) fn fault(&self, error: kube::Error) -> Error {
        let effect = if self.is_write() && may_have_written(&error) { Effect::Unknown } else { Effect::None };
        let fault = match &error {
            kube::Error::Api(status) => self.status(status),
            kube::Error::SerdeError(_) => {
                Error::new(ErrorKind::Internal, "the API server's answer cannot be read: please report it")
            }
            kube::Error::Auth(_) => Error::new(
                ErrorKind::PermissionDenied,
                "no credentials for the API server: check the ServiceAccount's token, or KUBECONFIG",
            ),
            kube::Error::BuildRequest(_) => Error::new(
                ErrorKind::Internal,
                format!(
                    "the request to {} {} {} cannot be written: please report it",
                    self.verb,
                    self.resource,
                    self.place()
                ),
            ),
            _ => match undecided(&error) {
                Some(Undecided::Starting) => {
                    Error::new(ErrorKind::Unavailable, "the API server is starting: it is tried again")
                }
                Some(Undecided::Silent) => Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "not allowed to {} {} {}, nor to ask at /readyz whether the API server has read the roles: it is \
                         starting, or lacks the binding of system:public-info-viewer",
                        self.verb,
                        self.resource,
                        self.place()
                    ),
                ),
                Some(Undecided::Unrecognised) => Error::new(
                    ErrorKind::Unavailable,
                    "the API server does not accept this identity, nor says at /readyz whether it can: it is starting, or \
                     the ServiceAccount's token has ended with its pod",
                ),
                None => Error::new(
                    ErrorKind::Unavailable,
                    "the API server cannot be reached: check its address and the network",
                ),
            },
        };
        let fault = fault.with_effect(effect);
        match error {
            // Its text alone: the rest has been made sense of.
            kube::Error::Api(status) if status.code == 401 => fault.with_source(Unrecognised(status.message)),
            kube::Error::Api(status) if status.message.is_empty() => fault,
            kube::Error::Api(status) => fault.with_source(status.message),
            kube::Error::Service(cause) => fault.with_source(cause),
            other => fault.with_source(other),
        }
    }

    /// What allows it. Listing pods is for container mode alone.
    fn grant(&self) -> String {
        let print = match (self.resource, self.verb) {
            ("pods", "list" | "watch") => "`discovery rbac --mode container`, in that mode alone,",
            _ => "`discovery rbac`",
        };
        match self.namespace {
            Some(_) => format!("apply what {print} prints there"),
            None => "grant it by a ClusterRole".to_owned(),
        }
    }

    fn status(&self, status: &Status) -> Error {
        let (verb, resource, place) = (self.verb, self.resource, self.place());
        let text = &status.message;
        match status.code {
            401 => Error::new(
                ErrorKind::PermissionDenied,
                "the API server does not accept this identity: check the ServiceAccount's token, which ends with its pod",
            ),
            _ if is_namespace_ending(status) => {
                Error::new(ErrorKind::Unavailable, format!("nothing can be made {place}, which is being deleted"))
            }
            _ if text.contains("ValidatingAdmissionPolicy") => Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "an admission policy forbids to {verb} {resource} {place}: check POD_NAME, POD_UID and the policy"
                ),
            ),
            403 => Error::new(
                ErrorKind::PermissionDenied,
                format!("not allowed to {verb} {resource} {place}: {}", self.grant()),
            ),
            404 if is_missing_resource(status) => Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the cluster, or a proxy before it, does not know {resource}: run `discovery crd | kubectl apply --server-side -f -`"
                ),
            ),
            404 => Error::new(ErrorKind::Unavailable, format!("there is no such object {place}")),
            409 => Error::new(ErrorKind::Unavailable, "somebody else wrote it meanwhile: it is read again")
                .with_effect(Effect::None),
            410 => Error::new(ErrorKind::Expired, "the API server no longer keeps that history: it is read anew"),
            413 => too_large(),
            _ if text.contains("too large") && text.contains("request") => too_large(),
            400 | 422 => Error::new(ErrorKind::InvalidValue, format!("the API server refuses to {verb} {resource}")),
            429 => Error::new(ErrorKind::Unavailable, "the API server is busy: it is tried again more slowly"),
            _ => Error::new(ErrorKind::Unavailable, "the API server cannot serve this now: it is tried again"),
        }
    }
}

/// The API server's word, 401, that it knows no such user.
#[derive(Debug)]
struct Unrecognised(String);

impl fmt::Display for Unrecognised {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Some(self.0.as_str()).filter(|text| !text.is_empty());
        formatter.write_str(text.unwrap_or("401 Unauthorized"))
    }
}

impl std::error::Error for Unrecognised {}

/// Whether the API server does not know who asks. To the process of a deleted pod it says no more than that.
pub(crate) fn is_unrecognised(error: &Error) -> bool {
    may_be_starting(error) || std::error::Error::source(error).is_some_and(|source| source.is::<Unrecognised>())
}

/// Whether that may be so only because the server starts.
pub(crate) fn may_be_starting(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.downcast_ref() == Some(&Undecided::Unrecognised))
}

/// The resource as rules and messages name it.
pub(crate) fn qualified() -> String {
    format!("{PLURAL}.{GROUP}/{VERSION}")
}

fn too_large() -> Error {
    Error::new(
        ErrorKind::TooLarge,
        "this process's records together are larger than one object can be: store references to large values instead",
    )
}

/// Whether the cluster lacks the resource as such, and not one object of it. Only the latter is answered with a name.
pub(crate) fn is_missing_resource(status: &Status) -> bool {
    status.code == 404 && status.details.as_ref().is_none_or(|details| details.name.is_empty())
}

fn is_namespace_ending(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// Whether a store that is behind what was asked for answered: another replica of the API server, or one whose data
/// was lost.
pub(crate) fn is_behind(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "ResourceVersionTooLarge")
        || status.message.contains("Too large resource version")
}

/// Whether this is a refusal that is not believed.
pub(crate) fn undecided(error: &kube::Error) -> Option<Undecided> {
    let kube::Error::Service(cause) = error else { return None };
    cause.downcast_ref().copied()
}

/// Whether a failed write may have happened all the same.
fn may_have_written(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500,
        kube::Error::Service(_) if undecided(error).is_some() => false,
        kube::Error::BuildRequest(_) | kube::Error::Auth(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: Request<'_> = Request { verb: "patch", resource: "dwm", namespace: Some("ns") };

    fn fault(code: u16, message: &str) -> Error {
        PATCH.fault(kube::Error::Api(Status::failure(message, "").with_code(code).boxed()))
    }

    #[test]
    fn an_answer_has_a_kind_and_says_what_to_do() {
        let cases = [
            (401, "", ErrorKind::PermissionDenied, false, "token"),
            (403, "forbidden", ErrorKind::PermissionDenied, false, "discovery rbac"),
            (422, "ValidatingAdmissionPolicy 'x' denied", ErrorKind::PermissionDenied, false, "POD_UID"),
            (
                404,
                "404 page not found",
                ErrorKind::Unavailable,
                true,
                "discovery crd | kubectl apply --server-side -f -",
            ),
            (410, "too old", ErrorKind::Expired, true, "anew"),
            (413, "", ErrorKind::TooLarge, false, "references"),
            (500, "etcdserver: request is too large", ErrorKind::TooLarge, false, "references"),
            (422, "spec.data: Required value", ErrorKind::InvalidValue, false, "refuses"),
            (429, "", ErrorKind::Unavailable, true, "slowly"),
            (503, "", ErrorKind::Unavailable, true, "again"),
        ];
        for (code, message, kind, temporary, text) in cases {
            let error = fault(code, message);
            assert_eq!((error.kind(), error.is_temporary()), (kind, temporary), "{code}: {error}");
            assert!(error.message().contains(text), "{code}: {error}");
        }
        assert!(fault(403, "").message().contains("patch dwm in namespace \"ns\""));
        let refused = |request: Request<'_>| {
            let status = Status::failure("forbidden", "").with_code(403).boxed();
            request.fault(kube::Error::Api(status)).message().to_owned()
        };
        let pods = Request { verb: "watch", resource: "pods", namespace: Some("ns") };
        assert!(refused(pods).contains("`discovery rbac --mode container`"), "which alone allows it");
        assert!(!refused(Request { verb: "get", ..pods }).contains("container"));
        assert!(refused(Request { namespace: None, ..pods }).ends_with("grant it by a ClusterRole"));
    }

    #[test]
    fn a_request_that_cannot_be_written_is_no_server_that_cannot_be_reached() {
        let request = kube::core::Request::new("/a b").get("c", &kube::api::GetParams::default());
        let error = PATCH.fault(kube::Error::BuildRequest(request.unwrap_err()));
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Internal, Effect::None), "{error}");
        assert!(error.message().contains("patch dwm in namespace \"ns\"") && !error.is_temporary(), "{error}");
    }

    #[test]
    fn a_refusal_that_is_not_believed_is_tried_again() {
        for (undecided, text) in [(Undecided::Starting, "starting"), (Undecided::Silent, "system:public-info-viewer")] {
            let error = PATCH.fault(kube::Error::Service(undecided.into()));
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None), "{error}");
            assert!(error.is_temporary() && error.message().contains(text), "{error}");
        }
    }

    #[test]
    fn who_is_not_recognised_is_told_from_who_may_not() {
        assert!(is_unrecognised(&fault(401, "Unauthorized")) && is_unrecognised(&fault(401, "")));
        assert!(!may_be_starting(&fault(401, "Unauthorized")));
        let silent = PATCH.fault(kube::Error::Service(Undecided::Unrecognised.into()));
        assert!(
            is_unrecognised(&silent)
                && may_be_starting(&silent)
                && silent.is_temporary()
                && silent.effect() == Effect::None,
            "{silent}"
        );
        assert!(!is_unrecognised(&fault(403, "forbidden")));
        assert!(!is_unrecognised(&PATCH.fault(kube::Error::Service(Undecided::Starting.into()))));
    }

    #[test]
    fn a_write_that_may_have_happened_says_so() {
        assert_eq!(fault(500, "timeout").effect(), Effect::Unknown);
        assert_eq!(fault(409, "conflict").effect(), Effect::None);
        let read = Request { verb: "get", ..PATCH };
        let status = Status::failure("", "").with_code(500).boxed();
        assert_eq!(read.fault(kube::Error::Api(status)).effect(), Effect::None);
    }
}
