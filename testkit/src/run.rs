//! One run: a seed in, an outcome out.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::Serialize;
use storage::disk::memory;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::check;
use crate::history::{Event, History};
use crate::mesh::{GATEWAY_PORT, World};
use crate::plan::{self, Fault, HOSTS, Kind, LEVELS_HOST, Plan};
use crate::shop;
use crate::trace::{NETWORK, Trace};

/// The network's grain of time.
const TICK: Duration = Duration::from_millis(1);
/// The longest run, in simulated time; a run that is longer has a violation.
const RUN_MAX: Duration = Duration::from_secs(1_200);
/// How long after the last order was placed accepted orders may take to end.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a run gave.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The same for every run of the seed.
    pub hash: String,
    /// How many lines the hash is of.
    pub events: u64,
    /// Orders the client saw accepted.
    pub accepted: usize,
    /// Answers that Meshwork gave in an application's stead.
    pub refused: usize,
    /// Streams that came whole.
    pub streamed: usize,
    /// Messages handed to consumers, and how many of them again.
    pub delivered: usize,
    /// Deliveries beyond a message's first to a consumer.
    pub redelivered: usize,
    /// How long it took, in simulated milliseconds.
    pub simulated_ms: u128,
    /// The faults.
    pub faults: Vec<Fault>,
    /// What must not be; empty in a good run.
    pub violations: Vec<String>,
}

/// What a run shows on standard error beside its outcome.
#[derive(Debug, Clone, Default)]
pub struct Show {
    /// The roles' own logs at these levels.
    pub logs: Option<String>,
    /// Every line that the trace hash is made of.
    pub trace: bool,
}

/// Runs `seed`.
///
/// # Errors
/// When the simulation itself cannot run.
pub fn run(seed: u64, show: &Show) -> anyhow::Result<Outcome> {
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    crate::randomness::take_over();
    fastrand::seed(seed);
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    let trace = if show.trace { Trace::shown() } else { Trace::default() };
    start_tracing(&trace, show.logs.as_deref())?;
    let plan = Plan::draw(seed);
    let history = History::default();
    let mut sim = turmoil::Builder::new()
        .tick_duration(TICK)
        .simulation_duration(RUN_MAX)
        .rng_seed(seed)
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(Duration::from_millis(5))
        .tcp_capacity(1_024)
        .build();
    let hosts: Vec<_> = HOSTS.into_iter().chain([LEVELS_HOST]).collect();
    let world = World::prepare(&hosts, history.clone(), plan.stream)?;
    world.populate(&mut sim)?;
    let gateway = SocketAddr::new(sim.lookup("gateway"), GATEWAY_PORT);
    sim.client("client", shop::client(plan.clone(), gateway, history.clone(), PATIENCE));
    let failure = drive(&mut sim, &plan, &world, seed);
    Ok(outcome(seed, &plan, &history, &trace, sim.elapsed(), failure))
}

fn start_tracing(trace: &Trace, logs: Option<&str>) -> anyhow::Result<()> {
    let network = Targets::new().with_target(NETWORK, LevelFilter::TRACE);
    let logs = match logs {
        Some(levels) => {
            let targets: Targets = levels.parse()?;
            Some(tracing_subscriber::fmt::layer().without_time().with_writer(std::io::stderr).with_filter(targets))
        }
        None => None,
    };
    tracing_subscriber::registry().with(trace.clone().with_filter(network)).with(logs).try_init()?;
    Ok(())
}

/// Steps through time, and lets faults begin and end on the way.
fn drive(sim: &mut turmoil::Sim<'_>, plan: &Plan, world: &World, seed: u64) -> Option<String> {
    let mut begun = vec![false; plan.faults.len()];
    let mut ended = vec![false; plan.faults.len()];
    loop {
        let now = sim.elapsed();
        for (index, fault) in plan.faults.iter().enumerate() {
            let seed = seed.wrapping_add(index as u64);
            if !begun[index] && now >= fault.begins {
                begun[index] = true;
                begin(sim, &fault.kind, world, seed);
            }
            if !ended[index] && now >= fault.ends {
                ended[index] = true;
                end(sim, &fault.kind, world, seed);
            }
        }
        match sim.step() {
            Ok(true) => return None,
            Ok(false) => {}
            Err(error) => return Some(format!("the run failed after {:?}: {error}", sim.elapsed())),
        }
    }
}

