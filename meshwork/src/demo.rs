//! `meshwork demo`: the shop on this machine, a stream of real orders through its gateway, failures in the middle, and a
//! report that says what each one cost.
//!
//! It leaves running the mesh to `up` and knows the shop only by its HTTP interface. It is a demonstration and a check:
//! its exit code is 0 only when every order that was accepted was shipped and notified, once each.
