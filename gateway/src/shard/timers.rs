//! What happens because of time: the first state's grace, polls' deadlines, pings, expiry, slow sockets, drains.

use std::time::Duration;

use rand::Rng as _;
use tidegate_vocab::{ErrorKind, Problem, limits};
use tidegate_wire::object::{self, Framing};
use tidegate_wire::ws;

use super::conn::{Conn, Mode, Phase};
use super::table::ConnIdx;
use super::{Drain, State};
use crate::clock::ticks;
use crate::overload::Rung;

/// Milliseconds that a client has to end its side after we ended ours.
const CLOSING_MS: u64 = 2_000;
/// Ticks that a shard with nothing to do sleeps at most: revocations and the overload ladder are looked at then.
const CALM_TICKS: u32 = 5;
/// What is due only after this many ticks may be late by less than [`CALM_TICKS`], so that it comes due together.
const EXACT_TICKS: u32 = 40;
/// The part of the ping interval by which a ping may come early.
const PING_EARLY_SHARE: u32 = 8;
/// At the last rung of the overload ladder: milliseconds without reading after which a client is closed.
const SHED_AGE_MS: u64 = 1_000;

impl State {
    /// The tick to sleep to: the next one while something settles, drains, waits for room or is `held`, else the wheel's next
    /// entry. Who comes to need an earlier one meanwhile says so to [`State::wake_by`]. Counted from the last tick there was, so
    /// that it stays where it is however often the shard wakes before it.
    pub(super) fn next_tick(&mut self, held: bool) -> u32 {
        let is_busy = held || !self.settling.is_empty() || !self.commands.is_empty() || self.drain.is_some();
        let latest = self.wheel.now() + if is_busy { 1 } else { CALM_TICKS };
        self.wakes_at = self.wheel.first_due(latest).unwrap_or(latest);
        self.wakes_at
    }

    /// Sees to it that the shard does not sleep past `tick`.
    pub(super) fn wake_by(&mut self, tick: u32) {
        if tick < self.wakes_at {
            self.wakes_at = tick;
            self.nudge.notify_one();
        }
    }

    /// Looks at the connection's opening at the next tick: it may be over.
    pub(super) fn settle_later(&mut self, idx: ConnIdx, generation: u32) {
        self.settling.push((idx, generation));
        self.wake_by(self.tick_now() + 1);
    }

    /// One tick of the shard: what is due, what has settled, the next slice of a drain.
    pub(super) fn tick(&mut self) {
        let now = self.tick_now();
        for due in self.wheel.advance(now) {
            if self.conn(due.conn, due.generation).is_some_and(|conn| conn.due_tick == due.tick) {
                self.due(due.conn, now);
            }
        }
        let settling = std::mem::take(&mut self.settling);
        for (idx, generation) in settling {
            if !self.settle(idx, generation) {
                self.settling.push((idx, generation));
            }
        }
        self.polled.expire(now);
        self.shed_slow(now);
        self.drain_slice(now);
        self.flush_pending();
        self.flush_commands();
    }

    /// Sees to it that the connection is looked at in `delay` ticks at the latest.
    pub(super) fn arm(&mut self, idx: ConnIdx, delay: u32) {
        let now = self.tick_now();
        let Some(conn) = self.conns.get_mut(idx as usize) else { return };
        let mut tick = now.saturating_add(delay);
        if delay > EXACT_TICKS {
            tick = tick.next_multiple_of(CALM_TICKS);
        }
        // An entry counts until the wheel has passed it, which may be later than the clock has.
        let is_set = conn.due_tick > self.wheel.now();
        if conn.phase == Phase::Closing || (is_set && conn.due_tick <= tick) {
            return;
        }
        let due = self.wheel.set(idx, conn.generation, tick);
        conn.due_tick = due;
        self.wake_by(due);
    }

    /// Looks at one connection: does what is due and arms it for what comes next.
    fn due(&mut self, idx: ConnIdx, now: u32) {
        let Some(conn) = self.conns.get(idx as usize) else { return };
        if conn.phase == Phase::Closing {
            self.remove(idx, "closed");
            return;
        }
        let config = &self.shared.config;
        let age_limit = ticks(config.outbox_age_limit.as_millis() as u64);
        if conn.expires_tick != 0 && now >= conn.expires_tick {
            self.close(idx, &Problem::new(ErrorKind::TokenExpired, "the token has expired; get a new one"));
            return;
        }
        self.leave_out_older(idx, now.saturating_sub(age_limit), now);
        let Some(conn) = self.conns.get(idx as usize) else { return };
        if conn.outbox.as_ref().is_some_and(|outbox| now.saturating_sub(outbox.since_tick()) >= age_limit) {
            self.close(idx, &Problem::new(ErrorKind::SlowConsumer, "the socket took nothing for too long"));
            return;
        }
        if conn.mode == Mode::Poll {
            self.due_poll(idx, now);
        } else {
            self.due_stream(idx, now);
        }
    }

