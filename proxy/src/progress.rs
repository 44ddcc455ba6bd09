//! How a request's two bodies get on: who is waited for, and for how long nothing has moved.
//!
//! Each request has one [`Progress`]. Its bodies write down where they stand as they are polled, on whatever task; once a second
//! the connection's lane counts a tick against a request that waits. So an idle bound costs neither a timer nor a look at the
//! clock for a frame, and it holds where a body is not polled at all because its client does not read.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use policy::deadline::Waits;
use policy::time::Tick;
use tokio::time::Instant;

use crate::edge::Control;

/// Ticks (seconds) that a request which was found to be idle has for saying so to its client; then its stream or connection is
/// ended from outside.
const CLOSE_TICKS_MAX: u32 = 5;
/// Stands for no bound.
const NEVER: u32 = u32::MAX;

/// One of a request's two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Endpoint,
}

/// Where the request's body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upload {
    /// There is none, or nobody has asked for it yet.
    Unasked,
    /// The client has sent nothing of it yet.
    Expected,
    /// The endpoint has not taken its first piece yet.
    Offered,
    /// The client is to send more.
    FromClient,
    /// The endpoint is to take what there is.
    ToEndpoint,
    /// The endpoint has it whole.
    Sent,
}

impl Upload {
    /// Whether the client is to send more.
    const fn waits_for_client(self) -> bool {
        matches!(self, Self::Expected | Self::FromClient)
    }
}

/// Where the answer's body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Download {
    /// There is no answer yet.
    Awaited,
    /// The endpoint is to send more.
    FromEndpoint,
    /// The client is to take what there is.
    ToClient,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Of the data plane's ticks.
    origin: Instant,
    /// Whose tick counts; `None` for a call from inside of this process, which is bounded by whoever makes it.
    control: Option<Arc<Control>>,
    upload: AtomicU8,
    download: AtomicU8,
    is_grpc: AtomicBool,
    // When the endpoint was offered the first piece, or had the last one: nanoseconds of a `Tick`.
    offered: AtomicU64,
    // Since when the client is waited for, and how long it was before: nanoseconds too.
    client_since: AtomicU64,
    client_took: AtomicU64,
    // Someone has asked for the request's body; it has come to its end, and there were no trailers.
    begun: AtomicBool,
    whole: AtomicBool,
    too_long: AtomicBool,
    broken_off: AtomicBool,
    ticks: AtomicU32,
    ticks_max: AtomicU32,
    // 0: not idle; or one more than the side that is to blame.
    idle: AtomicU8,
    ended: AtomicBool,
    // The task that answers the client, and the one that sends the body.
    answering: AtomicWaker,
    sending: AtomicWaker,
}

impl Progress {
    /// Of a request that has not come yet.
    pub(crate) fn new(origin: Instant, control: Option<Arc<Control>>) -> Arc<Self> {
        Arc::new(Self {
            origin,
            control,
            upload: AtomicU8::new(Upload::Unasked as u8),
            download: AtomicU8::new(Download::Awaited as u8),
            is_grpc: AtomicBool::new(false),
            offered: AtomicU64::new(0),
            client_since: AtomicU64::new(0),
            client_took: AtomicU64::new(0),
            begun: AtomicBool::new(false),
            whole: AtomicBool::new(false),
            too_long: AtomicBool::new(false),
            broken_off: AtomicBool::new(false),
            ticks: AtomicU32::new(0),
            ticks_max: AtomicU32::new(ticks(model::config::Timeouts::default().idle)),
            idle: AtomicU8::new(0),
            ended: AtomicBool::new(false),
            answering: AtomicWaker::new(),
            sending: AtomicWaker::new(),
        })
    }

    /// The request has come: from here on its connection's ticks count.
    pub(crate) fn begin(self: &Arc<Self>, is_grpc: bool) {
        self.is_grpc.store(is_grpc, Ordering::Relaxed);
        if let Some(control) = &self.control {
            control.follow(Arc::downgrade(self));
        }
    }

    /// How long nothing may move; `None`: as long as it likes.
    pub(crate) fn bound(&self, idle: Option<Duration>) {
        self.ticks_max.store(ticks(idle), Ordering::Relaxed);
    }

    /// The bound.
    pub(crate) fn idle_max(&self) -> Duration {
        Duration::from_secs(self.ticks_max.load(Ordering::Relaxed).into())
    }

