//! What publishers and subscribers saw, as JSON lines: written while a run lasts, read by the judge.
//!
//! A directory holds `run.json` (what was meant to happen) and four files of lines: `publishes.jsonl`,
//! `clients.jsonl`, `faults.jsonl` and `samples.jsonl`. Times are microseconds since the run began, by one clock. The last
//! line of each file is `{"kind":"end","lines":N}`: a history that was cut short is refused. **Does not** judge.

mod line;
mod read;
mod write;

pub use line::{
    Action, ClientLine, ClientPlan, Cluster, Delivery, FaultLine, PublishLine, Receiving, Run, Sample,
    SampleLine,
};
pub use read::{History, HistoryError};
pub use write::{HistoryWriter, LineSender, Writers};

/// What was meant to happen.
pub const RUN_FILE: &str = "run.json";
/// What publishers did.
pub const PUBLISHES_FILE: &str = "publishes.jsonl";
/// What subscribers were given, before anything is deduplicated.
pub const CLIENTS_FILE: &str = "clients.jsonl";
/// What was done to processes.
pub const FAULTS_FILE: &str = "faults.jsonl";
/// Counters of the processes, once a second.
pub const SAMPLES_FILE: &str = "samples.jsonl";

#[cfg(test)]
mod tests {
    use super::*;

    fn written(directory: &std::path::Path) -> std::path::PathBuf {
        let run = Run {
            run: "r".into(),
            seconds: 1,
            rate: 1,
            partitions: 1,
            channels: vec!["a".into()],
            clients: Vec::new(),
            cluster: Cluster::default(),
        };
        let (history, writers) = HistoryWriter::create(directory, &run).expect("created");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            for t_us in 0..3 {
                let (client, connection, channel, reason) = (1, 1, "a".to_owned(), "slow".to_owned());
                writers.clients.write(&ClientLine::Gap { t_us, client, connection, channel, reason }).await;
            }
        });
        drop(writers);
        history.finish().expect("written");
        directory.join(CLIENTS_FILE)
    }

    #[test]
    fn what_was_written_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        written(directory.path());
        assert_eq!(History::read(directory.path()).expect("whole").clients.len(), 3);
    }

    #[test]
    fn whatever_is_cut_off_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = written(directory.path());
        let text = std::fs::read_to_string(&path).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        let without = |from: usize, to: usize| {
            lines[..from].iter().chain(&lines[to..]).map(|l| format!("{l}\n")).collect()
        };
        let cuts: [String; 5] = [
            String::new(),
            without(3, 4),
            without(1, 2),
            text[..text.len() / 2].to_owned(),
            format!("{text}{}\n", lines[0]),
        ];
        for cut in cuts {
            std::fs::write(&path, &cut).expect("written");
            let read = History::read(directory.path());
            assert!(matches!(&read, Err(HistoryError::Truncated(_))), "{cut}: {read:?}");
        }
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(History::read(directory.path()), Err(HistoryError::Unreadable(..))));
    }
}
