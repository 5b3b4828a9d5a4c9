//! The list of the registry's members as it is in force: as configured, or from a file that is looked at every second.
//!
//! Owns the one list that all roles of the process follow. A list is taken only if its version is higher; what is
//! refused changes nothing, is said once and counted.

use std::path::PathBuf;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge, Registry};
use tidegate_registry::{Key, MemberList, Members};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::config::{RegistryConfig, members};

/// Between two looks at the file.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The list, and who looks at its file.
pub(super) struct MembersPart {
    lists: watch::Sender<MemberList>,
    key: Option<Key>,
    looking: Option<JoinHandle<()>>,
}

impl MembersPart {
    /// Follows what is configured; none where there is no registry.
    pub(super) fn start(
        config: &RegistryConfig,
        key: Option<Key>,
        registry: &Registry,
    ) -> Result<Option<Self>, prometheus::Error> {
        let Some(list) = config.members.clone() else { return Ok(None) };
        let metrics = Metrics::register(registry, &list)?;
        let lists = watch::Sender::new(list);
        let looking = config.file.clone().map(|path| {
            let file = MembersFile { path, lists: lists.clone(), metrics, refused: None };
            tokio::spawn(file.run())
        });
        Ok(Some(Self { lists, key, looking }))
    }

    /// What whoever speaks to the members is given.
    pub(super) fn members(&self) -> Members {
        Members { lists: self.lists.subscribe(), key: self.key.clone() }
    }

    /// True once nobody looks at the file any more, which must not be.
    pub(super) fn has_failed(&self) -> bool {
        self.looking.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Drop for MembersPart {
    fn drop(&mut self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
    }
}

#[derive(Clone)]
struct Metrics {
    version: IntGauge,
    failures: IntCounter,
}

impl Metrics {
    fn register(registry: &Registry, list: &MemberList) -> Result<Self, prometheus::Error> {
        let version = IntGauge::new(
            "tidegate_registry_members_version",
            "Version of the member list in force; 0 for one in the configuration",
        )?;
        let failures = IntCounter::new(
            "tidegate_registry_members_reload_failures_total",
            "Contents of the file of members that were refused; the log says why",
        )?;
        registry.register(Box::new(version.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        version.set(i64::try_from(list.version).unwrap_or(i64::MAX));
        Ok(Self { version, failures })
    }
}

/// A file of members, looked at by content: a ConfigMap is replaced behind links, and times say little.
struct MembersFile {
    path: PathBuf,
    lists: watch::Sender<MemberList>,
    metrics: Metrics,
    /// What was refused last, so that it is said once.
    refused: Option<String>,
}

impl MembersFile {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let path = self.path.clone();
            match tokio::task::spawn_blocking(move || members::text_of(&path)).await {
                Ok(text) => self.look(text.map_err(|error| error.to_string())),
                Err(error) => tracing::error!(%error, "file of members was not looked at"),
            }
        }
    }

    /// Takes what stands in the file, or why it cannot be read.
    fn look(&mut self, text: Result<String, String>) {
        // What was refused is not looked at again, and an error is what it says.
        let content = text.as_ref().map_or_else(String::clone, String::clone);
        if self.refused.as_ref() == Some(&content) {
            return;
        }
        let taken = text.and_then(|text| {
            let list = members::parse(&self.path, &text).map_err(|error| error.to_string())?;
            self.take(list)
        });
        self.refused = match taken {
            Ok(()) => None,
            Err(reason) => {
                tracing::error!(reason, "list of registry members is refused; the one in force stays");
                self.metrics.failures.inc();
                Some(content)
            }
        };
    }

    fn take(&self, list: MemberList) -> Result<(), String> {
        let current = self.lists.borrow().clone();
        if list == current {
            return Ok(());
        }
        if list.version <= current.version {
            return Err(format!(
                "{} has version {} and {} is in force: raise its version with every change",
                self.path.display(),
                list.version,
                current.version
            ));
        }
        tracing::info!(
            version = list.version,
            members = list.members.len(),
            "another list of registry members"
        );
        self.metrics.version.set(i64::try_from(list.version).unwrap_or(i64::MAX));
        self.lists.send_replace(list);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: u64, ids: &[u32]) -> String {
        let member = |id: &u32| format!("[[members]]\nid = {id}\naddress = \"m:{}\"\n", id + 1);
        format!("version = {version}\n{}", ids.iter().map(member).collect::<String>())
    }

    #[test]
    fn only_a_higher_version_is_taken_and_what_is_refused_is_said_once() {
        let path = PathBuf::from("members.toml");
        let first = members::parse(&path, &text(2, &[0])).expect("a list");
        let metrics = Metrics::register(&Registry::new(), &first).expect("registered once");
        let lists = watch::Sender::new(first);
        let mut file = MembersFile { path, lists: lists.clone(), metrics: metrics.clone(), refused: None };
        let mut check = |content: Result<String, String>, version: u64, failures: u64| {
            file.look(content);
            let members = lists.borrow().clone();
            assert_eq!((members.version, metrics.failures.get()), (version, failures));
            assert_eq!(metrics.version.get(), version as i64);
        };
        check(Ok(text(2, &[0])), 2, 0);
        check(Ok(text(2, &[0, 1])), 2, 1);
        check(Ok(text(2, &[0, 1])), 2, 1);
        check(Ok(text(1, &[0])), 2, 2);
        check(Ok(text(3, &[1, 1])), 2, 3);
        check(Err("is gone".into()), 2, 4);
        check(Err("is gone".into()), 2, 4);
        check(Ok(text(3, &[0, 1])), 3, 4);
        check(Ok(text(3, &[0, 1])), 3, 4);
        check(Ok(text(2, &[0])), 3, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_newer_file_is_in_force_without_a_restart() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("members.toml");
        std::fs::write(&path, text(1, &[0])).expect("written");
        let config = RegistryConfig {
            members: Some(members::read(&path).expect("a list")),
            file: Some(path.clone()),
            listen: ([127, 0, 0, 1], 0).into(),
            id: tidegate_registry::MemberId(0),
            debounce_ms: 1,
        };
        let part = MembersPart::start(&config, None, &Registry::new()).expect("starts").expect("a registry");
        let mut lists = part.members().lists;
        std::fs::write(&path, text(2, &[0, 1])).expect("written");
        let newer = tokio::time::timeout(LOOK_INTERVAL * 60, lists.wait_for(|list| list.version == 2)).await;
        assert_eq!(newer.expect("in time").expect("it looks").members.len(), 2);
        assert!(!part.has_failed());
    }
}
