//! Renewing a lease over one stream that stays open.

use std::time::Duration;

use etcd_client::{Error as EtcdError, LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::timeout;

use crate::fault::{Fault, is_of_token};
use crate::link::{Attempt, Link, Wire};
use crate::store::CALL;

/// An open stream of renewals.
pub(crate) struct Keeper {
    wire: Wire,
    requests: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl Keeper {
    /// Renews once, over `open` or else over a new stream, and answers the stream to use next and how long the lease lives
    /// from when this was called; `None` for as long as it was granted for. After an error the stream is not used again.
    pub(crate) async fn renew(open: Option<Self>, link: &Link, lease: i64) -> Result<(Self, Option<Duration>), Fault> {
        let open = open.filter(|keeper| link.trusts(&keeper.wire));
        let wire = match &open {
            Some(keeper) => keeper.wire.clone(),
            None => link.wire().await?,
        };
        let attempt = Attempt::new(link, &wire);
        let exchange = async {
            if let Some(keeper) = open {
                match keeper.exchange().await {
                    // A stream keeps the token that it was opened with. The client signs in anew where one is opened.
                    Err(error) if is_of_token(&error) => {}
                    outcome => return outcome,
                }
            }
            // The client reads the first answer itself, and keeps to itself how long the lease lives.
            let (requests, answers) = wire.lease.clone().keep_alive(lease).await?;
            Ok((Self { wire: wire.clone(), requests, answers }, None))
        };
        let outcome = timeout(CALL, exchange).await;
        attempt.ended();
        let fault = match outcome {
            Ok(Ok(renewed)) => return Ok(renewed),
            Ok(Err(error)) => wire.failed(&error),
            Err(_) => Fault::silent(&wire.endpoint, CALL),
        };
        if fault.broken {
            link.leave(&wire);
        }
        Err(fault)
    }

    async fn exchange(mut self) -> Result<(Self, Option<Duration>), EtcdError> {
        self.requests.keep_alive().await?;
        match self.answers.message().await? {
            Some(answer) => match u64::try_from(answer.ttl()) {
                Ok(seconds) if seconds > 0 => Ok((self, Some(Duration::from_secs(seconds)))),
                _ => Err(EtcdError::LeaseKeepAliveError("lease not found".to_owned())),
            },
            None => Err(EtcdError::LeaseKeepAliveError("the stream ended".to_owned())),
        }
    }
}
