//! How the mesh is changed through the operator's door: new mesh files, or an earlier revision again. It counts whole or not at all.
//!
//! A change may name the revision that it was made from, as the entity tag of `GET /v1/mesh` in `If-Match`; then it counts only while that
//! is in force (RFC 9110 §13.1.1).

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query as Url, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::config::Change;
use serde::Deserialize;
use serde_json::json;

use super::admin::{Admin, PROBLEM, problem};
use crate::publication::Publication;
use crate::publisher::Error;

/// What the query of a change may say.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Query {
    /// Nothing is changed; it is answered what would be.
    #[serde(default)]
    dry_run: bool,
}

/// What a change comes to.
enum Outcome {
    /// This revision is in force.
    InForce(u64),
    /// This would become different from this revision.
    Would(u64, Vec<Change>),
}

/// Why nothing was changed.
enum Refusal {
    /// A page in a browser asks.
    Page,
    /// `If-Match` names no revision.
    Tag,
    /// The body is none.
    Body(String),
    /// It did not become a revision.
    Publication(Error),
}

/// New mesh files: the body is the text of one, or as JSON a [`Publication`].
pub(super) async fn files(
    State(admin): State<Admin>,
    Url(query): Url<Query>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let change = || {
        let from = may_change(&headers)?;
        let publication = publication(&headers, &body)?;
        let publisher = &admin.publisher;
        let outcome = match query.dry_run {
            true => publisher.preview_files(&publication).map(|(from, changes)| Outcome::Would(from, changes)),
            false => publisher.publish_files(&publication, from).map(Outcome::InForce),
        };
        outcome.map_err(Refusal::Publication)
    };
    answer(change())
}

/// What an earlier revision held, as a new one.
pub(super) async fn rollback(
    State(admin): State<Admin>,
    Path(to): Path<u64>,
    Url(query): Url<Query>,
    headers: HeaderMap,
) -> Response {
    let change = || {
        let (from, publisher) = (may_change(&headers)?, &admin.publisher);
        let outcome = match query.dry_run {
            true => publisher.preview_rollback(to).map(|(from, changes)| Outcome::Would(from, changes)),
            false => publisher.roll_back(to, from).map(Outcome::InForce),
        };
        outcome.map_err(Refusal::Publication)
    };
    answer(change())
}

/// The entity tag of a revision.
pub(super) fn tag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// There is no such revision.
pub(super) fn not_kept(number: u64) -> Response {
    let detail = format!("revision {number} is not kept; `GET /v1/revisions` lists those that are");
    problem(StatusCode::NOT_FOUND, "No such revision", &detail)
}

/// Whether a change may come from there, and the revision that it was made from; `None`: it does not say.
fn may_change(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    // A page in a browser on this machine reaches loopback too, and says where it is from.
    if headers.contains_key(header::ORIGIN) {
        return Err(Refusal::Page);
    }
    let Some(from) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let number = from.to_str().ok().and_then(|text| text.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    number.map(Some).ok_or(Refusal::Tag)
}

fn publication(headers: &HeaderMap, body: &[u8]) -> Result<Publication, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let read = match kind.split(';').next().map(str::trim) {
        Some("application/json") => serde_json::from_slice(body).map_err(|error| error.to_string()),
        _ => String::from_utf8(body.to_vec()).map(Publication::of).map_err(|_| "it is not UTF-8 text".to_owned()),
    };
    read.map_err(Refusal::Body)
}

fn answer(outcome: Result<Outcome, Refusal>) -> Response {
    match outcome {
        Ok(Outcome::InForce(revision)) => {
            ([(header::ETAG, tag(revision))], Json(json!({ "revision": revision }))).into_response()
        }
        Ok(Outcome::Would(from, changes)) => Json(json!({ "from": from, "changes": changes })).into_response(),
        Err(Refusal::Page) => {
            let detail = "a mesh is changed by a program, not by a web page";
            problem(StatusCode::FORBIDDEN, "Not from a page", detail)
        }
        Err(Refusal::Tag) => {
            let detail = "`If-Match` names a revision as its number in double quotes";
            problem(StatusCode::BAD_REQUEST, "No entity tag of a revision", detail)
        }
        Err(Refusal::Body(why)) => problem(StatusCode::BAD_REQUEST, "No mesh file", &why),
        Err(Refusal::Publication(error)) => unpublished(error),
    }
}

fn unpublished(error: Error) -> Response {
    let detail = error.to_string();
    match error {
        Error::Mistakes(findings) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            let title = "The mesh file has mistakes";
            let body = json!({ "title": title, "status": status.as_u16(), "findings": findings });
            (status, [(header::CONTENT_TYPE, PROBLEM)], body.to_string()).into_response()
        }
        Error::OtherMesh { .. } => problem(StatusCode::CONFLICT, "The mesh file is of another mesh", &detail),
        Error::Moved { current, .. } => {
            let status = StatusCode::PRECONDITION_FAILED;
            let title = "The mesh has changed";
            let body = json!({ "title": title, "status": status.as_u16(), "detail": detail, "revision": current });
            let headers = [(header::CONTENT_TYPE, PROBLEM.to_owned()), (header::ETAG, tag(current))];
            (status, headers, body.to_string()).into_response()
        }
        Error::NotKept(number) => not_kept(number),
        Error::NothingToBeginWith(_) | Error::Disk(_) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, "The revision cannot be kept", &detail)
        }
    }
}
