//! Every limit on what a peer may send or make us hold, with its reason. What is configurable takes its default here.

/// Bytes of a channel name: Kafka keys and cursors stay small, and 255 is what file systems taught everyone.
pub const CHANNEL_BYTES_LIMIT: usize = 255;
/// Bytes of an event name: it stands in every SSE block.
pub const EVENT_NAME_BYTES_LIMIT: usize = 128;
/// Bytes of one event's data, and of one client message.
pub const EVENT_BYTES_LIMIT: usize = 64 * 1024;
/// Bytes of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_LIMIT: usize = 128;
/// Bytes of a cursor as text: the cursor of a connection with the most channels fits.
pub const CURSOR_BYTES_LIMIT: usize = 4096;
/// A cursor longer than this rides at most once a second, with pings and on close.
pub const CURSOR_BYTES_EVERY_FLUSH: usize = 256;
/// Channels that one connection may follow, the implicit ones apart.
pub const CHANNELS_PER_CONNECTION_LIMIT: usize = 128;
/// Nesting of JSON: no recursive reader behind us overflows its stack.
pub const JSON_DEPTH_LIMIT: usize = 64;
/// Items of one `PublishBatch`, and channels and users of one `Publish`.
pub const BATCH_ITEMS_LIMIT: usize = 1000;
/// Bytes of one request to the API port: a full batch of ordinary events, not of the largest.
pub const API_REQUEST_BYTES_LIMIT: usize = 4 * 1024 * 1024;
/// Bytes of a request's head on the public port.
pub const REQUEST_HEAD_BYTES_LIMIT: usize = 16 * 1024;
/// Header fields of a request on the public port.
pub const REQUEST_HEADERS_LIMIT: usize = 64;
/// Milliseconds in which a request's head must have arrived, and a TLS handshake be over: slow-header attacks end here.
pub const REQUEST_HEAD_TIMEOUT_MS: u64 = 10_000;
/// Bytes of TLS records that may wait for one slow socket beside its outbox: one full record.
pub const TLS_UNSENT_BYTES_LIMIT: usize = 16 * 1024;
/// Requests of one HTTP/2 socket that are open at once, each a connection to us: more than a browser's tabs, far fewer than a
/// node holds.
pub const H2_STREAMS_LIMIT: u32 = 128;
/// Requests of one HTTP/2 socket that were reset before they were looked at: rapid reset (CVE-2023-44487) ends here.
pub const H2_PENDING_RESETS_LIMIT: usize = 20;
/// Streams of one HTTP/2 socket that its client made us reset (CVE-2025-8671).
pub const H2_LOCAL_RESETS_LIMIT: usize = 128;
/// Bytes that may wait in HTTP/2 for one stream beside its outbox: what TLS may hold of a socket.
pub const H2_SEND_BYTES_LIMIT: usize = 16 * 1024;
/// Bytes that a client may send on one HTTP/2 stream, and on all of a socket, before they are read.
pub const H2_WINDOW_BYTES: u32 = 64 * 1024;
/// Frames of an HTTP/2 socket that ask for nothing (settings, pings, priorities, window updates, resets) at once.
pub const H2_CONTROL_FRAMES_BURST: u32 = 1_000;
/// Such frames a second from then on.
pub const H2_CONTROL_FRAMES_RATE: u32 = 100;
/// Bytes sent that allow one more of them: two window updates answer the smallest event, and two of our pongs not one ping.
pub const H2_BYTES_PER_CONTROL_FRAME: u32 = 64;
/// Milliseconds in which a `POST /v1/messages` body must have arrived.
pub const REQUEST_BODY_TIMEOUT_MS: u64 = 10_000;
/// Bytes that may wait for one slow socket before its policy applies.
pub const OUTBOX_BYTES_LIMIT: usize = 1024 * 1024;
/// Milliseconds that the oldest byte may wait for a slow socket before its policy applies.
pub const OUTBOX_AGE_LIMIT_MS: u64 = 30_000;
/// Milliseconds of quiet after which a connection is pinged.
pub const PING_INTERVAL_MS: u64 = 25_000;
/// Milliseconds that a WebSocket may leave a ping unanswered before it is closed.
pub const PONG_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds of unacknowledged data after which the kernel gives a socket up (`TCP_USER_TIMEOUT`).
pub const TCP_USER_TIMEOUT_MS: u64 = 30_000;
/// Longest `wait` of a long poll, in milliseconds: below the idle timeout of common proxies (60 s).
pub const POLL_WAIT_LIMIT_MS: u64 = 55_000;
/// Milliseconds in which a poll that does not wait is answered, whatever is still unknown.
pub const POLL_ANSWER_TIMEOUT_MS: u64 = 2_000;
/// Events in one poll's answer: the cursor leads on to the rest.
pub const POLL_EVENTS_LIMIT: usize = 1000;
/// Bytes of one poll's answer after which no further event is added.
pub const POLL_BYTES_LIMIT: usize = 1024 * 1024;
/// The most that `last=` may ask for in one channel.
pub const LAST_LIMIT: u32 = 1000;
/// Milliseconds that the first `state` waits for the outcome of each channel before it names the rest `pending`.
pub const STATE_GRACE_MS: u64 = 200;
/// Messages of one connection that may wait for the log's ack; the next is refused with `rate_limited`.
pub const UPSTREAM_IN_FLIGHT_LIMIT: usize = 64;
/// Fragments of one WebSocket message.
pub const FRAGMENTS_PER_MESSAGE_LIMIT: u32 = 1024;
/// Channels of short polls that one shard remembers, to answer 304 by itself; the polls of others ask the node task.
pub const POLLED_CHANNELS_LIMIT: usize = 65_536;
/// Milliseconds that a channel stays held on a node after its last subscriber left.
pub const UNWANT_LINGER_MS: u64 = 60_000;
/// Bytes that a router may have queued to one node before its tenures fall behind.
pub const STREAM_BYTES_LIMIT: usize = 8 * 1024 * 1024;
/// Bytes after which no further frame joins a message of the Deliver stream.
pub const DELIVER_BATCH_BYTES: usize = 256 * 1024;
/// Bytes of one message from a router: a batch and its last frame, which may be a History of one read.
pub const DELIVER_RESPONSE_BYTES_LIMIT: usize = 4 * 1024 * 1024;
/// Bytes of one message from a node: a Resume names all channels that it holds in a partition, 250 bytes each at worst.
pub const DELIVER_REQUEST_BYTES_LIMIT: usize = 64 * 1024 * 1024;
/// Bytes that may wait in a node for its node task, per router; the rest waits in the router.
pub const DELIVER_NODE_BYTES_LIMIT: usize = 1024 * 1024;
/// Frames for one router that may wait while it takes none; beyond, the stream is closed and a new one resumes.
pub const STREAM_WAITING_FRAMES_LIMIT: usize = 64 * 1024;
/// Questions that a router may have put to a node's Reach stream without their having left.
pub const REACH_QUEUE_LIMIT: usize = 4096;
/// Bytes of direct messages that may wait for one node; what comes then does not reach it.
pub const REACH_QUEUE_BYTES_LIMIT: usize = 8 * 1024 * 1024;
/// Questions of one message of the Reach stream.
pub const REACH_BATCH_LIMIT: usize = 128;
/// Questions that a router may have open with one node.
pub const REACH_IN_FLIGHT_LIMIT: usize = 16_384;
/// Users of one call to whom a direct message is on its way at once.
pub const DIRECT_IN_FLIGHT_LIMIT: usize = 64;
/// Milliseconds between two words of a node on which members of the registry are current about it.
pub const WORD_RENEW_MS: u64 = 500;
/// Milliseconds for which a router believes the word: then it asks the node itself.
pub const WORD_TRUST_MS: u64 = 1_500;
/// Milliseconds after a router's start in which gateways may still be about to attach.
pub const REACH_SETTLE_MS: u64 = 3_000;
/// Milliseconds in which a node answers a router's question.
pub const REACH_TIMEOUT_MS: u64 = 1_000;
/// Bytes of a node's name and of its version.
pub const NODE_NAME_BYTES_LIMIT: usize = 253;
/// Bytes of a reason that a backend gives for a disconnect: what a WebSocket close frame has room for, less the kind.
pub const DISCONNECT_REASON_BYTES_LIMIT: usize = 80;
/// Users of one page of a channel's occupants.
pub const OCCUPANTS_LIMIT: usize = 1_000;
/// Milliseconds for which an answer about a channel's occupants is used again.
pub const OCCUPANTS_CACHE_MS: u64 = 1_000;
/// Answers about occupants that are kept at once.
pub const OCCUPANTS_CACHE_LIMIT: usize = 1_024;
/// Messages of clients that may wait for one router's answer.
pub const SAY_IN_FLIGHT_LIMIT: usize = 4096;
/// Messages of clients that may wait for their router to be chosen, all connections together.
pub const UPSTREAM_ROUTE_LIMIT: usize = 16_384;
/// Control records in one answer to a node; it asks again for the rest.
pub const CONTROL_RECORDS_AT_ONCE: usize = 1000;
/// Milliseconds after which a node that has no newer word on control records holds deliveries (DESIGN, section 5).
pub const CONTROL_FRESH_MS: u64 = 4_000;
/// Milliseconds between two questions of a node for control records, to each router.
pub const CONTROL_ASK_INTERVAL_MS: u64 = 1_000;
/// Bytes of recent rows that an owner keeps for tenures that fell behind.
pub const TAIL_RING_BYTES_LIMIT: usize = 4 * 1024 * 1024;
/// Bytes of recent events of one partition that a node keeps, to answer Wants by itself: a few seconds of a busy one.
pub const NODE_RING_BYTES_LIMIT: usize = 256 * 1024;
/// Recent events of one partition that a node keeps: what an answer has to look through.
pub const NODE_RING_ROWS_LIMIT: usize = 512;
/// Rows read from the store or the log in one step of a partition task.
pub const READ_ROWS_LIMIT: usize = 256;
/// Bytes read from the store or the log in one step of a partition task.
pub const READ_BYTES_LIMIT: usize = 256 * 1024;
/// Milliseconds of record time in which an idempotency key is remembered.
pub const IDEMPOTENCY_WINDOW_MS: u64 = 120_000;
/// Offsets in which an idempotency key is remembered, so that the window's memory is bounded.
pub const IDEMPOTENCY_WINDOW_OFFSETS: u64 = 65_536;
/// Appends that may wait for the embedded log's writer, all callers together.
pub const APPEND_QUEUE_LIMIT: usize = 8192;
/// Commands that the shards may have queued to the gateway's node task.
pub const NODE_QUEUE_LIMIT: usize = 65_536;
/// Batches (of at most 256 frames) that may wait for one shard: what waits beyond that waits in the stream, by bytes.
pub const SHARD_QUEUE_LIMIT: usize = 8;
/// Free bytes on the data directory's file system below which publishes are refused.
pub const DISK_RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// Files that a process keeps free of client connections: logs, stores, listeners.
pub const RESERVED_FILES: u64 = 256;
/// Milliseconds for which a registry member believes a node after its last batch.
pub const REGISTRY_LEASE_MS: u64 = 3_000;
/// Milliseconds after which a node that announced nothing renews its lease.
pub const REGISTRY_RENEW_MS: u64 = 1_000;
/// Milliseconds for which a node trusts a member after the last batch that it sent and that was acknowledged: its word must
/// have reached every router before the member forgets it.
pub const REGISTRY_TRUST_MS: u64 = 2_000;
/// Milliseconds that an announcement may be unacknowledged before its member no longer counts as current.
pub const REGISTRY_LAG_MS: u64 = 100;
/// Milliseconds between two announcements of a user's count while it stays above 0.
pub const REGISTRY_COUNT_INTERVAL_MS: u64 = 1_000;
/// Milliseconds in which a node must have announced all that it has.
pub const REGISTRY_SNAPSHOT_TIMEOUT_MS: u64 = 30_000;
/// Milliseconds for which a subject must be nowhere before it is offline: longer than a client stays away whose node drains.
pub const OFFLINE_DEBOUNCE_MS: u64 = 40_000;
/// Milliseconds for which a poller stays present after its poll's wait.
pub const POLL_LINGER_MS: u64 = 10_000;
/// Milliseconds in which a registry member answers a lookup before its replica is asked.
pub const LOOKUP_DEADLINE_MS: u64 = 50;
/// Milliseconds for which a member that missed the deadline is asked last.
pub const LOOKUP_PENALTY_MS: u64 = 1_000;
/// Keys of one lookup.
pub const LOOKUP_KEYS_LIMIT: usize = 4096;
/// Lookups of a router that may wait for answers.
pub const LOOKUPS_IN_FLIGHT_LIMIT: usize = 4096;
/// Updates of one batch of announcements: 270 bytes each at worst.
pub const REGISTRY_BATCH_LIMIT: usize = 1000;
/// Batches that a node has on the way to one member: enough to fill a network, and what is left coalesces.
pub const REGISTRY_BATCHES_IN_FLIGHT_LIMIT: usize = 16;
/// Nodes of one registry member: far more than a cluster has, and their indexes fit 16 bits.
pub const REGISTRY_NODES_LIMIT: usize = 4096;
/// Bytes of a node's address.
pub const REGISTRY_ADDRESS_BYTES_LIMIT: usize = 256;
/// Events about nodes that a member keeps for who asks.
pub const REGISTRY_EVENTS_LIMIT: usize = 4096;
/// Rings under which a node announces at once; the oldest goes.
pub const RINGS_LIMIT: usize = 4;
/// Transitions of presence that a member has in flight; the rest is found again when there is room.
pub const TRANSITIONS_IN_FLIGHT_LIMIT: usize = 65_536;
/// Transitions of one message.
pub const TRANSITIONS_BATCH_LIMIT: usize = 1000;
/// Transitions of one registry member that may wait for the log: beyond, the member's next message waits.
pub const PRESENCE_APPENDS_IN_FLIGHT_LIMIT: usize = 1000;
/// Recent records of presence that a router keeps for all who follow them: a slower one reads the log.
pub const PRESENCE_RECENT_RECORDS_LIMIT: usize = 4096;
/// Bytes of one message to or from a registry member: a lookup of the longest keys, or a list of all nodes.
pub const REGISTRY_MESSAGE_BYTES_LIMIT: usize = 4 * 1024 * 1024;

