//! The one thread that appends: takes what waits, gives offsets, commits one batch, syncs, answers.
//!
//! Group commit at its own pace: while one batch is being synced the next gathers in the queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fjall::PersistMode;
use tidegate_vocab::Offset;
use tokio::sync::{mpsc, oneshot};

use super::codec;
use super::failure;
use super::shared::Shared;
use crate::{AppendError, Appended, NewRecord};

/// Records of one batch: bounds how long the first of them waits for the last to be encoded.
const BATCH_ROWS_LIMIT: usize = 1024;
/// Bytes of one batch, and so of what is written between two looks at the free space.
const BATCH_BYTES_LIMIT: usize = 4 * 1024 * 1024;

/// A record that waits for its place.
#[derive(Debug)]
pub(super) struct Pending {
    /// Index into the partitions.
    pub(super) index: usize,
    pub(super) record: NewRecord,
    pub(super) answer: oneshot::Sender<Result<Appended, AppendError>>,
}

impl Pending {
    pub(super) fn bytes(&self) -> usize {
        self.record.bytes()
    }
}

/// Where a partition goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    pub(super) next: u64,
    /// The last record's time: the next one's is not less.
    pub(super) time_ms: u64,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Pending>,
    tails: Vec<Tail>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, queue: mpsc::Receiver<Pending>, tails: Vec<Tail>) -> Self {
        debug_assert_eq!(tails.len(), shared.partitions.len());
        Self { shared, queue, tails }
    }

    /// Returns when the log is closed and everything that waited is answered.
    pub(super) fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let batch = self.gather(first);
            self.tick(batch);
        }
    }

    fn gather(&mut self, first: Pending) -> Vec<Pending> {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while batch.len() < BATCH_ROWS_LIMIT && bytes < BATCH_BYTES_LIMIT {
            let Ok(pending) = self.queue.try_recv() else { break };
            bytes += pending.bytes();
            batch.push(pending);
        }
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        batch
    }

    /// Writes one batch and answers everyone in it.
    fn tick(&mut self, batch: Vec<Pending>) {
        let bytes: usize = batch.iter().map(Pending::bytes).sum();
        let refusal = self.shared.failure().or_else(|| self.shared.check_room(bytes as u64).err());
        if let Some(refusal) = refusal {
            return answer_all(batch, &refusal);
        }
        let mut tails = self.tails.clone();
        match self.commit(&batch, &mut tails) {
            Ok(places) => {
                self.advance(tails);
                for (pending, place) in batch.into_iter().zip(places) {
                    // The caller may have stopped waiting; the record stays.
                    let _ = pending.answer.send(Ok(place));
                }
            }
            Err(error) => self.refuse(batch, &error),
        }
    }

    fn commit(&self, pending: &[Pending], tails: &mut [Tail]) -> fjall::Result<Vec<Appended>> {
        let shared = &self.shared;
        let now_ms = (shared.clock)();
        let mut batch = shared.database.batch().durability(Some(PersistMode::SyncData));
        let mut places = Vec::with_capacity(pending.len());
        for Pending { index, record, .. } in pending {
            // invariant: the index comes from `Shared::index`, and there is one tail for each partition
            let tail = &mut tails[*index];
            let time_ms = tail.time_ms.max(now_ms);
            let key = codec::record_key(shared.partitions[*index].id, tail.next);
            batch.insert(&shared.records, key, codec::record_value(time_ms, record));
            places.push(Appended { offset: Offset(tail.next), time_ms, may_repeat: false });
            *tail = Tail { next: tail.next + 1, time_ms };
        }
        shared.mark_commit(true);
        let outcome = batch.commit();
        shared.mark_commit(false);
        outcome.map(|()| places)
    }

    /// Shows consumers what was synced. Before the answers, so that whoever was answered also reads it.
    fn advance(&mut self, tails: Vec<Tail>) {
        for ((old, new), partition) in self.tails.iter_mut().zip(tails).zip(&self.shared.partitions) {
            if new.next > old.next {
                *old = new;
                self.shared.note_time(new.time_ms);
                partition.raise_watermark(new.next);
            }
        }
    }

    fn refuse(&self, batch: Vec<Pending>, error: &fjall::Error) {
        let lasting = self.shared.stop_writing(error);
        answer_all(batch, &failure::of_batch(error, &lasting));
    }
}

fn answer_all(batch: Vec<Pending>, error: &AppendError) {
    for pending in batch {
        let _ = pending.answer.send(Err(error.clone()));
    }
}
