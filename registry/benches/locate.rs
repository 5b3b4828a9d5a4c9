//! Lookups in batches, on one core, from a member with a million users: 3 million keys per second are wanted. What is asked for is
//! cold as well, as it is not when it comes from a request.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate_registry::{Batch, Hello, Holding, Member, MemberId, MemberOptions, Ring, Transports, Update};
use tidegate_vocab::{Channel, Incarnation};

const USERS: u32 = 1_000_000;
const NODES: u32 = 10;
const KEYS: usize = 256;
const ROUNDS: u64 = 20_000;

fn user(number: u32) -> Channel {
    // Ids of 12 to 20 bytes, in no order.
    let scattered = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Channel::parse(&format!("user:user-{:x}", scattered >> (number % 9 * 4))).expect("valid")
}

fn filled() -> Member {
    let ring = Arc::new(Ring::build(&[(MemberId(0), 1), (MemberId(1), 1)]).expect("valid"));
    let mut member = Member::new(MemberId(0), Incarnation(1), ring, MemberOptions::default());
    let batches: Vec<Vec<Batch>> = (0..NODES).map(batches).collect();
    let begun = Instant::now();
    for (node, batches) in batches.iter().enumerate() {
        let hello = Hello { node: Incarnation(node as u128 + 10), digest: 0, address: String::new() };
        let stream = member.hello(hello, 1, 0).expect("room");
        for batch in batches {
            member.batch(stream, batch, 0).expect("applies");
        }
    }
    println!("{USERS} users announced in {:?}", begun.elapsed());
    member
}

fn batches(node: u32) -> Vec<Batch> {
    let users: Vec<u32> = (0..USERS).filter(|number| number % NODES == node).collect();
    let state = Holding { connections: 1, transports: Transports::WEBSOCKET, since_s: 1 };
    let update = |number: &u32| Update { subject: user(*number), state: Some(state) };
    let numbered = users.chunks(1000).zip(1..);
    numbered
        .map(|(chunk, seq)| Batch { seq, updates: chunk.iter().map(update).collect(), ends_snapshot: false })
        .collect()
}

fn locate(criterion: &mut Criterion) {
    let member = filled();
    let table = member.table();
    let asked: Vec<Channel> =
        (0..KEYS as u32 * 4096).map(|number| user(number.wrapping_mul(7919) % USERS)).collect();
    let mut group = criterion.benchmark_group("locate");
    group.throughput(Throughput::Elements(KEYS as u64));
    let mut batches = asked.chunks(KEYS).cycle();
    group.bench_function("256 keys of a million", |bencher| {
        bencher.iter(|| black_box(table.locate(batches.next().expect("endless"))));
    });
    group.finish();
    let before = on_cpu_ns();
    for _ in 0..ROUNDS {
        black_box(table.locate(batches.next().expect("endless")));
    }
    if let Some((before, after)) = before.zip(on_cpu_ns()) {
        let keys = ROUNDS * KEYS as u64;
        println!("{:.2} million keys per second of a core", keys as f64 * 1000.0 / (after - before) as f64);
    }
}

/// Nanoseconds that this thread has had a core, where the system tells: what else runs on the machine does not count.
fn on_cpu_ns() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

criterion_group!(benches, locate);
criterion_main!(benches);
