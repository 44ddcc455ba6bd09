//! Who a peer is: its chain must end at the mesh's roots and its leaf must carry one SPIFFE ID (X.509-SVID §2, §5).
//!
//! Host names and addresses play no part inside of the mesh.

use std::sync::Arc;
use std::time::Duration;

use model::identity::{SpiffeId, Subject};
use model::name::Name;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime, pem::PemObject as _};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// The cryptography in use.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The roots of a mesh.
pub(crate) type Roots = Arc<Vec<TrustAnchor<'static>>>;

/// The roots in a PEM file; several while one is being replaced.
pub(crate) fn roots_of(pem: &str) -> Result<Roots, Error> {
    let mut roots = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| Error::General(format!("the roots are not PEM: {e}")))?;
        let anchor = anchor_from_trusted_cert(&certificate).map_err(|e| Error::General(format!("not a root: {e}")))?;
        roots.push(anchor.to_owned());
    }
    if roots.is_empty() {
        return Err(Error::General("there is no root certificate".to_owned()));
    }
    Ok(Arc::new(roots))
}

/// The one SPIFFE ID in a certificate.
fn spiffe_id(certificate: &CertificateDer<'_>) -> Result<SpiffeId, Error> {
    let leaf =
        EndEntityCert::try_from(certificate).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let mut names = leaf.valid_uri_names();
    match (names.next(), names.next()) {
        (Some(name), None) => name.parse().map_err(refused),
        _ => Err(refused(Refusal::NotOneName)),
    }
}

/// Why a peer with a good chain is refused. `Debug` says the same as `Display`, since that is what rustls prints.
#[derive(thiserror::Error)]
pub(super) enum Refusal {
    #[error("a certificate of the mesh has exactly one URI name")]
    NotOneName,
    #[error("the peer is {found}, not {expected}")]
    Other { found: SpiffeId, expected: SpiffeId },
    #[error("the peer is {found}, of another mesh than {mesh}")]
    Stranger { found: SpiffeId, mesh: Name },
}

impl std::fmt::Debug for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

pub(super) fn refused(why: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}

fn verify_chain(
    roots: &Roots,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    usage: KeyUsage,
    provider: &CryptoProvider,
) -> Result<SpiffeId, Error> {
    let certificate =
        EndEntityCert::try_from(leaf).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    certificate
        .verify_for_usage(provider.signature_verification_algorithms.all, roots, intermediates, now, usage, None, None)
        .map_err(|error| match error {
            webpki::Error::CertExpired { time, not_after } => {
                Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after })
            }
            // A mesh that was made anew has a root of the same name with another key.
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                Error::InvalidCertificate(CertificateError::UnknownIssuer)
            }
            other => refused(other),
        })?;
    spiffe_id(leaf)
}

/// Who is let in beside clients of this mesh whose certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Nobody.
    Members,
    /// Those who have no certificate yet, and those whose certificate ended no longer than this ago: the control plane hears both,
    /// and gives them nothing but a certificate.
    Applicants(Duration),
}

/// Lets in clients of this mesh, and whom else its admission says.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) mesh: Name,
    pub(crate) roots: Roots,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) admission: Admission,
}

impl ClientVerifier {
    fn verify_at(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, Error> {
        verify_chain(&self.roots, leaf, intermediates, now, KeyUsage::client_auth(), &self.provider)
    }

    /// A certificate that has ended is proven as of its last second, where it may be let in at all.
    fn verify_ended(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        ended: Error,
    ) -> Result<SpiffeId, Error> {
        match (self.admission, &ended) {
            (
                Admission::Applicants(grace),
                Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }),
            ) if now.as_secs().saturating_sub(not_after.as_secs()) <= grace.as_secs() => {
                self.verify_at(leaf, intermediates, *not_after)
            }
            _ => Err(ended),
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.admission == Admission::Members
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let found = self
            .verify_at(leaf, intermediates, now)
            .or_else(|error| self.verify_ended(leaf, intermediates, now, error))?;
        if found.mesh != self.mesh {
            return Err(refused(Refusal::Stranger { found, mesh: self.mesh.clone() }));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Calls only the one server that is meant.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) mesh: Name,
    pub(crate) expected: Subject,
    pub(crate) roots: Roots,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = verify_chain(&self.roots, leaf, intermediates, now, KeyUsage::server_auth(), &self.provider)?;
        let expected = SpiffeId { mesh: self.mesh.clone(), subject: self.expected.clone() };
        if found != expected {
            return Err(refused(Refusal::Other { found, expected }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
