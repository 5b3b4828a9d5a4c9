//! Latencies in fixed space: what millions of deliveries took, to within 3 %.

use serde::{Deserialize, Serialize};

/// Steps within each power of two.
const STEPS_LOG2: u32 = 5;
const STEPS: u64 = 1 << STEPS_LOG2;
/// Enough for 2^40 µs, which is twelve days.
const BUCKETS: usize = ((40 - STEPS_LOG2 as usize) + 1) << STEPS_LOG2;

/// Counts by latency in microseconds. As JSON, only the buckets that hold something: processes send each other theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Sparse", into = "Sparse")]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max_us: u64,
}

#[derive(Serialize, Deserialize)]
struct Sparse {
    max_us: u64,
    /// Number of a bucket, and its count.
    buckets: Vec<(usize, u64)>,
}

impl From<Histogram> for Sparse {
    fn from(full: Histogram) -> Self {
        let filled = full.buckets.iter().copied().enumerate().filter(|(_, count)| *count > 0);
        Self { max_us: full.max_us, buckets: filled.collect() }
    }
}

impl From<Sparse> for Histogram {
    fn from(sparse: Sparse) -> Self {
        let mut full = Self { max_us: sparse.max_us, ..Self::default() };
        for (bucket, count) in sparse.buckets {
            if let Some(own) = full.buckets.get_mut(bucket) {
                *own += count;
                full.count += count;
            }
        }
        full
    }
}

/// The latencies that are shown, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half are below.
    pub p50_ms: f64,
    /// Nine in ten are below.
    pub p90_ms: f64,
    /// 99 in 100 are below.
    pub p99_ms: f64,
    /// 999 in 1,000 are below.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

fn bucket_of(us: u64) -> usize {
    if us < STEPS {
        return us as usize;
    }
    let power = us.ilog2() - STEPS_LOG2;
    let bucket = (u64::from(power) + 1) * STEPS + ((us >> power) - STEPS);
    (bucket as usize).min(BUCKETS - 1)
}

/// The highest latency that belongs there.
fn top_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let power = bucket / STEPS - 1;
    ((bucket % STEPS + STEPS + 1) << power) - 1
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, max_us: 0 }
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, us: u64) {
        self.buckets[bucket_of(us)] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// How many were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds what another counted.
    pub fn merge(&mut self, other: &Self) {
        for (own, others) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += others;
        }
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The latency in microseconds below which this share lies.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> u64 {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            below += count;
            if below >= wanted {
                return top_of(bucket).min(self.max_us);
            }
        }
        self.max_us
    }

    /// The latencies that are shown.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        let ms = |share| self.quantile_us(share) as f64 / 1_000.0;
        Quantiles {
            p50_ms: ms(0.5),
            p90_ms: ms(0.9),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: self.max_us as f64 / 1_000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_in_a_bucket_whose_top_is_at_most_a_32nd_above() {
        for us in (0..5_000).chain([65_535, 65_536, 1_000_000, 123_456_789, 1 << 39]) {
            let top = top_of(bucket_of(us));
            assert!(top >= us && top - us <= us / 32, "{us} µs: {top}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_all_that_was_added_to_either() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        for us in 1..=500 {
            one.add(us * 10);
            other.add(5_000 + us * 10);
        }
        one.merge(&other);
        let quantiles = one.quantiles();
        for (is, about) in [(quantiles.p50_ms, 5.0), (quantiles.p99_ms, 9.9), (quantiles.max_ms, 10.0)] {
            assert!((is - about).abs() <= about * 0.04, "{is} for {about}");
        }
        assert_eq!(Histogram::default().quantiles(), Quantiles::default());
        let sent = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Histogram>(&sent).unwrap(), one);
        assert!(sent.len() < 8_192, "what is empty is not sent: {} bytes", sent.len());
    }
}
