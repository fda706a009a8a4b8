//! The settings, from an injected environment.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use discovery_core::{Environment, Error, ErrorKind, Result};
use tonic::transport::Uri;

/// The variable that lists the endpoints, separated by commas.
pub const ENDPOINTS_VARIABLE: &str = "ETCD_ENDPOINTS";
/// The variable for the time to live of sessions, in seconds.
pub const TTL_VARIABLE: &str = "ETCD_LEASE_TTL";
/// The variable for the shortest time to live that sessions have, in seconds.
pub const MIN_TTL_VARIABLE: &str = "DYN_DISCOVERY_ETCD_MIN_TTL";
/// The variable that makes connecting wait for the store, in seconds.
pub const STARTUP_VARIABLE: &str = "ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS";
/// The variable for the seconds between two HTTP/2 pings; 0 for none.
pub const KEEPALIVE_INTERVAL_VARIABLE: &str = "ETCD_KEEPALIVE_INTERVAL_SECONDS";
/// The variable for the seconds that a ping may remain unanswered.
pub const KEEPALIVE_TIMEOUT_VARIABLE: &str = "ETCD_KEEPALIVE_TIMEOUT_SECONDS";
/// The variable for the user's name.
pub const USERNAME_VARIABLE: &str = "ETCD_AUTH_USERNAME";
/// The variable for the user's password.
pub const PASSWORD_VARIABLE: &str = "ETCD_AUTH_PASSWORD";
/// The variable for the authority that signed the servers' certificates: PEM, or the path of a file.
pub const CA_VARIABLE: &str = "ETCD_AUTH_CA";
/// The variable for this client's certificate: PEM, or the path of a file.
pub const CERTIFICATE_VARIABLE: &str = "ETCD_AUTH_CLIENT_CERT";
/// The variable for this client's private key: PEM, or the path of a file.
pub const KEY_VARIABLE: &str = "ETCD_AUTH_CLIENT_KEY";
/// The variable for what every key starts with before Dynamo's layout: outside of that layout, for isolation.
pub const PREFIX_VARIABLE: &str = "DYN_DISCOVERY_ETCD_PREFIX";

const DEFAULT_ENDPOINT: &str = "localhost:2379";
/// Where an etcd listens for clients unless it is told otherwise.
pub(crate) const DEFAULT_PORT: u16 = 2379;
/// Short enough that a dead process goes soon, long enough to outlast the election of a new leader three times over.
const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// The smallest time to live that etcd grants with its default election time-out of one second: one and a half of it,
/// in whole seconds.
const DEFAULT_MIN_TTL: Duration = Duration::from_secs(2);
const DEFAULT_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));
/// etcd ends connections that ping more often: `GRPCKeepAliveMinTime`, 5 s by default.
const SHORTEST_KEEPALIVE: Duration = Duration::from_secs(5);
/// The largest file that is read for a certificate or a key, in bytes: all authorities of a system are a quarter of it.
const LARGEST_FILE: u64 = 1 << 20;
/// The longest path that errors repeat.
const LONGEST_PATH: usize = 255;

/// A certificate or a key.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// The text itself.
    Text(String),
    /// A file, read anew for each connection, so that certificates can be renewed in place. A regular one, or a link to one, of
    /// 1 MiB at most.
    File(PathBuf),
}

impl Pem {
    fn parse(value: &str) -> Self {
        // Tools write words before the first block.
        if value.contains("-----BEGIN") { Self::Text(value.to_owned()) } else { Self::File(PathBuf::from(value)) }
    }

    /// The text. Blocks for a file.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where the file cannot be read, or where there is no PEM block of `label`.
    pub(crate) fn read(&self, variable: &str, label: &str) -> Result<String> {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::File(path) => regular(path).map_err(|error| {
                let message = match shown(path) {
                    Some(path) => format!("{variable}: cannot read {path}: name a readable PEM file"),
                    None => format!("{variable} is neither PEM text nor the path of a readable file: give one of them"),
                };
                Error::new(ErrorKind::InvalidConfig, message).with_source(error)
            })?,
        };
        let found = text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(label));
        if !found {
            let message = format!("{variable} holds no PEM block of a {}: correct it", label.to_lowercase());
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        Ok(text)
    }
}

/// The text of a file that has an end. What it is is asked before it is opened, which waits for a writer where it is a pipe.
fn regular(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(text)
}

impl fmt::Debug for Pem {
    /// Never the text, which may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(..)"),
            Self::File(path) => f.debug_tuple("File").field(&shown(path).unwrap_or("..")).finish(),
        }
    }
}

