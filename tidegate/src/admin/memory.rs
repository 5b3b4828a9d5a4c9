//! What jemalloc says of itself: the decay that was compiled in, and how much it holds.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Opts};
use tikv_jemalloc_ctl::{Access as _, AsName as _, epoch, stats};

/// The longest decay with which memory comes back soon enough after a burst.
const DECAY_MS_MOST: isize = 5000;

/// What is missing from the allocator's settings, if anything.
#[must_use]
pub fn allocator_warning() -> Option<String> {
    let background: bool = "opt.background_thread\0".name().read().unwrap_or(false);
    let decay_ms = |name: &str| -> isize { name.name().read().unwrap_or(isize::MAX) };
    let (dirty_ms, muzzy_ms) = (decay_ms("opt.dirty_decay_ms\0"), decay_ms("opt.muzzy_decay_ms\0"));
    let is_soon = |ms: isize| (0..=DECAY_MS_MOST).contains(&ms);
    if background && is_soon(dirty_ms) && is_soon(muzzy_ms) {
        return None;
    }
    Some(format!(
        "memory comes back late after a burst (background_thread:{background}, dirty_decay_ms:{dirty_ms}, \
         muzzy_decay_ms:{muzzy_ms}): build within the repository, so that .cargo/config.toml counts"
    ))
}

/// The allocator's gauges.
pub struct MemoryCollector {
    allocated: IntGauge,
    active: IntGauge,
    resident: IntGauge,
    mapped: IntGauge,
}

impl MemoryCollector {
    /// Makes the families.
    ///
    /// # Errors
    /// Never, as long as the names below are valid.
    pub fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            IntGauge::with_opts(Opts::new(format!("tidegate_allocator_{name}_bytes"), help))
        };
        Ok(Self {
            allocated: gauge("allocated", "Bytes that the program holds.")?,
            active: gauge("active", "Bytes in pages of which the program holds a part.")?,
            resident: gauge(
                "resident",
                "Bytes that the allocator keeps in memory, those to be given back among them.",
            )?,
            mapped: gauge("mapped", "Bytes of address space that the allocator has mapped.")?,
        })
    }

    fn gauges(&self) -> [&IntGauge; 4] {
        [&self.allocated, &self.active, &self.resident, &self.mapped]
    }
}

impl Collector for MemoryCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The allocator adds its numbers up when its epoch advances.
        if let Err(error) = epoch::advance() {
            tracing::debug!(%error, "allocator gives no numbers");
        }
        let read =
            [stats::allocated::read(), stats::active::read(), stats::resident::read(), stats::mapped::read()];
        for (gauge, bytes) in self.gauges().into_iter().zip(read) {
            gauge.set(bytes.ok().and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(0));
        }
        self.gauges().into_iter().flat_map(Collector::collect).collect()
    }
}
