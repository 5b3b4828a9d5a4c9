//! What an operator, or somebody with no idea, does to Kafka behind our back.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use tidegate_e2e::Cluster;

fn client<T: FromClientConfig>(cluster: &Cluster) -> T {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.kafka.bootstrap());
    config.create().expect("client")
}

/// Deletes a topic; the deletion goes on after the answer.
pub(crate) async fn delete_topic(cluster: &Cluster, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = client(cluster);
    let deleted = admin.delete_topics(&[topic], &AdminOptions::new()).await.expect("answered");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
}

/// Gives a topic more partitions.
pub(crate) async fn set_partitions(cluster: &Cluster, topic: &str, count: usize) {
    let admin: AdminClient<DefaultClientContext> = client(cluster);
    let more = NewPartitions::new(topic, count);
    let results = admin.create_partitions([&more], &AdminOptions::new()).await.expect("answered");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// Writes a record that is none of ours.
pub(crate) async fn produce(cluster: &Cluster, topic: &str, partition: i32, key: &str, value: &[u8]) {
    let producer: BaseProducer = client(cluster);
    let (topic, key, value) = (topic.to_owned(), key.to_owned(), value.to_vec());
    let producing = tokio::task::spawn_blocking(move || {
        let record = BaseRecord::to(&topic).partition(partition).key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| error).expect("queued");
        producer.flush(Duration::from_secs(20)).expect("sent");
    });
    producing.await.expect("no panic");
}

/// Reads so many records of a topic's first partition: key and value.
pub(crate) async fn read(cluster: &Cluster, topic: &str, count: usize) -> Vec<(String, Vec<u8>)> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.kafka.bootstrap()).set("group.id", "reads-only");
    let consumer: BaseConsumer = config.create().expect("client");
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning).expect("added");
    consumer.assign(&from).expect("assigned");
    let reading = tokio::task::spawn_blocking(move || {
        let mut records = Vec::new();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while records.len() < count {
            assert!(std::time::Instant::now() < deadline, "{} of {count} records came", records.len());
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let message = message.expect("readable");
            let text = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
            let key = String::from_utf8(text(message.key())).expect("text");
            records.push((key, text(message.payload())));
        }
        records
    });
    reading.await.expect("no panic")
}
