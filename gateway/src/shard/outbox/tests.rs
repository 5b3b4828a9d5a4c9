use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Keep,
    /// An event of a channel whose oldest go when there is no room.
    Oldest(ChannelIdx),
    /// An event of a channel whose latest counts.
    Latest(ChannelIdx),
    /// The socket takes so many bytes at most.
    Take(usize),
    Trim(usize),
    TrimOlder(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Keep),
        4 => (0_u32..3).prop_map(Step::Oldest),
        4 => (3_u32..6).prop_map(Step::Latest),
        3 => (0_usize..40).prop_map(Step::Take),
        2 => (0_usize..120).prop_map(Step::Trim),
        1 => (0_u32..8).prop_map(Step::TrimOlder),
    ]
}

fn gap(channel: ChannelIdx) -> Bytes {
    format!("g{channel};").into()
}

/// Takes up to `most` bytes off the front, as a socket does.
fn take(outbox: &mut Outbox, most: usize, tick: u32, out: &mut Vec<u8>) {
    let bytes: Vec<u8> = outbox.slices(usize::MAX).iter().flat_map(|slice| slice.to_vec()).collect();
    assert_eq!(bytes.len(), outbox.bytes(), "what waits is what is counted");
    let count = most.min(bytes.len());
    out.extend_from_slice(&bytes[..count]);
    outbox.advance(count, tick);
}

/// What the client read: kept ones all and in order; of a channel rising numbers, and a gap exactly where some are missing.
/// Behind the last event read of a channel some may be missing too, if a gap was read for it.
fn check(read: &str, kept: u32, sent: &BTreeMap<ChannelIdx, u32>) {
    let (mut kept_read, mut next, mut told) = (0, BTreeMap::new(), BTreeMap::new());
    for word in read.split_terminator(';') {
        let (kind, rest) = word.split_at(1);
        match kind {
            "k" => {
                assert_eq!(rest, kept_read.to_string());
                kept_read += 1;
            }
            "g" => {
                let channel: ChannelIdx = rest.parse().expect("a channel");
                told.insert(channel, true); // Twice in a row if more went after the first had left.
            }
            _ => {
                let (channel, number) = rest.split_once(':').expect("an event");
                let (channel, number): (ChannelIdx, u32) =
                    (channel.parse().expect("c"), number.parse().expect("n"));
                let expected = next.insert(channel, number + 1).unwrap_or(0);
                let was_told = told.insert(channel, false).unwrap_or(false);
                assert!(number >= expected, "once and in order: {read}");
                assert_eq!(number > expected, was_told, "a gap exactly where some are missing: {read}");
            }
        }
    }
    assert_eq!(kept_read, kept);
    for (channel, count) in sent {
        let is_whole = next.get(channel).copied().unwrap_or(0) == *count;
        assert_eq!(!is_whole, told.get(channel).copied().unwrap_or(false), "channel {channel}: {read}");
    }
}

fn run(steps: &[Step]) {
    let (mut outbox, mut out, mut kept, mut sent) = (Outbox::new(0), Vec::new(), 0, BTreeMap::new());
    for (tick, step) in (1..).zip(steps) {
        match step {
            Step::Keep => {
                outbox.push(format!("k{kept};").into(), tick, Tag::Keep, false);
                kept += 1;
            }
            Step::Oldest(channel) | Step::Latest(channel) => {
                if matches!(step, Step::Latest(_)) {
                    outbox.supersede(*channel, tick, || gap(*channel));
                }
                let number = sent.entry(*channel).or_insert(0);
                outbox.push(format!("e{channel}:{number};").into(), tick, Tag::Event(*channel), false);
                *number += 1;
            }
            Step::Take(most) => take(&mut outbox, *most, tick, &mut out),
            Step::Trim(limit) => drop(outbox.trim(*limit, tick, gap)),
            Step::TrimOlder(age) => drop(outbox.trim_older(tick.saturating_sub(*age), tick, gap)),
        }
    }
    take(&mut outbox, usize::MAX, u32::MAX, &mut out);
    assert!(outbox.is_empty() && outbox.bytes() == 0 && outbox.places.is_empty() && outbox.dead == 0);
    check(std::str::from_utf8(&out).expect("text"), kept, &sent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_left_out_is_told_and_nothing_else_is_touched(steps in proptest::collection::vec(step(), 0..120)) {
        run(&steps);
    }
}

#[test]
fn a_channel_whose_latest_counts_waits_once_however_much_is_published() {
    let mut outbox = Outbox::new(0);
    outbox.push(Bytes::from_static(b"rest of a frame"), 0, Tag::Keep, true);
    for number in 0..10_000_u32 {
        outbox.supersede(7, number, || gap(7));
        outbox.push(format!("e7:{number};").into(), number, Tag::Event(7), false);
    }
    assert_eq!(outbox.bytes(), "rest of a frame".len() + "g7;e7:9999;".len());
    assert!(outbox.queue.len() <= 2 * DEAD_LIMIT + 4, "{}", outbox.queue.len());
}

#[test]
fn events_without_end_stay_within_the_limit() {
    let mut outbox = Outbox::new(0);
    for number in 0..10_000_u32 {
        outbox.push(format!("e1:{number};").into(), number, Tag::Event(1), false);
        outbox.trim(1_000, number, gap);
        assert!(outbox.bytes() <= 1_000);
    }
    assert!(outbox.queue.len() < 400, "{}", outbox.queue.len());
    assert!(outbox.trim(0, 1, gap) > 50);
    assert_eq!(outbox.bytes(), "g1;".len(), "all but what says so");
}

#[test]
fn time_counts_from_the_front_and_from_progress() {
    let mut outbox = Outbox::new(5);
    outbox.push(Bytes::from_static(b"abc"), 5, Tag::Keep, false);
    outbox.push(Bytes::from_static(b"def"), 9, Tag::Keep, false);
    assert_eq!(outbox.since_tick(), 5);
    outbox.advance(3, 20);
    assert_eq!(outbox.since_tick(), 9, "the second has waited since then");
    let mut outbox = Outbox::new(5);
    outbox.push(Bytes::from_static(b"e1:0;"), 5, Tag::Event(1), false);
    assert_eq!(outbox.trim_older(10, 30, gap), 1);
    assert_eq!(outbox.since_tick(), 5, "a gap is no progress: a socket that takes nothing is given up");
}
