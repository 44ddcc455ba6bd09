//! A stand-in for all sidecars: a forward proxy that knows services by name. It also remembers whose requests carried which trace.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, Version, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};

use crate::broker::Broker;

pub type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// The stand-in.
pub struct Sidecar {
    /// `host:port` where it listens.
    pub address: String,
    pub broker: Arc<Broker>,
    services: Mutex<BTreeMap<String, SocketAddr>>,
    traces: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Sidecar {
    pub async fn start() -> Arc<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let sidecar = Arc::new_cyclic(|sidecar| Self {
            address: listener.local_addr().unwrap().to_string(),
            broker: Arc::new(Broker::new(sidecar.clone())),
            services: Mutex::default(),
            traces: Mutex::default(),
        });
        let accepting = Arc::downgrade(&sidecar);
        tokio::spawn(async move {
            while let (Ok((stream, _)), Some(sidecar)) = (listener.accept().await, accepting.upgrade()) {
                tokio::spawn(sidecar.serve(stream));
            }
        });
        sidecar
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request| {
            let sidecar = Arc::clone(&self);
            async move { Ok::<_, std::convert::Infallible>(sidecar.carry(request).await) }
        });
        // A service that was killed leaves broken connections behind.
        drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
    }

    async fn carry(&self, request: Request<Incoming>) -> Response<Body> {
        let http2 = request.version() == Version::HTTP_2;
        let authority = request.uri().authority().expect("absolute form, or :authority").to_string();
        if !http2 {
            assert_eq!(request.headers()[header::HOST], authority.as_str(), "RFC 9112 §3.2.2");
        }
        let trace = request.headers().get("traceparent").map(|trace| trace.to_str().unwrap().to_owned());
        self.traces.lock().unwrap().entry(authority.clone()).or_default().extend(trace);
        if authority == "broker" {
            return self.broker.take(request).await;
        }
        let forwarded = match self.address_of(&authority) {
            Some(address) => forward(address, http2, request).await,
            None => None,
        };
        forwarded.unwrap_or_else(|| answer(503, r#"{"title":"no endpoint","detail":"nobody is there"}"#))
    }

    pub fn register(&self, service: &str, address: SocketAddr) {
        self.services.lock().unwrap().insert(service.to_owned(), address);
    }

    pub fn address_of(&self, service: &str) -> Option<SocketAddr> {
        self.services.lock().unwrap().get(service).copied()
    }

    /// The traces that came with requests for a service.
    pub fn traces_to(&self, service: &str) -> Vec<String> {
        self.traces.lock().unwrap().get(service).cloned().unwrap_or_default()
    }
}

/// A response with a JSON body.
pub fn answer(status: u16, body: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_owned())).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).header(header::CONTENT_TYPE, "application/json").body(body).unwrap()
}

/// Passes a request on, on a connection of its own, in origin form. `None`: the service is not there.
async fn forward(address: SocketAddr, http2: bool, mut request: Request<Incoming>) -> Option<Response<Body>> {
    let io = TokioIo::new(TcpStream::connect(address).await.ok()?);
    let response = if http2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.ok()?;
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = http1::handshake(io).await.ok()?;
        tokio::spawn(connection);
        *request.uri_mut() = request.uri().path_and_query().unwrap().to_string().parse().unwrap();
        sender.send_request(request).await
    };
    response.ok().map(|response| response.map(|body| body.boxed_unsync()))
}
