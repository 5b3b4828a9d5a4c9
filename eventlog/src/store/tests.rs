use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use tempfile::TempDir;
use tidegate_vocab::{Offset, PartitionCounts, PartitionId, Topic};

use super::*;
use crate::EventLog;
use crate::embedded::{EmbeddedLog, EmbeddedOptions};

const P: PartitionId = PartitionId { topic: Topic::Events, number: 0 };
const PAGE_BYTES: usize = 4096;

fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("temporary directory")
}

fn open_log(directory: &Path) -> Arc<EmbeddedLog> {
    let database = open_database(directory, 1 << 20).expect("store opens");
    EmbeddedLog::open(database, EmbeddedOptions::new(PartitionCounts::same(1))).expect("log opens")
}

/// 40 KiB that do not compress.
fn value(seed: u64) -> Bytes {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    (0..10 * 1024).flat_map(|_| next().to_le_bytes()).collect()
}

/// What a machine that stops now would leave, with one page of the given value not written.
async fn crash_image(values: &[Bytes], lost_in: usize) -> TempDir {
    let running = directory();
    let log = open_log(running.path());
    for value in values {
        log.append(P, Bytes::new(), value.clone()).await.expect("acked");
    }
    let image = directory();
    copy(running.path(), image.path());
    let path = image.path().join("0.jnl");
    let mut journal = std::fs::read(&path).expect("readable");
    let value = &values[lost_in];
    let at =
        journal.windows(64).position(|window| window == &value[..64]).expect("the value is in the journal");
    let page = (at / PAGE_BYTES + 2) * PAGE_BYTES;
    journal[page..page + PAGE_BYTES].fill(0);
    std::fs::write(path, journal).expect("writable");
    image
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("directory");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// The engine refuses such a store for good; nothing in it that anybody was told of is missing.
#[tokio::test]
async fn a_torn_last_batch_is_cut_off() {
    let values = [value(1), value(2), value(3)];
    let image = crash_image(&values, 2).await;
    let refused = Database::builder(image.path()).open().err().expect("refused by the engine");
    assert!(matches!(refused, fjall::Error::JournalRecovery(_)), "{refused}");
    let log = open_log(image.path());
    assert_eq!(log.high_watermark(P).await, Ok(Offset(2)));
    let rows = log.read(P, Offset(0), 10, 1 << 20).await.expect("readable");
    assert_eq!(rows.iter().map(|row| &row.value).collect::<Vec<_>>(), [&values[0], &values[1]]);
    let next = log.append(P, Bytes::new(), value(4)).await.expect("acked");
    assert_eq!(next.offset, Offset(2));
    drop(log);
    assert_eq!(open_log(image.path()).high_watermark(P).await, Ok(Offset(3)));
}

/// Whatever sectors of the batch in flight are lost, what was acked before it is found and the log goes on.
#[tokio::test]
async fn any_part_of_the_last_batch_may_be_lost() {
    let running = directory();
    let database = open_database(running.path(), 1 << 20).expect("store opens");
    let log = EmbeddedLog::open(database.clone(), EmbeddedOptions::new(PartitionCounts::same(1)))
        .expect("log opens");
    log.append(P, Bytes::new(), value(1)).await.expect("acked");
    // The batch in flight, as the writer would have written it.
    let records = open_keyspace(&database, "log_records").expect("opens");
    let mut batch = database.batch();
    for offset in 1..41_u64 {
        let head = [&u64::MAX.to_be_bytes()[..], &[0, 0, 0]].concat();
        let value = if offset % 9 == 0 { value(offset) } else { Bytes::from_static(&[9; 300]) };
        batch.insert(
            &records,
            [&[0; 5][..], &offset.to_be_bytes()].concat(),
            [head, value.to_vec()].concat(),
        );
    }
    batch.commit().expect("committed");
    let mut journal = std::fs::read(running.path().join("0.jnl")).expect("readable");
    let bounds = journal::batch_bounds(&journal);
    let [.., last, end] = bounds[..] else { panic!("there are batches") };
    // Some of the preallocated rest is enough.
    journal.truncate(end + 2 * PAGE_BYTES);
    assert!(end - last > 100_000, "the last batch is large: {}", end - last);
    let stopped = directory();
    copy(running.path(), stopped.path());
    std::fs::write(stopped.path().join("0.jnl"), &journal).expect("writable");
    let mut random = 0x5eed_u64;
    println!("seed {random:#x}");
    for round in 0..60 {
        let image = directory();
        copy(stopped.path(), image.path());
        let (mut torn, mut torn_any) = (journal.clone(), false);
        for sector in (last..end).step_by(512) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // From nearly all to nearly nothing.
            if (random >> 32) % 61 < round {
                let sector = sector / 512 * 512;
                let lost = &mut torn[sector.max(last)..(sector + 512).min(end)];
                torn_any |= lost.iter().any(|byte| *byte != 0);
                lost.fill(0);
            }
        }
        std::fs::write(image.path().join("0.jnl"), torn).expect("writable");
        let log = open_log(image.path());
        let found = log.high_watermark(P).await.expect("high watermark").0;
        let next = log.append(P, Bytes::new(), value(4)).await.expect("acked");
        assert_eq!(next.offset.0, found, "round {round}");
        assert_eq!(
            found,
            if torn_any { 1 } else { 41 },
            "round {round}: the batch is there whole or not at all"
        );
        let rows = log.read(P, Offset(0), 100, 1 << 30).await.expect("readable");
        assert_eq!((rows.len() as u64, &rows[0].value), (found + 1, &value(1)), "round {round}");
    }
}

