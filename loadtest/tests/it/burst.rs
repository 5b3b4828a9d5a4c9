//! After a burst of connections the memory goes back.

use std::time::Duration;

use tidegate_loadtest::{Memory, Transport, open_all, settled_memory};

use crate::dev::{Dev, alone, eventually};

const CONNECTIONS: usize = 5_000;
/// What may stay: the tables keep the size that they once had, and the allocator some pages. Users are left out of this: in
/// `dev` their coming and going is written to the log of the same process, which keeps it in memory for a while.
const STAYS_LIMIT: u64 = 1 << 20;
/// The least that the burst takes, or nothing was measured.
const TAKES_LEAST: u64 = CONNECTIONS as u64 * 300;

async fn burst(dev: &Dev, count: usize) -> u64 {
    let query = |_| "channel=load:burst".to_owned();
    let open = open_all(dev.public, Transport::Ws, count, query, |_| ()).await.expect("all open");
    let memory = settled_memory(dev.pid(), Duration::from_secs(20)).await.expect("alive");
    assert_eq!(open.len(), count);
    memory.0
}

#[tokio::test]
async fn memory_goes_back_after_a_burst() {
    let _alone = alone().await;
    let dev = Dev::start();
    burst(&dev, 500).await; // What is made once is made.
    let before = settled_memory(dev.pid(), Duration::from_secs(20)).await.expect("alive").0;
    let most = burst(&dev, CONNECTIONS).await;
    println!("memory: {before} before, {most} with {CONNECTIONS} connections");
    assert!(most >= before + TAKES_LEAST, "{before} before, {most} with {CONNECTIONS} connections");
    let back = format!("from {most} back to {before} bytes and at most {STAYS_LIMIT} more");
    let memory = || Memory::of(dev.pid()).expect("alive").0;
    eventually(&back, Duration::from_secs(90), || memory() <= before + STAYS_LIMIT).await;
}
