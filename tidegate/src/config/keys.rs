//! The table of all settings: name, type, default, default in `dev` and what it means.
//!
//! The raw configuration, its defaults, `check-config --defaults` and `docs/configuration.md` all come from here.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_gateway::SlowPolicy;

use crate::config::source::Reader;
use crate::config::value::{LogFormat, Ordinal, SecretText, Setting, Size};

/// A section of the configuration, as the documentation shows it.
pub(crate) struct Section {
    /// The name: a TOML table.
    pub(crate) name: &'static str,
    /// What it is about.
    pub(crate) doc: &'static str,
    /// Its keys, in order.
    pub(crate) keys: &'static [Key],
}

/// One key of a section.
pub(crate) struct Key {
    /// The name within its section.
    pub(crate) name: &'static str,
    /// What it means.
    pub(crate) doc: &'static str,
    /// What a value looks like.
    pub(crate) form: &'static str,
    /// The default as TOML.
    pub(crate) default: &'static str,
    /// The default in `tidegate dev` as TOML, where it is another one.
    pub(crate) dev_default: Option<&'static str>,
    /// True when the value is shown to nobody.
    pub(crate) is_secret: bool,
}

macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:literal $(, dev $dev:literal)?;)+
        }
    )+) => {
        /// Every section with fixed keys. `[namespaces.<name>]` is apart: see [`NAMESPACE`].
        pub(crate) static SECTIONS: &[Section] = &[$(
            Section {
                name: stringify!($section),
                doc: concat!($($section_doc),+),
                keys: &[$(Key {
                    name: stringify!($key),
                    doc: concat!($($doc),+),
                    form: <$type as Setting>::FORM,
                    default: $default,
                    dev_default: settings!(@option $($dev)?),
                    is_secret: <$type as Setting>::SECRET,
                },)+],
            },
        )+];

        $(
            $(#[doc = $section_doc])+
            #[derive(Debug)]
            pub(crate) struct $Section { $($(#[doc = $doc])+ pub(crate) $key: $type,)+ }
        )+

        /// The configuration as it was written, with every default filled in and nothing checked but its types.
        #[derive(Debug)]
        pub(crate) struct Raw {
            $($(#[doc = $section_doc])+ pub(crate) $section: $Section,)+
            /// Channel namespaces with a retention of their own.
            pub(crate) namespaces: Vec<(String, Namespace)>,
        }

        impl Raw {
            /// Reads every key; what cannot be read is noted in the reader, and the default stands in for it.
            pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
                Self {
                    $($section: $Section { $($key: reader.get(stringify!($section), stringify!($key)),)+ },)+
                    namespaces: reader.namespaces(),
                }
            }
        }
    };
    (@option) => { None };
    (@option $dev:literal) => { Some($dev) };
}

settings! {
    /// Addresses, threads and the page.
    server: Server {
        /// Where clients connect. Port 0 takes a free one.
        public: SocketAddr = r#""127.0.0.1:8000""#;
        /// Where backends publish: gRPC and its JSON twin. Binds loopback only as long as there are no API keys.
        api: SocketAddr = r#""127.0.0.1:8001""#;
        /// Health and metrics. Keep it away from the internet.
        admin: SocketAddr = r#""127.0.0.1:8002""#;
        /// What operators call this process, at most 255 bytes; empty is the host's name.
        name: String = r#""""#;
        /// Threads that hold connections; 0 is one for each core.
        shards: u32 = "0";
        /// Serve the demonstration page at `/`. The client library `/tidegate.js` is served always.
        demo_page: bool = "false", dev "true";
    }
    /// TLS on the public port. Without these files it speaks plain HTTP, for a proxy in front of it.
    tls: TlsKeys {
        /// PEM file with the certificate chain, the server's own first. Looked at every second: a new one that loads and
        /// has its key beside it is in force for new connections, and none is dropped; anything else is refused and logged.
        cert_file: String = r#""""#;
        /// PEM file with the private key, without a passphrase.
        key_file: String = r#""""#;
    }
    /// What one connection, and all of them, may use.
    limits: Limits {
        /// Connections beyond which new ones are refused. The limit of open files lowers it further.
        connections: u32 = "1000000";
        /// Channels that one connection may name, 1 to 128.
        channels: u32 = "128";
        /// Bytes of one client message, at most 64KiB.
        message_size: Size = r#""64KiB""#;
        /// Bytes that may wait for one slow socket before it is disconnected, resumably.
        outbox_size: Size = r#""1MiB""#;
        /// Time that the oldest byte may wait for a slow socket before it is disconnected, resumably.
        outbox_age: Duration = r#""30s""#;
        /// What becomes of a channel's events for a client that reads too slowly: it is disconnected, or only the latest waits
        /// (`conflate`), or the oldest go (`drop_oldest`); a `gap` tells of what went. A namespace may differ: see
        /// `[namespaces.<name>]`. Events for one user, and for all, always disconnect.
        slow_consumers: SlowPolicy = r#""disconnect""#;
        /// Sockets accepted a second by each of `server.shards`: whoever is connected already should hardly notice that everybody
        /// else comes back at once. More wait in the listen queue. A proxy that opens a connection for each request needs more;
        /// TLS handshakes cost more. 0 for no limit.
        accept_rate: u32 = "500";
        /// Open sockets of one address, or of one IPv6 /64; 0 for no limit. Behind a proxy that address is the proxy's.
        connections_per_address: u32 = "0";
        /// Open connections of one user on one gateway; 0 for no limit.
        connections_per_user: u32 = "1000";
        /// Memory against which the overload ladder is measured: at 75 % slow clients may have a quarter of `outbox_size`, at 85 %
        /// only who has a cursor is let in, at 92 % nobody, at 95 % clients that do not read are closed. 0 takes the control
        /// group's limit, and without one there is no ladder.
        memory: Size = r#""0""#;
        /// Quiet time after which a connection is pinged. Proxies commonly cut at 60 s.
        ping_interval: Duration = r#""25s""#;
        /// The `retry:` of Server-Sent Events: how long a browser waits before it comes back.
        sse_retry: Duration = r#""2s""#;
        /// Time in which a request's head must have arrived, and before it a TLS handshake be over.
        head_timeout: Duration = r#""10s""#;
    }
    /// Who may connect.
    auth: Auth {
        /// Key of HS256 tokens, at least 32 bytes. Better set by a file or the environment than in this file.
        hmac_secret: SecretText = r#""""#;
        /// File with the key of HS256 tokens; a line break at its end does not count.
        hmac_secret_file: String = r#""""#;
        /// The `iss` that every token must have; empty asks for none.
        issuer: String = r#""""#;
        /// The `aud` that every token must have; empty asks for none.
        audience: String = r#""""#;
        /// Let connections without a token in, without a user.
        anonymous: bool = "false", dev "true";
        /// Believe `?user=NAME` without any proof. Refused on an address that is not loopback, unless `--i-know`.
        insecure: bool = "false", dev "true";
    }
    /// Web pages of other origins.
    cors: Cors {
        /// Origins of web pages that may connect: `scheme://host[:port]`, where `:*` is any port. Where no token is
        /// needed, this server answers only to their hosts, to addresses and to `localhost`: no page can read events
        /// by giving this server a name of its own.
        allowed_origins: Vec<String> = "[]", dev r#"["http://localhost:*", "http://127.0.0.1:*"]"#;
    }
    /// What is kept for those who come back, per channel. A namespace may differ: see `[namespaces.<name>]`.
    history: History {
        /// Events kept per channel; 0 keeps none.
        rows: u32 = "100";
        /// How long they are kept, at most `log.retention_events`.
        age: Duration = r#""1h""#;
    }
    /// What is kept for each user: the channels `user:<id>`, so the `user` namespace.
    inbox: Inbox {
        /// Events kept per user.
        rows: u32 = "1000";
        /// How long they are kept, at most `log.retention_inbox`.
        age: Duration = r#""7d""#;
    }
    /// The event log.
    log: Log {
        /// Partitions of each topic but `control`, `dead` and `presence`, which have one; 1 to 1024. Fixed once there is a log: another number is refused.
        partitions: u32 = "64", dev "8";
        /// How long the topic `events` keeps its records.
        retention_events: Duration = r#""24h""#;
        /// How long the topic `inbox` keeps its records.
        retention_inbox: Duration = r#""7d""#;
        /// How long the topic `upstream` keeps its records.
        retention_upstream: Duration = r#""24h""#;
        /// How long the topic `control` keeps revocations: at least as long as a token lives.
        retention_control: Duration = r#""30d""#;
        /// How long the topic `dead` keeps the records that nobody could read.
        retention_dead: Duration = r#""7d""#;
        /// How long the log of `tidegate dev` keeps what was said of presence: longer than anybody stays online, or that is
        /// said again after a restart. In Kafka the topic `presence` is compacted instead, and this means nothing.
        retention_presence: Duration = r#""90d""#;
        /// Changing it answers every cursor given so far with `lost: epoch`. For use after restoring an old backup.
        epoch_salt: String = r#""""#;
        /// Free space on the data directory's file system below which publishes are refused, at least 64MiB.
        disk_reserve: Size = r#""64MiB""#;
    }
    /// Kafka, which is the log of the separate roles. Only routers speak it; `tidegate dev` has a log of its own.
    kafka: Kafka {
        /// Brokers to begin with: `host:port`.
        bootstrap: Vec<String> = "[]";
        /// What the names of the topics begin with: `<prefix>events`, `<prefix>inbox`, `<prefix>upstream`, `<prefix>control`, `<prefix>dead`,
        /// `<prefix>presence`.
        topic_prefix: String = r#""tidegate.""#;
        /// What the names of the consumer groups begin with by which Kafka assigns partitions to routers: `<group>-events`,
        /// `<group>-inbox`.
        group: String = r#""tidegate-routers""#;
        /// Copies of each partition that `tidegate topics apply` asks for; 1 only where loss is no harm.
        replication: u32 = "3";
        /// Copies that must have a record before it is acked, at most `replication`.
        min_insync: u32 = "2";
        /// Further properties of librdkafka, `name=value`. What Tidegate relies on cannot be changed.
        properties: Vec<String> = "[]";
    }
    /// The processes of one cluster among themselves.
    cluster: Cluster {
        /// Routers as `host:port` of their `cluster.listen`. A name with several addresses stands for all of them, and is
        /// looked up every second.
        routers: Vec<String> = "[]";
        /// Where a router serves gateways and other routers. Keep it away from the internet.
        listen: SocketAddr = r#""127.0.0.1:8003""#;
        /// What stands in this router's takeover records for people to read; empty is `cluster.listen`.
        advertise: String = r#""""#;
        /// What gateways and routers show each other, at least 16 characters; empty asks for none, and then
        /// `cluster.listen` binds loopback only, unless `--i-know`.
        key: SecretText = r#""""#;
    }
    /// The registry: where users are, who is present, who comes and goes. Without members there is none: every node is asked
    /// for a user, and nobody says who comes and goes. `tidegate dev` has a member of its own and needs nothing here.
    registry: RegistryKeys {
        /// All members as `host:port` of their `registry.listen`, the same list in the same order for every process. A
        /// member's `registry.id` is its place in the list, from 0. For lists that never change: see `members_file`.
        members: Vec<String> = "[]";
        /// TOML file with the members, instead of `members`: `version = 1`, and for each member `[[members]]` with `id = 0`,
        /// `address = "host:port"` and `weight = 1` (1 to 16, its share of users). Looked at every second: a list of a higher
        /// version is in force without a restart, anything else is refused and logged.
        members_file: String = r#""""#;
        /// Where a member serves gateways and routers. Keep it away from the internet.
        listen: SocketAddr = r#""127.0.0.1:8004""#;
        /// Which member of the list this process is; `auto` is the number behind the last `-` of the host's name, as a
        /// StatefulSet names its pods.
        id: Ordinal = r#""auto""#;
        /// For how long a user must be gone before it is offline, and a channel before it is vacated: longer than a client stays
        /// away whose node drains (`drain.retry_window`).
        debounce: Duration = r#""40s""#, dev r#""4s""#;
    }
    /// Of which channels it is known who is there. Of users it always is. A namespace may differ: see
    /// `[namespaces.<name>]`.
    presence: PresenceKeys {
        /// Nodes announce how many connections follow each channel.
        channels: bool = "false", dev "true";
    }
    /// The embedded stores of log and history.
    store: Store {
        /// The data directory; empty is `$XDG_DATA_HOME/tidegate/dev`, or `~/.local/share/tidegate/dev`.
        data_dir: String = r#""""#;
        /// Memory for blocks read from disk, half for the log and half for the history.
        cache_size: Size = r#""32MiB""#;
    }
    /// What happens on SIGTERM: not ready, wait, then close all connections over the window.
    drain: Drain {
        /// Time between not being ready and closing the first connection, for load balancers to notice.
        wait: Duration = r#""10s""#, dev r#""0s""#;
        /// Time over which all connections are closed, in even slices.
        window: Duration = r#""60s""#, dev r#""2s""#;
        /// Each client is told to come back within this time, at random.
        retry_window: Duration = r#""30s""#, dev r#""2s""#;
    }
    /// Who may publish.
    api: Api {
        /// Keys of which backends show one: `authorization: Bearer KEY`. Each has at least 16 characters.
        keys: Vec<SecretText> = "[]";
    }
    /// Where spans of traced publishes go.
    telemetry: Telemetry {
        /// A collector's OTLP endpoint over gRPC, such as `http://collector:4317`; empty exports nothing. Only publishes whose
        /// caller records its trace (`traceparent` with the sampled flag) have spans.
        otlp_endpoint: String = r#""""#;
    }
    /// What goes to standard error.
    logging: Logging {
        /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,tidegate_gateway=debug`.
        level: String = r#""info""#;
        /// `auto` is text on a terminal and JSON elsewhere.
        format: LogFormat = r#""auto""#;
    }
}

/// What holds for the channels `<name>:…`; what is not set is as in `[history]`, `[presence]` and `[limits]`.
#[derive(Debug, Default)]
pub(crate) struct Namespace {
    /// As `history.rows`.
    pub(crate) history_rows: Option<u32>,
    /// As `history.age`.
    pub(crate) history_age: Option<Duration>,
    /// As `presence.channels`.
    pub(crate) presence: Option<bool>,
    /// As `limits.slow_consumers`.
    pub(crate) slow_consumers: Option<SlowPolicy>,
}

/// The keys of `[namespaces.<name>]`.
pub(crate) static NAMESPACE: Section = Section {
    name: "namespaces.<name>",
    doc: " What holds for the channels `<name>:…`. For any number of names; what is not set is as in `[history]`, `[presence]` \
          and `[limits]`.",
    keys: &[
        Key {
            name: "history_rows",
            doc: " Events kept per channel of this namespace; 0 keeps none.",
            form: <u32 as Setting>::FORM,
            default: "as history.rows",
            dev_default: None,
            is_secret: false,
        },
        Key {
            name: "history_age",
            doc: " How long they are kept, at most `log.retention_events`.",
            form: <Duration as Setting>::FORM,
            default: "as history.age",
            dev_default: None,
            is_secret: false,
        },
        Key {
            name: "presence",
            doc: " Nodes announce how many connections follow each channel of this namespace.",
            form: <bool as Setting>::FORM,
            default: "as presence.channels",
            dev_default: None,
            is_secret: false,
        },
        Key {
            name: "slow_consumers",
            doc: " What becomes of its events for a client that reads too slowly.",
            form: <SlowPolicy as Setting>::FORM,
            default: "as limits.slow_consumers",
            dev_default: None,
            is_secret: false,
        },
    ],
};