    fn due_poll(&mut self, idx: ConnIdx, now: u32) {
        self.poll_may_be_ready(idx);
        let Some(opening) = self.conns.get(idx as usize).and_then(|conn| conn.opening.as_ref()) else {
            return;
        };
        let Some(poll) = &opening.poll else { return };
        let mut next = if now < opening.grace_tick { opening.grace_tick } else { poll.deadline_tick };
        let expires_tick = self.conns.get(idx as usize).map_or(0, |conn| conn.expires_tick);
        if expires_tick != 0 {
            next = next.min(expires_tick);
        }
        self.arm(idx, next.saturating_sub(now));
    }

    fn due_stream(&mut self, idx: ConnIdx, now: u32) {
        let Some(conn) = self.conns.get(idx as usize) else { return };
        let ping = ticks(self.shared.config.ping_interval.as_millis() as u64);
        let pong = ticks(limits::PONG_TIMEOUT_MS);
        // What was sent to all at once would be followed by pings to all at once: each comes up to an eighth too early.
        let early = ping / PING_EARLY_SHARE;
        let mut next = now + ping;
        if let Some(opening) = conn.opening.as_ref().filter(|opening| !opening.state_sent) {
            if now >= opening.grace_tick {
                self.tell(idx);
            } else {
                next = next.min(opening.grace_tick);
            }
        }
        let Some(conn) = self.conns.get(idx as usize) else { return };
        if conn.pinged_tick != 0 && now.saturating_sub(conn.pinged_tick) >= pong {
            self.close(idx, &Problem::new(ErrorKind::PingTimeout, "a ping was not answered"));
            return;
        }
        if conn.pinged_tick != 0 {
            next = next.min(conn.pinged_tick + pong);
        }
        let quiet = now.saturating_sub(conn.wrote_tick);
        let cursor_interval = ticks(self.shared.config.cursor_interval.as_millis() as u64);
        let is_cursor_due = now.saturating_sub(conn.cursor_tick) >= cursor_interval;
        if conn.outbox.is_some() {
            // Not quiet: it has not read yet what it was sent. Its age is looked at below.
        } else if quiet + early >= ping || is_cursor_due {
            self.ping(idx, now, is_cursor_due);
            next = next.min(now + pong);
        } else {
            let ping_tick = conn.wrote_tick + ping - rand::rng().random_range(0..=early);
            next = next.min(ping_tick).min(conn.cursor_tick + cursor_interval);
        }
        if let Some(conn) = self.conns.get(idx as usize) {
            if let Some(outbox) = &conn.outbox {
                next = next
                    .min(outbox.since_tick() + ticks(self.shared.config.outbox_age_limit.as_millis() as u64));
            }
            if conn.expires_tick != 0 {
                next = next.min(conn.expires_tick);
            }
        }
        self.arm(idx, next.saturating_sub(now).max(1));
    }

    /// Keeps a quiet connection alive; with the cursor when it has not been sent for long (TENURES, rule 13).
    fn ping(&mut self, idx: ConnIdx, now: u32, is_cursor_due: bool) {
        let Some(conn) = self.conns.get(idx as usize) else { return };
        let Mode::Stream(framing) = conn.mode else { return };
        let cursor = is_cursor_due.then(|| self.conn_cursor(idx));
        let mut frame = Vec::with_capacity(64);
        object::frame_ping(framing, cursor.as_deref(), &mut frame);
        if framing == Framing::WebSocket && cursor.is_some() {
            frame.extend_from_slice(&ws::frame::ping(b""));
        }
        if let Some(conn) = self.conns.get_mut(idx as usize) {
            if framing == Framing::WebSocket {
                conn.pinged_tick = now;
            }
            if cursor.is_some() {
                conn.cursor_tick = now;
            }
        }
        self.send_now(idx, &frame);
    }

    /// Ends a connection in good order: it is told why and when to come back, then our side is shut.
    pub(super) fn close(&mut self, idx: ConnIdx, problem: &Problem) {
        let Some(conn) = self.conns.get(idx as usize).filter(|conn| conn.phase == Phase::Open) else {
            return;
        };
        let Mode::Stream(framing) = conn.mode else {
            match problem.kind {
                // Its cursor would cover what it may not see; the next one is refused with the reason.
                ErrorKind::TokenRevoked => self.remove(idx, problem.kind.as_str()),
                _ => self.answer_poll(idx),
            }
            return;
        };
        if conn.outbox.is_some() && problem.kind == ErrorKind::SlowConsumer {
            self.remove(idx, problem.kind.as_str()); // It would not read the reason either.
            return;
        }
        let mut frame = Vec::with_capacity(160);
        if let Some(opening) = self.conns.get_mut(idx as usize).and_then(|conn| conn.opening.as_mut()) {
            opening.held.clear();
        }
        let (code, reason) = (problem.kind.close_code(), problem.kind.as_str());
        let detail = (problem.kind == ErrorKind::Disconnected).then_some(problem.detail.as_str());
        if let Some(retry_ms) = problem.retry_ms {
            object::frame_retry(framing, retry_ms, &mut frame);
        }
        object::frame_object(
            framing,
            "close",
            &object::close_object(code, reason, detail, problem.retry_ms),
            None,
            &mut frame,
        );
        if framing == Framing::WebSocket {
            frame.extend_from_slice(&ws::frame::close(code, reason));
        }
        object::frame_end(framing, &mut frame);
        self.unfollow(idx);
        self.send_now(idx, &frame);
        self.begin_closing(idx, problem.kind.as_str());
    }

