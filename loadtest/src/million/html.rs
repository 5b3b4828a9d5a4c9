//! The report as one HTML file: two tables and a plot. It loads nothing and runs nothing.

use std::fmt::Write as _;

use super::machine::Sample;
use super::report::{Report, Row};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 30.0;
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:800px;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}\
    td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}svg text{font-size:12px;fill:#555}\
    .passed{color:#17703a}.missed{color:#b3261e}";

/// Makes it of a report.
#[must_use]
pub fn html(report: &Report) -> String {
    let (title, class) = (report.title(), if report.passed { "passed" } else { "missed" });
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\n\
         <h1>A million connections</h1>\n<p>{title}.</p>\n<p class=\"{class}\"><strong>{}</strong></p>\n\
         <table><tr><th>memory<th>before, MiB<th>with, MiB<th>bytes each</tr>\n",
        report.to_string().lines().last().unwrap_or_default()
    );
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
    let seconds: Vec<f64> = report.points.iter().map(|point| point.seconds).collect();
    let open: Vec<f64> = report.points.iter().map(|point| point.open as f64).collect();
    page.push_str(&plot(&seconds, &[("connections", "#0b57d0", open)]));
    page.push_str("<h2>Memory while opening, MiB</h2>\n");
    let mib = |of: fn(&Sample) -> u64| -> Vec<f64> {
        report.points.iter().map(|point| (of(&point.memory) >> 20) as f64).collect()
    };
    page.push_str(&plot(
        &seconds,
        &[
            ("gateways", "#0b57d0", mib(|sample| sample.gateways)),
            ("routers", "#c2570c", mib(|sample| sample.routers)),
            ("registry", "#17703a", mib(|sample| sample.registry)),
            ("clients", "#888888", mib(|sample| sample.clients)),
            ("kernel", "#b3261e", mib(|sample| sample.machine.slab_bytes)),
        ],
    ));
    page.push_str("</html>\n");
    page
}

/// Lines over seconds; the vertical axis begins at nothing.
fn plot(seconds: &[f64], lines: &[(&str, &str, Vec<f64>)]) -> String {
    let x_to = seconds.iter().copied().fold(0.0, f64::max);
    let y_to = lines.iter().flat_map(|(_, _, values)| values).copied().fold(0.0, f64::max);
    if !(x_to > 0.0 && y_to > 0.0) {
        return "<p>It was over before it could be drawn.</p>\n".to_owned();
    }
    let x = |value: f64| LEFT + value / x_to * (WIDTH - LEFT - 20.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / y_to * (HEIGHT - BOTTOM - 30.0);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n");
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let (at_x, at_y) = (x_to * share, y_to * share);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#ddd\"/><text x=\"{2:.1}\" y=\"{0:.1}\" text-anchor=\"end\">{at_y:.0}</text>\
             <text x=\"{3:.1}\" y=\"{4}\" text-anchor=\"middle\">{at_x:.0} s</text>",
            y(at_y),
            WIDTH - 20.0,
            LEFT - 6.0,
            x(at_x),
            HEIGHT - 8.0
        );
    }
    for (number, (name, color, values)) in lines.iter().enumerate() {
        let mut path = String::new();
        for (at, value) in seconds.iter().zip(values) {
            let _ = write!(path, "{}{:.1} {:.1}", if path.is_empty() { 'M' } else { 'L' }, x(*at), y(*value));
        }
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>\
             <text x=\"{}\" y=\"16\" style=\"fill:{color}\">{name}</text>",
            LEFT + number as f64 * 100.0
        );
    }
    svg + "</svg>\n"
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
