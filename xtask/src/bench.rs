//! `cargo xtask bench`: Meshwork and its peers side by side in one run, on one machine, each with one worker.
//!
//! What counts are ratios: processor time per request or message from `/proc` of the server processes, and messages per
//! second where a publisher waits. Rounds alternate between the two sides, and the median of the rounds' figures is told.

mod broker;
mod load;
mod mesh;
mod nats;
mod origin;
mod peers;
pub mod process;
mod proxy;
mod publisher;

use std::cell::Cell;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

pub use mesh::{build, target};
pub use origin::serve as serve_origin;

/// What is measured.
#[derive(Subcommand)]
pub enum Bench {
    /// Processor time per request through the data plane, beside HAProxy and Envoy
    Proxy(Options),
    /// Acknowledged messages per second, beside NATS JetStream
    Broker(Options),
}

/// How it is measured.
#[derive(Args, Clone)]
pub struct Options {
    /// `text` for people, `json` for one object a line
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Seconds of each round
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Rounds of each side
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Measure the release binary that is there instead of building it
    #[arg(long)]
    no_build: bool,
    /// Only the cases whose name holds this
    #[arg(long)]
    only: Option<String>,
    /// How many bars were missed.
    #[arg(skip)]
    missed: Cell<u32>,
}

/// How results are written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// One comparison.
#[derive(Serialize)]
struct Comparison {
    case: String,
    ours: f64,
    peer: f64,
    peer_name: String,
    unit: &'static str,
    ratio: f64,
    bar: String,
    holds: bool,
}

/// What a ratio must be.
#[derive(Clone, Copy)]
enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

impl Comparison {
    fn new(case: &str, unit: &'static str, ours: f64, peer: (&str, f64), bar: Bar) -> Self {
        let ratio = ours / peer.1;
        let (bar, holds) = match bar {
            Bar::AtMost(most) => (format!("<= {most}"), ratio <= most),
            Bar::AtLeast(least) => (format!(">= {least}"), ratio >= least),
        };
        Self { case: case.to_owned(), ours, peer: peer.1, peer_name: peer.0.to_owned(), unit, ratio, bar, holds }
    }
}

impl Options {
    fn wants(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|part| case.contains(part.as_str()))
    }

    fn tell(&self, comparison: &Comparison) -> anyhow::Result<()> {
        self.missed.set(self.missed.get() + u32::from(!comparison.holds));
        match self.format {
            Format::Json => println!("{}", serde_json::to_string(comparison)?),
            Format::Text => println!(
                "{:<34} ours {:>10.2}  {:<22} {:>10.2} {:<12} ratio {:>6.3}  bar {:<8} {}",
                comparison.case,
                comparison.ours,
                comparison.peer_name,
                comparison.peer,
                comparison.unit,
                comparison.ratio,
                comparison.bar,
                if comparison.holds { "holds" } else { "FALLS SHORT" },
            ),
        }
        Ok(())
    }
}

/// Runs a benchmark. The load and the gRPC origin are of this program: it runs itself anew as an optimised build first, since
/// one without optimisation would be what is measured.
///
/// # Errors
/// When a side cannot be started or driven, or a bar is missed.
pub fn run(bench: &Bench) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        return optimised();
    }
    let options = match bench {
        Bench::Proxy(options) => proxy::run(options).map(|()| options)?,
        Bench::Broker(options) => broker::run(options).map(|()| options)?,
    };
    match options.missed.get() {
        0 => Ok(()),
        missed => anyhow::bail!(
            "{missed} of the bars above are missed; repeat it with nothing else running before you believe it"
        ),
    }
}

fn optimised() -> anyhow::Result<()> {
    let status = std::process::Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--profile", "sim", "--package", "xtask", "--"])
        .args(std::env::args_os().skip(1))
        .current_dir(crate::generate::root())
        .status()?;
    anyhow::ensure!(status.success(), "the benchmark did not end well");
    Ok(())
}

/// The middle one.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
