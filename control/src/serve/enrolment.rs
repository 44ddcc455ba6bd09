//! The authority over gRPC: who may have a certificate. A token is good for the instance of the subject it was made for, a
//! certificate for those in it, also for a while after its end; either way only while the mesh file declares that subject.

use std::sync::Arc;
use std::time::Duration;

use api::control::authority_server::Authority as Wire;
use api::control::{Certificate, EnrolRequest, RenewRequest};
use model::config::Config;
use model::config::Place;
use model::identity::{SpiffeId, Subject};
use model::name::Name;
use runtime::clock;
use tonic::{Request, Response, Status};

use super::Member;
use super::counters::Counters;
use crate::authority::{self, Authority};
use crate::hub::Hub;
use crate::token::{self, Claims, Secret};

/// Signs certificates for who may have them.
#[derive(Debug)]
pub(crate) struct Enrolment {
    pub(crate) authority: Arc<Authority>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) secret: Secret,
    pub(crate) life: Duration,
    /// How long after its end a certificate can be renewed.
    pub(crate) grace: Duration,
    pub(crate) counters: Counters,
}

#[tonic::async_trait]
impl Wire for Enrolment {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<Certificate>, Status> {
        let EnrolRequest { token, csr_pem } = request.into_inner();
        let signed = token::verify(&self.secret, &token, clock::wall_s())
            .map_err(|why| Status::unauthenticated(why.to_string()))
            .and_then(fitting)
            .and_then(|claims| Ok((self.sign(&csr_pem, claims.subject.clone(), &claims.instance)?, claims)));
        self.counters.count_certificate("enrol", signed.is_ok());
        match &signed {
            Ok((_, claims)) => tracing::info!(subject = %claims.subject, instance = %claims.instance, "enrolled"),
            Err(status) => tracing::warn!(why = status.message(), "refused to enrol a role"),
        }
        signed.map(|(certificate, _)| Response::new(certificate))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Certificate>, Status> {
        let Member { id: SpiffeId { subject, .. }, instance, .. } = super::member_within(&request, self.grace)?;
        let signed = self.sign(&request.into_inner().csr_pem, subject.clone(), &instance);
        self.counters.count_certificate("renew", signed.is_ok());
        match &signed {
            Ok(certificate) => tracing::debug!(%subject, %instance, not_after_s = certificate.not_after_s, "renewed"),
            Err(status) => {
                tracing::warn!(%subject, %instance, why = status.message(), "refused to renew a certificate");
            }
        }
        signed.map(Response::new)
    }
}

impl Enrolment {
    fn sign(&self, csr_pem: &str, subject: Subject, instance: &Name) -> Result<Certificate, Status> {
        let config = self.hub.revision().config;
        if !declares(&config, &subject) {
            return Err(Status::permission_denied(format!("the mesh {} declares no {subject}", config.mesh)));
        }
        let id = SpiffeId { mesh: config.mesh.clone(), subject };
        let signed = self.authority.sign_csr(csr_pem, &id, instance, clock::wall_s(), self.life).map_err(status)?;
        Ok(Certificate {
            chain_pem: signed.chain_pem,
            roots_pem: self.authority.roots_pem().to_owned(),
            not_after_s: signed.not_after_s,
        })
    }
}

/// Whether the mesh has such a role. The control plane signs for itself and for nobody who claims to be it.
fn declares(config: &Config, subject: &Subject) -> bool {
    match subject {
        Subject::Service(name) => {
            config.services.get(name).is_some_and(|service| matches!(service.place, Place::Mesh(_)))
        }
        Subject::Gateway(name) => config.gateways.contains_key(name),
        Subject::Broker => true,
        Subject::ControlPlane => false,
    }
}

/// Instances carry their subject's name, alone or before a hyphen: `orders-0`, `orders-v2-1`.
fn fitting(claims: Claims) -> Result<Claims, Status> {
    let Claims { subject, instance, .. } = &claims;
    let named = |base: &str| {
        let rest = instance.as_str().strip_prefix(base);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let fits = match subject {
        Subject::Service(name) => named(name.as_str()),
        Subject::Gateway(name) => named(name.as_str()) || named("gateway"),
        Subject::Broker => named("broker"),
        // It is declared by nobody, which says more.
        Subject::ControlPlane => true,
    };
    let odd = || Status::permission_denied(format!("{instance} is not a name for an instance of {subject}"));
    if fits { Ok(claims) } else { Err(odd()) }
}

fn status(error: authority::Error) -> Status {
    match &error {
        authority::Error::Request(_) => Status::invalid_argument(error.to_string()),
        authority::Error::Name { .. } => Status::permission_denied(error.to_string()),
        _ => {
            tracing::error!(%error, "a certificate could not be signed");
            Status::internal(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_carry_their_subjects_name() {
        for (subject, instance, fits) in [
            ("service/orders", "orders", true),
            ("service/orders", "orders-0", true),
            ("service/orders", "orders-v2-1", true),
            ("service/orders", "orders2-0", false),
            ("service/orders", "payments-0", false),
            ("gateway/public", "public-0", true),
            ("gateway/public", "gateway-public-0", true),
            ("gateway/public", "orders-0", false),
            ("broker", "broker-0", true),
            ("broker", "brokers", false),
        ] {
            let (subject, instance) = (subject.parse().unwrap(), Name::new(instance).unwrap());
            let claims = Claims { subject, instance, expires_s: 1 };
            assert_eq!(fitting(claims.clone()).is_ok(), fits, "{claims:?}");
        }
    }
}
