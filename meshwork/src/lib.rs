//! Meshwork: the roles, the command line, and what runs a whole mesh on one machine.

mod client;
pub mod command;
pub mod demo;
mod operator;
pub mod role;
pub mod terminal;
pub mod up;
