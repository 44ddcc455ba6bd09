//! The trace hash: everything that the simulated network carries and everything that the applications record, in order. Two runs
//! of one seed are the same run exactly when their hashes agree.

use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The network's own events carry this target.
pub const NETWORK: &str = "turmoil";

/// A running hash; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Trace(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    // SipHash with fixed keys: the same in every process of one build.
    hasher: DefaultHasher,
    events: u64,
    shown: bool,
}

impl Trace {
    /// A hash that also shows each line on standard error, for finding where two runs part.
    #[must_use]
    pub fn shown() -> Self {
        Self(Arc::new(Mutex::new(State { shown: true, ..State::default() })))
    }

    /// Takes in a line.
    pub fn line(&self, line: fmt::Arguments<'_>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.events += 1;
        if state.shown {
            eprintln!("{line}");
        }
        // Writing into a hasher cannot fail.
        let _ = fmt::write(&mut Sink(&mut state.hasher), line);
        state.hasher.write_u8(b'\n');
    }

    /// The hash so far, and of how many lines.
    #[must_use]
    pub fn hash(&self) -> (u64, u64) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.hasher.finish(), state.events)
    }
}

impl<S: Subscriber> Layer<S> for Trace {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != NETWORK {
            return;
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.line(format_args!("{:?} {}", turmoil::sim_elapsed(), line.0));
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a String cannot fail.
        let _ = fmt::write(&mut self.0, format_args!("{field}={value:?} "));
    }
}

struct Sink<'a>(&'a mut DefaultHasher);

impl fmt::Write for Sink<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
