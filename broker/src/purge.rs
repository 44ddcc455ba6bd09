//! Purges: dead letters are dropped at an operator's word.
//!
//! As in a redrive ([`crate::redrive`]) each step is one record in the log, so a crash in the middle leaves every dead letter there or gone. There is
//! no rate, since nobody is met by what is dropped, and no task: the answer comes when the last step is as durable as the destination asks, and
//! whoever got none asks again.

use model::position::Position;

use crate::core::Core;
use crate::ledger::lock;
use crate::record::Group;
use crate::refusal::Refusal;
use crate::selection;
use crate::verdict::Change;

/// How many dead letters one step drops, so that neither its record nor the time for which others wait grows with how many there are.
const STEP: usize = 10_000;

/// Drops dead letters of a group, at some positions or all that there are now, and answers how many.
///
/// # Errors
/// When a chosen dead letter is none; nothing was dropped then. When a step is refused; those before it were dropped.
pub async fn run(core: &Core, group: &Group, positions: Option<Vec<Position>>) -> Result<u64, Refusal> {
    let (mut selection, _) = selection::choose(&lock(&core.ledger.books), group, positions)?;
    let mut dropped = 0;
    loop {
        let (positions, is_last) = selection.next(&lock(&core.ledger.books), group, STEP);
        if !positions.is_empty() {
            dropped += core.change(Change::Forget { group: group.clone(), positions }).await?.count;
        }
        if is_last {
            break;
        }
    }
    tracing::info!(%group, dropped, "dead letters were dropped");
    Ok(dropped)
}
