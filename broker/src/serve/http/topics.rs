//! Topics: reading, and subscriptions.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use model::name::Name;
use model::position::Position;
use serde::{Deserialize, Serialize};

use super::{Caller, Problem, Told};
use crate::cloudevents;
use crate::consume;
use crate::core::Core;
use crate::ledger::lock;
use crate::refusal::Refusal;
use crate::status::SubscriptionStatus;
use crate::topic::Target;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadQuery {
    #[serde(default)]
    from: u64,
    #[serde(default = "hundred")]
    max: usize,
}

const fn hundred() -> usize {
    100
}

/// Exactly one of them.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Seek {
    Position(Position),
    TimeMs(u64),
    /// `{"to": "earliest"}` or `{"to": "latest"}`.
    To(End),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    Earliest,
    Latest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pause {
    paused: bool,
}

/// What is answered: events stand in it as they were published.
#[derive(Serialize)]
struct Events<'a> {
    events: Vec<Read<'a>>,
    next: Position,
}

#[derive(Serialize)]
struct Read<'a> {
    event: cloudevents::json::Object<'a>,
    position: Position,
}

pub(super) async fn read(
    State(core): State<Arc<Core>>,
    Path(name): Path<String>,
    Caller(caller): Caller,
    query: Result<Query<ReadQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let topic = consume::topic(&core, &caller, &name)?;
    let (events, next) = consume::read(&core, &topic, Position(query.from), query.max).await?;
    let written = |(position, event)| Read { event: cloudevents::json::Object(event), position };
    let events = events.iter().map(|(position, event)| written((*position, event))).collect();
    Ok(Json(Events { events, next }).into_response())
}

pub(super) async fn show(
    State(core): State<Arc<Core>>,
    Path((topic, name)): Path<(String, String)>,
    Caller(caller): Caller,
) -> Result<Json<SubscriptionStatus>, Problem> {
    let (topic, name) = consume::subscription(&core, &caller, &topic, &name)?;
    state(&core, &topic, &name)
}

pub(super) async fn seek(
    State(core): State<Arc<Core>>,
    Path((topic, name)): Path<(String, String)>,
    Caller(caller): Caller,
    Told(to): Told<Seek>,
) -> Result<Json<SubscriptionStatus>, Problem> {
    let target = match to {
        Seek::Position(position) => Target::Position(position),
        Seek::TimeMs(time_ms) => Target::Time(time_ms),
        Seek::To(End::Earliest) => Target::Earliest,
        Seek::To(End::Latest) => Target::Latest,
    };
    let (topic, name) = consume::seek(&core, &caller, &topic, &name, target).await?;
    state(&core, &topic, &name)
}

pub(super) async fn pause(
    State(core): State<Arc<Core>>,
    Path((topic, name)): Path<(String, String)>,
    Caller(caller): Caller,
    Told(Pause { paused }): Told<Pause>,
) -> Result<Json<SubscriptionStatus>, Problem> {
    let (topic, name) = consume::pause(&core, &caller, &topic, &name, paused).await?;
    state(&core, &topic, &name)
}

fn state(core: &Core, topic: &Name, name: &Name) -> Result<Json<SubscriptionStatus>, Problem> {
    let books = lock(&core.ledger.books);
    let found = books.topics.get(topic).and_then(|topic| Some((topic, topic.subscriptions.get(name)?)));
    let absent = || Problem(Refusal::Absent(format!("{topic} has no subscription {name}")));
    let (topic, subscription) = found.ok_or_else(absent)?;
    Ok(Json(SubscriptionStatus::of(topic, subscription)))
}
