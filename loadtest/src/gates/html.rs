//! The report as one HTML file: the table, and each gate's own. It loads nothing and runs nothing.

use std::fmt::Write as _;

use super::report::{Report, Stand, Standing};
use crate::compare;
use crate::page::{escape, head, verdict};

/// Makes it of a report.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut page = head(&report.title(), "Every gate");
    page.push_str(&verdict(report.passed(), &report.verdict()));
    page.push_str("<table><tr><th>gate<th>is<th>limit<th></tr>\n");
    for Stand { gate, is, limit, standing } in &report.stands {
        let class = match standing {
            Standing::Passed => "passed",
            Standing::Missed | Standing::Unmeasured => "missed",
            Standing::Reported => "",
        };
        let (gate, is, limit, word) = (escape(gate), escape(is), escape(limit), standing.word());
        let _ = writeln!(page, "<tr><td>{gate}<td>{is}<td>{limit}<td class=\"{class}\">{word}</tr>");
    }
    page.push_str("</table>\n");
    for compared in &report.compared {
        let _ = writeln!(page, "<h2>{}</h2>", escape(&compared.title()));
        page.push_str(&compare::plots(compared));
    }
    for (title, text) in &report.texts {
        let _ = writeln!(page, "<h2>{}</h2>\n<pre>{}</pre>", escape(title), escape(text));
    }
    page.push_str("</html>\n");
    page
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, stand};
    use super::*;

    #[test]
    fn the_page_has_every_gate_and_a_verdict_and_loads_nothing() {
        let mut report = report(vec![stand(true), stand(false)]);
        report.add("idle", &"a < b", Vec::new());
        let page = html(&report);
        for wanted in [
            "GATES missed: 1 of 2 passed",
            "<td class=\"passed\">passed",
            "<td class=\"missed\">MISSED",
            "a &lt; b",
        ] {
            assert!(page.contains(wanted), "{wanted}: {page}");
        }
        for banned in ["<script", "http://", "https://"] {
            assert!(!page.contains(banned), "{banned}");
        }
    }
}
