//! The operator's half of the control plane's admin API: what is in force, what was before, and a new mesh file or an old revision.

use std::net::SocketAddr;

use bytes::Bytes;
use control::view::{Instance, Sidecar};
use control::{Kept, Publication, Revision};
use http::{Request, StatusCode, header};
use http_body_util::Full;
use model::config::Config;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::{self, Answer, Client};

/// A control plane, as an operator reaches it.
#[derive(Debug)]
pub(crate) struct Operator {
    address: SocketAddr,
    client: Client,
}

/// The revision in force.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct InForce {
    pub(crate) revision: u64,
    pub(crate) config: Config,
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
    pub(crate) async fn in_force(&self) -> Result<InForce, Error> {
        self.get("/v1/mesh").await
    }

    /// The revision in force, when it is another one than `seen`.
    pub(crate) async fn other_than(&self, seen: u64) -> Result<Option<InForce>, Error> {
        let request = Request::get("/v1/mesh").header(header::IF_NONE_MATCH, tag(seen)).body(Full::default());
        let answer = self.send(request).await?;
        if answer.status == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        self.read(&answer).map(Some)
    }

    /// The kept revisions, oldest first.
    pub(crate) async fn kept(&self) -> Result<Vec<Kept>, Error> {
        #[derive(Deserialize)]
        struct Listed {
            revisions: Vec<Kept>,
        }
        self.get("/v1/revisions").await.map(|listed: Listed| listed.revisions)
    }

    /// One kept revision.
    pub(crate) async fn revision(&self, number: u64) -> Result<Revision<Config>, Error> {
        self.get(&format!("/v1/revisions/{number}")).await
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

    /// Publishes mesh files in the place of revision `from`, and answers the new one's number.
    pub(crate) async fn publish(&self, publication: &Publication, from: u64) -> Result<u64, Error> {
        let body = serde_json::to_vec(publication).map_err(|error| self.odd(&error))?;
        let request = Request::post("/v1/mesh").header(header::CONTENT_TYPE, "application/json");
        self.change(request, body, from).await
    }

    /// Publishes what revision `to` held in the place of revision `from`, and answers the new one's number.
    pub(crate) async fn roll_back(&self, to: u64, from: u64) -> Result<u64, Error> {
        self.change(Request::post(format!("/v1/revisions/{to}/rollback")), Vec::new(), from).await
    }

    async fn change(&self, request: http::request::Builder, body: Vec<u8>, from: u64) -> Result<u64, Error> {
        #[derive(Deserialize)]
        struct Changed {
            revision: u64,
        }
        let answer = self.send(request.header(header::IF_MATCH, tag(from)).body(Full::new(Bytes::from(body)))).await?;
        if answer.status == StatusCode::PRECONDITION_FAILED {
            let Changed { revision } = answer.json().map_err(|error| self.odd(&error))?;
            return Err(Error::Moved { current: revision });
        }
        self.read(&answer).map(|Changed { revision }| revision)
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
