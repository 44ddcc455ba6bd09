//! The queue for connections of one protocol, and one request's place in it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use model::config::Protocol;
use tokio::sync::oneshot;

use super::super::dial::Unreachable;
use super::super::exchange::Connection;
use super::{Granted, Pool};

/// Those who wait, the first who came in front.
#[derive(Default)]
pub(super) struct Queue {
    waiters: VecDeque<Waiter>,
    /// The ticket of the next one who comes.
    pub(super) next: u64,
    /// Dials in progress.
    pub(super) dials: usize,
}

pub(super) struct Waiter {
    ticket: u64,
    pub(super) granted: oneshot::Sender<Granted>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// A place at the end.
    pub(super) fn join(&mut self) -> (u64, oneshot::Receiver<Granted>) {
        let (ticket, (granted, receiver)) = (self.next, oneshot::channel());
        self.next += 1;
        self.waiters.push_back(Waiter { ticket, granted });
        (ticket, receiver)
    }

    /// The first who still waits.
    pub(super) fn pop(&mut self) -> Option<Waiter> {
        self.waiters.pop_front()
    }

    /// The first of those with a lower ticket, `most` at the most.
    pub(super) fn pop_before(&mut self, ticket: u64, most: usize) -> Vec<Waiter> {
        let before = self.waiters.partition_point(|waiter| waiter.ticket < ticket);
        self.waiters.drain(..before.min(most)).collect()
    }

    pub(super) fn leave(&mut self, ticket: u64) {
        if let Ok(index) = self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            self.waiters.remove(index);
        }
    }
}

/// Resolves with a connection, or with why none could be made. Dropping it leaves the queue, and gives back what it was just given.
pub(crate) struct Waiting {
    pool: Arc<Pool>,
    protocol: Protocol,
    ticket: u64,
    granted: oneshot::Receiver<Granted>,
    over: bool,
}

impl Waiting {
    pub(super) fn new(pool: Arc<Pool>, protocol: Protocol, ticket: u64, granted: oneshot::Receiver<Granted>) -> Self {
        Self { pool, protocol, ticket, granted, over: false }
    }
}

impl Future for Waiting {
    type Output = Granted;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Granted> {
        let granted = ready!(Pin::new(&mut self.granted).poll(cx));
        self.over = true;
        // A place is only given up together with a word to who holds it.
        Poll::Ready(granted.unwrap_or_else(|_| Err(Arc::new(Unreachable::Timeout))))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        self.pool.leave(self.protocol, self.ticket);
        self.granted.close();
        if let Ok(Ok(Connection::Http1 { sender, place, .. })) = self.granted.try_recv() {
            self.pool.give_back(sender, place, self.pool.dialler.now());
        }
    }
}
