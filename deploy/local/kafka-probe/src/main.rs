//! Proves that a Kafka does what Tidegate relies on, with the client settings that Tidegate uses.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Message, Timestamp};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::get_rdkafka_version;
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

const USAGE: &str = "\
usage: kafka-probe --bootstrap HOST:PORT[,...] [options]

Makes a topic, produces to it and consumes from it with the client settings that Tidegate uses, and checks that
every record arrives once, in order and stamped with the broker's time; then that commits are found again by the
next member of a group, and that each of the three ways to have no valid offset is reported as an error instead
of skipping records. Deletes the topic. Exits with 1 at the first thing that is not so, and says which.

  --bootstrap ADDR      what kafka-up printed
  --records N           records to produce            (default 10000)
  --untimed N           how many of them, the first, are checked but left out of the times: a fresh
                        JVM is slow, and connecting is told apart (default 4000)
  --partitions N        partitions of the topic       (default 8)
  --rate N              records a second, 0: no limit (default 2000)
  --bytes N             size of a record, at least 16 (default 256)
  --linger-ms N         the producer's linger         (default 0)
  --broker-version V    only printed: the protocol does not tell it
";

/// How long any one answer of the broker may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main(worker_threads = 2)]
async fn main() {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => return print!("{USAGE}"),
        Err(error) => {
            eprintln!("kafka-probe: {error:#}\n\n{USAGE}");
            std::process::exit(2);
        }
    };
    if let Err(error) = run(args).await {
        eprintln!("kafka-probe: FAILED: {error:#}");
        std::process::exit(1);
    }
}

struct Args {
    bootstrap: String,
    records: u64,
    untimed: u64,
    partitions: i32,
    rate: u64,
    bytes: usize,
    linger_ms: u64,
    broker_version: String,
}

impl Args {
    /// `None`: only help was asked for.
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut args = Self {
            bootstrap: String::new(),
            records: 10_000,
            untimed: 4_000,
            partitions: 8,
            rate: 2_000,
            bytes: 256,
            linger_ms: 0,
            broker_version: "of unknown version".into(),
        };
        while let Some(word) = words.next() {
            if matches!(word.as_str(), "-h" | "--help") {
                return Ok(None);
            }
            let value = words.next().with_context(|| format!("{word} needs a value"))?;
            let wrong = || format!("{word} cannot be {value}");
            match word.as_str() {
                "--bootstrap" => args.bootstrap = value,
                "--records" => args.records = value.parse().with_context(wrong)?,
                "--untimed" => args.untimed = value.parse().with_context(wrong)?,
                "--partitions" => args.partitions = value.parse().with_context(wrong)?,
                "--rate" => args.rate = value.parse().with_context(wrong)?,
                "--bytes" => args.bytes = value.parse().with_context(wrong)?,
                "--linger-ms" => args.linger_ms = value.parse().with_context(wrong)?,
                "--broker-version" => args.broker_version = value,
                _ => bail!("no such option: {word}"),
            }
        }
        ensure!(!args.bootstrap.is_empty(), "--bootstrap is missing");
        ensure!((2..=1000).contains(&args.partitions), "--partitions is from 2 to 1000");
        ensure!(args.records >= 2 * args.partitions as u64, "--records is at least 2 for each partition");
        ensure!(args.untimed < args.records, "--untimed is less than --records");
        ensure!((16..=900_000).contains(&args.bytes), "--bytes is from 16 to 900000");
        Ok(Some(args))
    }
}

async fn run(args: Args) -> Result<()> {
    let probe = Probe::connect(args)?;
    probe.create_topic().await?;
    let arrived = probe.produce_and_consume().await?;
    probe.offsets_of_a_group().await?;
    probe.offsets_out_of_range().await?;
    probe.delete_topic().await?;
    println!(
        "{} produced, {} consumed, p50 {:.2} ms, p99 {:.2} ms",
        probe.args.records,
        arrived.count,
        arrived.percentile(50),
        arrived.percentile(99),
    );
    Ok(())
}

struct Probe {
    args: Args,
    topic: String,
    admin: AdminClient<DefaultClientContext>,
    brokers: usize,
}

impl Probe {
    fn connect(args: Args) -> Result<Self> {
        let admin: AdminClient<_> = client(&args).create().context("making the admin client")?;
        let metadata = admin.inner().fetch_metadata(None, Duration::from_secs(10)).with_context(|| {
            format!("no Kafka answers at {}; kafka-up starts one and prints its address", args.bootstrap)
        })?;
        let brokers = metadata.brokers().len();
        let cluster = admin.inner().fetch_cluster_id(PATIENCE).context("the broker tells no cluster id")?;
        println!(
            "librdkafka {}, Kafka {}, cluster {cluster} of {brokers} broker(s)",
            get_rdkafka_version().1,
            args.broker_version,
        );
        // A broker can be probed again, and twice at once.
        let since_1970 = std::time::SystemTime::UNIX_EPOCH.elapsed().context("the clock is before 1970")?;
        let topic = format!("tidegate-probe-{}-{}", std::process::id(), since_1970.as_millis());
        Ok(Self { args, topic, admin, brokers })
    }

