//! The `loadtest` command.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    cli::run(cli::Args::parse()).await
}
