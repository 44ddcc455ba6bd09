//! Identities: who speaks. A [`Subject`] is a role of the mesh; its wire form is a SPIFFE ID
//! (SPIFFE-ID specification §2: `spiffe://<trust domain>/<path>`), and the trust domain is the mesh's name.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// Who speaks: a service of the mesh or one of Meshwork's own roles.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// An application's service: `/service/<name>`.
    Service(Name),
    /// A gateway: `/gateway/<name>`.
    Gateway(Name),
    /// The broker: `/broker`.
    Broker,
    /// The control plane: `/control-plane`.
    ControlPlane,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Gateway(name) => write!(f, "gateway/{name}"),
            Self::Broker => f.write_str("broker"),
            Self::ControlPlane => f.write_str("control-plane"),
        }
    }
}

impl std::str::FromStr for Subject {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let odd = || Error::Path(text.to_owned());
        match text.split_once('/') {
            None if text == "broker" => Ok(Self::Broker),
            None if text == "control-plane" => Ok(Self::ControlPlane),
            Some(("service", name)) => Ok(Self::Service(Name::new(name).map_err(|_| odd())?)),
            Some(("gateway", name)) => Ok(Self::Gateway(Name::new(name).map_err(|_| odd())?)),
            _ => Err(odd()),
        }
    }
}

/// A SPIFFE ID of this mesh: the trust domain and the subject in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    /// The trust domain: the mesh's name.
    pub mesh: Name,
    /// Who, inside of it.
    pub subject: Subject,
}

/// Why a text is not a SPIFFE ID of a mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The scheme is not `spiffe://`, or there is no path.
    #[error("{0:?} is not of the form spiffe://<mesh>/<subject>")]
    Form(String),
    /// The trust domain is not a name.
    #[error("the trust domain {0:?} is not a name")]
    TrustDomain(String),
    /// The path names no subject that a mesh has.
    #[error("{0:?} is none of service/<name>, gateway/<name>, broker, control-plane")]
    Path(String),
}

impl std::str::FromStr for SpiffeId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let (mesh, path) = text
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(|| Error::Form(text.to_owned()))?;
        let mesh = Name::new(mesh).map_err(|_| Error::TrustDomain(mesh.to_owned()))?;
        Ok(Self { mesh, subject: path.parse()? })
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.mesh, self.subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        for text in [
            "spiffe://shop/service/orders",
            "spiffe://shop/gateway/public",
            "spiffe://shop/broker",
            "spiffe://shop/control-plane",
        ] {
            assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        }
        for odd in [
            "http://shop/broker",
            "spiffe://shop",
            "spiffe://Shop/broker",
            "spiffe://shop/service/",
            "spiffe://shop/service/a/b",
            "spiffe://shop/brokers",
        ] {
            assert!(odd.parse::<SpiffeId>().is_err(), "{odd}");
        }
    }
}