    async fn create_topic(&self) -> Result<()> {
        let replicas = self.brokers.min(3) as i32;
        let min_isr = if replicas == 3 { "2" } else { "1" };
        let wanted = [
            ("min.insync.replicas", min_isr),
            ("message.timestamp.type", "LogAppendTime"),
            ("retention.ms", "86400000"),
            ("cleanup.policy", "delete"),
            ("unclean.leader.election.enable", "false"),
        ];
        let mut topic = NewTopic::new(&self.topic, self.args.partitions, TopicReplication::Fixed(replicas));
        for (name, value) in wanted {
            topic = topic.set(name, value);
        }
        let results = self.admin.create_topics([&topic], &patient()).await.context("creating the topic")?;
        for result in results {
            if let Err((name, code)) = result {
                bail!("the broker refuses to create the topic {name}: {code}");
            }
        }

        // The controller answers before each broker knows of the topic and each partition has a leader.
        let until = Instant::now() + PATIENCE;
        while let Err(not_yet) = self.check_topic(&wanted).await {
            ensure!(Instant::now() < until, "the topic was created, but is not as asked for: {not_yet:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!(
            "topic: {} partition(s), replication {replicas}, min ISR {min_isr}, LogAppendTime",
            self.args.partitions
        );
        Ok(())
    }

    async fn check_topic(&self, wanted: &[(&str, &str)]) -> Result<()> {
        let metadata = self.admin.inner().fetch_metadata(Some(&self.topic), PATIENCE)?;
        let topic = metadata.topics().first().context("metadata without the topic")?;
        let led = topic.partitions().iter().filter(|p| p.error().is_none() && p.leader() >= 0).count();
        ensure!(led == self.args.partitions as usize, "{led} of {} have a leader", self.args.partitions);

        let asked = [ResourceSpecifier::Topic(&self.topic)];
        let results =
            self.admin.describe_configs(&asked, &patient()).await.context("describing the topic")?;
        let described =
            results.into_iter().next().context("no description")?.context("describing the topic")?;
        for (name, value) in wanted {
            let is = described.get(name).and_then(|entry| entry.value.as_deref());
            ensure!(is == Some(value), "{name} is {is:?}, not {value}");
        }
        Ok(())
    }

    async fn delete_topic(&self) -> Result<()> {
        let results =
            self.admin.delete_topics(&[&self.topic], &patient()).await.context("deleting the topic")?;
        for result in results {
            if let Err((name, code)) = result {
                bail!("the broker refuses to delete the topic {name}: {code}");
            }
        }
        Ok(())
    }

    /// Returns how long the records took from the call that produced them to the consumer.
    async fn produce_and_consume(&self) -> Result<Times> {
        let start = Instant::now();
        let consumer = self.consumer("tidegate-probe-assigned")?;
        consumer.assign(&self.at(|_| 0)?).context("assigning offset 0 of every partition")?;
        let consuming = tokio::spawn(consume(
            consumer,
            self.args.records,
            self.args.untimed,
            self.args.partitions,
            start,
        ));
        let acked = self.produce(start).await?;
        let took = start.elapsed().as_secs_f64();
        let arrived = consuming.await.context("the consumer's task")??;
        println!(
            "produced {} of {} B in {took:.2} s with linger {} ms: acked after {acked}",
            acked.count, self.args.bytes, self.args.linger_ms
        );
        println!("consumed {} in order, each once: after {arrived}", arrived.count);
        Ok(arrived)
    }

    /// Returns how long the records took to be acknowledged.
    async fn produce(&self, start: Instant) -> Result<Times> {
        let producer: FutureProducer = client(&self.args)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", self.args.linger_ms.to_string())
            .set("message.timeout.ms", "5000")
            .create()
            .context("making the producer")?;
        let mut acks = JoinSet::new();
        let mut payload = vec![b'.'; self.args.bytes];
        let mut sent = 0;
        let mut tick = interval(Duration::from_millis(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let began = Instant::now();
        while sent < self.args.records {
            tick.tick().await;
            let due = match self.args.rate {
                0 => sent + 1_000,
                rate => (began.elapsed().as_micros() as u64 * rate).div_ceil(1_000_000),
            };
            while sent < due.min(self.args.records) {
                let partition = (sent % self.args.partitions as u64) as i32;
                let number = sent / self.args.partitions as u64;
                let at = start.elapsed();
                payload[..8].copy_from_slice(&number.to_be_bytes());
                payload[8..16].copy_from_slice(&(at.as_nanos() as u64).to_be_bytes());
                let record = FutureRecord::<(), _>::to(&self.topic).partition(partition).payload(&payload);
                let ack = producer
                    .send_result(record)
                    .map_err(|(error, _)| error)
                    .with_context(|| format!("enqueueing record {sent}"))?;
                let record = sent;
                acks.spawn(async move {
                    let delivered = ack.await.context("the producer is gone")?;
                    let delivered = delivered
                        .map_err(|(error, _)| error)
                        .with_context(|| format!("producing record {number} of partition {partition}"))?;
                    ensure!(
                        delivered.partition == partition && delivered.offset == number as i64,
                        "record {number} of partition {partition} was acked at offset {} of partition {}",
                        delivered.offset,
                        delivered.partition,
                    );
                    Ok((record, start.elapsed() - at))
                });
                sent += 1;
            }
        }
        let mut times = Times::new(self.args.untimed);
        while let Some(ack) = acks.join_next().await {
            let (record, took) = ack.context("an ack's task")??;
            times.add(record, took);
        }
        if let Some((code, reason)) = producer.client().fatal_error() {
            bail!("the producer is dead: {code}: {reason}");
        }
        Ok(times.sorted())
    }

    /// With no commit a member of a group is told so; with one, the next member starts there.
    async fn offsets_of_a_group(&self) -> Result<()> {
        let group = format!("{}-group", self.topic);
        let newcomer = self.consumer(&group)?;
        newcomer.subscribe(&[&self.topic])?;
        let got = timeout(PATIENCE, newcomer.recv())
            .await
            .context("a member of a group without commits is told nothing")?;
        let error = expect_error(got.map(|m| m.offset()), "a member of a group without commits")?;
        println!("no commit: {error}");
        drop(newcomer); // leaves the group

        // Every partition at another place: number P stands at P % count.
        let count = self.args.records / self.args.partitions as u64; // at least so many in each partition
        let place = |partition: i32| (partition as u64 % count) as i64;
        let committer = self.consumer(&group)?;
        committer
            .commit(&self.at(place)?, CommitMode::Sync)
            .context("committing for a group without members")?;
        drop(committer);

        let began = Instant::now();
        let successor = self.consumer(&group)?;
        successor.subscribe(&[&self.topic])?;
        let mut first = HashMap::new();
        let mut joined = None;
        while first.len() < self.args.partitions as usize {
            let message = timeout(PATIENCE, successor.recv())
                .await
                .with_context(|| format!("records of {} partition(s) only", first.len()))?
                .context("consuming from the commits")?;
            joined.get_or_insert(began.elapsed());
            first.entry(message.partition()).or_insert(message.offset());
        }
        for (partition, offset) in first {
            let committed = place(partition);
            ensure!(
                offset == committed,
                "partition {partition} goes on at {offset}, committed was {committed}"
            );
        }
        println!(
            "commits: the next member goes on at each; joined and had its first record in {:.0} ms",
            joined.unwrap_or_default().as_secs_f64() * 1e3
        );
        Ok(())
    }

    /// Both ends are reported as the same error, which names no partition: the queue of a partition that was
    /// split off tells which one it is, and the watermarks tell which end. The others go on.
    async fn offsets_out_of_range(&self) -> Result<()> {
        let lost = self.args.partitions - 1;
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(&self.topic, lost, Offset::Offset(1))?;
        let deleted = self.admin.delete_records(&before, &patient()).await.context("deleting a record")?;
        for element in deleted.elements() {
            element.error().context("deleting a record")?;
        }
        let (low, high) = self.admin.inner().fetch_watermarks(&self.topic, lost, PATIENCE)?;
        ensure!(low == 1, "after deleting record 0 of partition {lost}, its log starts at {low}");

        for (name, offset) in [("below the log's start", 0), ("beyond its end", high + 1_000)] {
            let consumer = Arc::new(self.consumer("tidegate-probe-assigned")?);
            consumer.assign(&self.at(|partition| if partition == lost { offset } else { 0 })?)?;
            let queue = consumer.split_partition_queue(&self.topic, lost).context("splitting off a queue")?;
            let others = tokio::spawn({
                let (consumer, wanted) = (consumer.clone(), self.args.partitions as usize - 1);
                async move {
                    let mut seen = HashSet::new();
                    while seen.len() < wanted {
                        seen.insert(consumer.recv().await.context("another partition")?.partition());
                    }
                    // Goes on: a consumer whose main queue is not polled is thrown out of its group.
                    match consumer.recv().await {
                        Err(error) => bail!("another partition is told {error}"),
                        Ok(_) => anyhow::Ok(seen),
                    }
                }
            });
            let error = match timeout(PATIENCE, queue.recv()).await {
                Err(_) => bail!("a reader {name} is told nothing"),
                Ok(got) => expect_error(got.map(|m| m.offset()), &format!("a reader {name}"))?,
            };
            let seen = timeout(PATIENCE, others).await.context("the other partitions stand still")???;
            ensure!(!seen.contains(&lost), "a partition that was split off came by the main queue");
            println!("{name} ({offset}; the log is {low}..{high}): {error}; the others go on");
        }
        Ok(())
    }

    fn consumer(&self, group: &str) -> Result<StreamConsumer> {
        client(&self.args)
            .set("group.id", group)
            .set("group.protocol", "classic")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "500")
            .set("max.poll.interval.ms", "10000")
            .set("isolation.level", "read_uncommitted")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.min.messages", "1000")
            .set("queued.max.messages.kbytes", "16384")
            .create()
            .context("making a consumer")
    }

    /// Every partition of the topic at the given offset.
    fn at(&self, offset: impl Fn(i32) -> i64) -> Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for partition in 0..self.args.partitions {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset(partition)))?;
        }
        Ok(list)
    }
}

