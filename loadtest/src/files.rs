//! The limit of open files, which is what binds first when connections are many.

use anyhow::ensure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a process has open beside its connections.
const OTHERS: u64 = 200;

/// Makes room for so many connections: raises this process's limit as far as it may.
///
/// # Errors
/// When it may not be raised that far; says what to do.
pub fn make_room(connections: usize) -> anyhow::Result<()> {
    let wanted = (connections as u64).saturating_add(OTHERS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let is_enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    if is_enough(current) {
        return Ok(());
    }
    ensure!(
        is_enough(maximum),
        "{connections} connections need {wanted} open files and this process may have {}: ask for fewer, or raise the hard \
         limit (as root: ulimit -Hn {wanted}; or LimitNOFILE= in systemd)",
        maximum.unwrap_or_default()
    );
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_binds_is_named_with_what_to_do() {
        make_room(10).unwrap();
        if let Some(maximum) = getrlimit(Resource::Nofile).maximum {
            let error = make_room(maximum as usize).unwrap_err().to_string();
            assert!(error.contains("ulimit -Hn"), "{error}");
        }
    }
}
