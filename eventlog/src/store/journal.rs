//! What may be wrong with the store's journal when it is opened again, and how it is put right. Runs before the
//! engine opens it, in the process that opens it.
//!
//! **After a failed write or sync.** The kernel may keep pages that it could not write, call them clean, and show
//! them to whoever reads the journal next; a record found there would be served and then vanish with the machine's
//! power. So a process whose write failed leaves a mark (which lives exactly as long as those pages need it to), and
//! the next one first writes the journals anew from what it can read, and syncs them.
//!
//! **After a loss of power.** The journal's last pages reach the disk in any order. The engine drops a last batch that
//! ends early, but refuses the whole store when one has all its parts and a wrong checksum. Such a batch is cut off
//! with what follows, provided that no synced log batch is lost by that: a log batch is synced before the next one is
//! begun, so from the broken batch on there may be at most one, and nobody was told of that one.
//!
//! The layout is that of the engine's `journal/entry.rs`, format 3; the engine checks the format itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3Default;

const MARK: &str = "unsynced";
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";
const COPY_BYTES: usize = 64 * 1024;

/// Leaves the mark that a write to the store in `directory` has failed. Best effort: without room for an empty file
/// there was no sync to fail.
pub(crate) fn mark_suspect(directory: &Path) {
    if let Err(error) = File::create(directory.join(MARK)) {
        tracing::error!(%error, "could not mark the store's journal as suspect");
    }
}

/// Writes the journals anew if the mark is there.
pub(super) fn rewrite_if_suspect(directory: &Path) -> io::Result<()> {
    let mark = directory.join(MARK);
    if !mark.try_exists()? {
        return Ok(());
    }
    for journal in journals(directory)? {
        tracing::warn!(journal = %journal.display(), "writing the store's journal anew after a failed write");
        let copy = journal.with_extension("rewrite");
        rewrite(&journal, &copy).inspect_err(|_| {
            // It may be the copy that fills the disk.
            let _ = std::fs::remove_file(&copy);
        })?;
    }
    File::open(directory)?.sync_all()?;
    std::fs::remove_file(mark)
}

/// Reads the file and writes it to new blocks. Holes stay holes: a journal is preallocated.
fn rewrite(path: &Path, copy_path: &Path) -> io::Result<()> {
    let mut source = File::open(path)?;
    let mut copy = File::create(copy_path)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut length = 0;
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        let part = &buffer[..count];
        if part.iter().all(|byte| *byte == 0) {
            copy.seek(SeekFrom::Current(count as i64))?;
        } else {
            copy.write_all(part)?;
        }
        length += count as u64;
    }
    copy.set_len(length)?;
    copy.sync_all()?;
    std::fs::rename(copy_path, path)
}

/// Cuts the last journal before its first batch with a wrong checksum, if nothing synced is lost by that. True when
/// it was cut: then the engine will open the store.
pub(super) fn cut_torn_tail(directory: &Path) -> io::Result<bool> {
    let Some(path) = journals(directory)?.pop() else { return Ok(false) };
    let journal = std::fs::read(&path)?;
    let Some(keep) = torn_at(&journal) else { return Ok(false) };
    tracing::warn!(
        journal = %path.display(), keep, length = journal.len(),
        "cutting a batch off the store's journal that was being written when the machine stopped"
    );
    let file = OpenOptions::new().write(true).open(&path)?;
    file.set_len(keep as u64)?;
    file.sync_all()?;
    Ok(true)
}

/// The journals, oldest first.
fn journals(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            journals.push((number, path));
        }
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

/// Where the first batch with a wrong checksum begins, if it may be cut off.
fn torn_at(journal: &[u8]) -> Option<usize> {
    let mut at = 0;
    let torn = loop {
        let batch = batch_at(journal, at)?;
        if !batch.intact {
            break batch;
        }
        at = batch.end;
    };
    let mut log_batches = usize::from(torn.has_log_records);
    let mut next = torn.end;
    while let Some(batch) = batch_at(journal, next) {
        log_batches += usize::from(batch.has_log_records);
        next = batch.end;
    }
    (log_batches <= 1).then_some(at)
}

struct Batch {
    end: usize,
    has_log_records: bool,
    intact: bool,
}

/// The batch that begins at `at`, if all its parts are there.
fn batch_at(journal: &[u8], at: usize) -> Option<Batch> {
    let mut rest = journal.get(at..)?;
    (take(&mut rest, 1)? == [START]).then_some(())?;
    let items = number(&mut rest, 4)?;
    take(&mut rest, 8)?;
    let mut has_log_records = false;
    let mut checksum = Xxh3Default::new();
    for _ in 0..items {
        let item = rest;
        match take(&mut rest, 1)?[0] {
            ITEM => {
                // Type and compression, then the keyspace.
                take(&mut rest, 2 + 8)?;
                let key_bytes = number(&mut rest, 2)?;
                take(&mut rest, 4)?;
                let value_bytes = number(&mut rest, 4)?;
                has_log_records |= crate::embedded::is_record_key(take(&mut rest, key_bytes)?);
                take(&mut rest, value_bytes)?;
            }
            CLEAR => drop(take(&mut rest, 8)?),
            _ => return None,
        }
        checksum.update(&item[..item.len() - rest.len()]);
    }
    (take(&mut rest, 1)? == [END]).then_some(())?;
    let expected = take(&mut rest, 8)?;
    (take(&mut rest, 4)? == TRAILER).then_some(())?;
    let intact = checksum.digest().to_le_bytes() == expected;
    Some(Batch { end: journal.len() - rest.len(), has_log_records, intact })
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

/// A little-endian number of up to four bytes.
fn number(rest: &mut &[u8], bytes: usize) -> Option<usize> {
    Some(take(rest, bytes)?.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

/// Where each batch of the journal begins, and where the last ends.
#[cfg(test)]
pub(super) fn batch_bounds(journal: &[u8]) -> Vec<usize> {
    let mut bounds = vec![0];
    while let Some(batch) = batch_at(journal, bounds[bounds.len() - 1]) {
        bounds.push(batch.end);
    }
    bounds
}
