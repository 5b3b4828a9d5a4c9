use bytes::Bytes;
use proptest::prelude::*;
use tidegate_vocab::{EventName, Offset, Topic};

use super::*;
use crate::sse;

const PARTITION: PartitionId = PartitionId { topic: Topic::Events, number: 3 };
const EPOCH: LogEpoch = LogEpoch(0xabc);

fn event(name: &str, payload: Payload, offset: Option<u64>) -> Event {
    Event {
        channel: Channel::parse("score:42").expect("valid"),
        name: EventName::parse(name).expect("valid"),
        payload,
        time_ms: 1_700_000_000_123,
        offset: offset.map(Offset),
        expires_ms: None,
        trace: None,
    }
}

fn framed(framing: Framing, event: &Event, cursor: Option<&str>) -> String {
    let body = event_body(event, PARTITION, EPOCH);
    let mut out = Vec::new();
    frame_event(framing, event.name.as_str(), &body, cursor, &mut out);
    String::from_utf8(out).expect("utf-8 after the head")
}

#[test]
fn an_event_on_each_transport() {
    let goal = event("goal", Payload::Json(Bytes::from_static(b"{\"by\":\"7\"}")), Some(42));
    let body = "{\"type\":\"event\",\"channel\":\"score:42\",\"event\":\"goal\",\"data\":{\"by\":\"7\"},\
                \"time\":1700000000123,\"pos\":\"0000000000000abc.3.42\"";
    assert_eq!(
        framed(Framing::Ndjson { chunked: false }, &goal, Some("C")),
        format!("{body},\"id\":\"C\"}}\n")
    );
    assert_eq!(framed(Framing::Ndjson { chunked: false }, &goal, None), format!("{body}}}\n"));
    assert_eq!(
        framed(Framing::Sse { chunked: false }, &goal, Some("C")),
        format!("event: goal\nid: C\ndata: {body}}}\n\n")
    );
    let chunk = format!("event: goal\ndata: {body}}}\n\n");
    let expected = format!("{:x}\r\n{chunk}\r\n", chunk.len());
    assert_eq!(framed(Framing::Sse { chunked: true }, &goal, None), expected);
}

#[test]
fn ephemeral_events_have_neither_pos_nor_id_and_binary_data_is_base64() {
    let typing = event("message", Payload::Binary(Bytes::from_static(&[0, 255])), None);
    let line = framed(Framing::Ndjson { chunked: false }, &typing, None);
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(value["data_b64"], "AP8=");
    assert!(value.get("pos").is_none() && value.get("id").is_none() && value.get("data").is_none());
    assert_eq!(value["event"], "message");
}

#[test]
fn objects_are_json() {
    let a = Channel::parse("a").expect("valid");
    let told = Told {
        recovered: vec![a.clone()],
        lost: vec![(a.clone(), "epoch")],
        fresh: vec![],
        pending: vec![a.clone()],
    };
    for object in [
        state_object("C", &told),
        poll_answer([&b"{\"type\":\"event\""[..], b"{\"x\":1"], "C", &told),
        gap_object(&a, "expired"),
        close_object(1012, "draining", None, Some(5)),
        close_object(4401, "unauthorized", None, None),
        close_object(4410, "disconnected", Some("say \"bye\""), None),
        ack_object(Some("\"r1\""), 3, &Position::new(EPOCH, PARTITION, Offset(1))),
        nack_object(None, 4, b"{}"),
    ] {
        serde_json::from_slice::<serde_json::Value>(&object).expect("valid JSON");
    }
}

proptest! {
    /// What SSE clients decode is the object, whatever the data, and the lengths written ahead are exact.
    #[test]
    fn sse_blocks_read_back(text in "\\PC*|[\\n\\r\u{2028}\":]{0,9}", name in "[a-z]{1,9}|message", cursor in proptest::option::of("[A-Za-z0-9_-]{1,40}")) {
        let json = serde_json::to_vec(&text).expect("JSON");
        let event = event(&name, Payload::Json(json.into()), Some(1));
        let text = framed(Framing::Sse { chunked: false }, &event, cursor.as_deref());
        let mut blocks = Vec::new();
        sse::Parser::new().feed(text.as_bytes(), &mut |item| if let sse::Item::Block(block) = item { blocks.push(block) }).expect("short");
        prop_assert_eq!(blocks.len(), 1);
        let value: serde_json::Value = serde_json::from_str(blocks[0].data.as_deref().expect("data")).expect("JSON");
        prop_assert_eq!(&value["event"], &serde_json::json!(name));
    }

    #[test]
    fn chunks_read_back(chunked_sse in any::<bool>(), data in proptest::collection::vec(any::<u8>(), 0..300), cursor in proptest::option::of("[a-z]{1,40}")) {
        let event = event("x", Payload::Binary(data.into()), Some(1));
        let (with, without) = if chunked_sse {
            (Framing::Sse { chunked: true }, Framing::Sse { chunked: false })
        } else {
            (Framing::Ndjson { chunked: true }, Framing::Ndjson { chunked: false })
        };
        let mut plain = Vec::new();
        chunked::Decoder::new().feed(framed(with, &event, cursor.as_deref()).as_bytes(), &mut plain).expect("a whole chunk");
        prop_assert_eq!(String::from_utf8(plain).expect("utf-8"), framed(without, &event, cursor.as_deref()));
    }
}
