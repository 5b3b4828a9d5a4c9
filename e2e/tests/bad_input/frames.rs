//! WebSockets: the handshake and the frames, byte by byte.

use serde_json::json;
use tidegate_e2e::http::{HttpConn, exchange, request};
use tidegate_e2e::{Follow, Follower, PATIENCE, Setup, Transport};
use tidegate_wire::ws::{Opcode, client};

use crate::Rig;

const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
const VERSION: (&str, &str) = ("sec-websocket-version", "13");
const UPGRADE: (&str, &str) = ("upgrade", "websocket");
const CONNECTION: (&str, &str) = ("connection", "Upgrade");
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A WebSocket of which every byte is ours.
async fn open(rig: &Rig) -> HttpConn {
    let mut conn = HttpConn::connect(rig.server.public()).await.expect("connects");
    let headers = [KEY, VERSION, UPGRADE, CONNECTION];
    conn.send(request("GET", "/v1/events?channel=a", &headers, "")).await.expect("sent");
    assert_eq!(conn.head().await.expect("a head").status, 101);
    conn
}

/// Sends bytes and reads to the end: the code and reason of the close frame that ended it.
async fn closed_after(rig: &Rig, bytes: &[u8]) -> (u16, String) {
    let mut conn = open(rig).await;
    conn.send(bytes).await.expect("sent");
    let heard = conn.until_closed().await;
    close_frame(&heard).unwrap_or_else(|| panic!("no close frame: {:?}", String::from_utf8_lossy(&heard)))
}

/// The last frame, if it is a close frame.
fn close_frame(bytes: &[u8]) -> Option<(u16, String)> {
    let mut rest = bytes;
    while let [first, second, tail @ ..] = rest {
        let (len, body) = match second {
            126 => (usize::from(u16::from_be_bytes([tail[0], tail[1]])), &tail[2..]),
            127 => panic!("no frame of ours is so long"),
            len => (usize::from(*len), tail),
        };
        if *first == 0x88 {
            let (code, reason) = body[..len].split_first_chunk::<2>()?;
            assert_eq!(body.len(), len, "nothing follows a close frame");
            return Some((u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).expect("UTF-8")));
        }
        rest = &body[len..];
    }
    None
}

/// Each of these frames ends its connection with this code, and is counted by its rule.
async fn violates(rig: &mut Rig, cases: &[(&str, Vec<u8>)], code: u16) {
    for (rule, bytes) in cases {
        let label = format!("rule=\"{rule}\"");
        let before = rig.server.metric("tidegate_gateway_frames_invalid_total", &[&label]).await;
        let (closed, reason) = closed_after(rig, bytes).await;
        assert_eq!(closed, code, "{rule}: {reason}");
        assert!(!reason.is_empty(), "{rule}");
        let after = rig.server.metric("tidegate_gateway_frames_invalid_total", &[&label]).await;
        assert_eq!(after, before + 1.0, "{rule} is counted");
        rig.unharmed().await;
    }
}

#[tokio::test]
async fn missing_or_short_websocket_keys() {
    let rig = Rig::start(Setup::new()).await;
    let short = ("sec-websocket-key", "c2hvcnQ=");
    let long = ("sec-websocket-key", "dGhpcyBrZXkgaXMgbG9uZ2VyIHRoYW4gc2l4dGVlbg==");
    let none = ("sec-websocket-key", "!!!!!!!!!!!!!!!!!!!!!!!!");
    let empty = ("sec-websocket-key", "");
    let base = [VERSION, UPGRADE, CONNECTION];
    let cases: [Vec<(&str, &str)>; 6] =
        [vec![], vec![short], vec![long], vec![none], vec![empty], vec![KEY, KEY]];
    for keys in cases {
        let headers = [&base[..], &keys].concat();
        let refused =
            exchange(rig.server.public(), request("GET", "/v1/events?channel=a", &headers, "")).await;
        assert_eq!((refused.status(), refused.problem().as_str()), (400, "bad_request"), "{keys:?}");
    }
    rig.end().await;
}

#[tokio::test]
async fn wrong_websocket_version() {
    let rig = Rig::start(Setup::new()).await;
    for version in [Some("12"), Some("8"), Some("14"), Some("13, 8"), Some(""), Some("x"), None] {
        let mut headers = vec![KEY, UPGRADE, CONNECTION];
        headers.extend(version.map(|version| ("sec-websocket-version", version)));
        let refused =
            exchange(rig.server.public(), request("GET", "/v1/events?channel=a", &headers, "")).await;
        assert_eq!((refused.status(), refused.problem().as_str()), (426, "upgrade_required"), "{version:?}");
        assert_eq!(refused.header("sec-websocket-version"), Some("13"));
    }
    let twice = [KEY, VERSION, VERSION, UPGRADE, CONNECTION];
    let refused = exchange(rig.server.public(), request("GET", "/v1/events?channel=a", &twice, "")).await;
    assert_eq!((refused.status(), refused.problem().as_str()), (400, "bad_request"));
    rig.end().await;
}

#[tokio::test]
async fn unmasked_frames() {
    let mut rig = Rig::start(Setup::new()).await;
    let unmasked = [0x81, 0x02, b'h', b'i'].to_vec();
    violates(&mut rig, &[("unmasked", unmasked), ("unmasked", vec![0x89, 0x00])], 1002).await;
    rig.end().await;
}

