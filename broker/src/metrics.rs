//! What the broker measures. Counts of messages stand in the books already; they are read from there when metrics are asked for, so
//! that no message pays for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use runtime::metrics::Metrics;

use crate::ledger::{Ledger, lock};
use crate::queue::Served;

/// What is measured of the engine.
#[derive(Debug)]
pub struct EngineMetrics {
    commit_seconds: Histogram,
    batch_records: Histogram,
    last_commit_us: AtomicU64,
}

impl EngineMetrics {
    /// Registers them.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let this = Self {
            commit_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            batch_records: Histogram::new(exponential_buckets(1.0, 2.0, 13)),
            last_commit_us: AtomicU64::new(0),
        };
        metrics.register(|registry| {
            let seconds = this.commit_seconds.clone();
            registry.register("broker_commit_seconds", "From a batch's first write to its last sync", seconds);
            let records = this.batch_records.clone();
            registry.register("broker_batch_records", "Records that one commit has written", records);
        });
        this
    }

    /// A batch was written.
    pub fn committed(&self, records: usize, elapsed: Duration) {
        self.commit_seconds.observe(elapsed.as_secs_f64());
        self.last_commit_us.store(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a batch has far fewer than 2^52 records")]
        self.batch_records.observe(records as f64);
    }
}

impl EngineMetrics {
    /// How long the last commit took, in microseconds.
    #[must_use]
    pub fn last_commit_us(&self) -> u64 {
        self.last_commit_us.load(Ordering::Relaxed)
    }
}

/// Reads the counts of messages from the books.
#[derive(Debug)]
pub struct MessageMetrics(pub Arc<Ledger>);

type Sample = (Vec<(&'static str, String)>, u64);

#[derive(Default)]
struct Samples {
    published: Vec<Sample>,
    delivered: Vec<Sample>,
    redelivered: Vec<Sample>,
    settled: Vec<Sample>,
    dead: Vec<Sample>,
    lag: Vec<Sample>,
    dead_letters: Vec<Sample>,
    blocked: Vec<Sample>,
}

impl Collector for MessageMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let samples = self.samples();
        for (name, help, samples) in [
            ("broker_published_messages", "Messages accepted", &samples.published),
            ("broker_delivered_messages", "Attempts to deliver", &samples.delivered),
            ("broker_redelivered_messages", "Attempts beyond the first of their message", &samples.redelivered),
            ("broker_settled_messages", "Messages acknowledged", &samples.settled),
            ("broker_dead_messages", "Messages moved to the dead letters", &samples.dead),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, value) in samples {
                let metric = ConstCounter::new(*value);
                metric.encode(family.encode_family(labels)?)?;
            }
        }
        for (name, help, samples) in [
            ("broker_lag_messages", "Messages that are not settled", &samples.lag),
            ("broker_dead_letters", "Dead letters that are kept", &samples.dead_letters),
            ("broker_blocked_by_dead_letters", "1 while there are too many to give anything out", &samples.blocked),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, value) in samples {
                let metric = ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX));
                metric.encode(family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

impl MessageMetrics {
    fn samples(&self) -> Samples {
        let books = lock(&self.0.books);
        let mut samples = Samples::default();
        for (name, queue) in &books.queues {
            let labels = vec![("destination", name.to_string())];
            samples.published.push((labels.clone(), queue.published.values().sum()));
            samples.lag.push((labels.clone(), queue.depth()));
            samples.served(&labels, &queue.served);
        }
        for (name, topic) in &books.topics {
            let labels = vec![("destination", name.to_string())];
            samples.published.push((labels, topic.published.values().sum()));
            for (consumer, subscription) in &topic.subscriptions {
                let labels = vec![("destination", name.to_string()), ("subscription", consumer.to_string())];
                samples.lag.push((labels.clone(), topic.lag(subscription)));
                samples.served(&labels, &subscription.served);
            }
        }
        samples
    }
}

impl Samples {
    fn served(&mut self, labels: &[(&'static str, String)], served: &Served) {
        let (tally, deliveries) = (&served.tally, &served.deliveries);
        for (samples, value) in [
            (&mut self.delivered, tally.delivered.values().sum()),
            (&mut self.redelivered, tally.redelivered),
            (&mut self.settled, tally.settled),
            (&mut self.dead, tally.dead),
            (&mut self.dead_letters, deliveries.dead().len() as u64),
            (&mut self.blocked, u64::from(deliveries.is_full_of_dead())),
        ] {
            samples.push((labels.to_vec(), value));
        }
    }
}
