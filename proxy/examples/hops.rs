//! Two sidecars in one process, for measuring: an application's request goes out of one and into the other over mutual TLS.
//! `hops LISTEN APPLICATION [http|grpc]`: LISTEN is the first one's outbound door; requests name the host `back`.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use model::config::{Breaker, Inbound as Limits, Protocol, Route};
use model::identity::Subject;
use model::name::Name;
use model::snapshot::{Endpoint, InboundPart, ServicePart, Snapshot};
use proxy::{AccessLog, DataPlane, Inbound, Options, Target};
use runtime::drain::Drain;
use runtime::lanes::Lanes;
use runtime::metrics::Metrics;

#[path = "../tests/integration/kit/ca.rs"]
mod ca;

// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let (listen, application): (SocketAddr, SocketAddr) =
        (next("127.0.0.1:8080").parse()?, next("127.0.0.1:9000").parse()?);
    let protocol = if next("http") == "grpc" { Protocol::Grpc } else { Protocol::Http };
    let mesh = Name::new("bench")?;
    let authority = ca::Ca::new(&mesh);
    let (_signal, drain) = runtime::drain::channel();
    let (front, back) = (Subject::Service(Name::new("front")?), Subject::Service(Name::new("back")?));
    let empty = Snapshot {
        revision: 1,
        version: 1,
        mesh,
        subject: back.clone(),
        services: BTreeMap::new(),
        declared: BTreeSet::new(),
        inbound: None,
        gateway: None,
        broker: None,
    };
    let inbound = Inbound { listen: ([127, 0, 0, 1], 0).into(), target: Target::Application(application) };
    let callee = start(&authority, &back, None, Some(inbound), &drain).await?;
    let callers = BTreeSet::from([front.clone()]);
    let part = InboundPart { protocol, callers, limits: Limits::default() };
    callee.apply(Arc::new(Snapshot { inbound: Some(part), ..empty.clone() }))?;
    let caller = start(&authority, &front, Some(listen), None, &drain).await?;
    let name = Name::new("back")?;
    let address = callee.inbound_address().ok_or("the inbound door is not open")?;
    let part = ServicePart {
        protocol,
        callable: true,
        subject: Some(back),
        external: None,
        routes: vec![Route::plain(&name)],
        breaker: Breaker::default(),
        endpoints: vec![Endpoint { instance: Name::new("back-0")?, address, subset: None }],
    };
    caller.apply(Arc::new(Snapshot { subject: front, services: BTreeMap::from([(name, part)]), ..empty }))?;
    println!("listening on {listen}");
    std::future::pending().await
}

async fn start(
    authority: &ca::Ca,
    subject: &Subject,
    outbound: Option<SocketAddr>,
    inbound: Option<Inbound>,
    drain: &Drain,
) -> Result<DataPlane, Box<dyn Error>> {
    let name = subject.to_string().replace('/', "-");
    let options = Options {
        mesh: Name::new("bench")?,
        subject: subject.clone(),
        instance: Name::new(&name)?,
        identity: Some(authority.identity(subject)),
        lanes: Arc::new(Lanes::start(1, &name)?),
        metrics: Metrics::default(),
        access_log: AccessLog::Off,
        outbound,
        status: None,
        inbound,
        gateway: None,
        drain: drain.clone(),
    };
    Ok(DataPlane::start(options).await?)
}
