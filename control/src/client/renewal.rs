//! Renewal: the next certificate is asked for in the middle of the life of the one in use.
//!
//! What is due is read off the certificate and the clock at each turn, never off a timer that was set once, so that a machine
//! that slept, a clock that was set, or an identity that someone else replaced changes nothing (linkerd2#15109).

use std::time::Duration;

use api::control::RenewRequest;
use api::control::authority_client::AuthorityClient;
use model::identity::Subject;
use runtime::clock;
use runtime::drain::Drain;
use runtime::identity::{Credentials, Identity, Request};
use runtime::tls::Alpn;

use super::backoff::Backoff;
use super::enrolment::{Claim, enrol_instead, proven};
use super::{Error, connect};

/// The longest time between two looks at the certificate. Timers stand still while a machine is suspended, so after it wakes a
/// certificate that has ended meanwhile stays so for as long as this.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// The wait after the first renewal that failed.
const RETRY_INITIAL: Duration = Duration::from_millis(500);
/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long the control plane may take to sign.
const SIGN_TIMEOUT: Duration = Duration::from_secs(5);
/// Renewal is due after this share of the time that was left when the certificate was taken up, and up to [`JITTER`] later.
const DUE: f64 = 0.5;
/// How much later at most, so that roles that started together do not renew together.
const JITTER: f64 = 0.1;
/// From this share on a certificate that is still not renewed is worth an alarm.
const ALARM: f64 = 0.75;

/// Asks the control plane at `control` for the next certificate of the same identity and instance. A certificate that ended a short
/// while ago is good for it too: the control plane says for how long.
///
/// # Errors
/// When it cannot be reached, refuses, or what it answers is no identity.
pub async fn renew(control: &str, identity: &Identity) -> Result<Credentials, Error> {
    let current = identity.current();
    let channel = connect::connect(control, current.client(&Subject::ControlPlane, Alpn::Http2)?).await?;
    let Request { key_pem, csr_pem } = Request::new(&current.id)?;
    let mut request = tonic::Request::new(RenewRequest { csr_pem });
    request.set_timeout(SIGN_TIMEOUT);
    let signed = AuthorityClient::new(channel).renew(request).await.map_err(|status| Error::of(control, &status))?;
    let signed = signed.into_inner();
    let instance =
        current.instance.as_ref().ok_or_else(|| Error::Refused("the certificate names no instance".to_owned()))?;
    proven(Credentials { chain_pem: signed.chain_pem, key_pem, roots_pem: signed.roots_pem }, &current.id, instance)
}

/// Renews `identity` for as long as the role lives, and hands each new one to `keep` for the role's own disk.
///
/// While the control plane is away the role serves on until its certificate ends. One that has ended is renewed as well, within the
/// control plane's grace; after that, or where it is refused, the role enrols anew by the token of its claim.
pub async fn keep_renewed<K>(claim: Claim, identity: Identity, keep: K, drain: Drain)
where
    K: Fn(&Credentials) + Send + Sync + 'static,
{
    tokio::select! {
        () = drain.requested() => {}
        () = renew_for_ever(&claim, &identity, keep) => {}
    }
}

async fn renew_for_ever<K: Fn(&Credentials)>(claim: &Claim, identity: &Identity, keep: K) {
    let mut backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX);
    let mut life = Life::begins(identity, backoff.jitter());
    loop {
        let now_ms = clock::wall_ms();
        if life.not_after_s != identity.current().not_after_s {
            life = Life::begins(identity, backoff.jitter());
        }
        let wait = life.due(now_ms);
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(LOOK_INTERVAL_MAX)).await;
            continue;
        }
        match renewed(claim, identity).await {
            Ok(credentials) => {
                backoff.reset();
                keep(&credentials);
                life = Life::begins(identity, backoff.jitter());
                tracing::debug!(not_after_s = life.not_after_s, "the certificate was renewed");
            }
            Err(error) => {
                life.warn(now_ms, &error);
                tokio::time::sleep(backoff.next().min(life.patience(now_ms))).await;
            }
        }
    }
}

async fn renewed(claim: &Claim, identity: &Identity) -> Result<Credentials, Error> {
    let holds = identity.current().ended_for_s(clock::wall_s()) == 0;
    let credentials = match renew(&claim.control, identity).await {
        // There is time for another attempt, and a token is not shown where a certificate is enough.
        Err(error) if holds && error.is_temporary() => return Err(error),
        Err(error) => enrol_instead(claim, error).await?,
        Ok(credentials) => credentials,
    };
    identity.replace(credentials.clone())?;
    Ok(credentials)
}

/// The life of the certificate in use, from when it was taken up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    begin_ms: u64,
    not_after_s: u64,
    due: f64,
}

impl Life {
    /// `jitter` is from 0 to 1.
    pub(crate) fn begins(identity: &Identity, jitter: f64) -> Self {
        let not_after_s = identity.current().not_after_s;
        Self { begin_ms: clock::wall_ms(), not_after_s, due: DUE + JITTER * jitter }
    }

    /// How long until renewal is due.
    pub(crate) fn due(&self, now_ms: u64) -> Duration {
        self.whole().mul_f64(self.due).saturating_sub(self.passed(now_ms))
    }

    fn whole(&self) -> Duration {
        Duration::from_millis(self.not_after_s.saturating_mul(1_000).saturating_sub(self.begin_ms))
    }

    fn passed(&self, now_ms: u64) -> Duration {
        Duration::from_millis(now_ms.saturating_sub(self.begin_ms))
    }

    /// The longest wait between attempts that still leaves room for many before the end; after it there is no hurry left.
    fn patience(&self, now_ms: u64) -> Duration {
        let left = self.whole().saturating_sub(self.passed(now_ms));
        if left.is_zero() { RETRY_MAX } else { (left / 10).max(RETRY_INITIAL) }
    }

    fn warn(&self, now_ms: u64, error: &Error) {
        let left_s = self.whole().saturating_sub(self.passed(now_ms)).as_secs();
        if left_s == 0 {
            tracing::error!(%error, "the certificate has expired: no new connection inside of the mesh can be made");
        } else if self.passed(now_ms) >= self.whole().mul_f64(ALARM) {
            tracing::error!(%error, left_s, "the certificate could not be renewed and ends soon");
        } else {
            tracing::warn!(%error, left_s, "the certificate could not be renewed; trying again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_in_the_middle_of_a_life() {
        for (jitter, due_s) in [(0.0, 1_800), (1.0, 2_160)] {
            let life = Life { begin_ms: 1_000_000, not_after_s: 4_600, due: DUE + JITTER * jitter };
            assert_eq!(life.due(1_000_000).as_secs_f64().round() as u64, due_s);
            assert_eq!(life.due(1_000_000 + due_s * 1_000 + 1), Duration::ZERO);
            // A clock that was set back waits no longer than a whole half; one set forward is due at once.
            assert_eq!(life.due(0).as_secs_f64().round() as u64, due_s);
            assert_eq!(life.due(u64::MAX), Duration::ZERO);
            assert_eq!(life.patience(4_599_000), RETRY_INITIAL);
            assert_eq!(life.patience(u64::MAX), RETRY_MAX);
        }
    }
}
