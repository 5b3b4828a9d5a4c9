//! The vectors of `proto/vectors/` that need no server: names, partitions, positions, and each object byte for byte.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::Value;
use tidegate_e2e::vectors::load;
use tidegate_vocab::{
    Channel, ChannelError, Event, EventName, LogEpoch, Offset, PartitionCounts, PartitionId, Payload,
    Position, Topic,
};
use tidegate_wire::object::{self, Framing, Told};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

#[test]
fn channels() {
    let file = load("channels");
    for case in list(&file["valid"]) {
        let channel = Channel::parse(text(&case["name"])).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(channel.namespace(), text(&case["namespace"]), "{case}");
    }
    for name in list(&file["reserved"]) {
        assert!(Channel::parse(text(name)).is_ok_and(|channel| channel.is_reserved()), "{name}");
    }
    for case in list(&file["invalid"]) {
        let (error, at) = match Channel::parse(text(&case["name"])) {
            Ok(channel) => panic!("{channel} is valid"),
            Err(ChannelError::Empty) => ("empty", None),
            Err(ChannelError::TooLong) => ("too_long", None),
            Err(ChannelError::BadByte { at }) => ("bad_byte", Some(at as u64)),
        };
        assert_eq!((error, at), (text(&case["error"]), case["at"].as_u64()), "{case}");
    }
}

#[test]
fn partitions() {
    let file = load("partitions");
    for case in list(&file["cases"]) {
        let Ok(channel) = Channel::parse(text(&case["key"])) else { continue };
        for (count, number) in case["partitions"].as_object().expect("counts") {
            let partition = PartitionCounts::same(count.parse().expect("a number")).partition_of(&channel);
            assert_eq!(u64::from(partition.number), number.as_u64().expect("a number"), "{case}");
        }
    }
    for case in list(&file["topics"]) {
        let channel = Channel::parse(text(&case["channel"])).expect("valid");
        let topic = PartitionCounts::same(8).partition_of(&channel).topic;
        assert_eq!(topic == Topic::Inbox, text(&case["topic"]) == "inbox", "{case}");
    }
}

#[test]
fn positions() {
    let file = load("positions");
    for case in list(&file["valid"]) {
        let pos: Position = text(&case["pos"]).parse().unwrap_or_else(|_| panic!("{case}"));
        assert_eq!(pos.to_string(), text(&case["pos"]));
    }
    for wrong in list(&file["invalid"]) {
        assert!(text(wrong).parse::<Position>().is_err(), "{wrong}");
    }
}

/// The parts of a position: epoch, partition, offset.
fn parts(pos: &str) -> (LogEpoch, PartitionId, Offset) {
    let mut parts = pos.split('.');
    let mut next = || parts.next().expect("three parts");
    let epoch = LogEpoch(u64::from_str_radix(next(), 16).expect("hexadecimal"));
    let partition = PartitionId { topic: Topic::Events, number: next().parse().expect("a number") };
    (epoch, partition, Offset(next().parse().expect("a number")))
}

/// The event of a case, and its body as it is shared by all framings.
fn event(case: &Value) -> (Event, Vec<u8>) {
    let position = case["pos"].as_str().map(parts);
    let payload = match (case["data_text"].as_str(), case["data_b64"].as_str()) {
        (Some(json), _) => Payload::Json(json.to_owned().into()),
        (_, Some(text)) => {
            Payload::Binary(base64::engine::general_purpose::STANDARD.decode(text).expect("base64").into())
        }
        _ => panic!("no data: {case}"),
    };
    let event = Event {
        channel: Channel::parse(text(&case["channel"])).expect("valid"),
        name: EventName::parse(text(&case["event"])).expect("valid"),
        payload,
        time_ms: case["time"].as_u64().expect("a time"),
        offset: position.map(|(_, _, offset)| offset),
        expires_ms: None,
        trace: None,
    };
    let (epoch, partition, _) =
        position.unwrap_or((LogEpoch(0), PartitionId { topic: Topic::Events, number: 0 }, Offset(0)));
    let body = object::event_body(&event, partition, epoch);
    (event, body)
}