/// A path that may be told. What was meant as one may be a key by mistake: a damaged PEM, or one in base64, which has neither
/// dots nor a slash at its beginning.
fn shown(path: &Path) -> Option<&str> {
    let text = path.to_str().filter(|text| text.len() <= LONGEST_PATH)?;
    let plain = !text.chars().any(|c| c.is_whitespace() || c.is_control());
    (plain && (text.starts_with('/') || text.contains('.'))).then_some(text)
}

/// A user's name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    /// Never the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What TLS needs beside the system's own authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authority to trust, in the place of the system's.
    pub ca: Option<Pem>,
    /// This client's certificate and private key, for servers that ask for them.
    pub identity: Option<(Pem, Pem)>,
}

/// Where etcd is and how to talk with it. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The members' URLs, each with its scheme.
    pub endpoints: Vec<String>,
    /// The time to live where a session asks for none, in whole seconds.
    pub ttl: Duration,
    /// The shortest time to live that a session gets, in whole seconds. No etcd grants less than one and a half of its
    /// election time-out: where that is above the default of one second, this is to be set accordingly.
    pub min_ttl: Duration,
    /// What stands before `v1/` in every key: empty, or something that ends with a slash.
    pub prefix: String,
    /// How long connecting waits for the store at most; `None` to connect with the first operation.
    pub startup: Option<Duration>,
    /// Between two HTTP/2 pings, and how long one may remain unanswered; `None` for no pings.
    pub keepalive: Option<(Duration, Duration)>,
    /// The user, where the store asks for one.
    pub credentials: Option<Credentials>,
    /// For endpoints with `https`.
    pub tls: Tls,
}

impl fmt::Debug for Config {
    /// A URL that holds a user is one that a program gave by mistake.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |url: &String| if url.contains('@') { "..".to_owned() } else { url.clone() };
        f.debug_struct("Config")
            .field("endpoints", &self.endpoints.iter().map(shown).collect::<Vec<_>>())
            .field("ttl", &self.ttl)
            .field("min_ttl", &self.min_ttl)
            .field("prefix", &self.prefix)
            .field("startup", &self.startup)
            .field("keepalive", &self.keepalive)
            .field("credentials", &self.credentials)
            .field("tls", &self.tls)
            .finish()
    }
}

impl Config {
    /// A store at `endpoints`, everything else as where no variable is set.
    pub fn new<S: Into<String>>(endpoints: impl IntoIterator<Item = S>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ttl: DEFAULT_TTL,
            min_ttl: DEFAULT_MIN_TTL,
            prefix: String::new(),
            startup: None,
            keepalive: Some(DEFAULT_KEEPALIVE),
            credentials: None,
            tls: Tls::default(),
        }
    }

    /// [`ErrorKind::InvalidConfig`] without endpoints, or with one that has no scheme, or whose URL holds a user: no error
    /// repeats that.
    pub(crate) fn check(&self) -> Result<()> {
        if self.endpoints.is_empty() {
            return Err(invalid("no endpoint is given: name one".to_owned()));
        }
        if let Some(index) = self.endpoints.iter().position(|url| url.contains('@')) {
            return Err(holds_a_user(index));
        }
        match self.endpoints.iter().find(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            Some(bare) => Err(invalid(format!("the endpoint {bare:?} has no scheme: write http://{bare}, or https"))),
            None => Ok(()),
        }
    }

    /// Reads the variables that the crate's documentation lists, and the files that they name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for what is malformed, contradictory or cannot be read, naming the variable.
    pub fn from_environment(environment: &Environment) -> Result<Self> {
        let pem = |variable| Ok::<_, Error>(environment.get(variable)?.map(Pem::parse));
        let identity = match (pem(CERTIFICATE_VARIABLE)?, pem(KEY_VARIABLE)?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(invalid(format!("{CERTIFICATE_VARIABLE} and {KEY_VARIABLE} go together: set both"))),
        };
        let tls = Tls { ca: pem(CA_VARIABLE)?, identity };
        tls.read()?;
        let credentials = match (environment.get(USERNAME_VARIABLE)?, environment.get(PASSWORD_VARIABLE)?) {
            (Some(username), Some(password)) => {
                Some(Credentials { username: username.to_owned(), password: password.to_owned() })
            }
            (None, None) => None,
            _ => return Err(invalid(format!("{USERNAME_VARIABLE} and {PASSWORD_VARIABLE} go together: set both"))),
        };
        let secure = tls != Tls::default();
        let endpoints = endpoints(environment.get(ENDPOINTS_VARIABLE)?.unwrap_or(DEFAULT_ENDPOINT), secure)?;
        Ok(Self {
            endpoints,
            ttl: whole_seconds(environment.seconds(TTL_VARIABLE)?.unwrap_or(DEFAULT_TTL)),
            min_ttl: whole_seconds(environment.seconds(MIN_TTL_VARIABLE)?.unwrap_or(DEFAULT_MIN_TTL)),
            prefix: prefix(environment.get(PREFIX_VARIABLE)?.unwrap_or_default())?,
            startup: environment.seconds(STARTUP_VARIABLE)?,
            keepalive: keepalive(environment)?,
            credentials,
            tls,
        })
    }
}

