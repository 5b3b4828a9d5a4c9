//! The command line: what can be said, and which command it goes to.
//!
//! Exit codes: 0 done; 1 refused or failed; 2 the command line or the configuration is wrong; 3 not now, a retry may
//! succeed; 130 interrupted twice. What a command found out goes to standard output, everything else to standard error.

mod api;
mod check_config;
mod config_args;
mod gateways;
mod publish;
mod revoke;
mod ring;
mod serve;
mod table;
mod tail;
mod tls;
mod token;
mod topics;
mod users;
mod version;

use std::fmt::Display;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigErrors;

/// A connection gateway cluster: backends publish events, clients receive them over WebSocket, Server-Sent Events,
/// HTTP streaming, long polling or short polling, and miss nothing when they come back.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused or failed, 2 the command line or the configuration is wrong, \
                          3 not now: a retry may succeed.\n\nBegin with `tidegate dev`; it prints what to try next.";

#[derive(Debug, Subcommand)]
enum Command {
    Dev(serve::DevArgs),
    Gateway(serve::GatewayArgs),
    Router(serve::RouterArgs),
    Registry(serve::RegistryArgs),
    Topics(topics::TopicsArgs),
    Ring(ring::RingArgs),
    Publish(publish::PublishArgs),
    Tail(tail::TailArgs),
    Where(users::WhereArgs),
    Presence(users::PresenceArgs),
    Direct(users::DirectArgs),
    Disconnect(users::DisconnectArgs),
    Token(token::TokenArgs),
    Revoke(revoke::RevokeArgs),
    CheckConfig(check_config::CheckConfigArgs),
    Version(version::VersionArgs),
}

/// Runs the command and says how it ended.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let ended = match cli.command {
        Command::Dev(args) => args.run(),
        Command::Gateway(args) => args.run(),
        Command::Router(args) => args.run(),
        Command::Registry(args) => args.run(),
        Command::Topics(args) => topics::run(&args),
        Command::Ring(args) => ring::run(&args),
        Command::Publish(args) => publish::run(args),
        Command::Tail(args) => tail::run(args),
        Command::Where(args) => users::locate(args),
        Command::Presence(args) => users::presence(args),
        Command::Direct(args) => users::direct(args),
        Command::Disconnect(args) => users::disconnect(args),
        Command::Token(args) => token::run(&args),
        Command::Revoke(args) => revoke::run(args),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::Version(args) => version::run(&args),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tidegate: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// Refused, or failed for good.
    fn refused(text: impl Display) -> Self {
        Self { code: 1, text: text.to_string() }
    }

    /// The command line or the configuration is wrong.
    fn usage(text: impl Display) -> Self {
        Self { code: 2, text: text.to_string() }
    }

    /// The same command may succeed later.
    fn not_now(text: impl Display) -> Self {
        Self { code: 3, text: text.to_string() }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::usage(format!("{errors}\nAll keys and their defaults: tidegate check-config --defaults"))
    }
}

/// A runtime for the commands that talk to a server.
fn client_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failure::refused(format!("no runtime could be started: {error}")))
}

/// Prints a line; whoever reads may have gone, which ends the command quietly.
fn print_line(line: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => {
            written.map_err(|error| Failure::refused(format!("standard output cannot be written: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_explains_itself() {
        let command = Cli::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            for arg in sub.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", sub.get_name(), arg.get_id());
            }
        }
    }
}
