//! Where the endpoints are.

use discovery_core::{Environment, Error, ErrorKind, Result};

/// Where the endpoints are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    pub(crate) address: String,
    pub(crate) health_path: String,
    pub(crate) live_path: String,
}

impl HealthSettings {
    /// `/health` and `/live` at `HOST:PORT`. Port 0 takes any that is free.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), health_path: "/health".to_owned(), live_path: "/live".to_owned() }
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
        let host = environment.get("DYN_SYSTEM_HOST").unwrap_or("0.0.0.0");
        // The colons of an IPv6 address stand in brackets.
        let plain = host.contains(':') && !host.starts_with('[');
        let mut settings = Self::new(if plain { format!("[{host}]:{port}") } else { format!("{host}:{port}") });
        for (name, path) in
            [("DYN_SYSTEM_HEALTH_PATH", &mut settings.health_path), ("DYN_SYSTEM_LIVE_PATH", &mut settings.live_path)]
        {
            match environment.get(name) {
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
        assert_eq!(read(&[("DYN_SYSTEM_PORT", "8081")]).unwrap(), Some(HealthSettings::new("0.0.0.0:8081")));
        for (host, address) in [("::1", "[::1]:0"), ("[::]", "[::]:0"), ("localhost", "localhost:0")] {
            let settings = read(&[("DYN_SYSTEM_PORT", "0"), ("DYN_SYSTEM_HOST", host)]).unwrap();
            assert_eq!(settings.unwrap().address, address);
        }
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
