//! Every part and variant survives the wire; what does not parse is named by its field.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::config::{
    Backend, Breaker, Consumption, Delivery, Durability, External, ExternalTls, GatewayBackend, Inbound, Match,
    PathMatch, Protocol, Queue, Retry, RetryOn, Route, Source, Timeouts, Topic,
};
use model::identity::Subject;
use model::name::Name;
use model::snapshot::{BrokerPart, Endpoint, GatewayPart, InboundPart, ServicePart, Snapshot};
use prost::Message as _;

use crate::control as wire;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn route() -> Route {
    let matches = [Some(PathMatch::Exact("/a".to_owned())), Some(PathMatch::Prefix("/b".to_owned())), None]
        .map(|path| Match {
            path,
            method: Some("GET".to_owned()),
            headers: BTreeMap::from([("api-version".to_owned(), "2".to_owned())]),
        })
        .to_vec();
    let on = [
        RetryOn::ConnectFailure,
        RetryOn::ResetBeforeProcessing,
        RetryOn::Reset,
        RetryOn::Status(503),
        RetryOn::Grpc(14),
    ];
    Route {
        name: "charges".to_owned(),
        matches,
        backends: vec![
            Backend { service: name("payments"), subset: Some(name("v1")), weight: 95 },
            Backend { service: name("payments"), subset: None, weight: 5 },
        ],
        timeouts: Timeouts { request: None, attempt: Some(Duration::from_millis(800)) },
        retry: Retry {
            attempts: 3,
            on: BTreeSet::from(on),
            budget: 0.25,
            backoff: Duration::from_millis(7),
            non_idempotent: true,
        },
    }
}

fn services() -> BTreeMap<Name, ServicePart> {
    let (open, open_max) = (Duration::from_millis(1_500), Duration::from_secs(60));
    let breaker = Breaker { consecutive_failures: 9, open, open_max, max_ejected: 0.25 };
    let payments = ServicePart {
        protocol: Protocol::Grpc,
        callable: true,
        subject: Some(Subject::Service(name("payments"))),
        external: None,
        routes: vec![route(), Route::plain(&name("payments"))],
        breaker,
        endpoints: vec![
            Endpoint {
                instance: name("payments-0"),
                address: "10.0.0.1:4143".parse().unwrap(),
                subset: Some(name("v1")),
            },
            Endpoint { instance: name("payments-1"), address: "[::1]:4143".parse().unwrap(), subset: None },
        ],
    };
    let tax = ServicePart {
        protocol: Protocol::Http,
        callable: false,
        subject: None,
        external: Some(External {
            addresses: vec!["tax.example.com:443".to_owned()],
            tls: Some(ExternalTls { name: "tax.example.com".to_owned(), roots: Some("tax.pem".to_owned()) }),
        }),
        routes: Vec::new(),
        breaker: Breaker::default(),
        endpoints: Vec::new(),
    };
    BTreeMap::from([(name("payments"), payments), (name("tax"), tax)])
}

fn broker() -> BrokerPart {
    let delivery = Delivery {
        attempts: 8,
        backoff_initial: Duration::from_millis(1),
        backoff_max: Duration::from_secs(2),
        ack_timeout: Duration::from_secs(3),
    };
    let queue = Queue {
        delivery: delivery.clone(),
        dead_letter_keep: Duration::from_hours(336),
        messages_max: 12,
        durability: Durability::Os,
    };
    let topic = Topic {
        key: Some("order_id".to_owned()),
        keep: Duration::from_hours(168),
        delivery,
        durability: Durability::Sync,
    };
    let consumptions = vec![
        Consumption { source: Source::Queue(name("fulfilment")), path: None, concurrency: 8 },
        Consumption { source: Source::Topic(name("orders")), path: Some("/events".to_owned()), concurrency: 1_024 },
    ];
    BrokerPart {
        queues: BTreeMap::from([(name("fulfilment"), queue)]),
        topics: BTreeMap::from([(name("orders"), topic)]),
        publishers: BTreeMap::from([(name("orders"), BTreeSet::from([Subject::Service(name("orders"))]))]),
        consumers: BTreeMap::from([(name("shipping"), consumptions)]),
        message_bytes_max: 1 << 20,
    }
}

/// A snapshot with every part and every variant in it, though no subject has all of them.
fn snapshot() -> Snapshot {
    let callers = BTreeSet::from([Subject::Broker, Subject::Gateway(name("public")), Subject::Service(name("orders"))]);
    Snapshot {
        revision: 3,
        version: 17,
        mesh: name("shop"),
        subject: Subject::Service(name("orders")),
        services: services(),
        declared: BTreeSet::from([name("orders"), name("payments"), name("tax")]),
        inbound: Some(InboundPart {
            protocol: Protocol::Http,
            callers,
            limits: Inbound { body_bytes_max: 9, concurrent_max: 10 },
        }),
        gateway: Some(GatewayPart {
            listen: "0.0.0.0:8080".parse().unwrap(),
            backends: vec![GatewayBackend {
                service: name("orders"),
                matches: route().matches,
                hosts: vec!["shop.example.com".to_owned()],
            }],
            body_bytes_max: 11,
        }),
        broker: Some(broker()),
    }
}

#[test]
fn a_snapshot_survives_the_wire() {
    let bare = Snapshot { inbound: None, gateway: None, broker: None, services: BTreeMap::new(), ..snapshot() };
    for snapshot in [snapshot(), bare] {
        let bytes = wire::Snapshot::from(snapshot.clone()).encode_to_vec();
        let read = Snapshot::try_from(wire::Snapshot::decode(bytes.as_slice()).unwrap()).unwrap();
        assert_eq!(read, snapshot);
    }
}

#[test]
fn what_does_not_parse_is_named() {
    type Break = fn(&mut wire::Snapshot);
    fn payments(snapshot: &mut wire::Snapshot) -> &mut wire::ServicePart {
        snapshot.services.get_mut("payments").unwrap()
    }
    let cases: [(&str, Break); 12] = [
        ("mesh", |s| s.mesh = "Shop".to_owned()),
        ("subject", |s| s.subject = "nobody".to_owned()),
        ("declared", |s| s.declared.push(String::new())),
        ("services", |s| drop(s.services.insert("a.b".to_owned(), wire::ServicePart::default()))),
        ("services.payments.protocol", |s| payments(s).protocol = 77),
        ("services.payments.breaker", |s| payments(s).breaker = None),
        ("services.payments.endpoints.1.address", |s| payments(s).endpoints[1].address = "here".to_owned()),
        ("services.payments.routes.0.backends.1.subset", |s| {
            payments(s).routes[0].backends[1].subset = "V1".to_owned();
        }),
        ("services.payments.routes.1.retry", |s| payments(s).routes[1].retry = None),
        ("services.payments.routes.0.retry.budget", |s| {
            payments(s).routes[0].retry.as_mut().unwrap().budget = f64::NAN;
        }),
        ("services.payments.routes.0.retry.on.4.grpc", |s| {
            let on = &mut payments(s).routes[0].retry.as_mut().unwrap().on;
            on[4].on = Some(wire::retry_on::On::Grpc(256));
        }),
        ("broker.consumers.shipping.consumptions.0.source", |s| {
            let consumers = &mut s.broker.as_mut().unwrap().consumers;
            consumers.get_mut("shipping").unwrap().consumptions[0].source = None;
        }),
    ];
    for (field, damage) in cases {
        let mut damaged = wire::Snapshot::from(snapshot());
        damage(&mut damaged);
        assert_eq!(Snapshot::try_from(damaged).unwrap_err().field, field);
    }
}
