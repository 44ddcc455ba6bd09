//! `meshwork demo`: the shop on this machine, a stream of real orders through its gateway, failures in the middle, and a
//! report that says what each one cost.
//!
//! It leaves running the mesh to `up` and knows the shop only by its HTTP interface. It is a demonstration and a check:
//! its exit code is 0 only when every order that was accepted was shipped and notified, once each.

mod events;
mod faults;
mod keep;
pub mod latency;
mod narrate;
pub mod observe;
mod orders;
pub mod page;
pub mod picture;
mod place;
pub mod report;
pub mod settle;
mod shop;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use model::config::Config;
use runtime::drain::Drain;
use runtime::output::Output;
use tokio::sync::watch;
use tokio::time::Instant;

use self::narrate::Narrator;
use self::observe::Observer;
use self::orders::{Catalogue, Plan, Progress};
use self::place::Place;
use self::report::{Recorded, Report};
use crate::client::Client;
use crate::command::Format;
use crate::command::mesh_file::MeshFile;
use crate::terminal;
use crate::up::{self, Mesh};

/// The shop's mesh file, as it stands in the sources.
const MESH_FILE: &str = include_str!("../../examples/shop/mesh.yaml");
/// Most orders of a run: the report holds every one.
const ORDERS_MAX: u64 = 1_000_000;
/// How long a process may take to carry traffic.
const COME_UP: Duration = Duration::from_secs(60);
/// How long certificates hold; a demo ends long before.
const CERTIFICATE_LIFE: Duration = Duration::from_hours(1);
/// How long a process may take to end before it is killed.
const STOP: Duration = Duration::from_secs(20);
/// From one look at what the mesh has counted to the next.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// What a shell says of a program that SIGINT ended.
const INTERRUPTED: i32 = 130;
/// The demo did not come to its end.
const FAILED: i32 = 1;
/// How long the last events may take to be told.
const LAST_EVENTS: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  meshwork demo
  meshwork demo --orders 1000 --rate 100
  meshwork demo --keep --port 9090
  meshwork demo --format json | jq .faults

The report goes to standard output, what happens meanwhile to standard error.
Exit code: 0 only when every order that was accepted was shipped and notified, once each.";

/// Run the example shop, send it orders, break it in the middle, and report what that cost
///
/// Every service is a process of its own beside a sidecar. Orders come in through the gateway; meanwhile an instance with its
/// sidecar, the broker and the control plane are killed with -9, one after the other, and brought back.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// How many orders
    #[arg(long, default_value_t = 300, value_name = "N", value_parser = clap::value_parser!(u64).range(faults::ORDERS_MIN..=ORDERS_MAX))]
    pub orders: u64,
    /// How many orders a second
    #[arg(long, default_value_t = 25.0, value_name = "N", value_parser = rate)]
    pub rate: f64,
    /// Where the gateway listens on loopback, instead of where the shop's mesh file says; 0: any free port
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// The folder of everything that is written [default: a fresh one, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Leave it running after the report, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Of which the choice of customers and products is drawn [default: another one each time]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Show what every process writes
    #[arg(long, help_heading = "Output")]
    pub logs: bool,
    /// A report for people, or one JSON object
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

fn rate(text: &str) -> Result<f64, String> {
    const RATE_MAX: f64 = 10_000.0;
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if rate > 0.0 && rate <= RATE_MAX { Ok(rate) } else { Err(format!("above 0 and at most {RATE_MAX}")) }
}

