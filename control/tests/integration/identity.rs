//! Who gets a certificate, and how it is renewed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::control::RenewRequest;
use api::control::authority_client::AuthorityClient;
use control::client::{self, Error};
use control::token;
use runtime::clock;
use runtime::identity::Request;

use crate::fixture::{MESH, Machine, Role, channel, id, name, soon, until};

#[tokio::test]
async fn only_a_token_of_this_mesh_opens_the_door() {
    let running = Machine::new().start(MESH).await;
    let (control, roots_pem) = (running.control(), running.plane.roots_pem());
    let orders = id("service/orders").subject;
    let forged = token::mint(&token::Secret::generate().unwrap(), &orders, &name("orders-0"), clock::wall_s() + 60);
    let expired = token::mint(&running.secret, &orders, &name("orders-0"), clock::wall_s() - 1);
    for (token, subject, why) in [
        (forged, "service/orders", "not made by this mesh"),
        (expired, "service/orders", "expired"),
        ("a.b".to_owned(), "service/orders", "not"),
        (running.token("service/orders"), "service/payments", "must name spiffe://shop/service/orders"),
        (running.token("service/orderz"), "service/orderz", "declares no service/orderz"),
        (running.token("control-plane"), "control-plane", "declares no control-plane"),
    ] {
        let id = id(subject);
        let enrolling = client::enrol(&control, roots_pem, &token, &id);
        let error = soon("a refusal", enrolling).await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)) && error.to_string().contains(why), "{error}");
    }
    running.stop().await;
}

#[tokio::test]
async fn another_control_plane_is_not_believed() {
    let (running, other) = (Machine::new().start(MESH).await, Machine::new().start(MESH).await);
    let (control, token, id) = (running.control(), running.token("service/orders"), id("service/orders"));
    let enrolling = client::enrol(&control, other.plane.roots_pem(), &token, &id);
    // It never gets as far as the token. Most often it is the roots that are wrong, and then it would be asked for ever.
    let error = soon("a refusal", enrolling).await.unwrap_err();
    assert!(matches!(error, Error::Unproven { .. }) && !error.is_temporary(), "{error}");
    running.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_token_is_good_for_a_second_enrolment_and_a_certificate_for_its_own_renewal() {
    let running = Machine::new().start(MESH).await;
    let orders = running.enrolled("service/orders").await;
    running.enrolled("service/orders").await;
    let renewed = client::renew(&running.control(), &orders).await.unwrap();
    assert_ne!(renewed.chain_pem, orders.current().credentials().chain_pem);
    orders.replace(renewed).unwrap();
    assert_eq!(orders.current().id, id("service/orders"));

    let settings = orders.current().client(&id("control-plane").subject, runtime::tls::Alpn::Http2).unwrap();
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
    machine.life = Duration::from_secs(6);
    let running = machine.start(MESH).await;
    let orders = running.enrolled("service/orders").await;
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = {
        let kept = kept.clone();
        move |credentials: &runtime::identity::Credentials| kept.lock().unwrap().push(credentials.chain_pem.clone())
    };
    running.drain.spawn(client::keep_renewed(running.control(), orders.clone(), None, keep, running.drain.clone()));
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
async fn a_certificate_that_ended_while_the_control_plane_was_away_is_replaced_by_token() {
    let mut machine = Machine::new();
    machine.life = Duration::from_secs(3);
    let running = machine.start(MESH).await;
    let (orders, token) = (running.enrolled("service/orders").await, running.token("service/orders"));
    let control = running.control();
    running.stop().await;
    let end_s = orders.current().not_after_s;
    until("the certificate has ended", || clock::wall_s() > end_s).await;
    let running = machine.start(MESH).await;
    assert!(client::renew(&control, &orders).await.is_err());
    let renewal = client::keep_renewed(control, orders.clone(), Some(token), |_| {}, running.drain.clone());
    running.drain.spawn(renewal);
    until("there is another", || orders.current().not_after_s > end_s).await;
    running.stop().await;
}
