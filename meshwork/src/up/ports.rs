//! Ports: what is declared must be free, and what is not declared is picked.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use model::name::Name;
use runtime::net::{Listener, Share};

use super::plan::{Part, Planned};

/// An address that the mesh file declares and someone else has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address} is in use: {who} cannot listen there; {remedy}")]
pub struct Taken {
    /// The address.
    pub address: SocketAddr,
    /// Who would listen there.
    pub who: String,
    /// By what setting it moves.
    pub remedy: String,
}

/// Looks whether what the gateways and applications are to listen on is free. `port_flag`: how the first gateway is moved on
/// the command line, where it can be.
pub(crate) fn check(waves: &[Vec<Planned>], port_flag: Option<&str>) -> Vec<Taken> {
    let flag = port_flag.map(|flag| format!(" or {flag}")).unwrap_or_default();
    let mut taken = Vec::new();
    for planned in waves.iter().flatten() {
        let (address, who, remedy) = match &planned.part {
            Part::Gateway { name, listen } => {
                let remedy = format!("move it with `gateways.{name}.listen` in the mesh file{flag}");
                (*listen, format!("the gateway `{name}`"), remedy)
            }
            Part::Service(service) => {
                // What `up` does not start is there already, or comes from elsewhere.
                let (Some(port), Some(_)) = (service.port, &service.command) else { continue };
                let remedy = format!("move it with `services.{}.port` in the mesh file", service.name);
                (loopback(port), format!("the application of `{}`", planned.instance), remedy)
            }
            Part::ControlPlane | Part::Broker => continue,
        };
        if address.port() != 0 && is_taken(address) {
            taken.push(Taken { address, who, remedy });
        }
    }
    taken
}

fn is_taken(address: SocketAddr) -> bool {
    // Anything else that keeps one from listening there is told by the role itself, with its own words.
    Listener::bind(address, Share::Alone).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// The port of each application: the declared one, or one that is free now.
pub(crate) fn assign(waves: &[Vec<Planned>]) -> io::Result<BTreeMap<Name, u16>> {
    let mut ports = BTreeMap::new();
    // All are held until the last is picked, so that none is picked twice.
    let mut held = Vec::new();
    for planned in waves.iter().flatten() {
        let Part::Service(service) = &planned.part else { continue };
        let port = match service.port {
            Some(port) => port,
            None => {
                let (port, listener) = pick()?;
                held.push(listener);
                port
            }
        };
        ports.insert(planned.instance.clone(), port);
    }
    Ok(ports)
}

/// Whether nobody listens on this port of loopback.
pub(crate) fn is_free(port: u16) -> bool {
    !is_taken(loopback(port))
}

/// A port that is free now, and that the system gives to nobody who does not ask for it.
///
/// # Errors
/// When there is none.
pub(crate) fn free() -> io::Result<u16> {
    pick().map(|(port, _)| port)
}

/// Below where the system takes ports from for connections and for listeners that ask for any (32768 on, ip(7)): between the
/// picking and the application's own listening, no socket of the mesh itself must come to it.
const PICKED: std::ops::Range<u16> = 20_000..32_000;

fn pick() -> io::Result<(u16, Listener)> {
    let mut random = fastrand::Rng::with_seed(runtime::random::seed());
    let start = random.u16(PICKED);
    for port in (start..PICKED.end).chain(PICKED.start..start) {
        match Listener::bind(loopback(port), Share::Alone) {
            Ok(listener) => return Ok((port, listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free"))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(listen: SocketAddr) -> Vec<Vec<Planned>> {
        let text = format!(
            "mesh: a\nservices: {{b: {{protocol: http, instances: 2}}}}\ngateways: {{public: {{listen: {listen}, backends: [{{service: b}}]}}}}\n"
        );
        super::super::plan::waves(&model::config::check("mesh.yaml", &text).unwrap().config).unwrap()
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_setting_that_moves_it() {
        let other = Listener::bind(loopback(0), Share::Alone).unwrap();
        let address = other.local_addr().unwrap();
        let taken = check(&waves(address), Some("--port"));
        assert_eq!(
            taken[0].to_string(),
            format!(
                "{address} is in use: the gateway `public` cannot listen there; move it with `gateways.public.listen` in \
                 the mesh file or --port"
            )
        );
    }

    #[tokio::test]
    async fn no_port_is_picked_twice() {
        let ports = assign(&waves(loopback(8080))).unwrap();
        assert_eq!(ports.len(), 2);
        let picked: std::collections::BTreeSet<_> = ports.values().collect();
        assert_eq!(picked.len(), 2);
    }
}
