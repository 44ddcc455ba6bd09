//! Who is told what, as a table over one small mesh.

use std::time::Duration;

use super::*;
use crate::registry::Hello;

const SHOP: &str = r"
mesh: shop
services:
  orders:
    command: shop orders
    calls: [payments, tax]
    publishes: [placed, fulfilment]
  payments:
    command: shop payments
    protocol: grpc
    inbound: {concurrent_max: 7}
  payments-next: {command: shop payments, protocol: grpc}
  shipping:
    command: shop shipping
    consumes: [{queue: fulfilment}]
  notifications:
    command: shop notifications
    consumes: [{topic: placed, path: /events}]
  lonely: {command: shop lonely}
  tax: {external: {addresses: ['tax.example.com:443'], tls: {name: tax.example.com}}}
gateways:
  public: {listen: '127.0.0.1:8080', backends: [{service: orders}]}
routes:
  - service: payments
    matches: [{path: {prefix: /next}}]
    backends: [{service: payments-next}]
queues: {fulfilment: {}}
topics: {placed: {}}
";

fn shop() -> Config {
    match config::check::check("mesh.yaml", SHOP) {
        Ok(checked) => checked.config,
        Err(findings) => panic!("{findings:#?}"),
    }
}

fn subject(text: &str) -> Subject {
    text.parse().unwrap()
}

/// One live instance of each.
fn registry(subjects: &[&str]) -> Registry {
    let mut registry = Registry::default();
    for (index, text) in subjects.iter().enumerate() {
        let port = 9_000 + u16::try_from(index).unwrap();
        let hello = Hello {
            instance: Name::new(&format!("{}-0", text.rsplit('/').next().unwrap())).unwrap(),
            subset: None,
            address: Some(([127, 0, 0, 1], port).into()),
        };
        let stream = registry.hello(&subject(text), hello, Duration::ZERO).unwrap();
        registry.heartbeat(&stream, true, false, Duration::ZERO).unwrap();
    }
    registry
}

/// `payments+payments-0 tax` reads: `payments` with that endpoint; `(x)`: not callable.
fn services(snapshot: &Snapshot) -> String {
    let written = snapshot.services.iter().map(|(name, part)| {
        let endpoints: String = part.endpoints.iter().map(|endpoint| format!("+{}", endpoint.instance)).collect();
        if part.callable { format!("{name}{endpoints}") } else { format!("({name}{endpoints})") }
    });
    written.collect::<Vec<_>>().join(" ")
}

