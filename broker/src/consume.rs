//! What consumers and operators ask for, whatever they speak: leases, dead letters, subscriptions, reading. HTTP and gRPC are two
//! thin edges in front of it.

use std::time::Duration;

use api::broker::Event;
use model::identity::Subject;
use model::name::Name;
use model::position::Position;
use policy::authorize;
use policy::schedule::{ASKED_WAIT_MAX, Cause};

use crate::books::Given;
use crate::core::Core;
use crate::deliveries::{BYTES_AT_A_TIME_MAX, Lease, State};
use crate::ledger::lock;
use crate::moment::millis;
use crate::record::Group;
use crate::refusal::Refusal;
use crate::topic::Target;
use crate::verdict::{Change, Done};

/// How many messages one request leases, acknowledges or reads at most.
pub const MAX: usize = 1_000;
/// How much a consumer may say of a message that it gives back, in bytes.
pub const REASON_BYTES_MAX: usize = 1 << 10;
/// How long a request for leases waits at most. Callers' sidecars know of it.
pub const WAIT_MAX: Duration = model::config::LEASE_WAIT_MAX;
/// How long a lease holds at most, with all its extensions (SQS: 12 hours).
pub const HOLD_MAX: Duration = Duration::from_secs(12 * 3_600);

/// A message that was leased.
#[derive(Debug, Clone)]
pub struct Leased {
    /// The hold on it.
    pub lease: Lease,
    /// The how-manieth time that somebody got it, from 1.
    pub attempt: u32,
    /// When the hold ends, as wall time in milliseconds.
    pub expires_ms: u64,
    /// The message.
    pub event: Event,
}

/// A dead letter.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Where it stands.
    pub position: Position,
    /// Why it is dead.
    pub reason: String,
    /// How often it was given out.
    pub assigned: u32,
    /// How often that failed.
    pub failed: u32,
    /// When it was published, as wall time in milliseconds.
    pub published_ms: u64,
    /// When it died, as wall time in milliseconds.
    pub died_ms: u64,
    /// The message.
    pub event: Event,
}

/// How a lease stands in a text.
#[must_use]
pub fn lease_text(lease: Lease) -> String {
    format!("{}-{:x}", lease.position, lease.fence)
}

/// Reads what [`lease_text`] has written.
///
/// # Errors
/// When it has not.
pub fn read_lease(text: &str) -> Result<Lease, Refusal> {
    let parsed = text.split_once('-').and_then(|(position, fence)| {
        Some(Lease { position: Position(position.parse().ok()?), fence: u64::from_str_radix(fence, 16).ok()? })
    });
    parsed.ok_or_else(|| Refusal::Invalid(format!("{text:?} is not a lease; use the text that came with the message")))
}

/// The queue of that name, for somebody who consumes from it.
///
/// # Errors
/// When there is none, or the graph has no edge from it.
pub fn queue(core: &Core, caller: &Subject, name: &str) -> Result<(Group, Name), Refusal> {
    let part = core.part()?;
    authorize::consume(&part, caller, name)?;
    match (part.queues.get_key_value(name), caller) {
        (Some((name, _)), Subject::Service(consumer)) => Ok((Group::Queue(name.clone()), consumer.clone())),
        _ => Err(Refusal::Absent(format!("{name} is a topic: it is reached as /v1/topics/{name}"))),
    }
}

/// The topic of that name, for somebody who consumes from it.
///
/// # Errors
/// When there is none, or the graph has no edge from it.
pub fn topic(core: &Core, caller: &Subject, name: &str) -> Result<Name, Refusal> {
    let part = core.part()?;
    authorize::consume(&part, caller, name)?;
    let found = part.topics.get_key_value(name).map(|(name, _)| name.clone());
    found.ok_or_else(|| Refusal::Absent(format!("{name} is a queue: it is reached as /v1/queues/{name}")))
}

/// The subscription of that name, for the service whose it is.
///
/// # Errors
/// When there is none, or it is somebody else's.
pub fn subscription(core: &Core, caller: &Subject, topic_name: &str, name: &str) -> Result<(Name, Name), Refusal> {
    let topic = topic(core, caller, topic_name)?;
    match caller {
        Subject::Service(service) if service.as_str() == name => Ok((topic, service.clone())),
        _ => Err(Refusal::NotYours { by: caller.clone(), name: name.to_owned() }),
    }
}

