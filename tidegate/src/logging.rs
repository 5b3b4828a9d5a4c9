//! Log lines on standard error: JSON for machines, text on a terminal.
//!
//! Nobody logs a token, a query string or what an event carries.

use std::io::IsTerminal as _;

use tidegate_telemetry::Exporter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::{LogFormat, LoggingConfig};

/// What the storage engine says while all is well is of no use to operators. The configured level comes after it and
/// may say otherwise.
const QUIET: &str = "fjall=warn,lsm_tree=warn";

/// Why lines could not be directed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is no filter; validation refuses that before.
    #[error("logging.level is no filter: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody in this process logs already.
    #[error("logging is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Begins to log for the whole process, panics of any thread among it; spans go to the exporter, if there is one.
///
/// # Errors
/// When it was called before.
pub fn start(config: &LoggingConfig, exporter: Option<&Exporter>) -> Result<(), LoggingError> {
    let filter = EnvFilter::builder().parse(format!("{QUIET},{}", config.level))?;
    let is_terminal = std::io::stderr().is_terminal();
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !is_terminal,
    };
    let registry = tracing_subscriber::registry().with(exporter.map(Exporter::layer));
    if json {
        let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false);
        registry
            .with(lines.with_span_list(false).with_writer(std::io::stderr).with_filter(filter))
            .try_init()?;
    } else {
        let lines = tracing_subscriber::fmt::layer().with_ansi(is_terminal).with_target(false);
        registry.with(lines.with_writer(std::io::stderr).with_filter(filter)).try_init()?;
    }
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        let message = panic.payload_as_str().unwrap_or_default();
        tracing::error!(location, thread, message, "thread panicked");
    }));
    Ok(())
}
