//! Where the endpoints are.

use std::net::Ipv4Addr;

use discovery_core::{Environment, Error, ErrorKind, Result};

/// Where the endpoints are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    pub(crate) address: String,
    /// Where that cannot be had.
    pub(crate) otherwise: Option<String>,
    pub(crate) health_path: String,
    pub(crate) live_path: String,
}

impl HealthSettings {
    /// `/health` and `/live` at `HOST:PORT`. Port 0 takes any that is free. An IPv6 address stands in brackets, and an IPv4
    /// one may: `[$(POD_IP)]:9090` in a manifest is right whichever the pod has.
    pub fn new(address: impl Into<String>) -> Self {
        let address = without_brackets(address.into());
        Self { address, otherwise: None, health_path: "/health".to_owned(), live_path: "/live".to_owned() }
    }

    /// What `DYN_SYSTEM_PORT`, `DYN_SYSTEM_HOST`, `DYN_SYSTEM_HEALTH_PATH` and `DYN_SYSTEM_LIVE_PATH` say. `None` where
    /// the port is unset or negative, which is off.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where the port is no port, a path does not start with a slash, or both are one.
    pub fn from_environment(environment: &Environment) -> Result<Option<Self>> {
        const PORT: &str = "DYN_SYSTEM_PORT";
        let expected = "a port, or -1 for none";
        let port = match environment.parse::<i64>(PORT, expected)? {
            None | Some(..0) => return Ok(None),
            Some(port) => {
                u16::try_from(port).map_err(|_| invalid(format!("{PORT}={port} is not {expected}: correct it")))?
            }
        };
        let given = environment.get("DYN_SYSTEM_HOST")?;
        // All of either family; where the machine has one alone, of that.
        let host = given.unwrap_or("::");
        // The colons of an IPv6 address stand in brackets.
        let plain = host.contains(':') && !host.starts_with('[');
        let mut settings = Self::new(if plain { format!("[{host}]:{port}") } else { format!("{host}:{port}") });
        settings.otherwise = given.is_none().then(|| format!("0.0.0.0:{port}"));
        for (name, path) in
            [("DYN_SYSTEM_HEALTH_PATH", &mut settings.health_path), ("DYN_SYSTEM_LIVE_PATH", &mut settings.live_path)]
        {
            match environment.get(name)? {
                Some(given) if given.starts_with('/') => given.clone_into(path),
                Some(given) => return Err(invalid(format!("{name}={given:?} does not start with /: correct it"))),
                None => {}
            }
        }
        if settings.health_path == settings.live_path {
            return Err(invalid(format!("{:?} is the path of readiness and of liveness: set two", settings.live_path)));
        }
        Ok(Some(settings))
    }
}

fn without_brackets(address: String) -> String {
    let host = address.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match host.filter(|(host, _)| host.parse::<Ipv4Addr>().is_ok()) {
        Some((host, port)) => format!("{host}{port}"),
        None => address,
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<HealthSettings>> {
        HealthSettings::from_environment(&variables.iter().copied().collect())
    }

    #[test]
    fn nothing_is_served_unless_a_port_is_set() {
        for variables in
            [&[][..], &[("DYN_SYSTEM_PORT", "")], &[("DYN_SYSTEM_PORT", "-1")], &[("DYN_SYSTEM_HOST", "x")]]
        {
            assert_eq!(read(variables).unwrap(), None, "{variables:?}");
        }
    }

    #[test]
    fn the_environment_says_where() {
        let everywhere = read(&[("DYN_SYSTEM_PORT", "8081")]).unwrap().unwrap();
        assert_eq!((everywhere.address.as_str(), everywhere.otherwise.as_deref()), ("[::]:8081", Some("0.0.0.0:8081")));
        let hosts = [
            ("::1", "[::1]:0"),
            ("[::]", "[::]:0"),
            ("localhost", "localhost:0"),
            ("0.0.0.0", "0.0.0.0:0"),
            ("[10.0.0.1]", "10.0.0.1:0"),
        ];
        for (host, address) in hosts {
            let settings = read(&[("DYN_SYSTEM_PORT", "0"), ("DYN_SYSTEM_HOST", host)]).unwrap().unwrap();
            assert_eq!((settings.address.as_str(), settings.otherwise), (address, None));
        }
        assert_eq!(HealthSettings::new("[fd00::5]:9090").address, "[fd00::5]:9090");
        assert_eq!(HealthSettings::new("[10.1.2.3]:9090").address, "10.1.2.3:9090");
        let paths = [("DYN_SYSTEM_PORT", "1"), ("DYN_SYSTEM_HEALTH_PATH", "/r"), ("DYN_SYSTEM_LIVE_PATH", "/l")];
        let settings = read(&paths).unwrap().unwrap();
        assert_eq!((settings.health_path.as_str(), settings.live_path.as_str()), ("/r", "/l"));
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        for (name, value) in [
            ("DYN_SYSTEM_PORT", "http"),
            ("DYN_SYSTEM_PORT", "65536"),
            ("DYN_SYSTEM_HEALTH_PATH", "health"),
            ("DYN_SYSTEM_LIVE_PATH", "live"),
        ] {
            let error = read(&[("DYN_SYSTEM_PORT", "1"), (name, value)]).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidConfig && error.to_string().contains(name), "{error}");
        }
        assert!(read(&[("DYN_SYSTEM_PORT", "1"), ("DYN_SYSTEM_HEALTH_PATH", "/live")]).is_err());
    }
}
