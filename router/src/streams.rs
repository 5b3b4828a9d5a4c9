//! Attached nodes: one Deliver stream each, one reader task per stream.
//!
//! The reader forwards a node's frames to the partitions in the order in which they came. A partition whose mailbox
//! is full makes the reader wait, and with it the node: nothing is dropped and nothing overtakes.

use std::sync::Arc;

use tidegate_link::{
    BoxFuture, ControlAnswer, ControlAsk, DeliverSender, DeliverStream, NodeHello, ReachStream, Routed,
    RouterLink, Settled, UpstreamMessage, deliver_queue,
};
use tidegate_tenure::{StreamId, ToRouter};
use tidegate_vocab::{ErrorKind, Event, Incarnation, Offset, PartitionId, Position, Problem, limits};
use tokio::sync::{Notify, mpsc};

use crate::Router;
use crate::partition::Command;

/// Frames of one node that may wait for its reader.
const FRAMES_LIMIT: usize = 1024;

/// One attached node.
pub(crate) struct Attached {
    pub(crate) id: StreamId,
    pub(crate) sender: DeliverSender,
    stop: Arc<Notify>,
}

impl Attached {
    /// Ends the stream; its reader detaches it everywhere.
    pub(crate) fn close(&self) {
        self.sender.close();
        self.stop.notify_one();
    }
}

impl Router {
    async fn attach_node(self: Arc<Self>, node: Incarnation) -> Result<DeliverStream, Problem> {
        let (sender, from_router) = deliver_queue(limits::STREAM_BYTES_LIMIT);
        let (to_router, frames) = mpsc::channel(FRAMES_LIMIT);
        let (id, stop, mailboxes) = self.enter(node, &sender)?;
        self.context.metrics.streams.inc();
        for mailbox in mailboxes {
            // A partition that ended meanwhile has no tenure to tell of.
            let _ = mailbox.send(Command::Attach(id, sender.clone())).await;
        }
        tracing::info!(%node, stream = id.0, "node attached");
        tokio::spawn(read_frames(Arc::clone(&self), node, id, frames, stop));
        Ok(DeliverStream { to_router, from_router })
    }

    /// Enters the stream into the table and closes the older one of the same incarnation.
    #[expect(clippy::type_complexity, reason = "three things that belong to one moment")]
    fn enter(
        &self,
        node: Incarnation,
        sender: &DeliverSender,
    ) -> Result<(StreamId, Arc<Notify>, Vec<mpsc::Sender<Command>>), Problem> {
        let mut state = self.state();
        if state.closing {
            return Err(Problem::new(ErrorKind::Draining, "the router shuts down").retry_after_ms(1_000));
        }
        state.last_stream += 1;
        let id = StreamId(state.last_stream);
        let stop = Arc::new(Notify::new());
        let attached = Attached { id, sender: sender.clone(), stop: Arc::clone(&stop) };
        if let Some(older) = state.streams.insert(node, attached) {
            tracing::info!(%node, stream = older.id.0, "older stream of the node is closed");
            older.close();
        }
        let mailboxes = state.partitions.values().map(|partition| partition.mailbox.clone()).collect();
        Ok((id, stop, mailboxes))
    }

    async fn detach_node(&self, node: Incarnation, id: StreamId) {
        let mailboxes: Vec<_> = {
            let mut state = self.state();
            if state.streams.get(&node).is_some_and(|attached| attached.id == id)
                && let Some(attached) = state.streams.remove(&node)
            {
                attached.sender.close();
            }
            state.partitions.values().map(|partition| partition.mailbox.clone()).collect()
        };
        self.context.metrics.streams.dec();
        for mailbox in mailboxes {
            // A partition that ended needs no telling.
            let _ = mailbox.send(Command::Detach(id)).await;
        }
        tracing::info!(%node, stream = id.0, "node detached");
    }

    async fn forward(&self, id: StreamId, frame: ToRouter) {
        let mailbox = {
            let state = self.state();
            state.partitions.get(&frame.partition()).map(|partition| partition.mailbox.clone())
        };
        // A frame for a partition that is not here is of no current tenure (rule 4).
        if let Some(mailbox) = mailbox {
            let _ = mailbox.send(Command::Frame(id, frame)).await;
        }
    }
}

/// Ends when the node drops its side, or when a newer stream or the shutdown closes this one.
async fn read_frames(
    router: Arc<Router>,
    node: Incarnation,
    id: StreamId,
    mut frames: mpsc::Receiver<ToRouter>,
    stop: Arc<Notify>,
) {
    loop {
        tokio::select! {
            () = stop.notified() => break,
            frame = frames.recv() => match frame {
                Some(frame) => router.forward(id, frame).await,
                None => break,
            },
        }
    }
    router.detach_node(node, id).await;
}

impl RouterLink for Router {
    fn is_local(&self) -> bool {
        true
    }

    fn attach(&self, node: Incarnation) -> BoxFuture<'_, Result<DeliverStream, Problem>> {
        Box::pin(async move { self.arc()?.attach_node(node).await })
    }

    fn upstream(&self, message: UpstreamMessage) -> BoxFuture<'static, Result<Position, Problem>> {
        self.append_upstream(message)
    }

    fn resolve(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> BoxFuture<'static, Result<Settled, Problem>> {
        let router = self.arc();
        Box::pin(async move {
            let settled = router?.local_verdict(partition, offset).await;
            settled.ok_or_else(|| {
                Problem::new(ErrorKind::LogUnavailable, "this router does not own the partition")
            })
        })
    }

    fn control(&self, ask: ControlAsk) -> BoxFuture<'static, Result<ControlAnswer, Problem>> {
        let answer = self.control.answer(ask, self.context.log.is_blind());
        Box::pin(async move { Ok(answer) })
    }

    fn reach(&self, node: NodeHello) -> BoxFuture<'_, Result<ReachStream, Problem>> {
        Box::pin(async move { self.arc()?.enter_node(node) })
    }

    fn ephemeral(&self, event: Arc<Event>) -> BoxFuture<'static, Result<Routed, Problem>> {
        let handed = self.hand_to_own_partition(event);
        Box::pin(async move {
            match handed?.await {
                Ok(Some(nodes)) => Ok(Routed::Nodes(u32::try_from(nodes).unwrap_or(u32::MAX))),
                Ok(None) | Err(_) => Ok(Routed::NotOwner),
            }
        })
    }
}