/// Takes all records, each of which must be the next of its partition, and returns how long they took.
async fn consume(
    consumer: StreamConsumer,
    records: u64,
    untimed: u64,
    partitions: i32,
    start: Instant,
) -> Result<Times> {
    let mut next = vec![0; partitions as usize];
    let mut times = Times::new(untimed);
    while times.count < records {
        let message = timeout(PATIENCE, consumer.recv())
            .await
            .with_context(|| format!("{} of {records} records arrived, then none", times.count))?
            .with_context(|| format!("consuming after {} of {records} records", times.count))?;
        let now = start.elapsed();
        let (partition, offset) = (message.partition(), message.offset());
        let payload = message.payload().context("a record without payload")?;
        let (number, payload) = payload.split_first_chunk().context("a short record")?;
        let (sent, _) = payload.split_first_chunk().context("a short record")?;
        let number = u64::from_be_bytes(*number);
        let next = &mut next[partition as usize];
        ensure!(
            number == *next && offset == *next as i64,
            "partition {partition} at offset {offset} holds record {number}; expected was {next}"
        );
        ensure!(
            matches!(message.timestamp(), Timestamp::LogAppendTime(_)),
            "partition {partition} at offset {offset} is stamped {:?}, not by the broker",
            message.timestamp()
        );
        *next += 1;
        let record = number * partitions as u64 + partition as u64;
        times.add(record, now.saturating_sub(Duration::from_nanos(u64::from_be_bytes(*sent))));
    }
    Ok(times.sorted())
}

