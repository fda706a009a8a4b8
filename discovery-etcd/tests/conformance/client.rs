//! The raw client, for what the owners' backends do not do themselves: users, leases, leadership.

use std::time::Duration;

use discovery_core::{Error, ErrorKind, Result};
use discovery_etcd::Credentials;
use discovery_testbed::Etcd;
use etcd_client::{ConnectOptions, Permission};
use tokio::time::timeout;

use super::failed;

pub(super) use etcd_client::Client;

/// Owners of numbers below this have a user each, the others none.
const USERS: usize = 32;
/// What a user needs to be an owner.
const ROLE: &str = "owner";
const ROOT: &str = "root";
const PASSWORD: &str = "conformance";
/// Far beyond what a server takes that runs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to one member, as the user who may do everything where users are demanded.
pub(super) async fn connect(endpoint: String, users: bool) -> Result<Client> {
    let options = ConnectOptions::new().with_connect_timeout(PATIENCE).with_timeout(PATIENCE);
    let options = if users { options.with_user(ROOT, PASSWORD) } else { options };
    Client::connect([endpoint], Some(options)).await.map_err(failed)
}

fn user(n: usize) -> String {
    format!("owner-{n}")
}

/// What the n-th owner signs in with where users are demanded.
pub(super) fn credentials(n: usize) -> Option<Credentials> {
    (n < USERS).then(|| Credentials { username: user(n), password: PASSWORD.to_owned() })
}

/// Makes the users, and demands them from now on.
pub(super) async fn demand_users(client: &mut Client) -> Result<()> {
    let everything = || Permission::read_write("").with_all_keys();
    client.role_add(ROLE).await.map_err(failed)?;
    client.role_grant_permission(ROLE, everything()).await.map_err(failed)?;
    for n in 0..USERS {
        client.user_add(user(n), PASSWORD, None).await.map_err(failed)?;
        client.user_grant_role(user(n), ROLE).await.map_err(failed)?;
    }
    client.user_add(ROOT, PASSWORD, None).await.map_err(failed)?;
    client.user_grant_role(ROOT, ROOT).await.map_err(failed)?;
    client.auth_enable().await.map_err(failed)?;
    Ok(())
}

/// Whether the n-th owner may do anything.
pub(super) async fn permit(client: &mut Client, n: usize, may: bool) -> Result<()> {
    if n >= USERS {
        return Err(Error::new(ErrorKind::Unsupported, "this owner has no user of its own"));
    }
    if may {
        client.user_grant_role(user(n), ROLE).await.map_err(failed)?;
    } else {
        client.user_revoke_role(user(n), ROLE).await.map_err(failed)?;
    }
    Ok(())
}

/// A member's own id, and that of the leader it knows.
async fn ids(member: &Etcd, users: bool) -> Result<(u64, u64)> {
    let status = connect(member.endpoint(), users).await?.status().await.map_err(failed)?;
    Ok((status.header().map_or(0, etcd_client::ResponseHeader::member_id), status.leader()))
}

/// The index of the member that leads.
pub(super) async fn leader(members: &[Etcd], users: bool) -> Result<usize> {
    let found = timeout(PATIENCE, async {
        loop {
            for (index, member) in members.iter().enumerate() {
                if let Ok((own, leader)) = ids(member, users).await
                    && own == leader
                {
                    return index;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.map_err(|_| Error::new(ErrorKind::Unavailable, "no member leads"))
}

/// Makes the member of this index lead.
pub(super) async fn lead(members: &[Etcd], users: bool, index: usize) -> Result<()> {
    let from = leader(members, users).await?;
    if from != index {
        let (id, _) = ids(&members[index], users).await?;
        connect(members[from].endpoint(), users).await?.move_leader(id).await.map_err(failed)?;
    }
    Ok(())
}