    /// Nothing more is said: once the last bytes are out, our side is shut and the client has a moment to end its own.
    pub(super) fn begin_closing(&mut self, idx: ConnIdx, reason: &str) {
        self.unfollow(idx);
        let now = self.tick_now();
        let Some(conn) = self.conns.get_mut(idx as usize).filter(|conn| conn.phase == Phase::Open) else {
            return;
        };
        self.shared.metrics.closed.with_label_values(&[conn.transport().as_str(), reason]).inc();
        conn.phase = Phase::Closing;
        let due = self.wheel.set(idx, conn.generation, now + ticks(CLOSING_MS));
        conn.due_tick = due;
        conn.wake();
        self.wake_by(due);
    }

    /// Begins to close all connections evenly over `window`.
    pub(super) fn begin_drain(&mut self, window: Duration) {
        self.drain = Some(Drain { end_tick: self.tick_now() + ticks(window.as_millis() as u64) });
    }

    /// At the last rung of the overload ladder: whoever has not read for a second goes, to come back elsewhere.
    fn shed_slow(&mut self, now: u32) {
        if now < self.shed_tick || !self.shared.ladder.is_at(Rung::ShedSlow) {
            return;
        }
        self.shed_tick = now + ticks(SHED_AGE_MS); // Not by the tick's number: a busy shard leaves ticks out.
        let tick_limit = now.saturating_sub(ticks(SHED_AGE_MS));
        let is_slow =
            |conn: &Conn| conn.outbox.as_ref().is_some_and(|outbox| outbox.since_tick() <= tick_limit);
        let slow: Vec<ConnIdx> =
            self.conns.iter().filter(|(_, conn)| is_slow(conn)).map(|(idx, _)| idx as ConnIdx).collect();
        for idx in slow {
            let problem = Problem::new(ErrorKind::SlowConsumer, "the node is short of memory");
            self.close(idx, &problem);
        }
    }

    fn drain_slice(&mut self, now: u32) {
        let Some(drain) = self.drain else { return };
        let open: Vec<ConnIdx> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.phase == Phase::Open)
            .map(|(idx, _)| idx as ConnIdx)
            .collect();
        let slices = drain.end_tick.saturating_sub(now).max(1) as usize;
        let retry_window = self.shared.config.drain.retry_window.as_millis() as u64;
        for idx in open.iter().take(open.len().div_ceil(slices)) {
            let retry_ms = rand::rng().random_range(0..=retry_window);
            self.close(
                *idx,
                &Problem::new(ErrorKind::Draining, "the node is being drained").retry_after_ms(retry_ms),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use futures::FutureExt as _;

    use super::*;
    use crate::shard::measure::FanOut;

    #[test]
    fn a_tick_stays_where_it_is_however_often_the_shard_wakes_before() {
        FanOut::open(1, 1).expect("sockets").with_state(|state| {
            state.tick();
            let (now, first) = (state.tick_now(), state.next_tick(false));
            while state.tick_now() == now {
                std::thread::yield_now();
            }
            assert_eq!(state.next_tick(false), first);
            assert!(first <= now + CALM_TICKS);
            assert_eq!(state.next_tick(true), state.wheel.now() + 1, "what is held back is looked at soon");
        });
    }

    #[test]
    fn who_needs_an_earlier_tick_wakes_the_shard() {
        FanOut::open(1, 1).expect("sockets").with_state(|state| {
            state.tick();
            let nudge = Rc::clone(&state.nudge);
            let _ = nudge.notified().now_or_never(); // Of its opening.
            state.wakes_at = u32::MAX;
            let (idx, _) = state.conns.iter().next().expect("a connection");
            state.arm(idx as ConnIdx, 1);
            let due = state.conns[idx].due_tick;
            assert_eq!(state.wakes_at, due);
            assert!(nudge.notified().now_or_never().is_some(), "it is told");
            state.arm(idx as ConnIdx, 10);
            assert_eq!((state.wakes_at, nudge.notified().now_or_never()), (due, None), "a later one is not");
        });
    }
}
