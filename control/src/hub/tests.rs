//! When an instance that drains has withdrawn.

use futures_util::FutureExt as _;

use super::*;

const MESH: &str = "
mesh: shop
services:
  orders: {command: shop orders, calls: [payments]}
  payments: {command: shop payments}
  mail: {command: shop mail}
";

struct Meeting {
    hub: Arc<Hub>,
    caller: Stream,
    leaving: Stream,
    // Never answers, and is told of nobody.
    _stranger: Stream,
}

impl Meeting {
    fn new() -> Self {
        let config = Arc::new(model::config::check("mesh.yaml", MESH).unwrap().config);
        let hub = Hub::new(Revision { number: 1, config }, false, 0);
        let join = |service: &str| {
            let instance = Name::new(&format!("{service}-0")).unwrap();
            let hello = Hello { instance, subset: None, address: Some(([127, 0, 0, 1], 1).into()) };
            let stream = hub.hello(&format!("service/{service}").parse().unwrap(), hello).unwrap();
            hub.heartbeat(&stream, true, false).unwrap();
            stream
        };
        let (caller, leaving, _stranger) = (join("orders"), join("payments"), join("mail"));
        Self { hub, caller, leaving, _stranger }
    }

    /// Sends the caller what it is told now.
    fn tell(&self) -> u64 {
        let snapshot = self.hub.snapshot(self.caller.subject()).unwrap();
        self.hub.sent(&self.caller, &snapshot);
        snapshot.version
    }

    fn has_withdrawn(&self) -> bool {
        self.hub.withdrawn(self.leaving.subject(), self.leaving.instance()).now_or_never().is_some()
    }
}

#[tokio::test]
async fn an_instance_has_withdrawn_when_no_caller_is_to_be_waited_for() {
    let ways: [fn(&Hub, &Stream, u64); 3] = [
        |hub, caller, version| hub.answered(caller, version, None),
        |hub, caller, version| hub.answered(caller, version, Some("no room for it")),
        |hub, caller, _| hub.ended(caller),
    ];
    for (way, settle) in ways.iter().enumerate() {
        let meeting = Meeting::new();
        let before = meeting.tell();
        meeting.hub.answered(&meeting.caller, before, None);
        assert!(!meeting.has_withdrawn(), "it is an endpoint");
        meeting.hub.heartbeat(&meeting.leaving, true, true).unwrap();
        assert!(!meeting.has_withdrawn(), "nobody was told yet");
        let after = meeting.tell();
        assert!(!meeting.has_withdrawn(), "its caller has not answered yet");
        settle(&meeting.hub, &meeting.caller, after);
        assert!(meeting.has_withdrawn(), "way {way}");
    }
}

#[tokio::test]
async fn a_withdrawal_waits_for_callers_that_are_presumed_to_live() {
    let before = Meeting::new();
    let lived = before.hub.view(|_, registry, _| registry.living());
    let hub = Hub::new(before.hub.revision(), true, 0);
    assert!(hub.refilled().is_some());
    hub.presume(lived);
    assert!(hub.refilled().is_none(), "what is told is no less than before, so nobody has to wait");
    let join = |stream: &Stream, draining| {
        let hello =
            Hello { instance: stream.instance().clone(), subset: None, address: Some(([127, 0, 0, 1], 1).into()) };
        let stream = hub.hello(stream.subject(), hello).unwrap();
        hub.heartbeat(&stream, true, draining).unwrap();
        stream
    };
    let withdrawn = || hub.withdrawn(before.leaving.subject(), before.leaving.instance()).now_or_never().is_some();
    assert!(!withdrawn(), "it is presumed to live itself");
    join(&before.leaving, true);
    assert!(!withdrawn(), "its caller has not come back yet, and sends to it");
    let caller = join(&before.caller, false);
    let told = hub.snapshot(caller.subject()).unwrap();
    hub.sent(&caller, &told);
    assert!(!withdrawn(), "its caller has not answered");
    hub.answered(&caller, told.version, None);
    assert!(withdrawn());
}
