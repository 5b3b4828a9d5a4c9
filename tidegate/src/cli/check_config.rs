//! `tidegate check-config`: what is in effect, or everything that is wrong.

use clap::Args;

use crate::cli::config_args::ConfigArgs;
use crate::cli::{Failure, print_line};
use crate::config::{self, Profile};

/// Check a configuration, and show what is in effect or what the defaults are
///
/// Prints every key that is in effect with who said it, without secrets, and `ok`; or everything that is wrong.
///
/// Examples:
///
///   tidegate check-config --config tidegate.toml
///
///   tidegate check-config --defaults > tidegate.toml
///
///   TIDEGATE__HISTORY__AGE=2h tidegate check-config
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CheckConfigArgs {
    /// Print all keys with their defaults and what they mean, as a TOML file
    #[arg(long)]
    defaults: bool,
    /// Whose defaults count
    #[arg(long, value_enum, default_value_t = Profile::Dev)]
    profile: Profile,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &CheckConfigArgs) -> Result<(), Failure> {
    if args.defaults {
        return print_line(config::defaults_toml(args.profile).trim_end());
    }
    let loaded = config::load(&args.config.sources(args.profile)?)?;
    print_line(&loaded.effective)?;
    print_line("# ok")
}