fn told(case: &Value) -> Told {
    let names = |list: &Value| -> Vec<Channel> {
        let all = list.as_array().into_iter().flatten();
        all.map(|name| Channel::parse(text(name)).expect("valid")).collect()
    };
    let reason = |lost: &Value| match text(&lost["reason"]) {
        "expired" => "expired",
        "epoch" => "epoch",
        other => panic!("{other}"),
    };
    let lost = |lost: &Value| (Channel::parse(text(&lost["channel"])).expect("valid"), reason(lost));
    Told {
        recovered: names(&case["recovered"]),
        lost: list(&case["lost"]).iter().map(lost).collect(),
        fresh: names(&case["fresh"]),
        pending: names(&case["pending"]),
    }
}

/// What a framing makes of a case, or `None` where it has none.
fn framed(case: &Value, framing: Framing) -> Option<Vec<u8>> {
    let (id, mut out) = (case["id"].as_str(), Vec::new());
    let mut own = |kind: &str, object: &[u8], id: Option<&str>| {
        object::frame_object(framing, kind, object, id, &mut out)
    };
    if case["event"].is_object() {
        let (event, body) = event(&case["event"]);
        object::frame_event(framing, event.name.as_str(), &body, id, &mut out);
    } else if case["state"].is_object() {
        let state = &case["state"];
        own("state", &object::state_object(text(&state["cursor"]), &told(state)), id);
    } else if case["gap"].is_object() {
        let channel = Channel::parse(text(&case["gap"]["channel"])).expect("valid");
        own("gap", &object::gap_object(&channel, text(&case["gap"]["reason"])), None);
    } else if let Some(code) = case["close"]["code"].as_u64() {
        let (reason, retry_ms) = (text(&case["close"]["reason"]), case["close"]["retry_ms"].as_u64());
        own(
            "close",
            &object::close_object(code as u16, reason, case["close"]["detail"].as_str(), retry_ms),
            None,
        );
    } else if case["ping"].is_object() {
        object::frame_ping(framing, id, &mut out);
    } else if let Some(ms) = case["retry"]["ms"].as_u64() {
        object::frame_retry(framing, ms, &mut out);
    } else if case["ack"].is_object() {
        let ack = &case["ack"];
        let pos = text(&ack["pos"]).parse().expect("a position");
        own("ack", &object::ack_object(ack["ref"].as_str(), ack["seq"].as_u64()?, &pos), None);
    } else if case["nack"].is_object() {
        let nack = &case["nack"];
        let problem = &nack["error"];
        let kinds = tidegate_vocab::ErrorKind::ALL.iter();
        let kind = kinds.copied().find(|kind| kind.as_str() == text(&problem["title"])).expect("a kind");
        let problem = tidegate_vocab::Problem::new(kind, text(&problem["detail"])).to_json();
        own("nack", &object::nack_object(nack["ref"].as_str(), nack["seq"].as_u64()?, &problem), None);
    } else {
        return None;
    }
    Some(out)
}

/// The payload of one short text frame; nothing of nothing.
fn payload(frame: &[u8]) -> &[u8] {
    match frame {
        [] => frame,
        [0x81, 126, _, _, payload @ ..] | [0x81, _, payload @ ..] => payload,
        other => panic!("no text frame: {other:?}"),
    }
}

#[test]
fn objects_byte_for_byte() {
    let shown = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    for case in list(&load("objects")["cases"]) {
        if let Some(expected) = case["json"].as_str() {
            let poll = &case["poll"];
            let bodies: Vec<Arc<[u8]>> = list(&poll["events"]).iter().map(|it| event(it).1.into()).collect();
            let bodies = bodies.iter().map(AsRef::as_ref);
            assert_eq!(shown(&object::poll_answer(bodies, text(&poll["cursor"]), &told(poll))), expected);
            continue;
        }
        let framings = [
            ("ws", Framing::WebSocket),
            ("sse", Framing::Sse { chunked: false }),
            ("ndjson", Framing::Ndjson { chunked: false }),
        ];
        for (name, framing) in framings {
            let Some(expected) = case[name].as_str() else { continue };
            let made = framed(case, framing).unwrap_or_else(|| panic!("of no kind: {case}"));
            let made = if name == "ws" { payload(&made) } else { &made };
            assert_eq!(shown(made), expected, "{case}");
        }
    }
}
