//! A role's own identity: its key, its short-lived certificate, and the TLS settings made of them.
//!
//! New handshakes use what [`Identity::replace`] put in last; connections that stand live on. Getting a certificate is the
//! role's business (enrolment, renewal), signing one is the certificate authority's in `control`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::identity::{SpiffeId, Subject};
use model::name::Name;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::{ClientConfig, ServerConfig};

use crate::tls::{Admission, Alpn, ClientVerifier, Peer, ServerVerifier, provider, roots_of};

/// A key and the certificate that says whose it is, in PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The leaf first.
    pub chain_pem: String,
    /// PKCS #8; never leaves the role.
    pub key_pem: String,
    /// The mesh's roots; several while one is being replaced.
    pub roots_pem: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("chain_pem", &self.chain_pem).finish_non_exhaustive()
    }
}

/// What went wrong with an identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The PEM or what is in it.
    #[error("the credentials are not usable: {0}")]
    Pem(String),
    /// The cryptography said no.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// A key or request could not be made.
    #[error("a key or a certificate request could not be made: {0}")]
    Request(#[from] rcgen::Error),
}

/// A fresh key and the request to certify it.
pub struct Request {
    /// The key, PKCS #8 in PEM.
    pub key_pem: String,
    /// The request (RFC 2986) in PEM; its one subject alternative name is the SPIFFE ID.
    pub csr_pem: String,
}

impl Request {
    /// Makes a key (ECDSA P-256) and asks for a certificate for `id`.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn new(id: &SpiffeId) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, id.subject.to_string());
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id.to_string())?)];
        let csr = params.serialize_request(&key)?;
        Ok(Self { key_pem: key.serialize_pem(), csr_pem: csr.pem()? })
    }
}

/// A role's identity, replaced as certificates are renewed; cheap to clone.
#[derive(Debug, Clone)]
pub struct Identity(Arc<ArcSwap<Current>>);

/// The identity at one moment.
#[derive(Debug)]
pub struct Current {
    /// Who this role is.
    pub id: SpiffeId,
    /// Which instance it is, as others are proven. `None`: the certificate is of a release that named no instance.
    pub instance: Option<Name>,
    /// When the certificate begins to hold, in seconds since 1970.
    pub not_before_s: u64,
    /// When the certificate ends, in seconds since 1970.
    pub not_after_s: u64,
    credentials: Credentials,
    server: Arc<ServerConfig>,
    // One setting for each callee and protocol, kept so that sessions resume; a lock, since connections are rare.
    clients: Mutex<BTreeMap<(Subject, Alpn), Arc<ClientConfig>>>,
}

impl Identity {
    /// Takes up credentials.
    ///
    /// # Errors
    /// When they do not parse, do not fit each other, or carry no SPIFFE ID.
    pub fn new(credentials: Credentials) -> Result<Self, Error> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(Current::new(credentials)?))))
    }

    /// The identity now.
    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        self.0.load_full()
    }

    /// Takes up renewed credentials; handshakes from now on use them.
    ///
    /// # Errors
    /// As [`Identity::new`]; the old ones then stay.
    pub fn replace(&self, credentials: Credentials) -> Result<(), Error> {
        self.0.store(Arc::new(Current::new(credentials)?));
        Ok(())
    }
}

impl Current {
    fn new(credentials: Credentials) -> Result<Self, Error> {
        let chain = chain_of(&credentials.chain_pem)?;
        let leaf = chain.first().ok_or_else(|| Error::Pem("the chain is empty".to_owned()))?;
        let Peer { id, instance, not_before_s, not_after_s } = Peer::read(leaf)?;
        let server = server_config(&credentials, &id.mesh, Admission::Members)?;
        Ok(Self { id, instance, not_before_s, not_after_s, credentials, server, clients: Mutex::default() })
    }

    /// For a listener that lets in this mesh's roles only, both HTTP versions.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For the control plane's listener, which also hears those who have yet to enrol, and those whose certificate ended no longer
    /// than `grace` ago and has yet to be renewed ([`crate::tls::accept_ended`]).
    ///
    /// # Errors
    /// When the cryptography says no.
    pub fn server_with_applicants(&self, grace: Duration) -> Result<Arc<ServerConfig>, Error> {
        server_config(&self.credentials, &self.id.mesh, Admission::Applicants(grace))
    }

    /// How long ago the certificate ended, in seconds; 0: it holds.
    #[must_use]
    pub fn ended_for_s(&self, now_s: u64) -> u64 {
        now_s.saturating_sub(self.not_after_s)
    }

    /// For a call to `callee`, which must prove to be it.
    ///
    /// # Errors
    /// When the cryptography says no.
    pub fn client(&self, callee: &Subject, alpn: Alpn) -> Result<Arc<ClientConfig>, Error> {
        let mut clients = self.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = (callee.clone(), alpn);
        if let Some(config) = clients.get(&key) {
            return Ok(config.clone());
        }
        let verifier = ServerVerifier {
            mesh: self.id.mesh.clone(),
            expected: callee.clone(),
            roots: roots_of(&self.credentials.roots_pem)?,
            provider: provider(),
        };
        let mut config = client_builder(verifier)?
            .with_client_auth_cert(chain_of(&self.credentials.chain_pem)?, key_of(&self.credentials.key_pem)?)?;
        config.alpn_protocols = vec![alpn.wire().to_vec()];
        let config = Arc::new(config);
        clients.insert(key, config.clone());
        Ok(config)
    }

    /// The mesh's roots in PEM.
    #[must_use]
    pub fn roots_pem(&self) -> &str {
        &self.credentials.roots_pem
    }

    /// The credentials, for keeping them on the role's own disk.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }
}

/// For a role that has no certificate yet: it knows the mesh's roots and calls the control plane to enrol.
///
/// # Errors
/// When the roots do not parse.
pub fn enrolment(mesh: &Name, roots_pem: &str) -> Result<Arc<ClientConfig>, Error> {
    let verifier = ServerVerifier {
        mesh: mesh.clone(),
        expected: Subject::ControlPlane,
        roots: roots_of(roots_pem)?,
        provider: provider(),
    };
    let mut config = client_builder(verifier)?.with_no_client_auth();
    config.alpn_protocols = vec![Alpn::Http2.wire().to_vec()];
    Ok(Arc::new(config))
}

fn client_builder(
    verifier: ServerVerifier,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, Error> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

fn server_config(credentials: &Credentials, mesh: &Name, admission: Admission) -> Result<Arc<ServerConfig>, Error> {
    let verifier = ClientVerifier {
        mesh: mesh.clone(),
        roots: roots_of(&credentials.roots_pem)?,
        provider: provider(),
        admission,
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain_of(&credentials.chain_pem)?, key_of(&credentials.key_pem)?)?;
    config.alpn_protocols = vec![Alpn::Http2.wire().to_vec(), Alpn::Http1.wire().to_vec()];
    Ok(Arc::new(config))
}

fn chain_of(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| Error::Pem(e.to_string()))
}

fn key_of(pem: &str) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| Error::Pem(e.to_string()))
}

#[cfg(test)]
mod tests;
