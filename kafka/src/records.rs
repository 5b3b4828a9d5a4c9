//! A Kafka message as a record of the log, whoever wrote it.

use bytes::Bytes;
use rdkafka::TopicPartitionList;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, Message as _};
use tidegate_eventlog::LogRecord;
use tidegate_vocab::Offset;

use crate::native;

/// Copies a message: librdkafka wants its memory back. What is missing is empty.
pub(crate) fn record(message: &BorrowedMessage<'_>) -> LogRecord {
    let copy = |bytes: Option<&[u8]>| Bytes::copy_from_slice(bytes.unwrap_or_default());
    LogRecord {
        // invariant: the offset of a message that a broker sent is not negative
        offset: Offset(u64::try_from(message.offset()).unwrap_or_default()),
        time_ms: message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default(),
        key: copy(message.key()),
        value: copy(message.payload()),
        headers: native::headers(message),
    }
}

/// What a record weighs against a limit of bytes.
pub(crate) fn weight(record: &LogRecord) -> usize {
    record.key.len() + record.value.len()
}

/// One partition, at an offset if one is given.
pub(crate) fn at(name: &str, number: u32, offset: Option<Offset>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    let offset = offset.and_then(|offset| i64::try_from(offset.0).ok());
    match offset {
        // Fails only for a partition that is not in the list: this one was added just now.
        Some(offset) => _ = list.add_partition_offset(name, number, rdkafka::Offset::Offset(offset)),
        None => _ = list.add_partition(name, number),
    }
    list
}

/// Whether a consumer's error is about its partition. All others are connections, which librdkafka repairs.
pub(crate) fn ends_reading(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::UnknownTopic
            | Code::TopicAuthorizationFailed
            | Code::InvalidTopic
            | Code::Fatal
    )
}
