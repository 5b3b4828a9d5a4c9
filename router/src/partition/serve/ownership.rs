//! Whose the partition is: takeovers of ours and of others, and giving it up (TENURES, rule 1).

use std::sync::Arc;
use std::time::Duration;

use tidegate_tenure::Nonce;

use super::super::{End, Phase, jobs};
use super::Serving;
use super::jobs::Done;
use crate::record;

/// An unanswered takeover is repeated after this.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(1);
/// How long the next owner may take to take over before a released partition ends all the same.
const RELEASE_MS: u64 = 5_000;
/// Before the first attempt after a foreign takeover, in milliseconds, and before later ones at most.
pub(super) const RETAKE_FIRST_MS: u64 = 500;
const RETAKE_MOST_MS: u64 = 4_000;

impl Serving<'_> {
    pub(super) fn tenure_changed(&mut self) {
        let term = self.owner.term();
        let phase = if term.is_some() { Phase::Serving } else { Phase::Waiting };
        self.task.status.set_phase(phase);
        if term != self.term {
            self.term = term;
            if let Some(term) = term {
                self.task.context.metrics.takeovers.inc();
                self.retake_ms = RETAKE_FIRST_MS;
                tracing::info!(partition = %self.task.id, term = term.0, h = %self.owner.h(), "tenure begins");
            }
        }
    }

    /// Serves on until the next owner's takeover, unless there is nothing to serve.
    pub(super) fn release(&mut self) -> Result<(), End> {
        self.release_by_ms = Some(self.task.context.clock.now_ms() + RELEASE_MS);
        if self.owner.term().is_some() { Ok(()) } else { Err(End::Revoked) }
    }

    /// The record is recognised by its nonce when it is consumed, so what the append says matters to operators only.
    pub(super) fn append_takeover(&mut self, nonce: Nonce) {
        self.nonce = Some(nonce);
        let (context, id) = (Arc::clone(&self.task.context), self.task.id);
        let value = record::encode_takeover(context.config.incarnation, nonce, &context.config.address);
        let append = context.log.append(id, bytes::Bytes::new(), value);
        self.jobs.push(Box::pin(async move {
            if let Err(error) = append.await {
                tracing::warn!(partition = %id, %error, "takeover could not be appended; trying again");
                context.metrics.log_errors.inc();
            }
            Done::Nothing
        }));
        self.jobs.push(jobs::after(TAKEOVER_PATIENCE, Done::TakeoverOverdue(nonce)));
    }

    pub(super) fn taken_over(&mut self) {
        let jitter_ms = rand::random_range(0..RETAKE_FIRST_MS);
        tracing::warn!(partition = %self.task.id, pause_ms = self.retake_ms, "another router took the partition over");
        self.nonce = None;
        self.jobs.push(jobs::after(Duration::from_millis(self.retake_ms + jitter_ms), Done::Retake));
        self.retake_ms = (self.retake_ms * 2).min(RETAKE_MOST_MS);
    }
}
