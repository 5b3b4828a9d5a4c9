//! `tidegate version`.

use clap::Args;

use crate::cli::{Failure, print_line};
use crate::version::VERSION;

/// Print the version, the commit it was built from and the compiler
#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VersionArgs) -> Result<(), Failure> {
    if args.json {
        let object = serde_json::json!({
            "version": VERSION.number,
            "commit": VERSION.commit,
            "rustc": VERSION.rustc,
            "target": VERSION.target,
        });
        return print_line(&object.to_string());
    }
    print_line(&format!("tidegate {}", VERSION.number))?;
    print_line(&format!("commit {}", VERSION.commit.unwrap_or("unknown")))?;
    print_line(&format!("rustc {} for {}", VERSION.rustc, VERSION.target))
}
