//! The suite that every engine has to pass, against a real Apache Kafka.

#[path = "support/broker.rs"]
mod broker;

use std::sync::{Arc, Mutex};

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use tidegate_eventlog::conformance::Subject;
use tidegate_eventlog::{BoxFuture, EventLog};
use tidegate_vocab::{PartitionId, Topic};

use self::broker::Broker;

/// Logs by name: each has topics with a prefix of its own.
struct Logs {
    broker: Broker,
    last_opened: Mutex<String>,
}

impl Subject for Logs {
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Arc<dyn EventLog>> {
        Box::pin(async move {
            let name = name.replace(' ', "-");
            let log: Arc<dyn EventLog> = self.broker.open(&name).await;
            eprintln!("case {name}");
            *self.last_opened.lock().expect("no panic elsewhere") = name;
            log
        })
    }

    /// Deletes every record, as retention would: a compacted topic has none, and Kafka refuses to.
    fn expire<'a>(&'a self, log: &'a Arc<dyn EventLog>) -> Option<BoxFuture<'a, ()>> {
        Some(Box::pin(async move {
            let options = self.broker.options(&self.last_opened.lock().expect("no panic elsewhere"));
            let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
                .set("bootstrap.servers", self.broker.bootstrap())
                .create()
                .expect("client");
            let mut before = TopicPartitionList::new();
            for topic in Topic::ALL.into_iter().filter(|topic| !Topic::COMPACTED.contains(topic)) {
                for number in 0..log.counts().of(topic) {
                    let end =
                        log.high_watermark(PartitionId { topic, number }).await.expect("high watermark");
                    let offset = rdkafka::Offset::Offset(end.0 as i64);
                    let name = options.topic_name(topic);
                    before.add_partition_offset(&name, number as i32, offset).expect("added");
                }
            }
            let deleted =
                admin.delete_records(&before, &AdminOptions::new()).await.expect("records are deleted");
            for element in deleted.elements() {
                element.error().expect("records of a partition are deleted");
            }
        }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let logs = Logs { broker: Broker::start(), last_opened: Mutex::default() };
    tidegate_eventlog::conformance::run(&logs).await;
}