/// Runs the demo until its report, or with `--keep` until `stop`; gives the exit code. Nothing it started is left when it returns.
///
/// # Errors
/// When the shop's program cannot be built, or the folder cannot be used.
pub async fn run(arguments: Arguments, stop: Drain) -> anyhow::Result<i32> {
    let narrator = Arc::new(Narrator::new(Instant::now())?);
    let out = terminal::output(arguments.format)?;
    let program = std::env::current_exe().context("this program has no file")?;
    tokio::select! {
        built = shop::ensure_built(&program, &narrator) => built?,
        () = stop.requested() => return Ok(INTERRUPTED),
    }
    let mut place = Place::make(arguments.data.as_deref(), MESH_FILE)?;
    let config = proven()?;
    up::leftover::adopt();
    let (events, listener) = up::event::channel();
    let mesh = match Mesh::prepare(options(&arguments, &config, &place, program)?, events) {
        Ok(mesh) => mesh,
        Err(error) => {
            // Nothing was started, so nothing is worth a look.
            place.forget();
            narrator.failed(&error.to_string());
            narrator.finish();
            return Ok(FAILED);
        }
    };
    let telling = tokio::spawn(events::tell(listener, narrator.clone(), &mesh, arguments.logs));
    let demo = Demo {
        arguments,
        config,
        mesh,
        narrator: narrator.clone(),
        out,
        progress: Arc::default(),
        observer: tokio::sync::Mutex::default(),
    };
    let outcome = tokio::select! {
        // With `--keep` both end at the same moment, and what the report says counts.
        biased;
        outcome = demo.play(&stop) => outcome,
        () = stop.requested() => Ok(INTERRUPTED),
    };
    narrator.forget_progress();
    narrator.step("stopping");
    demo.mesh.stop().await;
    drop(demo);
    // It ends when the last of the instances has let go of its events, and somebody reads what it tells.
    let _ = tokio::time::timeout(LAST_EVENTS, telling).await;
    up::leftover::end();
    let code = outcome.unwrap_or_else(|error| {
        narrator.failed(&format!("{error:#}"));
        FAILED
    });
    match code {
        0 | INTERRUPTED => place.forget(),
        _ => narrator.step(&format!("everything that was written is in {}", place.folder().display())),
    }
    narrator.finish();
    Ok(code)
}

/// The shop's mesh file, which is proven like any other.
fn proven() -> anyhow::Result<Config> {
    let file = MeshFile::of("examples/shop/mesh.yaml", MESH_FILE);
    let checked =
        file.check().map_err(|findings| anyhow::anyhow!("{}", file.render(&findings, terminal::colours_err())))?;
    Ok(checked.config)
}

