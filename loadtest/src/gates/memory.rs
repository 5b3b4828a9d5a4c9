//! User memory of idle connections, each row on a gateway that has just been started.

use std::fmt;
use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::report::Stand;
use crate::history::Action;
use crate::resident::{Following, Resident};
use crate::verify::{Cluster, Faults, Gateway};
use crate::{Connection, Transport, open_all};

/// A gateway that was started serves within this time.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// No connection takes less: what a socket's registration and its state alone take.
const LEAST: u64 = 200;
/// Of a connection on a shared channel, in bytes.
const SHARED_LIMIT: f64 = 1_024.0;
/// Of one with a user and a channel of its own.
const OWN_LIMIT: f64 = 1_536.0;
/// Of each further channel.
const FURTHER_LIMIT: f64 = 96.0;
/// How many further channels.
const FURTHER: u16 = 16;
/// The shared ones are so many.
const OF: u16 = 1_000;

/// What was read.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    connections: usize,
    /// Bytes of a connection on a shared channel.
    shared: u64,
    /// Bytes of one with a user and a channel of its own.
    own: u64,
    /// Bytes of one with 16 further channels of 1,000.
    further_shared: u64,
    /// Bytes of one with a user and 17 channels of its own.
    further_own: u64,
}

/// Reads it, row by row.
pub(super) async fn measure(
    connections: usize,
    cluster: &Cluster,
    faults: &impl Faults,
    progress: &impl Fn(&str),
) -> anyhow::Result<Report> {
    let gateway = cluster.gateway(None)?;
    let row = async |own, further, of| {
        start_anew(gateway, faults).await?;
        let following = Following { own, further, of };
        let open = async |count| {
            open_all(gateway.public, Transport::Ws, count, |number| following.query(number), |_| ()).await
        };
        let pid = cluster.pid(&gateway.name)?;
        let each = Resident::measure(pid, connections, open).await?.bytes_each();
        progress(&format!("{}: {each} bytes each\n", following.title()));
        anyhow::Ok(each)
    };
    let rows = async {
        Ok(Report {
            connections,
            shared: row(false, 0, None).await?,
            own: row(true, 0, None).await?,
            further_shared: row(false, FURTHER, Some(OF)).await?,
            further_own: row(true, FURTHER, None).await?,
        })
    };
    let report = rows.await;
    // Connections that come where 85,000 channels have been lie scattered, which the next gates would meet.
    start_anew(gateway, faults).await?;
    report.and_then(Report::checked)
}

async fn start_anew(gateway: &Gateway, faults: &impl Faults) -> anyhow::Result<()> {
    faults.act(Action::Term, &gateway.name).await?;
    faults.act(Action::Start, &gateway.name).await?;
    serves(gateway).await
}

/// A process that has been started listens sooner than it serves.
async fn serves(gateway: &Gateway) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        match Connection::open(gateway.public, Transport::Ws, "channel=load:ready").await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.context("a gateway started anew")),
            Err(_) => sleep(LOOK_INTERVAL).await,
        }
    }
}

impl Report {
    /// What is less than any connection can take was not measured.
    fn checked(self) -> anyhow::Result<Self> {
        let Self { shared, own, further_shared, further_own, .. } = self;
        let plausible = shared >= LEAST && own >= LEAST && further_shared > shared && further_own > own;
        ensure!(
            plausible,
            "these are no sizes of connections, something else gave memory back meanwhile:\n{self}"
        );
        Ok(self)
    }

    /// What each further channel adds: shared, and own.
    fn each_further(&self) -> (f64, f64) {
        let each = |with: u64, without: u64| (with as f64 - without as f64) / f64::from(FURTHER);
        (each(self.further_shared, self.shared), each(self.further_own, self.own))
    }

    pub(super) fn stands(&self) -> Vec<Stand> {
        let (further_shared, further_own) = self.each_further();
        let stand = |gate: &str, is: f64, limit: f64| {
            Stand::of(gate, format!("{is:.0} bytes"), format!("at most {limit:.0}"), is <= limit)
        };
        vec![
            stand("memory, shared channel", self.shared as f64, SHARED_LIMIT),
            stand("memory, own user and channel", self.own as f64, OWN_LIMIT),
            stand("memory, each further channel", further_shared, FURTHER_LIMIT),
            Stand::reported("memory, each further one of its own", format!("{further_own:.0} bytes")),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, shared, own, further_shared, further_own } = self;
        let (each_shared, each_own) = self.each_further();
        write!(
            f,
            "user memory of {connections} idle WebSockets on a gateway that was just started, bytes each\n\n\
             a shared channel                           {shared:>8}\n\
             an own user and channel                    {own:>8}\n\
             {} channels, {FURTHER} of them of {OF}           {further_shared:>8}  ({each_shared:.0} each further)\n\
             an own user and {} own channels            {further_own:>8}  ({each_own:.0} each further)",
            FURTHER + 1,
            FURTHER + 1,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Standing;
    use super::*;

    #[test]
    fn each_row_is_held_to_its_own_limit_and_has_to_be_a_size() {
        let standings = |shared, own, further_shared, further_own| {
            let report = Report { connections: 1, shared, own, further_shared, further_own };
            report.stands().iter().map(|stand| stand.standing).collect::<Vec<_>>()
        };
        let (passed, missed, reported) = (Standing::Passed, Standing::Missed, Standing::Reported);
        assert_eq!(standings(1_024, 1_536, 2_560, 9_999), [passed, passed, passed, reported]);
        for broken in
            [(0, 1_000, 900, 5_000), (600, 0, 900, 5_000), (600, 1_000, 600, 5_000), (600, 1_000, 900, 900)]
        {
            let (shared, own, further_shared, further_own) = broken;
            let report = Report { connections: 1, shared, own, further_shared, further_own };
            assert!(report.checked().is_err(), "{broken:?}");
        }
        assert_eq!(standings(1_025, 1_537, 2_562, 0), [missed, missed, missed, reported]);
    }
}
