//! The mesh's certificate authority: one root, which signs the short-lived certificates of the roles (X.509-SVID).
//!
//! It decides what stands in a certificate and nothing about who may have one: that is settled before it is asked, by a token
//! or by the certificate that is being renewed. Of a request it takes the public key; the name is the one that the caller has proven.

use std::path::{Path, PathBuf};
use std::time::Duration;

use model::identity::SpiffeId;
use model::name::Name;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use storage::disk::Disk;
use storage::kept;
use time::OffsetDateTime;

use crate::revisions::Revisions;

/// The authority's file: the key, then the root, in PEM.
const FILE: &str = "authority.pem";
/// Longest file that is taken for an authority, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1_024;
/// How long a root holds.
const ROOT_LIFE: Duration = Duration::from_hours(10 * 365 * 24);
/// How far back a certificate begins, for roles whose clocks are behind.
const BACKDATE: Duration = Duration::from_mins(5);
/// Longest request that is looked at, in bytes.
const CSR_LENGTH_MAX: usize = 8 * 1_024;
/// Octets of a serial number (RFC 5280 §4.1.2.2 allows 20).
const SERIAL_LENGTH: usize = 16;

/// The authority of one mesh.
pub struct Authority {
    mesh: Name,
    root_pem: String,
    not_after_s: u64,
    issuer: Issuer<'static, KeyPair>,
}

