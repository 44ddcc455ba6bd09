//! The binary: the allocator, and the command line.

use std::process::ExitCode;

/// It saves a fifth of the CPU of HTTP/2 against the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    meshwork::command::main()
}
