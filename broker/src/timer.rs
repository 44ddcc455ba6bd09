//! Time passing: delays and leases end, and what is kept for too long is dropped.

use std::sync::Arc;
use std::time::Duration;

use runtime::drain::Drain;

use crate::core::Core;
use crate::ledger::lock;

/// How often what is kept for too long is looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// Runs until the drain.
pub async fn run(core: Arc<Core>, drain: Drain) {
    let ledger = core.ledger.clone();
    let mut sweep = tokio::time::Instant::now() + SWEEP;
    loop {
        let is_sweep = tokio::time::Instant::now() >= sweep;
        if is_sweep && ledger.is_short_of_room() {
            // The committer looks whether something can go by now.
            core.flush();
        }
        let (next, to_notify) = {
            let mut books = lock(&ledger.books);
            let next = books.fire(ledger.clock.now());
            if is_sweep {
                sweep = tokio::time::Instant::now() + SWEEP;
                books.sweep(ledger.clock.now_for_age());
            }
            if !books.journal.is_empty() {
                core.flush();
            }
            (next, std::mem::take(&mut books.to_notify))
        };
        to_notify.notify();
        let wake = next.map_or(sweep, |tick| sweep.min(ledger.clock.instant(tick)));
        tokio::select! {
            () = tokio::time::sleep_until(wake) => {}
            () = ledger.timer.notified() => {}
            () = drain.requested() => return,
        }
    }
}
