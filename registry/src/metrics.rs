//! What members, announcers and locators count. Label sets are closed: never a user, a channel, an address or a digest.
//!
//! Each role of a process registers its own families once, so a process shows nothing of a role that it does not have.

use prometheus::{Error, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::announcer::Announcer;
use crate::convert::MessageError;
use crate::frame::Presence;
use crate::locator::{Done, Outcome};
use crate::member::{Figures, Refusal};
use crate::ring::Ring;

/// Seconds: from a few keys in memory to both deadlines of a lookup.
const SECONDS: [f64; 12] =
    [0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1];

/// What a member counts.
#[derive(Debug, Clone)]
pub struct MemberMetrics {
    users: IntGauge,
    channels: IntGauge,
    nodes: IntGauge,
    pub(crate) lookup_calls: IntCounter,
    pub(crate) lookup_keys: IntCounter,
    pub(crate) lookup_seconds: Histogram,
    pub(crate) batches: IntCounter,
    pub(crate) updates: IntCounter,
    leases_expired: IntCounter,
    hellos_refused: IntCounterVec,
    transitions: IntCounterVec,
    transitions_in_flight: IntGauge,
    caught_up: IntGauge,
    pub(crate) ring: RingMetrics,
}

impl MemberMetrics {
    /// Registers every family of a member.
    ///
    /// # Errors
    /// When one of them is registered already.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let on = Families { registry, role: "member" };
        let [users, channels] = ["user", "channel"].map(|kind| {
            let help = "Subjects that are stored, those that wait for a sweep included.";
            on.gauge_with("tidegate_registry_subjects", help, ("kind", kind))
        });
        let metrics = Self {
            users: users?,
            channels: channels?,
            nodes: on.gauge("tidegate_registry_nodes", "Nodes with a lease.")?,
            lookup_calls: on.counter("tidegate_registry_lookup_calls_total", "Lookup calls answered.")?,
            lookup_keys: on.counter("tidegate_registry_lookup_keys_total", "Keys of these calls.")?,
            lookup_seconds: on.seconds(
                "tidegate_registry_lookup_duration_seconds",
                "Time from a lookup call, read and decoded, to its answer, not yet encoded.",
            )?,
            batches: on.counter(
                "tidegate_registry_announce_batches_total",
                "Batches of nodes that were applied, those that only renew a lease included.",
            )?,
            updates: on.counter("tidegate_registry_announce_updates_total", "Updates in these batches.")?,
            leases_expired: on.counter(
                "tidegate_registry_leases_expired_total",
                "Nodes whose lease ended without a goodbye.",
            )?,
            hellos_refused: on.counters(
                "tidegate_registry_hellos_refused_total",
                "Announce streams refused at their hello, by reason.",
                "reason",
                HelloRefused::ALL.map(HelloRefused::as_str),
            )?,
            transitions: on.counters(
                "tidegate_registry_transitions_total",
                "Transitions of presence given out, repeats included, by what they say.",
                "to",
                ["online", "offline"],
            )?,
            transitions_in_flight: on.gauge(
                "tidegate_registry_transitions_in_flight",
                "Transitions of presence that were not read back from the topic yet.",
            )?,
            caught_up: on.gauge(
                "tidegate_registry_presence_caught_up",
                "1 once the presence topic was read to its end under the present ring.",
            )?,
            ring: on.ring()?,
        };
        Ok(metrics)
    }

    pub(crate) fn hello_refused(&self, reason: HelloRefused) {
        self.hellos_refused.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn said(&self, presence: Presence) {
        let to = match presence {
            Presence::Online => "online",
            Presence::Offline => "offline",
        };
        self.transitions.with_label_values(&[to]).inc();
    }

    pub(crate) fn show(&self, figures: &Figures) {
        self.users.set(figures.stored_users as i64);
        self.channels.set(figures.stored_channels as i64);
        self.nodes.set(figures.nodes as i64);
        self.leases_expired.inc_by(figures.leases_expired.saturating_sub(self.leases_expired.get()));
        self.transitions_in_flight.set(figures.transitions_in_flight as i64);
        self.caught_up.set(i64::from(figures.has_caught_up));
    }
}

/// Why a hello was refused. Closed: it is a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HelloRefused {
    /// It was none, or broke the protocol.
    BadMessage,
    /// No version in common.
    Version,
    /// A newer hello of the node overtook it.
    Stale,
    /// There is no room for another node.
    TooManyNodes,
    /// Its address is too long.
    LongAddress,
}

impl HelloRefused {
    const ALL: [Self; 5] =
        [Self::BadMessage, Self::Version, Self::Stale, Self::TooManyNodes, Self::LongAddress];

    fn as_str(self) -> &'static str {
        match self {
            Self::BadMessage => "bad_message",
            Self::Version => "version",
            Self::Stale => "stale",
            Self::TooManyNodes => "too_many_nodes",
            Self::LongAddress => "long_address",
        }
    }
}

