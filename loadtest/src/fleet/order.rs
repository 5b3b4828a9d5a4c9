//! What a fleet and its workers say to each other: a line of JSON each.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::count::Tally;
use crate::history::Receiving;

/// Connections that are alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// How they receive.
    pub transport: Receiving,
    /// How many.
    pub connections: u64,
    /// Where to: connection `i` goes to gateway `i % n`.
    pub gateways: Vec<SocketAddr>,
    /// What they follow.
    pub follow: Follow,
    /// Added to the numbers that [`Follow`] puts into names, so that groups may differ.
    pub first: u64,
    /// Between two short polls.
    pub poll_interval_ms: u64,
    /// Keep the cursor: a connection that returns goes on where it was. Polls keep theirs in any case.
    pub keeps_cursor: bool,
    /// Whether it is followed up which event came to which connection; otherwise deliveries are only counted. Event `seq`
    /// goes to target `seq % targets`.
    pub targets: Option<u64>,
}

/// What a connection asks for. `{n}` in a pattern is its number within the group, from [`Group::first`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// A pattern of channel names: `{n}`, and `{c}` for each number of `channels`.
    pub channel: Option<String>,
    /// Which numbers `{c}` stands for.
    pub channels: Channels,
    /// A pattern of a user's id.
    pub user: Option<String>,
}

/// The channels of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Channels {
    /// One: 0 for everybody.
    Shared,
    /// One: the connection's own number.
    Own,
    /// So many of so many: each connection's follow those of the one before it, all around.
    Some {
        /// Of one connection.
        each: u64,
        /// In all.
        of: u64,
    },
}

impl Follow {
    /// The numbers of a connection's channels.
    pub fn numbers(&self, connection: u64) -> Vec<u64> {
        match self.channels {
            Channels::Shared => vec![0],
            Channels::Own => vec![connection],
            Channels::Some { each, of } => (0..each)
                .map(|number| connection.wrapping_mul(each).wrapping_add(number) % of.max(1))
                .collect(),
        }
    }

    /// The query of a connection's request.
    pub(super) fn query(&self, connection: u64) -> String {
        let n = connection.to_string();
        let mut parts = Vec::new();
        if let Some(pattern) = &self.channel {
            let name = |number: u64| pattern.replace("{c}", &number.to_string()).replace("{n}", &n);
            parts.extend(
                self.numbers(connection).into_iter().map(|number| format!("channel={}", name(number))),
            );
        }
        parts.extend(self.user.as_ref().map(|pattern| format!("user={}", pattern.replace("{n}", &n))));
        parts.join("&")
    }
}

/// What a worker is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Open your part of these.
    Open(Open),
    /// Forget what was counted; from now on this is counted.
    Measure(Measure),
    /// Drop connections of a group, and open them again.
    Drop(Drop),
    /// Say what you counted, with this number.
    Collect(u64),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Open {
    pub(super) groups: Vec<Group>,
    /// Your connections are this one of `parts` [`shares`](super::share::share) of each group.
    pub(super) part: u64,
    pub(super) parts: u64,
    /// Your first source address is the one of this number.
    pub(super) source: u64,
    pub(super) ports_each: u64,
    /// Connections a second.
    pub(super) rate: f64,
    /// So many open at the same time.
    pub(super) at_once: u64,
}

/// What counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// The first slot begins then, on the shared clock.
    pub begin_us: u64,
    /// How long a slot of the time line is.
    pub slot_us: u64,
    /// Latencies are of events that were due in this window, and bytes of what came in it.
    pub window_us: (u64, u64),
}

/// A reconnect storm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Drop {
    /// Whose connections.
    pub group: usize,
    /// Microseconds that they stay away.
    pub away_us: u64,
    /// How many return in a second; all in one moment if it is 0.
    pub rate: f64,
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Said {
    /// Once a second.
    Counts(Counts),
    /// When it was asked, with that number: by group.
    Tallies(u64, Vec<Tally>),
    /// It cannot go on.
    Problem(String),
}

/// How things stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Connections that follow now.
    pub open: u64,
    /// Deliveries so far, repeats apart.
    pub received: u64,
    /// Repeats.
    pub twice: u64,
    /// Pings so far.
    pub pings: u64,
    /// Times that a server ended a connection.
    pub closed: u64,
    /// Times that a connection was refused, or did not come about.
    pub refused: u64,
    /// What the last refusal or close said.
    pub last_problem: Option<String>,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.open += other.open;
        self.received += other.received;
        self.twice += other.twice;
        self.pings += other.pings;
        self.closed += other.closed;
        self.refused += other.refused;
        self.last_problem = other.last_problem.clone().or(self.last_problem.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_the_connections_channels_and_user() {
        let follow = |channel: &str, channels, user: Option<&str>| Follow {
            channel: Some(channel.to_owned()),
            channels,
            user: user.map(str::to_owned),
        };
        assert_eq!(follow("c", Channels::Shared, None).query(7), "channel=c");
        assert_eq!(follow("c{c}", Channels::Own, Some("u{n}")).query(7), "channel=c7&user=u7");
        let some = follow("t{c}", Channels::Some { each: 3, of: 4 }, None);
        assert_eq!(some.query(1), "channel=t3&channel=t0&channel=t1");
        let none = Follow { channel: None, ..follow("", Channels::Own, Some("u{n}")) };
        assert_eq!(none.query(2), "user=u2");
    }
}
