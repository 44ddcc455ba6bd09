//! A small application: answers each request by a closure and remembers what it received.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use runtime::http::{Body, BoxFuture, full};
use runtime::net::{Listener, Share};
use tokio::task::JoinHandle;

/// What an application answers.
pub type Reply = Response<Body>;

/// What an application has received, its body whole.
#[derive(Debug, Clone)]
pub struct Received {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

type Service = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<Reply> + Send + Sync>;

/// A running application; dropping it closes its listener and its connections.
pub struct App {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Received>>>,
    serving: JoinHandle<()>,
}

impl App {
    /// Reads each request whole, remembers it, and answers by `reply`.
    pub async fn start(reply: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (reply, remembered) = (Arc::new(reply), seen.clone());
        let service: Service = Arc::new(move |request: Request<Incoming>| {
            let (reply, seen) = (reply.clone(), remembered.clone());
            Box::pin(async move {
                let (head, body) = request.into_parts();
                let Ok(body) = body.collect().await else { return status(StatusCode::BAD_REQUEST) };
                let received =
                    Received { method: head.method, uri: head.uri, headers: head.headers, body: body.to_bytes() };
                seen.lock().unwrap().push(received.clone());
                reply(&received)
            })
        });
        Self::serve(service, seen).await
    }

    /// Answers each request by `service`, which reads the body itself.
    pub async fn streaming(service: impl Fn(Request<Incoming>) -> BoxFuture<Reply> + Send + Sync + 'static) -> Self {
        Self::serve(Arc::new(service), Arc::default()).await
    }

    /// Says `text` to everything.
    pub async fn saying(text: &'static str) -> Self {
        Self::start(move |_| Response::new(full(text))).await
    }

    async fn serve(service: Service, seen: Arc<Mutex<Vec<Received>>>) -> Self {
        let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let reply = service(request);
                        async move { Ok::<_, Infallible>(reply.await) }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, seen, serving }
    }

    pub fn seen(&self) -> Vec<Received> {
        self.seen.lock().unwrap().clone()
    }

    pub fn last(&self) -> Received {
        self.seen().pop().expect("the application has received nothing")
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub fn status(status: StatusCode) -> Reply {
    let mut reply = Response::new(full(""));
    *reply.status_mut() = status;
    reply
}
