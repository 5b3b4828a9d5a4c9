//! What commands write while they run.

use std::io::{IsTerminal as _, Write as _};

/// Lines that end stay. Others are how things stand: on a terminal each takes the place of the one before.
pub(super) fn show(line: &str) {
    let mut stderr = std::io::stderr();
    let is_lasting = line.ends_with('\n');
    let _nobody_may_look = match (stderr.is_terminal(), is_lasting) {
        (true, _) => write!(stderr, "\r\x1b[K{line}"),
        (false, true) => write!(stderr, "{line}"),
        (false, false) => Ok(()),
    };
}
