//! What becomes of the processes while the demo runs: told where it is not the demo's own doing.

use std::future::Future;
use std::sync::Arc;

use super::narrate::Narrator;
use crate::up::event::Listener;
use crate::up::show::Prefixes;
use crate::up::{Event, Mesh, State};

/// Tells the events of `mesh` until there are no more; with `logs` the lines of every process too.
pub(super) fn tell(
    mut events: Listener,
    narrator: Arc<Narrator>,
    mesh: &Mesh,
    logs: bool,
) -> impl Future<Output = ()> + use<> {
    let names: Vec<_> = mesh.reports().into_iter().map(|report| report.instance).collect();
    let prefixes = Prefixes::new(&names);
    async move {
        while let Some(event) = events.recv().await {
            match &event {
                Event::Line { instance, text } if logs => narrator.passed_on(&prefixes.line(instance, text)).await,
                Event::State { instance, state: State::Restarting { why, .. } } => {
                    narrator.harm(&format!("{instance}: {why}; it is started again"));
                }
                Event::State { instance, state: State::Failed { why } } => {
                    narrator.harm(&format!("{instance}: {why}; it is given up"));
                }
                Event::Dropped { .. } if logs => {
                    if let Some(line) = prefixes.event(&event) {
                        narrator.passed_on(&line).await;
                    }
                }
                Event::Line { .. } | Event::State { .. } | Event::Mesh { .. } | Event::Dropped { .. } => {}
            }
        }
    }
}