#[tokio::test]
async fn fragmented_frames() {
    let mut rig = Rig::start(Setup::new()).await;
    // Legal: a message in three parts, a ping between them, byte by byte.
    let mut client =
        Follower::open(rig.server.public(), Transport::WebSocket, &Follow::channels(["a"])).await;
    client.state().await;
    let mut conn = open(&rig).await;
    let text = br#"{"data":{"text":"h\u00e9llo"},"ref":"r"}"#;
    let mut bytes = client::encode(false, Opcode::Text, &text[..10], MASK);
    bytes.extend(client::encode(true, Opcode::Ping, b"now", MASK));
    bytes.extend(client::encode(false, Opcode::Continuation, &text[10..11], MASK));
    bytes.extend(client::encode(false, Opcode::Continuation, b"", MASK));
    bytes.extend(client::encode(true, Opcode::Continuation, &text[11..], MASK));
    for byte in bytes {
        conn.send([byte]).await.expect("sent");
    }
    conn.send(client::encode(true, Opcode::Close, &1000_u16.to_be_bytes(), MASK)).await.expect("sent");
    let heard = conn.until_closed().await;
    let shown = String::from_utf8_lossy(&heard);
    assert!(shown.contains("\u{3}now"), "the ping is answered between the fragments: {shown}");
    assert_eq!(close_frame(&heard).expect("a close frame").0, 1000);
    // The ack may come or not before the close; that the log has it can be seen by a second message's ack.
    // Illegal.
    let mut within = client::encode(false, Opcode::Text, b"a", MASK);
    within.extend(client::encode(true, Opcode::Text, b"b", MASK));
    let cases = [
        ("stray_continuation", client::encode(true, Opcode::Continuation, b"x", MASK)),
        ("interleaved_message", within),
        ("control_fragmented", client::encode(false, Opcode::Ping, b"x", MASK)),
        ("control_too_long", client::encode(true, Opcode::Ping, &[0; 126], MASK)),
        ("reserved_bits", raw(0xC1, b"x")),
        ("reserved_opcode", raw(0x83, b"x")),
        ("reserved_opcode", raw(0x8B, b"x")),
        ("close_one_byte", client::encode(true, Opcode::Close, b"x", MASK)),
        ("close_code", client::encode(true, Opcode::Close, &1005_u16.to_be_bytes(), MASK)),
        ("non_minimal_length", vec![0x81, 0xFE, 0, 1, 0, 0, 0, 0, b'x']),
    ];
    violates(&mut rig, &cases, 1002).await;
    rig.server.publish(json!({"channel": "a", "data": 1})).await;
    assert_eq!(client.event().await.json(), 1);
    rig.end().await;
}

fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    client::raw_into(first, payload, MASK, &mut bytes);
    bytes
}

#[tokio::test]
async fn oversized_frames() {
    let mut rig = Rig::start(Setup::new()).await;
    let head_only = [&[0x81, 0xFF][..], &(1_u64 << 40).to_be_bytes(), &MASK].concat();
    let just_over = [&[0x82, 0xFF][..], &65_537_u64.to_be_bytes(), &MASK].concat();
    let mut in_parts = client::encode(false, Opcode::Binary, &[0; 40_000], MASK);
    in_parts.extend(client::encode(true, Opcode::Continuation, &[0; 40_000], MASK));
    let big = "message_too_big";
    violates(&mut rig, &[(big, head_only), (big, just_over), (big, in_parts)], 1009).await;
    let top_bit = [&[0x82, 0xFF][..], &(1_u64 << 63).to_be_bytes(), &MASK].concat();
    violates(&mut rig, &[("length_top_bit", top_bit)], 1002).await;
    // The largest that is allowed is taken.
    let mut client =
        Follower::open(rig.server.public(), Transport::WebSocket, &Follow::channels(["a"])).await;
    client.state().await;
    client.say_bytes(&[7; 65_536]).await;
    assert_eq!(client.object().await.kind, "ack");
    rig.end().await;
}

#[tokio::test]
async fn non_utf8_frames() {
    let mut rig = Rig::start(Setup::new()).await;
    let split = |first: &[u8], second: &[u8]| {
        let mut bytes = client::encode(false, Opcode::Text, first, MASK);
        bytes.extend(client::encode(true, Opcode::Continuation, second, MASK));
        bytes
    };
    let of = |bytes: &[u8]| ("invalid_utf8", client::encode(true, Opcode::Text, bytes, MASK));
    let cases = [
        of(b"\xff"),
        of(b"{\"data\":\"\xc3\x28\"}"),
        of(b"\xed\xa0\x80"),
        of(b"\xf4\x90\x80\x80"),
        of(b"\xc0\x80"),
        of(b"\xe2\x82"),
        ("invalid_utf8", split(b"\xe2\x82", b"\x28")),
        ("close_reason_utf8", client::encode(true, Opcode::Close, b"\x03\xe8\xff", MASK)),
    ];
    violates(&mut rig, &cases, 1007).await;
    // A character that is split between frames is whole.
    let mut conn = open(&rig).await;
    conn.send(split(b"{\"data\":\"\xe2\x82", b"\xac\"}")).await.expect("sent");
    let heard = async {
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains("\"ack\"") {
            assert!(conn.read_more().await.expect("open"));
            heard.extend(conn.take_buffer());
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("acked");
    rig.end().await;
}

#[tokio::test]
async fn endless_fragments() {
    let mut rig = Rig::start(Setup::new()).await;
    let mut bytes = client::encode(false, Opcode::Text, b"", MASK);
    for _ in 0..2_000 {
        bytes.extend(client::encode(false, Opcode::Continuation, b"", MASK));
    }
    violates(&mut rig, &[("too_many_fragments", bytes)], 1008).await;
    // Each with a byte.
    let mut bytes = client::encode(false, Opcode::Binary, b"x", MASK);
    for _ in 0..2_000 {
        bytes.extend(client::encode(false, Opcode::Continuation, b"x", MASK));
    }
    violates(&mut rig, &[("too_many_fragments", bytes)], 1008).await;
    rig.end().await;
}