impl From<&MessageError> for HelloRefused {
    fn from(error: &MessageError) -> Self {
        match error {
            MessageError::Versions(..) => Self::Version,
            _ => Self::BadMessage,
        }
    }
}

impl From<&Refusal> for HelloRefused {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::TooManyNodes => Self::TooManyNodes,
            Refusal::LongAddress(_) => Self::LongAddress,
            // The others refuse batches.
            Refusal::StaleHello | Refusal::Ended | Refusal::Gap { .. } | Refusal::TooManyUpdates(_) => {
                Self::Stale
            }
        }
    }
}

/// What a node's announcing counts.
#[derive(Debug, Clone)]
pub struct AnnounceMetrics {
    subjects: IntGauge,
    members_current: IntGauge,
    pub(crate) redials: IntCounter,
    pub(crate) ring: RingMetrics,
}

impl AnnounceMetrics {
    /// Registers every family of an announcer.
    ///
    /// # Errors
    /// When one of them is registered already.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let on = Families { registry, role: "announcer" };
        Ok(Self {
            subjects: on
                .gauge("tidegate_registry_announced_subjects", "Subjects that this node announces.")?,
            members_current: on.gauge(
                "tidegate_registry_members_current",
                "Members that know all that the newest ring assigns to them of this node.",
            )?,
            redials: on.counter(
                "tidegate_registry_announce_redials_total",
                "Announce streams that were dialled again.",
            )?,
            ring: on.ring()?,
        })
    }

    pub(crate) fn show(&self, announcer: &Announcer) {
        self.subjects.set(announcer.subjects() as i64);
        self.members_current.set(announcer.members_current() as i64);
    }
}

/// What a router's lookups count.
#[derive(Debug, Clone)]
pub struct LocateMetrics {
    lookups: IntCounterVec,
    pub(crate) seconds: Histogram,
    nodes_besides: IntCounter,
    pub(crate) ring: RingMetrics,
}

impl LocateMetrics {
    /// Registers every family of a locator.
    ///
    /// # Errors
    /// When one of them is registered already.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let on = Families { registry, role: "locator" };
        Ok(Self {
            lookups: on.counters(
                "tidegate_registry_lookups_total",
                "Lookups of this router, by who had to answer the hardest of their keys.",
                "outcome",
                Outcome::ALL.map(Outcome::as_str),
            )?,
            seconds: on.seconds(
                "tidegate_registry_lookup_seconds",
                "Time from a lookup of this router to its result, waits included.",
            )?,
            nodes_besides: on.counter(
                "tidegate_registry_nodes_asked_besides_total",
                "Nodes to be asked themselves, because a member was not current about them, per answer.",
            )?,
            ring: on.ring()?,
        })
    }

    pub(crate) fn done(&self, done: &Done) {
        self.lookups.with_label_values(&[done.outcome.as_str()]).inc();
        self.nodes_besides.inc_by(done.besides);
    }
}

/// The ring that a role knows; where the versions of a cluster differ for long, somebody does not hear of changes.
#[derive(Debug, Clone)]
pub(crate) struct RingMetrics {
    members: IntGauge,
    version: IntGauge,
}

impl RingMetrics {
    pub(crate) fn show(&self, ring: &Ring, version: u64) {
        self.members.set(ring.members().count() as i64);
        self.version.set(version as i64);
    }
}

struct Families<'a> {
    registry: &'a Registry,
    role: &'static str,
}

impl Families<'_> {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        let metric = IntCounter::new(name, help)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    /// With every value of its one label, so that each shows from the start.
    fn counters<const N: usize>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: [&str; N],
    ) -> Result<IntCounterVec, Error> {
        let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
        self.registry.register(Box::new(metric.clone()))?;
        for value in values {
            metric.with_label_values(&[value]);
        }
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        let metric = IntGauge::new(name, help)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge_with(&self, name: &str, help: &str, (label, value): (&str, &str)) -> Result<IntGauge, Error> {
        let metric = IntGauge::with_opts(Opts::new(name, help).const_label(label, value))?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn seconds(&self, name: &str, help: &str) -> Result<Histogram, Error> {
        let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn ring(&self) -> Result<RingMetrics, Error> {
        let of = |name, help| self.gauge_with(name, help, ("role", self.role));
        Ok(RingMetrics {
            members: of(
                "tidegate_registry_ring_members",
                "Members of the newest ring that this process knows, by its role.",
            )?,
            version: of(
                "tidegate_registry_ring_version",
                "Version of the newest member list that this process knows, by its role.",
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_roles_fit_one_process_and_register_once() {
        let registry = Registry::new();
        MemberMetrics::register(&registry).expect("once");
        AnnounceMetrics::register(&registry).expect("once");
        LocateMetrics::register(&registry).expect("once");
        let again = MemberMetrics::register(&registry).map(drop);
        assert!(again.is_err());
        for family in registry.gather() {
            assert!(family.name().starts_with("tidegate_registry_"), "{}", family.name());
            assert!(!family.get_metric().is_empty() && family.help().ends_with('.'), "{}", family.name());
        }
    }
}
