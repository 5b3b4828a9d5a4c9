//! What had to be received, and what was.
//!
//! A client must receive an acked event of a channel that it follows when it was first published after the client had been
//! told that it follows the channel (`fresh`, `recovered`). What came earlier may be received or not.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::index::{Client, Index, Pos};

/// What can be wrong with one event at one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Acked, and never received.
    Missing,
    /// The same position twice on one connection.
    Twice,
    /// Behind an event that comes later in the log.
    Order,
    /// Received again after a resume.
    Repeat,
    /// Under another position than the one that was acked, or under two.
    Position,
    /// Never published, or in a channel that this client does not follow.
    Foreign,
    /// Published after another was acked, and before it in the log.
    AckOrder,
}

/// One fault, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub kind: Kind,
    /// The client; none where the log itself is wrong.
    pub client: Option<u32>,
    /// The connection; none for what never came.
    pub connection: Option<u32>,
    /// The channel.
    pub channel: String,
    /// The event's key.
    pub key: String,
    /// The event's position.
    pub pos: Option<Pos>,
}

/// What [`check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Deliveries {
    pub(super) findings: Vec<Finding>,
    /// Events received.
    pub(super) received: u64,
    /// Pairs of a client and an event that it had to receive.
    pub(super) expected: u64,
    /// Of these, not received and said to be lost.
    pub(super) told_missing: u64,
    /// How often `lost` or `gap` was told.
    pub(super) told: u64,
    /// Repeats after a resume at clients of several channels: allowed, counted.
    pub(super) repeats_allowed: u64,
}

pub(super) fn check(index: &Index<'_>) -> Deliveries {
    let mut found = Deliveries::default();
    for client in index.clients.values() {
        check_received(index, client, &mut found);
        check_missing(index, client, &mut found);
        found.received += client.received.len() as u64;
        found.told += client.told.values().map(|told| told.len() as u64).sum::<u64>();
    }
    check_log(index, &mut found);
    found.findings.sort_unstable();
    found
}

fn check_received(index: &Index<'_>, client: &Client<'_>, found: &mut Deliveries) {
    let mut seen: HashSet<Pos> = HashSet::new();
    let mut on_connection: HashSet<(u32, Pos)> = HashSet::new();
    let mut last: HashMap<(u32, &str), Pos> = HashMap::new();
    let mut highest: HashMap<&str, Pos> = HashMap::new();
    for (delivery, pos) in &client.received {
        let channel = delivery.channel.as_str();
        let mut add = |kind| {
            found.findings.push(Finding {
                kind,
                client: Some(client.plan.client),
                connection: Some(delivery.connection),
                channel: channel.to_owned(),
                key: delivery.key.clone(),
                pos: *pos,
            });
        };
        let event = index.events.get(delivery.key.as_str()).filter(|event| event.channel == channel);
        let (Some(event), true) = (event, client.plan.channels.iter().any(|name| name == channel)) else {
            add(Kind::Foreign);
            continue;
        };
        let Some(pos) = *pos else {
            add(Kind::Position);
            continue;
        };
        if event.acked.is_some_and(|(_, acked)| acked != pos) {
            add(Kind::Position);
        }
        if !on_connection.insert((delivery.connection, pos)) {
            add(Kind::Twice);
            continue;
        }
        let is_new = seen.insert(pos);
        let before = last.entry((delivery.connection, channel)).or_insert(pos);
        let top = highest.entry(channel).or_insert(pos);
        if pos < *before || (is_new && pos < *top) {
            add(Kind::Order);
        }
        (*before, *top) = ((*before).max(pos), (*top).max(pos));
        if !is_new && client.plan.channels.len() == 1 {
            add(Kind::Repeat);
        } else if !is_new {
            found.repeats_allowed += 1;
        }
    }
}

fn check_missing(index: &Index<'_>, client: &Client<'_>, found: &mut Deliveries) {
    let received: HashSet<Pos> = client.received.iter().filter_map(|(_, pos)| *pos).collect();
    for channel in &client.plan.channels {
        let Some(since_us) = client.established.get(channel.as_str()) else { continue };
        for (key, pos) in index.acked.get(channel.as_str()).into_iter().flatten() {
            let Some(event) = index.events.get(key) else { continue };
            if event.published_us <= *since_us {
                continue;
            }
            found.expected += 1;
            if received.contains(pos) {
                continue;
            }
            let told = client.told.get(channel.as_str()).into_iter().flatten();
            if told.clone().any(|told_us| event.published_us < *told_us) {
                found.told_missing += 1;
                continue;
            }
            found.findings.push(Finding {
                kind: Kind::Missing,
                client: Some(client.plan.client),
                connection: None,
                channel: channel.clone(),
                key: (*key).to_owned(),
                pos: Some(*pos),
            });
        }
    }
}

/// What was published after another had been acked stands after it, and no two events share a position.
fn check_log(index: &Index<'_>, found: &mut Deliveries) {
    for (channel, events) in &index.acked {
        let mut earliest_ack_above = u64::MAX;
        let mut next: Option<Pos> = None;
        for (key, pos) in events.iter().rev() {
            let Some(event) = index.events.get(key) else { continue };
            let Some((acked_us, _)) = event.acked else { continue };
            let mut add = |kind| {
                let (channel, key) = ((*channel).to_owned(), (*key).to_owned());
                found.findings.push(Finding {
                    kind,
                    client: None,
                    connection: None,
                    channel,
                    key,
                    pos: Some(*pos),
                });
            };
            if next == Some(*pos) {
                add(Kind::Position);
            }
            if event.published_us > earliest_ack_above {
                add(Kind::AckOrder);
            }
            earliest_ack_above = earliest_ack_above.min(acked_us);
            next = Some(*pos);
        }
    }
}
