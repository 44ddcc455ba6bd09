//! Dead letters, their redrives and their end: the same for a queue and for a subscription.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::request::Parts;
use model::position::Position;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Caller, Nothing, Problem, Told};
use crate::cloudevents;
use crate::consume::{self, DeadLetter};
use crate::core::Core;
use crate::purge;
use crate::record::Group;
use crate::redrive::{self, Asked, Progress};
use crate::refusal::Refusal;

/// The queue or subscription of the path, for a caller who may have its dead letters.
pub(super) struct Whose(Group);

impl FromRequestParts<Arc<Core>> for Whose {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, Problem> {
        let Caller(caller) = Caller::from_request_parts(parts, core).await?;
        let Path(names) = Path::<BTreeMap<String, String>>::from_request_parts(parts, core).await?;
        let name = |part| names.get(part).map_or("", String::as_str);
        if names.contains_key("queue") {
            return Ok(Self(consume::queue(core, &caller, name("queue"))?.0));
        }
        let (topic, name) = consume::subscription(core, &caller, name("topic"), name("name"))?;
        Ok(Self(Group::Subscription { topic, name }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    #[serde(default)]
    after: u64,
    #[serde(default = "hundred")]
    max: usize,
}

const fn hundred() -> usize {
    100
}

pub(super) async fn list(
    State(core): State<Arc<Core>>,
    Whose(group): Whose,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let letters = consume::dead_letters(&core, &group, Position(query.after), query.max).await?;
    let dead_letters = letters.iter().map(|letter| written(&group, letter)).collect();
    Ok(Json(DeadLetters { dead_letters }).into_response())
}

/// What is answered: events stand in it as they were published, so it is written as text, and never as a [`Value`].
#[derive(Serialize)]
struct DeadLetters<'a> {
    dead_letters: Vec<Written<'a>>,
}

#[derive(Serialize)]
struct Written<'a> {
    position: Position,
    origin: String,
    reason: &'a str,
    attempts: u32,
    failed: u32,
    published_ms: u64,
    died_ms: u64,
    event: cloudevents::json::Object<'a>,
}

fn written<'a>(group: &Group, letter: &'a DeadLetter) -> Written<'a> {
    Written {
        position: letter.position,
        origin: group.to_string(),
        reason: &letter.reason,
        attempts: letter.assigned,
        failed: letter.failed,
        published_ms: letter.published_ms,
        died_ms: letter.died_ms,
        event: cloudevents::json::Object(&letter.event),
    }
}

/// All of them, or those of each `position=`. A body is refused: whoever chooses in it would lose all.
pub(super) async fn purge(
    State(core): State<Arc<Core>>,
    Whose(group): Whose,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    Told(Nothing {}): Told<Nothing>,
) -> Result<Json<Value>, Problem> {
    let Query(query) = query?;
    let chosen: Vec<Position> = query.iter().map(position).collect::<Result<_, _>>()?;
    let dropped = purge::run(&core, &group, (!chosen.is_empty()).then_some(chosen)).await?;
    Ok(Json(json!({ "dropped": dropped })))
}

fn position((name, value): &(String, String)) -> Result<Position, Refusal> {
    match (name.as_str(), value.parse()) {
        ("position", Ok(position)) => Ok(Position(position)),
        ("position", Err(why)) => Err(Refusal::Invalid(format!("position={value}: {why}"))),
        _ => Err(Refusal::Invalid(format!("unknown query parameter {name:?}; dead letters are chosen by position="))),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Redrive {
    positions: Option<Vec<Position>>,
    rate: Option<u32>,
}

/// 200 when it is done already, 202 while it runs.
pub(super) async fn redrive(
    State(core): State<Arc<Core>>,
    Whose(group): Whose,
    Told(Redrive { positions, rate }): Told<Redrive>,
) -> Result<(StatusCode, Json<Progress>), Problem> {
    let progress = redrive::begin(&core, group, Asked { positions, rate }).await?;
    let is_running = progress.state == redrive::State::Running;
    Ok((if is_running { StatusCode::ACCEPTED } else { StatusCode::OK }, Json(progress)))
}

pub(super) async fn progress(State(core): State<Arc<Core>>, Whose(group): Whose) -> Result<Json<Progress>, Problem> {
    Ok(Json(redrive::show(&core, &group)?))
}

pub(super) async fn cancel(State(core): State<Arc<Core>>, Whose(group): Whose) -> Result<Json<Progress>, Problem> {
    Ok(Json(redrive::cancel(&core, &group).await?))
}
