//! The log on a disk that is full or read-only. Each test runs itself again in a mount namespace of its own, on a
//! small tmpfs: that needs root or user namespaces. Where neither exists the tests fail, unless
//! `TIDEGATE_TESTS_WITHOUT_MOUNTS=1` says that they need not run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_eventlog::embedded::{EmbeddedLog, EmbeddedOptions, RetentionMs};
use tidegate_eventlog::store::{StoreError, open_database};
use tidegate_eventlog::{AppendError, Appended, EventLog, ReadError};
use tidegate_vocab::{Offset, PartitionCounts, PartitionId, Topic, limits};

const DIRECTORY: &str = "TIDEGATE_TEST_DIRECTORY";
const WITHOUT_MOUNTS: &str = "TIDEGATE_TESTS_WITHOUT_MOUNTS";
const P: PartitionId = PartitionId { topic: Topic::Events, number: 0 };
const MIB: u64 = 1024 * 1024;

/// In the parent: runs the test in a child that has a file system of this size, and returns None when that has
/// passed. In the child: the mount point.
fn own_file_system(test: &str, size: &str) -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return Some(directory.into());
    }
    let mounts = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]).output();
    if !mounts.is_ok_and(|output| output.status.success()) {
        assert!(
            std::env::var_os(WITHOUT_MOUNTS).is_some(),
            "{test} needs root or user namespaces to mount a tmpfs; set {WITHOUT_MOUNTS}=1 to do without"
        );
        eprintln!("NOT RUN: {test}, for {WITHOUT_MOUNTS} is set");
        return None;
    }
    let mount_point = tempfile::tempdir().expect("temporary directory");
    let program = std::env::current_exe().expect("own path");
    let script = r#"mount -t tmpfs -o "size=$0" tmpfs "$1" && exec "$2" --exact "$3" --nocapture"#;
    let status = Command::new("unshare")
        .args(["-rm", "sh", "-c", script, size])
        .arg(mount_point.path())
        .arg(program)
        .arg(test)
        .env(DIRECTORY, mount_point.path())
        .status()
        .expect("child runs");
    assert!(status.success(), "{test} failed in its own file system: {status}");
    None
}

fn open(directory: &Path, reserve: u64) -> Arc<EmbeddedLog> {
    let database = open_database(directory, MIB).expect("store opens");
    let options =
        EmbeddedOptions { disk_reserve_bytes: reserve, ..EmbeddedOptions::new(PartitionCounts::same(1)) };
    EmbeddedLog::open(database, options).expect("log opens")
}

/// 32 KiB that do not compress, different for each number.
fn value(number: u64) -> Bytes {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = number.to_be_bytes().to_vec();
    while bytes.len() < 32 * 1024 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.into()
}

/// Appends, eight at a time, until one is refused: what was acked, and every other answer.
async fn fill(log: &EmbeddedLog) -> (Vec<(u64, Appended)>, Vec<AppendError>) {
    let (mut acked, mut refused) = (Vec::new(), Vec::new());
    let mut number = 0;
    while refused.is_empty() {
        let queued: Vec<_> =
            (number..number + 8).map(|number| (number, log.append(P, Bytes::new(), value(number)))).collect();
        number += 8;
        for (number, append) in queued {
            match append.await {
                Ok(place) => acked.push((number, place)),
                Err(error) => refused.push(error),
            }
        }
        assert!(number < 100_000, "the file system does not get full");
    }
    (acked, refused)
}

async fn assert_readable(log: &EmbeddedLog, acked: &[(u64, Appended)]) {
    for (number, place) in acked {
        let rows = log.read(P, place.offset, 1, 1).await.expect("readable");
        assert_eq!((rows[0].offset, &rows[0].value), (place.offset, &value(*number)));
    }
}

fn ballast(directory: &Path, bytes: u64) -> PathBuf {
    let path = directory.join("ballast");
    std::fs::write(&path, vec![1; bytes as usize]).expect("there is room for the ballast");
    path
}

/// Above the reserve everything works, below it appends are refused and nothing else changes, and when space comes
/// back so do the appends.
#[tokio::test]
async fn full_data_directory() {
    let Some(root) = own_file_system("full_data_directory", "64m") else { return };
    let ballast = ballast(&root, 20 * MIB);
    let log = open(&root.join("data"), 24 * MIB);
    let (acked, refused) = fill(&log).await;
    assert!(acked.len() > 100, "{} acked", acked.len());
    assert!(refused.iter().all(|error| matches!(error, AppendError::Full { .. })), "{refused:?}");
    assert!(matches!(log.health(), Err(AppendError::Full { .. })));
    assert_readable(&log, &acked).await;
    let end = log.high_watermark(P).await.expect("high watermark");
    assert_eq!(end.0, acked.len() as u64, "what was refused was not written");

    std::fs::remove_file(ballast).expect("removed");
    let deadline = Instant::now() + Duration::from_secs(10);
    let healed = loop {
        match log.append(P, Bytes::new(), value(0)).await {
            Ok(place) => break place,
            Err(error) => assert!(Instant::now() < deadline, "still {error}"),
        }
    };
    assert_eq!(healed.offset, end);
    assert!(log.health().is_ok());
}

