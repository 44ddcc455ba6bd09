//! gRPC through both sidecars: all four kinds of call, status, trailers, cancellation, deadlines.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _, stream};
use http::Response;
use model::config::{Protocol, RetryOn};
use proxy::Target;
use runtime::http::{Body, BoxError, BoxFuture, Handler, boxed};
use tokio::sync::mpsc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::server::{ClientStreamingService, ServerStreamingService, StreamingService, UnaryService};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::kit::{App, Mesh, Node, endpoint, external, in_mesh, soon};

/// Of calls that are to reach the application and then to run out of time.
const DEADLINE: Duration = Duration::from_millis(1_500);

type Codec = ProstCodec<String, String>;
type Words = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;
type Answer<T> = BoxFuture<Result<tonic::Response<T>, Status>>;

/// What the application notices.
#[derive(Clone)]
struct Greeter {
    cancelled: mpsc::UnboundedSender<()>,
    timeouts: mpsc::UnboundedSender<Option<String>>,
    failures: Arc<std::sync::atomic::AtomicU32>,
}

struct Guard(mpsc::UnboundedSender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl UnaryService<String> for Greeter {
    type Response = String;
    type Future = Answer<String>;
    fn call(&mut self, request: Request<String>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let timeout = request.metadata().get("grpc-timeout").map(|value| value.to_str().unwrap().to_owned());
            let _ = this.timeouts.send(timeout);
            match request.get_ref().as_str() {
                "never" => {
                    let _guard = Guard(this.cancelled);
                    std::future::pending().await
                }
                "refuse" => Err(Status::failed_precondition("not now")),
                "flaky" if this.failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 => {
                    Err(Status::unavailable("first time"))
                }
                word => {
                    let mut answer = tonic::Response::new(format!("hello {word}"));
                    answer.metadata_mut().insert("x-seen", "1".parse().unwrap());
                    Ok(answer)
                }
            }
        })
    }
}

impl ServerStreamingService<String> for Greeter {
    type Response = String;
    type ResponseStream = Words;
    type Future = Answer<Words>;
    fn call(&mut self, request: Request<String>) -> Self::Future {
        let guard = Guard(self.cancelled.clone());
        Box::pin(async move {
            let word = request.into_inner();
            if word == "one" {
                let first = stream::iter([Ok("one".to_owned())]);
                let rest = stream::unfold(guard, |guard| async {
                    let _guard = guard;
                    std::future::pending().await
                });
                return Ok(tonic::Response::new(Box::pin(first.chain(rest)) as Words));
            }
            if word == "forever" {
                let words = stream::unfold(guard, |guard| async { Some((Ok("again".to_owned()), guard)) });
                let words = words.then(|word| async {
                    tokio::task::yield_now().await;
                    word
                });
                return Ok(tonic::Response::new(Box::pin(words) as Words));
            }
            let mut words: Vec<_> = (0..3).map(|n| Ok(format!("{word} {n}"))).collect();
            words.push(Err(Status::data_loss("the rest is lost")));
            Ok(tonic::Response::new(Box::pin(stream::iter(words)) as Words))
        })
    }
}

impl ClientStreamingService<String> for Greeter {
    type Response = String;
    type Future = Answer<String>;
    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        Box::pin(async move {
            let words: Vec<_> = request.into_inner().collect().await;
            let words: Result<Vec<_>, _> = words.into_iter().collect();
            Ok(tonic::Response::new(words?.join(" ")))
        })
    }
}

impl StreamingService<String> for Greeter {
    type Response = String;
    type ResponseStream = Words;
    type Future = Answer<Words>;
    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        Box::pin(async move {
            let answers = request.into_inner().map(|word| word.map(|word| word.to_uppercase()));
            Ok(tonic::Response::new(Box::pin(answers) as Words))
        })
    }
}

async fn serve<B>(greeter: Greeter, request: http::Request<B>) -> Response<Body>
where
    B: hyper::body::Body + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    let mut grpc = tonic::server::Grpc::new(Codec::default());
    let answer = match request.uri().path() {
        "/greeter/Unary" => grpc.unary(greeter, request).await,
        "/greeter/ServerStream" => grpc.server_streaming(greeter, request).await,
        "/greeter/ClientStream" => grpc.client_streaming(greeter, request).await,
        _ => grpc.streaming(greeter, request).await,
    };
    answer.map(boxed)
}

