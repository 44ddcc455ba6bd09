//! What the authority signs, what it refuses, and that it survives its file.

use model::identity::Subject;
use runtime::identity::{Credentials, Identity, Request};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;

const HOUR: Duration = Duration::from_hours(1);
/// The autumn of 2026.
const NOW_S: u64 = 1_790_000_000;

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn instance() -> Name {
    Name::new("orders-0").unwrap()
}

fn shop() -> Authority {
    Authority::create(&Name::new("shop").unwrap(), NOW_S).unwrap()
}

#[test]
fn a_certificate_says_who_and_for_how_long() {
    let (authority, orders) = (shop(), id("spiffe://shop/service/orders"));
    let request = Request::new(&orders).unwrap();
    let signed = authority.sign_csr(&request.csr_pem, &orders, &instance(), NOW_S, HOUR).unwrap();
    assert_eq!(signed.not_after_s, NOW_S + 3_600);
    let (_, pem) = x509_parser::pem::parse_x509_pem(signed.chain_pem.as_bytes()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&pem.contents).unwrap();
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any);
    assert!(!leaf.is_ca());
    assert_eq!(leaf.raw_serial().len(), SERIAL_LENGTH);
    let roots_pem = authority.roots_pem().to_owned();
    let credentials = Credentials { chain_pem: signed.chain_pem, key_pem: request.key_pem, roots_pem };
    let current = Identity::new(credentials).unwrap().current();
    assert_eq!((current.not_before_s, current.not_after_s), (NOW_S - 300, NOW_S + 3_600));
    assert_eq!((&current.id, current.instance.as_ref()), (&orders, Some(&instance())));
}

#[test]
fn time_has_two_ends() {
    let mesh = Name::new("shop").unwrap();
    let broker = id("spiffe://shop/broker");
    let request = Request::new(&broker).unwrap();
    // The simulation begins in 1970.
    let young = Authority::create(&mesh, 7).unwrap();
    let signed = young.sign_csr(&request.csr_pem, &broker, &instance(), 8, HOUR).unwrap();
    assert_eq!(signed.not_after_s, 3_608);
    // A leaf ends with its root at the latest (linkerd2#3880).
    let last_hour_s = 7 + ROOT_LIFE.as_secs() - 60;
    assert_eq!(
        young.sign_csr(&request.csr_pem, &broker, &instance(), last_hour_s, HOUR).unwrap().not_after_s,
        last_hour_s + 60
    );
    let over = young.sign_csr(&request.csr_pem, &broker, &instance(), last_hour_s + 60, HOUR);
    assert!(matches!(over, Err(Error::RootExpired)), "{over:?}");
}

#[test]
fn a_request_for_anything_else_is_refused() {
    let authority = shop();
    let orders = id("spiffe://shop/service/orders");
    let csr = |text: &str| Request::new(&id(text)).unwrap().csr_pem;
    let both = {
        let mut params = CertificateParams::default();
        let uri = |id: &SpiffeId| SanType::URI(Ia5String::try_from(id.to_string()).unwrap());
        params.subject_alt_names = vec![uri(&orders), SanType::DnsName("orders".try_into().unwrap())];
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    };
    let other_key = {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(orders.to_string()).unwrap())];
        params.serialize_request(&key).unwrap().pem().unwrap()
    };
    for (csr, why) in [
        (csr("spiffe://shop/service/payments"), "must name spiffe://shop/service/orders"),
        (csr("spiffe://other/service/orders"), "must name spiffe://shop/service/orders"),
        (both, "must name spiffe://shop/service/orders"),
        (other_key, "not ECDSA P-256"),
        (csr("spiffe://shop/service/orders").replacen("MII", "MIA", 1), "refused"),
        ("not a request".to_owned(), "refused"),
        ("x".repeat(CSR_LENGTH_MAX + 1), "longer"),
    ] {
        let error = authority.sign_csr(&csr, &orders, &instance(), NOW_S, HOUR).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let stranger = SpiffeId { mesh: Name::new("other").unwrap(), subject: Subject::Broker };
    let csr = Request::new(&stranger).unwrap().csr_pem;
    assert!(authority.sign_csr(&csr, &stranger, &instance(), NOW_S, HOUR).is_err());
}

#[test]
fn an_authority_survives_its_file_and_no_other_meshs() {
    let authority = shop();
    let pem = authority.to_pem();
    let again = Authority::from_pem(authority.mesh(), &pem).unwrap();
    assert_eq!((again.roots_pem(), again.not_after_s), (authority.roots_pem(), authority.not_after_s));
    let orders = id("spiffe://shop/service/orders");
    let request = Request::new(&orders).unwrap();
    let signed = again.sign_csr(&request.csr_pem, &orders, &instance(), NOW_S, HOUR).unwrap();
    let roots_pem = authority.roots_pem().to_owned();
    Identity::new(Credentials { chain_pem: signed.chain_pem, key_pem: request.key_pem, roots_pem }).unwrap();
    let swapped = format!("{}{}", KeyPair::generate().unwrap().serialize_pem(), authority.roots_pem());
    for (mesh, pem, why) in [
        ("other", pem.as_str(), "another mesh"),
        ("shop", &swapped, "not the certificate's"),
        ("shop", authority.roots_pem(), "the key"),
        ("shop", "", "no certificate"),
    ] {
        let error = Authority::from_pem(&Name::new(mesh).unwrap(), pem).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
