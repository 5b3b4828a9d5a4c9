//! What an operator, or somebody with no idea, does to Kafka behind our back.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
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
