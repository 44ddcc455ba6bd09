//! Inventory: what is on the shelves, over gRPC in all four kinds of call. What things are and cost is the catalogue's.
//!
//! The stock of the first day is a file; what was set aside and taken in since then is in the ledger.

mod book;
mod service;

#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; the contract carries the words"
)]
mod proto {
    include!("gen/shop.inventory.v1.rs");
}

use tonic::service::Routes;
use tonic::transport::Channel;

use crate::environment::Environment;
use crate::ledger::Ledger;
use crate::serve;

pub use proto::{Counted, Item, Level, ReleaseRequest, ReserveRequest, RestockSummary, WatchRequest};

/// Inventory as others call it.
pub type InventoryClient = proto::inventory_client::InventoryClient<Channel>;

/// Serves inventory.
///
/// # Errors
/// When it cannot start.
pub async fn run(environment: &Environment) -> anyhow::Result<()> {
    let ledger = Ledger::open(&environment.data.join("inventory"), "stock.jsonl")?;
    let stop = serve::stop_on_signals()?;
    let service = service::Warehouse::new(ledger, stop.clone());
    let server = proto::inventory_server::InventoryServer::new(service);
    serve::serve(environment, Routes::new(server).into_axum_router(), stop).await
}
