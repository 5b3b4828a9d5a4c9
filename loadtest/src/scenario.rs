//! Scenario files: who connects, what is published, and what happens on the way.
//!
//! **Owns** the format and the shipped scenarios, which are files too (`loadtest/scenarios/`) and are built in. A mistake is
//! named with its line. **Does not** run anything.

mod shipped;

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::fleet::{Channels, Follow};
use crate::history::Receiving;

pub use shipped::{SHIPPED, Shipped};

/// What a file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// One line: what it is like.
    pub about: String,
    /// How long events are published and measured, the warm-up apart.
    pub seconds: u64,
    /// Seconds before that which are not counted.
    #[serde(default = "warm_up_seconds")]
    pub warm_up_seconds: u64,
    /// Connections that are opened in a second.
    #[serde(default = "ramp_rate")]
    pub ramp_rate: f64,
    /// What connections follow.
    pub channels: Shape,
    /// The connections: one group for each `[[clients]]`.
    pub clients: Vec<Clients>,
    /// What is published.
    pub publish: Publish,
    /// Connections that are dropped on the way, and come back with their cursors.
    pub storm: Option<Storm>,
}

fn warm_up_seconds() -> u64 {
    2
}

fn ramp_rate() -> f64 {
    1_000.0
}

fn poll_interval_ms() -> u64 {
    1_000
}

/// What each connection follows, and where events go, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "shape", rename_all = "lowercase", deny_unknown_fields)]
pub enum Shape {
    /// One channel, which everyone follows.
    Shared,
    /// Each connection follows a channel of its own.
    Own,
    /// Each follows some of a number of channels.
    Some {
        /// So many each.
        follow: u64,
        /// In all.
        of: u64,
    },
    /// Each is a user of its own and follows nothing else; events go to users.
    User,
}

/// Connections that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// How they receive: ws, sse, ndjson, `long_poll`, `short_poll`.
    pub transport: Receiving,
    /// How many.
    pub connections: u64,
    /// What they are called in the report; otherwise as the transport.
    pub name: Option<String>,
    /// Between two short polls.
    #[serde(default = "poll_interval_ms")]
    pub poll_interval_ms: u64,
}

/// What is published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Events a second, over all channels or users.
    pub rate: f64,
    /// Bytes of each event's data.
    pub bytes: usize,
    /// What is promised of them.
    #[serde(rename = "as", default)]
    pub kind: Kind,
}

/// What is promised of an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Through the log: nothing is lost.
    #[default]
    Durable,
    /// Past the log, in order, at most once.
    Ephemeral,
    /// To a user, now, in one hop, at most once.
    Direct,
}

/// A reconnect storm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// The name of the clients that are dropped.
    pub clients: String,
    /// When, counted from the end of the warm-up.
    pub at_second: u64,
    /// How long they stay away.
    pub away_ms: u64,
    /// How many come back in a second; 0: all at once.
    #[serde(default)]
    pub return_rate: f64,
}

impl Scenario {
    /// Finds a shipped one by its name, or reads a file; the text with it.
    ///
    /// # Errors
    /// When there is neither, or it is not valid: what is wrong and on which line.
    pub fn find(name: &str) -> anyhow::Result<(Self, String)> {
        let shipped = SHIPPED.iter().find(|shipped| shipped.name == name);
        let text = match shipped {
            Some(shipped) => shipped.text.to_owned(),
            None if Path::new(name).extension().is_some() || name.contains('/') => {
                std::fs::read_to_string(name).with_context(|| format!("cannot read the scenario {name}"))?
            }
            None => {
                let names: Vec<_> = SHIPPED.iter().map(|shipped| shipped.name).collect();
                bail!(
                    "no scenario is called {name}: there are {}; or name a file that ends with .toml",
                    names.join(", ")
                )
            }
        };
        Ok((Self::parse(&text).with_context(|| format!("scenario {name}"))?, text))
    }

