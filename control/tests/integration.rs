//! A control plane with real sockets and real TLS, and roles that are played by the tests.

#[path = "integration/admin.rs"]
mod admin;
#[path = "integration/discovery.rs"]
mod discovery;
#[path = "integration/fixture.rs"]
mod fixture;
#[path = "integration/identity.rs"]
mod identity;
#[path = "integration/restart.rs"]
mod restart;
