//! Who gets a certificate, and how it is renewed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::control::RenewRequest;
use api::control::authority_client::AuthorityClient;
use control::client::{self, Claim, Error, TokenSource};
use control::token;
use runtime::clock;
use runtime::identity::{Identity, Request};
use runtime::tls::Alpn;

use crate::fixture::{Bare, MESH, Machine, Role, channel, hello, id, name, soon, until};

/// The lives of the tests stand to each other as the defaults do: a certificate's is six tokens', the grace is 24 certificates'.
const LIFE: Duration = Duration::from_secs(6);
const TOKEN_LIFE_S: u64 = 1;
const GRACE: Duration = LIFE.saturating_mul(24);

#[tokio::test]
async fn only_a_token_of_this_mesh_opens_the_door() {
    let running = Machine::new().start(MESH).await;
    let orders = id("service/orders").subject;
    let forged = token::mint(&token::Secret::generate().unwrap(), &orders, &name("orders-0"), clock::wall_s() + 60);
    let expired = token::mint(&running.secret, &orders, &name("orders-0"), clock::wall_s() - 1);
    let token = |subject: &str, instance: &str| running.token(subject, instance, 60);
    for (token, subject, instance, why) in [
        (forged, "service/orders", "orders-0", "not made by this mesh"),
        (expired, "service/orders", "orders-0", "expired"),
        ("a.b".to_owned(), "service/orders", "orders-0", "this is not a token"),
        (token("service/orders", "orders-0"), "service/payments", "orders-0", "must name spiffe://shop/service/orders"),
        (token("service/orders", "orders-0"), "service/orders", "orders-1", "made for orders-0 and not for orders-1"),
        (token("service/orders", "payments-0"), "service/orders", "payments-0", "not a name for an instance"),
        (token("service/orderz", "orderz-0"), "service/orderz", "orderz-0", "declares no service/orderz"),
        (token("control-plane", "control-plane"), "control-plane", "control-plane", "declares no control-plane"),
    ] {
        let claim = Claim { token: TokenSource::fixed(token), ..running.claim(subject, instance) };
        let error = soon("a refusal", client::enrol(&claim, None)).await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)) && error.to_string().contains(why), "{error}");
    }
    let away = TokenSource::new(|| Err(std::io::ErrorKind::NotFound.into()));
    let claim = Claim { token: away, ..running.claim("service/orders", "orders-0") };
    let error = soon("a refusal", client::enrol(&claim, None)).await.unwrap_err();
    assert!(matches!(error, Error::Token(_)), "{error}");
    running.stop().await;
}