/// Why there is no authority or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate request is not one, its signature does not hold, or its key is of another kind than ECDSA P-256.
    #[error("the certificate request is refused: {0}")]
    Request(String),
    /// The request asks for another name than the caller has proven.
    #[error(
        "the certificate request is refused: it must name {expected} and nothing else, for which what was shown is"
    )]
    Name {
        /// What it had to be.
        expected: SpiffeId,
    },
    /// The root ends before anything could be signed.
    #[error("the mesh's root certificate has expired")]
    RootExpired,
    /// What stands in the authority's file is not an authority of this mesh.
    #[error("{}: {why}", path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The authority's file is gone: revisions are kept beside it, so there was one, and every role trusts it.
    #[error(
        "{path} is missing, and revisions of this mesh are kept beside it: every role trusts the root that was in it. Nothing was made. Put it back from a copy; or give up that root, `mv {dir} {dir}.old`, and start again: the mesh file becomes revision 1 under a new root, and every role enrols anew, with the new roots and a new token",
        path = path.display(),
        dir = path.parent().unwrap_or(path).display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// The authority's file cannot be read, or is not what was written.
    #[error(transparent)]
    Unread(#[from] kept::Error),
    /// The disk said no.
    #[error(transparent)]
    Disk(#[from] std::io::Error),
    /// The cryptography said no.
    #[error("the cryptography said no: {0}")]
    Cryptography(#[from] rcgen::Error),
    /// No randomness.
    #[error("the operating system gave no randomness")]
    Randomness,
}

/// A signed certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The chain in PEM, the leaf first. The root is not in it.
    pub chain_pem: String,
    /// When it ends, in seconds since 1970.
    pub not_after_s: u64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("mesh", &self.mesh).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new root for `mesh`, good for ten years from `now_s` (seconds since 1970).
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn create(mesh: &Name, now_s: u64) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("{mesh} root"));
        params.serial_number = Some(serial()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let not_after_s = now_s.saturating_add(ROOT_LIFE.as_secs());
        (params.not_before, params.not_after) = (begins(now_s), moment(not_after_s));
        let root_pem = params.self_signed(&key)?.pem();
        Ok(Self { mesh: mesh.clone(), root_pem, not_after_s, issuer: Issuer::new(params, key) })
    }

    /// The authority in `dir`; a new one that is kept there where there was none. The key's file may be read by its owner only.
    ///
    /// # Errors
    /// As the disk says, when what is kept there is damaged or not an authority of `mesh`, or when it is missing and revisions are kept.
    pub fn load_or_create(disk: &dyn Disk, dir: &Path, mesh: &Name) -> Result<Self, Error> {
        let path = dir.join(FILE);
        if let Some(pem) = kept::read(disk, &path, FILE_BYTES_MAX)? {
            let kept = |why| Error::Kept { path: path.clone(), why };
            let pem = String::from_utf8(pem).map_err(|_| kept("it is not text".to_owned()))?;
            return Self::from_pem(mesh, &pem).map_err(kept);
        }
        if Revisions::were_kept(disk, dir)? {
            return Err(Error::Gone { path });
        }
        let authority = Self::create(mesh, runtime::clock::wall_s())?;
        kept::write_private(disk, &path, authority.to_pem().as_bytes())?;
        tracing::info!(path = %path.display(), "a new root was made: there is none, and nothing says that there was one");
        Ok(authority)
    }

    /// Takes up the authority that stands in its file as PEM, key and certificate.
    fn from_pem(mesh: &Name, pem: &str) -> Result<Self, String> {
        let start = pem.find("-----BEGIN CERTIFICATE-----").ok_or("there is no certificate in it")?;
        let (key, root_pem) = pem.split_at(start);
        let key = KeyPair::from_pem(key).map_err(|e| format!("the key: {e}"))?;
        let (_, der) = x509_parser::pem::parse_x509_pem(root_pem.as_bytes()).map_err(|e| format!("{e}"))?;
        let root = der.parse_x509().map_err(|e| format!("{e}"))?;
        if root.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err("the key is not the certificate's".to_owned());
        }
        let names = root.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        if !names.eq([format!("{mesh} root")]) {
            return Err(format!("it is the authority of another mesh than {mesh}: {}", root.subject()));
        }
        let not_after_s = u64::try_from(root.validity().not_after.timestamp()).unwrap_or(0);
        let issuer = Issuer::from_ca_cert_pem(root_pem, key).map_err(|e| e.to_string())?;
        Ok(Self { mesh: mesh.clone(), root_pem: root_pem.to_owned(), not_after_s, issuer })
    }

    /// The key and the root in PEM, for the authority's own file.
    fn to_pem(&self) -> String {
        format!("{}{}", self.issuer.key().serialize_pem(), self.root_pem)
    }

    /// The mesh whose authority this is.
    #[must_use]
    pub fn mesh(&self) -> &Name {
        &self.mesh
    }

    /// The mesh's roots in PEM.
    #[must_use]
    pub fn roots_pem(&self) -> &str {
        &self.root_pem
    }

    /// Signs the key in `csr_pem` as `id`, from `now_s` (seconds since 1970) for `life`, or until the root ends.
    ///
    /// The certificate begins five minutes earlier, yet never before 1970. It serves both ends of a connection.
    ///
    /// # Errors
    /// When the request does not parse, is not signed by its own key, asks for another name, or the root has expired.
    pub fn sign_csr(&self, csr_pem: &str, id: &SpiffeId, now_s: u64, life: Duration) -> Result<Signed, Error> {
        if csr_pem.len() > CSR_LENGTH_MAX {
            return Err(Error::Request(format!("it is longer than {CSR_LENGTH_MAX} bytes")));
        }
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| Error::Request(e.to_string()))?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(Error::Request("its key is not ECDSA P-256".to_owned()));
        }
        let name = SanType::URI(Ia5String::try_from(id.to_string())?);
        if request.params.subject_alt_names != [name.clone()] || id.mesh != self.mesh {
            return Err(Error::Name { expected: id.clone() });
        }
        if self.not_after_s <= now_s {
            return Err(Error::RootExpired);
        }
        let not_after_s = now_s.saturating_add(life.as_secs()).min(self.not_after_s);
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&id.subject.to_string());
        params.subject_alt_names = vec![name];
        params.serial_number = Some(serial()?);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (begins(now_s), moment(not_after_s));
        let leaf = params.signed_by(&request.public_key, &self.issuer)?;
        Ok(Signed { chain_pem: leaf.pem(), not_after_s })
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn begins(now_s: u64) -> OffsetDateTime {
    moment(now_s.saturating_sub(BACKDATE.as_secs()))
}

fn moment(seconds: u64) -> OffsetDateTime {
    // `time` ends with the year 9999; a clock beyond it is a broken one, and 1970 makes what it signs worthless.
    let seconds = i64::try_from(seconds).unwrap_or(0);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn serial() -> Result<SerialNumber, Error> {
    let mut serial = [0; SERIAL_LENGTH];
    SystemRandom::new().fill(&mut serial).map_err(|_| Error::Randomness)?;
    // Positive and never shorter than it is (RFC 5280 §4.1.2.2).
    serial[0] = (serial[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&serial))
}

#[cfg(test)]
mod tests;
