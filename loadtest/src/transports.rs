//! `loadtest transports`: what each of the five transports costs, by which people choose.
//!
//! **Owns** five runs of one scenario, a channel that everyone follows, each over another transport and, as far as there are
//! enough, on another gateway: what one run leaves in a process is not the next one's.

use std::fmt;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

use crate::history::Receiving;
use crate::page::{COLORS, Line, escape, head, plot, trimmed};
use crate::run::{RunOptions, RunReport, Servers, run};
use crate::scenario::{Clients, Kind, Publish, Scenario, Shape};

/// What shall be measured.
#[derive(Debug, Clone, Serialize)]
pub struct TransportsOptions {
    /// Of each transport.
    pub connections: u64,
    /// Events a second, each to every connection.
    pub rate: f64,
    /// Bytes of each event's data.
    pub bytes: usize,
    /// For each transport.
    pub seconds: u64,
    /// Between two short polls.
    pub poll_interval_ms: u64,
    /// Wait for memory to settle: otherwise the figures of memory mean little.
    pub settles: bool,
    /// This program: it starts the receivers.
    #[serde(skip)]
    pub loadtest: PathBuf,
}

/// All five.
#[derive(Debug, Clone, Serialize)]
pub struct TransportsReport {
    /// What was asked for.
    pub options: TransportsOptions,
    /// One for each.
    pub rows: Vec<Row>,
    /// Everything that was measured.
    pub runs: Vec<RunReport>,
}

/// One transport.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which.
    pub transport: Receiving,
    /// Bytes from the server for each delivery beside the event's data, above TCP.
    pub overhead_bytes: f64,
    /// Bytes to the server for each delivery: requests of polls.
    pub request_bytes: f64,
    /// From when an event was due until it was read.
    pub p50_ms: f64,
    /// From when an event was due until it was read.
    pub p99_ms: f64,
    /// Processor time of the gateway for each delivery; nothing when its process is not known.
    pub cpu_us_per_delivery: Option<f64>,
    /// User memory of the gateway for each idle connection.
    pub idle_bytes: Option<f64>,
    /// Deliveries that never came.
    pub lost: u64,
    /// That came again.
    pub twice: u64,
}

impl Row {
    fn new(transport: Receiving, bytes: usize, report: &RunReport) -> anyhow::Result<Self> {
        let group = report.groups.first().context("a run without a group")?;
        Ok(Self {
            transport,
            overhead_bytes: group.bytes_per_delivery - bytes as f64,
            request_bytes: group.request_bytes_per_delivery,
            p50_ms: group.latency.p50_ms,
            p99_ms: group.latency.p99_ms,
            cpu_us_per_delivery: report.deliveries_per_cpu_second.map(|deliveries| 1e6 / deliveries),
            idle_bytes: report.bytes_per_connection,
            lost: group.lost,
            twice: group.twice,
        })
    }
}

/// As people call it.
fn shown(transport: Receiving) -> &'static str {
    match transport {
        Receiving::Ws => "WebSocket",
        Receiving::Sse => "Server-Sent Events",
        Receiving::Ndjson => "HTTP streaming",
        Receiving::LongPoll => "long polling",
        Receiving::ShortPoll => "short polling",
    }
}

impl TransportsOptions {
    fn scenario(&self, transport: Receiving) -> Scenario {
        Scenario {
            about: format!("one channel, {}", shown(transport)),
            seconds: self.seconds,
            warm_up_seconds: 2,
            ramp_rate: 2_000.0,
            channels: Shape::Shared,
            clients: vec![Clients {
                transport,
                connections: self.connections,
                name: None,
                poll_interval_ms: self.poll_interval_ms,
            }],
            publish: Publish { rate: self.rate, bytes: self.bytes, kind: Kind::Durable },
            storm: None,
        }
    }
}

