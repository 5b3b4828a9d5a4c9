//! What a client says on its WebSocket goes to the log; the ack comes back once it is there.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::rc::Rc;

use bytes::Bytes;
use tidegate_link::{BoxFuture, UpstreamMessage};
use tidegate_vocab::{Channel, ErrorKind, Payload, Position, Problem, limits};
use tidegate_wire::object;
use tidegate_wire::ws;

use super::table::ConnIdx;
use super::{NO_SET, Shard, State};
use crate::message::{self, ClientMessage, Refusal};

/// A message that waits for the log.
pub(super) struct Said {
    seq: u64,
    reference: Option<String>,
    appended: BoxFuture<'static, Result<Position, Problem>>,
}

/// Tells a connection what became of its messages, in the order in which it said them, until none waits.
async fn answer(shard: Rc<Shard>, idx: ConnIdx, generation: u32) {
    loop {
        let next = {
            let talking = &mut shard.state.borrow_mut().talking;
            let next = talking.get_mut(&(idx, generation)).and_then(VecDeque::pop_front);
            if next.is_none() {
                talking.remove(&(idx, generation));
            }
            next
        };
        let Some(Said { seq, reference, appended }) = next else { return };
        let result = appended.await;
        shard.state.borrow_mut().message_done(idx, generation, seq, reference.as_deref(), result);
    }
}

impl State {
    /// A text frame is a message object; a binary frame is the data itself.
    pub(super) fn on_message(&mut self, idx: ConnIdx, generation: u32, frame: Result<Bytes, Bytes>) {
        let Some(conn) = self.conn(idx, generation).filter(|conn| conn.set != NO_SET) else { return };
        conn.messages += 1;
        let seq = u64::from(conn.messages);
        let parsed = match frame {
            Ok(text) => message::parse(&text, self.shared.config.message_bytes_limit),
            Err(bytes) => {
                Ok(ClientMessage { channel: None, payload: Payload::Binary(bytes), reference: None })
            }
        };
        match parsed.and_then(|message| self.addressed(idx, message)) {
            Ok((channel, payload, reference)) => {
                self.send_upstream(idx, generation, seq, channel, payload, reference)
            }
            Err((reference, problem)) => self.nack(idx, reference.as_deref(), seq, &problem),
        }
    }

    /// The channel of a message: the one it names, if the connection follows it, or the only one that it follows.
    fn addressed(
        &self,
        idx: ConnIdx,
        message: ClientMessage,
    ) -> Result<(Channel, Payload, Option<String>), Refusal> {
        let ClientMessage { channel, payload, reference } = message;
        let Some(conn) = self.conns.get(idx as usize) else {
            return Err((reference, Problem::new(ErrorKind::Internal, "connection is gone")));
        };
        if conn.in_flight as usize >= limits::UPSTREAM_IN_FLIGHT_LIMIT {
            let problem = Problem::new(ErrorKind::RateLimited, "too many messages wait for their ack")
                .retry_after_ms(100);
            return Err((reference, problem));
        }
        let named: Vec<&Channel> = self
            .table
            .set(conn.set)
            .channels()
            .map(|channel| &self.table.entry(channel).name)
            .filter(|name| !name.is_reserved())
            .collect();
        let found = match &channel {
            Some(wanted) => named.into_iter().find(|name| *name == wanted).cloned(),
            None if named.len() == 1 => named.first().copied().cloned(),
            None => None,
        };
        match found {
            Some(channel) => Ok((channel, payload, reference)),
            None if channel.is_some() => Err((
                reference,
                Problem::new(ErrorKind::Forbidden, "this connection does not follow that channel"),
            )),
            None => Err((
                reference,
                Problem::new(
                    ErrorKind::BadRequest,
                    "channel is missing: the connection follows none or several",
                ),
            )),
        }
    }

    fn send_upstream(
        &mut self,
        idx: ConnIdx,
        generation: u32,
        seq: u64,
        channel: Channel,
        payload: Payload,
        reference: Option<String>,
    ) {
        let shared = std::sync::Arc::clone(&self.shared);
        let Some(shard) = self.shard.upgrade() else { return };
        let Some(conn) = self.conn(idx, generation) else { return };
        conn.in_flight += 1;
        let message = UpstreamMessage {
            connection: shared.connection_id(conn.sequence),
            user: conn.user.clone(),
            channel,
            payload,
            seq,
            trace_parent: None,
        };
        let said = Said { seq, reference, appended: shared.upstream.send(message) };
        match self.talking.entry((idx, generation)) {
            Entry::Occupied(mut waiting) => waiting.get_mut().push_back(said),
            Entry::Vacant(nothing) => {
                nothing.insert(VecDeque::from([said]));
                tokio::task::spawn_local(answer(shard, idx, generation));
            }
        }
    }

    fn message_done(
        &mut self,
        idx: ConnIdx,
        generation: u32,
        seq: u64,
        reference: Option<&str>,
        result: Result<Position, Problem>,
    ) {
        let Some(conn) = self.conn(idx, generation) else { return };
        conn.in_flight = conn.in_flight.saturating_sub(1);
        match result {
            Ok(pos) => {
                self.shared.metrics.messages.with_label_values(&["acked"]).inc();
                self.send_object(idx, &object::ack_object(reference, seq, &pos));
            }
            Err(problem) => self.nack(idx, reference, seq, &problem),
        }
    }

    fn nack(&mut self, idx: ConnIdx, reference: Option<&str>, seq: u64, problem: &Problem) {
        self.shared.metrics.messages.with_label_values(&[problem.kind.as_str()]).inc();
        self.send_object(idx, &object::nack_object(reference, seq, &problem.to_json()));
    }

    fn send_object(&mut self, idx: ConnIdx, object: &[u8]) {
        if self.is_stream(idx) {
            self.send_now(idx, &ws::frame::encode(ws::Opcode::Text, object));
        }
    }
}
