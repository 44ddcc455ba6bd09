//! `cargo xtask soak`: a mesh of release binaries under load and faults for as long as asked, with a checker.
//!
//! `up` runs the mesh; small applications of ours stand beside its sidecars; a loader publishes, calls and streams through them. Faults
//! come one after the other, drawn from a seed; between two of them everything must work again. At the end nothing that was
//! acknowledged may be missing, out of order, or refused without a reason.

mod app;
mod check;
mod client;
mod fault;
mod journal;
mod load;
mod mesh;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;

use check::Findings;
use fault::{Faults, Kind};
use load::Load;
use mesh::Mesh;

pub use app::Application;
pub use app::run as run_application;

/// From the end of a fault until whatever fails is a violation again.
const RECOVERY: Duration = Duration::from_secs(15);
/// From the moment when everything works again to the next fault.
const CALM: Duration = Duration::from_secs(3);
/// How long what was accepted may take to be handled, once the faults are over.
const DRAIN: Duration = Duration::from_secs(180);
/// How often it is told how far the run is.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How long, and with which faults.
#[derive(Args)]
pub struct Options {
    /// How long, with its unit: 90s, 10m, 1h
    #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    length: Duration,
    /// What the order of faults is drawn from; a random one when absent
    #[arg(long)]
    seed: Option<u64>,
    /// Only faults whose name holds this
    #[arg(long)]
    only: Option<String>,
    /// Use the release binary that is there instead of building it
    #[arg(long)]
    no_build: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().map_err(|_| "a number and a unit, as 10m".to_owned())?;
    match &text[split..] {
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3_600)),
        _ => Err("the unit is s, m or h".to_owned()),
    }
}

/// Runs it; an error when something was found.
///
/// # Errors
/// When the mesh does not start, or a violation was found.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if !options.no_build {
        crate::bench::build()?;
    }
    let seed = options.seed.unwrap_or_else(|| u64::from(std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = tokio::task::LocalSet::new().block_on(&runtime, soak(options, seed))?;
    findings.tell();
    if !findings.is_good() {
        bail!("{} violations; seed {seed}", findings.violations());
    }
    Ok(())
}

async fn soak(options: &Options, seed: u64) -> anyhow::Result<Findings> {
    let mut mesh = Mesh::start().context("the mesh")?;
    println!("seed {seed}; {}", mesh.describe());
    let load = Load::start(&mesh);
    load.until_all_works(&mesh, RECOVERY * 4).await.context("before the first fault")?;
    let (began, mut told) = (Instant::now(), Instant::now());
    let mut faults = Faults::new(seed, options.only.as_deref(), &mesh)?;
    while began.elapsed() < options.length {
        let kind = faults.draw();
        let fault = load.fault_begins(kind);
        let outcome = faults.inflict(kind, &mesh).await;
        load.fault_ends(fault, RECOVERY);
        match outcome {
            Ok(()) => load.expect_recovery(&mesh, kind, RECOVERY).await,
            Err(error) => println!("{kind:?} could not be inflicted: {error:#}"),
        }
        tokio::time::sleep(CALM).await;
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            println!("{:>5}s  {}", began.elapsed().as_secs(), load.progress());
        }
    }
    load.stop_publishing();
    let drained = load.until_drained(&mesh, DRAIN).await;
    let mut findings = load.findings(&mesh, drained)?;
    findings.faults = faults.inflicted();
    findings.elapsed = began.elapsed();
    findings.stopped = mesh.stop();
    Ok(findings)
}

/// For the report: every kind, in order.
const KINDS: [Kind; 10] = [
    Kind::KillBroker,
    Kind::KillControlPlane,
    Kind::KillSidecar,
    Kind::KillGateway,
    Kind::KillApplication,
    Kind::Pause,
    Kind::FullDisk,
    Kind::SilentPeers,
    Kind::SlowApplication,
    Kind::LaterApplication,
];
