//! What every librdkafka client of ours does with what it is told: log lines, errors, statistics.
//!
//! librdkafka tells all of that on the thread that polls the client; nothing here waits.

use std::sync::Arc;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;

use crate::shared::Shared;

/// The context of a client that does one job.
pub(crate) struct Observer {
    shared: Arc<Shared>,
    role: &'static str,
}

impl Observer {
    pub(crate) fn new(shared: &Arc<Shared>, role: &'static str) -> Self {
        Self { shared: Arc::clone(shared), role }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl ClientContext for Observer {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let client = self.role;
        // What its lines call errors are mostly connections that broke, which it repairs by itself.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(client, facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(client, facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(client, facility, "librdkafka: {message}");
            }
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.shared.figures.update(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let client = self.role;
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                tracing::debug!(client, reason, "Kafka client has no connection");
                self.shared.suspect();
            }
            Some(RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AutoOffsetReset) => {}
            _ => tracing::warn!(client, %error, reason, "Kafka client has met an error"),
        }
    }
}

impl ConsumerContext for Observer {}