/// The greeter as a part of the callee's own process, as the broker is.
struct Inside(Greeter);

impl Handler for Inside {
    fn call(&self, request: http::Request<Body>) -> BoxFuture<Response<Body>> {
        Box::pin(serve(self.0.clone(), request))
    }
}

struct Setting {
    _app: Option<App>,
    _inventory: Node,
    orders: Node,
    cancelled: mpsc::UnboundedReceiver<()>,
    timeouts: mpsc::UnboundedReceiver<Option<String>>,
}

impl Setting {
    async fn new() -> Self {
        Self::of(Protocol::Grpc, false).await
    }

    /// A service that is declared with `protocol`, whose answers come from an application or from `inside` of the process.
    async fn of(protocol: Protocol, inside: bool) -> Self {
        let (cancelled_sender, cancelled) = mpsc::unbounded_channel();
        let (timeouts_sender, timeouts) = mpsc::unbounded_channel();
        let greeter = Greeter { cancelled: cancelled_sender, timeouts: timeouts_sender, failures: Arc::default() };
        let mesh = Mesh::new(&["orders", "inventory"]);
        let (app, target) = if inside {
            (None, Target::Handler(Arc::new(Inside(greeter))))
        } else {
            let app = App::streaming(move |request| Box::pin(serve(greeter.clone(), request))).await;
            let target = Target::Application(app.address);
            (Some(app), target)
        };
        let inventory = mesh.callee("inventory", protocol, target, &["orders"]).await;
        let part = in_mesh("inventory", protocol, vec![endpoint("inventory-0", inventory.inbound())]);
        let orders = mesh.caller("orders", vec![("inventory", part)]).await;
        Self { _app: app, _inventory: inventory, orders, cancelled, timeouts }
    }

    async fn client(&self) -> tonic::client::Grpc<tonic::transport::Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.orders.outbound())).unwrap();
        let channel = endpoint.origin("http://inventory".parse().unwrap()).connect().await.unwrap();
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        client
    }

    /// Makes the connections, so that what comes next needs none of its time for them.
    async fn warm(&mut self) {
        self.unary("you", None).await.unwrap();
        while self.timeouts.try_recv().is_ok() {}
    }

    async fn unary(&self, word: &str, timeout: Option<Duration>) -> Result<tonic::Response<String>, Status> {
        let mut request = Request::new(word.to_owned());
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let answer = async { self.client().await.unary(request, path("Unary"), Codec::default()).await };
        soon("an answer", answer).await
    }
}

fn path(method: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/greeter/{method}")).unwrap()
}

async fn words(stream: Streaming<String>) -> (Vec<String>, Option<Status>) {
    let (mut words, mut end) = (Vec::new(), None);
    let mut stream = stream;
    loop {
        match soon("a word, or the end", stream.message()).await {
            Ok(Some(word)) => words.push(word),
            Ok(None) => return (words, end),
            Err(status) => {
                end = Some(status);
                return (words, end);
            }
        }
    }
}

#[tokio::test]
async fn all_four_kinds_of_call() {
    let setting = Setting::new().await;
    let unary = setting.unary("you", None).await.unwrap();
    assert_eq!(unary.get_ref(), "hello you");
    assert_eq!(unary.metadata().get("x-seen").unwrap(), "1");

    let mut client = setting.client().await;
    let answer = client.server_streaming(Request::new("w".to_owned()), path("ServerStream"), Codec::default()).await;
    let (got, end) = words(answer.unwrap().into_inner()).await;
    assert_eq!(got, ["w 0", "w 1", "w 2"]);
    let end = end.unwrap();
    assert_eq!((end.code(), end.message()), (Code::DataLoss, "the rest is lost"));

    client.ready().await.unwrap();
    let sent = stream::iter(["a", "b", "c"].map(str::to_owned));
    let answer = client.client_streaming(Request::new(sent), path("ClientStream"), Codec::default()).await.unwrap();
    assert_eq!(answer.get_ref(), "a b c");

    // Each answer comes before the next word is sent, so both directions are open at once.
    client.ready().await.unwrap();
    let (send, sent) = mpsc::channel(1);
    let sent = stream::unfold(sent, |mut sent| async { sent.recv().await.map(|word: String| (word, sent)) });
    let answer = client.streaming(Request::new(sent), path("Both"), Codec::default());
    send.send("first".to_owned()).await.unwrap();
    let mut answers = soon("a head", answer).await.unwrap().into_inner();
    assert_eq!(soon("the first word", answers.message()).await.unwrap().as_deref(), Some("FIRST"));
    send.send("second".to_owned()).await.unwrap();
    assert_eq!(soon("the second word", answers.message()).await.unwrap().as_deref(), Some("SECOND"));
    drop(send);
    assert_eq!(soon("the end", answers.message()).await.unwrap(), None);
}

