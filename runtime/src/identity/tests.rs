//! Handshakes between identities over loopback: who gets through, and what the others are told.

use std::io;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::net::{self, Listener, Share};
use crate::{clock, tls};

/// A certificate authority, as small as it can be.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let root_pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), root_pem }
    }

    /// Credentials for `id` from an hour ago, until `life` from now; `None`: until a minute ago.
    fn credentials(&self, id: &str, life: Option<Duration>) -> Credentials {
        self.credentials_naming(id, &[], life)
    }

    /// The same with these names of hosts beside the URI.
    fn credentials_naming(&self, id: &str, hosts: &[&str], life: Option<Duration>) -> Credentials {
        let Request { key_pem, csr_pem } = Request::new(&id.parse().unwrap()).unwrap();
        let mut csr = CertificateSigningRequestParams::from_pem(&csr_pem).unwrap();
        let hosts = hosts.iter().map(|host| SanType::DnsName((*host).try_into().unwrap()));
        csr.params.subject_alt_names.extend(hosts);
        let now = time::OffsetDateTime::from_unix_timestamp(i64::try_from(clock::wall_s()).unwrap()).unwrap();
        csr.params.not_before = now - Duration::from_hours(1);
        csr.params.not_after = life.map_or_else(|| now - Duration::from_mins(1), |life| now + life);
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let chain_pem = csr.signed_by(&self.issuer).unwrap().pem();
        Credentials { chain_pem, key_pem, roots_pem: self.root_pem.clone() }
    }

    fn identity(&self, id: &str) -> Identity {
        Identity::new(self.credentials(id, Some(Duration::from_hours(1)))).unwrap()
    }
}

/// Shakes hands and sends a byte each way, since in TLS 1.3 a client that is refused hears of it only then. Answers whom the
/// server saw, or what either side said first.
async fn shake_hands(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Option<SpiffeId>, String> {
    shake(client, server, Admission::Members).await.map(|(peer, _)| peer.map(|peer| peer.id))
}

/// The same with all that the server saw, and whether an earlier session was resumed.
async fn shake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    admission: Admission,
) -> Result<(Option<Peer>, bool), String> {
    let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (stream, _) = listener.accept().await?;
        let (mut stream, peer) = match admission {
            Admission::Members => tls::accept(stream, server).await?,
            Admission::Applicants(_) => tls::accept_ended(stream, server).await?,
        };
        stream.write_u8(7).await?;
        stream.flush().await?;
        stream.read_u8().await?;
        io::Result::Ok((peer, stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)))
    };
    let call = async {
        let mut stream = tls::connect(net::connect(address).await?, client).await?;
        stream.read_u8().await?;
        stream.write_u8(7).await?;
        stream.flush().await
    };
    let both = async { tokio::join!(serve, call) };
    let (served, called) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    match (served, called) {
        (Ok(seen), Ok(())) => Ok(seen),
        (served, called) => Err([served.err(), called.err()].into_iter().flatten().map(|e| format!("{e}; ")).collect()),
    }
}

/// A client that shows these credentials and takes the `payments` of `mesh` for its callee, whatever its own mesh is.
fn credulous(credentials: &Credentials, mesh: &Name) -> Arc<ClientConfig> {
    let roots = roots_of(&credentials.roots_pem).unwrap();
    let verifier = ServerVerifier { mesh: mesh.clone(), expected: subject(PAYMENTS), roots, provider: provider() };
    let (chain, key) = (chain_of(&credentials.chain_pem).unwrap(), key_of(&credentials.key_pem).unwrap());
    Arc::new(client_builder(verifier).unwrap().with_client_auth_cert(chain, key).unwrap())
}

const ORDERS: &str = "spiffe://shop/service/orders";
const PAYMENTS: &str = "spiffe://shop/service/payments";

fn subject(id: &str) -> Subject {
    id.parse::<SpiffeId>().unwrap().subject
}

#[tokio::test]
async fn two_identities_of_a_mesh_know_each_other() {
    let shop = Authority::new();
    let (orders, payments) = (shop.identity(ORDERS).current(), shop.identity(PAYMENTS).current());
    for alpn in [Alpn::Http1, Alpn::Http2] {
        let client = orders.client(&subject(PAYMENTS), alpn).unwrap();
        assert_eq!(shake_hands(client, payments.server()).await, Ok(Some(orders.id.clone())));
    }
}

