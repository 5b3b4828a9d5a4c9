//! Answers of commands: a table for people, JSON for scripts.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::{Failure, print_line};

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Columns, for people.
    Table,
    /// JSON, for scripts: one line.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// How the answer is written
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl OutputArgs {
    /// Prints `value` as JSON, or what `table` makes of it.
    pub(super) fn print<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> Vec<String>,
    ) -> Result<(), Failure> {
        match self.output {
            Output::Json => {
                let json = serde_json::to_string(value);
                print_line(&json.map_err(|error| Failure::refused(error.to_string()))?)
            }
            Output::Table => table(value).iter().try_for_each(|line| print_line(line)),
        }
    }
}

/// Lines with columns as wide as their widest cell; the first row is the heading.
pub(super) fn columns<const N: usize>(heading: [&str; N], rows: Vec<[String; N]>) -> Vec<String> {
    let mut widths = heading.map(|cell| cell.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; N]| {
        let padded: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let heading = heading.map(str::to_owned);
    std::iter::once(&heading).chain(&rows).map(line).collect()
}

/// How long ago a second since the Unix epoch was, by this machine's clock.
pub(super) fn age(unix_s: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = now.saturating_sub(unix_s);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_have_no_trailing_space() {
        let rows = vec![["a".to_owned(), "long".to_owned()], ["bcd".to_owned(), String::new()]];
        assert_eq!(columns(["N", "V"], rows), ["N    V", "a    long", "bcd"]);
    }

    #[test]
    fn ages_have_two_units() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        assert!(age(now - 5).ends_with('s') && age(now + 100) == "0s");
        assert!(age(now - 90_000).starts_with("1d 1h"), "{}", age(now - 90_000));
        assert!(age(now - 3_700).starts_with("1h 1m"), "{}", age(now - 3_700));
    }
}
