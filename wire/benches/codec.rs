//! The codec: what a shard does once per event and framing, and once per message of a client.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate_vocab::{Channel, Event, EventName, LogEpoch, Offset, PartitionId, Payload, Topic};
use tidegate_wire::object::{self, Framing};
use tidegate_wire::ws::{Decoder, DecoderLimits, Opcode, client};

const PARTITION: PartitionId = PartitionId { topic: Topic::Events, number: 3 };

fn event(bytes: usize) -> Event {
    Event {
        channel: Channel::parse("score:42").expect("valid"),
        name: EventName::MESSAGE,
        payload: Payload::Json(Bytes::from(format!("\"{}\"", "x".repeat(bytes - 2)))),
        time_ms: 1_700_000_000_000,
        offset: Some(Offset(123_456)),
        expires_ms: None,
        trace: None,
    }
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let framings = [
        ("WebSocket", Framing::WebSocket),
        ("SSE", Framing::Sse { chunked: true }),
        ("NDJSON", Framing::Ndjson { chunked: true }),
    ];
    for bytes in [100, 4096] {
        let event = event(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        for (name, framing) in framings {
            let mut out = Vec::new();
            group.bench_function(format!("{name}, {bytes} B of data"), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    let body = object::event_body(black_box(&event), PARTITION, LogEpoch(7));
                    object::frame_event(framing, event.name.as_str(), &body, Some("AQIDBAUGBwgJ"), &mut out);
                    out.len()
                });
            });
        }
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let limits = DecoderLimits { message_bytes: 64 * 1024, fragments: 16 };
    for bytes in [100, 4096] {
        let masked = client::encode(true, Opcode::Text, &vec![b'x'; bytes], [1, 2, 3, 4]);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("a text message of {bytes} B"), |bencher| {
            let mut decoder = Decoder::new();
            bencher.iter_batched_ref(
                || masked.clone(),
                |input| {
                    decoder.feed(input, &limits, &mut |incoming| {
                        black_box(incoming);
                    })
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