#[tokio::test]
async fn nobody_else_gets_through() {
    let shop = Authority::new();
    let (orders, payments) = (shop.identity(ORDERS).current(), shop.identity(PAYMENTS).current());
    let to_payments = orders.client(&subject(PAYMENTS), Alpn::Http2).unwrap();
    let ended = |id| Identity::new(shop.credentials(id, None)).unwrap().current();
    // The same names from another root, and another mesh from the same root.
    let forged = Authority::new();
    let guest =
        credulous(&shop.credentials("spiffe://guest/service/orders", Some(Duration::from_hours(1))), &orders.id.mesh);
    let guest_payments = shop.identity("spiffe://guest/service/payments").current();
    let mixed =
        Credentials { roots_pem: shop.root_pem.clone(), ..forged.credentials(ORDERS, Some(Duration::from_hours(1))) };
    let mixed = Identity::new(mixed).unwrap().current();
    let stranger = enrolment(&orders.id.mesh, &shop.root_pem).unwrap();
    for (case, client, server, why) in [
        (
            "another subject answers",
            orders.client(&Subject::Broker, Alpn::Http2).unwrap(),
            payments.server(),
            "not spiffe://shop/broker",
        ),
        ("another mesh answers", to_payments.clone(), guest_payments.server(), "not spiffe://shop/service/payments"),
        ("another root answers", to_payments.clone(), forged.identity(PAYMENTS).current().server(), "UnknownIssuer"),
        ("an ended certificate answers", to_payments, ended(PAYMENTS).server(), "expired"),
        ("another mesh calls", guest, payments.server(), "another mesh"),
        (
            "another root calls",
            mixed.client(&subject(PAYMENTS), Alpn::Http2).unwrap(),
            payments.server(),
            "UnknownIssuer",
        ),
        (
            "an ended certificate calls",
            ended(ORDERS).client(&subject(PAYMENTS), Alpn::Http2).unwrap(),
            payments.server(),
            "expired",
        ),
        ("nobody calls", stranger, shop.identity("spiffe://shop/control-plane").current().server(), "no certificates"),
    ] {
        let refused = shake_hands(client, server).await.expect_err(case);
        assert!(refused.contains(why), "{case}: {refused}");
    }
}

