//! What reports as HTML have in common: a style and plots, drawn here. They load nothing and run nothing.

use std::fmt::Write as _;

/// The size of a plot, and what its axes take of it.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 40.0;
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:800px;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}\
    td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}svg text{font-size:12px;fill:#555}\
    .passed{color:#17703a}.missed{color:#b3261e}";
/// For lines that have no colour of their own.
pub(crate) const COLORS: [&str; 6] = ["#0b57d0", "#c2570c", "#17703a", "#8430ce", "#b3261e", "#5f6368"];

/// One line of a plot.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) color: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// The beginning of a page.
pub(crate) fn head(title: &str, heading: &str) -> String {
    let (title, heading) = (escape(title), escape(heading));
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\n\
         <h1>{heading}</h1>\n<p>{title}.</p>\n"
    )
}

/// Whether it was good, and what is said of it.
pub(crate) fn verdict(passed: bool, text: &str) -> String {
    let class = if passed { "passed" } else { "missed" };
    format!("<p class=\"{class}\"><strong>{}</strong></p>\n", escape(text))
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
        let (mut path, name) = (String::new(), escape(name));
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
