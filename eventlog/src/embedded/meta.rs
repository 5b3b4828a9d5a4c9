//! What the data directory says about itself: format, topics, and per partition where it starts and goes on.

use fjall::{Database, Keyspace, OwnedWriteBatch, PersistMode};
use tidegate_vocab::{PartitionCounts, PartitionId, Topic};

use super::OpenError;

/// The format this version reads and writes.
const FORMAT: u32 = 2;
const FORMAT_KEY: &[u8] = b"format";

/// What is stored about a topic, made at the first open and kept for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TopicMeta {
    /// Random: two data directories never have the same log epoch.
    pub(super) id: [u8; 16],
}

/// What is stored about a partition; none falls. Each but the first is a lower bound: what is newer is in the
/// partition's last record, which retention may have taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The first offset that the log still has.
    pub(super) start: u64,
    /// The next offset.
    pub(super) next: u64,
    /// The time of the record before it.
    pub(super) time_ms: u64,
}

/// Reads the topics of the directory, or makes them in an empty one.
pub(super) fn open(
    database: &Database,
    meta: &Keyspace,
    counts: &PartitionCounts,
) -> Result<Vec<TopicMeta>, OpenError> {
    match meta.get(FORMAT_KEY)? {
        None => create(database, meta, counts),
        Some(stored) => {
            let found = number(&stored).ok_or(OpenError::Damaged { what: "format version" })?;
            if found != FORMAT {
                return Err(OpenError::Format { found, known: FORMAT });
            }
            let topics: Result<Vec<_>, _> =
                Topic::ALL.into_iter().map(|topic| read(meta, counts, topic)).collect();
            let (topics, mut batch) = (topics?, database.batch().durability(Some(PersistMode::SyncAll)));
            let topics = Topic::ALL.into_iter().zip(topics);
            let topics =
                topics.map(|(topic, known)| known.unwrap_or_else(|| make(&mut batch, meta, counts, topic)));
            let topics = topics.collect();
            batch.commit()?;
            Ok(topics)
        }
    }
}

/// One batch, synced: a crash leaves all of it or an empty directory.
fn create(
    database: &Database,
    meta: &Keyspace,
    counts: &PartitionCounts,
) -> Result<Vec<TopicMeta>, OpenError> {
    let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
    batch.insert(meta, FORMAT_KEY, FORMAT.to_be_bytes());
    let topics = Topic::ALL.map(|topic| make(&mut batch, meta, counts, topic));
    batch.commit()?;
    Ok(topics.into())
}

fn make(batch: &mut OwnedWriteBatch, meta: &Keyspace, counts: &PartitionCounts, topic: Topic) -> TopicMeta {
    let id = uuid::Uuid::new_v4().into_bytes();
    batch.insert(meta, topic_key(topic, "id"), id);
    batch.insert(meta, topic_key(topic, "partitions"), counts.of(topic).to_be_bytes());
    TopicMeta { id }
}

/// None for a topic that a version before this one did not have.
fn read(meta: &Keyspace, counts: &PartitionCounts, topic: Topic) -> Result<Option<TopicMeta>, OpenError> {
    let Some(stored) = meta.get(topic_key(topic, "partitions"))? else {
        let is_new = Topic::SINGLE.contains(&topic) && meta.get(topic_key(topic, "id"))?.is_none();
        return if is_new { Ok(None) } else { Err(OpenError::Damaged { what: "partition count" }) };
    };
    let stored = number(&stored).ok_or(OpenError::Damaged { what: "partition count" })?;
    let configured = counts.of(topic);
    if stored != configured {
        return Err(OpenError::PartitionCount { topic: topic.as_str(), stored, configured });
    }
    let id = meta
        .get(topic_key(topic, "id"))?
        .and_then(|stored| stored.as_ref().try_into().ok())
        .ok_or(OpenError::Damaged { what: "topic id" })?;
    Ok(Some(TopicMeta { id }))
}

/// What is stored about the partition; the default when nothing was yet.
pub(super) fn bounds(meta: &Keyspace, partition: PartitionId) -> Result<Bounds, OpenError> {
    let Some(stored) = meta.get(bounds_key(partition))? else {
        return Ok(Bounds::default());
    };
    let mut fields = stored.chunks_exact(8).map_while(|field| field.try_into().ok().map(u64::from_be_bytes));
    match (fields.next(), fields.next(), fields.next()) {
        (Some(start), Some(next), Some(time_ms)) => Ok(Bounds { start, next, time_ms }),
        _ => Err(OpenError::Damaged { what: "partition bounds" }),
    }
}

/// Adds the partition's bounds to a batch.
pub(super) fn put_bounds(
    batch: &mut OwnedWriteBatch,
    meta: &Keyspace,
    partition: PartitionId,
    bounds: Bounds,
) {
    debug_assert!(bounds.start <= bounds.next);
    let value = [bounds.start, bounds.next, bounds.time_ms].map(u64::to_be_bytes).concat();
    batch.insert(meta, bounds_key(partition), value);
}

fn number(stored: &[u8]) -> Option<u32> {
    stored.try_into().ok().map(u32::from_be_bytes)
}

fn topic_key(topic: Topic, field: &str) -> Vec<u8> {
    format!("topic/{}/{field}", topic as u8).into_bytes()
}

fn bounds_key(partition: PartitionId) -> Vec<u8> {
    format!("bounds/{}/{}", partition.topic as u8, partition.number).into_bytes()
}
