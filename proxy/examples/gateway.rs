//! A gateway to one external plain-text service, for measuring: `gateway LISTEN UPSTREAM [http|grpc] [lanes]`.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use model::config::{Breaker, External, GatewayBackend, Protocol, Route};
use model::identity::Subject;
use model::name::Name;
use model::snapshot::{GatewayPart, ServicePart, Snapshot};
use proxy::{AccessLog, DataPlane, Options};
use runtime::lanes::Lanes;
use runtime::metrics::Metrics;

// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let (listen, upstream): (SocketAddr, String) = (next("127.0.0.1:8080").parse()?, next("127.0.0.1:9000"));
    let protocol = if next("http") == "grpc" { Protocol::Grpc } else { Protocol::Http };
    let lanes = next("1").parse()?;
    let subject = Subject::Gateway(Name::new("bench")?);
    let (_signal, drain) = runtime::drain::channel();
    let plane = DataPlane::start(Options {
        mesh: Name::new("bench")?,
        subject: subject.clone(),
        instance: Name::new("bench-0")?,
        identity: None,
        lanes: Arc::new(Lanes::start(lanes, "lane")?),
        metrics: Metrics::default(),
        access_log: AccessLog::Off,
        outbound: None,
        status: None,
        inbound: None,
        gateway: Some(listen),
        drain,
    })
    .await?;
    plane.apply(Arc::new(snapshot(subject, listen, upstream, protocol)?))?;
    println!("listening on {listen}");
    std::future::pending().await
}

fn snapshot(
    subject: Subject,
    listen: SocketAddr,
    upstream: String,
    protocol: Protocol,
) -> Result<Snapshot, Box<dyn Error>> {
    let name = Name::new("upstream")?;
    let part = ServicePart {
        protocol,
        callable: true,
        subject: None,
        external: Some(External { addresses: vec![upstream], tls: None }),
        routes: vec![Route::plain(&name)],
        breaker: Breaker::default(),
        endpoints: Vec::new(),
    };
    let backend = GatewayBackend { service: name.clone(), matches: Vec::new(), hosts: Vec::new() };
    Ok(Snapshot {
        revision: 1,
        version: 1,
        mesh: Name::new("bench")?,
        subject,
        declared: BTreeSet::from([name.clone()]),
        services: BTreeMap::from([(name, part)]),
        inbound: None,
        gateway: Some(GatewayPart { listen, backends: vec![backend], body_bytes_max: 64 << 20 }),
        broker: None,
    })
}