/// The texts that [`Tls`] names: of the authority, and of the certificate and its key.
pub(crate) type Material = (Option<String>, Option<(String, String)>);

impl Tls {
    /// Blocks for files.
    pub(crate) fn read(&self) -> Result<Material> {
        let ca = self.ca.as_ref().map(|pem| pem.read(CA_VARIABLE, "CERTIFICATE")).transpose()?;
        let identity = match &self.identity {
            Some((certificate, key)) => {
                Some((certificate.read(CERTIFICATE_VARIABLE, "CERTIFICATE")?, key.read(KEY_VARIABLE, "PRIVATE KEY")?))
            }
            None => None,
        };
        Ok((ca, identity))
    }
}

/// etcd counts leases in whole seconds.
pub(crate) fn whole_seconds(ttl: Duration) -> Duration {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    Duration::from_secs(seconds.max(1))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

fn holds_a_user(index: usize) -> Error {
    invalid(format!("item {index} of {ENDPOINTS_VARIABLE} holds a user: use {USERNAME_VARIABLE} instead"))
}

fn endpoints(list: &str, secure: bool) -> Result<Vec<String>> {
    let mut endpoints: Vec<String> = Vec::new();
    for (index, item) in list.split(',').map(str::trim).filter(|item| !item.is_empty()).enumerate() {
        // A URL may hold a password: neither is repeated.
        if item.contains('@') {
            return Err(holds_a_user(index));
        }
        let url = match item.split_once("://") {
            None if secure => format!("https://{item}"),
            None => format!("http://{item}"),
            Some(("https", _)) => item.to_owned(),
            Some(("http", _)) if secure => {
                let message = format!(
                    "{item} in {ENDPOINTS_VARIABLE} is not encrypted, and {CA_VARIABLE} or a client \
                                       certificate is set: write https"
                );
                return Err(invalid(message));
            }
            Some(("http", _)) => item.to_owned(),
            Some(_) => return Err(invalid(format!("{item} in {ENDPOINTS_VARIABLE} is no http or https URL"))),
        };
        let uri: Option<Uri> = url.parse().ok();
        let Some((uri, host)) = uri.as_ref().and_then(|uri| Some((uri, uri.host().filter(|host| !host.is_empty())?)))
        else {
            return Err(invalid(format!("{item:?} in {ENDPOINTS_VARIABLE} is no address: write http://HOST:PORT")));
        };
        // What its scheme stands for is not where an etcd listens. The reference goes there: nobody is to take it for 2379.
        if !item.contains("://") && uri.port().is_none() {
            let scheme = if secure { "https" } else { "http" };
            let advice = format!("write {scheme}://{host}:{DEFAULT_PORT}");
            return Err(invalid(format!("{item:?} in {ENDPOINTS_VARIABLE} names no port: {advice}")));
        }
        let url = url.trim_end_matches('/').to_owned();
        if !endpoints.contains(&url) {
            endpoints.push(url);
        }
    }
    if endpoints.is_empty() {
        return Err(invalid(format!("{ENDPOINTS_VARIABLE} names no endpoint: write http://HOST:PORT, or unset it")));
    }
    Ok(endpoints)
}

fn prefix(prefix: &str) -> Result<String> {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() {
        return Ok(String::new());
    }
    if prefix.chars().any(char::is_control) {
        return Err(invalid(format!("{PREFIX_VARIABLE} holds a control character: leave it out")));
    }
    if prefix.split('/').next() == Some(discovery_dynamo::layout::ROOT) {
        return Err(invalid(format!(
            "{PREFIX_VARIABLE} lies among the records of handles without one: call it otherwise"
        )));
    }
    Ok(format!("{prefix}/"))
}

fn keepalive(environment: &Environment) -> Result<Option<(Duration, Duration)>> {
    let off = environment.get(KEEPALIVE_INTERVAL_VARIABLE)?.is_some_and(|text| text.trim().parse() == Ok(0.0));
    if off {
        return Ok(None);
    }
    let interval = environment.seconds(KEEPALIVE_INTERVAL_VARIABLE)?.unwrap_or(DEFAULT_KEEPALIVE.0);
    let timeout = environment.seconds(KEEPALIVE_TIMEOUT_VARIABLE)?.unwrap_or(DEFAULT_KEEPALIVE.1);
    Ok(Some((interval.max(SHORTEST_KEEPALIVE), timeout)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<Config> {
        Config::from_environment(&variables.iter().copied().collect())
    }

    #[test]
    fn without_variables_there_is_one_endpoint_on_this_machine() {
        assert_eq!(config(&[]).unwrap(), Config::new(["http://localhost:2379"]));
    }

    #[test]
    fn endpoints_take_the_scheme_that_the_rest_asks_for() {
        let of = |list: &str| config(&[(ENDPOINTS_VARIABLE, list)]).map(|config| config.endpoints);
        assert_eq!(of("a:1, http://b:2/,https://c:3,a:1").unwrap(), ["http://a:1", "http://b:2", "https://c:3"]);
        for bad in [",", "ftp://a", "http://", "http://a b", "http://u:hush@a:1"] {
            let error = of(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{bad}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
        let ca = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
        let with_ca =
            |list: &str| config(&[(ENDPOINTS_VARIABLE, list), (CA_VARIABLE, ca)]).map(|config| config.endpoints);
        assert_eq!(with_ca("a:1").unwrap(), ["https://a:1"]);
        assert_eq!(with_ca("http://a:1").unwrap_err().kind(), ErrorKind::InvalidConfig);
    }

    /// Without one it would be 80 or 443, where no etcd listens.
    #[test]
    fn an_endpoint_of_a_name_alone_is_asked_for_its_port() {
        let ca = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
        let of = |list: &str, ca: &str| config(&[(ENDPOINTS_VARIABLE, list), (CA_VARIABLE, ca)]);
        for (bare, ca, advice) in [
            ("localhost", "", "write http://localhost:2379"),
            ("a:1,b/", "", "write http://b:2379"),
            ("[::1]", "", "write http://[::1]:2379"),
            ("a", ca, "write https://a:2379"),
        ] {
            let error = of(bare, ca).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{bare}");
            assert!(error.to_string().contains(advice), "{error}");
        }
        assert_eq!(
            of("http://balancer", "").unwrap().endpoints,
            ["http://balancer"],
            "whoever names a scheme means it"
        );
    }

    #[test]
    fn what_belongs_together_is_asked_for_together() {
        for lonely in [USERNAME_VARIABLE, PASSWORD_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE] {
            assert_eq!(config(&[(lonely, "x")]).unwrap_err().kind(), ErrorKind::InvalidConfig, "{lonely}");
        }
        let missing = config(&[(CA_VARIABLE, "/nowhere/ca.pem")]).unwrap_err();
        assert!(missing.to_string().contains(CA_VARIABLE) && missing.to_string().contains("/nowhere"), "{missing}");
        let wrong = config(&[(CA_VARIABLE, "-----BEGIN PRIVATE KEY-----\nhush")]).unwrap_err();
        assert!(wrong.to_string().contains(CA_VARIABLE) && !wrong.to_string().contains("hush"), "{wrong}");
    }

    /// One without a writer is never read to its end; nor is what has none.
    #[test]
    fn a_certificate_is_a_regular_file_of_a_size_that_one_has() {
        let directory = tempfile::tempdir().unwrap();
        let (pipe, large) = (directory.path().join("ca.fifo"), directory.path().join("ca.pem"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let pem = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
        std::fs::write(&large, pem.to_owned() + &"x".repeat(1 << 20)).unwrap();
        for (path, hint) in [(&large, "MiB"), (&pipe, "regular file"), (&directory.path().to_owned(), "regular file")] {
            let shown = path.to_str().unwrap().to_owned();
            let (answer, answered) = std::sync::mpsc::channel();
            let variables = [(CA_VARIABLE, shown.clone())];
            std::thread::spawn(move || drop(answer.send(Config::from_environment(&variables.into_iter().collect()))));
            let error = answered.recv_timeout(Duration::from_secs(10)).expect("an answer").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
            let text = error.to_string();
            assert!(text.contains(CA_VARIABLE) && text.contains(&shown) && text.contains(hint), "{text}");
        }
        // As Kubernetes mounts them.
        let (real, link) = (directory.path().join("real.pem"), directory.path().join("link.pem"));
        std::fs::write(&real, pem).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        config(&[(CA_VARIABLE, link.to_str().unwrap())]).unwrap();
    }

    #[test]
    fn times_are_what_etcd_can_keep() {
        let ttl = |text| config(&[(TTL_VARIABLE, text)]).map(|config| config.ttl);
        assert_eq!(ttl("2.1").unwrap(), Duration::from_secs(3));
        assert_eq!(ttl("0.2").unwrap(), Duration::from_secs(1));
        assert_eq!(ttl("soon").unwrap_err().kind(), ErrorKind::InvalidConfig);
        let pings = |text| config(&[(KEEPALIVE_INTERVAL_VARIABLE, text)]).map(|config| config.keepalive);
        assert_eq!(pings("0").unwrap(), None);
        assert_eq!(pings("1").unwrap(), Some((Duration::from_secs(5), Duration::from_secs(10))));
    }

    #[test]
    fn a_prefix_ends_with_a_slash_and_stays_outside_of_the_layout() {
        let prefix = |text| config(&[(PREFIX_VARIABLE, text)]).map(|config| config.prefix);
        assert_eq!(prefix("/team/a/").unwrap(), "team/a/");
        assert_eq!(prefix("/").unwrap(), "");
        assert_eq!(prefix("v1/x").unwrap_err().kind(), ErrorKind::InvalidConfig);
        assert_eq!(prefix("a\nb").unwrap_err().kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n";
        let certificate = "-----BEGIN CERTIFICATE-----\nhush\n-----END CERTIFICATE-----\n";
        let variables = [
            (USERNAME_VARIABLE, "worker"),
            (PASSWORD_VARIABLE, "hush"),
            (CERTIFICATE_VARIABLE, certificate),
            (KEY_VARIABLE, key),
        ];
        let shown = format!("{:?}", config(&variables).unwrap());
        assert!(shown.contains("worker") && !shown.contains("hush"), "{shown}");
        // As `openssl pkcs12 -nodes` writes them.
        let bagged =
            |pem: &str| format!("Bag Attributes\n    friendlyName: worker\nKey Attributes: <No Attributes>\n{pem}");
        let bagged = [(CERTIFICATE_VARIABLE, bagged(certificate)), (KEY_VARIABLE, bagged(key))];
        let config = Config::from_environment(&bagged.into_iter().collect()).unwrap();
        assert!(!format!("{config:?}").contains("hush"), "{config:?}");
        assert!(config.tls.read().unwrap().1.is_some_and(|(_, key)| key.contains("hush")));
    }

    #[test]
    fn an_endpoint_that_a_program_gives_may_hold_no_user_either() {
        let config = Config::new(["http://a:1", "http://worker:hush@b:2"]);
        let error = config.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(!format!("{error} {error:?} {config:?}").contains("hush"), "{error} {config:?}");
        assert!(Config::new(["http://a:1"]).check().is_ok() && Config::new([""; 0]).check().is_err());
        let error = Config::new(["http://a:1", "localhost:2379"]).check().unwrap_err();
        assert!(
            error.kind() == ErrorKind::InvalidConfig && error.message().contains("http://localhost:2379"),
            "{error}"
        );
    }

    #[test]
    fn what_may_be_a_key_is_not_told_where_it_is_no_path() {
        // A key of Ed25519 as a Kubernetes secret has it, the text between the lines of its PEM, and a PEM cut short.
        let encoded = "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1DNENBUUF3QlFZREsyVndCQ0lFSUh1c2ghaHVzaCFodXNoIQ==";
        for secret in
            [encoded, "MC4CAQAwBQYDK2VwBCIEIHVzaC9odXNoL2h1c2g", "BEGIN PRIVATE KEY\n/hush.hush\n", "/hush hush.pem"]
        {
            let variables = [(CERTIFICATE_VARIABLE, "/nowhere/tls.crt"), (KEY_VARIABLE, secret), (CA_VARIABLE, secret)];
            let error = config(&variables).unwrap_err();
            assert!(
                error.to_string().contains(CA_VARIABLE) && !format!("{error} {error:?}").contains(secret),
                "{error:?}"
            );
            let shown = format!("{:?}", Pem::parse(secret));
            assert!(!shown.contains(secret), "{shown}");
        }
        for path in ["/run/secrets/tls", "tls.key", "./certs/tls.key"] {
            let error = config(&[(CA_VARIABLE, path)]).unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
            assert!(format!("{:?}", Pem::parse(path)).contains(path));
        }
    }
}
