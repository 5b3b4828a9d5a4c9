//! Questions about offsets: log start, high watermark, the offset of a time.
//!
//! librdkafka answers them in blocking calls, so each runs on tokio's blocking pool. A partition asks one question
//! at a time and all together a bounded number: one that nobody answers cannot keep the others from asking.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use tidegate_eventlog::ReadError;
use tidegate_vocab::{Offset, PartitionId};
use tokio::sync::Semaphore;

use crate::observer::Observer;
use crate::shared::{Shared, unreadable};
use crate::threads::Detached;
use crate::turns::Turns;

/// How long brokers may take for one answer.
pub(crate) const QUERY_TIMEOUT: Duration = Duration::from_millis(2_500);
/// How long an asker waits, its turn included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// Questions that may wait for an answer at once, each on a thread.
const QUERIES_LIMIT: usize = 16;

/// Where a partition's log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Range {
    /// Refuses an offset that the log does not have.
    pub(crate) fn check(self, from: Offset) -> Result<(), ReadError> {
        if from.0 < self.start {
            return Err(ReadError::BelowStart { start: Offset(self.start) });
        }
        if from.0 > self.end {
            return Err(ReadError::BeyondEnd { end: Offset(self.end) });
        }
        Ok(())
    }
}

/// The client that asks.
pub(crate) struct Queries {
    shared: Arc<Shared>,
    client: Detached<BaseConsumer<Observer>>,
    slots: Arc<Semaphore>,
    turns: Turns,
}

impl Queries {
    pub(crate) fn new(shared: Arc<Shared>) -> KafkaResult<Arc<Self>> {
        let config = shared.options.finish(shared.options.reader("queries"));
        let client = Detached::new(config.create_with_context(Observer::new(&shared, "queries"))?);
        let turns = Turns::new(shared.options.counts);
        Ok(Arc::new(Self { shared, client, slots: Arc::new(Semaphore::new(QUERIES_LIMIT)), turns }))
    }

    /// The librdkafka client, for the watcher.
    pub(crate) fn client(&self) -> &BaseConsumer<Observer> {
        &self.client
    }

    /// Blocks.
    pub(crate) fn range_now(&self, partition: PartitionId) -> Result<Range, ReadError> {
        let name = self.shared.name(partition.topic);
        let number = i32::try_from(partition.number).unwrap_or(i32::MAX);
        let (start, end) = self.client.fetch_watermarks(name, number, QUERY_TIMEOUT).map_err(unanswered)?;
        match (u64::try_from(start), u64::try_from(end)) {
            (Ok(start), Ok(end)) => Ok(Range { start, end }),
            _ => Err(unreadable("brokers do not tell where the log begins and ends")),
        }
    }

    pub(crate) async fn range(self: &Arc<Self>, partition: PartitionId) -> Result<Range, ReadError> {
        let queries = Arc::clone(self);
        self.ask(partition, move || queries.range_now(partition)).await
    }

    /// The first offset whose record has at least this time; the end when there is none.
    pub(crate) async fn offset_at(
        self: &Arc<Self>,
        partition: PartitionId,
        time_ms: u64,
    ) -> Result<Offset, ReadError> {
        let queries = Arc::clone(self);
        self.ask(partition, move || queries.offset_at_now(partition, time_ms)).await
    }

    fn offset_at_now(&self, partition: PartitionId, time_ms: u64) -> Result<Offset, ReadError> {
        let end = || self.range_now(partition).map(|range| Offset(range.end));
        // Kafka's times are signed: nothing is newer than the newest of them.
        let Ok(time) = i64::try_from(time_ms) else { return end() };
        let name = self.shared.name(partition.topic);
        let number = i32::try_from(partition.number).unwrap_or(i32::MAX);
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(name, number, rdkafka::Offset::Offset(time)).map_err(unanswered)?;
        let answer = self.client.offsets_for_times(asked, QUERY_TIMEOUT).map_err(unanswered)?;
        let element =
            answer.find_partition(name, number).ok_or_else(|| unreadable("no answer for the partition"))?;
        element.error().map_err(unanswered)?;
        match element.offset() {
            rdkafka::Offset::Offset(offset) => u64::try_from(offset).map(Offset).or_else(|_| end()),
            _ => end(),
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        partition: PartitionId,
        question: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.shared.readable(partition)?;
        let asking = async {
            let turn = self.turns.take(partition).await;
            let slot = Arc::clone(&self.slots).acquire_owned().await;
            // The thread keeps both until it is done, even when nobody waits any more.
            let answer = tokio::task::spawn_blocking(move || {
                let _held = (turn, slot);
                question()
            });
            answer
                .await
                .unwrap_or_else(|error| Err(unreadable(format!("the question was not asked: {error}"))))
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, asking).await;
        answer.unwrap_or_else(|_| Err(unreadable("brokers did not answer in time")))
    }
}

fn unanswered(error: KafkaError) -> ReadError {
    unreadable(error.to_string())
}
