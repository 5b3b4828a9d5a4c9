//! The few things that librdkafka tells only through its C interface: a topic's id, whether a record that failed
//! may have been written all the same, the high watermark of the last fetch, and headers whose names are not UTF-8 (the safe interface panics on those).
//!
//! Owns every line of unsafe code of the workspace. Each call blocks for at most its timeout. Knows nothing of
//! Tidegate's topics.
#![expect(unsafe_code, reason = "librdkafka's C interface is the only one that answers these")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, Message as _};
use tidegate_eventlog::Headers;

/// What the brokers say of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    /// Given when the topic is created: another topic of the same name has another.
    pub(crate) id: [u8; 16],
    /// By partition number: whether it has a leader.
    pub(crate) led: Vec<bool>,
    /// The fewest replicas that any of its partitions has.
    pub(crate) replicas: usize,
}

/// Why a topic could not be described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DescribeError {
    /// The brokers answered that there is none.
    Missing,
    /// No answer, or one that says nothing about the topic.
    Unknown(String),
}

/// Frees a native object at the end of a scope.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from librdkafka with the function that frees it, and nobody else has it.
            unsafe { (self.1)(self.0) }
        }
    }
}

/// Asks the brokers for each topic of these names, in their order.
pub(crate) fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    names: &[String],
    timeout: Duration,
) -> Vec<Result<Described, DescribeError>> {
    let failed = |reason: &str| vec![Err(DescribeError::Unknown(reason.to_owned())); names.len()];
    let Ok(texts) = names.iter().map(|name| CString::new(name.as_str())).collect::<Result<Vec<_>, _>>()
    else {
        return failed("a topic name contains a NUL");
    };
    let mut pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let operation = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: `client` outlives every object made from it here, all of which end with this function; the names
    // live until then too, and librdkafka copies them. `event` is checked before it is looked into.
    let event = unsafe {
        let queue = Owned(c::rd_kafka_queue_new(client.native_ptr()), c::rd_kafka_queue_destroy);
        let options = Owned(
            c::rd_kafka_AdminOptions_new(client.native_ptr(), operation),
            c::rd_kafka_AdminOptions_destroy,
        );
        let topics = Owned(
            c::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            c::rd_kafka_TopicCollection_destroy,
        );
        c::rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, ptr::null_mut(), 0);
        c::rd_kafka_DescribeTopics(client.native_ptr(), topics.0, options.0, queue.0);
        // The operation ends by itself at its timeout: a little later than that is never.
        Owned(c::rd_kafka_queue_poll(queue.0, timeout_ms.saturating_add(500)), c::rd_kafka_event_destroy)
    };
    if event.0.is_null() {
        return failed("no answer in time");
    }
    // SAFETY: `event` is not null, and everything read from it is copied before it is freed at the end.
    let described = unsafe {
        let code = c::rd_kafka_event_error(event.0);
        if code != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return failed(&RDKafkaErrorCode::from(code).to_string());
        }
        let result = c::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return failed("an answer to something else");
        }
        let mut count = 0;
        let topics = c::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        (0..count).map(|index| describe(*topics.add(index))).collect::<Vec<_>>()
    };
    let of = |name: &String| {
        described.iter().find(|(described, _)| described == name).map(|(_, topic)| topic.clone())
    };
    let unmentioned = || Err(DescribeError::Unknown("the answer does not mention it".into()));
    names.iter().map(|name| of(name).unwrap_or_else(unmentioned)).collect()
}

/// Copies one topic's description.
///
/// # Safety
/// The pointer comes from a result that lives throughout the call.
unsafe fn describe(
    topic: *const c::rd_kafka_TopicDescription_t,
) -> (String, Result<Described, DescribeError>) {
    // SAFETY: as promised by the caller; what is null is looked at for that first.
    unsafe {
        let name = CStr::from_ptr(c::rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
        let code = RDKafkaErrorCode::from(c::rd_kafka_error_code(c::rd_kafka_TopicDescription_error(topic)));
        match code {
            RDKafkaErrorCode::NoError => {}
            RDKafkaErrorCode::UnknownTopicOrPartition => return (name, Err(DescribeError::Missing)),
            other => return (name, Err(DescribeError::Unknown(other.to_string()))),
        }
        let uuid = c::rd_kafka_TopicDescription_topic_id(topic);
        let mut id = [0; 16];
        if !uuid.is_null() {
            id[..8].copy_from_slice(&c::rd_kafka_Uuid_most_significant_bits(uuid).to_be_bytes());
            id[8..].copy_from_slice(&c::rd_kafka_Uuid_least_significant_bits(uuid).to_be_bytes());
        }
        if id == [0; 16] {
            let reason = "the brokers give topics no ids, as Kafka 2.8 and newer do";
            return (name, Err(DescribeError::Unknown(reason.into())));
        }
        let mut count = 0;
        let partitions = c::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let mut led = vec![false; count];
        let mut fewest = usize::MAX;
        for index in 0..count {
            let partition = *partitions.add(index);
            let mut replicas = 0;
            c::rd_kafka_TopicPartitionInfo_replicas(partition, &mut replicas);
            fewest = fewest.min(replicas);
            let leader = c::rd_kafka_TopicPartitionInfo_leader(partition);
            let is_led = !leader.is_null() && c::rd_kafka_Node_id(leader) >= 0;
            let number = usize::try_from(c::rd_kafka_TopicPartitionInfo_partition(partition));
            if let Some(slot) = number.ok().and_then(|number| led.get_mut(number)) {
                *slot = is_led;
            }
        }
        (name, Ok(Described { id, led, replicas: fewest }))
    }
}

/// Whether a record that could not be delivered is certainly not in the log.
pub(crate) fn is_surely_not_written(failed: &BorrowedMessage<'_>) -> bool {
    // SAFETY: the message lives throughout the call.
    let status = unsafe { c::rd_kafka_message_status(failed.ptr()) };
    status == c::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

/// The high watermark that the broker named which this client last fetched the partition from.
pub(crate) fn fetched_high_watermark<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
) -> Option<u64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: client and name live throughout the call, which only copies two numbers that librdkafka keeps.
    let code = unsafe {
        c::rd_kafka_get_watermark_offsets(client.native_ptr(), topic.as_ptr(), partition, &mut low, &mut high)
    };
    // Negative where nothing was fetched yet.
    if code == c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR { u64::try_from(high).ok() } else { None }
}

/// Copies a record's headers; what is not UTF-8 in a name is replaced.
pub(crate) fn headers(message: &BorrowedMessage<'_>) -> Headers {
    let mut copied = Headers::new();
    if message.headers().is_none() {
        return copied;
    }
    // SAFETY: the headers belong to the message, which lives throughout; name and value are copied at once, and
    // librdkafka ends every name with a NUL.
    unsafe {
        let mut native = ptr::null_mut();
        let code = c::rd_kafka_message_headers(message.ptr(), &mut native);
        if code != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return copied;
        }
        for index in 0..c::rd_kafka_header_cnt(native) {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            let code = c::rd_kafka_header_get_all(native, index, &mut name, &mut value, &mut size);
            if code != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                break;
            }
            let bytes = if value.is_null() {
                Bytes::new()
            } else {
                Bytes::copy_from_slice(std::slice::from_raw_parts(value.cast::<u8>(), size))
            };
            copied.push((CStr::from_ptr(name).to_string_lossy().into_owned(), bytes));
        }
    }
    copied
}
