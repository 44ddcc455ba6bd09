//! Meshwork: the roles, the command line, and what runs a whole mesh on one machine.

pub mod role;
