//! What a refused write means. The engine refuses all writes after one that failed, its background work included:
//! every failure lasts until the process is started anew.

use std::io;

use crate::AppendError;
use crate::store;

/// What appends and `health` answer from now on. `short_of_room` is what the file system says: a failure of the
/// background work comes without a cause of its own.
pub(super) fn lasting(error: &fjall::Error, short_of_room: bool) -> AppendError {
    let full = store::io_error(error).map_or(short_of_room, store::is_full);
    let cause = match store::io_error(error) {
        Some(cause) => format!("the store could not be written ({cause})"),
        None => format!("the store stopped when its background work failed ({error})"),
    };
    if full {
        AppendError::Full { reason: format!("{cause}: free some space, then restart") }
    } else {
        let advice = match store::io_error(error).map(io::Error::kind) {
            Some(io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => {
                "make the data directory writable"
            }
            Some(_) => "check the disk",
            None => "see the log for the first failure",
        };
        AppendError::Unavailable { reason: format!("{cause}: {advice}, then restart") }
    }
}

/// What the appends of the batch in question are answered.
pub(super) fn of_batch(error: &fjall::Error, lasting: &AppendError) -> AppendError {
    match error {
        // The engine looks at its flag before it writes: such a batch was never begun.
        fjall::Error::Poisoned => lasting.clone(),
        // Some or all of it may be in the journal. What is found when the store is opened again is the whole
        // batch or nothing of it, and nothing follows it.
        _ => AppendError::Indeterminate { reason: lasting.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: fjall::Error, short_of_room: bool, full: bool, indeterminate: bool, advice: &str) {
        let lasting = lasting(&error, short_of_room);
        assert_eq!(matches!(lasting, AppendError::Full { .. }), full, "{error}: {lasting}");
        assert!(lasting.to_string().contains(advice) && lasting.to_string().contains("restart"), "{lasting}");
        let batch = of_batch(&error, &lasting);
        assert_eq!(matches!(batch, AppendError::Indeterminate { .. }), indeterminate, "{error}: {batch}");
    }

    #[test]
    fn a_failed_write_is_never_called_a_failure_of_the_append() {
        let io = |kind| fjall::Error::Io(kind);
        use io::ErrorKind::{FileTooLarge, Other, PermissionDenied, ReadOnlyFilesystem, StorageFull};
        check(io(StorageFull.into()), false, true, true, "free some space");
        check(io(FileTooLarge.into()), false, true, true, "free some space");
        check(
            fjall::Error::Storage(fjall::LsmError::Io(StorageFull.into())),
            false,
            true,
            true,
            "free some space",
        );
        check(io(ReadOnlyFilesystem.into()), true, false, true, "writable");
        check(io(PermissionDenied.into()), false, false, true, "writable");
        check(io(Other.into()), false, false, true, "check the disk");
        check(fjall::Error::Poisoned, false, false, false, "see the log");
        check(fjall::Error::Poisoned, true, true, false, "free some space");
    }
}