fn options(arguments: &Arguments, config: &Config, place: &Place, program: PathBuf) -> anyhow::Result<up::Options> {
    let beside = program.parent().context("this program stands in no folder")?.to_owned();
    let gateway = config.gateways.keys().next().context("the shop has no gateway")?;
    let moved = arguments.port.map(|port| (gateway.clone(), SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    Ok(up::Options {
        config: config.clone(),
        file: place.mesh_file(),
        data: place.mesh_folder(),
        folders: vec![place.folder().to_owned(), beside],
        program,
        listen: moved.into_iter().collect::<BTreeMap<_, _>>(),
        port_flag: Some("--port".to_owned()),
        log_level: "warn".to_owned(),
        access_log: false,
        lanes: 1,
        come_up: COME_UP,
        certificate_life: CERTIFICATE_LIFE,
        stop: STOP,
    })
}

/// A run of the demo.
struct Demo {
    arguments: Arguments,
    config: Config,
    mesh: Mesh,
    narrator: Arc<Narrator>,
    /// For the report.
    out: Output,
    progress: Arc<Progress>,
    // Taken for one look at a time, by the narration and by the faults.
    observer: tokio::sync::Mutex<Observer>,
}

impl Demo {
    /// From the first process to the report, and with `--keep` on until `stop`.
    async fn play(&self, stop: &Drain) -> anyhow::Result<i32> {
        self.narrator.step("starting the shop: control plane, broker, gateway, and each service beside its sidecar");
        // A folder that the caller names may hold what an earlier release's shop was.
        let publication = MeshFile::of("examples/shop/mesh.yaml", MESH_FILE).publication("demo");
        up::start(&self.mesh, &self.mesh.operator()?, Some((&publication, &self.config))).await?;
        let gateway = self.gateway()?;
        self.narrator.good(&format!("the shop is open at http://{gateway}"));
        let reports = self.mesh.reports();
        let applications = reports.iter().filter(|report| report.addresses.contains_key("application")).count();
        self.narrator
            .aside(&format!("{} roles and {applications} applications, each a process of its own", reports.len()));
        let client = Arc::new(Client::new(gateway, &gateway.to_string()));
        let catalogue = Catalogue::read(&client).await?;
        let recorded = tokio::select! {
            recorded = self.stream(client, &catalogue) => recorded,
            () = self.watch() => unreachable!("the narration of what the mesh does goes on for ever"),
        };
        let report = Report::of(&recorded);
        self.show(&report, &recorded).await?;
        if self.arguments.keep {
            self.out.write(format!("{}\n", keep::lines(gateway, &self.mesh.reports(), catalogue.any()))).await;
            self.until(stop).await;
        }
        Ok(if report.holds { 0 } else { 1 })
    }

    fn gateway(&self) -> anyhow::Result<SocketAddr> {
        let name = self.config.gateways.keys().next().context("the shop has no gateway")?;
        self.mesh.gateway_address(name.as_str()).context("the gateway listens nowhere")
    }

    /// The orders, the harm, and the wait until all is shipped.
    async fn stream(&self, client: Arc<Client>, catalogue: &Catalogue) -> Recorded {
        let Arguments { orders, rate: per_second, seed, .. } = self.arguments;
        let plan = Plan { orders, per_second, seed: seed.unwrap_or_else(runtime::random::seed) };
        self.narrator.step(&format!("{orders} orders, {per_second} a second (seed {})", plan.seed));
        let before = faults::look(&self.mesh, &self.observer).await;
        let began = self.narrator.now();
        let (allow, allowed) = watch::channel(faults::allowed_first(orders));
        let placing =
            orders::place_all(client.clone(), catalogue, plan, self.narrator.start(), self.progress.clone(), allowed);
        let ground = faults::Ground {
            mesh: &self.mesh,
            observer: &self.observer,
            narrator: &self.narrator,
            progress: &self.progress,
        };
        let harm = faults::happen(&ground, orders, per_second, &allow);
        let both = async { tokio::join!(placing, harm) };
        let (placed, happened) = tokio::select! {
            both = both => both,
            () = self.narrator.follow(&self.progress, orders) => unreachable!("the progress line goes on for ever"),
        };
        self.narrator.forget_progress();
        let stream = self.narrator.now().saturating_sub(began);
        let accepted = placed.iter().filter_map(|order| order.accepted().map(str::to_owned)).collect();
        self.narrator.step("every order has its answer; waiting until all that were accepted are shipped and notified");
        let settled = settle::settle(&client, &accepted).await;
        let observed = faults::look(&self.mesh, &self.observer).await.since(&before);
        let edges = picture::edges(&self.config, &observed);
        Recorded { orders: placed, faults: happened, settled, observed, edges, stream }
    }

    /// Tells what the mesh does by itself, for ever.
    async fn watch(&self) {
        let mut before = faults::look(&self.mesh, &self.observer).await;
        loop {
            tokio::time::sleep(LOOK_PAUSE).await;
            let now = faults::look(&self.mesh, &self.observer).await;
            now.news(&before).iter().for_each(|news| self.narrator.aside(news));
            match self.progress.told().join(", ") {
                told if told.is_empty() => {}
                told => self.narrator.aside(&format!("customers are told {told}; they ask again under the same key")),
            }
            before = now;
        }
    }

    /// Writes the report, and waits until somebody has read it.
    async fn show(&self, report: &Report, recorded: &Recorded) -> anyhow::Result<()> {
        let text = match self.arguments.format {
            Format::Text => page::page(report, &picture::draw(&self.config, &recorded.observed)),
            Format::Json => format!("{}\n", serde_json::to_string(report)?),
        };
        self.out.write(text).await;
        self.out.written().await;
        Ok(())
    }

    async fn until(&self, stop: &Drain) {
        tokio::select! {
            () = self.mesh.follow() => {}
            () = stop.requested() => {}
        }
    }
}
