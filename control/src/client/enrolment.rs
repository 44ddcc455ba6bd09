//! Enrolment: a token and a fresh key for the first certificate.

use std::time::Duration;

use api::control::EnrolRequest;
use api::control::authority_client::AuthorityClient;
use model::identity::SpiffeId;
use runtime::identity::{self, Credentials, Identity, Request};

use super::backoff::Backoff;
use super::{Error, connect};

/// The wait after the first attempt that did not reach the control plane.
const RETRY_INITIAL: Duration = Duration::from_millis(50);
/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long the control plane may take to sign.
const SIGN_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the control plane at `control` (`host:port`), known by the mesh's roots, for the first certificate of `id`.
///
/// While it cannot be reached it is asked again, for ever: the caller sets a bound if it wants one.
///
/// # Errors
/// When the control plane refuses, or what it answers is no identity of `id`.
pub async fn enrol(control: &str, roots_pem: &str, token: &str, id: &SpiffeId) -> Result<Credentials, Error> {
    let mut backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX);
    let mut told = String::new();
    loop {
        match enrol_once(control, roots_pem, token, id).await {
            Err(error) if error.is_temporary() => {
                // Once for each reason: the last one is what keeps it now.
                if told != error.to_string() {
                    tracing::warn!(%error, "cannot enrol yet; trying again");
                    told = error.to_string();
                }
                tokio::time::sleep(backoff.next()).await;
            }
            outcome => return outcome,
        }
    }
}

/// One attempt of [`enrol`].
pub(super) async fn enrol_once(
    control: &str,
    roots_pem: &str,
    token: &str,
    id: &SpiffeId,
) -> Result<Credentials, Error> {
    let channel = connect::connect(control, identity::enrolment(&id.mesh, roots_pem)?).await?;
    let Request { key_pem, csr_pem } = Request::new(id)?;
    let mut request = tonic::Request::new(EnrolRequest { token: token.to_owned(), csr_pem });
    request.set_timeout(SIGN_TIMEOUT);
    let signed = AuthorityClient::new(channel).enrol(request).await.map_err(|status| Error::of(control, &status))?;
    let signed = signed.into_inner();
    proven(Credentials { chain_pem: signed.chain_pem, key_pem, roots_pem: signed.roots_pem }, id)
}

/// Credentials that hold together and say what they should.
pub(super) fn proven(credentials: Credentials, id: &SpiffeId) -> Result<Credentials, Error> {
    let found = Identity::new(credentials.clone())?.current().id.clone();
    if found == *id {
        return Ok(credentials);
    }
    Err(identity::Error::Pem(format!("the certificate is for {found} and not for {id}")).into())
}
