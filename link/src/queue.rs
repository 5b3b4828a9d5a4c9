//! The router-to-node half of a Deliver stream: many partition tasks push, one reader drains, bytes are counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_tenure::ToNode;
use tokio::sync::Notify;

/// Makes one queue of at most about `bytes_limit` bytes.
#[must_use]
pub fn deliver_queue(bytes_limit: usize) -> (DeliverSender, DeliverReceiver) {
    let shared = Arc::new(Shared {
        frames: Mutex::new(VecDeque::new()),
        queued_bytes: AtomicUsize::new(0),
        bytes_limit,
        closed: AtomicBool::new(false),
        readable: Notify::new(),
        room: Notify::new(),
    });
    (DeliverSender { shared: Arc::clone(&shared) }, DeliverReceiver { shared })
}

#[derive(Debug)]
struct Shared {
    frames: Mutex<VecDeque<ToNode>>,
    queued_bytes: AtomicUsize,
    bytes_limit: usize,
    closed: AtomicBool,
    readable: Notify,
    room: Notify,
}

impl Shared {
    fn frames(&self) -> MutexGuard<'_, VecDeque<ToNode>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.readable.notify_one();
        self.room.notify_waiters();
    }
}

/// The router's side; cloned into every partition task. Closing is explicit, so that a clone may be dropped freely.
#[derive(Debug, Clone)]
pub struct DeliverSender {
    shared: Arc<Shared>,
}

impl DeliverSender {
    /// Queues frames in order, without waiting and whatever the room: callers ask [`DeliverSender::room`] first for
    /// what can wait.
    pub fn push(&self, frames: impl IntoIterator<Item = ToNode>) {
        let mut queued = self.shared.frames();
        let mut bytes = 0;
        for frame in frames {
            bytes += frame.cost();
            queued.push_back(frame);
        }
        self.shared.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        drop(queued);
        self.shared.readable.notify_one();
    }

    /// How many bytes may still be queued.
    #[must_use]
    pub fn room(&self) -> usize {
        self.shared.bytes_limit.saturating_sub(self.shared.queued_bytes.load(Ordering::Acquire))
    }

    /// Waits until at least half of the queue is free again, or the stream has ended.
    pub async fn room_again(&self) {
        loop {
            let notified = self.shared.room.notified();
            if self.is_closed() || self.room() >= self.shared.bytes_limit / 2 {
                return;
            }
            notified.await;
        }
    }

    /// Waits until either side has ended the stream.
    pub async fn closed(&self) {
        loop {
            let notified = self.shared.room.notified();
            if self.is_closed() {
                return;
            }
            notified.await;
        }
    }

    /// True once either side has ended the stream.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Ends the stream; the reader still gets what was queued.
    pub fn close(&self) {
        self.shared.close();
    }
}

/// The node's side. Dropping it ends the stream.
#[derive(Debug)]
pub struct DeliverReceiver {
    shared: Arc<Shared>,
}

impl DeliverReceiver {
    /// The next frames in order, all that wait up to `most`; `None` when the stream has ended. Cancel-safe.
    pub async fn next(&mut self, most: usize) -> Option<Vec<ToNode>> {
        self.next_within(most, usize::MAX).await
    }

    /// Like [`DeliverReceiver::next`], and no further frame once there are this many bytes: at most about that much
    /// and one frame. Cancel-safe.
    pub async fn next_within(&mut self, most: usize, bytes_limit: usize) -> Option<Vec<ToNode>> {
        loop {
            if let Some(frames) = self.try_next(most, bytes_limit) {
                return Some(frames);
            }
            if self.shared.closed.load(Ordering::Acquire) {
                return self.try_next(most, bytes_limit);
            }
            self.shared.readable.notified().await;
        }
    }

    fn try_next(&mut self, most: usize, bytes_limit: usize) -> Option<Vec<ToNode>> {
        let mut queued = self.shared.frames();
        if queued.is_empty() {
            return None;
        }
        let (mut count, mut bytes) = (0, 0);
        for frame in queued.iter().take(most) {
            if bytes >= bytes_limit {
                break;
            }
            count += 1;
            bytes += frame.cost();
        }
        let frames: Vec<ToNode> = queued.drain(..count).collect();
        drop(queued);
        let before = self.shared.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
        let half = self.shared.bytes_limit / 2;
        if before > half && before - bytes <= half {
            self.shared.room.notify_waiters();
        }
        Some(frames)
    }
}

impl Drop for DeliverReceiver {
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[cfg(test)]
mod tests {
    use tidegate_vocab::{PartitionId, Term, Topic};

    use super::*;

    fn frame(term: u64) -> ToNode {
        ToNode::Ended { partition: PartitionId { topic: Topic::Events, number: 0 }, term: Term(term) }
    }

    #[tokio::test]
    async fn frames_keep_their_order_and_room_comes_back() {
        let (sender, mut receiver) = deliver_queue(640);
        sender.push((0..10).map(frame));
        assert_eq!(sender.room(), 0);
        let waiting = tokio::spawn({
            let sender = sender.clone();
            async move { sender.room_again().await }
        });
        assert_eq!(receiver.next(3).await, Some((0..3).map(frame).collect()));
        assert_eq!(receiver.next(100).await, Some((3..10).map(frame).collect()));
        waiting.await.expect("room came back");
        assert_eq!(sender.room(), 640);
        sender.push([frame(10)]);
        sender.close();
        assert_eq!(receiver.next(100).await, Some(vec![frame(10)]));
        assert_eq!(receiver.next(100).await, None);
    }

    #[tokio::test]
    async fn a_batch_ends_with_the_frame_that_reaches_its_bytes() {
        let (sender, mut receiver) = deliver_queue(640);
        sender.push((0..10).map(frame));
        assert_eq!(receiver.next_within(100, 1).await.map(|frames| frames.len()), Some(1));
        assert_eq!(receiver.next_within(100, 65).await.map(|frames| frames.len()), Some(2));
        assert_eq!(receiver.next_within(3, usize::MAX).await.map(|frames| frames.len()), Some(3));
        assert_eq!(sender.room(), 6 * 64);
    }

    #[tokio::test]
    async fn dropping_the_reader_ends_the_stream() {
        let (sender, receiver) = deliver_queue(64);
        sender.push([frame(0), frame(1)]);
        drop(receiver);
        assert!(sender.is_closed());
        sender.closed().await;
        sender.room_again().await;
    }
}
