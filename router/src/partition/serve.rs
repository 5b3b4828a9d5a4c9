//! The loop of a partition between its beginning and its end: consume, apply, send, mark.

mod backward;
mod consume;
mod ownership;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tidegate_eventlog::{LogRecord, ReadError, RecordStream};
use tidegate_tenure::{Nonce, Owner, OwnerOut, StreamId, Window};
use tidegate_vocab::{LogEpoch, Offset, PartitionCounts, Term, limits};
use tokio::time::MissedTickBehavior;

use super::begin::Begun;
use super::jobs::{self, Done, Jobs};
use super::rows::StoredRows;
use super::send::{Replays, Turn};
use super::verdicts::Known;
use super::{Command, End, Order, PartitionTask, Phase, new_nonce, ordered};
use backward::Backward;
use consume::Batch;
use ownership::RETAKE_FIRST_MS;

const MARK_INTERVAL: Duration = Duration::from_millis(250);
/// A Mark goes out every so many intervals even if nothing moved.
const HEARTBEAT_MARKS: u64 = 4;
/// The log's start is asked for every so many intervals.
const LOG_START_MARKS: u64 = 40;
/// Commands taken in one step, before anything is sent.
const COMMANDS_A_STEP: usize = 64;
const RETRY_PAUSE: Duration = Duration::from_secs(1);

struct Serving<'t> {
    task: &'t mut PartitionTask,
    owner: Owner,
    epoch: LogEpoch,
    counts: PartitionCounts,
    window: Window,
    rows: StoredRows,
    jobs: Jobs,
    records: Option<Box<dyn RecordStream>>,
    batch: Option<Batch>,
    /// The store writes the batch: its lock is taken, so nobody is sent anything that needs it.
    applying: bool,
    /// The store raises the floor.
    forgetting: bool,
    backward: Backward,
    committed: Option<Offset>,
    /// Set once the partition is on its way to another router: when to stop waiting for that router's takeover.
    release_by_ms: Option<u64>,
    /// The log's time of the last record consumed, or when this began.
    consumed_ms: u64,
    nonce: Option<Nonce>,
    term: Option<Term>,
    retake_ms: u64,
    replays: Replays,
    /// Some stream has more to send and room for it.
    again: bool,
    ticks: u64,
}

impl PartitionTask {
    /// Serves until the partition is revoked or has to begin anew.
    pub(super) async fn serve(&mut self, begun: Begun) -> End {
        let owner = self.new_owner(&begun);
        let context = Arc::clone(&self.context);
        let serving = Serving {
            owner,
            epoch: begun.epoch,
            counts: context.log.counts(),
            window: begun.window,
            rows: StoredRows::new(Arc::clone(&context.store), self.id, begun.floor, begun.log_start),
            jobs: Jobs::new(),
            records: Some(context.log.consume(self.id, begun.h)),
            batch: None,
            applying: false,
            forgetting: false,
            backward: Backward::default(),
            committed: None,
            release_by_ms: None,
            consumed_ms: context.clock.now_ms(),
            nonce: None,
            term: None,
            retake_ms: RETAKE_FIRST_MS,
            replays: Replays::default(),
            again: false,
            ticks: 0,
            task: self,
        };
        serving.run().await
    }
}

/// The next records; never, while there is no stream.
async fn next_records(records: &mut Option<Box<dyn RecordStream>>) -> Result<Vec<LogRecord>, ReadError> {
    match records {
        Some(records) => records.next().await,
        None => std::future::pending().await,
    }
}

