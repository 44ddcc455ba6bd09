//! A whole mesh in one process: every role with its real protocols and real TLS, on a simulated network, disk and clock, with
//! small applications at its edges and faults drawn from a seed (docs/decisions/2026-11-24-simulation.md).
//!
//! [`run::run`] runs one seed. One seed is one process, since the hooks for randomness and time are the process's own.
//! This crate is for tests alone: a program that links it has no real clock any more.

pub mod app;
pub mod check;
pub mod history;
pub mod levels;
pub mod mesh;
pub mod packing;
pub mod plan;
mod randomness;
pub mod run;
pub mod shop;
pub mod trace;
