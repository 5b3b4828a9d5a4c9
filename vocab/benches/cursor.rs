//! Cursors: one is made per event and follow set, and one is read per connection that resumes.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate_vocab::{Channel, Cursor, LogEpoch, Offset, PartitionCounts};

const COUNTS: u32 = 16;

fn covered(channels: usize) -> Vec<Channel> {
    (0..channels).map(|number| Channel::parse(&format!("score:{number}")).expect("valid")).collect()
}

fn make(channels: &[Channel]) -> String {
    let counts = PartitionCounts::same(COUNTS);
    let mut cursor = Cursor::default();
    for channel in channels {
        cursor.cover(channel, counts.partition_of(channel), LogEpoch(7), Offset(123_456));
    }
    cursor.encode()
}

fn cursor(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cursor");
    for count in [1, 3, 20, 200] {
        let channels = covered(count);
        group.bench_function(format!("make, {count} channels"), |bencher| {
            bencher.iter(|| make(black_box(&channels)));
        });
        let text = make(&channels);
        group.bench_function(format!("read, {count} channels"), |bencher| {
            bencher.iter(|| Cursor::parse(black_box(&text)).expect("ours"));
        });
    }
    group.finish();
}

criterion_group!(benches, cursor);
criterion_main!(benches);