impl Serving<'_> {
    async fn run(mut self) -> End {
        self.task.status.set_phase(Phase::Waiting);
        for (offset, answer) in self.task.verdicts.begin(self.owner.h()) {
            self.jobs.push(jobs::verdict(Arc::clone(&self.task.context), self.task.id, offset, answer));
        }
        self.owner.assigned(new_nonce());
        self.drain();
        self.begin_backward();
        let mut orders = self.task.orders.clone();
        let mut marks = tokio::time::interval(MARK_INTERVAL);
        marks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                () = ordered(&mut self.task.orders, Order::Revoke) => Err(End::Revoked),
                () = ordered(&mut orders, Order::Release), if self.release_by_ms.is_none() => self.release(),
                Some(done) = self.jobs.next() => self.job_done(done),
                command = self.task.commands.recv() => match command {
                    Some(command) => {
                        self.command(command);
                        Ok(())
                    }
                    None => Err(End::Revoked),
                },
                records = next_records(&mut self.records), if self.batch.is_none() => self.records_came(records),
                _ = marks.tick() => self.tick(),
                () = tokio::task::yield_now(), if self.again && !self.is_writing() => Ok(()),
            };
            if let Err(end) = step {
                self.owner.revoked();
                self.drain();
                self.task.status.set_behind(0);
                self.finish_writes().await;
                return end;
            }
            if self.release_by_ms.is_some() && self.owner.term().is_none() {
                self.task.status.set_behind(0);
                self.finish_writes().await;
                return End::Revoked; // The next owner's takeover stands in the log.
            }
            for _ in 0..COMMANDS_A_STEP {
                let Ok(command) = self.task.commands.try_recv() else { break };
                self.command(command);
            }
            self.send_all();
        }
    }

    /// A write that is under way goes on in its pool whatever happens here: the store is left alone once it is done.
    async fn finish_writes(&mut self) {
        while self.applying || self.forgetting || self.backward.filling {
            match self.jobs.next().await {
                Some(Done::Applied(_)) => self.applying = false,
                Some(Done::Filled(_)) => self.backward.filling = false,
                Some(Done::Forgotten(_)) => self.forgetting = false,
                Some(_) => {}
                None => return,
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Attach(stream, sender) => {
                self.task.streams.insert(stream, super::Stream::new(sender));
                self.owner.attached(stream, self.rows.floor);
            }
            Command::Detach(stream) => {
                self.owner.detached(stream);
                self.task.streams.remove(&stream);
                self.replays.take(stream);
            }
            Command::Frame(stream, frame) => self.owner.on_frame(stream, frame, self.rows.floor),
            Command::Resolve(offset, answer) => match self.task.verdicts.known(offset, self.owner.h()) {
                Known::Later => self.task.verdicts.wait(offset, answer),
                Known::Settled(settled) => {
                    // invariant: a publisher that gave up needs no answer
                    let _ = answer.send(settled);
                }
                Known::Before => {
                    let context = Arc::clone(&self.task.context);
                    self.jobs.push(jobs::verdict(context, self.task.id, offset, answer));
                }
            },
            Command::Ephemeral(event, answer) => {
                // What was consumed in this very step goes out first: a node that is behind gets no ephemeral event.
                self.send_all();
                let streams = &self.task.streams;
                let has_room = |stream| streams.get(&stream).is_some_and(super::Stream::has_room);
                let routed = self.owner.term().map(|_| self.owner.ephemeral(&event, has_room));
                // invariant: a publisher that gave up needs no answer
                let _ = answer.send(routed);
            }
        }
        self.drain();
    }

    fn job_done(&mut self, done: Done) -> Result<(), End> {
        match done {
            Done::Applied(Ok(())) => {
                self.applied()?;
                self.fill();
            }
            Done::Chunk(backfill, chunk) => self.chunk_came(backfill, chunk)?,
            Done::NextChunk(backfill) => self.next_chunk(backfill),
            Done::Filled(new_floor) => self.filled(new_floor),
            Done::Applied(Err(reason)) => {
                tracing::error!(partition = %self.task.id, reason, "history refused a batch; trying again");
                self.task.context.metrics.store_errors.inc();
                self.task.status.set_phase(Phase::StoreFails);
                self.applying = false;
                self.jobs.push(jobs::after(RETRY_PAUSE, Done::ApplyAgain));
            }
            Done::ApplyAgain => self.apply(),
            Done::Room(stream) => {
                if let Some(stream) = self.task.streams.get_mut(&stream) {
                    stream.room_came();
                }
            }
            Done::HighWatermark(next, asked_ms) => {
                let lag = next.0.saturating_sub(self.owner.h().0);
                let now_ms = self.task.context.clock.now_ms();
                let lag_ms = if lag > 0 { now_ms.saturating_sub(self.consumed_ms) } else { 0 };
                self.task.status.set_lag(lag, lag_ms);
                self.owner.high_watermark(next, asked_ms);
            }
            Done::LogStart(start) => self.log_start(start),
            Done::Horizon(horizon) => self.horizon_came(horizon),
            Done::Forgotten(start) => {
                self.forgetting = false;
                if let Some(start) = start {
                    self.rows.floor = self.rows.floor.max(start.min(self.owner.h()));
                }
                self.fill();
            }
            Done::Stretch(stream, from, replay, stretch) => {
                self.owner.log_rows(stream, from, stretch.rows, stretch.upto);
                self.replays.keep(stream, replay, self.task.context.clock.now_ms());
            }
            Done::StretchGone(stream, start) => self.owner.log_gone(stream, start),
            Done::StretchAgain(stream, from) => self.read_log(stream, from),
            Done::StretchUnreadable(version) => return Err(End::UnknownVersion(version)),
            Done::TakeoverOverdue(nonce) => {
                if self.owner.term().is_none() && self.nonce == Some(nonce) {
                    self.append_takeover(nonce);
                }
            }
            Done::Retake if self.release_by_ms.is_some() => {}
            Done::Retake => self.owner.retake(new_nonce()),
            Done::ConsumeAgain => {
                let from = self.owner.h();
                self.records = Some(self.task.context.log.consume(self.task.id, from));
            }
            Done::Nothing => {}
        }
        Ok(())
    }

    fn log_start(&mut self, start: Offset) {
        self.rows.log_start = self.rows.log_start.max(start);
        if start > self.rows.floor && !self.forgetting && !self.backward.filling {
            self.forgetting = true;
            let store = Arc::clone(&self.task.context.store);
            self.jobs.push(jobs::forget_below(store, self.task.id, start));
        }
    }

    /// Marks, and what is looked after once a second and more rarely.
    fn tick(&mut self) -> Result<(), End> {
        let context = Arc::clone(&self.task.context);
        let now_ms = context.clock.now_ms();
        self.task.status.beat(now_ms);
        if self.release_by_ms.is_some_and(|by| now_ms >= by) {
            return Err(End::Revoked);
        }
        let heartbeat = self.ticks.is_multiple_of(HEARTBEAT_MARKS);
        let streams = &self.task.streams;
        self.owner.mark(heartbeat, now_ms, &mut |stream, frame| {
            if let Some(stream) = streams.get(&stream) {
                stream.send_mark(frame);
            }
        });
        if heartbeat {
            if context.log.epoch(self.task.id.topic) != self.epoch {
                return Err(End::Restart("the log epoch has changed".into()));
            }
            self.jobs.push(jobs::high_watermark(Arc::clone(&context), self.task.id));
            self.commit();
            self.replays.forget_idle(now_ms);
            let full = self.task.streams.values().filter(|stream| stream.is_full()).count();
            self.task.status.set_behind((full + self.replays.len()) as u64);
        }
        if self.ticks.is_multiple_of(LOG_START_MARKS) {
            self.jobs.push(jobs::log_start(context, self.task.id));
        }
        self.ticks += 1;
        Ok(())
    }

    /// Tells lag tools how far the nodes are, never more than a window behind H (TENURES, rule 3).
    fn commit(&mut self) {
        let behind_most = Offset(self.owner.h().0.saturating_sub(limits::IDEMPOTENCY_WINDOW_OFFSETS));
        let next = self.owner.acked().max(behind_most);
        if self.owner.term().is_some() && self.committed != Some(next) {
            self.committed = Some(next);
            self.task.context.log.commit(self.task.id, next);
        }
    }

    /// The store has the partition's lock: nobody is sent anything that needs it.
    fn is_writing(&self) -> bool {
        self.applying || self.backward.filling
    }

    /// Sends every stream what it is owed, one turn each.
    fn send_all(&mut self) {
        self.drain();
        if self.is_writing() {
            return;
        }
        self.again = false;
        let now_ms = self.task.context.clock.now_ms();
        for id in self.owner.open_streams() {
            let Some(stream) = self.task.streams.get_mut(&id) else { continue };
            match stream.pump(id, &mut self.owner, &self.rows, now_ms, &self.task.context.metrics) {
                Turn::More => self.again = true,
                Turn::Full => self.jobs.push(jobs::room(id, stream.sender().clone())),
                Turn::Idle => {}
            }
        }
        self.drain();
    }

    /// Does what the owner asks for.
    fn drain(&mut self) {
        for out in self.owner.take_out() {
            match out {
                OwnerOut::Send(stream, frame) => {
                    if let Some(stream) = self.task.streams.get_mut(&stream) {
                        stream.send(frame, &self.task.context.metrics);
                    }
                }
                OwnerOut::AppendTakeover(nonce) => self.append_takeover(nonce),
                OwnerOut::TakenOver => self.taken_over(),
                OwnerOut::AskHighWatermark => {
                    self.jobs.push(jobs::high_watermark(Arc::clone(&self.task.context), self.task.id));
                }
                OwnerOut::ReadLog { stream, from } => self.read_log(stream, from),
            }
        }
    }

    fn read_log(&mut self, stream: StreamId, from: Offset) {
        if !self.task.streams.contains_key(&stream) {
            return;
        }
        self.task.context.metrics.replays.inc();
        let replay = self.replays.take(stream);
        let stretch = from..self.owner.h();
        self.jobs.push(jobs::stretch(Arc::clone(&self.task.context), self.task.id, stream, stretch, replay));
    }
}
