//! Each edge of a small graph, and the text of each that is missing.

use super::*;
use model::config::{Breaker, Delivery, Durability, Inbound, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn service(text: &str) -> Subject {
    Subject::Service(name(text))
}

fn snapshot(subject: Subject) -> Snapshot {
    let part = |callable| ServicePart {
        protocol: Protocol::Http,
        callable,
        subject: None,
        external: None,
        routes: Vec::new(),
        breaker: Breaker::default(),
        endpoints: Vec::new(),
    };
    Snapshot {
        revision: 1,
        version: 1,
        mesh: name("shop"),
        subject,
        services: BTreeMap::from([(name("catalog"), part(true)), (name("catalog-next"), part(false))]),
        declared: ["catalog", "catalog-next", "payments", "storefront"].map(name).into(),
        inbound: None,
        gateway: None,
        broker: None,
    }
}

fn broker() -> BrokerPart {
    let queue = Queue {
        delivery: Delivery::default(),
        dead_letter_keep: Duration::from_secs(1),
        messages_max: 1,
        durability: Durability::Sync,
    };
    let topic =
        Topic { key: None, keep: Duration::from_secs(1), delivery: Delivery::default(), durability: Durability::Sync };
    let consumption = |source| Consumption { source, path: None, concurrency: 8 };
    BrokerPart {
        queues: BTreeMap::from([(name("fulfilment"), queue)]),
        topics: BTreeMap::from([(name("orders"), topic)]),
        publishers: BTreeMap::from([(name("orders"), BTreeSet::from([service("orders")]))]),
        consumers: BTreeMap::from([
            (name("shipping"), vec![consumption(Source::Queue(name("fulfilment")))]),
            (name("notifications"), vec![consumption(Source::Topic(name("orders")))]),
        ]),
        message_bytes_max: 1,
    }
}

fn check<T>(verdict: Result<T, Refusal>, expected: Result<(), &str>) {
    let found = verdict.map(|_| ()).map_err(|refusal| refusal.to_string());
    assert_eq!(found, expected.map_err(str::to_owned));
}

#[test]
fn a_call_needs_an_edge() {
    let storefront = snapshot(service("storefront"));
    for (name, expected) in [
        ("catalog", Ok(())),
        ("payments", Err(r#"service/storefront has no edge to payments: add "payments" to services.storefront.calls"#)),
        (
            "catalog-next",
            Err(r#"service/storefront has no edge to catalog-next: add "catalog-next" to services.storefront.calls"#),
        ),
        (
            "storefront",
            Err("service/storefront has no edge to storefront: a service does not call itself through the mesh; it \
                 reaches its own port on loopback"),
        ),
        ("paymets", Err(r#"no service is named "paymets"; did you mean payments?"#)),
        ("zzzzzzzzzzzz", Err(r#"no service is named "zzzzzzzzzzzz""#)),
        (
            "broker",
            Err("service/storefront has no edge to broker: declare what it sends or receives in \
                 services.storefront.publishes or services.storefront.consumes"),
        ),
    ] {
        check(call(&storefront, name), expected);
    }
    check(
        call(&snapshot(Subject::Gateway(name("public"))), "payments"),
        Err(r#"gateway/public has no edge to payments: add {service: payments} to gateways.public.backends"#),
    );
    check(
        call(&snapshot(Subject::Gateway(name("public"))), "broker"),
        Err(
            "gateway/public has no edge to broker: a gateway has no way to the broker; clients from outside call a service, \
             and that publishes",
        ),
    );
}

#[test]
fn being_called_needs_the_same_edge() {
    let inbound = InboundPart {
        idle: None,
        protocol: Protocol::Http,
        callers: BTreeSet::from([service("orders"), Subject::Broker]),
        limits: Inbound::default(),
    };
    let payments = service("payments");
    check(be_called(&inbound, &payments, &service("orders")), Ok(()));
    check(be_called(&inbound, &payments, &Subject::Broker), Ok(()));
    check(
        be_called(&inbound, &payments, &service("storefront")),
        Err(r#"service/storefront has no edge to payments: add "payments" to services.storefront.calls"#),
    );
    let empty = InboundPart { callers: BTreeSet::new(), ..inbound };
    check(
        be_called(&empty, &payments, &Subject::Broker),
        Err("broker has no edge to payments: give services.payments.consumes an entry with a path"),
    );
    check(
        be_called(&empty, &Subject::Broker, &service("catalog")),
        Err(
            "service/catalog has no edge to broker: declare what it sends or receives in services.catalog.publishes or \
             services.catalog.consumes",
        ),
    );
}

#[test]
fn publishing_and_consuming_need_their_own_edges() {
    let broker = broker();
    assert!(matches!(publish(&broker, &service("orders"), "orders"), Ok(Destination::Topic(_))));
    check(
        publish(&broker, &service("catalog"), "orders"),
        Err(r#"service/catalog has no edge to publish to orders: add "orders" to services.catalog.publishes"#),
    );
    check(
        publish(&broker, &Subject::Gateway(name("public")), "fulfilment"),
        Err("gateway/public has no edge to publish to fulfilment: only a service publishes"),
    );
    check(
        publish(&broker, &service("orders"), "order"),
        Err(r#"no queue or topic is named "order"; did you mean orders?"#),
    );
    check(consume(&broker, &service("shipping"), "fulfilment"), Ok(()));
    check(consume(&broker, &service("notifications"), "orders"), Ok(()));
    check(
        consume(&broker, &service("shipping"), "orders"),
        Err(
            "service/shipping has no edge to consume from orders: add {topic: orders, path: /…} to services.shipping.consumes",
        ),
    );
    check(
        consume(&broker, &Subject::Gateway(name("shipping")), "fulfilment"),
        Err("gateway/shipping has no edge to consume from fulfilment: only a service consumes"),
    );
}

#[test]
fn an_unknown_name_is_told_from_a_missing_edge() {
    let storefront = snapshot(service("storefront"));
    assert!(call(&storefront, "nowhere").unwrap_err().is_unknown_name());
    assert!(!call(&storefront, "payments").unwrap_err().is_unknown_name());
    assert!(consume(&broker(), &service("shipping"), "nowhere").unwrap_err().is_unknown_name());
}

/// What a hint says to add, `add VALUE to PATH`, put into a mesh file that has no edges.
fn with_hint(hint: &str) -> String {
    let (value, path) = hint.strip_prefix("add ").and_then(|rest| rest.split_once(" to ")).expect(hint);
    let added = |at: &str| if at == path { value.replace("/…", "/events") } else { String::new() };
    let (calls, publishes) = (added("services.catalog.calls"), added("services.catalog.publishes"));
    let (consumes, backends) = (added("services.catalog.consumes"), added("gateways.public.backends"));
    let backends = if backends.is_empty() { "{service: catalog}" } else { &backends };
    format!(
        "mesh: shop\n\
         services:\n\
         \x20 catalog: {{command: catalog, calls: [{calls}], publishes: [{publishes}], consumes: [{consumes}]}}\n\
         \x20 payments: {{command: payments}}\n\
         gateways: {{public: {{listen: 127.0.0.1:8080, backends: [{backends}]}}}}\n\
         queues: {{work: {{}}}}\n\
         topics: {{orders: {{}}}}\n"
    )
}

/// A hint that `check` refuses sends its reader in a circle.
#[test]
fn what_a_hint_says_passes_check() {
    let (catalog, public) = (service("catalog"), Subject::Gateway(name("public")));
    for hint in [
        call_edge(&catalog, "payments"),
        call_edge(&public, "payments"),
        publish_edge(&catalog, &name("orders")),
        publish_edge(&catalog, &name("work")),
        consume_edge(&catalog, &name("orders"), "topic"),
        consume_edge(&catalog, &name("work"), "queue"),
    ] {
        let file = with_hint(&hint);
        if let Err(findings) = model::config::check("mesh.yaml", &file) {
            let source = model::config::finding::Source { name: "mesh.yaml", text: &file };
            panic!("{hint}\n{}", model::config::render(&findings, &[source], false));
        }
    }
}