/// Nobody frees space, but the operator keeps records for less long: that is enough.
#[tokio::test]
async fn full_data_directory_and_a_shorter_retention() {
    let Some(root) = own_file_system("full_data_directory_and_a_shorter_retention", "384m") else { return };
    // The default reserve, and more than the engine's journals may take beside it: those go only as others are written.
    let (data, reserve) = (root.join("data"), limits::DISK_RESERVE_BYTES);
    let log = open(&data, reserve);
    let (acked, _) = fill(&log).await;
    drop(log);
    let database = open_database(&data, MIB).expect("store opens");
    let retention = RetentionMs::same(0);
    let options = EmbeddedOptions {
        disk_reserve_bytes: reserve,
        retention,
        ..EmbeddedOptions::new(PartitionCounts::same(1))
    };
    let log = EmbeddedLog::open(database, options).expect("log opens");
    let deadline = Instant::now() + Duration::from_secs(60);
    // Opening the log may itself have made a little room, by letting go of a journal.
    let mut next = acked.len() as u64;
    while log.start(P).await.expect("start").0 <= 100 {
        match log.append(P, Bytes::new(), value(0)).await {
            Ok(place) => {
                assert_eq!(place.offset.0, next);
                next += 1;
            }
            Err(error) => assert!(Instant::now() < deadline, "still {error}"),
        }
    }
    while let Err(error) = log.append(P, Bytes::new(), value(0)).await {
        assert!(Instant::now() < deadline, "still {error}");
    }
}

/// Without a reserve a write fails in the middle: nobody is told a lie, what was acked stays readable, and a restart
/// with some space finds it all.
#[tokio::test]
async fn full_data_directory_without_reserve() {
    let Some(root) = own_file_system("full_data_directory_without_reserve", "44m") else { return };
    let ballast = ballast(&root, 22 * MIB);
    let data = root.join("data");
    let log = open(&data, 0);
    let (acked, refused) = fill(&log).await;
    assert!(acked.len() > 100, "{} acked", acked.len());
    assert!(refused.iter().all(|error| error.to_string().contains("restart")), "{refused:?}");
    for _ in 0..3 {
        // Unavailable when the engine's background work met the full disk first: it does not say why it failed.
        let after = log.append(P, Bytes::new(), Bytes::new()).await.expect_err("refused");
        assert!(matches!(after, AppendError::Full { .. } | AppendError::Unavailable { .. }), "{after}");
        assert_eq!(log.health(), Err(after));
    }
    assert_readable(&log, &acked).await;
    let end = log.high_watermark(P).await.expect("high watermark");
    assert_eq!(end.0, acked.len() as u64, "nothing that was not acked is shown");
    drop(log);

    // The journal is written anew after a failed write: that takes as much room again.
    if let Err(no_room) = open_database(&data, MIB) {
        assert!(matches!(no_room, StoreError::Full { .. }), "{no_room}");
    }
    std::fs::remove_file(ballast).expect("removed");
    let log = open(&data, 0);
    assert_readable(&log, &acked).await;
    let end = log.high_watermark(P).await.expect("high watermark");
    assert!(end.0 >= acked.len() as u64 && end.0 <= (acked.len() + refused.len()) as u64);
    let next = log.append(P, Bytes::new(), value(1)).await.expect("acked");
    assert_eq!(next.offset, end);
    let beyond = Offset(end.0 + 2);
    assert_eq!(log.read(P, beyond, 1, 1).await, Err(ReadError::BeyondEnd { end: end.next() }));
}

/// A directory that cannot be written is refused at the start, with the reason; afterwards it is as it was.
#[tokio::test]
async fn read_only_data_directory() {
    let Some(root) = own_file_system("read_only_data_directory", "64m") else { return };
    let data = root.join("data");
    let log = open(&data, 0);
    let acked = log.append(P, Bytes::new(), value(5)).await.expect("acked");
    drop(log);
    remount(&root, "ro");
    for directory in [&data, &root.join("new")] {
        let refused = open_database(directory, MIB).err().expect("refused");
        assert!(matches!(refused, StoreError::NotWritable { .. }), "{refused}");
        assert!(refused.to_string().contains("mounted read-only"), "{refused}");
    }
    remount(&root, "rw");
    assert_readable(&open(&data, 0), &[(5, acked)]).await;
}

fn remount(root: &Path, mode: &str) {
    let status = Command::new("mount").args(["-o", &format!("remount,{mode}")]).arg(root).status();
    assert!(status.expect("mount runs").success());
}
