//! A gRPC channel to the control plane over the doors: `runtime::net` for the socket, the mesh's TLS on it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use runtime::{net, tls};
use rustls::ClientConfig;
use tonic::transport::{Channel, Endpoint};

use super::Error;

/// How long it may take until a connection stands, with its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A control plane that went away without a word is noticed after this and [`KEEPALIVE_TIMEOUT`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long it may take to answer a ping.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Connects to `control`, `host:port`, once.
///
/// # Errors
/// When no address of it can be reached in time, or it does not prove to be the control plane.
pub(super) async fn connect(control: &str, tls: Arc<ClientConfig>) -> Result<Channel, Error> {
    let unreachable = |why: String| Error::Unreachable { control: control.to_owned(), why };
    let dialled = tokio::time::timeout(CONNECT_TIMEOUT, dial(control, tls)).await;
    let dialled = dialled.map_err(|_| unreachable("no connection in time".to_owned()))?;
    let mut stream = Some(TokioIo::new(dialled.map_err(|error| failed(control, &error))?));
    // The channel asks for one connection. When that breaks the channel is given up, and whoever held it connects anew under
    // the identity of that moment; so the connector has nothing to give the second time.
    let connector = tower::service_fn(move |_| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted));
        std::future::ready(stream)
    });
    Endpoint::from_static("http://control-plane.meshwork")
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|error| unreachable(error.to_string()))
}

/// Why there is no connection. Whoever answers and is not the control plane of the roots that this role was given will not become it;
/// often the roots are the wrong ones, or the mesh's name. A certificate that does not hold now may be replaced, or a clock set.
fn failed(control: &str, error: &io::Error) -> Error {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let (control, why) = (control.to_owned(), error.to_string());
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ))
        | None => Error::Unreachable { control, why },
        Some(rustls::Error::InvalidCertificate(_)) => Error::Unproven { control, why },
        Some(_) => {
            Error::Unreachable { control, why: format!("who answers there does not speak as a control plane: {why}") }
        }
    }
}

async fn dial(control: &str, tls: Arc<ClientConfig>) -> io::Result<tls::Connected> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in net::resolve(control).await? {
        match net::connect(address).await {
            Ok(stream) => return tls::connect(stream, tls).await,
            Err(error) => last = error,
        }
    }
    Err(last)
}
