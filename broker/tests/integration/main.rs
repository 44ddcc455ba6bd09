//! The broker through its API, on a disk in memory that crashes, with consumers that are functions.

mod dead_letters;
mod fixture;
mod grpc;
mod leases;
mod queues;
mod recovery;
mod redrives;
mod refusals;
mod threads;
mod topics;