#[tokio::test]
async fn an_application_s_status_goes_through_as_it_is() {
    let setting = Setting::new().await;
    let status = setting.unary("refuse", None).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "not now"));
}

#[tokio::test]
async fn leaving_a_stream_cancels_it_at_the_application() {
    let mut setting = Setting::new().await;
    let mut client = setting.client().await;
    let answer =
        client.server_streaming(Request::new("forever".to_owned()), path("ServerStream"), Codec::default()).await;
    let mut stream = answer.unwrap().into_inner();
    assert_eq!(soon("a word", stream.message()).await.unwrap().as_deref(), Some("again"));
    drop(stream);
    soon("that it is cancelled", setting.cancelled.recv()).await.unwrap();
}

#[tokio::test]
async fn a_deadline_travels_and_ends_the_call_on_every_hop() {
    let mut setting = Setting::new().await;
    setting.warm().await;
    let began = Instant::now();
    let status = setting.unary("never", Some(DEADLINE)).await.unwrap_err();
    assert!(began.elapsed() >= DEADLINE, "{status:?} after {:?}", began.elapsed());
    // Whoever notices first says it: the client's library calls it cancelled, the sidecar by its name.
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    let timeout = soon("the call", setting.timeouts.recv()).await.unwrap().unwrap();
    let left = policy::deadline::parse_grpc_timeout(timeout.as_bytes()).unwrap();
    assert!(left <= DEADLINE && left > Duration::from_millis(1), "{timeout}");
    soon("that it is cancelled", setting.cancelled.recv()).await.unwrap();
}

#[tokio::test]
async fn a_deadline_cuts_a_stream_off_where_it_is() {
    let mut setting = Setting::new().await;
    setting.warm().await;
    let request = http::Request::post("http://inventory/greeter/ServerStream")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", format!("{}m", DEADLINE.as_millis()));
    // One message, the string "one" as `google.protobuf.StringValue`.
    let message = [&[0, 0, 0, 0, 5, 0x0a, 3][..], b"one"].concat();
    let mut client = crate::kit::Client::http2(setting.orders.outbound()).await;
    let began = Instant::now();
    let answer = soon("a head", client.try_send(request.body(runtime::http::full(message)).unwrap())).await.unwrap();
    let whole = soon("an end", http_body_util::BodyExt::collect(answer.into_body())).await.unwrap();
    assert!(began.elapsed() >= DEADLINE, "{:?}", began.elapsed());
    assert_eq!(whole.trailers().unwrap()["grpc-status"], "4");
    assert_eq!(whole.to_bytes().len(), 10, "the one message came before");
    soon("that it is cancelled", setting.cancelled.recv()).await.unwrap();
}

