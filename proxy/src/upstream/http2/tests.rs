//! Frames as they go over the wire, on a clock that is not the wall's.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::Instant;

use super::*;

const PREFACE: usize = 24;
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// A request's head that is as long as this is not answered.
const SILENCE: usize = 64;
const SETTINGS_ACK: [u8; 9] = [0, 0, 0, 4, 1, 0, 0, 0, 0];

/// When pings came.
type Seen = Arc<Mutex<Vec<Instant>>>;

/// The bytes of a server that answers pings, if it does, begins an answer to each request, and has more of it on the way when it hears
/// that nobody wants it.
async fn server(mut io: DuplexStream, answers: bool, seen: Seen) {
    io.read_exact(&mut [0; PREFACE]).await.unwrap();
    io.write_all(&SETTINGS).await.unwrap();
    let mut head = [0; 9];
    while io.read_exact(&mut head).await.is_ok() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        io.read_exact(&mut payload).await.unwrap();
        match (head[3], head[4]) {
            (4, 0) => io.write_all(&SETTINGS_ACK).await.unwrap(),
            (6, 0) => {
                seen.lock().unwrap().push(Instant::now());
                if answers {
                    head[4] = 1;
                    io.write_all(&head).await.unwrap();
                    io.write_all(&payload).await.unwrap();
                }
            }
            // HEADERS: `:status: 200` is the eighth of HPACK's static table.
            (1, _) if payload.len() < SILENCE => {
                io.write_all(&[&[0, 0, 1, 1, 4], &head[5..], &[0x88]].concat()).await.unwrap()
            }
            // RST_STREAM
            (3, _) => io.write_all(&[&[0, 0, 1, 0, 0], &head[5..], b"x"].concat()).await.unwrap(),
            _ => {}
        }
    }
}

async fn connected(pings: Pings, answers: bool) -> (Client, Seen) {
    let ((ours, theirs), seen) = (duplex(64 << 10), Seen::default());
    tokio::spawn(server(theirs, answers, seen.clone()));
    let client = start(ours, pings, Weak::new()).await.unwrap_or_else(|error| panic!("{error}"));
    (client, seen)
}

const HOUR: Duration = Duration::from_secs(3_600);

/// A call that is given up before it is answered.
async fn given_up(client: &Client) {
    let mut claim = client.claim();
    let mut request = Request::new(RequestBody::Empty);
    *request.uri_mut() = http::Uri::from_static("http://peer/");
    // Sensitive: it is sent as it is each time, and not out of HPACK's table.
    let mut long = http::HeaderValue::from_str(&"~".repeat(SILENCE)).unwrap();
    long.set_sensitive(true);
    request.headers_mut().insert("long", long);
    assert!(tokio::time::timeout(Duration::from_secs(15), claim.send(&mut request)).await.is_err());
}

/// gRFC A8: a server lets a client ping once in five minutes while calls are open, and hardly ever while none is.
#[tokio::test(start_paused = true)]
async fn an_application_is_not_pinged_more_than_grfc_a8_allows() {
    let (client, seen) = connected(Pings::APPLICATION, true).await;
    let quiet = answered(&client).await;
    tokio::time::sleep(HOUR).await;
    assert!(seen.lock().unwrap().is_empty(), "a quiet stream is no reason for doubt");
    drop(quiet);
    given_up(&client).await;
    tokio::time::sleep(HOUR).await;
    assert!(seen.lock().unwrap().is_empty(), "no call is open");
    let _quiet = client.claim();
    for _ in 0..100 {
        given_up(&client).await;
    }
    let seen = seen.lock().unwrap();
    let gaps: Vec<_> = seen.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() >= 3 && gaps.iter().all(|gap| *gap > Duration::from_secs(300)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn an_application_that_has_vanished_is_found_by_the_one_ping() {
    let (client, seen) = connected(Pings::APPLICATION, false).await;
    given_up(&client).await;
    let _call = client.claim();
    tokio::time::sleep(Duration::from_secs(21)).await;
    assert_eq!((client.is_closed(), seen.lock().unwrap().len()), (true, 1));
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_leaves_pings_unanswered_is_given_up() {
    let (client, seen) = connected(Pings::MESH, true).await;
    let _call = client.claim();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!((5..=6).contains(&seen.lock().unwrap().len()));
    assert!(!client.is_closed());
    let (client, _) = connected(Pings::MESH, false).await;
    let _call = client.claim();
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert!(client.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_begins_with_the_endpoint_s_settings() {
    let (ours, theirs) = duplex(64 << 10);
    let began = tokio::time::timeout(HOUR, start(ours, Pings::MESH, Weak::new())).await;
    assert!(began.is_err(), "nothing came");
    drop(theirs);
    let (ours, mut theirs) = duplex(64 << 10);
    theirs.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert!(start(ours, Pings::MESH, Weak::new()).await.is_err(), "that is no HTTP/2");
    let (ours, theirs) = duplex(64 << 10);
    drop(theirs);
    assert!(start(ours, Pings::MESH, Weak::new()).await.is_err(), "it has ended");
}

async fn answered(client: &Client) -> (Response<Reception>, Claim) {
    let mut claim = client.claim();
    let mut request = Request::new(RequestBody::Empty);
    *request.uri_mut() = http::Uri::from_static("http://peer/");
    let answer = claim.send(&mut request).await;
    (answer.unwrap_or_else(|broke| panic!("{}", broke.error)), claim)
}

/// Frames of a stream that was reset and is forgotten are errors, and h2 counts errors: clients that left took the connection from those
/// who stayed.
#[tokio::test(start_paused = true)]
async fn answers_that_nobody_waits_for_any_more_end_no_connection() {
    let (client, _) = connected(Pings::MESH, true).await;
    for _ in 0..6 {
        let mut answers = Vec::new();
        for _ in 1..STREAMS_MAX {
            answers.push(answered(&client).await);
        }
        drop(answers);
        // Behind what was on the way.
        drop(answered(&client).await);
    }
    assert_eq!((client.is_closed(), client.streams()), (false, 0));
}
