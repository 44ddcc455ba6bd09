//! The mesh file from outside: what a valid one becomes, what each mistake gets, what the graph answers.

use std::collections::BTreeSet;
use std::time::Duration;

use model::config::finding::{FINDINGS_MAX, Source};
use model::config::{Config, Enclosed, Enclosures, Finding, PathMatch, Place, RetryOn, Severity, check_all};
use model::config::{check, check_enclosed, enclosed, render, schema};
use model::identity::Subject;
use model::name::Name;
use proptest::prelude::*;

const SHOP: &str = include_str!("mesh_file/shop.yaml");

fn shop() -> Config {
    match check("shop.yaml", SHOP) {
        Ok(checked) => {
            assert_eq!(checked.warnings, []);
            checked.config
        }
        Err(findings) => panic!("{}", render(&findings, &[Source { name: "shop.yaml", text: SHOP }], false)),
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// What a finding is compared by: `line:column code → nearest`.
fn brief(finding: &Finding) -> String {
    let mark = if finding.severity == Severity::Warning { "~" } else { "" };
    let nearest = finding.nearest.as_ref().map(|near| format!(" → {near}")).unwrap_or_default();
    format!("{mark}{}:{} {}{nearest}", finding.line, finding.column, finding.code)
}

fn findings(text: &str) -> Vec<Finding> {
    match check("mesh.yaml", text) {
        Ok(checked) => checked.warnings,
        Err(findings) => {
            assert!(findings.iter().any(|finding| finding.severity == Severity::Error), "refused without an error");
            findings
        }
    }
}

#[track_caller]
fn expect(text: &str, wanted: &[&str]) {
    let found = findings(text);
    let briefs: Vec<_> = found.iter().map(brief).collect();
    let rendered = render(&found, &[Source { name: "mesh.yaml", text }], false);
    assert_eq!(briefs, wanted, "\n{text}\n{rendered}");
}

#[test]
fn the_shop_is_proven() {
    let config = shop();
    assert_eq!(config.mesh.as_str(), "shop");
    let orders = &config.services["orders"];
    assert_eq!(orders.inbound.body_bytes_max, 1 << 20);
    assert_eq!(orders.publishes, BTreeSet::from([name("fulfilment"), name("orders")]));
    let Place::Mesh(payments) = &config.services["payments"].place else { panic!("inside") };
    assert_eq!(payments.groups.len(), 2);
    assert_eq!(payments.groups[1].command.as_deref().unwrap(), ["shop", "payments", "--new"]);
    let Place::Mesh(catalog) = &config.services["catalog"].place else { panic!("inside") };
    assert_eq!(catalog.groups[0].instances, 2);
    assert_eq!(catalog.groups[0].env["CATALOG_PAGE"], "50");
    assert_eq!(catalog.groups[0].env["CATALOG_STRICT"], "true");
    let Place::External(tax) = &config.services["tax"].place else { panic!("outside") };
    assert_eq!(tax.addresses, ["tax.example.com:443"]);

    let charges = &config.routes["payments"][0];
    assert_eq!(charges.name, "charges");
    assert_eq!(charges.matches[0].path, Some(PathMatch::Prefix("/charges".to_owned())));
    assert_eq!(charges.matches[0].headers["api-version"], "2");
    assert_eq!(charges.timeouts.attempt, Some(Duration::from_millis(800)));
    let on = BTreeSet::from([RetryOn::ConnectFailure, RetryOn::Status(503), RetryOn::Grpc(14)]);
    assert_eq!(charges.retry.on, on);
    assert_eq!(config.routes["payments"][1].name, "default", "what charges does not match goes on");
    assert_eq!(config.routes["inventory"].len(), 1, "a route for every request is the last");
    assert_eq!(config.routes["inventory"][0].timeouts.request, None);
    let idle = |service: &str| config.routes[service][0].timeouts.idle;
    assert_eq!((idle("payments"), idle("inventory")), (None, Some(Duration::from_secs(300))));
    assert_eq!(config.routes["catalog"].len(), 1, "a service without a route has the plain one");
    assert_eq!(config.queues["fulfilment"].delivery.attempts, 8);
}

#[test]
fn the_graph_answers() {
    let config = shop();
    let service = |text| Subject::Service(name(text));
    let gateway = Subject::Gateway(name("public"));
    assert_eq!(config.callers_of(&name("orders")), BTreeSet::from([service("storefront"), gateway]));
    assert_eq!(config.callers_of(&name("shipping")), BTreeSet::from([Subject::Broker]));
    assert_eq!(config.callers_of(&name("tax")), BTreeSet::from([service("payments")]));
    assert_eq!(config.publishers_of(&name("fulfilment")), BTreeSet::from([service("orders")]));
    let waves: Vec<Vec<_>> =
        config.start_order().iter().map(|wave| wave.iter().map(|name| name.as_str().to_owned()).collect()).collect();
    let expected =
        [&["catalog", "inventory", "notifications", "payments", "shipping"][..], &["orders"], &["storefront"]];
    assert_eq!(waves, expected);
}

#[test]
fn a_caller_may_reach_what_the_routes_of_the_called_lead_to() {
    let text = "
mesh: m
services: {a: {calls: [b]}, b: {}, c: {}, d: {}}
routes: [{service: b, backends: [{service: c}, {service: d, weight: 0}]}]
";
    let config = check("mesh.yaml", text).unwrap().config;
    assert_eq!(config.callers_of(&name("c")), BTreeSet::from([Subject::Service(name("a"))]));
    assert_eq!(config.callers_of(&name("b")), BTreeSet::new());
    assert_eq!(config.callers_of(&name("d")), BTreeSet::new());
    assert_eq!(config.backends_of(&name("b")), BTreeSet::from([name("c")]));
}

#[test]
fn what_is_written_wrong_is_found_all_at_once() {
    let text = r#"mesh: shop
services:
  orders:
    prot: http
    port: "8102"
    calls: [catalgo, payments]
    health: {interval: 30}
    instances: many
  catalog:
    protocol: htpp
    calls: orders
queus: {}
routes:
  - service: orders
    timeouts: {request: 2 sec, attempt: 99d}
    retry: {on: [conect-failure, DEADLINE_EXCEEDED, 200], budget: 0.2, attempts: 11}
"#;
    expect(
        text,
        &[
            "4:5 unknown-key → port",
            "5:11 wrong-type → 8102",
            "6:13 unknown-name → catalog",
            "6:22 unknown-name",
            "7:24 quantity → 30s",
            "8:16 wrong-type",
            "10:15 unknown-word → http",
            "11:12 wrong-type → [orders]",
            "12:1 unknown-key → queues",
            "15:25 quantity → 2s",
            "15:41 out-of-range → 1d",
            "16:18 unknown-word → connect-failure",
            "16:34 unknown-word → deadline-exceeded",
            "16:53 out-of-range",
            "16:67 quantity → 20%",
            "16:82 out-of-range → 10",
        ],
    );
}

#[test]
fn yaml_itself() {
    for (text, wanted) in [
        ("", &["1:1 missing-key"][..]),
        ("# nothing\n", &["1:1 missing-key"]),
        ("just text", &["1:1 wrong-type"]),
        ("[mesh]", &["1:1 wrong-type"]),
        ("mesh: m\n\tservices: {}", &["2:1 syntax"]),
        ("mesh: [m", &["1:7 syntax"]),
        ("mesh: m\n---\nmesh: n\n", &["2:1 syntax"]),
        ("mesh: m\nmesh: n\n", &["2:1 duplicate"]),
        ("mesh: !name m\n", &["1:7 tag"]),
        ("mesh: *m\n", &["1:7 unknown-alias"]),
        ("mesh: m\nservices: {a: &a {calls: *a}}\n", &["2:26 unknown-alias"]),
        ("mesh: m\n? {a: b}\n: c\n", &["2:3 wrong-type"]),
        ("mesh:\n", &["1:5 wrong-type"]),
        ("mesh: m\nservices:\n", &["2:9 wrong-type"]),
        ("mesh: m\nservices: {a: }\n", &[]),
        ("mesh: m\nservices: {a: {env: &e {A: b}}, b: {env: *e}}\n", &[]),
        ("{\"mesh\": \"m\", \"services\": {\"a\": {\"port\": 80}}}", &[]),
        ("mesh: 5\n", &["1:7 wrong-type → \"5\""]),
        ("mesh: Shop_Two\n", &["1:7 bad-name → shop-two"]),
    ] {
        expect(text, wanted);
    }
}

#[test]
fn bounds_of_the_file_itself() {
    let long = format!("mesh: m # {}", "x".repeat(1 << 20));
    expect(&long, &["1:1 too-large"]);
    let deep = format!("mesh: {}", "[".repeat(200));
    expect(&deep, &["1:39 syntax"]);
    // Each level holds the one before it ten times.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    expect(&bomb, &["5:9 too-large"]);
    let many = format!("mesh: m\n{}", (0..300).map(|i| format!("k{i}: 1\n")).collect::<String>());
    let found = findings(&many);
    assert_eq!(found.len(), FINDINGS_MAX + 1);
    assert_eq!(found.last().unwrap().message, "and 200 more findings");
}

#[test]
fn names_and_references() {
    for (text, wanted) in [
        ("mesh: m\nservices: {broker: {}}", &["2:12 reserved-name"][..]),
        (
            "mesh: m\ngateways: {sidecar: {listen: '[::1]:1', backends: [{service: a}]}}",
            &["2:12 reserved-name", "2:62 unknown-name"],
        ),
        ("mesh: m\nservices: {a: {calls: [broker]}}", &["2:24 reserved-name"]),
        (
            "mesh: m\nservices: {a: {publishes: [events], calls: [events]}}\ntopics: {events: {}}",
            &["2:45 unknown-name", "~3:10 no-consumer"],
        ),
        ("mesh: m\nservices: {A: {}, b: {calls: [A]}}", &["2:12 bad-name → a"]),
        ("mesh: m\nservices: {a: {calls: [b, b]}, b: {}}", &["2:27 duplicate"]),
        (
            "mesh: m\nqueues: {x: {}}\ntopics: {x: {}}\nservices: {a: {publishes: [x], consumes: [{queue: x}]}}",
            &["3:10 name-taken"],
        ),
        (
            "mesh: m\nservices: {a: {consumes: [{queue: taskz}]}, b: {publishes: [tasks]}}\nqueues: {tasks: {}}",
            &["2:35 unknown-name → tasks"],
        ),
        ("mesh: m\nservices: {a: {consumes: [{topic: tasks, path: /x}]}}\nqueues: {tasks: {}}", &["2:35 unknown-name"]),
    ] {
        expect(text, wanted);
    }
}

#[test]
fn services() {
    for (service, wanted) in [
        ("{command: 'say \"it'}", &["2:25 malformed"][..]),
        ("{command: a | b}", &["2:25 malformed"]),
        ("{command: ''}", &["2:25 malformed"]),
        ("{port: 0}", &["2:22 out-of-range → 1"]),
        ("{port: 70000}", &["2:22 out-of-range → 65535"]),
        ("{port: 80, instances: 2}", &["~2:22 port-taken"]),
        ("{instances: 65}", &["2:27 out-of-range → 64"]),
        ("{subsets: {}}", &["2:25 missing-key"]),
        ("{subsets: {V1: {}}}", &["2:26 bad-name → v1"]),
        ("{env: {1A: x}}", &["2:22 malformed"]),
        ("{env: {PORT: 80}}", &["2:22 reserved-name"]),
        ("{env: {http_proxy: x, HTTP_PROXY: y}}", &["2:22 reserved-name", "2:37 reserved-name"]),
        ("{subsets: {v1: {env: {MESHWORK_DATA: x}}}}", &["2:37 reserved-name"]),
        ("{env: {NO_PROXY: x, HTTPS_PROXY: y, REPORT: z}}", &[]),
        ("{env: {A: [x]}}", &["2:25 wrong-type"]),
        ("{env: {A: }}", &["2:23 wrong-type"]),
        ("{health: {path: healthz}}", &["2:31 malformed → /healthz"]),
        ("{health: {interval: 0s}}", &["2:35 out-of-range → 10ms"]),
        ("{inbound: {body_max: 64KB}}", &["2:36 quantity → 64KiB"]),
        ("{inbound: {rate_limit: {requests: 5}}}", &["2:26 not-built-yet"]),
        ("{breaker: {open: 1m, open_max: 1s}}", &["2:46 timeout-order"]),
        ("{external: {addresses: [https://x.example]}}", &["2:39 malformed → x.example:443"]),
        ("{external: {}}", &["2:26 missing-key"]),
        ("{external: {addresses: []}}", &["2:38 missing-key"]),
        ("{external: {addresses: ['x:1'], tls: {}}}", &["2:52 missing-key"]),
        ("{external: {addresses: ['x:1']}, calls: [], health: {}}", &["2:55 conflict", "2:67 conflict"]),
        ("{consumes: [{}]}", &["2:27 missing-key"]),
        ("{calls: [a]}", &["2:24 call-cycle"]),
    ] {
        expect(&format!("mesh: m\nservices: {{a: {service}}}"), wanted);
    }
}

#[test]
fn consumptions() {
    let head = "mesh: m\nqueues: {q: {}}\ntopics: {t: {}}\n";
    for (consumes, wanted) in [
        ("[{queue: q}, {topic: t, path: /t}]", &[][..]),
        ("[{queue: q}, {topic: t}]", &["4:75 missing-key"]),
        ("[{queue: q, topic: t}]", &["4:81 conflict"]),
        ("[{queue: q, path: x}, {topic: t, path: /t}]", &["4:80 malformed → /x"]),
        ("[{queue: q}, {queue: q}, {topic: t, path: /t}]", &["4:75 duplicate"]),
        ("[{queue: q, concurrency: 0}, {topic: t, path: /t}]", &["4:87 out-of-range → 1"]),
        ("[{queue: q}, {topic: t, path: /t, ordered_by: key}]", &["4:96 not-built-yet"]),
    ] {
        expect(
            &format!("{head}services: {{p: {{publishes: [q, t]}}, c: {{command: x, consumes: {consumes}}}}}"),
            wanted,
        );
    }
}

#[test]
fn routes() {
    let head = "mesh: m\nservices: {a: {subsets: {v1: {}, v2: {}}}, b: {}, g: {protocol: grpc}}\nroutes:\n";
    for (route, wanted) in [
        ("{}", &["4:3 missing-key"][..]),
        ("{service: c}", &["4:13 unknown-name → a"]),
        ("{service: a, backends: []}", &["4:26 missing-key"]),
        ("{service: a, backends: [{service: b, weight: 0}]}", &["4:26 weights"]),
        ("{service: a, backends: [{service: a, subset: v3}]}", &["4:48 unknown-subset → v1"]),
        ("{service: a, backends: [{service: b, subset: v1}]}", &["4:48 unknown-subset"]),
        ("{service: a, backends: [{service: g}]}", &["4:37 protocol-mismatch"]),
        ("{service: a, backends: [{weight: 1}]}", &["4:27 missing-key"]),
        ("{service: a, matches: [{path: /x}]}", &["4:33 wrong-type"]),
        ("{service: a, matches: [{path: {}}]}", &["4:33 missing-key"]),
        ("{service: a, matches: [{path: {exact: /x, prefix: /x}}]}", &["4:53 conflict"]),
        ("{service: a, matches: [{method: get}]}", &["4:35 malformed → GET"]),
        ("{service: a, matches: [{headers: {A: 1, a: 2}}]}", &["4:43 duplicate"]),
        ("{service: a, timeouts: {request: 1s, attempt: 2s}}", &["4:49 timeout-order → 1s"]),
        ("{service: a, timeouts: {attempt: 20s}}", &["4:36 timeout-order → 15s"]),
        ("{service: a, timeouts: {request: 0s, attempt: 20s}}", &[]),
        ("{service: a, timeouts: {request: 1h, idle: 0s}}", &[]),
        ("{service: a, timeouts: {idle: 2d}}", &["4:33 out-of-range → 1d"]),
        ("{service: a, matches: [{method: POST}], retry: {on: [503]}}", &["~4:55 retry-without-effect"]),
        ("{service: a, matches: [{method: POST}], retry: {on: [503], non_idempotent: true}}", &[]),
        ("{service: a, matches: [{method: GET}], retry: {on: [503]}}", &[]),
        ("{service: g, retry: {on: [unavailable]}}", &["~4:28 retry-without-effect"]),
        ("{service: a, retry: {non_idempotent: yes}}", &["4:40 wrong-type → true"]),
        ("{service: a, fallback: {status: 202}}", &["4:16 not-built-yet"]),
        ("{service: a}\n- {service: a}", &["~5:3 never-reached"]),
        ("{service: a, name: x, matches: [{}]}\n- {service: a, name: x}", &["5:22 name-taken"]),
    ] {
        expect(&format!("{head}- {route}"), wanted);
    }
}

#[test]
fn gateways() {
    let head = "mesh: m\nservices: {a: {port: 81}}\ngateways:\n";
    for (gateway, wanted) in [
        ("g: {}", &["4:3 missing-key", "4:3 missing-key"][..]),
        ("g: {listen: 8080, backends: [{service: a}]}", &["4:15 malformed → 127.0.0.1:8080"]),
        ("g: {listen: '127.0.0.1:1', backends: []}", &["4:40 missing-key"]),
        ("g: {listen: '127.0.0.1:1', backends: [{hosts: [x]}]}", &["4:41 missing-key"]),
        ("g: {listen: '127.0.0.1:1', backends: [{service: a, hosts: ['x:1']}]}", &["4:62 malformed → x"]),
        ("g: {listen: '127.0.0.1:1', backends: [{service: a}, {service: a}]}", &["~4:55 never-reached"]),
        (
            "g: {listen: '127.0.0.1:1', backends: [{service: a}]}\n  h: {listen: '0.0.0.0:1', backends: [{service: a}]}",
            &["5:15 port-taken"],
        ),
        (
            "g: {listen: '127.0.0.1:0', backends: [{service: a}]}\n  h: {listen: '127.0.0.1:0', backends: [{service: a}]}",
            &[],
        ),
        ("g: {listen: '127.0.0.1:81', backends: [{service: a}]}", &["~2:22 port-taken"]),
    ] {
        expect(&format!("{head}  {gateway}"), wanted);
    }
}

#[test]
fn destinations() {
    let head = "mesh: m\nservices: {a: {publishes: [x], consumes: [{queue: x}]}}\nqueues:\n";
    for (queue, wanted) in [
        ("x: ", &[][..]),
        ("x: {delivery: {attempts: 0}}", &["4:28 out-of-range → 1"]),
        ("x: {delivery: {backoff: {initial: 2m}}}", &[]),
        ("x: {delivery: {backoff: {initial: 2m, max: 1m}}}", &["4:46 timeout-order"]),
        ("x: {dead_letter: {keep: forever}}", &["4:27 quantity"]),
        ("x: {durability: fsync}", &["4:19 unknown-word → sync"]),
        ("x: {when_unreachable: outbox}", &["4:7 not-built-yet"]),
        ("x: {}\nbroker: {engine: kafka, servers: [a]}", &["5:18 not-built-yet", "5:25 not-built-yet"]),
        (
            "x: {}\nstreams: {}\nsagas: {}\nviews: {}\npolicies: []",
            &["5:1 not-built-yet", "6:1 not-built-yet", "7:1 not-built-yet", "8:1 not-built-yet"],
        ),
    ] {
        expect(&format!("{head}  {queue}"), wanted);
    }
}

#[test]
fn services_that_wait_for_each_other_are_found() {
    let text = "mesh: m\nservices:\n  a: {calls: [b]}\n  b: {calls: [c]}\n  c: {calls: [d, a]}\n  d: {}\n";
    expect(text, &["3:15 call-cycle"]);
    let message = &findings(text)[0].message;
    assert_eq!(message, "these services wait for each other: a → b → c → a");
    let by_route = "mesh: m\nservices: {a: {calls: [b]}, b: {}}\nroutes: [{service: b, backends: [{service: a}]}]";
    expect(by_route, &["2:24 call-cycle"]);
}

#[test]
fn chains_of_calls_are_looked_at_as_a_whole() {
    let services = "mesh: m\nservices: {a: {calls: [b]}, b: {calls: [c]}, c: {calls: [d]}, d: {}}\nroutes:\n";
    let retries = ["b", "c", "d"].map(|name| format!("- {{service: {name}, retry: {{on: [503]}}}}\n")).concat();
    expect(&format!("{services}{retries}"), &["~6:23 retries-multiply"]);
    let safe = ["b", "c", "d"].map(|name| format!("- {{service: {name}, retry: {{attempts: 9}}}}\n")).concat();
    expect(&format!("{services}{safe}"), &[]);

    let timeouts = "- {service: b, timeouts: {request: 1s}}\n- {service: c, timeouts: {request: 2s}}\n";
    expect(&format!("{services}{timeouts}"), &["~4:36 timeout-order"]);
    expect(&format!("{services}- {{service: b, timeouts: {{request: 1s}}}}"), &[]);
}

#[test]
fn a_proven_mesh_survives_json() {
    let config = shop();
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
}

#[test]
fn what_a_mesh_encloses_is_placed_or_told_with_its_place() {
    let text = "mesh: m\nservices:\n  a: {external: {addresses: ['a:1'], tls: {name: a, roots: ca.pem}}}\n  b: {}\n";
    expect(text, &["3:60 enclosure"]);
    let sources = [Source { name: "other.yaml", text: "services: {}" }, Source { name: "mesh.yaml", text }];
    let listed = enclosed(&sources);
    assert_eq!(listed, [Enclosed { source: 1, text: "ca.pem".to_owned() }]);
    let given = |content| {
        let mut enclosures = Enclosures::default();
        enclosures.insert(listed[0].clone(), content);
        check_enclosed(&sources, &enclosures)
    };
    let checked = given(Ok("PEM".to_owned())).unwrap();
    let Place::External(external) = &checked.config.services["a"].place else { panic!("not outside") };
    assert_eq!(external.tls.as_ref().unwrap().roots.as_deref(), Some("PEM"));
    let refused = given(Err("it is a picture".to_owned())).unwrap_err();
    assert_eq!((refused[0].file.as_str(), refused[0].message.as_str()), ("mesh.yaml", "it is a picture"));
}

#[test]
fn several_files_are_one_mesh() {
    let check_two = |one: &str, two: &str| {
        let sources = [Source { name: "one.yaml", text: one }, Source { name: "two.yaml", text: two }];
        check_all(&sources).map_err(|findings| {
            findings.iter().map(|finding| format!("{} {}", finding.file, brief(finding))).collect::<Vec<_>>()
        })
    };
    let config = check_two("mesh: m\nservices: {a: {calls: [b]}}", "services: {b: {}}").unwrap().config;
    assert_eq!(config.services.len(), 2);
    let twice = check_two("mesh: m\nservices: {a: {}}", "mesh: n\nservices: {a: {}}\nbroker: {}");
    assert_eq!(twice.unwrap_err(), ["two.yaml 1:7 conflict → m", "two.yaml 2:12 name-taken"]);
}

#[test]
fn a_finding_is_drawn_for_people_and_written_for_programs() {
    let text = "mesh: m\nservices:\n  orders: {prot: 80, calls: [order]}\n";
    let found = findings(text);
    let drawn = render(&found, &[Source { name: "mesh.yaml", text }], false);
    assert_eq!(
        drawn,
        "\
error[unknown-key]: unknown key `prot`
 --> mesh.yaml:3:12
  |
3 |   orders: {prot: 80, calls: [order]}
  |            ^^^^ did you mean `port`?
  = expected: one of command, port, protocol, instances, subsets, env, health, calls, publishes, consumes, inbound, breaker, external

error[unknown-name]: there is no service `order`
 --> mesh.yaml:3:30
  |
3 |   orders: {prot: 80, calls: [order]}
  |                              ^^^^^ did you mean `orders`?
  = expected: the name of a service

2 errors
"
    );
    assert!(
        render(&found, &[Source { name: "mesh.yaml", text }], true).contains("\x1b[1;31merror[unknown-key]\x1b[0m")
    );
    let json = serde_json::to_value(&found[0]).unwrap();
    assert_eq!(json["severity"], "error");
    assert_eq!(json["code"], "unknown-key");
    assert_eq!((json["line"].as_u64(), json["column"].as_u64()), (Some(3), Some(12)));
    assert_eq!(json["nearest"], "port");
}

/// Walks a value along the schema: every key of it must be a property there.
fn covered(schema: &serde_json::Value, part: &serde_json::Value, value: &serde_json::Value, at: &str) {
    let part = match part["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
        None => part,
    };
    match value {
        serde_json::Value::Object(object) => {
            assert_eq!(part["type"], "object", "{at}: {part}");
            for (key, inner) in object {
                let property = &part["properties"][key];
                let property = if property.is_null() { &part["additionalProperties"] } else { property };
                assert!(property.is_object(), "{at}.{key} is not in the schema: {part}");
                covered(schema, property, inner, &format!("{at}.{key}"));
            }
        }
        serde_json::Value::Array(items) => {
            assert_eq!(part["type"], "array", "{at}: {part}");
            items.iter().for_each(|item| covered(schema, &part["items"], item, at));
        }
        _ => assert!(!part["type"].is_null() || part["anyOf"].is_array(), "{at}: {part}"),
    }
}

#[test]
fn the_schema_holds_every_key_and_describes_it() {
    let schema = schema();
    let routes = serde_json::json!([{
        "service": "a", "name": "r",
        "matches": [{"path": {"prefix": "/"}, "method": "GET", "headers": {"a": "b"}}],
        "backends": [{"service": "a", "subset": "v1", "weight": 1}],
        "timeouts": {"request": "1s", "attempt": "1s", "idle": "1s"},
        "retry": {"attempts": 1, "on": [503, "reset"], "budget": "20%", "backoff": "1ms", "non_idempotent": false},
    }]);
    let delivery = serde_json::json!({"attempts": 1, "backoff": {"initial": "1s", "max": "1s"}, "ack_timeout": "1s"});
    let mesh = serde_json::json!({
        "mesh": "m",
        "services": {"a": {
            "command": "x", "port": 1, "protocol": "http", "instances": 1,
            "subsets": {"v1": {"instances": 1, "command": "x", "env": {"A": 1}}}, "env": {"A": "b"},
            "health": {"path": "/", "interval": "1s", "timeout": "1s"},
            "calls": ["b"], "publishes": ["q"], "consumes": [{"queue": "q", "topic": "t", "path": "/", "concurrency": 1}],
            "inbound": {"body_max": "1B", "concurrent_max": 1},
            "breaker": {"consecutive_failures": 1, "open": "1s", "open_max": "1s", "max_ejected": "50%"},
            "external": {"addresses": ["a:1"], "tls": {"name": "a", "roots": "b"}},
        }},
        "gateways": {"g": {"listen": "127.0.0.1:1", "body_max": "1B", "backends": [
            {"service": "a", "hosts": ["h"], "matches": [{"method": "GET"}]}
        ]}},
        "routes": routes,
        "queues": {"q": {"delivery": delivery, "dead_letter": {"keep": "1d"}, "messages_max": 1, "durability": "os"}},
        "topics": {"t": {"key": "k", "keep": "1d", "delivery": delivery, "durability": "sync"}},
        "broker": {"engine": "embedded", "message_max": "1MiB"},
    });
    covered(&schema, &schema, &mesh, "");
    assert_eq!(schema["required"], serde_json::json!(["mesh"]));
    let text = schema.to_string();
    assert!(!text.contains("\"null\""), "nothing is null: {schema:#}");
    let service = &schema["$defs"]["Service"];
    assert_eq!(service["additionalProperties"], false);
    for (key, property) in service["properties"].as_object().unwrap() {
        assert!(property["description"].is_string(), "{key} is not described: {property}");
    }
}

/// Whatever `text` is, its findings point into it.
#[track_caller]
fn findings_point_into(text: &str) {
    let found = findings(text);
    // As the reader counts: YAML ends a line at each of the three (YAML 1.2.2 §5.4).
    let plain = text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
    let widths: Vec<usize> = plain.split('\n').map(|line| line.chars().count()).collect();
    for finding in &found {
        let line = finding.line as usize;
        // The end of the file is a place too: the line after the last, or the column after a line's last.
        let width = widths.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        assert!((1..=widths.len() + 1).contains(&line), "{finding:?} of {} lines", widths.len());
        assert!((1..=width + 1).contains(&(finding.column as usize)), "{finding:?} in a line of {width}\n{text}");
        assert!(finding.column as usize + finding.width as usize <= width + 2, "{finding:?} in a line of {width}");
    }
    let drawn = render(&found, &[Source { name: "mesh.yaml", text }], true);
    assert!(found.is_empty() || !drawn.is_empty());
}

/// As a file is that someone is still writing.
#[test]
fn a_file_cut_off_anywhere_is_read_to_its_end() {
    for example in [SHOP, include_str!("../../examples/shop/mesh.yaml")] {
        // Each place would take half a minute; a step that fits no indentation comes to all kinds of them.
        let cuts = example.char_indices().map(|(at, _)| at).step_by(11);
        cuts.for_each(|at| findings_point_into(&example[..at]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Lines left out, doubled, moved and pushed in or out: what editors and merges do to a file.
    #[test]
    fn no_shuffle_of_lines_makes_check_panic(
        moves in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_usize..4), 1..8),
    ) {
        let mut lines: Vec<String> = include_str!("../../examples/shop/mesh.yaml").lines().map(str::to_owned).collect();
        for (from, to, what) in moves {
            let (from, to) = (from.index(lines.len()), to.index(lines.len()));
            match what {
                0 => drop(lines.remove(from)),
                1 => lines.insert(to, lines[from].clone()),
                2 => lines.swap(from, to),
                _ => lines[from].insert_str(0, "  "),
            }
        }
        findings_point_into(&lines.join("\n"));
    }

    /// Whatever is done to a file, checking it ends with a configuration or with findings that point into it.
    #[test]
    fn no_text_makes_check_panic(cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..20, "[\\PC\n\t]{0,6}"), 1..6)) {
        let mut chars: Vec<char> = SHOP.chars().collect();
        for (place, gone, new) in cuts {
            let start = place.index(chars.len());
            let end = (start + gone).min(chars.len());
            chars.splice(start..end, new.chars());
        }
        findings_point_into(&chars.into_iter().collect::<String>());
    }
}