const _: () = {
    // A node's word leaves a second before the member forgets, and a lost renewal costs nothing.
    assert!(REGISTRY_TRUST_MS + 1_000 <= REGISTRY_LEASE_MS && REGISTRY_RENEW_MS * 2 <= REGISTRY_TRUST_MS);
    assert!(REGISTRY_NODES_LIMIT < u16::MAX as usize);
    assert!(CURSOR_BYTES_EVERY_FLUSH < CURSOR_BYTES_LIMIT);
    // A cursor travels in a header or a URL: it must leave room for the rest of the head.
    assert!(CURSOR_BYTES_LIMIT * 2 < REQUEST_HEAD_BYTES_LIMIT);
    // One event always fits: into an outbox, into a poll's answer, into a stream's room.
    // A batch of questions ends with the one that makes it too large; a batch of answers may be pages of occupants only.
    assert!(
        DELIVER_BATCH_BYTES + EVENT_BYTES_LIMIT + REACH_BATCH_LIMIT * 1_024 < DELIVER_RESPONSE_BYTES_LIMIT
    );
    assert!(REACH_BATCH_LIMIT * OCCUPANTS_LIMIT * 400 < DELIVER_REQUEST_BYTES_LIMIT);
    // A call's messages fit the queue of one node, so that it does not refuse what the call itself has put.
    assert!(DIRECT_IN_FLIGHT_LIMIT * EVENT_BYTES_LIMIT < REACH_QUEUE_BYTES_LIMIT);
    // A node renews its word three times before it is doubted, and it is doubted before a member forgets it.
    assert!(WORD_RENEW_MS * 3 <= WORD_TRUST_MS && WORD_TRUST_MS < REGISTRY_LEASE_MS);
    assert!(EVENT_BYTES_LIMIT * 2 < OUTBOX_BYTES_LIMIT);
    assert!(EVENT_BYTES_LIMIT * 2 < POLL_BYTES_LIMIT);
    assert!(READ_BYTES_LIMIT < TAIL_RING_BYTES_LIMIT && TAIL_RING_BYTES_LIMIT <= STREAM_BYTES_LIMIT);
    // A node's own answer is no larger than one read of an owner.
    assert!(EVENT_BYTES_LIMIT * 2 < NODE_RING_BYTES_LIMIT && NODE_RING_BYTES_LIMIT <= READ_BYTES_LIMIT);
    // A batch with a History as its last frame fits, and so does the largest event.
    assert!(2 * (DELIVER_BATCH_BYTES + READ_BYTES_LIMIT + EVENT_BYTES_LIMIT) < DELIVER_RESPONSE_BYTES_LIMIT);
    // A node that misses two answers of every router still delivers.
    assert!(CONTROL_FRESH_MS >= 3 * CONTROL_ASK_INTERVAL_MS);
    // Answers to pings (17 bytes) and settings (9) do not earn the next one.
    assert!(H2_BYTES_PER_CONTROL_FRAME > 2 * 17);
    // A ping leaves before a proxy's usual 60 s and is answered before the next.
    assert!(PING_INTERVAL_MS + PONG_TIMEOUT_MS < 60_000 && PONG_TIMEOUT_MS < PING_INTERVAL_MS);
};