    /// Reads and checks it.
    ///
    /// # Errors
    /// What is wrong, and on which line.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let scenario: Self =
            toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.to_string().trim_end()))?;
        scenario.wrong().map_err(|Wrong { section, nth, key, what }| {
            match line_of(text, section, nth, key) {
                Some(line) => anyhow::anyhow!("line {line}: {key}: {what}"),
                None => anyhow::anyhow!("{key}: {what}"),
            }
        })?;
        Ok(scenario)
    }

    /// Checks it again after it was changed.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> anyhow::Result<()> {
        self.wrong().map_err(|Wrong { key, what, .. }| anyhow::anyhow!("{key}: {what}"))
    }

    fn wrong(&self) -> Result<(), Wrong> {
        let in_range = |section, nth, key, value: f64, least: f64, most: f64| {
            let what = format!("{value} is not from {least} to {most}");
            if (least..=most).contains(&value) { Ok(()) } else { Err(Wrong { section, nth, key, what }) }
        };
        in_range("", 0, "seconds", self.seconds as f64, 1.0, 3_600.0)?;
        in_range("", 0, "warm_up_seconds", self.warm_up_seconds as f64, 0.0, 600.0)?;
        in_range("", 0, "ramp_rate", self.ramp_rate, 1.0, 1_000_000.0)?;
        in_range("publish", 0, "rate", self.publish.rate, 0.01, 20_000.0)?;
        in_range("publish", 0, "bytes", self.publish.bytes as f64, 32.0, 32_768.0)?;
        if let Shape::Some { follow, of } = self.channels {
            in_range("channels", 0, "of", of as f64, 1.0, 1_000_000.0)?;
            in_range("channels", 0, "follow", follow as f64, 1.0, of.min(128) as f64)?;
        }
        for (nth, clients) in self.clients.iter().enumerate() {
            in_range("clients", nth, "connections", clients.connections as f64, 1.0, 10_000_000.0)?;
            in_range("clients", nth, "poll_interval_ms", clients.poll_interval_ms as f64, 10.0, 600_000.0)?;
        }
        if self.clients.is_empty() {
            return wrong("", "clients", "nobody connects: write a [[clients]]");
        }
        if self.publish.kind == Kind::Direct && self.channels != Shape::User {
            return wrong(
                "publish",
                "as",
                "direct events go to users: set shape = \"user\" under [channels]",
            );
        }
        if self.publish.kind == Kind::Ephemeral && self.channels == Shape::User {
            return wrong("publish", "as", "events for users are \"durable\" or \"direct\"");
        }
        let Some(storm) = &self.storm else { return Ok(()) };
        in_range("storm", 0, "at_second", storm.at_second as f64, 0.0, self.seconds as f64)?;
        in_range("storm", 0, "away_ms", storm.away_ms as f64, 0.0, 600_000.0)?;
        in_range("storm", 0, "return_rate", storm.return_rate, 0.0, 1_000_000.0)?;
        if !self.clients.iter().any(|clients| clients.name() == storm.clients) {
            let names: Vec<_> = self.clients.iter().map(Clients::name).collect();
            return wrong(
                "storm",
                "clients",
                &format!("no [[clients]] are called so: there are {}", names.join(", ")),
            );
        }
        Ok(())
    }

    /// All connections.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.clients.iter().map(|clients| clients.connections).sum()
    }

    /// How many channels or users events go to, in turn.
    #[must_use]
    pub fn targets(&self) -> u64 {
        match self.channels {
            Shape::Shared => 1,
            Shape::Own | Shape::User => self.connections(),
            Shape::Some { of, .. } => of,
        }
    }

    /// What connections follow, in names that begin with this.
    #[must_use]
    pub fn follow(&self, prefix: &str) -> Follow {
        let channel = Some(format!("{prefix}:{{c}}"));
        match self.channels {
            Shape::Shared => Follow { channel, channels: Channels::Shared, user: None },
            Shape::Own => Follow { channel, channels: Channels::Own, user: None },
            Shape::Some { follow, of } => {
                Follow { channel, channels: Channels::Some { each: follow, of }, user: None }
            }
            Shape::User => {
                Follow { channel: None, channels: Channels::Own, user: Some(format!("{prefix}-{{n}}")) }
            }
        }
    }

    /// The same with so many times the connections, at least one of each kind.
    ///
    /// # Errors
    /// When the factor is none.
    pub fn scaled(mut self, factor: f64) -> anyhow::Result<Self> {
        ensure!(factor.is_finite() && factor > 0.0, "a factor of {factor}");
        for clients in &mut self.clients {
            clients.connections = ((clients.connections as f64 * factor).round() as u64).max(1);
        }
        Ok(self)
    }
}

impl Clients {
    /// What they are called.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.transport.as_str())
    }
}

/// A value that makes no sense, and where it stands.
struct Wrong {
    section: &'static str,
    /// Of several sections of this name.
    nth: usize,
    key: &'static str,
    what: String,
}

fn wrong(section: &'static str, key: &'static str, what: &str) -> Result<(), Wrong> {
    Err(Wrong { section, nth: 0, key, what: what.to_owned() })
}

/// The line on which a key stands.
fn line_of(text: &str, section: &str, nth: usize, key: &str) -> Option<usize> {
    let (mut current, mut seen) = (String::new(), 0);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            line.trim_matches(['[', ']']).clone_into(&mut current);
            seen += usize::from(current == section);
        } else if current == section
            && (section.is_empty() || seen == nth + 1)
            && line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
        {
            return Some(number + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests;
