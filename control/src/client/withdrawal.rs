//! Withdrawal: how an instance that drains learns that nobody sends to it any more. That it drains, its session has said.

use api::control::WithdrawRequest;
use api::control::discovery_client::DiscoveryClient;
use model::identity::Subject;
use model::name::Name;
use runtime::identity::Identity;
use runtime::tls::Alpn;

use super::{Error, connect};

/// Resolves once every role that is told of `instance`'s service has answered for a snapshot without it. It may be long in
/// coming, so the caller has a bound.
///
/// # Errors
/// When the control plane at `control` cannot be reached, ends, or is of a release that cannot tell.
pub async fn withdrawn(control: &str, identity: &Identity, instance: &Name) -> Result<(), Error> {
    let tls = identity.current().client(&Subject::ControlPlane, Alpn::Http2)?;
    let channel = connect::connect(control, tls).await?;
    let request = WithdrawRequest { instance: instance.to_string() };
    let answered = DiscoveryClient::new(channel).withdraw(request).await;
    answered.map(drop).map_err(|status| Error::of(control, &status))
}