/// Measures all five, one after the other.
///
/// # Errors
/// As [`run`].
pub async fn transports(
    options: &TransportsOptions,
    servers: &Servers,
    progress: impl Fn(&str),
) -> anyhow::Result<TransportsReport> {
    let (mut rows, mut runs) = (Vec::new(), Vec::new());
    for (nth, transport) in Receiving::ALL.into_iter().enumerate() {
        let scenario = options.scenario(transport);
        scenario.check()?;
        let run_options = RunOptions {
            name: shown(transport).to_owned(),
            scenario,
            servers: servers.clone().with_gateway(nth),
            loadtest: options.loadtest.clone(),
            least_workers: 1,
            settles: options.settles,
            planted_drop: None,
        };
        let title = format!("{:18}", shown(transport));
        let running = run(&run_options, |line| progress(&format!("{title}  {line}")));
        let report = running.await.with_context(|| shown(transport).to_owned())?;
        let mut row = Row::new(transport, options.bytes, &report)?;
        if nth >= servers.public.len() {
            row.idle_bytes = None; // Its process holds what the run before it has left.
        }
        progress(&format!(
            "{title}  p50 {:.2} ms, p99 {:.2} ms, lost {}\n",
            row.p50_ms, row.p99_ms, row.lost
        ));
        rows.push(row);
        runs.push(report);
    }
    Ok(TransportsReport { options: options.clone(), rows, runs })
}

const HEADS: [&str; 9] = [
    "transport",
    "overhead, B",
    "requests, B",
    "p50 ms",
    "p99 ms",
    "CPU, µs",
    "idle memory, B",
    "lost",
    "twice",
];

impl TransportsReport {
    /// What was asked for, in one line.
    #[must_use]
    pub fn title(&self) -> String {
        let TransportsOptions { connections, rate, bytes, seconds, poll_interval_ms, .. } = &self.options;
        format!(
            "{connections} connections of each transport on one channel, {rate}/s of {bytes} B, {seconds} s each, short polls \
             every {poll_interval_ms} ms"
        )
    }

    /// Whether everything came, once.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.runs.iter().all(|run| run.good)
    }

    fn cells(row: &Row) -> [String; HEADS.len()] {
        let or_dash = |figure: Option<f64>, digits| {
            figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.digits$}"))
        };
        [
            shown(row.transport).to_owned(),
            format!("{:.0}", row.overhead_bytes),
            format!("{:.0}", row.request_bytes),
            format!("{:.1}", row.p50_ms),
            format!("{:.1}", row.p99_ms),
            or_dash(row.cpu_us_per_delivery, 1),
            or_dash(row.idle_bytes, 0),
            row.lost.to_string(),
            row.twice.to_string(),
        ]
    }
}

/// A table in Markdown.
impl fmt::Display for TransportsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:\n", self.title())?;
        writeln!(f, "| {} |", HEADS.join(" | "))?;
        writeln!(f, "|---|{}", "---:|".repeat(HEADS.len() - 1))?;
        for row in &self.rows {
            writeln!(f, "| {} |", Self::cells(row).join(" | "))?;
        }
        write!(
            f,
            "\nOverhead: bytes from the server for each delivery beside the event's data, above TCP. Requests: bytes to the \
             server for each delivery. CPU: of the gateway, for each delivery. Idle memory: user memory of the gateway for \
             each connection before anything was published; only where the gateway served no other transport before."
        )
    }
}

/// The report as one HTML file.
#[must_use]
pub fn html(report: &TransportsReport) -> String {
    let mut page = head(&report.title(), "What each transport costs");
    let _ = writeln!(page, "<table><tr><th>{}</tr>", HEADS.join("<th>"));
    for row in &report.rows {
        let cells = TransportsReport::cells(row).map(|cell| escape(&cell));
        let _ = writeln!(page, "<tr><td>{}</tr>", cells.join("<td>"));
    }
    page.push_str("</table>\n");
    for (heading, of) in [
        ("Latency, p50", (|second| second.p50_ms) as fn(&crate::run::Second) -> f64),
        ("Latency, p99", |second| second.p99_ms),
    ] {
        let line = |(run, color): (&RunReport, &'static str)| Line {
            name: run.name.clone(),
            color,
            points: run
                .groups
                .iter()
                .flat_map(|group| &group.seconds)
                .map(|second| (second.at, of(second)))
                .collect(),
        };
        let lines: Vec<_> = report.runs.iter().zip(COLORS.iter().copied().cycle()).map(line).collect();
        let _ = writeln!(
            page,
            "<h2>{heading}</h2>\n<p>Of what came in each second of a run; the warm-up too.</p>"
        );
        page.push_str(&plot(&lines, "s", " ms", trimmed));
    }
    page + "</html>\n"
}
