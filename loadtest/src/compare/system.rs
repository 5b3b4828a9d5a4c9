//! The systems that are compared: how each is reached, what its processes are, and who sends.

mod floor;
mod nchan;
pub(crate) mod tidegate;

use anyhow::Context as _;
use serde::Serialize;

use super::CompareOptions;
use super::open::Door;
use super::publish::Publisher;
use crate::verify::Cluster;

pub(super) use floor::FloorProcess;
pub(super) use nchan::Nchan;

/// One of the compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// A bare loop of `write()`.
    Floor,
    /// A gateway of ours.
    Tidegate,
    /// nginx with nchan.
    Nchan,
}

impl System {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Tidegate => "tidegate",
            Self::Nchan => "nchan",
        }
    }
}

/// A system that is ready to be measured.
pub(super) struct Target {
    pub(super) door: Door,
    /// Whose processor time counts.
    pub(super) pids: Vec<u32>,
    pub(super) sender: Sender,
}

/// Who sends the events.
pub(super) enum Sender {
    /// We publish them.
    Publisher(Publisher),
    /// The floor sends by itself.
    Floor(FloorProcess),
}

/// Where nchan is: started once, or why not.
pub(super) type NchanOrReason = Result<Nchan, String>;

/// Makes a system ready, with channels that nobody used before.
pub(super) fn target(
    system: System,
    options: &CompareOptions,
    cluster: Option<&Cluster>,
    nchan: &NchanOrReason,
) -> anyhow::Result<Target> {
    match system {
        System::Floor => floor::target(options),
        System::Tidegate => tidegate::target(options, cluster.context("no cluster to compare")?),
        System::Nchan => match nchan {
            Ok(nchan) => nchan.target(options),
            Err(reason) => anyhow::bail!("{reason}"),
        },
    }
}
