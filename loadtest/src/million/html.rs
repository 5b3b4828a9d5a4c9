//! The report as one HTML file: two tables and a plot. It loads nothing and runs nothing.

use std::fmt::Write as _;

use super::report::{Point, Report, Row};
use crate::page::{COLORS, Line, head, plot, trimmed, verdict};

/// Makes it of a report.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut page = head(&report.title(), "A million connections");
    page.push_str(&verdict(report.passed, report.to_string().lines().last().unwrap_or_default()));
    page.push_str("<table><tr><th>memory<th>before, MiB<th>with, MiB<th>bytes each</tr>\n");
    for Row { name, empty, open, each } in report.rows() {
        let _ = writeln!(page, "<tr><td>{name}<td>{}<td>{}<td>{each:.0}</tr>", empty >> 20, open >> 20);
    }
    let _ = writeln!(
        page,
        "<tr><td>the machine has left<td>{}<td>{}<td>{:.0}</tr></table>\n<p>One event to all: {}.</p>\n\
         <p>Events to one user each: {}.</p>",
        report.empty.machine.available_bytes >> 20,
        report.open.machine.available_bytes >> 20,
        report.machine_each(),
        report.broadcast,
        report.unicasts
    );
    if let Some(idle) = &report.idle {
        let _ = writeln!(
            page,
            "<p>Idle for {} s: the gateways used {:.3} cores, {:.3} for 1,000,000 connections; routers {:.3}, registry {:.3}.</p>",
            idle.seconds,
            idle.cores.gateways,
            idle.cores_per_million,
            idle.cores.routers,
            idle.cores.registry
        );
    }
    page.push_str("<h2>Opening</h2>\n");
    page.push_str(&plot(&[line(report, "connections", COLORS[0], |point| point.open)], "s", "", trimmed));
    page.push_str("<h2>Memory while opening, MiB</h2>\n");
    let lines = [
        line(report, "gateways", COLORS[0], |point| point.memory.gateways >> 20),
        line(report, "routers", COLORS[1], |point| point.memory.routers >> 20),
        line(report, "registry", COLORS[2], |point| point.memory.registry >> 20),
        line(report, "clients", COLORS[5], |point| point.memory.clients >> 20),
        line(report, "kernel", COLORS[4], |point| point.memory.machine.slab_bytes >> 20),
    ];
    page.push_str(&plot(&lines, "s", "", trimmed));
    page.push_str("</html>\n");
    page
}

/// How one figure went while connections opened.
fn line(report: &Report, name: &str, color: &'static str, of: fn(&Point) -> u64) -> Line {
    let points = report.points.iter().map(|point| (point.seconds, of(point) as f64)).collect();
    Line { name: name.to_owned(), color, points }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::million::report::tests::report;

    #[test]
    fn the_page_has_every_part_and_a_verdict_and_loads_nothing() {
        let page = html(&report());
        for wanted in ["class=\"missed\"", "<td>gateways<td>0<td>2<td>2000", "lost 1", "0.500 for 1,000,000"]
        {
            assert!(page.contains(wanted), "{wanted}: {page}");
        }
        assert_eq!(page.matches("<svg").count(), 2);
        for banned in ["<script", "http://", "https://", "NaN", "inf"] {
            assert!(!page.contains(banned), "{banned}");
        }
    }
}
