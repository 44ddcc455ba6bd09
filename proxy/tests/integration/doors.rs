//! Opening: an address that someone else listens on is not shared with them.

use std::sync::Arc;

use proxy::{AccessLog, DataPlane, Error, Options};
use runtime::lanes::Lanes;
use runtime::metrics::Metrics;
use runtime::net::{Listener, Share};

use crate::kit::name;

#[tokio::test]
async fn an_address_in_use_is_named_however_many_lanes_there_are() {
    for (lanes, stranger) in [(1, Share::Alone), (1, Share::NextLane), (2, Share::Alone), (2, Share::NextLane)] {
        let other = Listener::bind(([127, 0, 0, 1], 0).into(), stranger).unwrap();
        let address = other.local_addr().unwrap();
        let (_signal, drain) = runtime::drain::channel();
        let opened = DataPlane::start(Options {
            mesh: name("test"),
            subject: "service/orders".parse().unwrap(),
            instance: name("orders-0"),
            identity: None,
            lanes: Arc::new(Lanes::start(lanes, "test").unwrap()),
            metrics: Metrics::default(),
            access_log: AccessLog::Off,
            outbound: Some(address),
            status: None,
            inbound: None,
            gateway: None,
            drain,
        });
        let Err(error) = opened.await else { panic!("{lanes} lanes share {address} with a stranger ({stranger:?})") };
        assert!(error.to_string().starts_with(&format!("outbound: cannot listen on {address}: ")), "{error}");
        let Error::Listen { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse, "{lanes} lanes, {stranger:?}");
    }
}
