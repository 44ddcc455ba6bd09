//! The commands that run one role in this process until it is told to end.

pub(super) mod broker;
pub(super) mod control_plane;
pub(super) mod gateway;
pub(super) mod sidecar;

/// How long certificates hold where nothing else is said.
pub(super) const CERTIFICATE_LIFE: &str = "1h";
