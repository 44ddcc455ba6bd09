//! The operator's half of the control plane's admin API: what is in force, what was before, and a new mesh file or an old revision.

use std::net::SocketAddr;

use bytes::Bytes;
use control::view::{Instance, Sidecar};
use control::{Kept, Publication};
use http::{Request, StatusCode, header};
use http_body_util::Full;
use model::config::Change;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::{self, Answer, Client};

/// A control plane, as an operator reaches it.
#[derive(Debug)]
pub(crate) struct Operator {
    address: SocketAddr,
    client: Client,
}

/// What a change would come to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Preview {
    /// The revision in force.
    pub(crate) from: u64,
    /// What would become different.
    pub(crate) changes: Vec<Change>,
}

/// A number of a revision, and whatever stands beside it.
#[derive(Deserialize)]
struct Numbered {
    revision: u64,
}

/// What was asked for did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody answers.
    #[error("the control plane at http://{address} does not answer: {error}")]
    Away {
        address: SocketAddr,
        #[source]
        error: client::Error,
    },
    /// Somebody else has changed the mesh.
    #[error("revision {current} is in force now: somebody has changed the mesh meanwhile")]
    Moved { current: u64 },
    /// The control plane refuses it, in its own words.
    #[error("the control plane refuses it: {why}")]
    Refused { status: StatusCode, why: String },
    /// Its answer is not understood: it is of another release.
    #[error("the control plane at http://{address} answered what this release does not understand: {why}")]
    Odd { address: SocketAddr, why: String },
}

impl Operator {
    /// Of the control plane whose admin API is at `address`.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, client: Client::new(address, &address.to_string()) }
    }

    /// The revision in force.
    pub(crate) async fn in_force(&self) -> Result<u64, Error> {
        self.get("/v1/mesh").await.map(|Numbered { revision }| revision)
    }

    /// The revision in force, when it is another one than `seen`.
    pub(crate) async fn other_than(&self, seen: u64) -> Result<Option<u64>, Error> {
        let request = Request::get("/v1/mesh").header(header::IF_NONE_MATCH, tag(seen)).body(Full::default());
        let answer = self.send(request).await?;
        if answer.status == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        self.read(&answer).map(|Numbered { revision }| Some(revision))
    }

    /// The kept revisions, oldest first.
    pub(crate) async fn kept(&self) -> Result<Vec<Kept>, Error> {
        #[derive(Deserialize)]
        struct Listed {
            revisions: Vec<Kept>,
        }
        self.get("/v1/revisions").await.map(|listed: Listed| listed.revisions)
    }

    /// The connected roles, and how far each is.
    pub(crate) async fn roles(&self) -> Result<Vec<Sidecar>, Error> {
        #[derive(Deserialize)]
        struct Listed {
            sidecars: Vec<Sidecar>,
        }
        self.get("/v1/sidecars").await.map(|listed: Listed| listed.sidecars)
    }

    /// The instances that the control plane knows.
    pub(crate) async fn instances(&self) -> Result<Vec<Instance>, Error> {
        #[derive(Deserialize)]
        struct Listed {
            instances: Vec<Instance>,
        }
        self.get("/v1/registry").await.map(|listed: Listed| listed.instances)
    }

    /// What publishing mesh files would change.
    pub(crate) async fn preview(&self, publication: &Publication) -> Result<Preview, Error> {
        let answer = self.send(self.posted("/v1/mesh?dry_run=true", publication)?.body()).await?;
        self.read(&answer)
    }

    /// What a rollback to revision `to` would change.
    pub(crate) async fn preview_rollback(&self, to: u64) -> Result<Preview, Error> {
        let request = Request::post(format!("/v1/revisions/{to}/rollback?dry_run=true"));
        let answer = self.send(request.body(Full::default())).await?;
        self.read(&answer)
    }

    /// Publishes mesh files in the place of revision `from`, and answers the number of the revision that is in force then.
    pub(crate) async fn publish(&self, publication: &Publication, from: u64) -> Result<u64, Error> {
        let Posted { request, body } = self.posted("/v1/mesh", publication)?;
        self.change(request, body, from).await
    }

    /// Publishes what revision `to` held in the place of revision `from`, and answers as [`Operator::publish`].
    pub(crate) async fn roll_back(&self, to: u64, from: u64) -> Result<u64, Error> {
        self.change(Request::post(format!("/v1/revisions/{to}/rollback")), Vec::new(), from).await
    }

    fn posted(&self, path: &str, publication: &Publication) -> Result<Posted, Error> {
        let body = serde_json::to_vec(publication).map_err(|error| self.odd(&error))?;
        Ok(Posted { request: Request::post(path).header(header::CONTENT_TYPE, "application/json"), body })
    }

    async fn change(&self, request: http::request::Builder, body: Vec<u8>, from: u64) -> Result<u64, Error> {
        let answer = self.send(request.header(header::IF_MATCH, tag(from)).body(Full::new(Bytes::from(body)))).await?;
        if answer.status == StatusCode::PRECONDITION_FAILED {
            let Numbered { revision } = answer.json().map_err(|error| self.odd(&error))?;
            return Err(Error::Moved { current: revision });
        }
        self.read(&answer).map(|Numbered { revision }| revision)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let answer = self.send(Request::get(path).body(Full::default())).await?;
        self.read(&answer)
    }

    async fn send(&self, request: http::Result<Request<Full<Bytes>>>) -> Result<Answer, Error> {
        let request = request.map_err(|error| self.odd(&error))?;
        self.client.send(request).await.map_err(|error| Error::Away { address: self.address, error })
    }

    fn read<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, Error> {
        if !answer.status.is_success() {
            return Err(Error::Refused { status: answer.status, why: why(answer) });
        }
        answer.json().map_err(|error| self.odd(&error))
    }

    fn odd(&self, why: &dyn std::fmt::Display) -> Error {
        Error::Odd { address: self.address, why: why.to_string() }
    }
}

/// A request that carries mesh files.
struct Posted {
    request: http::request::Builder,
    body: Vec<u8>,
}

impl Posted {
    fn body(self) -> http::Result<Request<Full<Bytes>>> {
        self.request.body(Full::new(Bytes::from(self.body)))
    }
}

fn tag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// What a problem document says; of a mesh file with mistakes, each of them.
fn why(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Problem {
        #[serde(default)]
        detail: String,
        #[serde(default)]
        findings: Vec<Finding>,
    }
    #[derive(Deserialize)]
    struct Finding {
        file: String,
        line: u32,
        column: u32,
        message: String,
    }
    let Ok(problem) = answer.json::<Problem>() else { return answer.title() };
    let findings = problem.findings.iter();
    let lines = findings.map(|f| format!("\n{}:{}:{}: {}", f.file, f.line, f.column, f.message)).collect::<String>();
    match problem.detail.is_empty() {
        true => answer.title() + &lines,
        false => problem.detail + &lines,
    }
}