fn callers(snapshot: &Snapshot) -> Option<String> {
    let inbound = snapshot.inbound.as_ref()?;
    Some(inbound.callers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

#[test]
fn a_subject_gets_what_the_graph_gives_it_and_nothing_else() {
    let (config, registry) =
        (shop(), registry(&["service/payments", "service/notifications", "service/orders", "broker"]));
    for (text, expected, inbound) in [
        ("service/orders", "broker+broker-0 payments+payments-0 (payments-next) tax", Some("gateway/public")),
        ("service/payments", "", Some("service/orders")),
        ("service/payments-next", "", Some("service/orders")),
        ("service/shipping", "broker+broker-0", Some("")),
        ("service/notifications", "broker+broker-0", Some("broker")),
        ("service/lonely", "", Some("")),
        ("gateway/public", "orders+orders-0", None),
        ("broker", "notifications+notifications-0", Some("service/notifications service/orders service/shipping")),
    ] {
        let snapshot = cut(&config, 3, &registry, &subject(text)).unwrap();
        assert_eq!(services(&snapshot), expected, "{text}");
        assert_eq!(callers(&snapshot).as_deref(), inbound, "{text}");
        assert_eq!((snapshot.revision, snapshot.mesh.as_str()), (3, "shop"), "{text}");
        assert_eq!(snapshot.declared.len(), config.services.len(), "{text}");
        assert_eq!(snapshot.gateway.is_some(), text == "gateway/public", "{text}");
        assert_eq!(snapshot.broker.is_some(), text == "broker", "{text}");
        for (name, part) in &snapshot.services {
            let last = part.routes.last();
            assert_eq!(last.is_some_and(|last| last.matches.is_empty()), part.callable, "{text} {name}");
        }
    }
}

#[test]
fn a_request_for_leases_has_the_time_that_it_may_wait() {
    let snapshot = cut(&shop(), 1, &Registry::default(), &subject("service/shipping")).unwrap();
    let routes = &snapshot.services["broker"].routes;
    for (path, seconds) in [
        ("/v1/queues/fulfilment/leases", 75),
        ("/meshwork.broker.v1.Queues/Lease", 75),
        ("/v1/queues/fulfilment/acks", 15),
        ("/v1/queues/other/leases", 15),
        ("/meshwork.broker.v1.Queues/Send", 15),
    ] {
        let request = policy::route::Request { method: "POST", path, headers: |_: &str| std::iter::empty::<&[u8]>() };
        let route = &routes[policy::route::choose(routes, &request).unwrap()];
        assert_eq!(route.timeouts.request, Some(Duration::from_secs(seconds)), "{path}");
    }
    let snapshot = cut(&shop(), 1, &Registry::default(), &subject("service/orders")).unwrap();
    assert_eq!(snapshot.services["broker"].routes.len(), 1, "it takes no messages");
}

#[test]
fn nobody_is_cut_off_at_the_callee_before_the_longest_bound_of_its_routes() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (idle, expected) in [("10s", seconds(300)), ("20m", seconds(1_200)), ("0s", None)] {
        let backends = "backends: [{service: payments-next}]";
        let text = SHOP.replace(backends, &format!("{backends}\n    timeouts: {{idle: {idle}}}"));
        let config = config::check::check("mesh.yaml", &text).unwrap_or_else(|findings| panic!("{findings:#?}")).config;
        let idle_of = |text| cut(&config, 1, &Registry::default(), &subject(text)).unwrap().inbound.unwrap().idle;
        assert_eq!(idle_of("service/payments-next"), expected);
        assert_eq!(idle_of("service/payments"), seconds(300));
    }
}

#[test]
fn nobody_else_gets_anything() {
    let (config, registry) = (shop(), Registry::default());
    for text in ["service/orderz", "service/tax", "gateway/private", "control-plane"] {
        assert_eq!(cut(&config, 1, &registry, &subject(text)), None, "{text}");
    }
}

#[test]
fn a_service_is_described_as_its_callers_need_it() {
    let snapshot = cut(&shop(), 1, &Registry::default(), &subject("service/orders")).unwrap();
    let part = |name: &str| &snapshot.services[name];
    assert_eq!((part("payments").protocol, part("broker").protocol), (Protocol::Grpc, Protocol::Http));
    assert_eq!(part("payments").subject, Some(subject("service/payments")));
    assert_eq!(part("broker").subject, Some(Subject::Broker));
    assert_eq!(part("payments").routes.len(), 2);
    assert_eq!(part("tax").subject, None);
    assert_eq!(part("tax").external.as_ref().unwrap().addresses, ["tax.example.com:443"]);
}

#[test]
fn the_broker_knows_who_may_publish_and_who_is_served() {
    let snapshot = cut(&shop(), 1, &Registry::default(), &Subject::Broker).unwrap();
    let mut pushed = snapshot.services.values().flat_map(|part| &part.routes);
    assert!(pushed.all(|route| route.timeouts.request.is_none()), "a delivery has its ack_timeout");
    let broker = snapshot.broker.unwrap();
    let placed = Name::new("placed").unwrap();
    assert_eq!(broker.publishers[&placed], BTreeSet::from([subject("service/orders")]));
    assert_eq!(broker.consumers.keys().map(Name::as_str).collect::<Vec<_>>(), ["notifications", "shipping"]);
    assert!(broker.queues.contains_key("fulfilment") && broker.topics.contains_key("placed"));
}
