//! What can be typed.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::failure::{Failure, one_line};
use crate::output::Format;
use crate::register::probe::{Interval, ProbeUrl};

/// Processes register what they serve, others find it and hear of changes at once.
///
/// The backend is chosen by DYN_DISCOVERY_BACKEND; see `discovery backends`.
#[derive(Debug, Parser)]
#[command(name = "discovery", version)]
pub(crate) struct Arguments {
    /// Use this backend, whatever DYN_DISCOVERY_BACKEND says.
    #[arg(long, global = true, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) backend: Option<String>,

    /// Log to standard error: -v what happens, -vv every detail. RUST_LOG chooses more exactly.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the backends of this program, and say which one is in force and why.
    Backends {
        #[command(flatten)]
        output: Output,
    },
    /// Register a record and hold it until told to stop.
    Register(Box<Register>),
    /// List the records that match a query.
    List {
        #[command(flatten)]
        query: Filter,
        #[command(flatten)]
        output: Output,
    },
    /// Show one record.
    Get {
        /// The record as `list` names it: KIND/PATH/INSTANCE, and /SUFFIX where it has one.
        #[arg(value_name = "KEY")]
        key: String,
        #[command(flatten)]
        output: Output,
    },
    /// Follow the records that match a query: a live table on a terminal, a line per change elsewhere.
    Watch {
        #[command(flatten)]
        query: Filter,
        #[command(flatten)]
        output: Output,
    },
    /// See workers register, die, move, freeze and drain, and a router that follows them.
    ///
    /// On the backend file unless --backend or DYN_DISCOVERY_BACKEND names etcd or kubernetes. On kubernetes pods roll, in a
    /// namespace of the demo's own on the cluster of KUBECONFIG.
    #[cfg(feature = "file")]
    Demo,
    /// Judge the backend by the contract, in a store of its own that is gone afterwards.
    #[cfg(feature = "conformance")]
    Conformance(crate::conformance::Arguments),
    /// Look for what keeps discovery from working here.
    Doctor {
        #[command(flatten)]
        output: Output,
    },
    /// Say why a Kubernetes pod is discovered, or at which link it fails and what to do.
    #[cfg(feature = "kubernetes")]
    Explain(crate::explain::Explain),
    /// Make the Deployments and StatefulSets of a Kubernetes manifest discoverable.
    Inject(crate::inject::Inject),
    /// Print the Kubernetes resource definition that discovery stores its records in.
    Crd,
    /// Print the ServiceAccount, Role and RoleBinding that pods need, and the policy that keeps each to its own records.
    Rbac(crate::rbac::Rbac),
    /// Print the completions of a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    #[cfg(feature = "file")]
    #[command(hide = true)]
    DemoWorker(crate::demo::WorkerArguments),
    #[cfg(feature = "file")]
    #[command(hide = true)]
    DemoRouter(crate::demo::RouterArguments),
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// What the output looks like.
    #[arg(short, long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// A kind and leading segments: endpoint, endpoint/dynamo, endpoint/dynamo/backend. Without it, everything.
    #[arg(value_name = "QUERY", default_value = "", hide_default_value = true)]
    pub(crate) text: String,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Register {
    #[command(subcommand)]
    pub(crate) known: Option<KnownKind>,
    #[command(flatten)]
    pub(crate) any: Option<AnyKind>,
    #[command(flatten)]
    pub(crate) hold: Hold,
}

/// Any kind at all.
#[derive(Debug, Args)]
pub(crate) struct AnyKind {
    /// The kind: letters, digits, `_` and `-`.
    #[arg(long)]
    pub(crate) kind: String,
    /// The path, segments separated by slashes.
    #[arg(long, value_name = "A/B/C")]
    pub(crate) path: String,
    /// A file that holds the value as JSON, or - for standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) value: PathBuf,
    /// Tells several records of one instance at one path apart.
    #[arg(long)]
    pub(crate) suffix: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KnownKind {
    /// Where an instance can be reached.
    Endpoint {
        /// The endpoint: NAMESPACE/COMPONENT/ENDPOINT.
        #[arg(value_name = "NAMESPACE/COMPONENT/ENDPOINT")]
        path: String,
        #[command(flatten)]
        transport: EndpointTransport,
        /// What it computes on.
        #[arg(long, value_enum)]
        device: Option<Device>,
        /// How it wants requests encoded.
        #[arg(long, value_enum)]
        codec: Option<Codec>,
        #[command(flatten)]
        hold: Hold,
    },
    /// A model, or an adapter, that an instance serves at an endpoint.
    Model {
        /// The endpoint: NAMESPACE/COMPONENT/ENDPOINT.
        #[arg(value_name = "NAMESPACE/COMPONENT/ENDPOINT")]
        path: String,
        /// A file that holds the model's card as JSON, or - for standard input.
        #[arg(long, value_name = "FILE")]
        card: PathBuf,
        /// Registers an adapter, under this suffix.
        #[arg(long)]
        suffix: Option<String>,
        #[command(flatten)]
        hold: Hold,
    },
    /// A publisher's address for one topic.
    EventChannel {
        #[command(flatten)]
        topic: Topic,
        #[command(flatten)]
        transport: ChannelTransport,
        #[command(flatten)]
        hold: Hold,
    },
    /// What a publisher of one topic is the source of.
    EventSource {
        #[command(flatten)]
        topic: Topic,
        /// A file that holds the description as JSON, or - for standard input.
        #[arg(long, value_name = "FILE")]
        metadata: PathBuf,
        #[command(flatten)]
        hold: Hold,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct EndpointTransport {
    /// Reached directly, at HOST:PORT or HOST:PORT/NAME.
    #[arg(long, value_name = "ADDR", value_parser = tcp_address)]
    pub(crate) tcp: Option<String>,
    /// Reached through NATS, by this subject.
    #[arg(long, value_name = "SUBJECT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) nats: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ChannelTransport {
    /// Sent by ZeroMQ from this endpoint, as tcp://HOST:PORT.
    #[arg(long, value_name = "ENDPOINT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) zmq: Option<String>,
    /// Sent through NATS, under subjects that start so.
    #[arg(long, value_name = "PREFIX", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) nats: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Topic {
    /// Whom the events are about: NAMESPACE, NAMESPACE/COMPONENT or NAMESPACE/COMPONENT/ENDPOINT.
    #[arg(value_name = "SCOPE")]
    pub(crate) scope: String,
    /// The topic.
    #[arg(long)]
    pub(crate) topic: String,
    /// The publisher's own id in hexadecimal. Without it, one is made up.
    #[arg(long, value_name = "HEX")]
    pub(crate) publisher: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Hold {
    /// Register while this answers 2xx or 3xx, withdraw while it does not: http://HOST:PORT/PATH.
    #[arg(long, value_name = "URL")]
    pub(crate) probe: Option<ProbeUrl>,
    /// Seconds between two probes.
    #[arg(long, value_name = "SECONDS", default_value = "2", requires = "probe")]
    pub(crate) probe_interval: Interval,
    /// Serve /health and /live there, for a probe of this process: /health is 200 while the record is stored. Without
    /// it, DYN_SYSTEM_PORT says where, if it is set.
    #[arg(long, value_name = "HOST:PORT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) health: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Device {
    Cpu,
    Cuda,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Codec {
    Json,
    Msgpack,
}

/// An address as requests are sent to: HOST:PORT, and a name behind it.
fn tcp_address(text: &str) -> Result<String, &'static str> {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    let is_host = |host: &str| match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control() || ":[]@".contains(c)),
    };
    match address.rsplit_once(':') {
        Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(text.to_owned()),
        _ => Err("write HOST:PORT or HOST:PORT/NAME, an IPv6 address in brackets, the port from 1 to 65535"),
    }
}

/// Reads the arguments. `Ok(None)`: help or the version was asked for, and has been shown.
pub(crate) fn parse() -> Result<Option<Arguments>, Failure> {
    let error = match Arguments::try_parse() {
        Ok(arguments) => return Ok(Some(arguments)),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            error.print().map_err(Failure::output)?;
            Ok(None)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(Failure::usage("a command is missing: see `discovery --help`"))
        }
        _ => Err(Failure::usage(usage(&error.to_string()))),
    }
}

/// clap's message without its layout; of its usage block only the command.
fn usage(rendered: &str) -> String {
    let told = rendered.split("\nUsage:").next().unwrap_or(rendered);
    let told = told.split("\nFor more information").next().unwrap_or(told);
    let parts: Vec<_> = told.trim_start_matches("error: ").trim().split("\n\n").map(one_line).collect();
    let usage = rendered.split("\nUsage:").nth(1).unwrap_or("discovery");
    let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
    let command: Vec<_> = usage.split_whitespace().take_while(is_name).collect();
    format!("{}: see `{} --help`", parts.join("; "), command.join(" "))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for text in ["h:1", "10.0.0.5:9000", "[::1]:9000", "worker-0.workers:65535/a/b", "h:1/", "name_1:80"] {
            assert_eq!(tcp_address(text).as_deref(), Ok(text));
        }
        for text in [
            "",
            "x",
            "h",
            ":1",
            "h:",
            "h:0",
            "h:65536",
            "h:x",
            "::1:9000",
            "[::1]",
            "[h]:1",
            "a b:1",
            "/x",
            "http://h:1",
        ] {
            assert!(tcp_address(text).is_err_and(|told| told.contains("HOST:PORT")), "{text}");
        }
    }

    fn refused(line: &str) -> String {
        usage(&Arguments::try_parse_from(line.split(' ')).unwrap_err().to_string())
    }

    #[test]
    fn usage_errors_are_one_line() {
        for line in [
            "discovery list --nope",
            "discovery register",
            "discovery register endpoint a/b/c",
            "discovery register endpoint a/b/c --tcp h:1 --nats s",
            "discovery register --kind cache",
            "discovery register endpoint a/b/c --tcp h:1 --probe https://h/",
            "discovery wacth",
        ] {
            let told = refused(line);
            assert!(!told.contains('\n') && told.contains(": see `discovery"), "{line}: {told}");
        }
        assert!(refused("discovery list --nope").ends_with("see `discovery list --help`"));
        assert!(refused("discovery wacth").contains("'watch'"), "{}", refused("discovery wacth"));
    }

    #[test]
    fn the_forms_of_register_are_told_apart() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("discovery register endpoint a/b/c --tcp h:1 --probe http://h:1/x --backend file").is_ok());
        assert!(parse("discovery register --kind cache --path a/b --value - --probe http://h:1/x").is_ok());
        assert!(parse("discovery register --kind cache endpoint a/b/c --tcp h:1").is_err());
    }
}