    fn upload(&self) -> Upload {
        match self.upload.load(Ordering::Relaxed) {
            0 => Upload::Unasked,
            1 => Upload::Expected,
            2 => Upload::Offered,
            3 => Upload::FromClient,
            4 => Upload::ToEndpoint,
            _ => Upload::Sent,
        }
    }

    fn download(&self) -> Download {
        match self.download.load(Ordering::Relaxed) {
            0 => Download::Awaited,
            1 => Download::FromEndpoint,
            _ => Download::ToClient,
        }
    }

    fn moved(&self) {
        if self.idle.load(Ordering::Relaxed) == 0 {
            self.ticks.store(0, Ordering::Relaxed);
        }
    }

    fn now_nanos(&self) -> u64 {
        Tick::since_origin(self.origin.elapsed()).as_nanos()
    }

    fn set_upload(&self, upload: Upload) {
        let (waited, waits) = (self.upload().waits_for_client(), upload.waits_for_client());
        let offers = matches!(upload, Upload::Offered | Upload::Sent);
        // The clock is looked at where it is needed: not for each frame of a body that comes as fast as it goes.
        if offers || waits != waited {
            let now = self.now_nanos();
            if offers {
                self.offered.store(now, Ordering::Relaxed);
            }
            if waits && !waited {
                self.client_since.store(now, Ordering::Relaxed);
            } else if waited && !waits {
                let took = now.saturating_sub(self.client_since.load(Ordering::Relaxed));
                self.client_took.fetch_add(took, Ordering::Relaxed);
            }
        }
        self.upload.store(upload as u8, Ordering::Relaxed);
    }

    /// The endpoint asks for more of the body, so it has taken what it was given.
    pub(crate) fn asks(&self) {
        self.begun.store(true, Ordering::Relaxed);
        if matches!(self.upload(), Upload::Offered | Upload::ToEndpoint) {
            self.moved();
        }
    }

    /// The endpoint is given a piece of the body, the last one or not.
    pub(crate) fn gives(&self, last: bool) {
        self.moved();
        self.set_upload(match self.upload() {
            _ if last => Upload::Sent,
            Upload::Unasked | Upload::Expected => Upload::Offered,
            _ => Upload::ToEndpoint,
        });
    }

    /// The client has no piece of the body now. The error: it was waited for long enough.
    pub(crate) fn lacks(&self, cx: &Context<'_>) -> Result<(), ()> {
        self.set_upload(match self.upload() {
            Upload::Unasked | Upload::Expected => Upload::Expected,
            _ => Upload::FromClient,
        });
        self.is_over(cx)
    }

    /// Registers the task that sends the body; the error: it need not go on.
    pub(crate) fn is_over(&self, cx: &Context<'_>) -> Result<(), ()> {
        self.sending.register(cx.waker());
        if self.ended.load(Ordering::Acquire) { Err(()) } else { Ok(()) }
    }

    /// Whether someone has asked for the body; only then is a client told to go on that waits for it.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// The body has come to its end, and there were no trailers.
    pub(crate) fn body_is_whole_without_trailers(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub(crate) fn is_whole_without_trailers(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// The body was longer than its bound.
    pub(crate) fn body_is_too_long(&self) {
        self.too_long.store(true, Ordering::Relaxed);
    }

    /// Whether it was. The HTTP library keeps such errors to itself on HTTP/2.
    pub(crate) fn is_too_long(&self) -> bool {
        self.too_long.load(Ordering::Relaxed)
    }

    /// The client broke its own body off.
    pub(crate) fn body_breaks_off(&self) {
        self.broken_off.store(true, Ordering::Relaxed);
    }

    /// Whether it did.
    pub(crate) fn is_broken_off(&self) -> bool {
        self.broken_off.load(Ordering::Relaxed)
    }

    /// Another attempt is to send the body from its beginning.
    pub(crate) fn again(&self) {
        self.upload.store(Upload::Unasked as u8, Ordering::Relaxed);
        self.client_took.store(0, Ordering::Relaxed);
        self.idle.store(0, Ordering::Relaxed);
        self.moved();
    }

    /// What an attempt waits for, before there is an answer.
    pub(crate) fn waits(&self) -> Waits {
        match self.upload() {
            Upload::Unasked | Upload::Offered | Upload::Sent => Waits::Answer(self.offered()),
            Upload::Expected | Upload::FromClient | Upload::ToEndpoint => Waits::Body,
        }
    }

    /// When the endpoint was last offered the body, or had all of it.
    pub(crate) fn offered(&self) -> Tick {
        Tick::from_nanos(self.offered.load(Ordering::Relaxed))
    }

    /// How much of the time since an attempt has asked for the body its client was waited for.
    pub(crate) fn client_took(&self) -> Duration {
        let waits = self.upload().waits_for_client();
        let now = if waits { self.now_nanos().saturating_sub(self.client_since.load(Ordering::Relaxed)) } else { 0 };
        Duration::from_nanos(self.client_took.load(Ordering::Relaxed).saturating_add(now))
    }

    /// There is an answer for the client, whatever has kept it waiting before.
    pub(crate) fn answer_begins(&self) {
        self.idle.store(0, Ordering::Release);
        self.answer_moves();
    }

    /// The client asks for more of the answer, so it has taken what it was given.
    pub(crate) fn answer_is_asked_for(&self) {
        if self.download() == Download::ToClient {
            self.moved();
        }
    }

    /// The client is given a piece of the answer.
    pub(crate) fn answer_moves(&self) {
        self.moved();
        self.download.store(Download::ToClient as u8, Ordering::Relaxed);
    }

    /// The endpoint has no piece of the answer now. Tells when it was waited for long enough.
    pub(crate) fn answer_lacks(&self, cx: &Context<'_>) -> Poll<Side> {
        self.download.store(Download::FromEndpoint as u8, Ordering::Relaxed);
        self.poll_idle(cx)
    }

    /// Which side has let the other wait for longer than the bound, once one has.
    pub(crate) fn idle(&self) -> Option<Side> {
        match self.idle.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Side::Client),
            _ => Some(Side::Endpoint),
        }
    }