#[tokio::test]
async fn only_the_control_plane_hears_strangers() {
    let shop = Authority::new();
    let plane = shop.identity("spiffe://shop/control-plane").current();
    let (open, mesh) = (plane.server_with_applicants(Duration::ZERO).unwrap(), &plane.id.mesh);
    let stranger = enrolment(mesh, &shop.root_pem).unwrap();
    assert_eq!(shake_hands(stranger, open.clone()).await, Ok(None));
    let orders = shop.identity(ORDERS).current();
    let known = orders.client(&Subject::ControlPlane, Alpn::Http2).unwrap();
    assert_eq!(shake_hands(known, open).await, Ok(Some(orders.id.clone())));
    // A role that enrols hears nobody else under the control plane's address.
    let impostor = shop.identity(PAYMENTS).current().server_with_applicants(Duration::ZERO).unwrap();
    let refused = shake_hands(enrolment(mesh, &shop.root_pem).unwrap(), impostor).await.unwrap_err();
    assert!(refused.contains("not spiffe://shop/control-plane"), "{refused}");
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_heard_by_the_control_plane_alone_and_only_within_the_grace() {
    let shop = Authority::new();
    let plane = shop.identity("spiffe://shop/control-plane").current();
    // It ended a minute ago.
    let ended = Identity::new(shop.credentials(ORDERS, None)).unwrap().current();
    let foreign =
        Identity::new(Credentials { roots_pem: shop.root_pem.clone(), ..Authority::new().credentials(ORDERS, None) });
    for (who, grace_s, heard) in [(&ended, 61, true), (&ended, 50, false), (&foreign.unwrap().current(), 61, false)] {
        let grace = Duration::from_secs(grace_s);
        let (client, server) =
            (who.client(&Subject::ControlPlane, Alpn::Http2).unwrap(), plane.server_with_applicants(grace).unwrap());
        let seen = shake(client, server, Admission::Applicants(grace)).await;
        assert_eq!(seen.is_ok(), heard, "{grace_s}: {seen:?}");
        if let Ok((peer, _)) = seen {
            assert!(peer.unwrap().ended_for_s(clock::wall_s()) >= 60);
        }
    }
    // Where members alone are let in, a listener that would take it refuses it all the same.
    let client = ended.client(&Subject::ControlPlane, Alpn::Http2).unwrap();
    let lenient = plane.server_with_applicants(Duration::from_mins(2)).unwrap();
    let refused = shake_hands(client, lenient).await.unwrap_err();
    assert!(refused.contains("expired"), "{refused}");
}

#[tokio::test]
async fn a_session_is_not_resumed_beyond_the_end_of_either_certificate() {
    let shop = Authority::new();
    for (case, orders_s, payments_s) in [("the client's ends", 2, 3_600), ("the server's ends", 3_600, 2)] {
        let identity =
            |id, life_s| Identity::new(shop.credentials(id, Some(Duration::from_secs(life_s)))).unwrap().current();
        let (orders, payments) = (identity(ORDERS, orders_s), identity(PAYMENTS, payments_s));
        let client = orders.client(&subject(PAYMENTS), Alpn::Http2).unwrap();
        let shake = || shake(client.clone(), payments.server(), Admission::Members);
        let (_, resumed) = shake().await.unwrap();
        assert!(!resumed, "{case}");
        let (peer, resumed) = shake().await.unwrap();
        assert!(resumed && peer.is_some(), "{case}: sessions resume while both hold");
        while clock::wall_s() <= orders.not_after_s.min(payments.not_after_s) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let refused = shake().await.expect_err(case);
        assert!(refused.contains("expired"), "{case}: {refused}");
    }
}

#[tokio::test]
async fn a_session_with_a_server_outside_of_the_mesh_is_not_resumed() {
    let shop = Authority::new();
    let tax = shop.credentials_naming("spiffe://tax/service/tax", &["tax.example.com"], Some(Duration::from_hours(1)));
    let server = Identity::new(tax).unwrap().current().server_with_applicants(Duration::ZERO).unwrap();
    let client = tls::external(Some(shop.root_pem.as_bytes()), Alpn::Http1).unwrap();
    for attempt in 0..3 {
        let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = tls::accept_ended(listener.accept().await?.0, server.clone()).await?;
            stream.write_u8(7).await?;
            stream.shutdown().await
        };
        let call = async {
            let stream = net::connect(address).await?;
            let mut stream = tls::connect_external(stream, client.clone(), "tax.example.com").await?;
            stream.read_u8().await?;
            io::Result::Ok(stream.get_ref().1.handshake_kind())
        };
        let (served, kind) = tokio::join!(serve, call);
        served.unwrap();
        assert_eq!(kind.unwrap(), Some(rustls::HandshakeKind::Full), "attempt {attempt}");
    }
}

#[tokio::test]
async fn a_certificate_names_one_instance_or_none() {
    let shop = Authority::new();
    let payments = shop.identity(PAYMENTS).current();
    for (hosts, instance) in [
        (&["orders-0"][..], Some("orders-0")),
        (&[], None),
        (&["orders-0", "orders-1"], None),
        (&["orders.example"], None),
    ] {
        let credentials = shop.credentials_naming(ORDERS, hosts, Some(Duration::from_hours(1)));
        let orders = Identity::new(credentials).unwrap().current();
        assert_eq!(orders.instance.as_ref().map(Name::as_str), instance, "{hosts:?}");
        let client = orders.client(&subject(PAYMENTS), Alpn::Http2).unwrap();
        let (peer, _) = shake(client, payments.server(), Admission::Members).await.unwrap();
        assert_eq!(peer.unwrap().instance.as_ref().map(Name::as_str), instance, "{hosts:?}");
    }
}

#[tokio::test]
async fn a_replaced_identity_serves_new_handshakes_and_a_broken_one_changes_nothing() {
    let shop = Authority::new();
    let orders = shop.identity(ORDERS);
    let (before, payments) = (orders.current(), shop.identity(PAYMENTS).current());
    orders.replace(shop.credentials(ORDERS, Some(Duration::from_hours(9)))).unwrap();
    assert!(orders.current().not_after_s > before.not_after_s + 3_600);
    let client = orders.current().client(&subject(PAYMENTS), Alpn::Http2).unwrap();
    assert_eq!(shake_hands(client, payments.server()).await, Ok(Some(before.id.clone())));
    let now = orders.current();
    let foreign_key =
        Credentials { key_pem: KeyPair::generate().unwrap().serialize_pem(), ..now.credentials().clone() };
    let no_chain = Credentials { chain_pem: String::new(), ..now.credentials().clone() };
    for broken in [foreign_key, no_chain] {
        orders.replace(broken).unwrap_err();
        assert!(Arc::ptr_eq(&orders.current(), &now));
    }
}
