//! The embedded store that the log and the history share: opening it, its sizes, what its errors mean.
//!
//! Owns nothing at run time. One `fjall::Database` is one directory with one journal: a batch over several
//! keyspaces is atomic, and what a crash leaves is a prefix of the batches. A synced batch holds the journal until
//! it is on the disk, so whoever writes to the same store waits for that: a log and a history do better in two.
//! The sizes here keep what the store writes in the background (a flush, a compaction into the first level) within
//! the disk reserve, because the store cannot be written any more after one of these failed.

pub(crate) mod journal;
#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};

/// Bytes of a memtable and of a table: four of each, rewritten once, are the disk reserve of 64 MiB.
pub(crate) const TABLE_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of all journals together before the store flushes old memtables to drop one.
const JOURNALS_BYTES_LIMIT: u64 = 128 * 1024 * 1024;

/// Why the store did not open, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory is missing and cannot be made, is not ours, or is on a read-only file system.
    #[error(
        "data directory {} is not writable ({source}): check its owner, its mode and that its file system is not \
         mounted read-only", path.display()
    )]
    NotWritable {
        /// The directory as given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system is full: even opening writes a little.
    #[error("data directory {} is on a full file system ({source}): free some space and start again", path.display())]
    Full {
        /// The directory as given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("data directory {} is in use by another process: stop it or choose another directory", path.display())]
    InUse {
        /// The directory as given.
        path: PathBuf,
    },
    /// It was written by another version of the storage engine.
    #[error("data directory {} was written by another version of the storage engine: run the version that wrote it", path.display())]
    EngineVersion {
        /// The directory as given.
        path: PathBuf,
    },
    /// The engine cannot read it.
    #[error("data directory {} is damaged ({reason}): restore it from a backup or start with an empty one", path.display())]
    Damaged {
        /// The directory as given.
        path: PathBuf,
        /// What the engine said.
        reason: String,
    },
}

/// Opens the store in `directory`, making it if need be, with a block cache of `cache_bytes`.
///
/// # Errors
/// Says what is wrong with the directory and what to do. Never panics on what it finds there.
pub fn open_database(directory: &Path, cache_bytes: u64) -> Result<Database, StoreError> {
    let path = directory.to_path_buf();
    let from_io = |source| from_io(path.clone(), source);
    std::fs::create_dir_all(directory).and_then(|()| probe_writable(directory)).map_err(from_io)?;
    if is_in_use(directory).map_err(from_io)? {
        return Err(StoreError::InUse { path });
    }
    journal::rewrite_if_suspect(directory).map_err(from_io)?;
    let open = || {
        Database::builder(directory)
            .cache_size(cache_bytes)
            .max_journaling_size(JOURNALS_BYTES_LIMIT)
            .worker_threads(2)
            .open()
    };
    let opened = match open() {
        Err(fjall::Error::JournalRecovery(_)) if journal::cut_torn_tail(directory).map_err(from_io)? => {
            open()
        }
        opened => opened,
    };
    opened.map_err(|error| from_engine(path.clone(), error))
}

/// The directory of the store that the keyspace is in: the engine keeps them in `keyspaces/<number>`.
pub(crate) fn directory_of(keyspace: &Keyspace) -> &Path {
    keyspace.path().ancestors().nth(2).unwrap_or_else(|| keyspace.path())
}

/// Looks at the engine's own lock: nothing may be put right in a journal that a process is writing.
fn is_in_use(directory: &Path) -> io::Result<bool> {
    match File::open(directory.join("lock")) {
        Ok(lock) => match lock.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a keyspace with our sizes, making it if need be.
///
/// # Errors
/// Passes the engine's error on.
pub fn open_keyspace(database: &Database, name: &str) -> fjall::Result<Keyspace> {
    database.keyspace(name, || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(TABLE_BYTES)
            .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(TABLE_BYTES)))
    })
}

/// A read-only file system lets the engine open its files in part; one write tells before that.
fn probe_writable(directory: &Path) -> io::Result<()> {
    let probe = directory.join(".writable");
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(&probe)
}

fn from_engine(path: PathBuf, error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Locked => StoreError::InUse { path },
        fjall::Error::InvalidVersion(_) => StoreError::EngineVersion { path },
        other => match io_error(&other) {
            Some(source) => from_io(path, io::Error::new(source.kind(), source.to_string())),
            None => StoreError::Damaged { path, reason: other.to_string() },
        },
    }
}

fn from_io(path: PathBuf, source: io::Error) -> StoreError {
    if is_full(&source) {
        StoreError::Full { path, source }
    } else {
        StoreError::NotWritable { path, source }
    }
}

/// The system's error inside an engine error, if there is one.
pub(crate) fn io_error(error: &fjall::Error) -> Option<&io::Error> {
    match error {
        fjall::Error::Io(inner) | fjall::Error::Storage(fjall::LsmError::Io(inner)) => Some(inner),
        _ => None,
    }
}

/// True for "no space", "over quota" and "file too large": space, not the medium, is what is missing.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
