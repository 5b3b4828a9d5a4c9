//! The report as one HTML file that loads nothing: the steps, and two plots.

use std::fmt::Write as _;

use super::report::Report;
use crate::page::{Line, escape, head, plot, trimmed};

/// Between two looks at the lag.
const LOOK_SECONDS: f64 = 0.1;
/// A step that was too much would make all others flat.
const PLOT_MS_LIMIT: f64 = 500.0;

/// Makes it of a report.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut page = head(&report.title(), "The highest rate that is kept up with");
    let _ = write!(
        page,
        "<p><strong>{}</strong></p>\n\
         <table><tr><th>rate/s<th>p50 ms<th>p99 ms<th>lag grew<th>wrong<th></tr>\n",
        escape(&report.verdict())
    );
    for step in &report.steps {
        let _ = writeln!(
            page,
            "<tr><td>{:.0}<td>{:.2}<td>{:.2}<td>{:.0}<td>{}<td class=\"{}\">{}</tr>",
            step.rate,
            step.latency.p50_ms,
            step.latency.p99_ms,
            step.growth,
            step.wrong,
            if step.good() { "passed" } else { "missed" },
            if step.good() { "kept up" } else { "too much" }
        );
    }
    let _ = writeln!(
        page,
        "</table>\n<h2>Latency by rate</h2>\n<p>Milliseconds, all steps; what is above {PLOT_MS_LIMIT} is drawn there.</p>"
    );
    let mut steps: Vec<_> = report.steps.iter().collect();
    steps.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    let p50 = steps.iter().map(|step| (step.rate, step.latency.p50_ms.min(PLOT_MS_LIMIT))).collect();
    let p99 = steps.iter().map(|step| (step.rate, step.latency.p99_ms.min(PLOT_MS_LIMIT))).collect();
    let lines = [
        Line { name: "p50".to_owned(), color: "#0b57d0", points: p50 },
        Line { name: "p99".to_owned(), color: "#b3261e", points: p99 },
    ];
    page.push_str(&plot(&lines, "/s", " ms", trimmed));
    page.push_str("<h2>Lag over time</h2>\n<p>Events that were due and not with the subscribers, in the last two steps.</p>\n");
    let colors = ["#17703a", "#b3261e"];
    let last = &report.steps[report.steps.len().saturating_sub(2)..];
    let lines: Vec<_> = last
        .iter()
        .zip(colors)
        .map(|(step, color)| Line {
            name: if step.good() { "kept up" } else { "too much" }.to_owned(),
            color,
            points: step.lags.iter().enumerate().map(|(at, lag)| (at as f64 * LOOK_SECONDS, *lag)).collect(),
        })
        .collect();
    page.push_str(&plot(&lines, "s", "", trimmed));
    page.push_str("</html>\n");
    page
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn the_page_has_every_step_and_plots_and_loads_nothing() {
        let page = html(&report(&[(100.0, true, true), (110.0, true, false)]));
        for wanted in ["<td>100<td>", "<td>110<td>", "class=\"missed\"", "100 events/s"] {
            assert!(page.contains(wanted), "{wanted}: {page}");
        }
        assert_eq!(page.matches("<svg").count(), 2, "{page}");
        for banned in ["<script", "http://", "https://", "NaN", "inf"] {
            assert!(!page.contains(banned), "{banned}");
        }
        assert!(html(&report(&[])).contains("no rate"));
    }
}
