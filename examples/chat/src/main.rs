//! A chat room backend on Tidegate: see `--help`.

use anyhow::Result;
use clap::Parser as _;
use tidegate_example_chat::{Chat, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let chat = Chat::new(Options::parse())?;
    tokio::select! {
        ended = chat.run() => ended,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}
