//! The shop: the example applications of a mesh, one subcommand for each service.
//!
//! They are ordinary programs. Each listens on `127.0.0.1:$PORT` and reaches every other one, and the broker, through the HTTP
//! proxy in its environment, with public clients only: HTTP in absolute form, gRPC by `:authority`, CloudEvents over HTTP.
//! Identity, encryption, retries, balancing and delivery are left to what stands behind that proxy.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an application outside of the mesh's own doors: it uses what any program uses"
)]

mod environment;
mod serve;

mod catalog;
mod inventory;
mod notifications;
mod orders;
mod payments;
mod shipping;
mod storefront;

mod broker;
mod event;
mod ledger;
mod log;
mod mesh;
mod problem;
mod trace;

use clap::{Parser, Subcommand};

use environment::Environment;

/// The example shop of Meshwork: seven services that call and send to each other.
///
/// Each takes its settings from the environment: PORT (0: any free one, told on standard output), MESHWORK_PROXY or
/// HTTP_PROXY (the sidecar), SHOP_DATA (the folder of the ledgers; ./shop-data) and, for payments, VERSION (v1 or v2).
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    service: Service,
}

/// One service.
#[derive(Subcommand)]
enum Service {
    /// The door for customers: REST in front of all others
    Storefront,
    /// What is sold and for how much (REST)
    Catalog,
    /// What is on the shelves (gRPC, all four kinds of call)
    Inventory,
    /// Takes orders through pricing, reservation, payment and dispatch (REST; publishes `orders`, sends to `fulfilment`)
    Orders,
    /// Charges customers (REST; VERSION=v1 or v2)
    Payments,
    /// Ships what `fulfilment` asks for, once (queue consumer; publishes `shipments`)
    Shipping,
    /// Writes to customers about their orders and shipments, once for each event (topic subscriber)
    Notifications,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let service = Arguments::parse().service;
    let environment = Environment::read(|name| std::env::var(name).ok())?;
    match service {
        Service::Storefront => storefront::run(&environment).await,
        Service::Catalog => catalog::run(&environment).await,
        Service::Inventory => inventory::run(&environment).await,
        Service::Orders => orders::run(&environment).await,
        Service::Payments => payments::run(&environment).await,
        Service::Shipping => shipping::run(&environment).await,
        Service::Notifications => notifications::run(&environment).await,
    }
}
