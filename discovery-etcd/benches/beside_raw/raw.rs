//! etcd's client as one uses it directly.

use discovery_testbed::sides;
use etcd_client::{Client, Txn, TxnOp};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::Outcome;
use crate::records::stored;

pub(crate) async fn client(endpoint: &str) -> Outcome<Client> {
    Ok(Client::connect([endpoint], None).await?)
}

/// Puts endpoints with these numbers, so many at a time.
pub(crate) async fn put(client: &Client, numbers: impl Iterator<Item = usize>, at_once: usize) -> Outcome {
    stream::iter(numbers)
        .map(|number| {
            let mut kv = client.kv_client();
            async move {
                let (key, value) = stored(number, sides::now())?;
                kv.put(key, value, None).await?;
                Ok::<_, Box<dyn std::error::Error>>(())
            }
        })
        .buffer_unordered(at_once)
        .try_collect()
        .await
}

/// Puts the endpoints below `count`, in transactions.
pub(crate) async fn load(client: &Client, count: usize) -> Outcome {
    let mut kv = client.kv_client();
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(100) {
        let puts =
            some.iter().map(|&number| stored(number, sides::now()).map(|(key, value)| TxnOp::put(key, value, None)));
        kv.txn(Txn::new().and_then(puts.collect::<Outcome<Vec<_>>>()?)).await?;
    }
    Ok(())
}
