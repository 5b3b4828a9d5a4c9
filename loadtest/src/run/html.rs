//! The report as one HTML file: tables, and plots of latency and throughput over time.

use std::fmt::Write as _;

use super::report::{GroupReport, RunReport, Second};
use super::servers::Used;
use crate::page::{COLORS, Line, escape, head, plot, trimmed, verdict};

/// Makes it of a report.
#[must_use]
pub fn html(report: &RunReport) -> String {
    let mut page = head(&report.title(), &report.scenario.about);
    page.push_str(&verdict(report.good, if report.good { "good" } else { "not good" }));
    let _ = writeln!(page, "<p>{}.</p>", escape(&report.spread));
    page.push_str(
        "<table><tr><th>clients<th>connections<th>expected<th>lost<th>twice<th>out of order<th>closed<th>p50 ms<th>p99 ms\
         <th>bytes each</tr>\n",
    );
    for group in &report.groups {
        let GroupReport { name, connections, expected, lost, twice, disordered, closed, latency, .. } = group;
        let _ = writeln!(
            page,
            "<tr><td>{}<td>{connections}<td>{expected}<td>{lost}<td>{twice}<td>{disordered}<td>{closed}<td>{:.2}<td>{:.2}\
             <td>{:.0}</tr>",
            escape(name),
            latency.p50_ms,
            latency.p99_ms,
            group.bytes_per_delivery
        );
    }
    let _ = writeln!(
        page,
        "</table>\n<p>Published {}, failed {}; answered within {:.2} ms (p50), {:.2} ms (p99) of when it was due.</p>",
        report.events, report.failed, report.acks.p50_ms, report.acks.p99_ms
    );
    for failure in report.first_failure.iter() {
        let _ = writeln!(page, "<p class=\"missed\">The first failure: {}</p>", escape(failure));
    }
    servers(&mut page, report);
    let lines = |of: fn(&Second) -> f64| -> Vec<Line> {
        let line = |(group, color): (&GroupReport, &&'static str)| Line {
            name: group.name.clone(),
            color,
            points: group.seconds.iter().map(|second| (second.at, of(second))).collect(),
        };
        report.groups.iter().zip(COLORS.iter().cycle()).map(line).collect()
    };
    let note = "of what came in each second, from when it was due until it was read; the warm-up too";
    let _ = writeln!(page, "<h2>Latency, p99</h2>\n<p>{note}.</p>");
    page.push_str(&plot(&lines(|second| second.p99_ms), "s", " ms", trimmed));
    let _ = writeln!(page, "<h2>Latency, p50</h2>\n<p>{note}.</p>");
    page.push_str(&plot(&lines(|second| second.p50_ms), "s", " ms", trimmed));
    page.push_str("<h2>Throughput</h2>\n<p>Deliveries a second.</p>\n");
    page.push_str(&plot(&lines(|second| second.deliveries_per_second), "s", "/s", trimmed));
    page.push_str("</html>\n");
    page
}

fn servers(page: &mut String, report: &RunReport) {
    if report.servers.is_empty() {
        return;
    }
    page.push_str("<h2>Servers</h2>\n<table><tr><th>process<th>CPU s<th>MiB before<th>MiB open</tr>\n");
    for Used { name, cpu_seconds, memory_before_bytes, memory_open_bytes, .. } in &report.servers {
        let mib = |bytes: &u64| *bytes as f64 / f64::from(1 << 20);
        let _ = writeln!(
            page,
            "<tr><td>{}<td>{cpu_seconds:.2}<td>{:.1}<td>{:.1}</tr>",
            escape(name),
            mib(memory_before_bytes),
            mib(memory_open_bytes)
        );
    }
    page.push_str("</table>\n<ul>");
    if let Some(deliveries) = report.deliveries_per_cpu_second {
        let _ = write!(page, "<li>{deliveries:.0} deliveries per CPU-second of the gateways</li>");
    }
    if let Some(bytes) = report.bytes_per_connection {
        let _ = write!(page, "<li>{bytes:.0} bytes of user memory per connection of the gateways</li>");
    }
    page.push_str("</ul>\n");
}
