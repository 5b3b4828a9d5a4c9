//! One worker process, seen from the fleet.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};

use super::WORKER_COMMAND;
use super::count::Tally;
use super::order::{Counts, Order, Said};

/// Ended when dropped.
pub(super) struct Process {
    child: Child,
    input: ChildStdin,
    heard: Arc<Mutex<LastHeard>>,
}

/// What it said last.
#[derive(Default)]
struct LastHeard {
    counts: Counts,
    tallies: Option<(u64, Vec<Tally>)>,
    problem: Option<String>,
}

impl Process {
    pub(super) fn start(loadtest: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(loadtest);
        command.arg(WORKER_COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start a worker: {} {WORKER_COMMAND}", loadtest.display()))?;
        let input = child.stdin.take().context("no input of a worker")?;
        let output = BufReader::new(child.stdout.take().context("no output of a worker")?);
        let heard = Arc::<Mutex<LastHeard>>::default();
        let hearing = Arc::clone(&heard);
        let listen = move || {
            for line in output.lines().map_while(Result::ok) {
                let mut heard = hearing.lock().unwrap_or_else(PoisonError::into_inner);
                match serde_json::from_str(&line) {
                    Ok(Said::Counts(counts)) => heard.counts = counts,
                    Ok(Said::Tallies(number, tallies)) => heard.tallies = Some((number, tallies)),
                    Ok(Said::Problem(problem)) => heard.problem = Some(problem),
                    Err(error) => heard.problem = Some(format!("a worker said {line:?}: {error}")),
                }
            }
            let mut heard = hearing.lock().unwrap_or_else(PoisonError::into_inner);
            heard.problem.get_or_insert_with(|| "a worker of the fleet has ended: see above".to_owned());
        };
        std::thread::Builder::new().name("worker".into()).spawn(listen)?;
        Ok(Self { child, input, heard })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn tell(&mut self, order: &Order) -> anyhow::Result<()> {
        let line = serde_json::to_string(order)?;
        writeln!(self.input, "{line}").context("a worker of the fleet is gone")
    }

    /// Ends it, and does not wait until it has.
    pub(super) fn end(&mut self) {
        let _may_have_ended = self.child.kill();
    }

    /// What it counted when it said so last.
    pub(super) fn counts(&self) -> anyhow::Result<Counts> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match &heard.problem {
            Some(problem) => bail!("{problem}"),
            None => Ok(heard.counts.clone()),
        }
    }

    /// The tallies of this number, once.
    pub(super) fn take_tallies(&self, number: u64) -> Option<Vec<Tally>> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, tallies) = heard.tallies.take_if(|(of, _)| *of == number)?;
        Some(tallies)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        let _then_too = self.child.wait();
    }
}