fn begin(sim: &mut turmoil::Sim<'_>, kind: &Kind, world: &World, seed: u64) {
    match kind {
        Kind::Crash(host) => crash(sim, host, world, seed),
        Kind::Partition(a, b) => sim.partition(*a, *b),
        Kind::OneWay(from, to) => sim.partition_oneway(*from, *to),
        Kind::Hold(a, b) => sim.hold(*a, *b),
        Kind::Stall(host) => others(host).for_each(|other| sim.hold(*host, other)),
        Kind::Slow(a, b, latency) => sim.set_link_latency(*a, *b, *latency),
        Kind::Disk(host, operation, after) => world.disk(host).fail(disk(*operation), *after, ErrorKind::Other, true),
        Kind::Revise => {
            crash(sim, "control", world, seed);
            world.revise();
        }
    }
}

fn end(sim: &mut turmoil::Sim<'_>, kind: &Kind, world: &World, seed: u64) {
    match kind {
        Kind::Crash(host) => sim.bounce(*host),
        Kind::Partition(a, b) => sim.repair(*a, *b),
        Kind::OneWay(from, to) => sim.repair_oneway(*from, *to),
        Kind::Hold(a, b) => sim.release(*a, *b),
        Kind::Stall(host) => others(host).for_each(|other| sim.release(*host, other)),
        Kind::Slow(a, b, _) => sim.set_link_latency(*a, *b, Duration::from_millis(1)),
        Kind::Disk(host, ..) => {
            crash(sim, host, world, seed);
            world.disk(host).heal();
            sim.bounce(*host);
        }
        Kind::Revise => sim.bounce("control"),
    }
}

/// The disk goes first: what is dropped with a host tidies up after itself, and a machine that has stopped does not.
fn crash(sim: &mut turmoil::Sim<'_>, host: &str, world: &World, seed: u64) {
    world.disk(host).crash(seed);
    sim.crash(host);
}

fn others(host: &str) -> impl Iterator<Item = &'static str> {
    HOSTS.into_iter().chain([LEVELS_HOST]).filter(move |other| *other != host)
}

const fn disk(operation: plan::Operation) -> memory::Operation {
    match operation {
        plan::Operation::Write => memory::Operation::Write,
        plan::Operation::Sync => memory::Operation::Sync,
        plan::Operation::Allocate => memory::Operation::Allocate,
    }
}

fn outcome(
    seed: u64,
    plan: &Plan,
    history: &History,
    trace: &Trace,
    elapsed: Duration,
    failure: Option<String>,
) -> Outcome {
    let entries = history.entries();
    for entry in &entries {
        trace.line(format_args!("{entry:?}"));
    }
    let (hash, events) = trace.hash();
    let count = |like: fn(&Event) -> bool| entries.iter().filter(|entry| like(&entry.event)).count();
    let delivered = count(|event| matches!(event, Event::Delivered { .. }));
    let firsts: std::collections::BTreeSet<_> = entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::Delivered { consumer, message, .. } => Some((*consumer, message)),
            _ => None,
        })
        .collect();
    let mut violations = check::violations(&entries);
    violations.extend(check::no_role_ends(&entries, plan));
    violations.extend(check::what_nothing_disturbs_works(&entries, plan));
    violations.extend(failure);
    if count(|event| matches!(event, Event::Answered { status: 201, .. })) == 0 {
        violations.push("no order was accepted".to_owned());
    }
    Outcome {
        seed,
        hash: format!("{hash:016x}"),
        events,
        accepted: count(|event| matches!(event, Event::Answered { status: 201, .. })),
        refused: count(|event| matches!(event, Event::Answered { application: false, .. })),
        streamed: count(|event| matches!(event, Event::Streamed { broke: None, .. })),
        delivered,
        redelivered: delivered - firsts.len(),
        simulated_ms: elapsed.as_millis(),
        faults: plan.faults.clone(),
        violations,
    }
}
