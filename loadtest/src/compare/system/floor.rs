//! The floor, as a process of its own: its processor time is nobody else's.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::Context as _;

use super::{Sender, Target};
use crate::compare::CompareOptions;
use crate::compare::open::Door;
use crate::floor::FloorSent;

/// Ended when dropped.
pub(in crate::compare) struct FloorProcess {
    child: Child,
    output: BufReader<ChildStdout>,
}

pub(super) fn target(options: &CompareOptions) -> anyhow::Result<Target> {
    let mut command = Command::new(&options.loadtest);
    let seconds = options.warm_seconds + options.seconds;
    command.args(["floor", "--listen", "127.0.0.1:0", "--begin", "stdin"]);
    command.args(["--sockets", &options.sockets.to_string(), "--seconds", &seconds.to_string()]);
    command.args(["--bytes", &options.floor_bytes.unwrap_or(options.bytes).to_string()]);
    match options.rate() {
        Some(rate) => command.args(["--rate", &rate.to_string()]),
        None => command.arg("--saturated"),
    };
    if let Some(number) = options.planted_drop {
        command.args(["--plant-drop", &number.to_string()]);
    }
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.with_context(|| format!("cannot start {} floor", options.loadtest.display()))?;
    let output = BufReader::new(child.stdout.take().context("no output of the floor")?);
    let mut floor = FloorProcess { child, output };
    let address = floor.line("listening ")?.parse().context("the floor's address")?;
    Ok(Target {
        door: Door { address, path: "/".to_owned(), frames_first: 0 },
        pids: vec![floor.child.id()],
        sender: Sender::Floor(floor),
    })
}

impl FloorProcess {
    /// The next line, behind what it has to begin with.
    fn line(&mut self, prefix: &str) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let rest =
            line.strip_prefix(prefix).with_context(|| format!("the floor said {line:?}, see above"))?;
        Ok(rest.trim().to_owned())
    }

    /// It begins at this time of the shared clock.
    pub(in crate::compare) fn begin(&mut self, at_us: u64) -> anyhow::Result<()> {
        let input = self.child.stdin.as_mut().context("no input of the floor")?;
        writeln!(input, "{at_us}").context("the floor is gone")
    }

    /// Blocks until it has sent everything. Its sockets stay open until it is dropped.
    pub(in crate::compare) fn sent(&mut self) -> anyhow::Result<FloorSent> {
        Ok(serde_json::from_str(&self.line("sent ")?)?)
    }
}

impl Drop for FloorProcess {
    fn drop(&mut self) {
        let _may_have_ended = self.child.kill();
        let _then_too = self.child.wait();
    }
}
