//! After a burst of connections the memory goes back.

use std::time::{Duration, Instant};

use tidegate_loadtest::{Memory, Transport, open_all, settled_memory};

use crate::dev::{ALONE, Dev};

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
    let _alone = ALONE.lock().await;
    let dev = Dev::start();
    burst(&dev, 500).await; // What is made once is made.
    let before = settled_memory(dev.pid(), Duration::from_secs(20)).await.expect("alive").0;
    let most = burst(&dev, CONNECTIONS).await;
    let deadline = Instant::now() + Duration::from_secs(90);
    let after = loop {
        let now = Memory::of(dev.pid()).expect("alive").0;
        if now <= before + STAYS_LIMIT || Instant::now() > deadline {
            break now;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    println!("memory: {before} before, {most} with {CONNECTIONS} connections, {after} after");
    assert!(most >= before + TAKES_LEAST, "{before} before, {most} with {CONNECTIONS} connections");
    assert!(after <= before + STAYS_LIMIT, "{before} before, {most} with {CONNECTIONS}, still {after} after");
}
