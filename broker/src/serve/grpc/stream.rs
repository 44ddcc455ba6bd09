//! Publishing on a stream: requests are taken as they come, many of them go to the committer in one piece, and the receipts go back in
//! the order of the requests. Nothing here costs a task, a channel or a wake-up for each message, only for each piece.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::broker::stream_receipt::Outcome;
use api::broker::{Event, StreamReceipt};
use futures_util::Stream;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tonic::{Status, Streaming};

use super::{missing_event, receipt};
use crate::accept::{Kind, Publisher, accept};
use crate::core::Core;
use crate::refusal::Refusal;
use crate::serve::problem;
use crate::verdict::{Publication, Receipt};

/// How many requests go to the committer in one piece at most.
const PIECE_MAX: usize = 16;
/// How many requests of one stream may be without a receipt; more are not read before.
const OUTSTANDING_MAX: usize = 4_096;

/// A request of one of the two streams.
pub(super) trait Publish: Send + Unpin + 'static {
    /// What it is published to.
    const KIND: Kind;
    /// The destination and the event.
    fn parts(self) -> (String, Option<Event>);
}

impl Publish for api::broker::SendRequest {
    const KIND: Kind = Kind::Queue;
    fn parts(self) -> (String, Option<Event>) {
        (self.queue, self.event)
    }
}

impl Publish for api::broker::PublishRequest {
    const KIND: Kind = Kind::Topic;
    fn parts(self) -> (String, Option<Event>) {
        (self.topic, self.event)
    }
}

type Answer = oneshot::Receiver<Vec<Result<Receipt, Refusal>>>;

/// Receipts for a stream of requests.
pub(super) struct Receipts<R> {
    core: Arc<Core>,
    publisher: Publisher,
    requests: Streaming<R>,
    /// Whether the client has more to say.
    is_open: bool,
    /// A piece that waits for room at the committer; it is handed over before any later one.
    handing_over: Option<BoxFuture<'static, Result<Answer, Refusal>>>,
    /// The requests of that piece.
    handed: Vec<Option<Refusal>>,
    /// Pieces at the committer, in order: for each request its refusal, or `None` where the committer answers.
    pieces: VecDeque<(Vec<Option<Refusal>>, Answer)>,
    /// Requests in all of these.
    outstanding: usize,
    /// Receipts that can be given.
    ready: VecDeque<Result<Receipt, Refusal>>,
}

impl<R: Publish> Receipts<R> {
    pub(super) fn new(core: Arc<Core>, publisher: Publisher, requests: Streaming<R>) -> Self {
        Self {
            core,
            publisher,
            requests,
            is_open: true,
            handing_over: None,
            handed: Vec::new(),
            pieces: VecDeque::new(),
            outstanding: 0,
            ready: VecDeque::new(),
        }
    }

    /// Takes all requests that have come, and hands them over in pieces.
    fn take_in(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        loop {
            if !self.hand_over(context) || !self.is_open || self.outstanding >= OUTSTANDING_MAX {
                return Ok(());
            }
            let (piece, more) = self.gather(context)?;
            if !piece.is_empty() {
                self.begin(piece);
            } else if !more {
                return Ok(());
            }
        }
    }

    /// A piece of what has come, and whether there may be more by now.
    fn gather(&mut self, context: &mut Context<'_>) -> Result<(Vec<Result<Publication, Refusal>>, bool), Status> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_MAX {
            match Pin::new(&mut self.requests).poll_next(context) {
                Poll::Ready(Some(request)) => {
                    let (to, event) = request?.parts();
                    let accepted = event.ok_or_else(missing_event);
                    piece.push(accepted.and_then(|event| accept(&self.core, &self.publisher, R::KIND, &to, event)));
                }
                Poll::Ready(None) => {
                    self.is_open = false;
                    return Ok((piece, false));
                }
                Poll::Pending => return Ok((piece, false)),
            }
        }
        Ok((piece, true))
    }

    fn begin(&mut self, piece: Vec<Result<Publication, Refusal>>) {
        self.outstanding += piece.len();
        self.handed = piece.iter().map(|one| one.as_ref().err().cloned()).collect();
        let messages: Vec<Publication> = piece.into_iter().flatten().collect();
        let core = self.core.clone();
        self.handing_over = Some(Box::pin(async move { core.submit(messages).await }));
    }

    /// Whether the last piece is with the committer.
    fn hand_over(&mut self, context: &mut Context<'_>) -> bool {
        let Some(handing_over) = &mut self.handing_over else { return true };
        let Poll::Ready(handed) = handing_over.as_mut().poll(context) else { return false };
        self.handing_over = None;
        let refusals = std::mem::take(&mut self.handed);
        let answer = handed.unwrap_or_else(|refusal| {
            let (reply, answer) = oneshot::channel();
            // The receiver is held a line above.
            let _ = reply.send(refusals.iter().map(|_| Err(refusal.clone())).collect());
            answer
        });
        self.pieces.push_back((refusals, answer));
        true
    }

    /// Takes the answers that have come, in order.
    fn take_answers(&mut self, context: &mut Context<'_>) {
        while let Some((refusals, answer)) = self.pieces.front_mut() {
            let Poll::Ready(answer) = Pin::new(answer).poll(context) else { return };
            let mut receipts = answer.unwrap_or_default().into_iter();
            for refusal in refusals.drain(..) {
                let answered = || receipts.next().unwrap_or(Err(Refusal::Ending));
                self.ready.push_back(refusal.map_or_else(answered, Err));
            }
            self.pieces.pop_front();
        }
    }
}

impl<R: Publish> Stream for Receipts<R> {
    type Item = Result<StreamReceipt, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(receipt) = this.ready.pop_front() {
            this.outstanding -= 1;
            return Poll::Ready(Some(Ok(written(receipt))));
        }
        this.take_in(context)?;
        this.take_answers(context);
        match this.ready.pop_front() {
            Some(receipt) => {
                this.outstanding -= 1;
                Poll::Ready(Some(Ok(written(receipt))))
            }
            None if !this.is_open && this.outstanding == 0 => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

fn written(outcome: Result<Receipt, Refusal>) -> StreamReceipt {
    let outcome = match outcome {
        Ok(accepted) => Outcome::Receipt(receipt(accepted)),
        Err(refusal) => {
            Outcome::Refusal(api::broker::Refusal { code: problem::code(&refusal), reason: refusal.to_string() })
        }
    };
    StreamReceipt { outcome: Some(outcome) }
}
