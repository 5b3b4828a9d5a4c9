//! Reading a history back, and refusing one from which nothing can be concluded.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::{
    CLIENTS_FILE, ClientLine, FAULTS_FILE, FaultLine, PUBLISHES_FILE, PublishLine, RUN_FILE, Run,
    SAMPLES_FILE, Sample, SampleLine,
};

/// A whole history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// What was meant to happen.
    pub run: Run,
    /// What publishers did, in the order it was written.
    pub publishes: Vec<PublishLine>,
    /// What subscribers were given, in the order it came.
    pub clients: Vec<ClientLine>,
    /// What was done to processes.
    pub faults: Vec<FaultLine>,
    /// Their counters.
    pub samples: Vec<Sample>,
}

/// Why a history cannot be judged.
#[derive(Debug)]
pub enum HistoryError {
    /// A file is missing or cannot be read.
    Unreadable(PathBuf, std::io::Error),
    /// A line is none of a history.
    BadLine(PathBuf, usize, serde_json::Error),
    /// The file has no end, or its end counts other lines: the run was cut short, or the file was.
    Truncated(PathBuf),
}

impl std::error::Error for HistoryError {}

impl std::fmt::Display for HistoryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(
                    f,
                    "{} cannot be read: {error}; --history takes the directory of a run",
                    path.display()
                )
            }
            Self::BadLine(path, line, error) => {
                write!(f, "{}, line {line}, is no line of a history: {error}", path.display())
            }
            Self::Truncated(path) => write!(
                f,
                "{} is truncated: its last line must be an \"end\" that counts the others; run it again",
                path.display()
            ),
        }
    }
}

impl History {
    /// Reads a directory.
    ///
    /// # Errors
    /// When a file is missing, malformed or truncated.
    pub fn read(directory: &Path) -> Result<Self, HistoryError> {
        let path = directory.join(RUN_FILE);
        let text = std::fs::read(&path).map_err(|error| HistoryError::Unreadable(path.clone(), error))?;
        let run = serde_json::from_slice(&text).map_err(|error| HistoryError::BadLine(path, 1, error))?;
        let samples = lines(&directory.join(SAMPLES_FILE), |line| match line {
            SampleLine::End { lines } => Some(*lines),
            SampleLine::Sample(_) => None,
        })?;
        Ok(Self {
            run,
            publishes: lines(&directory.join(PUBLISHES_FILE), |line| match line {
                PublishLine::End { lines } => Some(*lines),
                _ => None,
            })?,
            clients: lines(&directory.join(CLIENTS_FILE), |line| match line {
                ClientLine::End { lines } => Some(*lines),
                _ => None,
            })?,
            faults: lines(&directory.join(FAULTS_FILE), |line| match line {
                FaultLine::End { lines } => Some(*lines),
                FaultLine::Fault { .. } => None,
            })?,
            samples: samples
                .into_iter()
                .filter_map(|line| match line {
                    SampleLine::Sample(sample) => Some(sample),
                    SampleLine::End { .. } => None,
                })
                .collect(),
        })
    }
}

/// The lines before the end, which must be there and count them.
fn lines<L: DeserializeOwned>(path: &Path, end: impl Fn(&L) -> Option<u64>) -> Result<Vec<L>, HistoryError> {
    let unreadable = |error| HistoryError::Unreadable(path.to_owned(), error);
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut lines = Vec::new();
    let mut ended = None;
    for (at, text) in BufReader::new(file).lines().enumerate() {
        let text = text.map_err(unreadable)?;
        if ended.is_some() {
            return Err(HistoryError::Truncated(path.to_owned()));
        }
        let line = match serde_json::from_str(&text) {
            Ok(line) => line,
            // Half a line at the end is what a run leaves that was killed.
            Err(error) if error.is_eof() => return Err(HistoryError::Truncated(path.to_owned())),
            Err(error) => return Err(HistoryError::BadLine(path.to_owned(), at + 1, error)),
        };
        match end(&line) {
            Some(count) => ended = Some(count),
            None => lines.push(line),
        }
    }
    if ended == Some(lines.len() as u64) { Ok(lines) } else { Err(HistoryError::Truncated(path.to_owned())) }
}
