//! What to try while the shop is left running: lines that work when they are pasted.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::terminal::{FAINT, STRONG, paint};
use crate::up::Report;

/// The lines, with real addresses. `sku` is a product that is sold.
pub(super) fn lines(gateway: SocketAddr, reports: &[Report], sku: &str) -> String {
    let of = |service: &str| {
        reports
            .iter()
            .find(|report| report.service.as_ref().map_or(report.label.as_str(), |name| name.as_str()) == service)
    };
    let at = |service: &str, listener: &str| of(service).and_then(|report| report.addresses.get(listener));
    let mut text = format!("\n{}\n", paint(STRONG, "The shop stays open. Try:"));
    let mut add = |why: &str, line: &str| {
        let _ = writeln!(text, "\n{}\n{line}", paint(FAINT, &format!("# {why}")));
    };
    add("look around", &format!("curl 'http://{gateway}/products?limit=3'"));
    add(
        "place an order; the same line again gives the same order",
        &format!(
            "curl http://{gateway}/orders -H 'content-type: application/json' -H 'idempotency-key: mine-1' \
             -d '{{\"customer\": \"Ada\", \"lines\": [{{\"sku\": \"{sku}\", \"quantity\": 1}}]}}'"
        ),
    );
    add("what the ledgers say together", &format!("curl http://{gateway}/report"));
    if let Some(address) = at("notifications", "outbound") {
        add(
            "a call that the graph does not declare is refused, and told which edge is missing",
            &format!("curl -i -x http://{address} http://payments/charges"),
        );
    }
    if let Some(address) = at("orders", "outbound") {
        add("how the sidecar of orders sees its upstreams", &format!("curl http://{address}/v1/status"));
    }
    if let Some(address) = at("broker", "status") {
        add("what the broker measures", &format!("curl -s http://{address}/metrics | grep messages"));
    }
    if let Some(pid) = of("catalog").and_then(|report| report.pid) {
        add("kill a catalog with its sidecar; it comes back", &format!("kill -9 {pid}"));
    }
    let _ = write!(text, "\nCtrl-C ends it.");
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::name::Name;

    use super::*;
    use crate::up::State;

    #[test]
    fn every_line_has_an_address_of_now() {
        let address: SocketAddr = ([127, 0, 0, 1], 4_711).into();
        let report = |service: Option<&str>, label: &str| Report {
            label: label.to_owned(),
            service: service.map(|name| Name::new(name).unwrap()),
            instance: Name::new(label).unwrap(),
            state: State::Ready,
            pid: Some(99),
            starts: 1,
            addresses: BTreeMap::from(["outbound", "status"].map(|name| (name.to_owned(), address))),
        };
        let reports = [
            report(None, "broker"),
            report(Some("orders"), "orders"),
            report(Some("notifications"), "notifications"),
            report(Some("catalog"), "catalog"),
        ];
        let text = lines(([127, 0, 0, 1], 8_080).into(), &reports, "HT-1");
        for part in [
            "curl 'http://127.0.0.1:8080/products?limit=3'",
            r#"{"sku": "HT-1", "quantity": 1}"#,
            "-x http://127.0.0.1:4711 http://payments",
            "curl -s http://127.0.0.1:4711/metrics",
            "kill -9 99",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