/// A log batch follows the broken one, so the broken one had been synced: cutting would lose what was acked.
#[tokio::test]
async fn damage_before_a_synced_batch_is_refused() {
    let image = crash_image(&[value(1), value(2), value(3)], 1).await;
    let before = std::fs::read(image.path().join("0.jnl")).expect("readable");
    let refused = open_database(image.path(), 1 << 20).err().expect("refused");
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    assert!(before == std::fs::read(image.path().join("0.jnl")).expect("readable"), "and nothing is changed");
}

#[tokio::test]
async fn a_suspect_journal_is_written_anew() {
    let running = directory();
    let log = open_log(running.path());
    log.append(P, Bytes::new(), value(1)).await.expect("acked");
    let image = directory();
    copy(running.path(), image.path());
    let database = open_database(running.path(), 1 << 20).err().expect("refused");
    assert!(matches!(database, StoreError::InUse { .. }), "{database}");

    let journal = image.path().join("0.jnl");
    let inode = || std::fs::metadata(&journal).expect("there").ino();
    let before = inode();
    drop(open_database(image.path(), 1 << 20).expect("opens"));
    assert_eq!(inode(), before, "without the mark it is left alone");
    // The mark is found where a log in that directory leaves it.
    let keyspace = open_keyspace(&open_database(image.path(), 1 << 20).expect("opens"), "log_records");
    let found = directory_of(&keyspace.expect("opens")).to_path_buf();
    assert_eq!(found.canonicalize().expect("there"), image.path().canonicalize().expect("there"));
    journal::mark_suspect(&found);
    let log = open_log(image.path());
    assert_ne!(inode(), before);
    assert!(!found.join("unsynced").exists());
    let rows = log.read(P, Offset(0), 10, 1 << 20).await.expect("readable");
    assert_eq!(rows[0].value, value(1));
    assert!(std::fs::metadata(&journal).expect("there").blocks() * 512 < 1 << 20, "holes stay holes");
}

#[test]
fn refusals_say_what_to_do() {
    let full = from_io("/data".into(), io::ErrorKind::StorageFull.into());
    assert!(full.to_string().contains("free some space"), "{full}");
    let denied = from_io("/data".into(), io::ErrorKind::PermissionDenied.into());
    assert!(denied.to_string().contains("check its owner"), "{denied}");
    let version = from_engine("/data".into(), fjall::Error::InvalidVersion(None));
    assert!(version.to_string().contains("run the version that wrote it"), "{version}");
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    assert!(matches!(open_database(file.path(), 1 << 20), Err(StoreError::NotWritable { .. })));
}
