//! What differs from seed to seed.

use rand::Rng;
use rand::rngs::StdRng;
use tidegate_vocab::Channel;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) partitions: usize,
    pub(crate) gateways: usize,
    pub(crate) clients: usize,
    /// The one at `i` lies on partition `i` modulo their number; each partition has one at least.
    pub(crate) channels: Vec<Channel>,
    pub(crate) ring_bytes: usize,
    pub(crate) node_ring_bytes: usize,
    pub(crate) room_bytes: usize,
    pub(crate) store_rows: usize,
    pub(crate) chunk_rows: usize,
    /// One History chunk in so many finds its client slow; never, if 0.
    pub(crate) slow_in: u32,
    pub(crate) steps: usize,
    /// One step of time in so many is longer than any linger.
    pub(crate) long_time_in: u32,
    /// How likely each kind of step is, by [`crate::kinds::Kind`]: some kinds never happen under some seeds.
    pub(crate) weights: Vec<u32>,
}

impl Config {
    pub(crate) fn draw(rng: &mut StdRng) -> Self {
        let pick = |rng: &mut StdRng, from: &[usize]| from[rng.random_range(0..from.len())];
        let partitions = pick(rng, &[1, 1, 2, 3]);
        let channels = partitions.max(rng.random_range(1..=3)) + rng.random_range(0..partitions);
        let name = |index: usize| Channel::parse(&format!("c{index}")).expect("invariant: a valid name");
        Self {
            partitions,
            gateways: rng.random_range(1..=3),
            clients: rng.random_range(1..=5),
            channels: (0..channels).map(name).collect(),
            ring_bytes: pick(rng, &[0, 200, 800, 1 << 20]),
            node_ring_bytes: pick(rng, &[0, 200, 800, 1 << 20]),
            room_bytes: pick(rng, &[100, 300, 1_000, 1 << 20]),
            store_rows: pick(rng, &[2, 5, 1_000, 1_000]),
            chunk_rows: pick(rng, &[1, 2, 1_000]),
            slow_in: [0, 0, 2, 6][rng.random_range(0..4)],
            steps: pick(rng, &[100, 400, 1_000, 2_500]) * partitions,
            long_time_in: [2, 8, 32][rng.random_range(0..3)],
            weights: crate::kinds::draw_weights(rng),
        }
    }

    pub(crate) fn part_of(&self, channel: &Channel) -> usize {
        let index = self.channels.iter().position(|other| other == channel);
        index.expect("invariant: a channel of ours") % self.partitions
    }

    pub(crate) fn channels_of(&self, p: usize) -> Vec<Channel> {
        self.channels.iter().skip(p).step_by(self.partitions).cloned().collect()
    }
}
