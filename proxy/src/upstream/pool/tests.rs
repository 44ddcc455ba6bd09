//! The queue and the dials, on loopback.

use std::net::SocketAddr;

use runtime::net::{Listener, Share};
use tokio::time::Instant;

use super::super::dial::{Address, Dial, Security};
use super::*;

fn pool(address: SocketAddr) -> Arc<Pool> {
    let dial = Dial { address: Address::Socket(address), security: Security::Plain };
    Pool::new(Arc::new(Dialler { dial, identity: None, origin: Instant::now() }))
}

async fn listener() -> (Listener, SocketAddr) {
    let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn joined(pool: &Arc<Pool>, protocol: Protocol) -> Waiting {
    pool.wait(protocol).unwrap_or_else(|full| panic!("{full}"))
}

#[tokio::test]
async fn an_endpoint_that_is_away_is_found_out_once_for_all_who_wait() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let (listener, address) = listener().await;
        drop(listener);
        let pool = pool(address);
        let waiting: Vec<_> = (0..200).map(|_| joined(&pool, protocol)).collect();
        let mut dials = 0;
        for waiting in waiting {
            match waiting.await.map_err(|error| matches!(*error, Unreachable::Refused)) {
                Err(is_first) => dials += usize::from(is_first),
                Ok(_) => panic!("a connection to nobody"),
            }
        }
        // Each failed dial is told of once; the others hear that it was another's.
        let dials_max = if protocol == Protocol::Http { 2 * DIALS_MAX } else { 2 };
        assert!((1..=dials_max).contains(&dials), "{protocol:?}: {dials} faults for 200 that waited");
        assert_eq!((pool.waiting(), pool.len()), (0, 0));
    }
}

/// A failure says nothing to those who came after the dial had begun: they get one of their own.
#[tokio::test]
async fn who_comes_later_is_not_told_of_an_earlier_dial() {
    let mut queue = Queue::default();
    let (_, mut early) = queue.join();
    let begun = queue.next;
    let (late, mut later) = queue.join();
    let mut state = State { http2: queue, ..State::default() };
    for waiter in state.concerned(Protocol::Grpc, begun, Tick::ZERO) {
        let _ = waiter.granted.send(Err(Arc::new(Unreachable::Refused)));
    }
    assert!(early.try_recv().is_ok() && later.try_recv().is_err());
    assert_eq!(state.http2.len(), 1);
    state.http2.leave(late);
    assert!(state.http2.is_empty());
}

#[tokio::test]
async fn who_leaves_gives_back_what_it_was_just_given() {
    let (_listener, address) = listener().await;
    let pool = pool(address);
    let waiting = joined(&pool, Protocol::Http);
    while pool.waiting() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(pool.take(Protocol::Http, pool.dialler.now()).is_none());
    drop(waiting);
    assert_eq!((pool.len(), pool.lock().busy), (1, 0));
    let taken = pool.take(Protocol::Http, pool.dialler.now());
    assert_eq!((taken.is_some(), pool.lock().busy), (true, 1));
    drop(taken);
    assert_eq!((pool.len(), pool.lock().busy), (0, 0));
}

#[tokio::test]
async fn the_queue_is_bounded_and_dials_are_too() {
    let (_listener, address) = listener().await;
    let pool = pool(address);
    let waiting: Vec<_> = (0..WAITING_MAX).map(|_| joined(&pool, Protocol::Http)).collect();
    assert!(matches!(pool.wait(Protocol::Http), Err(Full::Queue(WAITING_MAX))));
    assert_eq!(pool.lock().http1.dials, DIALS_MAX);
    drop(waiting);
    assert_eq!(pool.waiting(), 0);
    assert!(pool.wait(Protocol::Http).is_ok());
}
