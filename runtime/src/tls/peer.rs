//! What a certificate of the mesh says: who, which instance of it, and for how long.
//!
//! It is read from certificates whose chain was verified, in the handshake or in an earlier one whose session is resumed.

use model::identity::SpiffeId;
use model::name::Name;
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, Error};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::verify::{Refusal, refused};

/// Who is at the other end of a connection, by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is. There is exactly one URI name in a certificate (X.509-SVID §2).
    pub id: SpiffeId,
    /// Which instance it is, by the one DNS name in the certificate. `None`: a certificate of a release that named no instance.
    pub instance: Option<Name>,
    /// When the certificate begins to hold, in seconds since 1970.
    pub not_before_s: u64,
    /// When the certificate ends, in seconds since 1970. It still holds in this very second (RFC 5280 §4.1.2.5).
    pub not_after_s: u64,
}

impl Peer {
    /// Reads a leaf. Nothing is verified here.
    ///
    /// # Errors
    /// When it does not parse, or does not carry exactly one SPIFFE ID.
    pub(crate) fn read(leaf: &CertificateDer<'_>) -> Result<Self, Error> {
        let odd = || Error::InvalidCertificate(CertificateError::BadEncoding);
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| odd())?;
        let names = leaf.subject_alternative_name().map_err(|_| odd())?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let (mut uris, mut hosts) = (Vec::new(), Vec::new());
        for name in names {
            match name {
                GeneralName::URI(uri) => uris.push(*uri),
                GeneralName::DNSName(host) => hosts.push(*host),
                _ => {}
            }
        }
        let ([uri], seconds) = (&uris[..], |time: i64| u64::try_from(time).unwrap_or(0)) else {
            return Err(refused(Refusal::NotOneName));
        };
        Ok(Self {
            id: uri.parse().map_err(refused)?,
            instance: if let [host] = hosts[..] { Name::new(host).ok() } else { None },
            not_before_s: seconds(leaf.validity().not_before.timestamp()),
            not_after_s: seconds(leaf.validity().not_after.timestamp()),
        })
    }

    /// How long ago the certificate ended, in seconds; 0: it holds.
    #[must_use]
    pub fn ended_for_s(&self, now_s: u64) -> u64 {
        now_s.saturating_sub(self.not_after_s)
    }
}