#[tokio::test]
async fn another_control_plane_is_not_believed() {
    let (running, other) = (Machine::new().start(MESH).await, Machine::new().start(MESH).await);
    let roots_pem = other.plane.roots_pem().to_owned();
    let claim = Claim { roots_pem, ..running.claim("service/orders", "orders-0") };
    // It never gets as far as the token. Most often it is the roots that are wrong, and then it would be asked for ever.
    let error = soon("a refusal", client::enrol(&claim, None)).await.unwrap_err();
    assert!(matches!(error, Error::Unproven { .. }) && !error.is_temporary(), "{error}");
    running.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_token_is_good_for_a_second_enrolment_and_a_certificate_for_its_own_renewal() {
    let running = Machine::new().start(MESH).await;
    let orders = running.enrolled("service/orders", "orders-0").await;
    running.enrolled("service/orders", "orders-0").await;
    let renewed = client::renew(&running.control(), &orders).await.unwrap();
    assert_ne!(renewed.chain_pem, orders.current().credentials().chain_pem);
    orders.replace(renewed).unwrap();
    assert_eq!((&orders.current().id, &orders.current().instance), (&id("service/orders"), &Some(name("orders-0"))));

    let settings = orders.current().client(&id("control-plane").subject, Alpn::Http2).unwrap();
    let csr_pem = Request::new(&id("service/payments")).unwrap().csr_pem;
    let mut authority = AuthorityClient::new(channel(&running, settings).await);
    let refused = authority.renew(RenewRequest { csr_pem: csr_pem.clone() }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    let stranger = runtime::identity::enrolment(&name("shop"), running.plane.roots_pem()).unwrap();
    let mut authority = AuthorityClient::new(channel(&running, stranger).await);
    let refused = authority.renew(RenewRequest { csr_pem }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");
    running.stop().await;
}

#[tokio::test]
async fn certificates_are_renewed_on_both_sides_before_they_end() {
    let mut machine = Machine::new();
    machine.life = LIFE;
    let running = machine.start(MESH).await;
    let orders = running.enrolled("service/orders", "orders-0").await;
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = {
        let kept = kept.clone();
        move |credentials: &runtime::identity::Credentials| kept.lock().unwrap().push(credentials.chain_pem.clone())
    };
    let expired = TokenSource::fixed(running.token("service/orders", "orders-0", 0));
    let claim = Claim { token: expired, ..running.claim("service/orders", "orders-0") };
    running.drain.spawn(client::keep_renewed(claim, orders.clone(), keep, running.drain.clone()));
    let first_end_s = orders.current().not_after_s;
    until("both first certificates have ended", || clock::wall_s() > first_end_s + 1).await;
    assert!(kept.lock().unwrap().len() >= 2);
    assert_eq!(kept.lock().unwrap().last(), Some(&orders.current().credentials().chain_pem));
    // A new handshake proves that the control plane's own certificate was renewed as well.
    let mut role = Role::start(running.control(), orders, "orders-0", 9_001);
    role.applied().await;
    role.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn a_role_that_was_away_for_longer_than_its_certificate_and_token_hold_comes_back() {
    let mut machine = Machine::new();
    (machine.life, machine.grace) = (LIFE, GRACE);
    let running = machine.start(MESH).await;
    let (slept, away) =
        (running.enrolled("service/orders", "orders-0").await, running.enrolled("service/orders", "orders-1").await);
    let old = |instance: &str| TokenSource::fixed(running.token("service/orders", instance, TOKEN_LIFE_S));
    let (slept_token, away_token) = (old("orders-0"), old("orders-1"));
    running.stop().await;
    let end_s = slept.current().not_after_s.max(away.current().not_after_s);
    until("certificates and tokens have ended", || clock::wall_s() > end_s).await;

    // Within the grace the certificate is renewed, and good for nothing else.
    let running = machine.start(MESH).await;
    let settings = slept.current().client(&id("control-plane").subject, Alpn::Http2).unwrap();
    let refused = Bare::open(&running, settings, hello("orders-0", 9_001)).await.err().unwrap();
    assert!(refused.code() == tonic::Code::Unauthenticated && refused.message().contains("ended"), "{refused}");
    let claim = Claim { token: slept_token, ..running.claim("service/orders", "orders-0") };
    running.drain.spawn(client::keep_renewed(claim, slept.clone(), |_| {}, running.drain.clone()));
    until("it is renewed", || slept.current().not_after_s > end_s).await;
    assert_eq!(slept.current().instance, Some(name("orders-0")));
    running.stop().await;

    // After it only a token helps, and it is asked for anew each time.
    machine.grace = Duration::ZERO;
    let running = machine.start(MESH).await;
    let claim = Claim { token: away_token, ..running.claim("service/orders", "orders-1") };
    let error = soon("a refusal", client::enrol(&claim, Some(&away))).await.unwrap_err();
    assert!(matches!(&error, Error::Neither { .. }) && error.to_string().contains("the token expired"), "{error}");
    let (secret, subject) = (running.secret.clone(), id("service/orders").subject);
    let minted = move || Ok(token::mint(&secret, &subject, &name("orders-1"), clock::wall_s() + TOKEN_LIFE_S));
    let claim = Claim { token: TokenSource::new(minted), ..claim };
    let again = Identity::new(soon("a certificate", client::enrol(&claim, Some(&away))).await.unwrap()).unwrap();
    assert_eq!(again.current().instance, Some(name("orders-1")));
    running.drain.spawn(client::keep_renewed(claim, away.clone(), |_| {}, running.drain.clone()));
    until("it is back", || away.current().not_after_s > end_s).await;
    running.stop().await;
}
