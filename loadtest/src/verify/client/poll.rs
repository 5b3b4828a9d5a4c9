//! Long and short polls: one chain of answered requests is one connection, and the first that fails ends it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::object::Object;
use super::{Ended, OPEN_TIMEOUT, Subscriber, open, within};
use crate::history::Receiving;
use crate::http::get;

/// How long a long poll asks to wait.
const WAIT_S: u64 = 25;
/// How often a short poll asks: it adds to what is measured as a pause.
const SHORT_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Polls until a request fails, and says why it did.
pub(super) async fn follow(subscriber: &mut Subscriber, gateway: SocketAddr) -> Ended {
    poll(subscriber, gateway).await.err().unwrap_or_else(|| "ended".to_owned())
}

async fn poll(subscriber: &mut Subscriber, gateway: SocketAddr) -> Result<(), Ended> {
    let mut conn = Some(open(gateway).await?);
    let mut pace = interval(SHORT_POLL_INTERVAL);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first poll does not wait: it tells where this begins, also when nothing happens.
    let mut is_first = true;
    loop {
        let is_long = subscriber.plan.transport == Receiving::LongPoll && !is_first;
        if !is_long {
            pace.tick().await;
        }
        let mut target = subscriber.target(true);
        let mut time = OPEN_TIMEOUT;
        if is_long {
            target.push_str(&format!("&wait={WAIT_S}s"));
            time += Duration::from_secs(WAIT_S);
        }
        let mut open = match conn.take() {
            Some(conn) => conn,
            None => open(gateway).await?,
        };
        let response = within(time, "poll", open.exchange(&get(&target))).await?;
        if response.head.status != 200 {
            return Err(format!("refused: {}", response.head.status));
        }
        if !response.is_last() {
            conn = Some(open);
        }
        let (state, events) = Object::parse_answer(&response.body)?;
        take_answer(subscriber, state, events, is_first).await?;
        is_first = false;
    }
}

/// The answer's cursor is behind its events: it counts once all of them have been written down.
async fn take_answer(
    subscriber: &mut Subscriber,
    state: Object,
    events: Vec<Object>,
    is_first: bool,
) -> Result<(), Ended> {
    let cursor = state.cursor.clone();
    // Each answer says again what its cursor covers; only what is news is written down.
    let is_news =
        is_first || !state.lost.is_empty() || !state.pending.is_empty() || !subscriber.pending.is_empty();
    if is_news {
        subscriber.pending.clear();
        subscriber.take(state).await?;
    }
    for event in events {
        subscriber.take(event).await?;
    }
    subscriber.cursor = cursor;
    Ok(())
}
