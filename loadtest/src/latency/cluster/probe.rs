//! The floor: produce, consume, write. librdkafka as our routers set it up, and nothing of ours.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;
use tidegate_wire::ws;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, spawn_blocking};

use super::arrivals::{Awaited, data, receive};
use super::pace::{Pace, Share};
use super::report::Quantiles;
use super::{KafkaOptions, Measured, arrived};

/// How long the brokers may take for one answer.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// A topic of its own.
pub(super) struct Probe {
    bootstrap: String,
    topic: String,
    partitions: i32,
}

/// When which record was acked, or why one was not.
struct Acks(Sender<Result<(u64, Instant), String>>);

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, seq: usize) {
        let now = Instant::now();
        let ack = result.as_ref().map(|_| (seq as u64, now)).map_err(|(error, _)| error.to_string());
        // Nobody listens any more when the measurement has failed.
        let _ = self.0.send(ack);
    }
}

impl Probe {
    /// Makes the topic.
    pub(super) async fn create(bootstrap: &str, partitions: u32) -> anyhow::Result<Self> {
        let topic = format!("tidegate-latency-probe-{}", std::process::id());
        let probe = Self { bootstrap: bootstrap.to_owned(), topic, partitions: i32::try_from(partitions)? };
        let new = NewTopic::new(&probe.topic, probe.partitions, TopicReplication::Fixed(1));
        let results = probe.admin()?.create_topics([&new], &patient()).await.context("Kafka")?;
        for result in results {
            result.map_err(|(name, code)| anyhow!("cannot make the topic {name}: {code}"))?;
        }
        Ok(probe)
    }

    /// Deletes the topic.
    pub(super) async fn delete(&self) -> anyhow::Result<()> {
        let results = self.admin()?.delete_topics(&[&self.topic], &patient()).await.context("Kafka")?;
        for result in results {
            result.map_err(|(name, code)| anyhow!("cannot delete the topic {name}: {code}"))?;
        }
        Ok(())
    }

    /// From due to arrived, and from due to acked.
    pub(super) async fn measure(&self, options: &KafkaOptions) -> anyhow::Result<(Quantiles, Quantiles)> {
        let (acks, acked) = channel();
        let producer: Arc<ThreadedProducer<Acks>> =
            Arc::new(self.producer().create_with_context(Acks(acks))?);
        let consumer = Arc::new(self.consumer().await?);
        let (written, read) = sockets(options.receivers).await?;
        let pace = Pace::new(options.rate, options.seconds);
        let (mut receivers, mut workers) = (JoinSet::new(), JoinSet::new());
        for stream in read {
            let awaited = Awaited { pace, share: Share::ALL, may_miss: false };
            receivers.spawn(receive(stream, Vec::new(), awaited));
        }
        workers.spawn(forward(Arc::clone(&consumer), written));
        pace.spawn(self.sender(Arc::clone(&producer), options.bytes))?;
        let arrived = arrived(&mut receivers, &mut workers, &mut Vec::new()).await;
        workers.shutdown().await;
        // Both may block while they end.
        spawn_blocking(move || {
            drop(consumer);
            producer.flush(KAFKA_TIMEOUT)
        })
        .await??;
        let mut latencies = Vec::new();
        for ack in acked.try_iter() {
            let (seq, at) = ack.map_err(anyhow::Error::msg).context("produce")?;
            latencies.extend(pace.place(seq).map(|_| pace.since_due(seq, at)));
        }
        let arrived = arrived?;
        ensure!(latencies.len() == pace.count(), "{} of {} were acked", latencies.len(), pace.count());
        Ok((Quantiles::of(arrived), Quantiles::of(latencies)))
    }

    /// Produces one record, which is the frame that is written.
    fn sender(
        &self,
        producer: Arc<ThreadedProducer<Acks>>,
        bytes: usize,
    ) -> impl FnMut(u64) -> bool + Send + 'static {
        let (topic, partitions) = (self.topic.clone(), self.partitions);
        move |seq| {
            let partition = i32::try_from(seq % partitions.unsigned_abs() as u64).unwrap_or_default();
            let frame = frame(seq, partition, bytes);
            let record = BaseRecord::<(), [u8], usize>::with_opaque_to(&topic, seq as usize);
            producer.send(record.partition(partition).payload(&frame)).is_ok()
        }
    }

    fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        Ok(self.client().create()?)
    }

    // From here on: as `kafka/src/options.rs` and `kafka/src/live.rs` have it. Said again, not used: a setting that costs
    // time there must not move the floor with it.

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", "tidegate-latency-probe")
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            .set("log.connection.close", "false");
        config
    }

    fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.timeout.ms", "5000")
            .set("retry.backoff.ms", "20")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "200000");
        config
    }

    /// Reads what is produced from now on.
    async fn consumer(&self) -> anyhow::Result<StreamConsumer> {
        let mut config = self.client();
        config
            .set("group.id", "tidegate-latency-probe") // never joined
            .set("isolation.level", "read_uncommitted")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("fetch.min.bytes", "1")
            .set("fetch.error.backoff.ms", "50")
            .set("fetch.queue.backoff.ms", "5")
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", "50")
            .set("queued.min.messages", "2000")
            .set("queued.max.messages.kbytes", "1024")
            .set("max.partition.fetch.bytes", "524288");
        let (topic, partitions) = (self.topic.clone(), self.partitions);
        spawn_blocking(move || {
            let consumer: StreamConsumer = config.create()?;
            let (mut all, until) = (TopicPartitionList::new(), Instant::now() + KAFKA_TIMEOUT);
            for partition in 0..partitions {
                let end = loop {
                    match consumer.fetch_watermarks(&topic, partition, KAFKA_TIMEOUT) {
                        Ok((_, end)) => break end,
                        // A topic that was just made may not be known everywhere yet.
                        Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
                        Err(error) => return Err(error.into()),
                    }
                };
                all.add_partition_offset(&topic, partition, Offset::Offset(end))?;
            }
            consumer.assign(&all)?;
            Ok(consumer)
        })
        .await?
    }
}

fn patient() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(KAFKA_TIMEOUT)).request_timeout(Some(KAFKA_TIMEOUT))
}

/// A frame as long as a gateway's is to clients of many channels, most of which carry no cursor.
fn frame(seq: u64, partition: i32, bytes: usize) -> Vec<u8> {
    let event = json!({
        "type": "event", "channel": format!("latency:00000000:{partition}"), "event": "message",
        "data": data(seq, bytes), "time": 1_700_000_000_123_u64, "pos": format!("0123456789abcdef.{partition}.{seq}"),
    });
    ws::frame::text(&event.to_string()).to_vec()
}

/// Writes each record to every socket.
async fn forward(consumer: Arc<StreamConsumer>, mut sockets: Vec<TcpStream>) -> Measured {
    loop {
        let record = consumer.recv().await.context("consume")?;
        let frame = record.payload().context("a record without payload")?;
        for socket in &mut sockets {
            socket.write_all(frame).await?;
        }
    }
}

/// Connected pairs: those that are written to, and those that are read.
async fn sockets(count: usize) -> anyhow::Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (mut written, mut read) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (accepted, _) = accepted?;
        accepted.set_nodelay(true)?;
        written.push(accepted);
        read.push(connected?);
    }
    Ok((written, read))
}
