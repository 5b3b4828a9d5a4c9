//! A Kafka of the tests' own, in a temporary directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

/// One broker. Dropped, it is ended and its data deleted.
#[derive(Debug)]
pub struct Kafka {
    bootstrap: String,
    directory: TempDir,
}

impl Kafka {
    /// Starts one.
    ///
    /// # Panics
    /// With the reason when there can be none: these tests prove nothing without.
    #[must_use]
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let bootstrap = up(directory.path(), &["--port", "0"]);
        Self { bootstrap, directory }
    }

    /// One for all tests of a program that wait for it or use it: the last of them ends it.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Kafka>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let kafka = shared.upgrade().unwrap_or_else(|| Arc::new(Self::start()));
        *shared = Arc::downgrade(&kafka);
        kafka
    }

    /// Where it listens.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// SIGKILL; its data stays.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill9(&self) {
        let pid =
            std::fs::read_to_string(self.directory.path().join("broker-1/pid")).expect("its process id");
        let killed = Command::new("kill").args(["-9", pid.trim()]).status();
        assert!(killed.is_ok_and(|status| status.success()), "the broker is killed");
    }

    /// Starts it again where it was, unless it runs.
    ///
    /// # Panics
    /// With the reason when it does not start.
    pub fn start_again(&self) {
        assert_eq!(up(self.directory.path(), &[]), self.bootstrap, "where it was");
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let mut down = Command::new(script("kafka-down"));
        down.arg("--wipe").arg("--dir").arg(self.directory.path());
        if !down.output().is_ok_and(|output| output.status.success()) {
            eprintln!("Kafka in {} could not be ended", self.directory.path().display());
        }
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local").join(name)
}

fn up(directory: &Path, options: &[&str]) -> String {
    let output = Command::new(script("kafka-up"))
        .args(options)
        .args(["--timeout", "240", "--dir"])
        .arg(directory)
        .output()
        .expect("kafka-up runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "these tests need Apache Kafka, and kafka-up says:\n{said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