#[tokio::test]
async fn the_route_s_bound_is_a_deadline_too_but_not_the_client_s() {
    let mut setting = Setting::new().await;
    setting.warm().await;
    setting.orders.part("inventory").routes[0].timeouts.request = Some(DEADLINE);
    setting.orders.apply();
    let began = Instant::now();
    let status = setting.unary("never", None).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(began.elapsed() >= DEADLINE, "{:?}", began.elapsed());
    assert!(status.message().contains("1500ms"), "{status:?}");
    // The next hop would take it for what the client has asked for.
    assert_eq!(soon("the call", setting.timeouts.recv()).await.unwrap(), None);
    soon("that it is cancelled", setting.cancelled.recv()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_on_which_nobody_has_anything_to_say_outlives_every_bound_but_the_client_s() {
    let (cancelled, _) = mpsc::unbounded_channel();
    let (timeouts, _) = mpsc::unbounded_channel();
    let greeter = Greeter { cancelled, timeouts, failures: Arc::default() };
    let app = App::streaming(move |request| Box::pin(serve(greeter.clone(), request))).await;
    let part = external("inventory", Protocol::Grpc, &[app.address]);
    let mut orders = Mesh::new(&["inventory"]).caller("orders", vec![("inventory", part)]).await;
    // A mesh's own 15 s for the answer's head; 5 min for a body that is stuck.
    for (asked, quiet, stays) in [(None, 3_600, true), (Some(7_200), 3_600, true), (Some(600), 599, false)] {
        orders.apply();
        let channel = Endpoint::from_shared(format!("http://{}", orders.outbound())).unwrap();
        let channel = channel.origin("http://inventory".parse().unwrap()).connect().await.unwrap();
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let (send, sent) = mpsc::channel(1);
        let sent = stream::unfold(sent, |mut sent| async { sent.recv().await.map(|word: String| (word, sent)) });
        let mut request = Request::new(sent);
        if let Some(seconds) = asked {
            request.set_timeout(Duration::from_secs(seconds));
        }
        send.send("first".to_owned()).await.unwrap();
        let mut answers = client.streaming(request, path("Both"), Codec::default()).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().as_deref(), Some("FIRST"));
        let within = async |seconds, answers: &mut Streaming<String>| {
            tokio::time::timeout(Duration::from_secs(seconds), answers.message()).await
        };
        let early = within(quiet, &mut answers).await;
        assert!(early.is_err(), "{asked:?}: {early:?} within {quiet} s");
        if stays {
            send.send("second".to_owned()).await.unwrap();
            let second = within(10, &mut answers).await.expect("an answer");
            assert_eq!(second.unwrap().as_deref(), Some("SECOND"), "{asked:?}");
        } else {
            let end = within(10, &mut answers).await.expect("an end").unwrap_err();
            assert!(matches!(end.code(), Code::DeadlineExceeded | Code::Cancelled), "{asked:?}: {end:?}");
        }
    }
}

#[tokio::test]
async fn a_status_in_trailers_is_tried_again_where_the_route_says_so() {
    let setting = Setting::new().await;
    let status = setting.unary("flaky", None).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let mut setting = Setting::new().await;
    let retry = &mut setting.orders.part("inventory").routes[0].retry;
    retry.on.insert(RetryOn::Grpc(14));
    retry.non_idempotent = true;
    setting.orders.apply();
    assert_eq!(setting.unary("flaky", None).await.unwrap().get_ref(), "hello flaky");
    let edges = setting.orders.plane.observed().edges;
    assert_eq!((edges[0].calls, edges[0].failures, edges[0].retries), (1, 0, 1));
}

#[tokio::test]
async fn a_handler_that_speaks_both_keeps_its_trailers() {
    let setting = Setting::of(Protocol::Http, true).await;
    let mut client = setting.client().await;
    let answer = client.server_streaming(Request::new("w".to_owned()), path("ServerStream"), Codec::default()).await;
    let (got, end) = words(answer.unwrap().into_inner()).await;
    assert_eq!((got.len(), end.map(|status| status.code())), (3, Some(Code::DataLoss)));
}

#[tokio::test]
async fn a_head_is_passed_on_before_there_is_a_message_behind_it() {
    let mut setting = Setting::new().await;
    setting.orders.part("inventory").routes[0].retry.on.insert(RetryOn::Grpc(14));
    setting.orders.apply();
    let mut client = setting.client().await;
    let (send, sent) = mpsc::channel(1);
    let sent = stream::unfold(sent, |mut sent| async { sent.recv().await.map(|word: String| (word, sent)) });
    let head = client.streaming(Request::new(sent), path("Both"), Codec::default());
    let head = tokio::time::timeout(Duration::from_secs(10), head).await.expect("a head before the first word");
    send.send("first".to_owned()).await.unwrap();
    assert_eq!(head.unwrap().into_inner().message().await.unwrap().as_deref(), Some("FIRST"));
}
