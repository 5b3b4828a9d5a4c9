//! A Kafka of the tests' own: started in a temporary directory, ended when dropped.
#![expect(dead_code, reason = "each program of tests uses some of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;
use tidegate_kafka::topics::{self, TopicSpec};
use tidegate_kafka::{KafkaLog, KafkaOptions};
use tidegate_vocab::PartitionCounts;

/// Brokers on this machine.
pub(crate) struct Broker {
    bootstrap: String,
    directory: TempDir,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local").join(name)
}

impl Broker {
    /// Starts one broker.
    ///
    /// # Panics
    /// With the reason when there can be none: these tests prove nothing without.
    pub(crate) fn start() -> Self {
        Self::start_brokers(1)
    }

    /// Starts several.
    pub(crate) fn start_brokers(count: u32) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let output = Command::new(script("kafka-up"))
            .args(["--port", "0", "--timeout", "240", "--brokers", &count.to_string(), "--dir"])
            .arg(directory.path())
            .output()
            .expect("kafka-up runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "these tests need Apache Kafka, and kafka-up says:\n{said}");
        let bootstrap = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Self { bootstrap, directory }
    }

    /// One for all tests of a program that run at the same time: the last of them ends it.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let broker = shared.upgrade().unwrap_or_else(|| Arc::new(Self::start()));
        *shared = Arc::downgrade(&broker);
        broker
    }

    /// Kills one broker without a word. The first is the controller too.
    pub(crate) fn kill(&self, broker: u32) {
        let pid = self.directory.path().join(format!("broker-{broker}/pid"));
        let pid = std::fs::read_to_string(pid).expect("the broker's process id");
        let killed = Command::new("kill").args(["-9", pid.trim()]).status();
        assert!(killed.is_ok_and(|status| status.success()), "broker {broker} is killed");
    }

    /// Ends it; its data stays.
    pub(crate) fn stop(&self) {
        let status = Command::new(script("kafka-down")).arg("--dir").arg(self.directory.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "Kafka is ended");
    }

    /// Starts it again, where it was.
    pub(crate) fn start_again(&self) {
        let status = Command::new(script("kafka-up")).arg("--dir").arg(self.directory.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "Kafka is started again");
    }

    /// Where it listens.
    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Options for a log of this name, with two partitions a topic.
    pub(crate) fn options(&self, name: &str) -> KafkaOptions {
        let mut options = KafkaOptions::new(&self.bootstrap, PartitionCounts::same(2));
        options.topic_prefix = format!("{name}.");
        options.group = name.to_owned();
        options.spec = TopicSpec { replication: 1, min_isr: 1, ..TopicSpec::default() };
        options
    }

    /// Makes the topics and opens the log.
    pub(crate) async fn open(&self, name: &str) -> Arc<KafkaLog> {
        let options = self.options(name);
        let applied = topics::apply(&options).await.expect("topics are made");
        assert_eq!(applied.left, vec![], "after {:?}", applied.done);
        KafkaLog::open(options).await.expect("log opens")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let down =
            Command::new(script("kafka-down")).arg("--dir").arg(self.directory.path()).arg("--wipe").status();
        if !down.is_ok_and(|status| status.success()) {
            eprintln!("Kafka in {} could not be ended", self.directory.path().display());
        }
    }
}