/// How long records took.
struct Times {
    count: u64,
    untimed: u64,
    first: Duration,
    timed: Vec<Duration>,
}

impl Times {
    fn new(untimed: u64) -> Self {
        Self { count: 0, untimed, first: Duration::ZERO, timed: Vec::new() }
    }

    fn add(&mut self, record: u64, took: Duration) {
        self.count += 1;
        if record == 0 {
            self.first = took;
        }
        if record >= self.untimed {
            self.timed.push(took);
        }
    }

    fn sorted(mut self) -> Self {
        self.timed.sort_unstable();
        self
    }

    /// In milliseconds.
    fn percentile(&self, percent: usize) -> f64 {
        let at = (self.timed.len() * percent).div_ceil(100).saturating_sub(1);
        self.timed.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e3)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = [50, 99, 100].map(|percent| self.percentile(percent));
        let first = self.first.as_secs_f64() * 1e3;
        write!(
            f,
            "p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms; the very first, with connecting, {first:.0} ms"
        )
    }
}

/// With `auto.offset.reset=error` the consumer yields this one error, and must not yield a record before it.
fn expect_error(got: KafkaResult<i64>, who: &str) -> Result<RDKafkaErrorCode> {
    match got {
        Ok(offset) => bail!("{who} is given the record at offset {offset}"),
        Err(KafkaError::MessageConsumption(code @ RDKafkaErrorCode::AutoOffsetReset)) => Ok(code),
        Err(error) => Err(error).with_context(|| format!("{who} is told something else")),
    }
}

fn client(args: &Args) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &args.bootstrap).set("client.id", "kafka-probe");
    config
}

fn patient() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}
