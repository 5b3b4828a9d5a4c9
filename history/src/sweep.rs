//! What retention takes from channels that nobody writes to, and what resets left behind, in small steps.

use std::sync::PoisonError;

use tidegate_vocab::{Channel, PartitionId};

use crate::codec::{self, ChannelMeta};
use crate::write::Bound;
use crate::{HistoryError, HistoryStore, lock};

/// Rows deleted in one channel in one step.
const STEP_ROWS: usize = 256;

/// What a call of [`HistoryStore::sweep`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Channels looked at.
    pub channels: usize,
    /// Rows deleted.
    pub rows: usize,
    /// True when the call came to the last channel: the next one begins anew.
    pub wrapped: bool,
}

impl HistoryStore {
    /// Looks at up to `budget` channels, going on where the last call ended, and deletes up to 256 rows in each.
    /// May run beside the other calls.
    ///
    /// # Errors
    /// The store's; the next call goes on with the channel that failed.
    pub fn sweep(&self, budget: usize) -> Result<Swept, HistoryError> {
        let mut cursor = self.sweep_cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let mut swept = Swept::default();
        let begin = if cursor.is_empty() { codec::all_channels().to_vec() } else { cursor.clone() };
        let keys: Vec<_> =
            self.meta.range(begin..).take(budget).map(fjall::Guard::key).collect::<Result<_, _>>()?;
        swept.wrapped = keys.len() < budget;
        for key in keys {
            *cursor = key.to_vec();
            let (partition, generation, channel) = codec::channel_of_key(&key)?;
            let deleted = self.sweep_channel(partition, generation, &channel)?;
            swept.channels += 1;
            swept.rows += deleted;
            if deleted >= STEP_ROWS {
                // There may be more of it: the next call goes on with this channel.
                swept.wrapped = false;
                return Ok(swept);
            }
            cursor.push(0);
        }
        if swept.wrapped {
            cursor.clear();
        }
        Ok(swept)
    }

    fn sweep_channel(
        &self,
        partition: PartitionId,
        generation: u64,
        channel: &Channel,
    ) -> Result<usize, HistoryError> {
        let slot = self.slot(partition);
        let state = lock(&slot);
        let Some(before) = self.channel_meta(partition, generation, channel)? else { return Ok(0) };
        let mut meta = before;
        let current = state.filter(|state| state.generation == generation);
        let bound = match (current, self.retention_of(channel)) {
            (Some(state), Some(retention)) => Bound::new(retention, &state, &meta),
            // Of another generation, or of a namespace that keeps no history any more.
            _ => Bound { rows: 0, cutoff_ms: u64::MAX, visible_from: u64::MAX },
        };
        let mut batch = self.database.batch();
        let prefix = codec::row_prefix(partition, generation, channel.as_str().as_bytes());
        let deleted = self.evict(&mut batch, &prefix, &mut meta, bound, 0, STEP_ROWS)?;
        let forgotten = current.is_none_or(|state| is_forgotten(&meta, state.interval.floor.0));
        if meta.count == 0 && forgotten {
            batch.remove(&self.meta, codec::channel_key(partition, generation, channel.as_str().as_bytes()));
        } else if meta != before {
            self.put_channel_meta(&mut batch, partition, generation, channel, &meta);
        }
        batch.commit()?;
        Ok(deleted)
    }
}

/// What was evicted below the floor is the floor's to tell.
fn is_forgotten(meta: &ChannelMeta, floor: u64) -> bool {
    meta.evicted <= floor
}
