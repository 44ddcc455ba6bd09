//! Enrolment: a token and a fresh key for the first certificate, and for the next one where the last has ended long ago.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use api::control::EnrolRequest;
use api::control::authority_client::AuthorityClient;
use model::identity::SpiffeId;
use model::name::Name;
use runtime::identity::{self, Credentials, Identity, Request};

use super::backoff::Backoff;
use super::renewal::renew;
use super::{Error, connect};

/// The wait after the first attempt that did not reach the control plane.
const RETRY_INITIAL: Duration = Duration::from_millis(50);
/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long the control plane may take to sign.
const SIGN_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a role finds its token. It is asked anew each time that a token is shown, since a token lives for minutes and a role for
/// months; whoever makes tokens keeps a fresh one there.
#[derive(Clone)]
pub struct TokenSource(Arc<dyn Fn() -> io::Result<String> + Send + Sync>);

impl TokenSource {
    /// Asks `read`, which may read a file.
    pub fn new(read: impl Fn() -> io::Result<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Always the same token.
    #[must_use]
    pub fn fixed(token: String) -> Self {
        Self::new(move || Ok(token.clone()))
    }

    fn read(&self) -> Result<String, Error> {
        (self.0)().map(|token| token.trim().to_owned()).map_err(Error::Token)
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource(..)")
    }
}

/// Who wants a certificate, and by what.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The control plane, `host:port`.
    pub control: String,
    /// The mesh's roots in PEM, by which the control plane is known.
    pub roots_pem: String,
    /// Who the role is.
    pub id: SpiffeId,
    /// Which instance of it.
    pub instance: Name,
    /// Where its token is.
    pub token: TokenSource,
}

/// Asks the control plane for a certificate: by renewal of the one that was `kept` where there is one, which may have ended, or else
/// by token.
///
/// While it cannot be reached it is asked again, for ever: the caller sets a bound if it wants one.
///
/// # Errors
/// When the control plane refuses, there is no token, or what it answers is no identity of the claim.
pub async fn enrol(claim: &Claim, kept: Option<&Identity>) -> Result<Credentials, Error> {
    let mut backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX);
    let mut told = String::new();
    loop {
        let outcome = match kept {
            Some(kept) => match renew(&claim.control, kept).await {
                Err(error) => enrol_instead(claim, error).await,
                renewed => renewed,
            },
            None => enrol_once(claim).await,
        };
        match outcome {
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

/// One attempt by token, where a certificate was not renewed.
pub(super) async fn enrol_instead(claim: &Claim, renewal: Error) -> Result<Credentials, Error> {
    let neither = |token| Error::Neither { renewal: Box::new(renewal), token: Box::new(token) };
    enrol_once(claim).await.map_err(neither)
}

/// One attempt by token.
async fn enrol_once(claim: &Claim) -> Result<Credentials, Error> {
    let Claim { control, roots_pem, id, instance, token } = claim;
    let channel = connect::connect(control, identity::enrolment(&id.mesh, roots_pem)?).await?;
    let Request { key_pem, csr_pem } = Request::new(id)?;
    // Only now, since it may end while the control plane cannot be reached.
    let token = token.read()?;
    let mut request = tonic::Request::new(EnrolRequest { token, csr_pem });
    request.set_timeout(SIGN_TIMEOUT);
    let signed = AuthorityClient::new(channel).enrol(request).await.map_err(|status| Error::of(control, &status))?;
    let signed = signed.into_inner();
    proven(Credentials { chain_pem: signed.chain_pem, key_pem, roots_pem: signed.roots_pem }, id, instance)
}

/// Credentials that hold together and say what they should.
pub(super) fn proven(credentials: Credentials, id: &SpiffeId, instance: &Name) -> Result<Credentials, Error> {
    let current = Identity::new(credentials.clone())?.current();
    if current.id != *id {
        return Err(identity::Error::Pem(format!("the certificate is for {} and not for {id}", current.id)).into());
    }
    match &current.instance {
        Some(found) if found == instance => Ok(credentials),
        Some(found) => Err(Error::Refused(format!("the token was made for {found} and not for {instance}"))),
        None => Err(identity::Error::Pem("the certificate names no instance".to_owned()).into()),
    }
}
