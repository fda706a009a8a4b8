//! A refusal is believed of a server that is ready. One that starts has not read the roles yet, and refuses whatever they
//! allow; nor the pods, and takes no token that is bound to one.
//!
//! Readiness is what tells: among its checks is that the server's informers have synced (`informer-sync`), and with them
//! its authorizer knows the roles and their bindings. To ask for it is itself something that a role allows,
//! `system:public-info-viewer`, which every cluster binds to everybody. So a server that has read nothing refuses that
//! too, and such a refusal decides nothing. Who is not recognised asks without saying who he is.

use std::fmt;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use kube::client::Body;
use tower::{BoxError, Service, ServiceExt};

/// Where a server says whether it is ready.
pub(crate) const READY: &str = "/readyz";

/// A refusal of which nobody can tell whether it is one. Nothing was done, and it can be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undecided {
    /// The server says that it is not ready.
    Starting,
    /// It refuses to say whether it is.
    Silent,
    /// It does not recognise who asks, and refuses to say whether it is ready.
    Unrecognised,
}

impl fmt::Display for Undecided {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Starting => "the API server refuses this and is not ready",
            Self::Silent => "the API server refuses this, and refuses to say at /readyz whether it is ready",
            Self::Unrecognised => {
                "the API server knows no such user, and refuses to say at /readyz whether it is ready"
            }
        })
    }
}

impl std::error::Error for Undecided {}

/// A way to the API server that asks one that refuses something whether it is ready. If it says yes it may have become so
/// since: it is asked once more, and what it refuses then is refused. Else the refusal is an [`Undecided`] error.
#[derive(Clone, Debug)]
pub(crate) struct Doubting<S, A> {
    pub(crate) server: S,
    /// The same server, without credentials.
    pub(crate) anonymous: A,
}

impl<S, A, B, C> Service<Request<Body>> for Doubting<S, A>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    A: Service<Request<Body>, Response = Response<C>, Error = BoxError> + Clone + Send + 'static,
    A::Future: Send,
    B: Send,
    C: Send,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.server.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { server, anonymous } = self.clone();
        let (parts, body) = request.into_parts();
        let again = body.try_clone().map(|body| Request::from_parts(parts.clone(), body));
        let answer = self.server.call(Request::from_parts(parts, body));
        async move {
            let answer = answer.await?;
            let mut ask = Request::new(Body::empty());
            *ask.uri_mut() = http::Uri::from_static(READY);
            let (ready, silent) = match answer.status() {
                StatusCode::FORBIDDEN => (server.clone().oneshot(ask).await?.status(), Undecided::Silent),
                StatusCode::UNAUTHORIZED => (anonymous.oneshot(ask).await?.status(), Undecided::Unrecognised),
                _ => return Ok(answer),
            };
            match (ready, again) {
                (StatusCode::FORBIDDEN, _) => Err(silent.into()),
                (StatusCode::UNAUTHORIZED, _) if silent == Undecided::Unrecognised => Err(silent.into()),
                (StatusCode::TOO_MANY_REQUESTS, _) => Err(Undecided::Starting.into()),
                (ready, _) if ready.is_server_error() => Err(Undecided::Starting.into()),
                (ready, Some(again)) if ready.is_success() => server.oneshot(again).await,
                _ => Ok(answer),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// What becomes of a request to a server that says this of everything, and that of its readiness.
    async fn answer(says: u16, ready: u16) -> Result<u16, Undecided> {
        let server = tower::service_fn(move |request: Request<Body>| async move {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(if request.uri() == READY { ready } else { says }).unwrap();
            Ok::<_, BoxError>(response)
        });
        let doubting = Doubting { server, anonymous: server };
        let answer = doubting.oneshot(Request::new(Body::empty())).await;
        answer.map(|answer| answer.status().as_u16()).map_err(|error| *error.downcast().unwrap())
    }

    #[tokio::test]
    async fn a_refusal_is_believed_of_a_server_that_is_ready() {
        for ready in [429, 500, 503] {
            assert_eq!(answer(403, ready).await, Err(Undecided::Starting), "ready: {ready}");
        }
        assert_eq!(answer(403, 403).await, Err(Undecided::Silent));
        for ready in [200, 401, 404] {
            assert_eq!(answer(403, ready).await, Ok(403), "ready: {ready}");
        }
        for ready in [429, 500, 503] {
            assert_eq!(answer(401, ready).await, Err(Undecided::Starting), "ready: {ready}");
        }
        for ready in [401, 403] {
            assert_eq!(answer(401, ready).await, Err(Undecided::Unrecognised), "ready: {ready}");
        }
        assert_eq!(answer(401, 200).await, Ok(401));
        assert_eq!((answer(200, 500).await, answer(500, 200).await), (Ok(200), Ok(500)));
    }

    #[tokio::test]
    async fn who_is_not_recognised_asks_without_credentials() {
        let of = |says: u16| {
            tower::service_fn(move |_: Request<Body>| async move {
                let mut response = Response::new(());
                *response.status_mut() = StatusCode::from_u16(says).unwrap();
                Ok::<_, BoxError>(response)
            })
        };
        let doubting = Doubting { server: of(401), anonymous: of(500) };
        let error = doubting.oneshot(Request::new(Body::empty())).await.unwrap_err();
        assert_eq!(*error.downcast::<Undecided>().unwrap(), Undecided::Starting);
    }

    #[tokio::test]
    async fn a_server_that_became_ready_since_is_asked_once_more() {
        let ready = Arc::new(AtomicBool::new(false));
        let server = tower::service_fn(move |request: Request<Body>| {
            let ready = Arc::clone(&ready);
            async move {
                let asked = request.uri() == READY;
                let was = ready.fetch_or(asked, Ordering::SeqCst);
                let mut response = Response::new(());
                *response.status_mut() = if asked || was { StatusCode::OK } else { StatusCode::FORBIDDEN };
                Ok::<_, BoxError>(response)
            }
        });
        let doubting = Doubting { server: server.clone(), anonymous: server };
        let answer = doubting.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
}
