//! A refusal is believed of a server that is ready. One that starts answers before it has read the roles, and refuses
//! whatever they allow.

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use kube::client::Body;
use tokio::time::sleep;
use tower::{Service, ServiceExt};

/// Every identity may ask for it, also one that may do nothing (`--authorization-always-allow-paths`).
const READY: &str = "/readyz";
/// How often a ready server is asked again for what it refused, and after how long: it may be ready before all its roles are.
const REPEATS: usize = 5;
const PAUSE: Duration = Duration::from_millis(300);

/// A way to the API server that asks one that refuses something whether it is ready. If it says no, that is the answer,
/// as 429: nothing was done, and it can be tried again. If it says yes it may have become so since: what it goes on
/// refusing is refused.
#[derive(Clone, Debug)]
pub(crate) struct Doubting<S>(pub(crate) S);

impl<S, B> Service<Request<Body>> for Doubting<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Send,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.0.clone();
        let (parts, body) = request.into_parts();
        let copy = body.try_clone();
        let mut again = (0..REPEATS).map_while({
            let parts = parts.clone();
            move |_| Some(Request::from_parts(parts.clone(), copy.as_ref()?.try_clone()?))
        });
        let answer = self.0.call(Request::from_parts(parts, body));
        async move {
            let mut answer = answer.await?;
            while answer.status() == StatusCode::FORBIDDEN {
                let mut ask = Request::new(Body::empty());
                *ask.uri_mut() = http::Uri::from_static(READY);
                let mut state = server.clone().oneshot(ask).await?;
                if state.status().is_server_error() {
                    *state.status_mut() = StatusCode::TOO_MANY_REQUESTS;
                    return Ok(state);
                }
                let Some(again) = again.next().filter(|_| state.status().is_success()) else { break };
                sleep(PAUSE).await;
                answer = server.clone().oneshot(again).await?;
            }
            Ok(answer)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// What a server answers that says this of everything, and that of its readiness.
    async fn answer(says: u16, ready: u16) -> u16 {
        let server = tower::service_fn(move |request: Request<Body>| async move {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(if request.uri() == READY { ready } else { says }).unwrap();
            Ok::<_, Infallible>(response)
        });
        Doubting(server).oneshot(Request::new(Body::empty())).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn a_refusal_of_a_server_that_starts_is_none() {
        assert_eq!(answer(403, 500).await, 429);
        for ready in [200, 401, 403, 404] {
            assert_eq!(answer(403, ready).await, 403, "ready: {ready}");
        }
        assert_eq!((answer(200, 500).await, answer(500, 200).await), (200, 500));
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
                Ok::<_, Infallible>(response)
            }
        });
        let answer = Doubting(server).oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
}