    /// The same for the task that answers the client.
    pub(crate) fn poll_idle(&self, cx: &Context<'_>) -> Poll<Side> {
        self.answering.register(cx.waker());
        self.idle().map_or(Poll::Pending, Poll::Ready)
    }

    /// The same to be waited for.
    pub(crate) async fn becomes_idle(&self) -> Side {
        poll_fn(|cx| self.poll_idle(cx)).await
    }

    /// Resolves when the request is ended from outside, for the task that answers the client.
    pub(crate) fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        self.answering.register(cx.waker());
        if self.ended.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Once a second; says whether the request is to be ended from outside.
    pub(crate) fn tick(&self) -> bool {
        let ticks = self.ticks.fetch_add(1, Ordering::Relaxed) + 1;
        if self.idle().is_some() {
            return ticks > CLOSE_TICKS_MAX;
        }
        let Some(side) = blamed(self.upload(), self.download(), self.is_grpc.load(Ordering::Relaxed)) else {
            self.moved();
            return false;
        };
        if ticks > self.ticks_max.load(Ordering::Relaxed) {
            // From here on it does not matter any more what moves; the ticks are those of its end.
            self.moved();
            self.idle.store(side as u8 + 1, Ordering::Release);
            self.answering.wake();
        }
        false
    }

    /// Ends the request from outside: its stream's task, and the one that sends its body.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.answering.wake();
        self.sending.wake();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(control) = &self.control {
            control.forget(self);
        }
    }
}

/// Whether a follower's entry is this one's.
pub(crate) fn is_of(entry: &Weak<Progress>, progress: &Progress) -> bool {
    std::ptr::eq(entry.as_ptr(), progress)
}

fn ticks(bound: Option<Duration>) -> u32 {
    let seconds = bound.map(|bound| bound.as_secs() + u64::from(bound.subsec_nanos() > 0));
    seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(NEVER)
}

/// Who keeps a request waiting; `None`: nobody, or it is for other clocks to say.
///
/// Before the answer's head, an endpoint that has the request is bounded by the attempt's clock. A gRPC stream on which nobody has
/// anything to say is not idle: that is what such streams are for, and pings tell whether the peer still lives. One that has something to
/// say to a peer that does not take it is.
fn blamed(upload: Upload, download: Download, is_grpc: bool) -> Option<Side> {
    match (upload, download) {
        (_, Download::ToClient) => Some(Side::Client),
        (Upload::ToEndpoint, _) | (Upload::Offered, Download::FromEndpoint) => Some(Side::Endpoint),
        (Upload::Unasked | Upload::Offered | Upload::Sent, Download::Awaited) => None,
        _ if is_grpc => None,
        (Upload::Expected | Upload::FromClient, _) => Some(Side::Client),
        (Upload::Unasked | Upload::Sent, Download::FromEndpoint) => Some(Side::Endpoint),
    }
}

#[cfg(test)]
mod tests;
