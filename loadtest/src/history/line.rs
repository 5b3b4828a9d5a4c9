//! The lines of a history.

use serde::{Deserialize, Serialize};

/// How a subscriber receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Receiving {
    /// WebSocket.
    Ws,
    /// Server-Sent Events.
    Sse,
    /// HTTP streaming, one JSON object a line.
    Ndjson,
    /// Polls that wait.
    LongPoll,
    /// Polls that do not.
    ShortPoll,
}

impl Receiving {
    /// All five.
    pub const ALL: [Self; 5] = [Self::Ws, Self::Sse, Self::Ndjson, Self::LongPoll, Self::ShortPoll];

    /// The name in histories.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::LongPoll => "long_poll",
            Self::ShortPoll => "short_poll",
        }
    }
}

/// `run.json`: what was meant to happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// A name of its own; channels and keys begin with it.
    pub run: String,
    /// How long events were published.
    pub seconds: u64,
    /// Events a second that were aimed at.
    pub rate: u64,
    /// Partitions of the log.
    pub partitions: u32,
    /// Channels that were published to.
    pub channels: Vec<String>,
    /// Every subscriber, also one that never got through.
    pub clients: Vec<ClientPlan>,
    /// The processes.
    pub cluster: Cluster,
}

/// The processes by name; one process may be both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Those that clients connect to.
    pub gateways: Vec<String>,
    /// Those that own partitions.
    pub routers: Vec<String>,
}

/// One subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientPlan {
    /// Its number.
    pub client: u32,
    /// How it receives.
    pub transport: Receiving,
    /// What it follows.
    pub channels: Vec<String>,
}

/// A line of `publishes.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields of one line mean what those of the others do")]
pub enum PublishLine {
    /// A publish is about to be sent; an unanswered one comes again with its key and the next `attempt`.
    Publish { t_us: u64, key: String, channel: String, seq: u64, attempt: u32, router: String },
    /// The cluster said that it has the event.
    Ack { t_us: u64, key: String, channel: String, seq: u64, pos: String },
    /// The cluster said that it will never take the event.
    Refused { t_us: u64, key: String, channel: String, seq: u64, status: u16, detail: String },
    /// The end of the file.
    End { lines: u64 },
}

/// An event as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// When it was read from the socket.
    pub t_us: u64,
    /// The subscriber.
    pub client: u32,
    /// The subscriber's how-manieth connection; for polls, one chain of answered requests.
    pub connection: u32,
    /// The event's channel.
    pub channel: String,
    /// The event's key, from its data.
    pub key: String,
    /// Its position as text; empty if there was none.
    pub pos: String,
    /// The cursor that came with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A line of `clients.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields of one line mean what those of the others do")]
pub enum ClientLine {
    /// A connection is about to be opened, with the cursor that goes with it.
    Connect {
        t_us: u64,
        client: u32,
        connection: u32,
        transport: Receiving,
        gateway: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    },
    /// A `state`, or what a poll's answer says of the kind.
    State {
        t_us: u64,
        client: u32,
        connection: u32,
        cursor: String,
        recovered: Vec<String>,
        fresh: Vec<String>,
        /// Channels of which something is gone.
        lost: Vec<String>,
        pending: Vec<String>,
    },
    /// An event.
    Event(Delivery),
    /// Events of a live channel are gone, it was said.
    Gap { t_us: u64, client: u32, connection: u32, channel: String, reason: String },
    /// The gateway said that it closes.
    Close { t_us: u64, client: u32, connection: u32, code: u64, reason: String },
    /// The connection is over, or never was.
    Cut { t_us: u64, client: u32, connection: u32, reason: String },
    /// The end of the file.
    End { lines: u64 },
}

/// What can be done to a process: the words of `deploy/local/node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// SIGKILL.
    Kill,
    /// SIGTERM, and wait until it is gone.
    Term,
    /// Start it again, and wait until it listens.
    Start,
}

impl Action {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Term => "term",
            Self::Start => "start",
        }
    }
}

/// A line of `faults.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields of one line mean what those of the others do")]
pub enum FaultLine {
    /// Something was done to a process.
    Fault {
        /// When it began.
        t_us: u64,
        /// When it was done: for a start, when the process listened.
        done_us: u64,
        action: Action,
        node: String,
        /// Partitions that the process served before, if it said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        serving: Option<u64>,
    },
    /// The end of the file.
    End { lines: u64 },
}

/// A line of `samples.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SampleLine {
    /// What one process's metrics said.
    Sample(Sample),
    /// The end of the file, and the lines before it.
    End {
        /// How many.
        lines: u64,
    },
}

/// One process's metrics at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub t_us: u64,
    /// Which process.
    pub node: String,
    /// `tidegate_router_pushes_total`.
    pub pushes: u64,
    /// `tidegate_router_events_wanted_total`.
    pub wanted: u64,
    /// `tidegate_router_partitions_serving`.
    pub serving: u64,
    /// `tidegate_gateway_connections`, all transports.
    pub connections: u64,
}
