//! Meshwork: the roles, the command line, and what runs a whole mesh on one machine.

pub mod command;
pub mod demo;
pub mod role;
pub mod terminal;
pub mod up;
