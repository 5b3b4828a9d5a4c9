use std::sync::Arc;

use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use tidegate_tenure::{LostReason, Outcome, ToNode, ToRouter, WantFrom, WantId};
use tidegate_vocab::{
    Channel, Event, EventName, LogEpoch, Offset, PartitionId, Payload, Term, Topic, TraceContext,
};

use super::*;
use crate::deliver::v1 as wire;

fn partition() -> impl Strategy<Value = PartitionId> {
    (0_usize..2, any::<u32>())
        .prop_map(|(topic, number)| PartitionId { topic: Topic::FOLLOWED[topic], number })
}

fn channel() -> impl Strategy<Value = Channel> {
    "[a-z]{1,8}(:[a-z0-9]{0,8})?".prop_map(|name| Channel::parse(&name).expect("valid"))
}

fn offset() -> impl Strategy<Value = Offset> {
    any::<u64>().prop_map(Offset)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(vec![
        Outcome::Recovered,
        Outcome::Fresh,
        Outcome::Lost(LostReason::Expired),
        Outcome::Lost(LostReason::Epoch),
        Outcome::Lost(LostReason::BadCursor),
    ])
}

fn event() -> impl Strategy<Value = Arc<Event>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..20);
    let names = prop::sample::select(vec!["message", "goal", "toré"]);
    (
        channel(),
        names,
        any::<bool>(),
        bytes,
        any::<u64>(),
        option::of(offset()),
        option::of(any::<u64>()),
        any::<u64>(),
    )
        .prop_map(|(channel, name, json, bytes, time_ms, offset, expires_ms, span_id)| {
            let payload = if json { Payload::Json(bytes.into()) } else { Payload::Binary(bytes.into()) };
            let name = EventName::parse(name).expect("valid");
            let trace = (span_id > 0).then_some(TraceContext { trace_id: 7, span_id, flags: 1 });
            Arc::new(Event { channel, name, payload, time_ms, offset, expires_ms, trace })
        })
}

fn to_node() -> impl Strategy<Value = ToNode> {
    let head = || (partition(), any::<u64>().prop_map(Term), any::<u64>());
    let want = || any::<u64>().prop_map(WantId);
    prop_oneof![
        (head(), any::<u64>(), offset()).prop_map(|((partition, term, _), epoch, floor)| ToNode::Owned {
            partition,
            term,
            epoch: LogEpoch(epoch),
            floor
        }),
        head().prop_map(|(partition, term, _)| ToNode::Ended { partition, term }),
        (head(), event()).prop_map(|((partition, term, n), event)| ToNode::Event {
            partition,
            term,
            n,
            event
        }),
        (head(), offset(), any::<u64>()).prop_map(|((partition, term, n), next, age_ms)| ToNode::Mark {
            partition,
            term,
            n,
            next,
            age_ms
        }),
        (head(), want(), outcome(), prop::collection::vec(event(), 0..4)).prop_map(
            |((partition, term, n), want, outcome, rows)| ToNode::History {
                partition,
                term,
                n,
                want,
                outcome,
                rows
            }
        ),
        (head(), want(), outcome(), offset()).prop_map(|((partition, term, n), want, outcome, upto)| {
            ToNode::HistoryEnd { partition, term, n, want, outcome, upto }
        }),
        (head(), option::of(channel()), offset()).prop_map(|((partition, term, n), channel, upto)| {
            ToNode::Lost { partition, term, n, channel, upto }
        }),
    ]
}

fn want_from() -> impl Strategy<Value = WantFrom> {
    prop_oneof![
        (any::<u64>(), offset())
            .prop_map(|(epoch, offset)| WantFrom::Next { epoch: LogEpoch(epoch), offset }),
        any::<u64>().prop_map(WantFrom::Since),
        any::<u32>().prop_map(WantFrom::Last),
        Just(WantFrom::Start),
        Just(WantFrom::Now),
    ]
}

fn to_router() -> impl Strategy<Value = ToRouter> {
    let head = || (partition(), any::<u64>().prop_map(Term), any::<u64>());
    prop_oneof![
        (head(), option::of(offset()), prop::collection::vec(channel(), 0..4)).prop_map(
            |((partition, term, n), from, channels)| ToRouter::Resume { partition, term, n, from, channels }
        ),
        (head(), any::<u64>(), any::<u64>(), channel(), want_from()).prop_map(
            |((partition, term, n), number, want, channel, from)| {
                ToRouter::Want { partition, term, n, number, want: WantId(want), channel, from }
            }
        ),
        (head(), any::<u64>(), channel()).prop_map(|((partition, term, n), number, channel)| {
            ToRouter::Unwant { partition, term, n, number, channel }
        }),
        (head(), any::<u64>()).prop_map(|((partition, term, n), want)| ToRouter::Cancel {
            partition,
            term,
            n,
            want: WantId(want)
        }),
        (head(), offset(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
            |((partition, term, n), next, number, held, held_xor)| {
                ToRouter::Ack { partition, term, n, next, number, held, held_xor }
            }
        ),
    ]
}

proptest! {
    #[test]
    fn what_a_router_sends_reads_back(frame in to_node()) {
        let bytes = to_node_to_wire(frame.clone()).encode_to_vec();
        let message = wire::ToNode::decode(&bytes[..]).expect("own bytes");
        prop_assert_eq!(to_node_from_wire(message), Ok(frame));
    }

    #[test]
    fn what_a_node_sends_reads_back(frame in to_router()) {
        let bytes = to_router_to_wire(frame.clone()).encode_to_vec();
        let message = wire::ToRouter::decode(&bytes[..]).expect("own bytes");
        prop_assert_eq!(to_router_from_wire(message), Ok(frame));
    }

    #[test]
    fn no_bytes_panic_the_readers(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = wire::ToNode::decode(&bytes[..]).map(to_node_from_wire);
        let _ = wire::ToRouter::decode(&bytes[..]).map(to_router_from_wire);
    }
}

#[test]
fn what_is_no_frame_is_refused() {
    let whole = || {
        to_router_to_wire(ToRouter::Unwant {
            partition: PartitionId { topic: Topic::Inbox, number: 1 },
            term: Term(2),
            n: 3,
            number: 4,
            channel: Channel::parse("a").expect("valid"),
        })
    };
    assert!(to_router_from_wire(whole()).is_ok());
    let check = |broken: wire::ToRouter, error| assert_eq!(to_router_from_wire(broken), Err(error));
    check(wire::ToRouter { partition: None, ..whole() }, FrameError::Missing("its partition"));
    check(wire::ToRouter { frame: None, ..whole() }, FrameError::Missing("its body"));
    for topic in [-1, 0, 3, i32::MIN] {
        let partition = Some(wire::Partition { topic, number: 0 });
        check(wire::ToRouter { partition, ..whole() }, FrameError::Bad("topic"));
    }
    let unwant = wire::Unwant { number: 1, channel: "a b".into() };
    let frame = Some(wire::to_router::Frame::Unwant(unwant));
    check(wire::ToRouter { frame, ..whole() }, FrameError::Bad("channel"));
}