/// Leases up to `max` messages for `hold`, or the queue's ack timeout, and waits up to `wait` for the first.
///
/// # Errors
/// When the caller may not, or a bound is passed.
pub async fn lease(
    core: &Core,
    caller: &Subject,
    name: &str,
    max: usize,
    (wait, hold): (Duration, Option<Duration>),
) -> Result<Vec<Leased>, Refusal> {
    let (group, consumer) = queue(core, caller, name)?;
    check_max(max)?;
    if wait > WAIT_MAX {
        return Err(Refusal::Invalid(format!("wait is at most {}", model::unit::write_duration(WAIT_MAX))));
    }
    let hold = hold.unwrap_or_else(|| lock(&core.ledger.books).delivery(&group).ack_timeout);
    if hold.is_zero() || hold > HOLD_MAX {
        return Err(Refusal::Invalid(format!("a hold is at most {}", model::unit::write_duration(HOLD_MAX))));
    }
    let given = await_ready(core, &group, &consumer, max, (wait, hold)).await?;
    let mut unreturned = Unreturned { core, group: &group, leases: given.iter().map(|given| given.lease).collect() };
    let expires_ms = runtime::clock::wall_ms().saturating_add(millis(hold));
    let mut leases = Vec::with_capacity(given.len());
    for one in given {
        match core.event(&group, one.lease.position, one.message.index.at).await {
            Ok(event) => {
                let attempt = one.message.attempts.assigned;
                leases.push(Leased { lease: one.lease, attempt, expires_ms, event });
            }
            Err(refusal) => {
                tracing::error!(%group, position = %one.lease.position, %refusal, "a message cannot be read");
                unreturned.leases.retain(|lease| *lease != one.lease);
                let reason = refusal.to_string();
                let end = Change::End { group: group.clone(), lease: one.lease, cause: Cause::Failed, reason };
                if let Err(refusal) = core.change(end).await {
                    // Its lease runs out by itself, which counts as well.
                    tracing::warn!(%group, position = %one.lease.position, %refusal, "its failure was not written down");
                }
            }
        }
    }
    unreturned.leases.clear();
    Ok(leases)
}

/// Leases that nobody has been told of yet. When they are dropped, since who asked has gone away, their messages are ready again.
struct Unreturned<'a> {
    core: &'a Core,
    group: &'a Group,
    leases: Vec<Lease>,
}

impl Drop for Unreturned<'_> {
    fn drop(&mut self) {
        if !self.leases.is_empty() {
            self.core.give_back(self.group, &self.leases);
        }
    }
}

async fn await_ready(
    core: &Core,
    group: &Group,
    consumer: &Name,
    max: usize,
    (wait, hold): (Duration, Duration),
) -> Result<Vec<Given>, Refusal> {
    let absent = || Refusal::Absent(format!("there is no {group}"));
    let wake = lock(&core.ledger.books).served(group).map(|served| served.wake.clone()).ok_or_else(absent)?;
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        let notified = wake.notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        let given = core.take(group, consumer, max, Some(hold));
        if !given.is_empty() {
            return Ok(given);
        }
        check_dead_letters(core, group)?;
        if wait.is_zero() {
            return Ok(given);
        }
        if let Some(failure) = core.ledger.failure() {
            return Err(Refusal::Engine(failure));
        }
        if tokio::time::timeout_at(deadline, notified).await.is_err() {
            return Ok(Vec::new());
        }
    }
}

/// An empty answer would look as if there were nothing to do.
fn check_dead_letters(core: &Core, group: &Group) -> Result<(), Refusal> {
    let books = lock(&core.ledger.books);
    match books.served(group).map(|served| &served.deliveries) {
        Some(deliveries) if deliveries.is_full_of_dead() => {
            Err(Refusal::DeadLetters { group: group.clone(), dead: deliveries.dead().len() })
        }
        _ => Ok(()),
    }
}

/// Acknowledges leases: all of them, or none when one does not count any more.
///
/// # Errors
/// When the caller may not, a bound is passed, or a lease does not count any more.
pub async fn ack(core: &Core, caller: &Subject, name: &str, leases: Vec<Lease>) -> Result<Done, Refusal> {
    let (group, _) = queue(core, caller, name)?;
    if leases.len() > MAX {
        return Err(Refusal::Invalid(format!("at most {MAX} leases are acknowledged at a time")));
    }
    core.change(Change::Settle { group, leases }).await
}

/// Gives a lease back, for later, or to the dead letters.
///
/// # Errors
/// As [`ack`].
pub async fn nack(
    core: &Core,
    caller: &Subject,
    name: &str,
    lease: Lease,
    (delay, reject, reason): (Option<Duration>, bool, String),
) -> Result<Done, Refusal> {
    let (group, _) = queue(core, caller, name)?;
    if reject && delay.is_some() {
        return Err(Refusal::Invalid("a rejected message does not come again; it takes no delay".to_owned()));
    }
    if delay.is_some_and(|delay| delay > ASKED_WAIT_MAX) {
        let most = model::unit::write_duration(ASKED_WAIT_MAX);
        return Err(Refusal::Invalid(format!("a delay is at most {most}")));
    }
    if reason.len() > REASON_BYTES_MAX {
        return Err(Refusal::Invalid(format!("a reason is at most {REASON_BYTES_MAX} bytes long")));
    }
    let cause = if reject { Cause::Reject } else { Cause::Nack { delay } };
    core.change(Change::End { group, lease, cause, reason }).await
}

