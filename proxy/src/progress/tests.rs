//! Who is idle, and when: tables, and a clock that is moved by hand.

use super::*;
use std::task::Waker;

fn progress(idle_s: u64) -> Arc<Progress> {
    let progress = Progress::new(Instant::now(), None);
    progress.bound(Some(Duration::from_secs(idle_s)));
    progress
}

#[test]
fn whoever_lets_the_other_wait_is_told_from_who_waits() {
    use Download as D;
    use Side::{Client, Endpoint};
    use Upload as U;
    for (upload, download, http, grpc) in [
        // Before the answer's head: the attempt's clock bounds an endpoint that has the request, or takes nothing of it.
        (U::Unasked, D::Awaited, None, None),
        (U::Offered, D::Awaited, None, None),
        (U::Sent, D::Awaited, None, None),
        (U::Expected, D::Awaited, Some(Client), None),
        (U::FromClient, D::Awaited, Some(Client), None),
        (U::ToEndpoint, D::Awaited, Some(Endpoint), Some(Endpoint)),
        // Behind it: who has something and is not relieved of it, whatever is spoken.
        (U::Sent, D::ToClient, Some(Client), Some(Client)),
        (U::FromClient, D::ToClient, Some(Client), Some(Client)),
        (U::ToEndpoint, D::FromEndpoint, Some(Endpoint), Some(Endpoint)),
        (U::Offered, D::FromEndpoint, Some(Endpoint), Some(Endpoint)),
        // A silence in which nobody has anything: gRPC's streams are made for it.
        (U::Sent, D::FromEndpoint, Some(Endpoint), None),
        (U::Unasked, D::FromEndpoint, Some(Endpoint), None),
        // An endpoint may answer piece by piece what the client sends piece by piece.
        (U::FromClient, D::FromEndpoint, Some(Client), None),
    ] {
        assert_eq!(blamed(upload, download, false), http, "{upload:?} {download:?}");
        assert_eq!(blamed(upload, download, true), grpc, "gRPC {upload:?} {download:?}");
    }
}

#[test]
fn what_moves_is_not_idle_and_what_does_not_is_ended_in_two_steps() {
    let (progress, cx) = (progress(3), Context::from_waker(Waker::noop()));
    progress.answer_moves();
    for _ in 0..10 {
        progress.answer_is_asked_for();
        assert_eq!(progress.answer_lacks(&cx), Poll::Pending);
        (0..3).for_each(|_| assert!(!progress.tick()));
        progress.answer_moves();
    }
    assert_eq!(progress.idle(), None);
    (0..4).for_each(|_| assert!(!progress.tick()));
    assert_eq!(progress.idle(), Some(Side::Client), "it was given something, and has asked for no more");
    // Whoever answers it may say so; a task that is not polled is ended from outside.
    let ended = (0..=CLOSE_TICKS_MAX).position(|_| progress.tick());
    assert_eq!(ended, Some(CLOSE_TICKS_MAX as usize));
    progress.end();
    assert_eq!(progress.poll_ended(&cx), Poll::Ready(()));
    assert_eq!(progress.lacks(&cx), Err(()));
}

#[test]
fn an_answer_that_comes_at_the_last_moment_is_whole() {
    let (progress, cx) = (progress(3), Context::from_waker(Waker::noop()));
    progress.lacks(&cx).unwrap();
    (0..4).for_each(|_| assert!(!progress.tick()));
    assert_eq!(progress.idle(), Some(Side::Client));
    progress.answer_begins();
    assert_eq!(progress.idle(), None);
    (0..3).for_each(|_| assert!(!progress.tick()));
    assert_eq!(progress.idle(), None, "it has all of its time");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_told_when_it_has_all_of_the_body() {
    let (progress, cx) = (progress(3), Context::from_waker(Waker::noop()));
    assert_eq!(progress.waits(), Waits::Answer(Tick::ZERO));
    progress.asks();
    progress.lacks(&cx).unwrap();
    assert_eq!((progress.waits(), progress.upload().waits_for_client()), (Waits::Body, true));
    tokio::time::advance(Duration::from_secs(2)).await;
    progress.gives(false);
    let at = |seconds| Tick::since_origin(Duration::from_secs(seconds));
    assert_eq!(progress.waits(), Waits::Answer(at(2)), "it has not taken a byte");
    progress.asks();
    progress.gives(false);
    assert_eq!((progress.waits(), progress.upload().waits_for_client()), (Waits::Body, false));
    tokio::time::advance(Duration::from_secs(20)).await;
    progress.asks();
    progress.gives(true);
    assert_eq!(progress.waits(), Waits::Answer(at(22)));
    progress.again();
    assert_eq!(progress.waits(), Waits::Answer(at(22)), "another attempt begins when the client was done");
}

#[test]
fn a_bound_is_counted_in_whole_seconds_and_none_is_never_over() {
    let seconds = Duration::from_secs;
    for (bound, expected) in [
        (None, NEVER),
        (Some(seconds(300)), 300),
        (Some(Duration::from_millis(1)), 1),
        (Some(seconds(u64::MAX)), NEVER),
    ] {
        assert_eq!(ticks(bound), expected, "{bound:?}");
    }
}

/// A pause was forgotten once a piece had come behind it, and an endpoint that then broke off was to blame for all of the time.
#[tokio::test(start_paused = true)]
async fn a_client_s_pauses_add_up_however_the_upload_stands() {
    let (progress, cx) = (progress(60), Context::from_waker(Waker::noop()));
    let pause = |seconds| tokio::time::advance(Duration::from_secs(seconds));
    progress.asks();
    progress.lacks(&cx).unwrap();
    pause(2).await;
    assert_eq!(progress.client_took(), Duration::from_secs(2), "it is still waited for");
    for _ in 0..3 {
        progress.gives(false);
        // The endpoint's own time.
        pause(1).await;
        progress.asks();
        progress.lacks(&cx).unwrap();
        progress.lacks(&cx).unwrap();
        pause(4).await;
    }
    progress.gives(false);
    assert_eq!(progress.client_took(), Duration::from_secs(14));
    progress.gives(true);
    pause(5).await;
    assert_eq!(progress.client_took(), Duration::from_secs(14), "it has sent all");
    progress.again();
    assert_eq!(progress.client_took(), Duration::ZERO, "the next attempt begins with none");
}
