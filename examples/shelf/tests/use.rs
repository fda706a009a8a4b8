//! The shelf as services use it.

use std::time::Duration;

use discovery_core::{Discovery, Environment, ErrorKind, Path, Query, Record, Result};
use serde::{Deserialize, Serialize};
use shelf::SHELF_VARIABLE;

#[derive(Serialize, Deserialize)]
struct Worker {
    pool: String,
    address: String,
}

impl Record for Worker {
    const KIND: &'static str = "worker";

    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.pool])
    }
}

#[tokio::test]
async fn a_worker_is_found() -> Result<()> {
    let environment: Environment = [("DYN_DISCOVERY_BACKEND", "shelf")].into_iter().collect();
    let server = Discovery::builder().environment(environment.clone()).build().await?;
    let client = Discovery::builder().environment(environment).build().await?;
    assert_eq!(client.backend_name(), "shelf");

    let _mine = server.register(Worker { pool: "a".to_owned(), address: "10.0.0.5:9000".to_owned() }).await?;
    let workers = client.list::<Worker>(Query::all()).await?;
    assert_eq!(workers.iter().next().map(|worker| worker.address.as_str()), Some("10.0.0.5:9000"));
    assert!(server.shutdown(Duration::from_secs(5)).await.is_clean());
    Ok(())
}

#[tokio::test]
async fn a_malformed_setting_is_told() {
    let settings = [("DYN_DISCOVERY_BACKEND", "shelf"), (SHELF_VARIABLE, "no name")];
    let built = Discovery::builder().environment(settings.into_iter().collect()).build().await;
    assert_eq!(built.err().map(|error| error.kind()), Some(ErrorKind::InvalidConfig));
}
