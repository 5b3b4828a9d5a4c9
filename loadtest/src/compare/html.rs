//! The report as one HTML file: a table and two plots, drawn here. It loads nothing and runs nothing.

use std::fmt::Write as _;

use super::measure::Measurement;
use super::receive::SLICE_US;
use super::report::Report;
use super::system::System;
use crate::histogram::Histogram;
use crate::page::{Line, escape, head, plot, trimmed, verdict};

/// How finely a latency curve is drawn.
const CURVE_STEPS: u32 = 200;

/// Makes it of a report.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut page = head(&report.title(), "What a delivery costs");
    if let Some(gate) = &report.gate {
        page.push_str(&verdict(gate.passed, &gate.to_string()));
    }
    if let Some(reason) = &report.left_out {
        let _ = writeln!(page, "<p>Not compared: {}</p>", escape(reason));
    }
    page.push_str(&table(report));
    page.push_str("<ul>");
    for ratio in &report.ratios {
        let _ = write!(page, "<li>{}</li>", escape(&ratio.to_string()));
    }
    page.push_str("</ul>\n");
    page.push_str(&plots(report));
    page.push_str("</html>\n");
    page
}

/// Latency and throughput.
pub(crate) fn plots(report: &Report) -> String {
    format!(
        "<h3>Latency</h3>\n<p>From when an event was meant to be sent until a receiver had read it, all pairs.</p>\n{}\
         <h3>Throughput</h3>\n<p>Deliveries a second since the first event was due, mean of the pairs.</p>\n{}",
        latency_plot(report),
        throughput_plot(report)
    )
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
        lines.push(line(one.system, shares.map(point).collect()));
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
        lines.push(line(one.system, sums.iter().enumerate().map(point).collect()));
    }
    plot(&lines, "s", "/s", trimmed)
}

fn line(system: System, points: Vec<(f64, f64)>) -> Line {
    Line { name: system.name().to_owned(), color: color(system), points }
}

fn color(system: System) -> &'static str {
    match system {
        System::Floor => "#888888",
        System::Tidegate => "#0b57d0",
        System::Nchan => "#c2570c",
    }
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
