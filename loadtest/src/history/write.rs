//! Writing a history: one thread a file, so that neither a publisher nor a subscriber waits for a disk.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::marker::PhantomData;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    CLIENTS_FILE, ClientLine, FAULTS_FILE, FaultLine, PUBLISHES_FILE, PublishLine, RUN_FILE, Run,
    SAMPLES_FILE, SampleLine,
};

/// Lines that may wait for a disk; then whoever writes waits too, and the run shows it.
const WAITING_LINES_LIMIT: usize = 100_000;

/// Takes lines for one file.
#[derive(Debug)]
pub struct LineSender<L> {
    lines: mpsc::Sender<Vec<u8>>,
    kind: PhantomData<fn(L)>,
}

impl<L> Clone for LineSender<L> {
    fn clone(&self) -> Self {
        Self { lines: self.lines.clone(), kind: PhantomData }
    }
}

impl<L: Serialize> LineSender<L> {
    /// Writes a line. One that cannot be written is missed by the judge: the file then has no end.
    pub async fn write(&self, line: &L) {
        if let Ok(mut text) = serde_json::to_vec(line) {
            text.push(b'\n');
            let _ = self.lines.send(text).await;
        }
    }
}

/// One sender for each file, and the clock of the run.
#[derive(Debug, Clone)]
pub struct Writers {
    /// `publishes.jsonl`.
    pub publishes: LineSender<PublishLine>,
    /// `clients.jsonl`.
    pub clients: LineSender<ClientLine>,
    /// `faults.jsonl`.
    pub faults: LineSender<FaultLine>,
    /// `samples.jsonl`.
    pub samples: LineSender<SampleLine>,
    began: Instant,
}

impl Writers {
    /// Microseconds since the run began.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// The files of a history that is being written.
#[derive(Debug)]
pub struct HistoryWriter {
    files: Files,
}

impl HistoryWriter {
    /// Makes the directory and its files; older ones are replaced.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn create(directory: &Path, run: &Run) -> anyhow::Result<(Self, Writers)> {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let run_path = directory.join(RUN_FILE);
        std::fs::write(&run_path, serde_json::to_vec_pretty(run)?)
            .with_context(|| format!("cannot write {}", run_path.display()))?;
        let mut files = Vec::new();
        let writers = Writers {
            publishes: open(directory, PUBLISHES_FILE, &mut files)?,
            clients: open(directory, CLIENTS_FILE, &mut files)?,
            faults: open(directory, FAULTS_FILE, &mut files)?,
            samples: open(directory, SAMPLES_FILE, &mut files)?,
            began: Instant::now(),
        };
        Ok((Self { files }, writers))
    }

    /// Ends the files: only now they are whole. Every [`Writers`] must have been dropped.
    ///
    /// # Errors
    /// When a file could not be written.
    pub fn finish(self) -> anyhow::Result<()> {
        for (name, file) in self.files {
            let written = file.join().map_err(|_| anyhow::anyhow!("the writer of {name} panicked"))?;
            let ended = written.and_then(|(mut file, count)| {
                writeln!(file, "{{\"kind\":\"end\",\"lines\":{count}}}")?;
                file.flush()
            });
            ended.with_context(|| format!("cannot write {name}; is the disk full?"))?;
        }
        Ok(())
    }
}

/// Each file's name, and the thread that writes it and counts its lines.
type Files = Vec<(&'static str, JoinHandle<std::io::Result<(BufWriter<File>, u64)>>)>;

fn open<L>(directory: &Path, name: &'static str, files: &mut Files) -> anyhow::Result<LineSender<L>> {
    let path = directory.join(name);
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let (lines, waiting) = mpsc::channel(WAITING_LINES_LIMIT);
    files.push((name, std::thread::spawn(move || write_all(BufWriter::new(file), waiting))));
    Ok(LineSender { lines, kind: PhantomData })
}

fn write_all(
    mut file: BufWriter<File>,
    mut waiting: mpsc::Receiver<Vec<u8>>,
) -> std::io::Result<(BufWriter<File>, u64)> {
    let mut count = 0_u64;
    while let Some(line) = waiting.blocking_recv() {
        file.write_all(&line)?;
        count += 1;
    }
    file.flush()?;
    Ok((file, count))
}
