//! Real servers for tests and for people: etcd, alone or three of them, Kubernetes control planes, and a network that
//! fails when it is told to.
//!
//! ```no_run
//! use discovery_testbed::{Etcd, Proxy};
//!
//! # async fn test() -> discovery_testbed::Result<()> {
//! let etcd = Etcd::start().await?; // ports, data and a log of its own
//! let network = Proxy::to_port(etcd.port())?; // clients connect to network.port()
//! network.stall(); // half-open: nothing passes, and no connection ends
//! network.heal();
//! etcd.pause()?;
//! etcd.resume()?;
//! etcd.kill().await?;
//! etcd.restart().await?; // same ports, same data
//! etcd.wipe().await?; // same ports, no data
//! etcd.ctl(["put", "key", "value"]).await?;
//! # Ok(())
//! # }
//! ```
//!
//! ```no_run
//! use discovery_testbed::{Cluster, ControlPlane, ControlPlaneOptions, Node, NodeOptions};
//!
//! # async fn test() -> discovery_testbed::Result<()> {
//! let shared = Cluster::shared(ControlPlaneOptions::default).await?; // KUBECONFIG's, or one for all tests of a process
//! let namespace = shared.namespace("my-test").await?;
//! shared.kubectl(["get", "pods", "--namespace", &namespace]).await?;
//! let (network, kubeconfig) = shared.proxy().await?; // for one client
//! network.cut();
//!
//! let plane = ControlPlane::start().await?; // to be broken; everything of a cluster can be done to it too
//! plane.api().kill().await?;
//! plane.restart_api().await?;
//! plane.forget().await?; // what was watched before is answered 410
//! let images = [("worker:1".to_owned(), "target/debug/worker".into())].into();
//! let options = NodeOptions { name: "node".to_owned(), images, ..NodeOptions::default() };
//! let node = Node::start(&plane, options).await?; // pods run from now on, as processes of this machine
//! # Ok(())
//! # }
//! ```
//!
//! # Where the servers come from
//! Programs in the directory that `KUBEBUILDER_ASSETS` names, or else on `PATH`, are used; an etcd older than 3.5.13 is
//! refused. What is not there is built by
//! Go from the module that this crate's directory is too, into the target directory, once for all tests: about ten
//! minutes on two cores where nothing is cached, seconds after. `cargo xtask test` does it before the first test. Without
//! Go either, starting a server is an error whose line says what to install; a test that needs one fails.
//!
//! `redis-server` is Debian's: where it is not on `PATH`, `apt-get` fetches its packages, and what they need and the system
//! lacks, into the target directory, where they are unpacked; nothing is installed, and no root is needed. Where that cannot
//! be done, the tests that need it say so and count as ignored.
//!
//! # How they end
//! Servers listen on 127.0.0.1 only, and pods' processes at addresses on the loopback interface. All end with the process
//! that started them, by whatever that ends: a shell over each holds a pipe that closes then, and kills it, also when it is
//! stopped. Those of [`standing`] are held by a process in the background.

mod captured;
mod client;
mod debian;
mod error;
mod etcd;
mod go;
mod http;
mod kubernetes;
mod namespace;
mod network;
mod once;
mod port;
mod program;
mod proxy;
mod server;
pub mod sides;
pub mod standing;
mod supervised;
mod tls;

pub use self::captured::CapturedLog;
pub use self::error::{Error, Result};
pub use self::etcd::{Etcd, EtcdCluster, EtcdOptions, EtcdTls};
pub use self::kubernetes::{ApiServer, Cluster, ControlPlane, ControlPlaneOptions, Kubeconfig, Node, NodeOptions};
pub use self::namespace::ran_in_own_network;
pub use self::network::{Network, Way};
pub use self::once::target_directory;
pub use self::program::Program;
pub use self::proxy::{Direction, Proxy};
pub use self::tls::{Authority, Certificate};
