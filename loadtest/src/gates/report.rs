//! How the gates stand, in a table.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::GatesOptions;
use crate::compare;

/// Of one gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Within its limit, and nothing was lost or came twice.
    Passed,
    /// Not so.
    Missed,
    /// It could not be measured.
    Unmeasured,
    /// It has no limit.
    Reported,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Stand {
    pub(super) gate: String,
    pub(super) is: String,
    pub(super) limit: String,
    pub(super) standing: Standing,
}

impl Stand {
    pub(super) fn of(gate: &str, is: String, limit: String, passed: bool) -> Self {
        let standing = if passed { Standing::Passed } else { Standing::Missed };
        Self { gate: gate.to_owned(), is, limit, standing }
    }

    pub(super) fn unmeasured(gate: &str, why: String) -> Self {
        Self { gate: gate.to_owned(), is: why, limit: String::new(), standing: Standing::Unmeasured }
    }

    pub(super) fn reported(gate: &str, is: String) -> Self {
        Self { gate: gate.to_owned(), is, limit: String::new(), standing: Standing::Reported }
    }
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What they were measured with.
    pub options: GatesOptions,
    /// How long it took.
    pub minutes: f64,
    pub(super) stands: Vec<Stand>,
    /// The whole report of each, by title.
    figures: BTreeMap<String, serde_json::Value>,
    /// What each prints by itself, in order.
    #[serde(skip)]
    pub(super) texts: Vec<(String, String)>,
    /// Those that are plotted.
    #[serde(skip)]
    pub(super) compared: Vec<compare::Report>,
}

impl Report {
    pub(super) fn new(options: GatesOptions) -> Self {
        let (stands, texts, compared) = (Vec::new(), Vec::new(), Vec::new());
        Self { options, minutes: 0.0, stands, figures: BTreeMap::new(), texts, compared }
    }

    pub(super) fn add(
        &mut self,
        title: &str,
        measured: &(impl Serialize + fmt::Display),
        stands: Vec<Stand>,
    ) {
        self.stands.extend(stands);
        self.figures.insert(title.to_owned(), serde_json::to_value(measured).unwrap_or_default());
        self.texts.push((title.to_owned(), measured.to_string()));
    }

    fn count(&self, standing: Standing) -> usize {
        self.stands.iter().filter(|stand| stand.standing == standing).count()
    }

    /// Every gate was measured and is passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.count(Standing::Passed) > 0 && self.count(Standing::Missed) == 0 && self.is_whole()
    }

    /// Every gate was measured.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.count(Standing::Unmeasured) == 0
    }

    /// What was asked for, in one line.
    #[must_use]
    pub fn title(&self) -> String {
        let GatesOptions { sockets, seconds, pairs, .. } = self.options;
        format!(
            "{sockets} connections, {seconds} s each, medians of {pairs} pairs; {:.0} minutes",
            self.minutes
        )
    }

    /// How they stand together.
    #[must_use]
    pub fn verdict(&self) -> String {
        let stands = if self.passed() { "passed" } else { "missed" };
        let all = self.stands.len() - self.count(Standing::Reported);
        format!("GATES {stands}: {} of {all} passed", self.count(Standing::Passed))
    }
}

impl Standing {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Missed => "MISSED",
            Self::Unmeasured => "NOT MEASURED",
            Self::Reported => "-",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title())?;
        for Stand { gate, is, limit, standing } in &self.stands {
            writeln!(
                f,
                "{:14}{gate:38}{is}{}{limit}",
                standing.word(),
                if limit.is_empty() { "" } else { ", " }
            )?;
        }
        write!(f, "\n{}", self.verdict())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use super::*;

    pub(in crate::gates) fn report(stands: Vec<Stand>) -> Report {
        let options =
            GatesOptions { sockets: 10, seconds: 1, pairs: 2, with_nchan: true, loadtest: PathBuf::new() };
        Report { stands, ..Report::new(options) }
    }

    pub(in crate::gates) fn stand(passed: bool) -> Stand {
        Stand::of("idle", "0.5 cores".to_owned(), "at most 1".to_owned(), passed)
    }

    #[test]
    fn one_that_is_missed_misses_all_and_what_was_not_measured_passes_nothing() {
        let reported = || Stand::reported("memory", "244 bytes".to_owned());
        assert!(report(vec![stand(true), reported()]).passed());
        assert!(!report(vec![stand(true), stand(false)]).passed());
        assert!(!report(vec![reported()]).passed());
        assert!(!report(Vec::new()).passed());
        let failed = report(vec![stand(true), Stand::unmeasured("idle", "no process".to_owned())]);
        assert!(!failed.passed() && !failed.is_whole(), "{failed}");
        let text = report(vec![stand(true), stand(false), stand(true), reported()]).to_string();
        assert!(text.contains("MISSED        idle") && text.contains("0.5 cores, at most 1\n"), "{text}");
        assert!(text.ends_with("GATES missed: 2 of 3 passed"), "{text}");
    }
}
