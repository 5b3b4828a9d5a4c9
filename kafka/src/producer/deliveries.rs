//! What a delivery report means.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message, Timestamp};
use rdkafka::producer::ProducerContext;
use tidegate_eventlog::{AppendError, Appended};
use tidegate_vocab::Offset;
use tokio::sync::oneshot;

use super::InFlight;
use crate::native;
use crate::observer::Observer;
use crate::options::RETRY_BACKOFF_MS;
use crate::shared::Shared;

/// An append that took less was written in one attempt, unless the operator's own properties say otherwise.
const ONE_ATTEMPT: Duration = Duration::from_millis(RETRY_BACKOFF_MS * 4 / 5);

/// A record in librdkafka's hands. It leaves its partition's count however it ends.
pub(crate) struct Pending {
    pub(super) answer: Option<oneshot::Sender<Result<Appended, AppendError>>>,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) bytes: usize,
    pub(super) since: Instant,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.in_flight.leave(self.bytes);
    }
}

/// The producer's context.
pub(crate) struct Deliveries(Observer);

impl Deliveries {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self(Observer::new(shared, "producer"))
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.0.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, mut pending: Box<Pending>) {
        let answer = match result {
            Ok(message) => {
                self.0.shared().set_unreachable(false);
                placed(message.offset(), message.timestamp(), pending.since.elapsed())
            }
            Err((error, message)) => Err(failure(error, native::is_surely_not_written(message))),
        };
        if let Some(waiting) = pending.answer.take() {
            // Whoever waited may have gone: the record stays where it is.
            let _ = waiting.send(answer);
        }
    }
}

/// An idempotent producer repeats an attempt under the same sequence number, which the broker knows. But when another
/// record times out meanwhile, on whatever partition, librdkafka begins a new epoch with new numbers, and repeats under
/// these what it has no answer to: then the log has the record twice.
fn placed(offset: i64, time: Timestamp, took: Duration) -> Result<Appended, AppendError> {
    let may_repeat = took >= ONE_ATTEMPT;
    let time_ms = time.to_millis().and_then(|ms| u64::try_from(ms).ok());
    match (u64::try_from(offset), time_ms) {
        (Ok(offset), Some(time_ms)) => Ok(Appended { offset: Offset(offset), time_ms, may_repeat }),
        // The broker knew it already from an attempt whose answer was lost, and does not say where it is.
        _ => Err(AppendError::Indeterminate { reason: "written, but the broker does not say where".into() }),
    }
}

/// librdkafka keeps note whether a record may have reached a log: it never falls back to "not written" after an
/// attempt whose outcome is unknown. What has certainly not been written may be retried by anyone.
fn failure(error: &KafkaError, is_surely_not_written: bool) -> AppendError {
    let reason = error.to_string();
    match error.rdkafka_error_code() {
        // A purge of what was sent: the note is of before it was sent.
        Some(RDKafkaErrorCode::PurgeInflight) => AppendError::Indeterminate { reason },
        Some(RDKafkaErrorCode::QueueFull) => AppendError::Busy,
        _ if is_surely_not_written => AppendError::Unavailable { reason },
        _ => AppendError::Indeterminate { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_written_is_never_called_unwritten() {
        let of = |code, surely| failure(&KafkaError::MessageProduction(code), surely);
        assert!(matches!(of(RDKafkaErrorCode::MessageTimedOut, true), AppendError::Unavailable { .. }));
        assert!(matches!(of(RDKafkaErrorCode::MessageTimedOut, false), AppendError::Indeterminate { .. }));
        assert!(matches!(of(RDKafkaErrorCode::PurgeQueue, true), AppendError::Unavailable { .. }));
        assert!(matches!(of(RDKafkaErrorCode::PurgeInflight, true), AppendError::Indeterminate { .. }));
        assert!(matches!(of(RDKafkaErrorCode::QueueFull, true), AppendError::Busy));
    }

    #[test]
    fn a_success_without_a_place_is_not_a_success() {
        let soon = Duration::from_millis(1);
        let place = Appended { offset: Offset(7), time_ms: 9, may_repeat: false };
        assert_eq!(placed(7, Timestamp::LogAppendTime(9), soon), Ok(place));
        assert!(placed(-1, Timestamp::LogAppendTime(9), soon).is_err());
        assert!(placed(7, Timestamp::NotAvailable, soon).is_err());
    }

    #[test]
    fn what_may_have_been_repeated_says_so() {
        let took = |ms| {
            placed(7, Timestamp::LogAppendTime(9), Duration::from_millis(ms)).map(|place| place.may_repeat)
        };
        assert_eq!([1, 79, 80, 120, 5_000].map(took), [Ok(false), Ok(false), Ok(true), Ok(true), Ok(true)]);
    }
}
