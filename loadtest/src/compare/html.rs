//! The report as one HTML file: a table and two plots, drawn here. It loads nothing and runs nothing.

use std::fmt::Write as _;

use super::histogram::Histogram;
use super::measure::Measurement;
use super::receive::SLICE_US;
use super::report::Report;
use super::system::System;

/// The size of a plot, and what its axes take of it.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 40.0;
/// How finely a latency curve is drawn.
const CURVE_STEPS: u32 = 200;
pub(crate) const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:800px;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}\
    td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}svg text{font-size:12px;fill:#555}\
    .passed{color:#17703a}.missed{color:#b3261e}";

/// One line of a plot.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    /// As CSS has it.
    pub(crate) color: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Line {
    fn of(system: System, points: Vec<(f64, f64)>) -> Self {
        Self { name: system.name(), color: color(system), points }
    }
}

/// Makes it of a report.
#[must_use]
pub fn html(report: &Report) -> String {
    let title = escape(&report.title());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\n\
         <h1>What a delivery costs</h1>\n<p>{title}.</p>\n"
    );
    if let Some(gate) = &report.gate {
        let class = if gate.passed { "passed" } else { "missed" };
        let _ = writeln!(page, "<p class=\"{class}\"><strong>{gate}</strong></p>");
    }
    if let Some(reason) = &report.left_out {
        let _ = writeln!(page, "<p>Not compared: {}</p>", escape(reason));
    }
    page.push_str(&table(report));
    page.push_str("<ul>");
    for ratio in &report.ratios {
        let _ = write!(page, "<li>{}</li>", escape(&ratio.to_string()));
    }
    page.push_str("</ul>\n<h2>Latency</h2>\n");
    page.push_str(
        "<p>From when an event was meant to be sent until a receiver had read it, all pairs.</p>\n",
    );
    page.push_str(&latency_plot(report));
    page.push_str(
        "<h2>Throughput</h2>\n<p>Deliveries a second since the first event was due, mean of the pairs.</p>\n",
    );
    page.push_str(&throughput_plot(report));
    page.push_str("</html>\n");
    page
}

fn table(report: &Report) -> String {
    let mut table = "<table><tr><th>deliveries<th>per CPU-second<th>per second<th>bytes each<th>p50 ms\
                     <th>p99 ms<th>lost<th>twice</tr>\n"
        .to_owned();
    for one in &report.systems {
        let _ = writeln!(
            table,
            "<tr><td>{}<td>{:.0}<td>{:.0}<td>{:.0}<td>{:.2}<td>{:.2}<td>{}<td>{}</tr>",
            one.system.name(),
            one.deliveries_per_cpu_second,
            one.deliveries_per_second,
            one.bytes_per_delivery,
            one.p50_ms,
            one.p99_ms,
            one.lost,
            one.duplicated
        );
    }
    table + "</table>\n"
}

/// All measurements of a system.
fn all_of(report: &Report, system: System) -> impl Iterator<Item = &Measurement> {
    let all = report.pairs.iter().flat_map(|pair| &pair.measurements);
    all.filter(move |measurement| measurement.system == system)
}

/// Milliseconds on a logarithmic axis, and the share of deliveries that took at most that long.
fn latency_plot(report: &Report) -> String {
    let mut lines = Vec::new();
    for one in &report.systems {
        let mut all = Histogram::default();
        all_of(report, one.system).for_each(|measurement| all.merge(&measurement.latencies));
        let shares = (0..=CURVE_STEPS).map(|step| f64::from(step) / f64::from(CURVE_STEPS));
        let point = |share: f64| ((all.quantile_us(share).max(1) as f64 / 1_000.0).log10(), share * 100.0);
        lines.push(Line::of(one.system, shares.map(point).collect()));
    }
    plot(&lines, "ms", "%", |x| trimmed(10f64.powf(x)))
}

fn throughput_plot(report: &Report) -> String {
    let mut lines = Vec::new();
    for one in &report.systems {
        let (mut sums, mut count) = (Vec::<u64>::new(), 0);
        for measurement in all_of(report, one.system) {
            sums.resize(sums.len().max(measurement.slices.len()), 0);
            sums.iter_mut().zip(&measurement.slices).for_each(|(sum, slice)| *sum += slice);
            count += 1;
        }
        let slice_seconds = SLICE_US as f64 / 1e6;
        let point = |(number, sum): (usize, &u64)| {
            (number as f64 * slice_seconds, *sum as f64 / f64::from(count.max(1)) / slice_seconds)
        };
        lines.push(Line::of(one.system, sums.iter().enumerate().map(point).collect()));
    }
    plot(&lines, "s", "/s", trimmed)
}

fn color(system: System) -> &'static str {
    match system {
        System::Floor => "#888888",
        System::Tidegate => "#0b57d0",
        System::Nchan => "#c2570c",
    }
}

/// Lines over a common range, four steps on each axis. The vertical axis begins at nothing.
pub(crate) fn plot(lines: &[Line], x_unit: &str, y_unit: &str, x_label: impl Fn(f64) -> String) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let x_from = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let x_to = points().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
    let y_to = points().map(|point| point.1).fold(0.0, f64::max);
    if !(x_to > x_from && y_to > 0.0) {
        return "<p>Nothing came.</p>\n".to_owned();
    }
    let x = |value: f64| LEFT + (value - x_from) / (x_to - x_from) * (WIDTH - LEFT - 20.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / y_to * (HEIGHT - BOTTOM - 30.0);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n");
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let (at_x, at_y) = (x_from + (x_to - x_from) * share, y_to * share);
        let (px, py, right, low) = (x(at_x), y(at_y), WIDTH - 20.0, HEIGHT - BOTTOM);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {py:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}{y_unit}</text>\
             <text x=\"{px:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} {x_unit}</text>",
            LEFT - 6.0,
            py + 4.0,
            trimmed(at_y),
            low + 18.0,
            x_label(at_x)
        );
    }
    for (number, Line { name, color, points }) in lines.iter().enumerate() {
        let mut path = String::new();
        for (number, point) in points.iter().enumerate() {
            let _ =
                write!(path, "{}{:.1} {:.1}", if number == 0 { 'M' } else { 'L' }, x(point.0), y(point.1));
        }
        let at = LEFT + number as f64 * 90.0;
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>\
             <text x=\"{at}\" y=\"16\" style=\"fill:{color}\">{name}</text>"
        );
    }
    svg + "</svg>\n"
}

/// With as many digits as a label needs.
pub(crate) fn trimmed(value: f64) -> String {
    match value {
        10_000.0.. => format!("{:.0}k", value / 1_000.0),
        100.0.. | 0.0 => format!("{value:.0}"),
        1.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Scenario;
    use crate::compare::report::tests::report;

    #[test]
    fn the_page_has_every_system_a_verdict_and_plots_and_loads_nothing() {
        let mut report = report(Scenario::Broadcast, &[[100.0, 50.0, 90.0]]);
        report.left_out = Some("<b>".to_owned());
        let page = html(&report);
        for wanted in
            ["class=\"missed\"", "<td>floor", "<td>tidegate", "<td>nchan", "0.500 x floor", "&lt;b&gt;"]
        {
            assert!(page.contains(wanted), "{wanted}");
        }
        assert_eq!(page.matches("<svg").count(), 2);
        for banned in ["<script", "http://", "https://", "NaN", "inf"] {
            assert!(!page.contains(banned), "{banned}");
        }
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(html(&report(Scenario::Saturated, &[])).contains("Nothing came"));
    }
}
