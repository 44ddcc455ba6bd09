//! What goes wrong along a chain of calls while each of its links looks right: retries that multiply, and callers that give up
//! before what they wait for.

use std::collections::BTreeMap;
use std::time::Duration;

use super::context::{Context, inner};
use crate::config::document;
use crate::config::finding::{Mistake, Place, code};
use crate::config::{Config, RetryOn};
use crate::name::Name;
use crate::unit::write_duration;

/// Most attempts that one request may come to at the end of a chain before that is worth a warning.
const CHAIN_ATTEMPTS_MAX: u64 = 16;

pub(super) fn chains(context: &mut Context<'_, '_>, config: &Config) {
    let (waves, circling) = config.waves();
    if circling.is_empty() {
        retries(context, config, &waves);
        timeouts(context, config);
    }
}

/// A failure at the end of a chain is tried again by every link: three links with two retries each make 27 attempts.
fn retries(context: &mut Context<'_, '_>, config: &Config, waves: &[Vec<Name>]) {
    // Attempts on a service for one request at the beginning of the worst chain that leads to it; callers come first.
    let mut attempts: BTreeMap<&Name, u64> = BTreeMap::new();
    for name in waves.iter().rev().flatten() {
        let so_far = attempts.get(name).copied().unwrap_or(1);
        for called in config.services.get(name).into_iter().flat_map(|service| &service.calls) {
            let own = attempts_on(config, called);
            let total = so_far.saturating_mul(own);
            let known = attempts.entry(called).or_insert(1);
            // Only the link that passes the bound is at fault; those behind it inherit.
            let passes = own > 1 && total > CHAIN_ATTEMPTS_MAX && so_far <= CHAIN_ATTEMPTS_MAX;
            let first = *known <= CHAIN_ATTEMPTS_MAX;
            *known = (*known).max(total);
            if let Some(at) =
                written(context, called, |route| Some(route.retry.as_ref()?.at)).filter(|_| passes && first)
            {
                let message =
                    format!("with those of its callers, these retries come to {total} attempts for one request");
                let mistake = Mistake::new(code::RETRIES_MULTIPLY, message);
                context.warning(at, mistake.expected("retries at one end of the chain, or fewer attempts"));
            }
        }
    }
}

/// Attempts of the most persistent route, counting only what is tried again after it was sent.
fn attempts_on(config: &Config, service: &Name) -> u64 {
    let unsent = [RetryOn::ConnectFailure, RetryOn::ResetBeforeProcessing];
    let routes = config.routes.get(service).into_iter().flatten();
    let persistent = routes.filter(|route| route.retry.on.iter().any(|condition| !unsent.contains(condition)));
    persistent.map(|route| u64::from(route.retry.attempts) + 1).max().unwrap_or(1)
}

/// Looks only at timeouts that were written: the default holds for everyone.
fn timeouts(context: &mut Context<'_, '_>, config: &Config) {
    for (name, service) in &config.services {
        let request = |route: &document::Route| Some(inner(route.timeouts.as_ref())?.request.as_ref()?.at);
        let Some(at) = written(context, name, request) else { continue };
        let Some(longest) = requests(config, name).try_fold(Duration::ZERO, |longest, own| Some(longest.max(own?)))
        else {
            continue;
        };
        for called in &service.calls {
            let shortest = requests(config, called).flatten().min();
            let Some(shortest) = shortest.filter(|shortest| *shortest > longest) else { continue };
            if written(context, called, request).is_some() {
                let (longest, shortest) = (write_duration(longest), write_duration(shortest));
                let message = format!("callers give `{name}` {longest}, but it waits up to {shortest} for `{called}`");
                let mistake = Mistake::new(code::TIMEOUT_ORDER, message);
                context.warning(at, mistake.expected("a timeout that is longer than those of the services it calls"));
            }
        }
    }
}

fn requests<'c>(config: &'c Config, service: &Name) -> impl Iterator<Item = Option<Duration>> + use<'c> {
    config.routes.get(service).into_iter().flatten().map(|route| route.timeouts.request)
}

/// The place of something that a route of the service says.
fn written(
    context: &Context<'_, '_>,
    service: &Name,
    what: impl Fn(&document::Route) -> Option<Place>,
) -> Option<Place> {
    let routes = context.mesh.routes.iter().filter_map(|located| located.value.as_ref());
    let own = routes.filter(|route| route.service.as_ref().is_some_and(|owner| owner.text() == service.as_str()));
    own.filter_map(what).next()
}
