//! What a service is told by its environment, read once at the start. What each setting does is left to its user.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

/// Where ledgers are kept when `SHOP_DATA` is not set.
const DATA_DEFAULT: &str = "./shop-data";

/// The settings of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Where it listens on loopback; 0: any free port, told on standard output.
    pub port: u16,
    /// `host:port` of its sidecar. `None`: a service that calls nobody needs none.
    pub proxy: Option<String>,
    /// The folder of the ledgers. Instances of one service share it.
    pub data: PathBuf,
    /// Which payments this is.
    pub version: Version,
}

/// The versions of payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// As it has always been.
    V1,
    /// Its answers name the network's reference too.
    V2,
}

impl Version {
    /// As written in `VERSION` and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

impl Environment {
    /// Reads the settings by name. An empty setting counts as absent.
    ///
    /// # Errors
    /// Says which setting is missing or wrong, and what it should be.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let port = variable("PORT").context("PORT is not set: the port on 127.0.0.1 to listen on (0: any free one)")?;
        let port = port.parse().with_context(|| format!("PORT is `{port}`, which is not a port from 0 to 65535"))?;
        let proxy = ["MESHWORK_PROXY", "HTTP_PROXY", "http_proxy"].into_iter().find_map(variable);
        let version = match variable("VERSION").as_deref() {
            None | Some("v1") => Version::V1,
            Some("v2") => Version::V2,
            Some(other) => bail!("VERSION is `{other}`; payments knows v1 and v2"),
        };
        Ok(Self {
            port,
            proxy: proxy.map(|url| proxy_address(&url)).transpose()?,
            data: variable("SHOP_DATA").unwrap_or_else(|| DATA_DEFAULT.to_owned()).into(),
            version,
        })
    }

    /// The sidecar's address, for a service that cannot do without.
    ///
    /// # Errors
    /// When none was set.
    pub fn require_proxy(&self) -> anyhow::Result<&str> {
        self.proxy.as_deref().context(
            "MESHWORK_PROXY is not set: this service calls others through the sidecar there, as http://127.0.0.1:PORT \
             (HTTP_PROXY does too)",
        )
    }
}

fn proxy_address(url: &str) -> anyhow::Result<String> {
    let rest = url.strip_prefix("http://").with_context(|| format!("the proxy `{url}` is not an http:// address"))?;
    let authority = rest.split('/').next().unwrap_or_default();
    let authority: http::uri::Authority =
        authority.parse().with_context(|| format!("the proxy `{url}` names no host and port"))?;
    if authority.port().is_none() {
        bail!("the proxy `{url}` names no port");
    }
    Ok(authority.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Environment, String> {
        let variable = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Environment::read(variable).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn reads_all_and_fills_in_the_rest() {
        let minimal = read(&[("PORT", "8101")]).unwrap();
        assert_eq!(minimal, Environment { port: 8101, proxy: None, data: DATA_DEFAULT.into(), version: Version::V1 });
        let full =
            read(&[("PORT", "0"), ("HTTP_PROXY", "http://127.0.0.1:15001/"), ("SHOP_DATA", "/d"), ("VERSION", "v2")]);
        let expected =
            Environment { port: 0, proxy: Some("127.0.0.1:15001".into()), data: "/d".into(), version: Version::V2 };
        assert_eq!(full.unwrap(), expected);
    }

    #[test]
    fn the_meshs_own_setting_is_stronger() {
        let both = read(&[("PORT", "1"), ("HTTP_PROXY", "http://a:1"), ("MESHWORK_PROXY", "http://b:2")]);
        assert_eq!(both.unwrap().proxy.as_deref(), Some("b:2"));
    }

    #[test]
    fn says_what_is_wrong() {
        for (set, said) in [
            (&[][..], "PORT is not set"),
            (&[("PORT", "")][..], "PORT is not set"),
            (&[("PORT", "http")][..], "PORT is `http`"),
            (&[("PORT", "1"), ("HTTP_PROXY", "socks5://a:1")][..], "not an http:// address"),
            (&[("PORT", "1"), ("HTTP_PROXY", "http://localhost")][..], "names no port"),
            (&[("PORT", "1"), ("VERSION", "v3")][..], "VERSION is `v3`"),
        ] {
            let error = read(set).unwrap_err();
            assert!(error.contains(said), "{error} does not say {said}");
        }
        assert!(read(&[("PORT", "1")]).unwrap().require_proxy().is_err());
    }
}
