//! The tasks of an HTTP/2 connection's streams. One whose client takes nothing any more is ended from outside: the library that
//! sends its answer waits for the stream's window and asks for nothing meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::task::futures::TaskLocalFuture;
use tokio::time::Instant;

use super::control::Control;
use crate::progress::Progress;

tokio::task_local! {
    static PROGRESS: Arc<Progress>;
}

/// How the stream whose task this is gets on, where it is one's.
pub(super) fn progress() -> Option<Arc<Progress>> {
    PROGRESS.try_with(Arc::clone).ok()
}

/// Runs the streams of one connection.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    origin: Instant,
    control: Arc<Control>,
}

impl Streams {
    /// `origin` is that of the data plane's ticks.
    pub(super) fn new(origin: Instant, control: Arc<Control>) -> Self {
        Self { origin, control }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let progress = Progress::new(self.origin, Some(self.control.clone()));
        tokio::spawn(Stream { task: PROGRESS.scope(progress.clone(), task), progress });
    }
}

pin_project! {
    /// Ends with its task, or when it is told to: dropping the task resets the stream.
    struct Stream<F> {
        #[pin]
        task: TaskLocalFuture<Arc<Progress>, F>,
        progress: Arc<Progress>,
    }
}

impl<F: Future> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.task.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        this.progress.poll_ended(cx)
    }
}
