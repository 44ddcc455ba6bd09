//! `cargo xtask bench broker`: 64 publishers of 1 KiB, each waiting for its acknowledgement, beside NATS JetStream.
//!
//! Both sides are driven alike: one connection, one outstanding message for each publisher, the next one sent when its
//! acknowledgement has come. Ours goes the way of an application: through its sidecar, over mutual TLS, level `sync`.

use std::time::Duration;

use super::mesh::{self, Mesh};
use super::nats::{self, Nats};
use super::process::cpu_us;
use super::publisher::Publisher;
use super::{Bar, Comparison, Options, median, origin};

/// Publishers at a time.
pub const PUBLISHERS: usize = 64;
/// Bytes of a message.
pub const MESSAGE_BYTES: usize = 1_024;

const SYNC_ALWAYS: Bar = Bar::AtLeast(5.0);
const DEFAULT: Bar = Bar::AtLeast(0.6);

/// What a round gave.
pub struct Round {
    /// Acknowledged messages.
    pub messages: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Runs all cases.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if !options.no_build {
        mesh::build()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(compare(options))
}

async fn compare(options: &Options) -> anyhow::Result<()> {
    // Nothing calls the applications: any port that answers will do for their health.
    let (_origin, origin) = origin::http1()?;
    let mesh = Mesh::start("broker", &mesh_file(origin.port()), &["broker", "publisher-0"])?;
    let ours = (mesh.address("publisher-0", "outbound")?, vec![mesh.pid("broker"), mesh.pid("publisher-0")]);
    let default = Nats::start("nats-default", nats::Sync::Default)?;
    let always = Nats::start("nats-always", nats::Sync::Always)?;
    let seconds = Duration::from_secs(u64::from(options.seconds));
    let (mut rates, mut costs) = (vec![Vec::new(); 3], vec![Vec::new(); 3]);
    for round in 0..=options.rounds {
        for side in 0..3 {
            let pids = [&ours.1, &default.pids, &always.pids][side];
            let before = cpu_us(pids)?;
            let done = match side {
                0 => Publisher::open(ours.0, round.to_string()).await?.publish(seconds).await?,
                1 => default.publish(seconds).await?,
                _ => always.publish(seconds).await?,
            };
            let (rate, cost) =
                (done.messages as f64 / done.elapsed.as_secs_f64(), (cpu_us(pids)? - before) / done.messages as f64);
            eprintln!(
                "  round {round}: {:<16} {rate:>9.0} messages/s, {cost:>7.2} us/message",
                ["meshwork", "nats default", "nats always"][side]
            );
            if round > 0 {
                rates[side].push(rate);
                costs[side].push(cost);
            }
        }
    }
    let rates: Vec<f64> = rates.into_iter().map(median).collect();
    let costs: Vec<f64> = costs.into_iter().map(median).collect();
    let case = "publish 1KiB, 64 publishers, sync";
    options.tell(&Comparison::new(case, "messages/s", rates[0], ("nats sync always", rates[2]), SYNC_ALWAYS))?;
    options.tell(&Comparison::new(case, "messages/s", rates[0], ("nats default, no sync", rates[1]), DEFAULT))?;
    // There is no bar on the processor time yet; it is told because it says where the rest goes.
    options.tell(&Comparison::new(
        "publish, processor time",
        "us/message",
        costs[0],
        ("nats default, no sync", costs[1]),
        Bar::AtMost(f64::INFINITY),
    ))
}

fn mesh_file(port: u16) -> String {
    format!(
        "mesh: bench\nservices:\n  publisher: {{protocol: http, port: {port}, publishes: [load]}}\n  \
         consumer: {{protocol: http, port: {port}, consumes: [{{queue: load}}]}}\n\
         queues:\n  load: {{messages_max: 100000000}}\n"
    )
}
