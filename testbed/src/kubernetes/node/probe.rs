//! Is a container ready, and is it alive? What its manifest has asked.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use crate::http;

/// How somebody is asked over the network.
#[derive(Clone, Debug)]
pub(super) enum Question {
    Http(SocketAddr, String),
    Tcp(SocketAddr),
}

impl Question {
    pub(super) fn http(get: &HTTPGetAction, container: &Container, address: Ipv4Addr) -> Result<Self, String> {
        if get.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") {
            return Err("HTTPS is not played here".to_owned());
        }
        let host = match &get.host {
            Some(host) => host.parse().map_err(|_| format!("the host {host} is no address"))?,
            None => IpAddr::from(address),
        };
        let path = get.path.clone().unwrap_or_else(|| "/".to_owned());
        Ok(Self::Http((host, port(&get.port, container)?).into(), path))
    }

    /// Cancel-safe.
    pub(super) async fn ask(&self) -> io::Result<()> {
        match self {
            Self::Http(address, path) => match http::get(*address, path).await? {
                200..400 => Ok(()),
                status => Err(io::Error::other(format!("{path} is answered {status}"))),
            },
            Self::Tcp(address) => TcpStream::connect(address).await.map(drop),
        }
    }
}

fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = |port: &&_| matches!(port, k8s_openapi::api::core::v1::ContainerPort { name: Some(own), .. } if own == name);
            container.ports.iter().flatten().find(named).map(|port| port.container_port)
        }
    };
    number.and_then(|number| number.try_into().ok()).ok_or_else(|| format!("there is no port {port:?}"))
}

/// One probe of one process.
#[derive(Debug)]
pub(super) struct Prober {
    question: Question,
    clock: Interval,
    patience: Duration,
    successes: u32,
    failures: u32,
}

impl Prober {
    /// For a process that starts now. Answers what is wrong with the manifest where that is so.
    pub(super) fn new(probe: &Probe, container: &Container, address: Ipv4Addr) -> Result<Self, String> {
        let question = match (&probe.http_get, &probe.tcp_socket) {
            (Some(get), _) => Question::http(get, container, address)?,
            (None, Some(socket)) => Question::Tcp((address, port(&socket.port, container)?).into()),
            (None, None) => return Err("a probe of this sort is not played here".to_owned()),
        };
        let at_least_1 = |number: Option<i32>, default: u32| {
            number.and_then(|n| n.try_into().ok()).filter(|&n| n > 0).unwrap_or(default)
        };
        let seconds = |number, default| Duration::from_secs(at_least_1(number, default).into());
        let delay = probe.initial_delay_seconds.and_then(|delay| delay.try_into().ok()).unwrap_or(0);
        let mut clock = interval_at(Instant::now() + Duration::from_secs(delay), seconds(probe.period_seconds, 10));
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            question,
            clock,
            patience: seconds(probe.timeout_seconds, 1),
            successes: at_least_1(probe.success_threshold, 1),
            failures: at_least_1(probe.failure_threshold, 3),
        })
    }

    /// Waits until it was answered so, as often in a row as the manifest says. Answers why it was not well last.
    /// Cancelled, it forgets what it has counted.
    pub(super) async fn until(&mut self, well: bool) -> String {
        let needed = if well { self.successes } else { self.failures };
        let (mut in_a_row, mut cause) = (0, String::new());
        while in_a_row < needed {
            self.clock.tick().await;
            let answer = match timeout(self.patience, self.question.ask()).await {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    cause = error.to_string();
                    false
                }
                Err(_) => {
                    cause = format!("no answer in {:?}", self.patience);
                    false
                }
            };
            in_a_row = if answer == well { in_a_row + 1 } else { 0 };
        }
        cause
    }
}
