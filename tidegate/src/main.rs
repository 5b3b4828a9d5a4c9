//! The tidegate command.

use std::process::ExitCode;

use clap::Parser as _;

/// Gives memory back after a burst: the decay is compiled in, see `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tidegate::cli::run(tidegate::cli::Cli::parse())
}
