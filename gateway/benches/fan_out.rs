//! Deliveries of one shard to 500 WebSockets over loopback, clients' reads left out: an event at a time and 32 together, on one
//! channel and on 20.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate_gateway::measure::FanOut;

const SOCKETS: usize = 500;

fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan-out");
    group.sample_size(20).measurement_time(Duration::from_secs(4));
    for (name, channels, together) in [
        ("1 channel, 1 event", 1, 1),
        ("1 channel, 32 events", 1, 32),
        ("20 channels, 1 event", 20, 1),
        ("20 channels, 32 events", 20, 32),
    ] {
        let mut fan_out = FanOut::open(SOCKETS, channels).expect("two files for each socket");
        group.throughput(Throughput::Elements((SOCKETS * together) as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    let batch = fan_out.batch(together);
                    let begun = Instant::now();
                    fan_out.deliver(batch);
                    total += begun.elapsed();
                    fan_out.drain().expect("all are open");
                }
                total
            });
        });
    }
    group.finish();
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
