//! A certificate authority for one test.

use model::identity::{SpiffeId, Subject};
use model::name::Name;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use runtime::identity::{Credentials, Identity};

pub struct Ca {
    mesh: Name,
    issuer: Issuer<'static, KeyPair>,
    roots_pem: String,
}

impl Ca {
    pub fn new(mesh: &Name) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let roots_pem = params.self_signed(&key).unwrap().pem();
        Self { mesh: mesh.clone(), issuer: Issuer::new(params, key), roots_pem }
    }

    pub fn identity(&self, subject: &Subject) -> Identity {
        self.identity_with(subject, CertificateParams::default())
    }

    /// One whose certificate has these beside its name and its usage.
    pub fn identity_with(&self, subject: &Subject, mut params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let id = SpiffeId { mesh: self.mesh.clone(), subject: subject.clone() };
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id.to_string()).unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let chain_pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        let credentials = Credentials { chain_pem, key_pem: key.serialize_pem(), roots_pem: self.roots_pem.clone() };
        Identity::new(credentials).unwrap()
    }
}