/// Holds a lease for longer, from now; answers when it ends, as wall time in milliseconds.
///
/// # Errors
/// When the caller may not, the lease does not count any more, or it has been held for as long as may be.
pub fn extend(core: &Core, caller: &Subject, name: &str, lease: Lease, hold: Option<Duration>) -> Result<u64, Refusal> {
    let (group, _) = queue(core, caller, name)?;
    let now = core.ledger.clock.now();
    let mut books = lock(&core.ledger.books);
    let hold = hold.unwrap_or_else(|| books.delivery(&group).ack_timeout);
    if hold.is_zero() {
        return Err(Refusal::Invalid("a lease is extended by more than nothing; to give it back, nack it".to_owned()));
    }
    let deliveries = &mut books.served_mut(&group).ok_or(Refusal::LeaseOver)?.deliveries;
    let held = deliveries.held(lease).filter(|held| held.ending.is_none());
    let Some(State::Leased { since, .. }) = held.map(|held| held.state) else {
        return Err(Refusal::LeaseOver);
    };
    let until = now.tick_ms.saturating_add(millis(hold));
    if until > since.saturating_add(millis(HOLD_MAX)) {
        let most = model::unit::write_duration(HOLD_MAX);
        return Err(Refusal::Invalid(format!("a message is held for {most} at most, with all extensions")));
    }
    deliveries.extend(lease.position, until);
    Ok(now.wall_of(until))
}

/// Dead letters behind a position, at most `max`.
///
/// # Errors
/// When they cannot be read, or a bound is passed.
pub async fn dead_letters(core: &Core, group: &Group, after: Position, max: usize) -> Result<Vec<DeadLetter>, Refusal> {
    check_max(max)?;
    let found: Vec<_> = {
        let books = lock(&core.ledger.books);
        let dead = books.served(group).map(|served| served.deliveries.dead());
        let behind = dead.into_iter().flat_map(|dead| dead.range(Position(after.0.saturating_add(1))..));
        let mut bytes = 0;
        let few = behind.take(max).take_while(|(_, dead)| few_enough(&mut bytes, dead.index.bytes));
        few.map(|(position, dead)| (*position, dead.clone())).collect()
    };
    let mut letters = Vec::with_capacity(found.len());
    for (position, dead) in found {
        let event = core.event(group, position, dead.index.at).await?;
        letters.push(DeadLetter {
            position,
            reason: dead.reason,
            assigned: dead.attempts.assigned,
            failed: dead.attempts.failed,
            published_ms: dead.index.published_ms,
            died_ms: dead.died_ms,
            event,
        });
    }
    Ok(letters)
}

/// Moves a subscription.
///
/// # Errors
/// When the caller may not.
pub async fn seek(
    core: &Core,
    caller: &Subject,
    topic: &str,
    name: &str,
    target: Target,
) -> Result<(Name, Name), Refusal> {
    let (topic, name) = subscription(core, caller, topic, name)?;
    core.change(Change::Seek { topic: topic.clone(), name: name.clone(), target }).await?;
    Ok((topic, name))
}

/// Pauses a subscription, or lets it go on.
///
/// # Errors
/// When the caller may not.
pub async fn pause(
    core: &Core,
    caller: &Subject,
    topic: &str,
    name: &str,
    paused: bool,
) -> Result<(Name, Name), Refusal> {
    let (topic, name) = subscription(core, caller, topic, name)?;
    core.change(Change::Pause { topic: topic.clone(), name: name.clone(), paused }).await?;
    Ok((topic, name))
}

/// Events of a topic from a position on, at most `max`, and where to go on.
///
/// # Errors
/// When they cannot be read, or a bound is passed.
pub async fn read(
    core: &Core,
    topic: &Name,
    from: Position,
    max: usize,
) -> Result<(Vec<(Position, Event)>, Position), Refusal> {
    check_max(max)?;
    let found: Vec<(Position, Position)> = {
        let books = lock(&core.ledger.books);
        let events = books.topics.get(topic).into_iter().flat_map(|topic| topic.from(from));
        let mut bytes = 0;
        let few = events.take(max).take_while(|(_, index)| few_enough(&mut bytes, index.bytes));
        few.map(|(position, index)| (*position, index.at)).collect()
    };
    let mut events = Vec::with_capacity(found.len());
    for (position, at) in found {
        let read = match core.payloads.event(at).await {
            Ok(event) => Ok(event),
            // It may have been carried elsewhere, or dropped by now.
            Err(refusal) => {
                let now_at =
                    lock(&core.ledger.books).topics.get(topic).and_then(|topic| topic.get(position)).map(|i| i.at);
                match now_at {
                    Some(now_at) if now_at != at => core.payloads.event(now_at).await,
                    Some(_) => Err(refusal),
                    None => continue,
                }
            }
        };
        events.push((position, read?));
    }
    let next = events.last().map_or(from, |(position, _)| Position(position.0 + 1));
    Ok((events, next))
}

fn check_max(max: usize) -> Result<(), Refusal> {
    if max == 0 || max > MAX {
        return Err(Refusal::Invalid(format!("max is from 1 to {MAX}")));
    }
    Ok(())
}

/// Whether a further message still belongs to one answer.
fn few_enough(bytes: &mut u64, more: u32) -> bool {
    let is_enough = *bytes >= BYTES_AT_A_TIME_MAX;
    *bytes += u64::from(more);
    !is_enough
}
